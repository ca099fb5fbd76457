"""Kernel factors of long runs, kept as few modes in time: training moves them smoothly.

A factor F (R, T, P, k) holds a row for every step, though neighbouring steps differ little. As modes it is

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


@dataclass(frozen=True, eq=False)
class TimeModes:
    """A factor F(t) = sum_m C[t, m] B[m] of every replicate; `numpy.asarray` expands it.

    Args:
        in_time: C (R, T, modes).
        modes: B (R, modes, P, k).
    """

    in_time: np.ndarray
    modes: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the whole factor, (R, T, P, k)."""
        return (*self.in_time.shape[:2], *self.modes.shape[2:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole factor (R, T, P, k)."""
        return at_times(self, np.arange(self.shape[1])).astype(dtype or self.modes.dtype)


Factor = np.ndarray | TimeModes


def at_times(factor: Factor, times: np.ndarray) -> np.ndarray:
    """A factor at some times.

    Args:
        factor: of shape (R, T, P, k), or (R, 1, P, k) if it does not depend on time.
        times: steps, () or (n,).

    Returns:
        (R, P, k) or (R, n, P, k), float64.
    """
    if isinstance(factor, TimeModes):
        flat = factor.modes.reshape(*factor.modes.shape[:2], -1)
        expanded = factor.in_time[:, np.atleast_1d(times)] @ flat.astype(np.float64)
        return expanded.reshape(len(flat), *np.shape(times), *factor.shape[2:])
    return factor[:, np.zeros_like(times) if factor.shape[1] == 1 else times].astype(np.float64)


def restricted(factor: Factor, samples: np.ndarray | None, replicates: np.ndarray | None) -> Factor:
    """A factor of some samples and replicates.

    Args:
        factor: of shape (R, T, P, k).
        samples: their numbers (n,); all if None.
        replicates: their numbers (n,); all if None.

    Returns:
        The factor with fewer of them, kept as it was.
    """
    if isinstance(factor, TimeModes):
        in_time = factor.in_time if replicates is None else factor.in_time[replicates]
        modes = restricted(factor.modes, samples, replicates)
        return TimeModes(in_time, np.asarray(modes))
    factor = factor if replicates is None else factor[replicates]
    return factor if samples is None else factor[:, :, samples]


def slim(factor: np.ndarray, left_out: float, large: int = LARGE) -> Factor:
    """A large factor as modes in time, if that halves it at least.

    Args:
        factor: (R, T, P, k).
        left_out: the part of its square that it may lose, at any time of any replicate.
        large: numbers above which it is tried.

    Returns:
        The factor as it is, or as TimeModes.
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
    """Orthonormal axes C (T, m), as few as leave out no more than that part of any row's square."""
    gram, step = np.zeros((len(rows), len(rows))), max(1, BLOCK // len(rows))
    for start in range(0, rows.shape[1], step):
        block = rows[:, start : start + step].astype(np.float64)
        gram += block @ block.T
    values, axes = np.linalg.eigh(gram)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    kept = np.cumsum(axes**2 * values, axis=1)  # of the square of every row, by so many axes
    enough = (kept >= (1 - left_out) * np.diag(gram)[:, None]).all(axis=0)
    return axes[:, : int(np.argmax(enough)) + 1 if enough.any() else len(rows)]
