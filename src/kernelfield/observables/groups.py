"""Samples of a problem in groups: those that train and those that test, and those of equal targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.solution.solution import Solution

Points = Literal["train", "test", "all"]


def samples(solution: Solution, points: Points) -> np.ndarray:
    """Returns a mask (P,) of the points: "train" (a weight in the loss), "test" (weight zero) or "all".

    Raises:
        ValueError: there are no such points.
    """
    trains = solution.problem.weights > 0
    masks = {"train": trains, "test": ~trains, "all": np.ones_like(trains)}
    if points not in masks:
        raise ValueError(f"points must be one of {', '.join(masks)}, got {points!r}")
    if not masks[points].any():
        raise ValueError("the problem has no test points: give them to Problem with weight zero")
    return masks[points]


def restrict(solution: Solution, points: Points) -> Solution:
    """Returns the Solution of some of its points alone; raises as `samples`."""
    rows = samples(solution, points)
    return solution if rows.all() else solution.restricted(np.flatnonzero(rows))


@dataclass(frozen=True, eq=False)
class Groups:
    """Samples ordered by target, largest first; with several outputs by class, in the order of the outputs."""

    order: np.ndarray  # numbers of the samples (P,)
    names: tuple[str, ...]  # of groups of equal targets: "y = 1", or "class 0" where targets are rows with a single one
    counts: tuple[int, ...]  # how many samples each group has
    of_sample: np.ndarray  # number of the group of every sample (P,), as the problem has them


def by_target(problem: Problem) -> Groups:
    """Returns the samples of a problem in groups of equal targets.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.observables.groups import by_target
        >>> groups = by_target(kf.Problem(np.eye(3), [-1.0, 1.0, -1.0]))
        >>> groups.order.tolist(), groups.names, groups.counts
        ([1, 0, 2], ('y = 1', 'y = −1'), (1, 2))
    """
    y = problem.y.reshape(problem.points, -1)
    targets, group, counts = np.unique(-y, axis=0, return_inverse=True, return_counts=True)
    group, targets = group.reshape(-1), 0.0 - targets
    classes = y.shape[1] > 1 and bool((np.sort(y, axis=1) == np.eye(y.shape[1])[-1]).all())
    labels = np.arange(y.shape[1]) if problem.classes is None else problem.classes
    names = tuple(f"class {labels[row.argmax()]}" if classes else f"y = {_target(row)}" for row in targets)
    return Groups(np.argsort(group, kind="stable"), names, tuple(counts.tolist()), group)


def _target(row: np.ndarray) -> str:
    numbers = ", ".join(f"{value:.3g}" for value in row).replace("-", "\N{MINUS SIGN}")
    return numbers if len(row) == 1 else f"({numbers})"
