"""Adam and Langevin dynamics of finite networks.

The oracle of Adam is a plain network that `optax.adamw` trains, tensor by tensor, with the numbers of the dictionary of
parameterizations. Those of Langevin dynamics are gradient descent at temperature zero, and the variance of weights.
"""

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kernelfield as kf
from kernelfield import parameterization as pz
from kernelfield.describe.run import Run
from kernelfield.finite.method import _is_faster_conditioned, finite_network
from kernelfield.layers import Activation, Bias, Conv, Dense, Readout, Residual, Sequential
from suites import keep_fast

FORMS = {
    "mean-field": pz.to_mean_field,
    "muP 3": pz.to_mup,
    "muP 8": functools.partial(pz.to_mup, table=8),
    "muP 9": functools.partial(pz.to_mup, table=9),
    "NTK": pz.to_ntk,
    "standard": pz.to_standard,
}
WIDTH = 64
PROBLEM = kf.Problem(np.random.default_rng(1).standard_normal((5, 7)), [1.0, -1.0, 1.0, -0.5, 0.3], [1, 2, 1, 1, 1])
TWO = kf.Problem(PROBLEM.X, np.random.default_rng(2).standard_normal((5, 2)))
IMAGES = kf.Problem(np.random.default_rng(3).standard_normal((3, 4, 4, 2)), [1.0, -1.0, 1.0])
NETWORK = kf.MLP(depth=2, activation="tanh", gamma0=1.5, weight_scales=[1.2, 0.8, 0.7], bias_scale=0.3)
ADAM = kf.Adam(learning_rate=0.1, steps=12)
RAMP = [*np.linspace(1.5, 0.1, 12)]
DECAYED = kf.AdamW(learning_rate=0.1, steps=12, betas=(0.8, 0.95), eps=0.05, weight_decay=0.5, schedule=RAMP)
BATCHES = kf.Adam(learning_rate=0.1, epochs=4, batch_size=2, eps=0.01)


def solve(network, problem, training, fields_at=(), **settings):
    settings = {"width": WIDTH, "seeds": 1, "kernels": "none", "precision": "float64"} | settings
    return kf.solve(network, problem, training, kf.FiniteWidth(**settings), fields_at=fields_at, progress=False)


def apply_by_hand(network, kinds):
    """Returns the outputs of a fully connected tanh network, a function of tensors and their multipliers."""

    def outputs(values, multipliers, X):
        x, is_first = X, True
        for kind, multiplier, value in zip(kinds, multipliers, values, strict=True):
            if kind == "bias":
                x = x + multiplier * value
            else:
                x, is_first = multiplier * ((x if is_first else jnp.tanh(x)) @ value.T), False
        return x

    return outputs


def apply_with_ratios(finite, native, tree, gamma0):
    """Returns the outputs of any network by the forward pass of the library, with other multipliers."""

    def outputs(values, multipliers, X):
        ratios = [new / one.multiplier for new, one in zip(multipliers, native, strict=True)]
        params = tree.unflatten([ratio * value for ratio, value in zip(ratios, values, strict=True)])
        return finite.apply(params, X)[0] / gamma0

    return outputs


def train_by_optax(outputs, values, numbers, problem, training):
    """Returns f (T + 1, P, C) of a network whose tensors learn by `optax.adamw` from full batches or mini-batches."""
    X, y, multipliers = jnp.asarray(problem.X), jnp.asarray(problem.targets), [row.multiplier for row in numbers]
    rates, count = training.rates(problem) / training.learning_rate, training.updates(problem)
    every = np.tile(np.arange(problem.points), (count, 1)), np.tile(problem.weights, (count, 1))
    rows, weights = training.batches(problem) or every
    f0 = outputs(values, multipliers, X)
    optimizers = [
        optax.adamw(row.learning_rate, *numbers.betas, eps=row.eps, weight_decay=row.weight_decay) for row in numbers
    ]

    def loss(values, rows, weights):
        return weights @ ((outputs(values, multipliers, X) - f0 - y)[rows] ** 2).sum(axis=1) / 2

    def step(state, update):
        values, moments = state
        rows, weights, factor = update
        slopes, moved, after = jax.grad(loss)(values, rows, weights), [], []
        for optimizer, value, slope, moment in zip(optimizers, values, slopes, moments, strict=True):
            change, moment = optimizer.update(slope, moment, value)
            moved.append(value + factor * change)
            after.append(moment)
        return (moved, after), outputs(moved, multipliers, X) - f0

    start = values, [optimizer.init(value) for optimizer, value in zip(optimizers, values, strict=True)]
    _, found = jax.jit(lambda: jax.lax.scan(step, start, (jnp.asarray(rows), jnp.asarray(weights), rates)))()
    return np.concatenate([np.zeros((1, *found.shape[1:])), found])[:: training.updates_per_step(problem)]


