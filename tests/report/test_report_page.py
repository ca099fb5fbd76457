"""The page as text: what it says, that it loads nothing, and that every kind of solution has one."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from report_pages import X, Y, solved

import kernelfield as kf
from kernelfield import report
from kernelfield.datasets import digits, gaussian
from kernelfield.files.config import parse
from kernelfield.plotting import summary
from kernelfield.report.inputs import chart_inputs
from kernelfield.report.reproduce import find_source
from kernelfield.report.result import number_results
from kernelfield.report.words import format_interval, format_number, format_with_error
from kernelfield.solution.status import Status
from suites import keep_fast


class Page(HTMLParser):
    """Text by the id of the section that it is in, attributes by tag, and whole elements with an id."""

    def __init__(self, html):
        super().__init__()
        self.section, self.inside, self.element = "header", [], None
        self.text, self.elements, self.tags = {}, {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.inside.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        if tag in ("pre", "script") and "id" in attributes:
            self.element = attributes["id"]

    def handle_endtag(self, tag):
        self.element = None if tag in ("pre", "script") else self.element
        if tag in ("dd", "dt", "td", "th", "p", "a"):
            self.handle_data(" ")
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.element:
            self.elements[self.element] = self.elements.get(self.element, "") + data
        if not {"script", "style"} & set(self.inside):
            self.text[self.section] = self.text.get(self.section, "") + data

    def words(self, section):
        return " ".join(self.text.get(section, "").replace("\N{NO-BREAK SPACE}", " ").split())

    @property
    def data(self):
        return json.loads(self.elements["page-data"])


@pytest.fixture(scope="session")
def page(page_file):
    return Page(page_file.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(page_file, page):
    text = page_file.read_text(encoding="utf-8")
    targets = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert targets and all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"""@import|url\(\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in next(tag["content"] for _, tag in page.tags if "http-equiv" in tag)


def test_the_page_says_what_was_solved(page):
    assert "2 hidden layers (gamma0 = 1) learned 6 points in 5 dimensions" in page.words("header")
    assert "4 × 64 sampled neurons (infinite), beside 3 networks of width 32 (finite)" in page.words("header")
    solved_section = page.words("solved")
    assert "March(particles=64" in solved_section and "FiniteWidth(width=32" in solved_section
    assert "5 of 5" in solved_section and "seconds" in solved_section
    assert "Checked: all results have the same inputs, targets, loss, depth and training rule." in solved_section


def test_numbers_of_the_comparison_are_those_of_compare(page, pair):
    found = kf.compare(pair["finite"], pair["infinite"])
    said = page.words("comparison")
    for row in found.rows:
        assert format_with_error(100 * row.error, 100 * row.error_se) in said
    row = found.row("predictions")
    assert f"Predictions differ by {format_with_error(100 * row.error, 100 * row.error_se)} %" in said


def test_final_loss_has_its_interval(page, pair):
    low, high = pair["infinite"].estimate("loss").interval(0.95)
    assert f"{format_number(pair['infinite'].loss[-1], 4)} 95 %: {format_interval(low[-1], high[-1])}" in page.words(
        "header"
    )


def kernels_of(movie, result, key):
    """The kernels (frames, n, n) that the page holds of one panel."""
    import base64

    panel, size = movie["results"][result]["panels"][key], len(movie["samples"])
    codes = np.frombuffer(base64.b64decode(panel["data"]), "<i2").reshape(panel["frames"], -1)
    kernels = np.zeros((panel["frames"], size, size))
    rows, columns = np.tril_indices(size)
    kernels[:, rows, columns] = kernels[:, columns, rows] = codes / 32767 * panel["scale"]
    return kernels


@pytest.mark.parametrize("name", ["Φ¹", "Φ²", "G¹", "G²", "NTK"])
def test_frames_of_the_slider_are_the_kernels_of_the_solution(page, pair, name):
    movie = page.data["movie"]
    assert movie["steps"] == list(range(6)) and movie["samples"] == list(range(6))
    for number, solution in enumerate(pair.values()):
        kernel, layer = name.rstrip("¹²"), {"¹": 1, "²": 2}.get(name[-1])
        names = {"Φ": "feature_kernel", "G": "gradient_kernel", "NTK": "ntk"}
        truth = [solution.estimate(names[kernel], *([layer] if layer else []), t=t).mean for t in range(6)]
        assert np.abs(kernels_of(movie, number, name) - truth).max() <= np.abs(truth).max() / 32767


def test_samples_are_ordered_by_target_and_test_points_come_last():
    problem = kf.Problem(X, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], weights=[1, 1, 1, 1, 0, 0])
    page = Page(report.page({"a": solved(kf.DeepLinear(), problem=problem)}))
    assert page.data["movie"]["samples"] == [0, 2, 1, 3, 4, 5]
    assert "4 points in 5 dimensions (2 more ride along as test points)" in page.words("header")
    assert "final test loss" in page.words("header")


