"""The wiring of sites: which site below each place of a kernel sees, and fields as they are seen from there.

A table (B, n) has, for every site that receives, the site that each of n places sees, or -1 for none. Without sites it
is [[0]]. Sums over places have a factor n^{-1/2}.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.series import Fields, apply_linear
from kernelfield.engine.tail import Tail

Sites = tuple[int, ...]


class Wiring(NamedTuple):
    """Weights between A sites below and B sites above; a kernel has n places."""

    below: Sites
    above: Sites
    up: np.ndarray  # (B, n): the site below that place j of the kernel sees from a site above, or -1 for none
    down: np.ndarray  # (A, n): the site above that sees a site below with place j, or -1 for none

    @property
    def places(self) -> int:
        """The number n of places."""
        return self.up.shape[1]


@functools.lru_cache(maxsize=256)
def wire_windows(sites: Sites, kernel: Sites, stride: int, padding: str) -> Wiring:
    """Returns the wiring of a convolution: output a = 0, 1, ... sees the sites a stride - (kernel - 1) // 2 + j.

    There are ceil(sites / stride) outputs along each axis. Outside is nothing ("zero") or the other end ("circular").
    """
    above = tuple(-(-size // stride) for size in sites)
    seen, valid = np.zeros((*above, *kernel), int), np.ones((*above, *kernel), bool)
    for axis, (size, window) in enumerate(zip(sites, kernel, strict=True)):
        along = np.arange(above[axis])[:, None] * stride - (window - 1) // 2 + np.arange(window)
        shape = [1] * (2 * len(sites))
        shape[axis], shape[len(sites) + axis] = above[axis], window
        seen = seen * size + (along % size).reshape(shape)
        if padding == "zero":
            valid = valid & ((along >= 0) & (along < size)).reshape(shape)
    up = np.where(valid, seen, -1).reshape(np.prod(above, dtype=int), -1)
    return Wiring(sites, above, up, _reverse(up, int(np.prod(sites))))


@functools.lru_cache(maxsize=256)
def wire_all(sites: Sites) -> Wiring:
    """Returns the wiring where every site has a weight of its own to one neuron above, a field without sites."""
    up = np.arange(np.prod(sites, dtype=int))[None]
    return Wiring(sites, (), up, _reverse(up, up.size))


def _reverse(up: np.ndarray, below: int) -> np.ndarray:
    down = np.full((below, up.shape[1]), -1)
    above, place = np.nonzero(up >= 0)
    down[up[above, place], place] = above
    return down


def gather(x: Fields, table: np.ndarray) -> Fields:
    """Returns what all places see of x (P, *sites, k), (P B, n k) / sqrt(n)."""

    def rows(values: Array) -> Array:
        seen = _look_up(values.reshape(len(values), -1, values.shape[-1]), table)
        return seen.reshape(-1, table.shape[1] * values.shape[-1]) / math.sqrt(table.shape[1])

    return apply_linear(rows, x)


def sum_places(x: Fields, table: np.ndarray) -> Fields:
    """Returns the sum over places of what each sees of its own part of x (P, *sites, n k), (P B, k) / sqrt(n)."""
    places = table.shape[1]

    def rows(values: Array) -> Array:
        k = values.shape[-1] // places
        seen = _look_up(values.reshape(len(values), -1, k), np.where(table < 0, -1, table * places + np.arange(places)))
        return seen.sum(axis=2).reshape(-1, k) / math.sqrt(places)

    return apply_linear(rows, x)


def apply_tail(J: Tail, x: Fields, table: np.ndarray) -> Fields:
    """Returns the sum over places j of J_j times what they see of x (P, *sites, S), (P B, S') / sqrt(n)."""

    def rows(values: Array) -> Array:
        sites = values.reshape(len(values), -1, values.shape[-1])
        if _is_pointwise(table, sites):
            return Tail(*(part[0] for part in J)) @ sites.reshape(-1, values.shape[-1])
        sites = jnp.pad(sites, [(0, 0), (0, 1), (0, 0)])

        def add(total: Array, place: tuple[Tail, Array]) -> tuple[Array, None]:
            J_j, seen = place
            return total + J_j @ sites[:, seen].reshape(len(total), -1), None

        zero = jnp.zeros((len(values) * len(table), J.above.shape[-1]), values.dtype)
        return lax.scan(add, zero, (J, jnp.asarray(table.T)))[0] / math.sqrt(table.shape[1])

    return apply_linear(rows, x)


def _look_up(values: Array, table: np.ndarray) -> Array:
    """Returns values (P, A, k) by a table (B, n), (P, B, n, k), with zeros where the table has -1."""
    if _is_pointwise(table, values):
        return values[:, :, None]
    return jnp.pad(values, [(0, 0), (0, 1), (0, 0)])[:, table]


def _is_pointwise(table: np.ndarray, values: Array) -> bool:
    """Returns whether every site of values (P, A, k) sees itself alone."""
    return table.shape == (values.shape[1], 1) and bool((table[:, 0] == np.arange(len(table))).all())