def train_plainly(form, network, problem, training, change=lambda row: row, width=WIDTH, by_hand=True):
    """Returns f of a plain network with the numbers of a form, from the parameters of seed 0 of `FiniteWidth`."""
    finite = finite_network(Run(network, problem, training, kf.FiniteWidth(width=width)))
    drawn, tree = jax.tree.flatten(finite.init(jnp.asarray(0, jnp.uint32)))
    native, numbers = (to(network, problem, training, width) for to in (pz.to_mean_field, FORMS[form]))
    numbers = replace(numbers, rows=tuple(map(change, numbers)))
    values = [Z * (row.std / one.std if one.std else 0) for Z, row, one in zip(drawn, numbers, native, strict=True)]
    if by_hand:
        outputs = apply_by_hand(network, [row.kind for row in numbers])
    else:
        outputs = apply_with_ratios(finite, native, tree, network.gamma0)
    return train_by_optax(outputs, values, numbers, problem, training)


def check(found, network, problem, training, width=WIDTH):
    expected = solve(network, problem, training, width=width).replicate_predictions[0].reshape(found.shape)
    assert np.abs(expected[-1]).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-8)


# --- Adam

CASES = {
    "all points": (NETWORK, PROBLEM, ADAM),
    "decay and schedule": (NETWORK, PROBLEM, DECAYED),
    "mini-batches": (NETWORK, PROBLEM, BATCHES),
    "two outputs": (NETWORK.model_copy(update={"scales_multiply": "weight", "widths": [2.0, 1.0]}), TWO, DECAYED),
    "signs": (NETWORK, PROBLEM, kf.SignDescent(learning_rate=0.05, steps=12)),
    "one hidden layer": (kf.MLP(depth=1, activation="tanh", gamma0=2.0), PROBLEM, ADAM),
}


FAST = ("muP 3", "mini-batches"), ("standard", "decay and schedule")


SOME = {*FAST, *zip(FORMS, CASES, strict=False)}  # every form, and every case


@pytest.mark.parametrize(("form", "case"), keep_fast(sorted(SOME), *FAST))
def test_optax_makes_the_same_network_from_the_numbers_of_every_form(form, case, x64):
    check(train_plainly(form, *CASES[case]), *CASES[case])


TANH, AGAIN = Activation("tanh"), Dense()
SITES = [Conv(3, stride=2, scale=1.3, multiplies="weight"), TANH, Readout(scale=0.8, multiplies="weight")]
OTHERS = {
    "sites": (kf.Network(layers=SITES, gamma0=1.4), IMAGES),
    "composed": (
        kf.Network(
            layers=[
                Conv(3, stride=2, scale=1.3, multiplies="weight"),
                Bias(0.2),
                Residual(Sequential([TANH, Conv(1, scale=0.6), Bias()]), 0.5),
                TANH,
                Dense(width=2.0),
                TANH,
                AGAIN,
                TANH,
                Readout(scale=0.8, multiplies="weight"),
            ],
            gamma0=1.4,
        ),
        IMAGES,
    ),
    "flattened CNN": (kf.CNN(depth=2, gamma0=0.7, readout="flatten", pool=2), IMAGES),
    "shared": (kf.Network(layers=[Dense(), TANH, AGAIN, TANH, AGAIN, TANH, Readout()]), PROBLEM),
}


@pytest.mark.parametrize("name", keep_fast(OTHERS, "sites"))
def test_tensors_of_every_architecture_have_their_own_units(name, x64):
    (network, problem), training = OTHERS[name], DECAYED.model_copy(update={"weight_decay": 0.1, "eps": 0.02})
    found = train_plainly("standard", network, problem, training, width=16, by_hand=False)
    check(found, network, problem, training, width=16)


WRONG = {
    "rates squared": lambda row: replace(row, learning_rate=row.learning_rate / 8) if row.name == "W1" else row,
    "one eps": lambda row: replace(row, eps=DECAYED.eps),
    "no decay": lambda row: replace(row, weight_decay=0.0) if row.name == "w" else row,
    "readout of SGD": lambda row: replace(row, learning_rate=row.learning_rate * WIDTH) if row.name == "w" else row,
    "still biases": lambda row: replace(row, learning_rate=1e-12, weight_decay=0.0) if row.kind == "bias" else row,
}


@pytest.mark.parametrize("wrong", keep_fast(WRONG, "one eps"))
def test_wrong_numbers_make_another_network(wrong, x64):
    found = train_plainly("muP 3", NETWORK, PROBLEM, DECAYED, WRONG[wrong])[..., 0]
    expected = solve(NETWORK, PROBLEM, DECAYED).replicate_predictions[0]
    assert np.abs(found - expected)[-1].max() > 1e-2


