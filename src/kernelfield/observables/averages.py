"""Averages over training time, for dynamics that fluctuate."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution


def time_average(
    solution: Solution, quantity: Literal["predictions", "loss"] | Symbol, start: int, layer: int | None = None
) -> Estimate:
    """Returns the average over time of predictions, the loss or a kernel at equal times, from a row on.

    Rows of one replicate are correlated, those of different replicates are not: the average of each replicate is one
    independent number, and the error bar is that of their mean, by Student's t, however long correlations are.

    Args:
        solution: of Langevin dynamics, for instance, with two replicates or more.
        quantity: "predictions", "loss", or a kernel: "Phi", "G", "NTK".
        start: the first row, after dynamics have settled; negative from the end. Of kernels, rows that were kept count.
        layer: of a kernel that has one.

    Returns:
        Estimate (P,), or (P, C), a number, or (P, P).

    Raises:
        ValueError: there is one replicate alone, or no row of a kernel was kept from `start` on; for a kernel, layer or
            row that is not there.
    """
    first = int(solution.steps(start))
    if len(solution.replicate_predictions) < 2 and not solution.exact:
        raise ValueError("time_average needs two replicates: rows of one alone do not tell its error")
    if quantity in ("predictions", "loss"):
        rows = solution.estimate(quantity).replicates[:, first:]
        return Estimate(rows.astype(float).mean(axis=1), solution.exact)
    kept = solution.steps()[solution.kernel(quantity, layer).kept]
    steps = kept[kept >= first]
    if not len(steps):
        raise ValueError(f"no kernel was kept from step {first} on: see save_at")
    total = sum(solution.kernel_estimate(quantity, layer, int(step)).replicates for step in steps)
    return Estimate(np.asarray(total) / len(steps), solution.exact)
