"""A small problem solved by any method."""

import numpy as np

import kernelfield as kf

RNG = np.random.default_rng(4)
X, Y = RNG.standard_normal((6, 5)), np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])


def solved(method, activation="linear", problem=None, steps=5, depth=2, rate=0.3, **options):
    """A small problem, solved."""
    network = kf.MLP(depth=depth, activation=activation, gamma0=1.0)
    training = options.pop("training", None) or kf.GradientDescent(learning_rate=rate, steps=steps)
    return kf.solve(network, problem or kf.Problem(X, Y), training, method, progress=False, **options)