def test_adam_without_memory_is_sign_descent():
    signs = kf.SignDescent(learning_rate=0.05, steps=4)
    without = kf.Adam(learning_rate=0.05, steps=4, betas=(0.0, 0.0), eps=0.0)
    one, other = (solve(NETWORK, PROBLEM, training).replicate_predictions for training in (signs, without))
    assert np.array_equal(one, other) and np.abs(one[0, -1]).max() > 0.1


def test_signs_move_every_weight_as_far_and_none_without_a_gradient():
    """Every entry moves by eta gamma0 / sqrt(n); a column of W0 whose inputs are zero stays."""
    X = PROBLEM.X.copy()
    X[:, 2] = 0
    problem, training = kf.Problem(X, PROBLEM.y), kf.SignDescent(learning_rate=0.05, steps=1)
    params = solve(NETWORK, problem, training, fields_at=(0, 1)).predictor.params
    before, after = (jax.tree.leaves(params[t]) for t in (0, 1))
    for old, new, n in zip(before, after, (7, 1, WIDTH, 1, 1), strict=True):
        expected = np.full(old.shape, 0.05 * 1.5 / math.sqrt(n))
        if n == 7:
            expected[..., 2] = 0
        np.testing.assert_allclose(np.abs(new - old), expected, rtol=1e-9)


@pytest.mark.parametrize("rule", [kf.Adam, kf.SignDescent])
def test_zero_gradients_move_nothing(rule):
    training = rule(learning_rate=0.1, steps=3, eps=0.0)
    assert not solve(NETWORK, kf.Problem(PROBLEM.X, np.zeros(5)), training).replicate_predictions.any()


@pytest.mark.thorough
def test_seeds_have_moments_of_their_own():
    many, alone = solve(NETWORK, PROBLEM, BATCHES, seeds=3), solve(NETWORK, PROBLEM, BATCHES, seed=2)
    np.testing.assert_allclose(many.replicate_predictions[2], alone.replicate_predictions[0], atol=1e-10)
    assert np.ptp(many.replicate_predictions[:, -1], axis=0).max() > 1e-2


def test_batches_of_all_points_are_full_batches():
    epochs = kf.Adam(learning_rate=0.1, epochs=12, batch_size=5)
    one, other = (solve(NETWORK, PROBLEM, training).replicate_predictions for training in (ADAM, epochs))
    assert np.array_equal(one, other)


@pytest.mark.thorough
def test_single_precision_is_near_to_double(x64):
    """From the same weights, those that are drawn in single precision."""
    single = solve(NETWORK, PROBLEM, DECAYED, precision="float32", fields_at=(0, -1))
    run = Run(NETWORK, PROBLEM, DECAYED, kf.FiniteWidth(width=WIDTH))
    values = [jnp.asarray(leaf[0], float) for leaf in jax.tree.leaves(single.predictor.params[0])]
    numbers = pz.to_mean_field(NETWORK, PROBLEM, DECAYED, WIDTH)
    found = train_by_optax(
        apply_by_hand(NETWORK, [row.kind for row in numbers]), values, numbers, PROBLEM, run.training
    )
    np.testing.assert_allclose(single.replicate_predictions[0], found[..., 0], atol=1e-4)


def test_other_losses_learn_and_new_points_are_predicted():
    problem = kf.Problem(PROBLEM.X, np.sign(PROBLEM.y), loss="logistic")
    solution = solve(NETWORK, problem, ADAM, fields_at=(-1,))
    assert solution.loss[-1] < 0.9 * solution.loss[0]
    np.testing.assert_allclose(solution.predict(PROBLEM.X).mean, solution.predictions[-1], atol=1e-9)


def test_small_targets_are_no_reason_to_refuse_adam():
    """It moves weights by eta, however small gradients are; gradient descent would move them by less than rounding."""
    problem, rate = kf.Problem(PROBLEM.X, 1e-5 * PROBLEM.y), 1e-6
    solution = solve(NETWORK, problem, ADAM.model_copy(update={"learning_rate": rate}), precision="float32")
    assert solution.loss[-1] < 0.9 * solution.loss[0]
    with pytest.raises(ValueError, match="below rounding"):
        solve(NETWORK, problem, kf.GradientDescent(learning_rate=rate, steps=12), precision="float32")
    with pytest.raises(ValueError, match="below rounding"):
        solve(NETWORK.model_copy(update={"gamma0": 1e-6}), PROBLEM, ADAM, precision="float32")


LANGEVIN = kf.Langevin(learning_rate=0.1, steps=20, weight_decay=0.5, temperature=0.5)


