"""Outputs, losses, biases, scales, widths and training rules of the march: exact where the theory is, else against
ensembles of finite networks."""

import functools

import numpy as np
import pytest

import kernelfield as kf
from ensembles import check_approach
from kernelfield.layers import Activation, Bias, Conv, Dense, GlobalAveragePool, Readout, Residual, Sequential
from suites import keep_fast

X, Y = np.random.default_rng(4).standard_normal((5, 6)), np.array([1.0, -0.7, 0.9, -1.1, 0.4])
OUTPUTS, LABELS = np.stack([Y, -Y[::-1], Y**2], axis=1), [0, 1, 2, 1, 0]
LINEAR, TANH = Activation("linear"), Activation("tanh")


def descent(steps=8, **settings):
    return kf.GradientDescent(learning_rate=0.3, steps=steps, **settings)


def sgd(epochs=4, **settings):
    return kf.SGD(learning_rate=0.3, batch_size=2, epochs=epochs, **settings)


def solved(network, problem, training=None, save_at=None, **march):
    settings = {"save_at": save_at, "fields_at": (), "progress": False}
    return kf.solve(network, problem, training or descent(), kf.March(**march), **settings)


# --- exact


RULES = {
    "everything": sgd(epochs=2, momentum=0.5, weight_decay=0.2, schedule="linear"),
    "flow": kf.GradientFlow(time=0.6, steps=2, rtol=1e-2),
}
SHARED = Dense()
SCALED = {"bias_scale": 0.4, "weight_scales": [1.2, 0.7, 1.1], "scales_multiply": "weight"}
EXACT = {
    "deep": (kf.MLP(depth=3, activation="linear"), X),
    "biased, scaled, of several widths": (kf.MLP(depth=2, activation="linear", widths=[2.0, 0.5], **SCALED), X),
    "convolution": (kf.Network(layers=[Conv(2), LINEAR, Conv(2), GlobalAveragePool(), Readout()]), X.reshape(5, 3, 2)),
    "shared in a block": (kf.Network(layers=[Dense(), Residual(Sequential([SHARED, SHARED]), 0.5), Readout()]), X),
}


@functools.cache
def exact(name, rule, seed=0):
    network, inputs = EXACT[name]
    return solved(network, kf.Problem(inputs, OUTPUTS), RULES[rule], seed=seed)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, rule",
    [
        ("biased, scaled, of several widths", "everything"),
        ("convolution", "everything"),
    ],
)
def test_two_cubatures_agree(name, rule):
    one, other = (exact(name, rule, seed) for seed in (0, 1))
    assert one.exact and one.loss[-1] < one.loss[0]
    np.testing.assert_allclose(one.predictions, other.predictions, atol=1e-10)
    for layer in range(1, one.network.hidden_layers + 1):
        np.testing.assert_allclose(one.feature_kernel(layer), other.feature_kernel(layer), atol=1e-10)


@pytest.mark.thorough
def test_the_aggregated_error_signal_is_the_sum_over_outputs():
    together = exact(name := "biased, scaled, of several widths", "everything")
    apart = solved(EXACT[name][0], together.problem, RULES["everything"], kernels="per_output")
    np.testing.assert_allclose(together.predictions, apart.predictions, atol=1e-10)
    assert not together.keeps("G") and apart.ntk().shape == (15, 15)


def test_one_output_with_and_without_an_axis_is_the_same():
    network = kf.MLP(depth=1)
    plain, column = solved(network, kf.Problem(X, Y), particles=64), solved(
        network, kf.Problem(X, Y[:, None]), particles=64, kernels="per_output"
    )  # fmt: skip
    np.testing.assert_array_equal(plain.replicate_predictions, column.replicate_predictions[..., 0])
    np.testing.assert_allclose(plain.ntk(), column.ntk(), rtol=1e-6)


def test_outputs_that_are_equal_are_learned_alike():
    """With the same targets, outputs of independent readouts are the same at infinite width."""
    both = kf.Problem(X, np.stack([Y, Y], axis=1))
    solution = solved(kf.MLP(depth=2, activation="linear"), both, kernels="none")
    np.testing.assert_allclose(solution.predictions[..., 0], solution.predictions[..., 1], atol=1e-10)


def test_full_batches_are_gradient_descent_bit_for_bit():
    network, problem = kf.MLP(depth=2), kf.Problem(X, Y, weights=[1, 2, 1, 0, 1])
    batches = kf.SGD(learning_rate=0.3, batch_size=4, epochs=8)
    whole, batch = (solved(network, problem, rule, particles=64, kernels="none") for rule in (descent(), batches))
    np.testing.assert_array_equal(whole.replicate_predictions, batch.replicate_predictions)


@pytest.mark.thorough
def test_momentum_and_schedules_that_do_nothing_change_nothing():
    network, problem = kf.MLP(depth=2, activation="linear"), kf.Problem(X, Y)
    plain = solved(network, problem, kernels="none")
    for same in (descent(schedule=[1.0] * 8), descent(schedule=lambda step: 1.0), descent(weight_decay=1e-15)):
        found = solved(network, problem, same, kernels="none")
        np.testing.assert_allclose(found.predictions, plain.predictions, atol=1e-12)


