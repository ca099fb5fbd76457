"""What the replicates of a march recorded, as arrays of a Solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from kernelfield.engine.series import coefficients
from kernelfield.march.replicate import Replicate
from kernelfield.solution.time_modes import slim

Kind = Literal["features", "gradients"]


def outputs(replicates: Sequence[Replicate], rows: int) -> np.ndarray:
    """Returns f of every row, (R, rows, ...)."""
    return np.stack([np.concatenate([coefficients(f) for f in replicate.outputs])[:rows] for replicate in replicates])


def left_out(replicate: Replicate) -> float | None:
    """Returns the largest part of a field's mean square that its kernels lack; None without kernels."""
    parts = [float(row.left_out) for row in replicate.rows.values() if row.left_out is not None]
    return max(parts, default=None)


def recorded_rows(replicates: Sequence[Replicate], rows: int) -> list[int]:
    """Returns the rows whose kernels all replicates recorded."""
    return sorted(row for row in set.intersection(*(set(replicate.rows) for replicate in replicates)) if row < rows)


def tangents(replicates: Sequence[Replicate], rows: Sequence[int]) -> np.ndarray | None:
    """Returns tangent kernels (R, rows, P, P); None where factors give them, or they were not recorded."""
    if not rows or replicates[0].rows[rows[0]].tangent is None:
        return None
    return np.stack([np.stack([np.asarray(replicate.rows[row].tangent) for row in rows]) for replicate in replicates])


def factors(replicates: Sequence[Replicate], kind: Kind, rows: Sequence[int], orders: int, left_out: float) -> list:
    """Returns the kernel factors of every hidden layer, (R, rows, P, A k) for A sites: of features for their mean.

    Large factors are kept as modes in time, which may lose a part `left_out` of their square. Power series of several
    orders have one more axis after rows.
    """
    if not rows:
        return []
    layers = range(len(getattr(replicates[0].rows[rows[0]], kind)))
    whole = (_factor(replicates, kind, layer, rows, orders) for layer in layers)
    return [slim(factor, left_out) if orders == 1 else factor for factor in whole]


def _factor(replicates: Sequence[Replicate], kind: Kind, layer: int, rows: Sequence[int], orders: int) -> np.ndarray:
    """The factor of one hidden layer, without unused directions."""

    def row(replicate: Replicate, at: int) -> np.ndarray:
        return np.asarray(coefficients(getattr(replicate.rows[at], kind)[layer]))

    rank = 1 + max(_last(row(replicate, at)) for replicate in replicates for at in rows)
    stacked = np.stack([np.stack([row(replicate, at)[..., :rank] for at in rows]) for replicate in replicates])
    axes = 3 + (orders > 1)  # replicates, rows, orders, samples | sites, k
    if sites := stacked.shape[axes:-1]:
        stacked = stacked.reshape(*stacked.shape[:axes], -1)
        stacked = stacked / np.sqrt(np.prod(sites), dtype=stacked.dtype) if kind == "features" else stacked
    return stacked


def _last(values: np.ndarray) -> int:
    """The last column that is not zero."""
    return int(np.flatnonzero(values.reshape(-1, values.shape[-1]).any(axis=0)).max(initial=0))


def field_samples(
    replicates: Sequence[Replicate], value: Callable[[Any], np.ndarray], combinations: Any
) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Returns the fields h, z, g of hidden layers at the steps that every replicate kept, (R, P, A S) for A sites.

    Args:
        replicates: of a march.
        value: turns a field into numbers.
        combinations: (S, neurons) of particles, each of which is a neuron; None if particles are neurons.
    """
    samples = {}
    for step in set.intersection(*(set(replicate.fields) for replicate in replicates)):
        for layer in range(len(replicates[0].fields[step])):
            fields = {}
            for name in ("h", "z", "g"):
                rows = np.stack([value(getattr(replicate.fields[step][layer], name)) for replicate in replicates])
                rows = rows if combinations is None else rows @ combinations
                fields[name] = rows.reshape(*rows.shape[:2], -1)
            samples[layer + 1, step] = fields
    return samples
