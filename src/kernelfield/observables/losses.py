"""How well a network meets the targets: loss and accuracy."""

from __future__ import annotations

import numpy as np

from kernelfield.observables.points import Points, samples
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution


def loss(solution: Solution, points: Points = "train") -> Estimate:
    """Returns the problem's own loss against step: its weighted mean over points (equal weights on test points).

    The mean squared error is the mean of |Delta_mu|^2 / 2.

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
    rows, problem, f = samples(solution, points), solution.problem, solution.replicate_predictions
    weights = problem.weights[rows] if points == "train" else np.ones(rows.sum())
    return Estimate(problem.loss.measured(f[:, :, rows], problem.y[rows]) @ (weights / weights.sum()), solution.exact)


def accuracy(solution: Solution, points: Points = "train") -> Estimate:
    """Returns the share of points whose class is predicted, against step.

    The class is the sign of a single output, or the largest of several outputs. Ties count in part: an output of zero
    is half right, and C equal outputs are right by 1 / C.

    Args:
        solution: of a problem whose targets have the sign of their class, or are rows whose largest entry is the class.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,), between 0 and 1.

    Raises:
        ValueError: there are no such points, or the targets are not those of classes.
    """
    rows = samples(solution, points)
    y, f = solution.problem.y[rows], solution.replicate_predictions[:, :, rows]
    if (solution.problem.outputs or 1) == 1:
        if not y.all():
            raise ValueError("accuracy needs targets that are not zero, whose sign is the class")
        right = ((1 + np.sign(f) * np.sign(y)) / 2).reshape(*f.shape[:2], len(y))
    else:
        if (np.count_nonzero(y == y.max(axis=1, keepdims=True), axis=1) > 1).any():
            raise ValueError("accuracy needs rows of targets with one largest entry, which is the class")
        largest = f == f.max(axis=-1, keepdims=True)
        right = largest[:, :, np.arange(len(y)), y.argmax(axis=1)] / largest.sum(axis=-1)
    return Estimate(right.mean(axis=-1), solution.exact)
