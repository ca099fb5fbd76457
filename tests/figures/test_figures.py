"""Figures of the paper, from smaller runs than --quick: what is on them, and that theory and networks agree."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import kernelfield as kf
from kernelfield import observables, parameterization
from kernelfield.cli import app, main
from kernelfield.figures import (
    FIGURES,
    OF_IMAGES,
    Settings,
    figure1,
    figure2,
    figure4,
    rules,
    scaling,
    transfer,
    transformer,
    two_layer_relu,
)
from kernelfield.figures.common import Settings as SameSettings
from kernelfield.figures.common import say_loss, share_inside
from kernelfield.solution.estimate import Estimate
from solutions import with_parts

pytestmark = pytest.mark.thorough
TEXT = {"1": "tanh", "2": "linear", "relu": "ReLU"}


def texts(figure):
    """Everything written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


@pytest.fixture(scope="module")
def made():
    """Figures and the lines said about them, by name, from the smallest plans that show everything."""
    found = {}

    def images():
        problem, names, data = Settings().images(6)
        plan = figure1.Plan(steps=12, particles=256, width=512, smaller=(32,), seeds=3, lazy_seeds=2)
        runs = figure1.run(plan, problem, names, data, lines.append)
        return figure1.draw_figure(runs, lines.append), runs

    def linear():
        plan = figure2.Plan(points=6, steps=12, depths=(1, 2), width=512, seeds=3)
        runs = figure2.run(plan, lines.append)
        return figure2.draw_figure(runs, lines.append), runs

    def relu():
        plan = two_layer_relu.Plan(8, 12, 15, (0.5, 2.0), particles=512, width=1024, seeds=3)
        runs = two_layer_relu.run(plan, lines.append)
        return two_layer_relu.draw_figure(plan, runs, lines.append), runs

    for name, make in (("1", images), ("2", linear), ("relu", relu)):
        lines = []
        figure, runs = make()
        found[name] = figure, runs, lines
    return found


@pytest.mark.parametrize("name", TEXT)
def test_settings_are_written_on_the_figure(made, name):
    written = texts(made[name][0])
    for setting in (TEXT[name], "P = ", "D = ", "eta", "steps", "gamma_0", "width"):
        assert setting in written


@pytest.mark.parametrize("name", TEXT)
def test_every_figure_says_how_well_networks_agree(made, name):
    said = "\n".join(made[name][2])
    shares = [int(found) for found in re.findall(r"95 % interval at (\d+) % of steps", said)]
    assert len(shares) >= 2 and all(0 <= share <= 100 for share in shares)
    errors = re.findall(r"(?:Phi|G|NTK)(?: \d)? ([\d.e+-]+) \(([\d.e+-]+)\)", said)
    assert errors and all(float(error) < 5 * float(noise) + 8 for error, noise in errors)  # %; and a bias of 1/N


def test_figure_1_has_all_panels_of_the_paper(made):
    figure, runs, _ = made["1"]
    headings = [axes.get_title(loc="left") for axes in figure.axes] + [
        part.get_suptitle() for row in figure.subfigs for part in row.subfigs
    ]
    letters = {heading[0] for heading in headings if heading}
    assert letters == set("abcdefghi")
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_subplotspec() is not None]
    assert len(images) >= 4 * 2 * figure1.DEPTH
    assert list(runs.growing) == [32, 512] and runs.growing[512] is runs.rich_finite


def test_panels_of_a_row_share_their_colour_scale_and_hold_what_they_say(made):
    figure, runs, _ = made["1"]
    panel = figure.subfigs[1].subfigs[0]
    images = [axes.images[0] for axes in panel.axes if axes.images]
    assert len({image.get_clim() for image in images}) == 1
    np.testing.assert_array_equal(images[2].get_array(), runs.rich.feature_kernel(3))
    np.testing.assert_array_equal(images[5].get_array(), runs.rich_finite.feature_kernel(3))


def test_samples_are_ordered_by_target():
    from kernelfield.figures.common import draw_sample_kernels, new_figure

    problem = kf.Problem(np.eye(4), [1.0, -1.0, 1.0, -1.0])
    kernel = np.outer(problem.y, problem.y)
    axes = draw_sample_kernels(new_figure(4, 4), {"one": [kernel]}, ["K"], "K", problem)
    sign = np.array([1, 1, -1, -1])
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), np.outer(sign, sign))


