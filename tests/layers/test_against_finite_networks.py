"""Every architecture at infinite width against ensembles of finite networks, whose gradients are automatic."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.layers import Activation, Bias, Conv, Dense, GlobalAveragePool, Readout, Residual, Sequential

pytestmark = pytest.mark.thorough
RNG = np.random.default_rng(0)  # of the data below alone
Y = np.array([1.0, -0.7, 0.9])
SEQUENCES = kf.Problem(RNG.standard_normal((3, 5, 2)), Y)  # odd: windows of stride 2 do not cover it evenly
IMAGES = kf.Problem(RNG.standard_normal((3, 4, 4, 1)), Y)
VECTORS = kf.Problem(RNG.standard_normal((3, 6)), Y)
TRAINING = kf.GradientDescent(learning_rate=0.4, steps=5)
LAST = {"save_at": [-1], "fields_at": (), "progress": False}  # what is compared
TANH, RELU, AGAIN = Activation("tanh"), Activation("relu"), Dense()

CASES = {
    "image, zero, pooled": (kf.CNN(depth=2, activation="tanh", pool=2, gamma0=2.0), IMAGES),
    "shared weights": (
        kf.Network(layers=[Dense(), TANH, AGAIN, TANH, AGAIN, TANH, Readout()], gamma0=1.5),
        VECTORS,
    ),
    "everything at once": (
        kf.Network(
            layers=[
                Conv(3, padding="circular"),
                Bias(0.4),
                TANH,
                Residual(Sequential([Conv(2), Bias(), TANH, Conv(1)]), 0.7),
                TANH,
                GlobalAveragePool(),
                Dense(),
                Bias(0.3),
                TANH,
                Readout(),
            ],
            gamma0=1.5,
        ),
        SEQUENCES,
    ),
}
QUANTITIES = ("predictions", "features", "gradients", "ntk")


def quantities(solution):
    """By kind, estimates of everything at the last step (predictions at all)."""
    layers = range(1, solution.network.hidden_layers + 1)
    return {
        "predictions": [solution.estimate("predictions")],
        "features": [solution.estimate("feature_kernel", layer) for layer in layers],
        "gradients": [solution.estimate("gradient_kernel", layer) for layer in layers],
        "ntk": [solution.estimate("ntk")],
    }


def distance(found, truth):
    """Between means, and what to expect of it from the standard errors of both; relative, the mean over layers."""
    pairs = list(zip(found, truth, strict=True))
    size = [np.linalg.norm(b.mean) for _, b in pairs]
    error = [np.linalg.norm(a.mean - b.mean) for a, b in pairs]
    noise = [np.sqrt(np.sum(a.se**2) + np.sum(b.se**2)) for a, b in pairs]
    return np.mean(np.divide(error, size)), np.mean(np.divide(noise, size))


def finite(network, problem, width, seeds):
    method = kf.FiniteWidth(width=width, seeds=seeds)
    return kf.solve(network, problem, TRAINING, method, **LAST)


@pytest.mark.parametrize("name", CASES)
def test_ensembles_of_growing_width_approach_the_march(name):
    network, problem = CASES[name]
    method = kf.March(particles=2048, replicates=4, seed=2)
    infinite = kf.solve(network, problem, TRAINING, method, **LAST)
    wide, narrow = (quantities(finite(network, problem, *size)) for size in ((128, 16), (8, 16)))
    truth = quantities(infinite)
    for kind in QUANTITIES:
        error, noise = distance(wide[kind], truth[kind])
        assert error < 2 * noise, (kind, error, noise)
    assert sum(distance(wide[kind], truth[kind])[0] for kind in QUANTITIES) < 0.7 * sum(
        distance(narrow[kind], truth[kind])[0] for kind in QUANTITIES
    )


def test_without_responses_the_agreement_is_gone():
    """The control: gradient independence is as precise, and somewhere else."""
    network, problem = CASES["shared weights"]
    training = kf.GradientDescent(learning_rate=0.4, steps=12)
    sampled = {"particles": 512, "replicates": 4}
    right, wrong = (
        kf.solve(network, problem, training, method(**sampled), **LAST)
        for method in (kf.March, kf.GradientIndependence)
    )
    for kind in ("features", "gradients"):
        error, noise = distance(quantities(wrong)[kind], quantities(right)[kind])
        assert error > 2 * noise, (kind, error, noise)