@pytest.mark.thorough
def test_what_is_thinned_out_is_said_and_keeps_the_page_small():
    rng = np.random.default_rng(0)
    many = kf.Problem(rng.standard_normal((66, 4)), rng.choice([-1.0, 1.0], 66))
    solution = solved(kf.StaticNTK(), "tanh", problem=many, steps=60)
    text = report.page({"a": solution, "b": solution})
    page = Page(text)
    assert len(text) < 6e6
    assert "it holds 40 of the 61 steps" in page.words("kernels") and "64 of the 66 samples" in page.words("kernels")
    assert page.data["movie"]["results"][0]["panels"]["NTK"]["frames"] == 1  # it rests


def test_densities_integrate_to_one_and_have_every_recorded_step(page):
    found = page.data["densities"]
    assert found["steps"] == list(range(6)) and list(found["fields"]) == ["h", "z", "g"]
    at = found["curves"]["h"]["1"]["at"]["5"]
    for columns in (at["density-1-0"], at["density-1-1"], at["density-1-gaussian"]):
        widths = np.array(columns["right"]) - columns["left"]
        assert np.isclose(widths @ columns["y"], 1.0, atol=0.02)


def test_names_and_titles_are_escaped(pair):
    evil = "</script><script>alert(1)</script><b>"
    text = report.page({evil: pair["infinite"], "b": pair["finite"]}, title=evil)
    assert evil not in text and "alert(1)</script>" not in text
    assert f"<title>{evil.replace('<', '&lt;').replace('>', '&gt;')}</title>" in text


METHODS = {
    "one network, no kernels": (kf.FiniteWidth(width=16, seeds=1, kernels="none"), "tanh"),
    "features alone": (kf.March(particles=64, kernels="features"), "tanh"),
    "static": (kf.StaticNTK(), "relu"),
    "deep linear": (kf.DeepLinear(), "linear"),
    "gradient independence": (kf.GradientIndependence(), "linear"),
}


@pytest.mark.parametrize("name", keep_fast(METHODS, "static", "deep linear"))
def test_every_kind_of_solution_has_a_page(name):
    method, activation = METHODS[name]
    page = Page(report.page({"a": solved(method, activation)}))
    assert type(method).__name__ in page.words("solved")
    assert "final training loss" in page.words("header") and "[network]" in page.words("reproduce")


def test_what_was_not_recorded_is_said_and_left_out():
    method, activation = METHODS["one network, no kernels"]
    page = Page(report.page({"a": replace(solved(method, activation), field_samples={})}))
    assert "Kernels were not tracked" in page.words("solved") and "No samples of activations" in page.words("solved")
    assert not {"kernels", "movement", "activations", "comparison"} & set(page.text)
    assert page.data["movie"] is None
    assert "one replicate, no error bar" in page.words("header")
    assert "a: a single replicate" in page.words("errors")
    method, activation = METHODS["features alone"]
    page = Page(report.page({"a": solved(method, activation)}))
    assert "Gradient kernels and the tangent kernel were not tracked" in page.words("solved")
    assert [row["kind"] for row in page.data["movie"]["rows"]] == ["Phi"]


def test_exact_solutions_have_no_error_bars():
    page = Page(report.page({"a": solved(kf.DeepLinear())}))
    assert "final training loss" in page.words("header") and "exact" in page.words("header")
    assert "solved without sampling" in page.words("errors") and "Student" not in page.words("errors")


@pytest.mark.thorough
def test_a_run_that_failed_is_shown_first(pair):
    status = Status("diverged", "the loss exceeded 1000 times its initial value at step 4: try less")
    early = replace(
        pair["infinite"], status=status, replicate_predictions=pair["infinite"].replicate_predictions[:, :4]
    )
    page = Page(report.page({"early": early}))
    assert "early: diverged after 3 of 5 steps" in page.words("header")
    assert "The loss exceeded 1000 times" in page.words("header")
    assert ("div", {"class": "warning", "role": "alert"}) in page.tags
    beside = Page(report.page({"all": pair["finite"], "early": early}))
    assert beside.data["movie"]["results"][1]["reached"] == 4


def test_solutions_of_different_problems_are_refused(pair):
    other = solved(kf.DeepLinear(), problem=kf.Problem(X, -Y))
    with pytest.raises(ValueError, match="b and a cannot be in one report: y must be the same in both solutions"):
        report.page({"a": pair["infinite"], "b": other})
    with pytest.raises(ValueError, match="a report needs at least one solution"):
        report.page({})


@pytest.mark.parametrize(
    "problem", [digits(classes=(8, 3), points=6, seed=5), digits(points=4), gaussian(5, 3, seed=2)]
)
def test_the_configuration_makes_the_same_run(problem):
    solution = solved(kf.DeepLinear(seed=3), problem=problem)
    page = Page(report.page({"a": solution}))
    config = parse(page.elements["toml1"])
    assert (config.network, config.training) == (solution.network, solution.training)
    assert config.method("deep_linear") == solution.method
    np.testing.assert_array_equal(config.problem().X, problem.X)
    np.testing.assert_array_equal(config.problem().y, problem.y)
    assert page.elements["shell1"] == "kernelfield solve run.toml -o deep_linear.nc --method deep_linear"


