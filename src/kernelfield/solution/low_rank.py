"""Kernels kept as factors of low rank."""

from __future__ import annotations

import numpy as np

BLOCK = 64  # directions sought at a time


def compressed(rows: np.ndarray, left_out: float) -> np.ndarray:
    """Factors of low rank of the kernels <rows rows>.

    Args:
        rows: (R, t, P, N), a field on N neurons, of R networks.
        left_out: the part of each kernel's trace that may be lost.

    Returns:
        F (R, t, P, k) with F(t) F(s)^T = rows(t) rows(s)^T / N, of the smallest k that does for all networks.
    """
    steps, points, width = rows.shape[1:]
    factors = [
        _factor(each.reshape(steps * points, width).astype(np.float64) / np.sqrt(width), left_out) for each in rows
    ]
    return stacked([factor.astype(rows.dtype).reshape(1, steps, points, -1) for factor in factors])


def stacked(factors: list[np.ndarray]) -> np.ndarray:
    """Factors of several networks along the first axis, ranks filled up with zeros."""
    rank = max(factor.shape[-1] for factor in factors)
    return np.concatenate(
        [np.pad(factor, [(0, 0)] * (factor.ndim - 1) + [(0, rank - factor.shape[-1])]) for factor in factors]
    )


def _factor(matrix: np.ndarray, left_out: float) -> np.ndarray:
    """F (M, k) with F F^T = matrix matrix^T up to `left_out` of its trace.

    Source: the blocked randomised range finder of N. Halko, P. G. Martinsson and J. A. Tropp,
    arXiv:0909.4061, section 4.4, with the explicit residual as its stopping rule; then principal axes.
    """
    allowed = left_out * np.sum(matrix**2) / 2
    ranges, residual, rng = [np.zeros((len(matrix), 1))], matrix.copy(), np.random.default_rng(0)
    for _ in range(0, min(matrix.shape), BLOCK):
        if np.sum(residual**2) <= allowed:
            break
        found = np.linalg.qr(residual @ rng.standard_normal((matrix.shape[1], BLOCK)))[0]
        residual -= found @ (found.T @ residual)
        ranges.append(found)
    within = np.linalg.qr(np.concatenate(ranges, axis=1))[0]
    across = within.T @ matrix
    values, vectors = np.linalg.eigh(across @ across.T)
    values = np.maximum(values, 0.0)
    first = min(int(np.searchsorted(np.cumsum(values), allowed, side="right")), len(values) - 1)
    return within @ vectors[:, first:] * np.sqrt(values[first:])
