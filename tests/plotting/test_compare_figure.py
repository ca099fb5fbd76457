"""What the figure of several Solutions shows is what they hold."""

from dataclasses import replace

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.observables import two_time_kernel
from kernelfield.observables.compare import compare
from kernelfield.plotting import write_figure
from kernelfield.plotting.comparison import draw
from solutions import changed, with_parts, without


@pytest.fixture(scope="module")
def solutions(small_solution):
    """A march, one with larger kernels that is said to be exact, and one that is said to be finite networks."""
    exact = replace(changed(small_solution, lambda factor: 1.2 * factor, "Phi"), exact=True)
    predictions = small_solution.replicate_predictions * np.linspace(0.8, 1.0, 4)
    finite = replace(with_parts(small_solution, method=kf.FiniteWidth(width=16)), replicate_predictions=predictions)
    return {"march": small_solution, "exact": exact, "finite": finite}


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]


def test_kernels_are_ordered_by_target_and_share_a_colour_scale(solutions):
    found = images(draw(solutions))
    assert len(found) == 6
    order = [0, 2, 1, 3]  # targets are 1, -1, 1, -1
    for image, solution in zip(found[:3], solutions.values(), strict=True):
        assert np.asarray(image.get_array()) == pytest.approx(solution.feature_kernel(2)[np.ix_(order, order)])
        assert len(image.axes.lines) == 2 and image.axes.lines[0].get_ydata()[0] == 1.5  # between the classes
    for image, solution in zip(found[3:], solutions.values(), strict=True):
        assert np.asarray(image.get_array()) == pytest.approx(two_time_kernel(solution, "Phi", 2).mean)
    for row in (found[:3], found[3:]):
        assert len({image.get_clim() for image in row}) == 1
        assert row[0].get_clim()[1] == pytest.approx(max(image.get_array().max() for image in row))


def test_theories_are_lines_and_finite_networks_dots_with_error_bars(solutions):
    losses = draw(solutions).axes[0]
    labels = [line.get_label() for line in losses.lines if not line.get_label().startswith("_")]
    assert labels == ["march", "exact"]
    assert [bars.get_label() for bars in losses.containers] == ["finite"]
    assert losses.lines[0].get_ydata() == pytest.approx(solutions["march"].loss)
    dots = losses.containers[0].lines[0]
    assert dots.get_ydata() == pytest.approx(solutions["finite"].loss) and dots.get_marker() == "o"


def test_alignments_are_those_of_compare(solutions):
    axes = draw(solutions, reference="finite").axes[1]
    assert "finite" in axes.get_title("left")
    assert len(axes.containers) == 2  # the reference has no dots
    for container, name in zip(axes.containers, ("march", "exact"), strict=True):
        expected = [row.alignment for row in compare(solutions[name], solutions["finite"]).rows if row.times == "all"]
        assert 1 - container.lines[0].get_ydata() == pytest.approx(expected)
    bottom, top = axes.get_ylim()
    assert bottom > top  # better is higher
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(1 - tick)


def test_comparisons_that_are_known_are_not_computed_again(solutions, monkeypatch):
    known = {"march": compare(solutions["march"], solutions["exact"])}
    monkeypatch.setattr("kernelfield.plotting.comparison.compare_all", None)
    pair = {name: solutions[name] for name in ("march", "exact")}
    assert draw(pair, "exact", known).axes[1].containers


@pytest.mark.thorough
def test_any_number_of_solutions_is_drawn_whatever_they_hold(small_solution, solutions, tmp_path):
    bare = without(small_solution, "Phi", "G")
    single = replace(bare, replicate_predictions=bare.replicate_predictions[:1])
    shorter = replace(small_solution, replicate_predictions=small_solution.replicate_predictions[:, :3])
    early = changed(shorter, lambda factor: factor[:, :3])
    cases = [({"bare": bare, "single": single}, 0), ({"one": early, "bare": bare}, 2), ({"march": small_solution}, 2)]
    cases.append(({**solutions, "early": early, "bare": bare, "a long name, longer than any panel is wide": early}, 10))
    for case, panels in cases:
        figure = draw(case, next(reversed(case)))
        assert len(images(figure)) == panels
        write_figure(figure, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_together_is_refused(solutions):
    with pytest.raises(ValueError, match="at least one solution is needed"):
        draw({})
    with pytest.raises(ValueError, match="reference must be one of march, exact, finite, got narrow"):
        draw(solutions, reference="narrow")
    other = with_parts(solutions["march"], training=kf.GradientDescent(learning_rate=0.5, steps=5))
    with pytest.raises(ValueError, match="learning_rate must be the same"):
        draw({**solutions, "other": other})


def test_classes_of_several_outputs_are_named(several_outputs):
    figure = draw({"march": several_outputs})
    matrix = images(figure)[0]
    order = [0, 4, 1, 3, 2]  # classes are 0, 1, 2, 1, 0
    assert np.asarray(matrix.get_array()) == pytest.approx(several_outputs.feature_kernel(2)[np.ix_(order, order)])
    assert [label.get_text() for label in matrix.axes.get_yticklabels()] == ["class 0", "class 1", "class 2"]
    assert figure.axes[0].get_xlabel() == "epoch"