@pytest.mark.thorough
def test_data_of_unknown_origin_are_written_out_by_the_lines_on_the_page(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair["infinite"].save("my result.nc")
    page = Page(report.page(pair, files={"infinite": "my result.nc"}))
    assert "is not recorded in the result" in page.words("reproduce") and "X 6 x 5" in page.words("reproduce")
    exec(page.elements["extraction"])
    config = parse(page.elements["toml1"])
    np.testing.assert_array_equal(config.problem().X, X)
    assert config.method("march") == pair["infinite"].method and config.method("finite") == pair["finite"].method
    assert page.elements["shell1"].splitlines() == [
        "kernelfield solve run.toml -o 'my result.nc'",
        "kernelfield train run.toml -o finite.nc",
    ]


def test_data_that_only_look_like_digits_are_not_called_digits():
    problem = digits(points=4)
    assert find_source(problem).known
    assert not find_source(kf.Problem(problem.X * (1 + 1e-12), problem.y)).known


def test_versions_are_shown(pair):
    page = Page(report.page(pair, versions={"infinite": {"kernelfield": "9.8.7", "jax": "1.2.3"}}))
    assert "Versions that made infinite: kernelfield 9.8.7, jax 1.2.3." in page.words("reproduce")


def test_nothing_is_written_if_the_page_cannot_be_made(pair, tmp_path):
    other = solved(kf.DeepLinear(), problem=kf.Problem(X, -Y))
    with pytest.raises(ValueError, match="cannot be in one report"):
        report.write(tmp_path / "a.html", {"a": pair["infinite"], "b": other})
    with pytest.raises(ValueError, match=r"must end in \.html or \.htm, got a\.pdf"):
        report.write(tmp_path / "a.pdf", pair)
    with pytest.raises(FileNotFoundError, match=r"the folder .* for a\.html does not exist"):
        report.write(tmp_path / "none" / "a.html", pair)
    assert not list(tmp_path.iterdir())


def test_a_page_of_several_outputs_and_mini_batches(several_outputs):
    page = Page(report.page({"infinite": several_outputs}))
    header, movie = page.words("header"), page.data["movie"]
    assert "4 points in 4 dimensions with 3 outputs (1 more ride along as test points)" in header
    assert (
        "by the loss cross_entropy by stochastic gradient descent, batches of 2, 3 epochs, learning rate 0.3" in header
    )
    assert "momentum 0.5, a cosine schedule" in header and "final test accuracy" in header
    assert page.data["unit"] == "epoch" and movie["targets"] == ["class 0", "class 1", "class 1", "class 2", "class 0"]
    assert np.allclose(movie["times"], several_outputs.times)
    order = [0, 1, 3, 2, 4]
    NTK = np.einsum("mcnc->mn", several_outputs.ntk().reshape(5, 3, 5, 3))[np.ix_(order, order)] / 3
    assert np.abs(kernels_of(movie, 0, "NTK")[-1] - NTK).max() <= 1e-4 * np.abs(NTK).max()
    toml = next(text for name, text in page.elements.items() if "toml" in name or "[training]" in text)
    assert parse(toml).training == several_outputs.training


@pytest.mark.thorough
def test_kernels_without_both_ends_are_not_on_the_page(tmp_path):
    solutions = {
        "one": solved(kf.March(particles=64), "tanh", save_at=[1, 3]),
        "two": solved(kf.FiniteWidth(width=16, seeds=2), "tanh", save_at=[1, 3]),
    }
    report.write(tmp_path / "page.html", solutions)
    text = (tmp_path / "page.html").read_text()
    assert "Kernels were not tracked in this run" in text
    assert not summary.record(solutions["one"])["kernels"]
    assert len(summary.draw(solutions["one"]).axes) == 1


@pytest.mark.thorough
def test_the_inputs_that_a_table_model_uses_are_named():
    rng = np.random.default_rng(0)
    problem, info = (
        kf.Problem(rng.standard_normal((12, 3)), rng.standard_normal(12)),
        {"names": ["age", "b = x", "b = y"]},
    )
    solution = kf.solve(
        kf.MLP(depth=1, activation="erf"),
        problem,
        kf.GradientDescent(learning_rate=0.2, steps=3),
        kf.March(particles=64, replicates=2),
        progress=False,
    )
    named = replace(solution, info={**solution.info, "table": info})
    (chart,) = chart_inputs(number_results({"a": named, "b": solution}))
    assert set(chart.plot.y_range.factors) == set(info["names"]) and len(chart.keys) == 2
    (chart,) = chart_inputs(number_results({"a": solution}))
    assert set(chart.plot.y_range.factors) == {"input 1", "input 2", "input 3"} and "AGOP" in chart.note
    assert chart_inputs(number_results({"a": replace(solution, predictor=None)})) == []
    assert "Inputs that it uses" in report.page({"a": named})
