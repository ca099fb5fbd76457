"""Factors F (R, T, P, k) of kernels F(t) F(s)^T: of as low a rank as a tolerance allows, or as few modes in time.

A factor of a long run holds a row for every step, though neighbouring steps differ little. As modes it is

    F(t) = sum_m C[t, m] B[m],

with the principal axes C of its Gram matrix between times; P = 200 and T = 1000 then fit in memory and in a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGE = 2**24  # numbers in a factor above which it is kept as modes
BLOCK = 2**22  # numbers that are summed over at once
MOST_AXES = 1024  # of a matrix, above which its factor is the matrix itself


@dataclass(frozen=True, eq=False)
class TimeModes:
    """A factor F(t) = sum_m C[t, m] B[m] of every replicate; `numpy.asarray` expands it."""

    in_time: np.ndarray  # C (R, T, modes)
    modes: np.ndarray  # B (R, modes, P, k)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the whole factor, (R, T, P, k)."""
        return (*self.in_time.shape[:2], *self.modes.shape[2:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole factor (R, T, P, k)."""
        return at_times(self, np.arange(self.shape[1])).astype(dtype or self.modes.dtype)


Factor = np.ndarray | TimeModes
Chosen = np.ndarray | slice  # numbers of samples or replicates; `slice(None)` for all


def at_times(factor: Factor, times: np.ndarray) -> np.ndarray:
    """Returns a factor at some times, () or (n,): (R, P, k) or (R, n, P, k) in float64.

    A factor (R, 1, P, k) does not depend on time.
    """
    if isinstance(factor, TimeModes):
        flat = factor.modes.reshape(*factor.modes.shape[:2], -1)
        expanded = factor.in_time[:, np.atleast_1d(times)] @ flat.astype(np.float64)
        return expanded.reshape(len(flat), *np.shape(times), *factor.shape[2:])
    return factor[:, np.zeros_like(times) if factor.shape[1] == 1 else times].astype(np.float64)


def restricted(factor: Factor, samples: Chosen, replicates: Chosen) -> Factor:
    """Returns a factor of some samples and replicates. Modes stay modes."""
    if isinstance(factor, TimeModes):
        return TimeModes(factor.in_time[replicates], factor.modes[replicates][:, :, samples])
    return factor[replicates][:, :, samples]


def slim(factor: np.ndarray, left_out: float, large: int = LARGE) -> Factor:
    """Returns a factor (R, T, P, k) of more than `large` numbers as modes in time if that halves it, or else as it is.

    At any time of any replicate, it may lose the part `left_out` of its square.
    """
    if factor.size <= large:
        return factor
    replicates, times, *rest = factor.shape
    found = [_axes(each.reshape(times, -1), left_out) for each in factor]
    count = max(axes.shape[1] for axes in found)
    if 2 * count > times:
        return factor
    in_time = np.stack([np.pad(axes, [(0, 0), (0, count - axes.shape[1])]) for axes in found])
    modes = np.empty((replicates, count, math.prod(rest)), factor.dtype)
    for C, each, into in zip(in_time, factor, modes, strict=True):
        np.matmul(C.T.astype(factor.dtype), each.reshape(times, -1), out=into)
    return TimeModes(in_time, modes.reshape(replicates, count, *rest))


def _axes(rows: np.ndarray, left_out: float) -> np.ndarray:
    """Returns orthonormal axes C (T, m), as few as leave out no more than that part of any row's square."""
    gram, step = np.zeros((len(rows), len(rows))), max(1, BLOCK // len(rows))
    for start in range(0, rows.shape[1], step):
        block = rows[:, start : start + step].astype(np.float64)
        gram += block @ block.T
    values, axes = np.linalg.eigh(gram)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    kept = np.cumsum(axes**2 * values, axis=1)  # of the square of every row, by so many axes
    enough = (kept >= (1 - left_out) * np.diag(gram)[:, None]).all(axis=0)
    return axes[:, : int(np.argmax(enough)) + 1 if enough.any() else len(rows)]


def compressed(rows: np.ndarray, left_out: float) -> np.ndarray:
    """Returns F (R, t, P, k) with F(t) F(s)^T = rows(t) rows(s)^T / N, for a field (R, t, P, N) on N neurons.

    The rank k is the smallest at which no network's kernel loses more than the part `left_out` of its trace, or N where
    both t P and N are long.
    """
    steps, points, width = rows.shape[1:]
    factors = [
        _factor(each.reshape(steps * points, width).astype(np.float64) / np.sqrt(width), left_out) for each in rows
    ]
    return stacked([factor.astype(rows.dtype).reshape(1, steps, points, -1) for factor in factors])


def stacked(factors: list[np.ndarray]) -> np.ndarray:
    """Returns factors of several networks along the first axis, ranks filled up with zeros."""
    rank = max(factor.shape[-1] for factor in factors)
    return np.concatenate(
        [np.pad(factor, [(0, 0)] * (factor.ndim - 1) + [(0, rank - factor.shape[-1])]) for factor in factors]
    )


def _factor(matrix: np.ndarray, left_out: float) -> np.ndarray:
    """Returns F (M, k) with F F^T = matrix matrix^T up to `left_out` of its trace: principal axes of its smaller side.

    Where both sides are long, the axes would take longer than training, and the matrix is returned as it is.
    """
    if min(matrix.shape) > MOST_AXES:
        return matrix
    wide = matrix.shape[0] <= matrix.shape[1]
    values, axes = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    values = np.maximum(values, 0.0)
    first = min(int(np.searchsorted(np.cumsum(values), left_out * values.sum(), side="right")), len(values) - 1)
    return axes[:, first:] * np.sqrt(values[first:]) if wide else matrix @ axes[:, first:]
