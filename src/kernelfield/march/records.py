"""What the replicates of a march recorded, as arrays of a Solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from kernelfield.engine.series import coefficients
from kernelfield.march.recorder import RecordedRow
from kernelfield.march.replicate import Replicate
from kernelfield.solution.factors import slim
from kernelfield.solution.kernel import Key, Symbol

Kind = Literal["features", "gradients"]


def common_steps(replicates: Sequence[Replicate], kind: Literal["rows", "fields", "states"]) -> list[int]:
    """Returns the steps of which all replicates have records of a kind, in order."""
    return sorted(set.intersection(*(set(getattr(replicate, kind)) for replicate in replicates)))


def recorded_kernels(replicates: Sequence[Replicate], rows: Sequence[int]) -> dict[Key, np.ndarray]:
    """Returns the kernels (R, rows, P C, P C) that were recorded at equal times, and that factors do not give."""

    def kernels(row: RecordedRow) -> dict[Key, Any]:
        found: dict[Key, Any] = {("NTK", None): row.tangent, ("eNTK", None): row.effective}
        symbols: tuple[Symbol, ...] = ("cosine", "Phi", "G")
        for symbol, kernels in zip(symbols, (row.cosines, *row.kernels), strict=True):
            found |= {(symbol, layer): kernel for layer, kernel in enumerate(kernels, start=1)}
        return {key: kernel for key, kernel in found.items() if kernel is not None}

    if not rows:
        return {}
    every = [[kernels(replicate.rows[row]) for row in rows] for replicate in replicates]
    return {
        key: np.stack([np.stack([np.asarray(row[key]) for row in of_replicate]) for of_replicate in every])
        for key in every[0][0]
    }


def factors(replicates: Sequence[Replicate], kind: Kind, rows: Sequence[int], orders: int, left_out: float) -> list:
    """Returns the kernel factors of every hidden layer, (R, rows, P, A k) for A sites: of features for their mean.

    Large factors are kept as modes in time, which may lose a part `left_out` of their square. Power series of several
    orders have one more axis after rows.
    """
    if not rows:
        return []
    found = []
    for layer in range(len(getattr(replicates[0].rows[rows[0]], kind))):
        every = [[coefficients(getattr(replicate.rows[at], kind)[layer]) for at in rows] for replicate in replicates]
        rank = 1 + max(_last_column(row) for of_replicate in every for row in of_replicate)
        factor = np.stack([np.stack([row[..., :rank] for row in of_replicate]) for of_replicate in every])
        axes = 3 + (orders > 1)  # replicates, rows, orders, samples | sites, k
        if sites := factor.shape[axes:-1]:
            factor = factor.reshape(*factor.shape[:axes], -1)
            factor = factor / np.sqrt(np.prod(sites), dtype=factor.dtype) if kind == "features" else factor
        found.append(slim(factor, left_out) if orders == 1 else factor)
    return found


def _last_column(values: Any) -> int:
    """The number of the last column that is not zero."""
    return int(np.flatnonzero(values.reshape(-1, values.shape[-1]).any(axis=0)).max(initial=0))


def field_samples(
    replicates: Sequence[Replicate], value: Callable[[Any], np.ndarray], combinations: Any
) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Returns the fields h, z, g of hidden layers at the steps that every replicate kept, (R, P, A S) for A sites.

    `value` turns a field into numbers. The neurons are combinations (S, neurons) of particles; if None, the particles.
    """
    samples = {}
    for step in common_steps(replicates, "fields"):
        for layer in range(len(replicates[0].fields[step])):
            fields = {}
            for name in ("h", "z", "g"):
                rows = np.stack([value(getattr(replicate.fields[step][layer], name)) for replicate in replicates])
                rows = rows if combinations is None else rows @ combinations
                fields[name] = rows.reshape(*rows.shape[:2], -1)
            samples[layer + 1, step] = fields
    return samples
