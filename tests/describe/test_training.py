"""Training rules: the batches and learning rates of every update, and what networks learn from them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kernelfield as kf
from explicit import DEEP, PROBLEM, explicit, solved
from kernelfield.describe.run import Run
from kernelfield.describe.training import SGD, Batches

POINTS = np.random.default_rng(5).standard_normal((7, 4))
WEIGHTED = kf.Problem(POINTS[:, :3], POINTS[:, 3], weights=[1, 0, 1, 2, 1, 0, 1])
TRAINED = [0, 2, 3, 4, 6]


def sgd(batch_size=2, epochs=3, **settings) -> SGD:
    return SGD(learning_rate=0.3, batch_size=batch_size, epochs=epochs, **settings)


def drawn(rule: SGD, problem: kf.Problem = WEIGHTED) -> Batches:
    batches = rule.batches(problem)
    assert batches is not None
    return batches


def test_an_epoch_holds_every_point_that_trains_once_in_a_new_order():
    rule = sgd()
    batches = drawn(rule)
    assert rule.steps == 3 and rule.updates_per_step(WEIGHTED) == 3
    assert batches.rows.shape == batches.weights.shape == (9, 2)
    epochs = [[set(batches.rows[t][batches.weights[t] > 0]) for t in range(start, start + 3)] for start in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(point for batch in epoch for point in batch) == TRAINED
    assert all(one != other for one, other in pairwise(epochs))


def test_points_of_a_batch_are_in_order_and_what_fills_it_up_comes_last():
    for rule in (sgd(batch_size=3), sgd(batch_size=3, replacement=True)):
        rows, weights = drawn(rule)
        for batch, shares in zip(rows, weights, strict=True):
            held = shares > 0
            assert (np.diff(batch[held]) >= 0).all()
            assert (np.diff(held.astype(int)) <= 0).all()


def test_weights_are_those_of_the_points_as_a_mean():
    batches = drawn(sgd(epochs=2))
    np.testing.assert_allclose(batches.weights.sum(axis=1), 1)
    filled = np.arange(6) % 3 == 2  # five points in batches of two: the third has one, and room
    assert (batches.weights[filled] == [1, 0]).all()
    full = WEIGHTED.weights[batches.rows[~filled]]
    np.testing.assert_allclose(batches.weights[~filled], full / full.sum(axis=1, keepdims=True))


def test_draws_with_replacement_are_of_all_points_that_train():
    batches = drawn(sgd(epochs=200, replacement=True))
    assert batches.rows.shape == (600, 2)
    counts = np.bincount(batches.rows.ravel(), minlength=7)
    assert not counts[[1, 5]].any()
    spread = np.sqrt(1200 * 0.2 * 0.8)  # of binomial counts
    assert np.abs(counts[TRAINED] - 240).max() < 5 * spread
    assert (batches.rows[:, 0] == batches.rows[:, 1]).any()
    np.testing.assert_allclose(batches.weights.sum(axis=1), 1)


def test_the_order_belongs_to_the_seed():
    problem = kf.Problem(np.eye(9), np.ones(9))
    first, again, other = (drawn(sgd(seed=seed), problem).rows for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", np.ones(4)),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", (1 + np.cos(np.pi * np.arange(4) / 4)) / 2),
        ([1.0, 0.0, 2.0, 0.5], [1.0, 0.0, 2.0, 0.5]),
        (optax.exponential_decay(1.0, 1, 0.5), [1.0, 0.5, 0.25, 0.125]),
        (lambda t: jnp.where(t < 2, 1.0, 0.1), [1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_rates_of_updates_follow_the_schedule_and_times_are_their_sums(schedule, factors):
    rates = 0.3 * np.array(factors)
    descent = kf.GradientDescent(learning_rate=0.3, steps=4, schedule=schedule)
    np.testing.assert_allclose(descent.rates(PROBLEM), rates, rtol=1e-6)
    np.testing.assert_allclose(descent.times(PROBLEM), [0, *np.cumsum(rates)], rtol=1e-6)
    batches = sgd(epochs=2, schedule=schedule)  # of two updates each
    np.testing.assert_allclose(batches.rates(PROBLEM), rates, rtol=1e-6)
    np.testing.assert_allclose(batches.times(PROBLEM), [0, rates[:2].sum(), rates.sum()], rtol=1e-6)


def test_times_of_flow_and_of_constant_rates_are_multiples_bit_for_bit():
    np.testing.assert_array_equal(kf.GradientFlow(time=3.0, steps=10).times(PROBLEM), 0.3 * np.arange(11))
    descent = kf.GradientDescent(learning_rate=0.1, steps=10)
    np.testing.assert_array_equal(descent.times(PROBLEM), 0.1 * np.arange(11))


def test_what_is_not_plain_is_known():
    assert kf.GradientDescent(learning_rate=0.3, steps=2).plain
    for settings in ({"momentum": 0.5}, {"weight_decay": 0.1}, {"schedule": "linear"}, {"schedule": [1.0, 1.0]}):
        assert not kf.GradientDescent(learning_rate=0.3, steps=2, **settings).plain


@pytest.mark.parametrize("schedule", [[1.0, 1.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0], lambda t: -t])
def test_schedules_of_other_lengths_or_signs_are_refused(schedule):
    training = kf.GradientDescent(learning_rate=0.3, steps=3, schedule=schedule)
    with pytest.raises(ValueError, match="schedule must give 3 numbers >= 0, one for every update"):
        solved(training=training, width=8, seeds=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum must be less than 1, got 1.0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch": 3}, "unknown argument 'batch'"),
        ({"schedule": "square"}, "schedule.*'constant', 'linear' or 'cosine', got 'square'"),
    ],
)
def test_bad_rules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sgd(**settings)


# --- networks


def test_a_batch_of_all_points_is_a_full_batch_bit_for_bit():
    assert sgd(batch_size=5).batches(WEIGHTED) is None
    assert sgd(batch_size=5, replacement=True).batches(WEIGHTED) is not None
    settings = {"momentum": 0.5, "weight_decay": 0.1, "schedule": "linear"}
    descent = kf.GradientDescent(learning_rate=0.3, steps=3, **settings)
    whole, batch = (
        solved(problem=WEIGHTED, training=rule, width=8, seeds=2) for rule in (descent, sgd(batch_size=5, **settings))
    )
    np.testing.assert_array_equal(batch.replicate_predictions, whole.replicate_predictions)
    np.testing.assert_array_equal(batch.ntk(), whole.ntk())


def written_out(problem: kf.Problem, training: kf.GradientDescent | SGD, width: int, seed: int) -> np.ndarray:
    """f of the tanh network of depth 2 in every row, update by update."""
    with jax.enable_x64(True):
        start = DEEP.layers.finite_init(jax.random.key(seed), (3,), width)[0]
        rates = training.rates(problem)
    W = [np.asarray(values) for values in start if values is not None]
    whole = Batches(np.tile(np.arange(problem.points), (len(rates), 1)), np.tile(problem.weights, (len(rates), 1)))
    batches = drawn(training, problem) if isinstance(training, SGD) else whole
    X, velocities = problem.X, [np.zeros_like(each) for each in W]
    first, f = explicit(W, X)["out"], [np.zeros(problem.points)]
    for count, (rows, weights, eta) in enumerate(zip(*batches, rates, strict=True), start=1):
        now = explicit(W, X)
        pull = (weights * (problem.y - (now["out"] - first) / DEEP.gamma0)[rows])[:, None]
        descents = [  # down the mean loss, times gamma0 N
            (now["g1"][rows] * pull).T @ X[rows] / np.sqrt(3),
            (now["g2"][rows] * pull).T @ np.tanh(now["h1"][rows]) / np.sqrt(width),
            pull[:, 0] @ np.tanh(now["h2"][rows]),
        ]
        velocities = [training.momentum * v + each for v, each in zip(velocities, descents, strict=True)]
        W = [
            (1 - eta * training.weight_decay) * each + eta * DEEP.gamma0 * v
            for each, v in zip(W, velocities, strict=True)
        ]
        if count % training.updates_per_step(problem) == 0:
            f.append((explicit(W, X)["out"] - first) / DEEP.gamma0)
    return np.array(f)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.7, "weight_decay": 0.2, "schedule": "cosine", "replacement": True},
    ],
)
def test_every_update_learns_from_its_batch_alone(settings):
    """Written out, for more epochs than are recorded between two fetches."""
    width, training = 6, sgd(epochs=40, seed=3, **settings)
    solution = solved(
        problem=WEIGHTED, training=training, width=width, seeds=1, seed=4, precision="float64", kernels="none"
    )
    np.testing.assert_allclose(solution.predictions, written_out(WEIGHTED, training, width, 4), atol=1e-10)


def test_full_batches_with_momentum_decay_and_a_schedule_match_the_same_formulas():
    settings = {"momentum": 0.7, "weight_decay": 0.2, "schedule": "linear"}
    training = kf.GradientDescent(learning_rate=0.3, steps=40, **settings)
    solution = solved(problem=WEIGHTED, training=training, width=6, seeds=1, seed=4, precision="float64")
    np.testing.assert_allclose(solution.predictions, written_out(WEIGHTED, training, 6, 4), atol=1e-10)


def test_points_that_do_not_train_change_nothing():
    more = kf.Problem(
        np.concatenate([WEIGHTED.X, np.random.default_rng(0).standard_normal((30, 3))]),
        np.append(WEIGHTED.y, np.ones(30)),
        np.append(WEIGHTED.weights, np.zeros(30)),
    )
    one, other = (
        solved(problem=problem, training=sgd(momentum=0.5), width=8, seeds=2, precision="float64", kernels="none")
        for problem in (WEIGHTED, more)
    )
    np.testing.assert_allclose(other.predictions[:, :7], one.predictions, atol=1e-12)


def test_rows_between_epochs_hold_kernels_and_fields_of_all_points():
    solution = solved(problem=WEIGHTED, training=sgd(), fields_at=(0, 2, 3), width=8, seeds=2, precision="float64")
    assert solution.predictions.shape == (4, 7)
    for row in (0, 2, 3):
        fields = solution.field_samples[2, row]
        Phi, G = (values @ values.transpose(0, 2, 1) / 8 for values in (np.tanh(fields["h"]), fields["g"]))
        np.testing.assert_allclose(solution.estimate("feature_kernel", 2, row).replicates, Phi, atol=1e-10)
        np.testing.assert_allclose(solution.estimate("gradient_kernel", 2, row).replicates, G, atol=1e-10)


@pytest.mark.thorough
def test_divergence_and_interruption_within_epochs_keep_the_rows_before():
    linear = kf.MLP(depth=2, activation="linear")
    training = SGD(learning_rate=30.0, batch_size=2, epochs=40)
    with pytest.raises(kf.SolveError, match=r"diverged: .* at step \d+: try a learning_rate below 30") as raised:
        solved(linear, training=training, width=8, seeds=2)
    solution = raised.value.solution
    assert solution is not None and np.isfinite(solution.replicate_predictions).all()

    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    method = kf.FiniteWidth(width=8, seeds=2)
    stopped = method.solve(Run(DEEP, PROBLEM, sgd(epochs=200), method, fields_at=(0, 200)), stop)
    assert isinstance(stopped, kf.Solution)
    assert stopped.status.code == "interrupted"
    assert 1 <= stopped.steps_done < 200


def test_other_batches_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at most 5, the points that train, got 6"):
        solved(problem=WEIGHTED, training=sgd(batch_size=6), width=8, seeds=1)
    for method in (kf.StaticNTK(), kf.DeepLinear()):
        network = kf.MLP(depth=1, activation="linear")
        with pytest.raises(ValueError, match=rf"{type(method).__name__} solves .*, not SGD"):
            kf.solve(network, PROBLEM, sgd(), method)
