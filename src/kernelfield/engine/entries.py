"""Weights that are learned entry by entry, by Adam: what is learned is no sum of few products of fields.

Where one side of the weights is data, an output, or a single weight, all entries are known. Between two populations a
learned matrix M has an entry for every pair of neurons. Either all are known (`Pairs`), or a skeleton is: all entries
of some columns, and of some rows. M then acts as U V, where U has the leading directions of the known columns, and V
fits the known rows. Both directions are of this one operator:

    h += <(U V) phi> over neurons below,        z += <(U V)^T g> over neurons above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.wiring import gather, sum_places

SMALLEST = 1e-6  # of the known columns: singular values, relative to the largest, of directions that U has
OBSERVED = 0.1  # the same of U on the known rows, of those that V can fit: of Gaussian directions they are 0.3 or more


class Moments(NamedTuple):
    """The moments of Adam, shaped as the entries, and the units in which gradients are of order one."""

    first: Array
    second: Array
    unit: Array


class Entries(NamedTuple):
    """Entries of learned weights: their values, the gradients that have come in, and their moments."""

    M: Array
    gradient: Array
    moments: Moments


class Adam(NamedTuple):
    """One update of Adam: its settings, the number of the update from 1 on, and the step of an entry."""

    b1: Array
    b2: Array
    eps: Array
    number: Array
    rate: Array  # eta gamma0
    kept: Array  # by weight decay
    learns: Array  # whether anything changes


def descend(entries: Entries, gain: Array, adam: Adam) -> Entries:
    """Returns the entries after one update along the gradients that came in, and none of these."""
    M, gradient, (first, second, unit) = entries
    b1, b2, eps, rate, kept = (value.astype(M.dtype) for value in (adam.b1, adam.b2, adam.eps, adam.rate, adam.kept))
    G = gradient * unit
    first, second = (
        jnp.where(adam.learns, b * old + (1 - b) * new, old) for b, old, new in ((b1, first, G), (b2, second, G * G))
    )
    root = jnp.sqrt(second / (1 - b2**adam.number)) + eps
    Q = jnp.where(root > 0, first / (1 - b1**adam.number) / jnp.where(root > 0, root, 1), 0)
    moved = kept * M + (rate * gain / unit) * Q
    return Entries(jnp.where(adam.learns, moved, M), jnp.zeros_like(gradient), Moments(first, second, unit))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairs:
    """What is learned of n matrices between two populations, by the entries of all pairs of neurons (S', n S)."""

    entries: Entries
    gain: Array
    places: int = field(metadata={"static": True})  # n

    def send_up(self, x: Any, table: np.ndarray) -> Array:
        """Returns <M x> (P B, S') of fields x (P, *sites, S), wired by a table."""
        return gather(x, table) @ self.entries.M.T / x.shape[-1]

    def send_down(self, x: Any, table: np.ndarray, ratio: float) -> Array:
        """Returns ratio <M^T x> (P A, S) of fields x (P, *sites, S'), wired by a table."""
        by_place = jnp.moveaxis(self.entries.M.reshape(x.shape[-1], self.places, -1), 1, 0)
        return (ratio / x.shape[-1]) * (gather(x, table) @ by_place.reshape(-1, by_place.shape[-1]))

    def collect(self, rate: Array, phi: Any, g: Any, table: np.ndarray) -> Pairs:
        """Returns all pairs with the gradients sum_i rate_i g_i phi_i^T of fields (P, *sites, S), wired upward."""
        new = _weigh(rate, g).T @ gather(phi, table)
        return replace(self, entries=self.entries._replace(gradient=self.entries.gradient + new))

    def descend(self, adam: Adam) -> Pairs:
        """Returns all pairs after one update."""
        return replace(self, entries=descend(self.entries, self.gain, adam))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Skeleton:
    """What is learned of n matrices between two populations, by some columns (S', n m) and rows (n, m', S)."""

    columns: Entries
    rows: Entries
    U: Array  # (S', k)
    V: Array  # (n, k, S)
    gain: Array
    below: np.ndarray  # the neurons below of the known columns (m,)
    above: np.ndarray  # the neurons above of the known rows (m',)

    def send_up(self, x: Any, table: np.ndarray) -> Array:
        """Returns <U V x> (P B, S') of fields x (P, *sites, S), wired by a table."""
        parts = x @ self.V.reshape(-1, x.shape[-1]).T / x.shape[-1]
        return sum_places(parts, table) @ self.U.T

    def send_down(self, x: Any, table: np.ndarray, ratio: float) -> Array:
        """Returns ratio <V^T U^T x> (P A, S) of fields x (P, *sites, S'), wired by a table."""
        seen = gather(x @ self.U / x.shape[-1], table)
        return ratio * (seen @ self.V.reshape(-1, self.V.shape[-1]))

    def collect(self, rate: Array, phi: Any, g: Any, table: np.ndarray) -> Skeleton:
        """Returns the skeleton with the gradients sum_i rate_i g_i phi_i^T of fields (P, *sites, S), wired upward."""
        g = _weigh(rate, g)
        columns = g.T @ gather(phi[..., self.below], table)
        wired = gather(phi, table).reshape(len(g), len(self.V), -1)
        rows = jnp.einsum("pi,pnj->nij", g[:, self.above], wired)
        return replace(
            self,
            columns=self.columns._replace(gradient=self.columns.gradient + columns),
            rows=self.rows._replace(gradient=self.rows.gradient + rows),
        )

    def descend(self, adam: Adam) -> Skeleton:
        """Returns the skeleton after one update."""
        columns, rows = (descend(entries, self.gain, adam) for entries in (self.columns, self.rows))
        C, rank = columns.M, self.U.shape[1]
        energy, axes = jnp.linalg.eigh((C.T @ C).astype(jnp.float64))
        energy, axes = energy[::-1][:rank], axes[:, ::-1][:, :rank]
        leads = energy > SMALLEST**2 * energy[0]
        scale = jnp.where(leads, 1 / jnp.sqrt(jnp.where(leads, energy, 1)), 0) * math.sqrt(len(C))
        U = C @ (axes * scale).astype(C.dtype)
        known = jnp.moveaxis(rows.M, 1, 0).reshape(len(self.above), -1)
        V = jnp.linalg.lstsq(U[self.above].astype(jnp.float64), known.astype(jnp.float64), rcond=OBSERVED)[0]
        V = jnp.moveaxis(V.reshape(rank, len(self.V), -1), 1, 0).astype(C.dtype)
        return replace(self, columns=columns, rows=rows, U=U, V=V)


def _weigh(rate: Array, g: Any) -> Array:
    """Returns rate_i g_i in rows (P B, S), of rates (P,) and fields (P, *sites, S)."""
    return (rate.reshape(-1, *[1] * (g.ndim - 1)) * g).reshape(-1, g.shape[-1])


def learn_nothing(
    matrices: int, neurons: tuple[int, int], skeleton: tuple[int, int] | None, gain: float, dtype: Any
) -> Pairs | Skeleton:
    """Returns what n `matrices` have learned at first, in NumPy, between so many neurons below and above.

    Args:
        matrices: n.
        neurons: below and above.
        skeleton: how many columns (of all matrices together) and rows are known, and the rank k of U V; None for all.
        gain: of what is learned.
        dtype: of all arrays.
    """
    zeros: Any = np.zeros
    unit: Any = np.asarray(math.sqrt(gain * matrices), dtype)
    factor: Any = np.asarray(gain, dtype)

    def entries(*shape: int) -> Entries:
        M, gradient, first, second = (zeros(shape, dtype) for _ in range(4))
        return Entries(M, gradient, Moments(first, second, unit))

    if skeleton is None:
        return Pairs(entries(neurons[1], matrices * neurons[0]), factor, matrices)
    known, rank = skeleton
    below: Any = np.arange(min(neurons[0], max(8, known // matrices)))
    above: Any = np.arange(min(neurons[1], known))
    columns, rows = entries(neurons[1], matrices * len(below)), entries(matrices, len(above), neurons[0])
    U, V = zeros((neurons[1], rank), dtype), zeros((matrices, rank, neurons[0]), dtype)
    return Skeleton(columns, rows, U, V, factor, below, above)
