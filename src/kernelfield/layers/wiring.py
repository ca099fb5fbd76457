"""Which site of a layer below each place of a kernel sees, for every site above."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.series import Fields, linear

Padding = Literal["zero", "circular"]


class Wiring(NamedTuple):
    """Weights between sites below (A of them, in shape `below`) and above (B, in shape `above`), n places of a kernel.

    Attributes:
        below, above: sites.
        up: (B, n) the site below that place j of the kernel sees from a site above, or -1 for none.
        down: (A, n) the site above that sees a site below with place j, or -1 for none.
    """

    below: tuple[int, ...]
    above: tuple[int, ...]
    up: np.ndarray
    down: np.ndarray

    @property
    def places(self) -> int:
        """n."""
        return self.up.shape[1]


@functools.lru_cache(maxsize=256)
def convolution(sites: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: Padding) -> Wiring:
    """A window around every stride-th site: outputs a = 0, 1, ... see sites a stride - (kernel - 1) // 2 + j.

    Args:
        sites: below, along each axis.
        kernel: sites of the window, along each axis.
        stride: between windows; along each axis there are ceil(sites / stride).
        padding: "zero": what is outside adds nothing; "circular": the other end follows.
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
    return Wiring(sites, above, up, _reversed(up, int(np.prod(sites))))


@functools.lru_cache(maxsize=256)
def all_to_one(sites: tuple[int, ...]) -> Wiring:
    """Every site has a weight of its own to the one neuron above: a field without sites."""
    up = np.arange(np.prod(sites, dtype=int))[None]
    return Wiring(sites, (), up, _reversed(up, up.size))


def _reversed(up: np.ndarray, below: int) -> np.ndarray:
    down = np.full((below, up.shape[1]), -1)
    above, place = np.nonzero(up >= 0)
    down[up[above, place], place] = above
    return down


def gathered(x: Fields, table: np.ndarray) -> Fields:
    """What every site sees, as rows: x (P, *sites, k) -> (P B, n k) / sqrt(n), zero where the table (B, n) says -1."""

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return values.reshape(len(values), -1)
        sites = values.reshape(len(values), -1, values.shape[-1])
        seen = jnp.pad(sites, [(0, 0), (0, 1), (0, 0)])[:, table]
        return seen.reshape(-1, table.shape[1] * values.shape[-1]) / math.sqrt(table.shape[1])

    return linear(rows, x)


def added(x: Fields, table: np.ndarray) -> Fields:
    """The sum over places of what every site sees: x (P, *sites, n k) -> (P B, k) / sqrt(n)."""

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return values.reshape(len(values), -1)
        places = table.shape[1]
        sites = values.reshape(len(values), -1, places, values.shape[-1] // places)
        seen = jnp.pad(sites, [(0, 0), (0, 1), (0, 0), (0, 0)])[:, table, np.arange(places)]
        return seen.sum(axis=2).reshape(-1, seen.shape[-1]) / math.sqrt(places)

    return linear(rows, x)


def through(act: Callable[[Any, Array], Array], matrices: Any, x: Fields, table: np.ndarray) -> Fields:
    """n^{-1/2} sum_j act(matrix j, what every site sees with place j): x (P, *sites, S) -> (P B, S).

    Args:
        act: of one matrix on rows.
        matrices: a tree of arrays (n, ...).
        x: a field.
        table: (B, n) of sites, -1 for none.
    """

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return act(jax.tree.map(lambda leaf: leaf[0], matrices), values.reshape(len(values), -1))
        sites = jnp.pad(values.reshape(len(values), -1, values.shape[-1]), [(0, 0), (0, 1), (0, 0)])

        def add(total: Array, each: tuple[Any, Array]) -> tuple[Array, None]:
            matrix, seen = each
            return total + act(matrix, sites[:, seen].reshape(total.shape)), None

        zero = jnp.zeros((len(values) * len(table), values.shape[-1]), values.dtype)
        return lax.scan(add, zero, (matrices, jnp.asarray(table.T)))[0] / math.sqrt(table.shape[1])

    return linear(rows, x)


def spread(x: Fields, samples: int, sites: Sequence[int]) -> Fields:
    """Rows (P B, S) as a field (P, *sites, S)."""
    return linear(lambda values: values.reshape(samples, *sites, -1), x)