@pytest.mark.parametrize("training", [ADAM, LANGEVIN])
def test_conditioning_does_not_take_them_and_auto_trains_explicitly(training):
    run = Run(NETWORK, PROBLEM, training, kf.FiniteWidth(width=2**14))
    assert not _is_faster_conditioned(run)
    with pytest.raises(ValueError, match=f"solves GradientDescent and SGD, not {type(training).__name__}: take 'expl"):
        solve(NETWORK, PROBLEM, training, algorithm="conditioned")


# --- Langevin dynamics


@pytest.mark.thorough
def test_without_noise_it_is_gradient_descent_with_weight_decay_on_the_output_itself():
    """Its f is the output: descent on f minus f0 towards y - f0 moves weights alike."""
    schedule = [*np.linspace(1.5, 0.5, 20)]
    cold = LANGEVIN.model_copy(update={"temperature": 0.0, "schedule": schedule})
    descent = kf.GradientDescent(learning_rate=0.1, steps=20, weight_decay=0.5, schedule=schedule)
    f = solve(NETWORK, PROBLEM, cold).replicate_predictions[0]
    assert np.abs(f[0]).max() > 1e-2
    shifted = kf.Problem(PROBLEM.X, PROBLEM.y - f[0], PROBLEM.weights)
    np.testing.assert_allclose(solve(NETWORK, shifted, descent).replicate_predictions[0] + f[0], f, atol=1e-10)


def hidden_weights(temperature, steps, seeds=2):
    """Returns two hidden matrices (R, 2, N, N) before and after Langevin dynamics in the lazy limit."""
    network = kf.MLP(depth=3, activation="tanh", gamma0=1e-3)
    training = LANGEVIN.model_copy(update={"temperature": temperature, "steps": steps})
    solution = solve(network, PROBLEM, training, seeds=seeds, fields_at=(0, steps))
    leaves = [jax.tree.leaves(solution.predictor.params[t]) for t in (0, steps)]
    return (np.stack([values[1], values[2]], axis=1) for values in leaves)


@pytest.mark.parametrize("temperature", keep_fast([0.5, 1.5], 1.5))
def test_weights_have_the_variance_and_the_memory_of_their_noise(temperature):
    """W <- rho W + sqrt(2 eta T) xi: a fresh xi for every step, tensor and seed; the gradient moves few directions."""
    steps, rho = 20, 1 - 0.1 * 0.5
    start, end = hidden_weights(temperature, steps)
    noise = 2 * 0.1 * temperature * (1 - rho ** (2 * steps)) / (1 - rho**2)
    error = math.sqrt(2 / start[0].size)
    assert np.mean(end**2, axis=(1, 2, 3)) == pytest.approx(rho ** (2 * steps) + noise, rel=5 * error)
    assert np.mean(start * end) == pytest.approx(rho**steps, abs=5 * error * math.sqrt(noise + 1))
    xi = (end - rho**steps * start).reshape(4, -1)
    assert np.abs(np.corrcoef(xi) - np.eye(4)).max() < 5 / WIDTH


@pytest.mark.thorough
def test_the_prior_is_stationary_where_temperature_is_weight_decay():
    _, end = hidden_weights(0.5, 400)
    assert np.mean(end**2) == pytest.approx(1 / (1 - 0.1 * 0.5 / 2), rel=5 * math.sqrt(2 / end.size))


def test_all_tensors_get_noise_that_belongs_to_their_seed():
    """Biases and readout too; a seed does not depend on its company, and not on the number of steps."""
    many = solve(NETWORK, PROBLEM, LANGEVIN, seeds=3, fields_at=(0, -1))
    alone = solve(NETWORK, PROBLEM, LANGEVIN.model_copy(update={"steps": 7}), seed=2, fields_at=(-1,))
    np.testing.assert_allclose(many.replicate_predictions[2, :8], alone.replicate_predictions[0], atol=1e-9)
    before, after = (jax.tree.leaves(many.predictor.params[t]) for t in (0, 20))
    for old, new in zip(before, after, strict=True):
        assert np.std(new - 0.95**20 * old) > 0.7
    np.testing.assert_allclose(many.predict(PROBLEM.X, 0).mean, many.predictions[0], atol=1e-12)
    assert np.abs(many.predictions[0]).max() > 1e-2


def test_the_output_may_start_far_from_zero():
    """At small gamma0 the prior of f is wide, of variance 1 / (gamma0^2 N): that is no divergence."""
    network = kf.MLP(depth=1, activation="tanh", gamma0=1e-3)
    solution = solve(network, PROBLEM, LANGEVIN, width=8, seeds=4, precision="float32")
    assert solution.status.code == "ok" and np.abs(solution.replicate_predictions).max() > 50
