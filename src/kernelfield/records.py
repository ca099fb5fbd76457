"""What the replicates of a march recorded, as arrays of a Solution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from kernelfield.engine.series import coefficients
from kernelfield.replicate import Record, Replicate
from kernelfield.time_modes import slim

Kind = Literal["features", "gradients"]


def recorded(replicates: Sequence[Replicate], name: Literal["f", "tangent"], rows: int) -> Any:
    """What every step recorded, (R, rows, ...); None if it did not."""
    if getattr(replicates[0].records[0], name) is None:
        return None
    parts = ([coefficients(getattr(part, name)) for part in each.records] for each in replicates)
    return np.stack([np.concatenate(each)[:rows] for each in parts])


def largest(replicates: Sequence[Replicate]) -> int:
    """Bytes of the coordinates of the layer that has most."""
    found = Counter()
    for part in (part for each in replicates for part in each.records):
        found.update({at: coefficients(F).nbytes for at, F in enumerate((*part.features, *part.gradients))})
    return max(found.values(), default=0)


def factors(replicates: Sequence[Replicate], kind: Kind, rows: int, orders: int, left_out: float) -> list[Any]:
    """Kernel factors of every hidden layer, (R, rows, P, A k) for A sites, of features for their mean.

    One after the other, since they are large, and without unused capacity; large ones as modes in time. Series, of
    several orders, have one more axis. The records lose what was taken from them.

    Args:
        replicates: of a march.
        kind: of factors.
        rows: to be taken.
        orders: of Series.
        left_out: the part of its square that a factor may lose; see `slim`.
    """
    layers = range(len(getattr(replicates[0].records[0], kind)))
    whole = (_factor(replicates, kind, layer, rows, orders) for layer in layers)
    return [slim(each, left_out) if orders == 1 else each for each in whole]


def _factor(replicates: Sequence[Replicate], kind: Kind, layer: int, rows: int, orders: int) -> np.ndarray:
    """That of one hidden layer, which the records lose as it is put together."""
    axes = 3 + (orders > 1)  # steps, orders, samples | sites, k
    chunks = [[coefficients(getattr(part, kind)[layer]) for part in each.records] for each in replicates]
    for each in replicates:
        each.records = [_without(part, kind, layer) for part in each.records]
    used = (part.any(axis=tuple(range(part.ndim - 1))) for each in chunks for part in each)
    rank = 1 + max(int(np.flatnonzero(columns).max(initial=0)) for columns in used)
    stacked = np.zeros((len(chunks), rows, *chunks[0][0].shape[1:-1], rank), chunks[0][0].dtype)
    for whole, parts in zip(stacked, chunks, strict=True):
        start = 0
        for part in parts:
            kept = part[: rows - start, ..., :rank]
            whole[start : start + len(kept), ..., : kept.shape[-1]] = kept
            start += len(kept)
        parts.clear()
    if sites := stacked.shape[axes:-1]:
        stacked = stacked.reshape(*stacked.shape[:axes], -1)
        stacked = stacked / np.sqrt(np.prod(sites), dtype=stacked.dtype) if kind == "features" else stacked
    return stacked


def _without(record: Record, kind: Kind, layer: int) -> Record:
    """A record that has lost the coordinates of a hidden layer."""
    parts = list(getattr(record, kind))
    parts[layer] = None
    return record._replace(**{kind: tuple(parts)})


def field_samples(
    replicates: Sequence[Replicate], names: Sequence[str], value: Callable[[Any], np.ndarray], combinations: Any
) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Fields of all hidden layers at the steps that every replicate kept, (R, P, A S): its sites are neurons too.

    Args:
        replicates: of a march.
        names: of fields.
        value: of a field as numbers.
        combinations: (S, neurons) of particles, each of which is a neuron; None if particles are neurons.
    """
    samples = {}
    for step in set.intersection(*(set(each.fields) for each in replicates)):
        for layer in range(len(replicates[0].fields[step])):
            found = {}
            for name in names:
                rows = np.stack([value(getattr(each.fields[step][layer], name)) for each in replicates])
                rows = rows if combinations is None else rows @ combinations
                found[name] = rows.reshape(*rows.shape[:2], -1)
            samples[layer + 1, step] = found
    return samples