@pytest.mark.thorough
def test_decay_without_learning_shrinks_what_came_from_initialization():
    """With targets of zero nothing is learned, and features decay."""
    training = descent(steps=3, weight_decay=0.5)
    solution = solved(kf.MLP(depth=2, activation="linear"), kf.Problem(X, np.zeros(5)), training)
    kept = (1 - 0.3 * 0.5) ** 3
    for layer in (1, 2):
        expected = kept ** (2 * layer) * solution.feature_kernel(layer, t=0)
        np.testing.assert_allclose(solution.feature_kernel(layer), expected, atol=1e-12)


# --- the lazy limit


@pytest.mark.parametrize("loss", keep_fast(["logistic", "cross_entropy"], "cross_entropy"))
def test_the_lazy_limit_of_other_losses(loss):
    problem = kf.Problem(X, np.sign(Y) if loss == "logistic" else LABELS, loss=loss)
    network, training = kf.MLP(depth=1, activation="erf", gamma0=0.01), descent(schedule="linear")
    lazy = kf.solve(network, problem, training, kf.StaticNTK(), progress=False)
    march = solved(network, problem, training, kernels="none")
    np.testing.assert_allclose(march.predictions, lazy.predictions, atol=0.02 * np.abs(lazy.predictions).max())


# --- finite networks


ENSEMBLES = {
    "logistic": (kf.MLP(depth=1, activation="relu"), kf.Problem(X, np.sign(Y), loss="logistic"), descent()),
    "everything": (
        kf.MLP(depth=2, bias_scale=0.3, weight_scales=[1.2, 0.8, 1.1], scales_multiply="weight", widths=[2.0, 1.0]),
        kf.Problem(X, LABELS, loss="cross_entropy"),
        sgd(momentum=0.5, weight_decay=0.2, schedule="cosine", replacement=True),
    ),
    "everything, of images": (
        kf.Network(layers=[Conv(2), Bias(0.2), TANH, Residual(Sequential([Conv(2), TANH, Conv(1)])), TANH, Readout()]),
        kf.Problem(X.reshape(5, 3, 2), LABELS, loss="cross_entropy"),
        sgd(momentum=0.5, weight_decay=0.2),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", keep_fast(ENSEMBLES, "logistic"))
def test_ensembles_of_growing_width_approach_the_march(name):
    network, problem, training = ENSEMBLES[name]
    check_approach(
        solved(network, problem, training, save_at=[-1], particles=1024, kernels="features"),
        lambda method: kf.solve(network, problem, training, method, save_at=[-1], fields_at=(), progress=False),
        range(1, network.hidden_layers + 1),
    )


@pytest.mark.thorough
def test_without_momentum_the_agreement_is_gone():
    """The control."""
    network, problem, training = kf.MLP(depth=2), kf.Problem(X, Y), descent(momentum=0.7)
    right, wrong = (solved(network, problem, rule, particles=1024, kernels="none") for rule in (training, descent()))
    assert np.linalg.norm(right.predictions - wrong.predictions) > 0.3 * np.linalg.norm(right.predictions)


# --- refusals


@pytest.mark.parametrize("method", [kf.DeepLinear(), kf.Perturbation(), kf.AlternatingMonteCarlo()])
@pytest.mark.parametrize(
    "problem, training, message",
    [
        (kf.Problem(X, OUTPUTS), descent(), "networks of several outputs"),
        (kf.Problem(X, np.sign(Y), loss="hinge"), descent(), "other losses than the mean squared error"),
        (kf.Problem(X, Y), descent(momentum=0.5), "gradient descent with momentum"),
        (kf.Problem(X, Y), descent(weight_decay=0.5), "gradient descent with weight decay"),
        (kf.Problem(X, Y), descent(schedule="linear"), "gradient descent with a schedule of learning rates"),
    ],
)
def test_what_a_method_does_not_know_is_refused_in_one_sentence(method, problem, training, message):
    with pytest.raises(ValueError, match=f"{type(method).__name__} does not solve {message}: use March or FiniteWidth"):
        kf.solve(kf.MLP(depth=1, activation="linear"), problem, training, method)


def test_other_rules_and_networks_are_refused():
    for method in (kf.DeepLinear(), kf.Perturbation(), kf.StaticNTK(), kf.GradientIndependence()):
        with pytest.raises(ValueError, match=f"{type(method).__name__} solves GradientDescent.*, not SGD"):
            kf.solve(kf.MLP(depth=1, activation="linear"), kf.Problem(X, Y), sgd(), method)
    with pytest.raises(ValueError, match="DeepLinear solves MLP without biases, scales and widths: use March"):
        network = kf.MLP(depth=1, activation="linear", bias_scale=0.1)
        kf.solve(network, kf.Problem(X, Y), descent(), kf.DeepLinear())
    with pytest.raises(ValueError, match="weight_scales must have 3 numbers for depth 2, got 1"):
        kf.MLP(depth=2, weight_scales=[1.0])
    with pytest.raises(ValueError, match="widths are relative to that of the last hidden layer, which is 1, got 2"):
        solved(kf.Network(layers=[Dense(width=2), TANH, Readout()]), kf.Problem(X, Y))
