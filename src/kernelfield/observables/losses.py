"""How well the targets are met."""

from __future__ import annotations

import numpy as np

from kernelfield.observables.points import Points, samples
from kernelfield.solution import Estimate, Solution


def loss(solution: Solution, points: Points = "train") -> Estimate:
    """Mean squared error against step: the weighted mean of Delta_mu^2 / 2 (equal weights on test points).

    Args:
        solution: what to measure.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,).

    Raises:
        ValueError: there are no such points.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield import observables
        >>> problem = kf.Problem([[1.0, 0.0], [0.0, 1.0], [0.8, 0.1]], [1.0, -1.0, 1.0], weights=[1, 1, 0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=9)
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training, progress=False)
        >>> bool(observables.loss(solution, "test").mean[-1] < 0.5)  # what it was before training
        True
    """
    rows, weights = samples(solution, points), solution.problem.weights
    weights = weights[rows] if weights[rows].any() and points != "all" else np.ones(rows.sum())
    squares = solution.estimate("errors").replicates[..., rows] ** 2
    return Estimate(squares @ (weights / weights.sum()) / 2, solution.exact)


def accuracy(solution: Solution, points: Points = "train") -> Estimate:
    """Share of points whose prediction has the sign of its target, against step; an output of zero is half right.

    Args:
        solution: of a problem with two classes, targets of one sign each.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,), between 0 and 1.

    Raises:
        ValueError: there are no such points, or a target is zero.
    """
    rows = samples(solution, points)
    y = solution.problem.y[rows]
    if not y.all():
        raise ValueError("accuracy needs targets that are not zero, whose sign is the class")
    right = (1 + np.sign(solution.replicate_predictions[..., rows]) * np.sign(y)) / 2
    return Estimate(right.mean(axis=-1), solution.exact)
