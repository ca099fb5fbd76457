"""The points of a problem that are measured: those that train, those that test, or all."""

from __future__ import annotations

from typing import Literal

import numpy as np

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
