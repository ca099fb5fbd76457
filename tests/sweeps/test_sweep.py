"""A sweep over gamma0: every method at every value, compared with the references, and drawn."""

import json

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.plotting.gammas import draw
from kernelfield.sweeps.gammas import records, worst_alignment

NETWORK = kf.MLP(depth=2, activation="linear", gamma0=7.0)
TRAINING = kf.GradientDescent(learning_rate=0.3, steps=8)
METHODS = {"theory": kf.DeepLinear(), "leading": kf.Perturbation(), "lazy": kf.StaticNTK()}


@pytest.fixture(scope="module")
def points():
    problem = kf.Problem(np.random.default_rng(0).standard_normal((3, 4)), [1.0, -1.0, 0.5])
    return list(kf.sweep_gamma(NETWORK, problem, TRAINING, METHODS, [0.1, 1.0], ["theory"]))


def test_every_method_is_solved_at_every_gamma0(points):
    assert [point.gamma0 for point in points] == [0.1, 1.0]
    for point in points:
        assert list(point.solutions) == list(METHODS)
        assert {solution.network.gamma0 for solution in point.solutions.values()} == {point.gamma0}
        assert list(point.comparisons) == [("theory", "leading"), ("theory", "lazy")]


def test_approximations_get_worse_as_features_move(points):
    for name in ("leading", "lazy"):
        errors = [point.comparisons["theory", name].row("NTK").error for point in points]
        assert errors[0] < 0.1 * errors[1]


def test_the_worst_layer_counts(points):
    comparison = points[1].comparisons["theory", "lazy"]
    rows = [comparison.row("Phi", layer) for layer in (1, 2)]
    assert rows[0].alignment != rows[1].alignment
    assert worst_alignment(comparison, "Phi")[0] == min(row.alignment for row in rows)


def test_records_are_json(points):
    found = json.loads(json.dumps(records(points)))
    assert len(found) == 2 * 2 * 2 * 6
    assert {(each["method"], each["reference"]) for each in found} == {("leading", "theory"), ("lazy", "theory")}


def test_the_figure_has_a_line_for_every_method_and_needs_a_point(points):
    axes = draw(points).axes
    assert len(axes) == 4 and all(len(each.containers) == 2 for each in axes)
    with pytest.raises(ValueError, match="no point of the sweep was done"):
        draw([])


def test_a_reference_that_is_no_method_is_refused(small_problem):
    with pytest.raises(ValueError, match="references must be among theory, leading, lazy, got none"):
        next(kf.sweep_gamma(NETWORK, small_problem, TRAINING, METHODS, [1.0], ["none"]))