def test_networks_come_closer_to_infinite_width_as_they_grow(made):
    _, runs, _ = made["1"]
    for kernel in ("Phi", "G"):
        found = [
            float(observables.cosine_alignment(each, runs.rich, kernel, 2, t=-1).mean) for each in runs.growing.values()
        ]
        assert found == sorted(found) and found[-1] > 0.97


def test_kernels_of_samples_are_those_that_are_recorded():
    """What the ReLU figure shows, which records none."""
    problem = two_layer_relu.teacher(6, 8)
    network, training = kf.MLP(depth=1, activation="relu", gamma0=2.0), kf.GradientDescent(learning_rate=0.2, steps=9)
    every, bare = (
        kf.solve(network, problem, training, kf.March(particles=256, replicates=2, kernels=kernels))
        for kernels in ("all", "none")
    )
    np.testing.assert_array_equal(bare.predictions, every.predictions)
    for kernel in ("Phi", "G"):
        sampled = two_layer_relu.sampled_kernel(bare, kernel).mean
        recorded = every.feature_kernel(1) if kernel == "Phi" else every.gradient_kernel(1)
        np.testing.assert_allclose(sampled, recorded, atol=2e-3 * np.abs(recorded).max())


def with_losses(solution, losses):
    """A solution of one point y = 0 whose replicates have the given losses (R, T)."""
    predictions = np.sqrt(2 * np.asarray(losses, dtype=float))[..., None]
    changed = with_parts(solution, problem=kf.Problem([[1.0]], [0.0]))
    return replace(changed, replicate_predictions=predictions, exact=False)


def test_the_share_of_steps_inside_the_interval_is_counted(small_solution):
    spread = np.array([[-0.1], [0.1]])
    finite = with_losses(small_solution, 1 + np.array([0.0, 0.0, 0.0, 0.5, 0.5]) + spread)
    exact = with_losses(small_solution, np.ones((1, 5)))
    reach = 12.706 * 0.1  # Student's t with one degree of freedom
    assert share_inside(finite, exact) == 1
    assert share_inside(finite, with_losses(small_solution, [[1, 1 + 0.9 * reach, 1 + 1.1 * reach, 1.5, 9]])) == 0.5
    lines = []
    say_loss("some", finite, exact, lines.append)
    assert "at 100 % of steps" in lines[0]


def test_growth_is_measured_layer_by_layer(made):
    _, runs, _ = made["2"]
    solution = runs.infinite[2]
    found, y = figure2.measure_layers(solution, figure2.growth), solution.problem.y
    assert isinstance(found, Estimate) and found.replicates.shape == (1, 3)
    assert found.mean[0] == pytest.approx(1)
    assert found.mean[2] == pytest.approx(y @ solution.feature_kernel(2) @ y / (y @ solution.problem.input_kernel @ y))


def test_ctrl_c_keeps_the_figures_that_were_done(tmp_path, monkeypatch, capsys):
    def draw(settings, say):
        yield "first", Figure()
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    monkeypatch.setattr("kernelfield.figures.FIGURES", {"one": draw})
    with pytest.raises(SystemExit) as ended:
        main(["figures", "one", "--out", str(tmp_path / "made")])
    assert ended.value.code == 130 and "figures that were done are kept" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["first.png"]


def test_every_figure_that_takes_images_takes_settings():
    assert set(OF_IMAGES) <= set(FIGURES) and Settings is SameSettings
    problem, names, data = Settings(quick=True).images(4)
    assert problem.points == 4 and names == ("0", "1") and "digits" in data


# --- Convolutional networks, and depth


@pytest.fixture(scope="module")
def convolutional():
    plan = figure4.Plan(
        gammas=(1.0, 10.0), depth=1, points=8, tests=8, channels=(8, 16), seeds=2, batch=4, epochs=10,
        few=2, few_tests=2, few_steps=10, few_channels=(8, 64), few_rate=0.1, particles=512,
    )  # fmt: skip
    lines = []
    runs = figure4.run(plan, Settings(), lines.append)
    return figure4.draw_figure(plan, runs, Settings(), lines.append), runs, lines


