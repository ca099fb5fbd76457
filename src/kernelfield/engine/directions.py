"""Leading directions of the fields on one population: an orthonormal basis that grows where fields have energy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.engine.series import Fields, Series, coefficients, like

EXACT = 1e-20  # tolerances up to here are of bases that have to know everything
BLOCK = 32  # directions that are sought at once
EXACT_ROWS = 64  # rows whose Gram matrix is diagonalized; of more rows the leading directions are found by iteration
ITERATIONS = 2  # of that search
PATIENCE = (
    1.2,
    0.98,
)  # after a search in vain: by how much the energy must grow for the next; how fast that is forgotten


class Directions(NamedTuple):
    """Directions q_i with <q_i q_j> = delta_ij, in the order in which they were met.

    Attributes:
        q: (capacity, S); rows from `size` on are zero, so that sums over all rows are sums over the basis.
        size: number of directions k.
        scale: running maximum of the mean square of what was represented; (orders,) of a Series.
        left: mean square outside the basis when it was last asked, in units of `scale`.
        known: the part of `left` in which the last search found nothing.
    """

    q: Array
    size: Array
    scale: Array
    left: Array
    known: Array


def no_directions(capacity: int, particles: int, dtype: Any, orders: int = 1) -> Directions:
    """A basis without directions and room for `capacity`, in NumPy.

    Args:
        capacity: the most directions.
        particles: S.
        dtype: of the directions.
        orders: of the Series that it is for; 1 for arrays.
    """
    zero: Any = np.zeros
    scale = zero(orders if orders > 1 else (), dtype)
    return Directions(zero((capacity, particles), dtype), zero((), int), scale, zero((), dtype), zero((), dtype))


def coordinates(directions: Directions, x: Fields) -> Fields:
    """F = <x q> (..., capacity) of a field x (..., S)."""
    return x @ directions.q.T * (1 / directions.q.shape[1])


def represent(directions: Directions, x: Fields, mass: Array, tol: float) -> tuple[Directions, Fields]:
    """Coordinates of a field, after the basis has met the directions in which the field has most energy.

    They are the eigenvectors of the mean of E_mu E_mu^T over rows mu, with E what the basis leaves out, whose
    eigenvalues exceed `tol` times the running maximum of the mean square.

    Args:
        directions: met so far.
        x: (P, ..., S), or a Series of that: its coefficients share the basis, each with a scale of its own.
        mass: (P,) weights of the points in that mean.
        tol: above which a direction is met.

    Returns:
        The basis and F (P, ..., capacity), a Series as x is.
    """
    values = coefficients(x)
    orders = values.shape[:1] if isinstance(x, Series) else ()
    rows = values.reshape(*orders, -1, values.shape[-1])
    weight = jnp.repeat(mass, rows.shape[-2] // len(mass)).astype(rows.dtype)
    weight = weight / jnp.sum(weight)
    energy = jnp.mean(rows * rows, axis=-1)
    scale = jnp.maximum(directions.scale, energy @ weight)
    unit = jnp.where(scale > 0, scale, 1)
    if orders:
        rows, energy = rows / jnp.sqrt(unit)[:, None, None], energy / unit[:, None]
        rows, energy, weight = rows.reshape(-1, rows.shape[-1]), energy.ravel(), jnp.tile(weight, orders)
    else:
        weight = weight / unit
    with jax.default_matmul_precision("highest"):  # on devices that round products of float32 more by default
        found, F = _represent(directions, rows, energy, weight, tol)
    if orders:
        F = F.reshape(*orders, -1, F.shape[-1]) * jnp.sqrt(scale)[:, None, None]
    return found._replace(scale=scale), like(x, F.reshape(*values.shape[:-1], -1))


def _represent(directions: Directions, x: Array, energy: Array, weight: Array, tol: float) -> tuple[Directions, Array]:
    """`represent` for rows x (rows, S) of mean square `energy`; means by `weight` are in units of the scale."""
    precise = tol <= EXACT
    passes = math.ceil(min(len(x), len(directions.q)) / BLOCK) + (2 if precise else 0)

    def outside(directions: Directions, F: Array) -> Array:
        if precise:
            return jnp.mean((x - F @ directions.q) ** 2, axis=1) @ weight
        return jnp.maximum(energy - jnp.sum(F * F, axis=1), 0) @ weight

    def goes_on(now: tuple[Directions, Array, Array]) -> Array:
        directions, _, count = now
        room = directions.size < len(directions.q)
        return room & (count < passes) & (directions.left > tol) & (directions.left > directions.known)

    def extend(now: tuple[Directions, Array, Array]) -> tuple[Directions, Array, Array]:
        directions, F, count = now
        size = directions.size
        directions, F = _extend(directions, F, x, weight, tol)
        left = outside(directions, F)
        known = jnp.where(directions.size > size, directions.known, PATIENCE[0] * left)
        return directions._replace(left=left, known=known), F, count + 1

    F = coordinates(directions, x)
    directions = directions._replace(left=outside(directions, F), known=PATIENCE[1] * directions.known)
    directions, F, _ = lax.while_loop(goes_on, extend, (directions, F, jnp.zeros((), int)))
    return directions, F


def _extend(directions: Directions, F: Array, x: Array, weight: Array, tol: float) -> tuple[Directions, Array]:
    """The leading directions of what F leaves out of x, in the basis and in F.

    A basis that fills up gets choosy, so that it has room for directions with much energy that come late.
    """
    q, capacity = directions.q, len(directions.q)
    cut = jnp.asarray(tol) if tol <= EXACT else tol / (1 - (directions.size / capacity) ** 2)
    fresh, energy = _leading(x, F, q, jnp.sqrt(weight))
    resolved = 1e-10 if x.dtype == jnp.float64 else 1e-5  # of the largest, by one Gram matrix
    kept = jnp.cumprod(energy > jnp.maximum(cut, resolved * energy[0]))
    fresh = _orthonormal(fresh / jnp.sqrt(jnp.where(kept, energy, 1))[:, None], q, kept)
    order = jnp.arange(len(fresh))
    place = jnp.where(kept > 0, directions.size + order, capacity)  # beyond the capacity they are left to the tail
    loadings = (x @ fresh.T - F @ (q @ fresh.T)) / x.shape[1]
    size = jnp.minimum(directions.size + jnp.sum(kept).astype(int), capacity)
    F = F.at[:, place].add(loadings, mode="drop")
    return directions._replace(q=q.at[place].set(fresh, mode="drop"), size=size), F


def _leading(x: Array, F: Array, q: Array, root: Array) -> tuple[Array, Array]:
    """Principal directions (n, S) of rows root E, E = x - F q, and the eigenvalues, largest first."""
    particles, most = x.shape[1], min(len(x), BLOCK)
    if len(x) <= EXACT_ROWS:
        E = (x - F @ q) * root[:, None]
        gram = E @ E.T / particles
        energy, axes = jnp.linalg.eigh(gram.astype(jnp.float64))
        energy, axes = energy[::-1][:most].astype(x.dtype), axes[:, ::-1][:, :most].astype(x.dtype)
        return axes.T @ E, energy
    axes = jax.random.normal(jax.random.key(0), (len(x), BLOCK), x.dtype)
    for _ in range(ITERATIONS):
        mixed = (axes * root[:, None]).T
        rows = mixed @ x - (mixed @ F) @ q
        axes = jnp.linalg.qr((x @ rows.T - F @ (q @ rows.T)) * root[:, None])[0]
    mixed = (axes * root[:, None]).T
    rows = mixed @ x - (mixed @ F) @ q
    energy, turn = jnp.linalg.eigh((rows @ rows.T / particles).astype(jnp.float64))
    return turn[:, ::-1].T.astype(x.dtype) @ rows, energy[::-1].astype(x.dtype)


def _orthonormal(fresh: Array, q: Array, kept: Array) -> Array:
    """The kept ones of a few nearly orthonormal directions, orthonormal and orthogonal to a basis to rounding."""
    for _ in range(2):
        fresh = fresh - (fresh @ q.T / q.shape[1]) @ q
        exact = (fresh * kept[:, None]).astype(jnp.float64)
        overlap = exact @ exact.T / exact.shape[1]
        triangle = jnp.linalg.cholesky(overlap + jnp.diag(1.0 - kept))
        inverse = solve_triangular(triangle, jnp.eye(len(fresh)), lower=True)  # a product: it sums like all others
        fresh = (inverse @ exact).astype(q.dtype)
    return fresh
