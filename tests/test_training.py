"""Mini-batches: which points they hold, and what networks learn from them."""

import jax
import numpy as np
import pytest

import kernelfield as kf
from test_finite import DEEP, PROBLEM, RNG, explicit, solved

WEIGHTED = kf.Problem(RNG.standard_normal((7, 3)), RNG.standard_normal(7), weights=[1, 0, 1, 2, 1, 0, 1])


def descent(steps=3, **settings) -> kf.GradientDescent:
    return kf.GradientDescent(learning_rate=0.3, steps=steps, **settings)


def test_an_epoch_holds_every_point_that_trains_once():
    batches = descent(steps=9, batch=2).batches(WEIGHTED.weights)
    assert batches is not None and batches.rows.shape == batches.weights.shape == (9, 2)
    epochs = [batches.rows[start : start + 3].ravel()[:5] for start in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == [0, 2, 3, 4, 6]
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_weights_are_those_of_the_points_as_a_mean():
    batches = descent(steps=6, batch=2).batches(WEIGHTED.weights)
    assert batches is not None
    np.testing.assert_allclose(batches.weights.sum(axis=1), 1)
    filled = np.arange(6) % 3 == 2  # five points in batches of two: the third has one, and room
    assert (batches.weights[filled] == [1, 0]).all()
    full = WEIGHTED.weights[batches.rows[~filled]]
    np.testing.assert_allclose(batches.weights[~filled], full / full.sum(axis=1, keepdims=True))


def test_the_order_belongs_to_the_seed():
    first, again, other = (descent(batch=2, seed=seed).batches(np.ones(9)) for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    np.testing.assert_array_equal(first.rows, again.rows)
    assert (first.rows != other.rows).any()


def test_a_batch_of_all_points_is_a_full_batch():
    whole, batch = (solved(training=descent(batch=size), width=8, seeds=2, precision="float64") for size in (None, 4))
    np.testing.assert_allclose(batch.replicate_predictions, whole.replicate_predictions, atol=1e-12)
    np.testing.assert_allclose(batch.ntk(), whole.ntk(), atol=1e-6)


def test_weights_of_the_problem_hold_in_batches():
    whole, batch = (
        solved(problem=WEIGHTED, training=descent(batch=size), width=8, seeds=2, precision="float64")
        for size in (None, 5)
    )
    np.testing.assert_allclose(batch.replicate_predictions, whole.replicate_predictions, atol=1e-12)


def test_every_step_learns_from_its_batch_alone():
    """Written out, for more steps than are compiled together."""
    width, training = 6, descent(steps=40, batch=2, seed=3)
    solution = solved(training=training, width=width, seeds=1, seed=4, precision="float64", kernels="none")
    batches = training.batches(PROBLEM.weights)
    assert batches is not None
    with jax.enable_x64(True):
        drawn = DEEP.layers.finite_init(jax.random.key(4), (3,), width)[0]
    W0, W1, w = params = tuple(np.asarray(values) for values in drawn if values is not None)
    start, X, f = explicit(params, PROBLEM.X)["out"], PROBLEM.X, [np.zeros(4)]
    for rows in batches.rows:
        now = explicit((W0, W1, w), X)
        error = (PROBLEM.y - f[-1])[rows] * 0.3 * DEEP.gamma0 / 2
        W0 = W0 + (now["g1"][rows] * error[:, None]).T @ X[rows] / np.sqrt(3)
        W1 = W1 + (now["g2"][rows] * error[:, None]).T @ np.tanh(now["h1"][rows]) / np.sqrt(width)
        w = w + error @ np.tanh(now["h2"][rows])
        f.append((explicit((W0, W1, w), X)["out"] - start) / DEEP.gamma0)
    np.testing.assert_allclose(solution.predictions, f, atol=1e-10)


def test_other_batches_are_refused():
    with pytest.raises(ValueError, match="batch must be at most 5, the number of points that train, got 6"):
        solved(problem=WEIGHTED, training=descent(batch=6), width=8, seeds=1)
    for method in (kf.March(), kf.StaticNTK(), kf.DeepLinear()):
        network = kf.MLP(depth=1, activation="linear")
        with pytest.raises(ValueError, match="trains on all points in every step, got batch=2"):
            kf.solve(network, PROBLEM, descent(batch=2), method)