def test_figure_4_says_how_far_channels_and_gamma0_are_apart(convolutional):
    figure, runs, lines = convolutional
    assert [axes.get_title(loc="left")[0] for axes in figure.axes] == list("abcdef")
    said = "\n".join(lines)
    for measure in ("test loss", "test error", "alignment"):
        assert re.search(rf"{measure}.*: apart by [\d.e-]+ across N at fixed gamma0, [\d.e-]+ across gamma0", said)
    assert "N = 16" in texts(figure) and "theory" in texts(figure) and "digits 4 and 9" in texts(figure)
    assert {key[0] for key in runs.many} == {1.0, 10.0} == set(runs.theory)


def test_theory_goes_through_the_networks_on_few_images(convolutional):
    _, runs, lines = convolutional
    assert len(re.findall(r"few images, .* from theory \([\d.e-]+ expected\)", "\n".join(lines))) == 2 * 2 * 3
    for gamma0, theory in runs.theory.items():
        networks = runs.few[gamma0, 64]
        for measure in figure4.MEASURES_OF_FEW.values():
            one, other = measure(theory), measure(networks)
            np.testing.assert_allclose(one.mean[-1], other.mean[-1], rtol=0.2, atol=4 * other.se[-1])


def test_measures_on_images_that_do_not_train():
    problem = figure4.images(Settings(), 4, 2)
    assert problem.X.shape == (6, 4, 4, 1) and ((problem.weights > 0) == [1, 1, 0, 1, 1, 0]).all()
    assert (problem.y == [1, 1, 1, -1, -1, -1]).all()
    network, training = kf.CNN(depth=1, activation="relu"), kf.GradientDescent(learning_rate=0.1, steps=2)
    solution = kf.solve(network, problem, training, kf.FiniteWidth(width=4, seeds=2), fields_at=(0, 2))
    assert figure4.recorded_steps(solution) == [0, 2]
    np.testing.assert_allclose(
        figure4.margin(solution).mean, (solution.predictions[:, 2] - solution.predictions[:, 5]) / 2, atol=1e-6
    )
    h = solution.field_samples[1, 2]["h"][:, [2, 5]]
    for found, fields in zip(figure4.alignment(solution).replicates[:, 1], h, strict=True):
        features = np.maximum(fields, 0).reshape(2, 16, 4).mean(axis=1)  # images, sites, channels
        Phi = features @ features.T
        assert found == pytest.approx((Phi[0, 0] + Phi[1, 1] - 2 * Phi[0, 1]) / (2 * np.linalg.norm(Phi)), abs=1e-5)


def test_spread_of_curves_that_depend_on_gamma0_alone():
    curves = {(gamma0, N): np.full(5, gamma0 + noise) for gamma0 in (1.0, 4.0) for N, noise in ((8, 0.0), (16, 0.1))}
    across_channels, across_gamma0 = figure4.spread(curves)
    assert across_channels == pytest.approx(0.1) and across_gamma0 == pytest.approx(3.0)


def test_marked_rows_have_both_ends():
    assert figure4.choose_rows(75) == [0, 8, 15, 22, 30, 38, 45, 52, 60, 68, 75]
    assert figure4.choose_rows(4) == [0, 1, 2, 3, 4]


def test_a_curve_of_mini_batches_has_a_row_for_every_epoch(convolutional):
    _, runs, _ = convolutional
    for solution in runs.many.values():
        assert isinstance(solution.training, kf.SGD) and len(solution.predictions) == 11
        np.testing.assert_allclose(solution.times, 0.1 * 2 * np.arange(11))
        assert figure4.recorded_steps(solution) == list(range(11))


# --- Transformers


def test_the_answer_is_the_value_of_the_key_in_question():
    rows = transformer.choose_sequences(200)
    assert len(np.unique(rows, axis=0)) == 200
    ids, y = transformer.encode(rows), transformer.answer(rows)
    keys, values = ids[:, :-1] // transformer.VALUES, ids[:, :-1] % transformer.VALUES
    found = keys == ids[:, -1:] - transformer.KEYS * transformer.VALUES
    assert (found.sum(axis=1) == 1).all() and (values[found] == y.argmax(axis=1)).all()
    for item in range(transformer.ITEMS):
        changed = transformer.change_value(rows, item)
        assert ((transformer.answer(changed) != y).any(axis=1) == (rows[:, -1] == item)).all()
        assert ((transformer.encode(changed) != ids).sum(axis=0) == [200 * (item == place) for place in range(4)]).all()


