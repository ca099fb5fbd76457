"""The wiring of sites: which site below each place of a kernel sees, for every site above."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, project_rest
from kernelfield.engine.series import Fields, apply_linear
from kernelfield.layers.base import Pair, Sites

Padding = Literal["zero", "circular"]


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
def wire_windows(sites: Sites, kernel: Sites, stride: int, padding: Padding) -> Wiring:
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
    """Returns what every site above sees of x (P, *sites, k), (P B, n k) / sqrt(n); zeros where the table has -1."""

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return values.reshape(len(values), -1)
        sites = values.reshape(len(values), -1, values.shape[-1])
        seen = jnp.pad(sites, [(0, 0), (0, 1), (0, 0)])[:, table]
        return seen.reshape(-1, table.shape[1] * values.shape[-1]) / math.sqrt(table.shape[1])

    return apply_linear(rows, x)


def _sum_places(x: Fields, table: np.ndarray) -> Fields:
    """Returns the sum over places of what every site above sees of x (P, *sites, n k), (P B, k) / sqrt(n)."""

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return values.reshape(len(values), -1)
        places = table.shape[1]
        sites = values.reshape(len(values), -1, places, values.shape[-1] // places)
        seen = jnp.pad(sites, [(0, 0), (0, 1), (0, 0), (0, 0)])[:, table, np.arange(places)]
        return seen.sum(axis=2).reshape(-1, seen.shape[-1]) / math.sqrt(places)

    return apply_linear(rows, x)


def _apply_places(act: Callable[[Any, Array], Array], matrices: Any, x: Fields, table: np.ndarray) -> Fields:
    """Returns n^{-1/2} sum_j act(matrix j, the site that every site sees with place j), (P B, S) of x (P, *sites, S).

    `act` applies one matrix to rows; the matrices are a tree of arrays (n, ...).
    """

    def rows(values: Array) -> Array:
        if table.shape == (1, 1):
            return act(jax.tree.map(lambda leaf: leaf[0], matrices), values.reshape(len(values), -1))
        sites = jnp.pad(values.reshape(len(values), -1, values.shape[-1]), [(0, 0), (0, 1), (0, 0)])

        def add(total: Array, place: tuple[Any, Array]) -> tuple[Array, None]:
            matrix, seen = place
            return total + act(matrix, sites[:, seen].reshape(total.shape)), None

        zero = jnp.zeros((len(values) * len(table), values.shape[-1]), values.dtype)
        return lax.scan(add, zero, (matrices, jnp.asarray(table.T)))[0] / math.sqrt(table.shape[1])

    return apply_linear(rows, x)


def combine(F: Fields, images: Images, table: np.ndarray) -> Fields:
    """Returns F D (P B, S) of the coordinates F (P, *sites, k) that every site sees by the table."""
    return gather(F, table) @ images.D.reshape(-1, images.K.shape[-1])


def send(matrix: InfiniteMatrix, x: Fields, F: Fields, table: np.ndarray) -> Fields:
    """Returns W x (P B, S) of a field x (P, *sites, S) with coordinates F, wired by the table."""
    h = combine(F, matrix.up, table) + _sum_places(project_rest(matrix, x, F), table) @ matrix.above.q
    return h if matrix.tail is None else h + _apply_places(matrix.act, matrix.J, x, table) * matrix.up.scale


def sum_products(one: Pair, other: Pair, table: np.ndarray) -> Array:
    """Returns the sum over sites a, b above of (F_a . F'_b) (G_a . G'_b), (P, P'); F_a are the features that a sees."""
    (F, G), (F2, G2) = ((gather(pair.F, table), pair.G.reshape(-1, pair.G.shape[-1])) for pair in (one, other))
    samples = len(one.G)
    sites = len(F) // samples
    return ((F @ F2.T) * (G @ G2.T)).reshape(samples, sites, -1, sites).sum((1, 3))
