"""What a run tells of its own numbers: how far features move, and inputs of any scale."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.describe.run import Run
from suites import keep_fast

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 4)), np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
X = X / np.sqrt(np.mean(X**2))  # K = 1
MARCH = kf.March(particles=64, replicates=2, kernels="none")
SINGLE = kf.FiniteWidth(width=16, seeds=2, kernels="none")
DOUBLE = SINGLE.model_copy(update={"precision": "float64"})
SCALES = [1e10, 1e-10, 1e4]


def parts(c=1.0, gamma0=1.0, rate=0.2, y=Y, activation="relu", inputs=X):
    """Inputs times c, the rate and gamma0 with them: a network of degree one then learns the same."""
    network = kf.MLP(depth=1, activation=activation, gamma0=gamma0 * c)
    return network, kf.Problem(c * inputs, y), kf.GradientDescent(learning_rate=rate / c**2, steps=6)


def solved(method, **settings):
    return kf.solve(*parts(**settings), method, progress=False, fields_at=(-1,))


@pytest.mark.parametrize("scale", keep_fast(SCALES, 1e10))
@pytest.mark.parametrize("method", [MARCH, kf.StaticNTK(), SINGLE], ids=["march", "static", "finite"])
def test_homogeneous_networks_learn_the_same_at_any_scale_of_the_inputs(method, scale):
    one, scaled = solved(method), solved(method, c=scale)
    np.testing.assert_allclose(scaled.predictions, one.predictions, atol=1e-6)
    np.testing.assert_allclose(scaled.predict(scale * X).mean, one.predict(X).mean, atol=1e-6)
    assert one.loss[-1] < 0.9 * one.loss[0]


@pytest.mark.parametrize("scale", [1.0, *SCALES, 1e-30, 1e30])
@pytest.mark.parametrize(("gamma0", "rate", "moves"), [(1.0, 0.2, 1.0), (0.01, 0.2, 0.01), (1.0, 1e-6, 6e-6)])
def test_movement_does_not_depend_on_the_scale_and_ends_where_the_targets_are_learned(scale, gamma0, rate, moves):
    run = Run(*parts(c=scale, gamma0=gamma0, rate=rate), MARCH)
    assert run.movement == pytest.approx(moves, rel=0.5) and run.input_square == pytest.approx(scale**2)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (MARCH, {"c": 1e80}, "X must be smaller: its mean square is 1e.160, the square of which overflows"),
        (MARCH, {"gamma0": 1e-13}, r"features would move by 1e-13 of their size, .*: StaticNTK\(\) solves the limit"),
        (MARCH, {"y": 1e-13 * Y}, "features would move by 1e-13 of their size, which is below rounding"),
        (SINGLE, {"gamma0": 1e-6}, "would move by 1e-06 of their size, which is below rounding: take precision='float"),
        (
            SINGLE,
            {"rate": 1e-9},
            "would move by 6e-09 of their size, which is below rounding: take precision='float64'",
        ),
        (SINGLE, {"c": 1e20}, "X must be smaller: its mean square is 1e.40, which overflows: precision='float64'"),
        (DOUBLE, {"c": 1e80}, "X must be smaller: its mean square is 1e.160, which overflows: divide it by a number"),
        (kf.StaticNTK(), {"c": 1e80}, "X must be smaller: its mean square is 1e.160, which overflows: divide it by"),
        (DOUBLE, {"gamma0": 1e-13}, r"which is below rounding: StaticNTK\(\) solves that limit"),
    ],
)
def test_what_rounding_or_overflow_would_spoil_is_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        solved(method, **settings)


SAME = X[[0, 0, 1, 1, 2, 2]]
DEGENERATE = {
    "zero inputs": {"inputs": np.zeros((6, 3))},
    "constant inputs": {"inputs": np.ones((6, 3))},
    "one point": {"inputs": X[:1], "y": Y[:1]},
    "duplicates": {"inputs": SAME, "y": np.repeat(Y[:3], 2)},
    "duplicates of other targets": {"inputs": SAME},
    "a zero row": {"inputs": X * (np.arange(6) > 0)[:, None]},
    "a zero column": {"inputs": X * [1, 1, 0, 1]},
    "one dimension": {"inputs": X[:, :1]},
    "constant targets": {"y": np.ones(6)},
    "zero targets": {"y": np.zeros(6)},
}


LEARNERS = {
    "static": (kf.StaticNTK(), "relu"),
    "finite": (SINGLE, "tanh"),
    "march tanh": (MARCH, "tanh"),
}
FAST = [("static", name) for name in DEGENERATE] + [("finite", "constant inputs"), ("march tanh", "one point")]


@pytest.mark.parametrize(
    ("learner", "name"), keep_fast([(learner, name) for learner in LEARNERS for name in DEGENERATE], *FAST)
)
def test_degenerate_data_are_learned_and_predicted(learner, name):
    """Equal points have equal predictions, and points that say nothing stay where they began."""
    method, activation = LEARNERS[learner]
    solution = solved(method, activation=activation, **DEGENERATE[name])
    problem = solution.problem
    new = solution.predict(problem.X).mean
    assert solution.status.code == "ok" and np.isfinite(solution.predictions).all() and np.isfinite(new).all()
    np.testing.assert_allclose(new, solution.predictions[-1], atol=1e-5)
    _, same = np.unique(problem.X, axis=0, return_inverse=True)
    for number in range(same.max() + 1):
        assert np.ptp(solution.predictions[:, same.ravel() == number], axis=1).max() < 1e-5
    if name in ("zero inputs", "zero targets"):
        np.testing.assert_allclose(solution.predictions, 0, atol=1e-6)