# --- Learning rules


def test_hebb_sees_images_without_their_mean():
    problem = rules.Plan().problem()
    np.testing.assert_allclose(problem.X.mean(axis=0), 0, atol=1e-12)
    assert np.mean(problem.X**2) == pytest.approx(1) and problem.y.sum() == 0


# --- Transfer of learning rates


def test_plain_layers_of_one_rate_are_what_standard_says():
    """Oracle: the standard form of what is trained: std 1 / sqrt(fan_in), and one learning rate."""
    rng, N, rate = np.random.default_rng(0), 16, 0.02
    problem = kf.Problem(rng.standard_normal((4, 6)), rng.standard_normal(4))
    mine, images, training = transfer.standard(kf.MLP(depth=2, activation="tanh"), problem, rate, N, steps=5)
    numbers = parameterization.to_standard(mine, images, training, N)
    assert [row.std for row in numbers][1:] == pytest.approx([N**-0.5, N**-0.5])
    assert [row.learning_rate for row in numbers][1:] == pytest.approx([rate, rate])
    # of the first layer the product W x counts: its spread, and how far a step moves it
    first, size = numbers["W0"], images.X[0, 0] / problem.X[0, 0]
    assert first.std * size == pytest.approx(6**-0.5) and first.learning_rate * size**2 == pytest.approx(rate)


@pytest.mark.parametrize("panel", transfer.PANELS)
def test_losses_at_the_best_rate_are_least(panel):
    rates, problem = [0.5, 1.0, 2.0], transfer.QUICK.problem()
    finals = {
        rate: transfer.Final(Estimate(np.array([loss, loss])), diverged)
        for rate, loss, diverged in zip(rates, (0.2, 0.1, 0.05), (False, False, True), strict=True)
    }
    assert transfer.best_rate(finals) == 1.0 and np.isnan(transfer.rate_to_reach(finals, 0.05))
    assert transfer.rate_to_reach(finals, 0.2 * 2**-0.5) == pytest.approx(2**-0.5)
    network, images, training = transfer.describe(panel, 1e-3, 16, 3, problem)
    final = transfer.train(network, images, training, kf.FiniteWidth(width=16, seeds=2, kernels="none"))
    assert not final.diverged and final.loss.mean < 0.5


@pytest.mark.filterwarnings("ignore:.* is left out")  # at rates near divergence
def test_losses_at_equal_rates_agree_with_infinite_width_in_mup():
    rates = {"SGD": [0.5, 1.0, 50.0], "Adam": [0.05, 0.1], "standard": [1e-3, 2e-3]}
    plan = replace(transfer.QUICK, rates=rates, seeds={16: 16, 256: 16})
    lines = []
    curves = transfer.run(plan, lines.append)
    figure, said = transfer.draw_figure(plan, curves, lines.append), "\n".join(lines)
    assert [axes.get_title(loc="left")[0] for axes in figure.axes] == list("abc")
    assert said.count("best learning rate") == 3 and "50: diverged" in said and "diverged" in texts(figure)
    for panel in ("SGD", "Adam"):
        for rate, final in curves[panel][np.inf].items():
            loss = curves[panel][256][rate].loss
            assert final.diverged or abs(final.loss.mean - loss.mean) < 5 * np.hypot(final.loss.se, loss.se)
    plain = curves["standard"]
    for rate in rates["standard"]:  # the same rate goes further in wider networks
        assert plain[256][rate].loss.mean < plain[16][rate].loss.mean - 5 * plain[16][rate].loss.se


# --- Scaling laws


def test_laws_of_data_share_their_points_and_end_in_those_of_steps():
    plan, lines = scaling.QUICK, []
    few, many = (plan.problem(points) for points in plan.points)
    np.testing.assert_array_equal(few.X[:8], many.X[:8])
    np.testing.assert_array_equal(few.X[8:], many.X[16:])
    laws = scaling.run(plan, lines.append)
    figure = scaling.draw_figure(plan, laws)
    assert [axes.get_title(loc="left")[0] for axes in figure.axes] == list("abc") and len(lines) == 4
    for law in laws.values():
        assert law.steps.mean[-1] == law.points.mean[-1] and set(law.widths) == {8, 32}
    assert scaling.exponent((2, 4, 8), np.array([4.0, 2.0, 1.0])) == pytest.approx(1)
