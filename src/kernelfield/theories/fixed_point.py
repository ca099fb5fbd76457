"""The fixed point of training with weight decay: a kernel predictor, with the kernel that training made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernelfield.layers.base import uses
from kernelfield.solution.solution import Solution


class FixedPoint(NamedTuple):
    """The kernel predictor f_mu = sum_nu K_{mu nu} alpha_nu that training with weight decay ends at.

    Attributes:
        kernel: K (P, P), the last feature kernel.
        coefficients: alpha (P,) or (P, C), zero for points that do not train.
        predictions: K alpha, (P,) or (P, C).
        residual: rms distance of the network's own predictions from these, relative to their rms; it tells how far
            from rest training has stopped.
    """

    kernel: np.ndarray
    coefficients: np.ndarray
    predictions: np.ndarray
    residual: float


def fixed_point(solution: Solution) -> FixedPoint:
    """Returns the kernel predictor where a run with weight decay ends; with the squared error, kernel ridge regression.

    Where all weights rest, nothing is left of initialization, and decay takes off what gradients add: for the readout
    w, lambda w = gamma0 sum_nu weight_nu Delta_nu phi_nu. So alpha_nu = weight_nu Delta_nu / lambda, with K the kernel
    of the features that enter the readout and lambda = (1 - momentum) weight_decay. For the squared error this is
    solved for f, with the final kernel; for other losses Delta is that of the network's own predictions.

    Raises:
        ValueError: there was no weight decay, or feature kernels were not tracked.

    Source: derived here; arXiv:2502.07998 for a regularized network as a kernel predictor.
    """
    decay = getattr(solution.training, "weight_decay", 0.0) * (1 - getattr(solution.training, "momentum", 0.0))
    if not decay:
        raise ValueError("a fixed point as a kernel predictor needs training with weight_decay above 0")
    if solution.problem.stream is not None:
        raise ValueError("a fixed point as a kernel predictor needs the same points in every update, not a stream")
    problem, readout = solution.problem, uses(solution.network.layers)[-1]
    K = getattr(readout, "gain", 1.0) * solution.feature_kernel(solution.network.hidden_layers)
    trains, f, alpha = problem.weights > 0, solution.predictions[-1], np.zeros(problem.y.shape)
    if problem.loss.name == "mse":
        ridge = K[np.ix_(trains, trains)] + np.diag(decay / problem.weights[trains])
        alpha[trains] = np.linalg.solve(ridge, problem.y[trains])
    else:
        signal = problem.loss.measured_signal(f, problem.y)[trains]
        alpha[trains] = (signal.T * problem.weights[trains]).T / decay
    predictions = K @ alpha
    distance = np.sqrt(np.mean((f - predictions) ** 2) / np.mean(predictions**2))
    return FixedPoint(K, alpha, predictions, float(distance))
