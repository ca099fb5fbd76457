"""A small problem, and its finite network written out by hand."""

from typing import Any

import numpy as np

import kernelfield as kf

PROBLEM = kf.Problem(np.random.default_rng(3).standard_normal((4, 3)), [1.0, -1.0, 0.5, 2.0])
TRAINING = kf.GradientDescent(learning_rate=0.3, steps=3)
DEEP = kf.MLP(depth=2, activation="tanh", gamma0=1.5)


def solved(network=DEEP, problem=PROBLEM, training=TRAINING, fields_at=(0, -1), **method) -> kf.Solution:
    return kf.solve(network, problem, training, kf.FiniteWidth(**method), fields_at=fields_at, progress=False)


def explicit(params: Any, X: np.ndarray) -> dict[str, np.ndarray]:
    """The tanh network of depth 2 written out: its fields, and gamma0 f as `out`."""
    W0, W1, (w,) = params
    width, dimensions = W0.shape
    h1 = X @ W0.T / np.sqrt(dimensions)
    h2 = np.tanh(h1) @ W1.T / np.sqrt(width)
    g2 = (1 - np.tanh(h2) ** 2) * w
    z1 = g2 @ W1 / np.sqrt(width)
    g1 = (1 - np.tanh(h1) ** 2) * z1
    return {"h1": h1, "h2": h2, "z1": z1, "g1": g1, "g2": g2, "out": np.tanh(h2) @ w / width}
