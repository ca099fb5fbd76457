"""Weights that are learned entry by entry, by Adam: what is learned is no sum of few products of fields.

Where one side of the weights is data, an output, or a single weight, all entries are known. Between two populations a
learned matrix M has an entry for every pair of neurons, of which a skeleton is known: all entries of some columns, and
of some rows. M acts as U V, where U has the leading directions of the known columns, and V fits the known rows. Both
directions are of this one operator:

    h += <(U V) phi> over neurons below,        z += <(U V)^T g> over neurons above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.wiring import gather, sum_places

SMALLEST = 1e-6  # of the known columns: singular values, relative to the largest, of directions that U has


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
class Skeleton:
    """What is learned of n matrices between two populations, by some columns (S', n m) and rows (n, m', S)."""

    columns: Entries
    rows: Entries
    U: Array  # (S', k)
    V: Array  # (n, k, S)
    gain: Array
    below: np.ndarray  # the neurons below of the known columns (m,)
    above: np.ndarray  # the neurons above of the known rows (m',)

    @property
    def places(self) -> int:
        """The number n of matrices."""
        return len(self.V)

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
        g = (rate.reshape(-1, *[1] * (g.ndim - 1)) * g).reshape(-1, g.shape[-1])
        columns = g.T @ gather(phi[..., self.below], table)
        wired = gather(phi, table).reshape(len(g), self.places, -1)
        rows = jnp.einsum("pi,pnj->nij", g[:, self.above], wired)
        return replace(
            self,
            columns=self.columns._replace(gradient=self.columns.gradient + columns),
            rows=self.rows._replace(gradient=self.rows.gradient + rows),
        )

    def descend(self, adam: Adam) -> Skeleton:
        """Returns the skeleton after one update."""
        columns, rows = (descend(entries, self.gain, adam) for entries in (self.columns, self.rows))
        C = columns.M
        energy, axes = jnp.linalg.eigh((C.T @ C).astype(jnp.float64))
        most = self.U.shape[1]
        energy, axes = energy[::-1][:most], axes[:, ::-1][:, :most]
        leads = energy > SMALLEST**2 * energy[0]
        scale = jnp.where(leads, 1 / jnp.sqrt(jnp.where(leads, energy, 1)), 0) * math.sqrt(len(C))
        U = C @ (axes * scale).astype(C.dtype)
        known = jnp.moveaxis(rows.M, 1, 0).reshape(len(self.above), -1)
        V = jnp.linalg.lstsq(U[self.above].astype(jnp.float64), known.astype(jnp.float64))[0]
        V = jnp.moveaxis(V.reshape(most, self.places, -1), 1, 0).astype(C.dtype)
        return replace(self, columns=columns, rows=rows, U=U, V=V)


def make_skeleton(
    matrices: int, neurons: tuple[int, int], components: tuple[int, int], known: int, rank: int, gain: float, dtype: Any
) -> Skeleton:
    """Returns a skeleton of nothing learned, in NumPy, between so many neurons below and above.

    Args:
        matrices: n.
        neurons, components: of the populations below and above.
        known: columns (of all matrices together) and rows that are known.
        rank: k of U V.
        gain: of what is learned.
        dtype: of all arrays.
    """
    zeros: Any = np.zeros
    below, above = (
        _spread(count, of, most)
        for count, of, most in zip(neurons, components, (max(8, known // matrices), known), strict=True)
    )
    unit: Any = np.asarray(math.sqrt(gain * matrices), dtype)

    def entries(*shape: int) -> Entries:
        M, gradient, first, second = (zeros(shape, dtype) for _ in range(4))
        return Entries(M, gradient, Moments(first, second, unit))

    columns, rows = entries(neurons[1], matrices * len(below)), entries(matrices, len(above), neurons[0])
    U, V = zeros((neurons[1], rank), dtype), zeros((matrices, rank, neurons[0]), dtype)
    return Skeleton(columns, rows, U, V, np.asarray(gain, dtype), below, above)  # type: ignore[arg-type]


def _spread(neurons: int, components: int, most: int) -> np.ndarray:
    """Returns neurons of the first particles, all components of each, about as many as there may be."""
    particles = neurons // components
    first = np.arange(min(particles, max(1, most // components)))
    return np.concatenate([component * particles + first for component in range(components)])
