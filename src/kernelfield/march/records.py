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
    """f of every row, (R, rows, ...)."""
    return np.stack([np.concatenate([coefficients(part) for part in each.outputs])[:rows] for each in replicates])


def recorded_rows(replicates: Sequence[Replicate], rows: int) -> list[int]:
    """Rows whose kernels all replicates recorded."""
    return sorted(row for row in set.intersection(*(set(each.rows) for each in replicates)) if row < rows)


def tangents(replicates: Sequence[Replicate], rows: Sequence[int]) -> np.ndarray | None:
    """Tangent kernels (R, rows, P, P); None where they follow from the factors, or nobody asked."""
    if not rows or replicates[0].rows[rows[0]].tangent is None:
        return None
    return np.stack([np.stack([np.asarray(each.rows[row].tangent) for row in rows]) for each in replicates])


def factors(replicates: Sequence[Replicate], kind: Kind, rows: Sequence[int], orders: int, left_out: float) -> list:
    """Kernel factors of every hidden layer, (R, rows, P, A k) for A sites, of features for their mean.

    Large ones as modes in time. Series, of several orders, have one more axis.

    Args:
        replicates: of a march.
        kind: of factors.
        rows: recorded ones.
        orders: of Series.
        left_out: the part of its square that a factor may lose; see `slim`.
    """
    if not rows:
        return []
    layers = range(len(getattr(replicates[0].rows[rows[0]], kind)))
    whole = (_factor(replicates, kind, layer, rows, orders) for layer in layers)
    return [slim(each, left_out) if orders == 1 else each for each in whole]


def _factor(replicates: Sequence[Replicate], kind: Kind, layer: int, rows: Sequence[int], orders: int) -> np.ndarray:
    """That of one hidden layer, without unused directions."""

    def row(replicate: Replicate, at: int) -> np.ndarray:
        return np.asarray(coefficients(getattr(replicate.rows[at], kind)[layer]))

    rank = 1 + max(_last(row(each, at)) for each in replicates for at in rows)
    stacked = np.stack([np.stack([row(each, at)[..., :rank] for at in rows]) for each in replicates])
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
    """Fields h, z, g of all hidden layers at the steps that every replicate kept, (R, P, A S): sites are neurons too.

    Args:
        replicates: of a march.
        value: of a field as numbers.
        combinations: (S, neurons) of particles, each of which is a neuron; None if particles are neurons.
    """
    samples = {}
    for step in set.intersection(*(set(each.fields) for each in replicates)):
        for layer in range(len(replicates[0].fields[step])):
            found = {}
            for name in ("h", "z", "g"):
                rows = np.stack([value(getattr(each.fields[step][layer], name)) for each in replicates])
                rows = rows if combinations is None else rows @ combinations
                found[name] = rows.reshape(*rows.shape[:2], -1)
            samples[layer + 1, step] = found
    return samples
