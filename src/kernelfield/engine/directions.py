"""Leading directions of the fields on one population: an orthonormal basis that grows where fields have energy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.engine.series import Fields, Series, coefficients

EXACT = 1e-20  # tolerances up to here are those of bases that have to represent everything
BLOCK = 32  # directions that one search finds at most, by default
IN_USE = 32  # rows of a large basis that a product takes together, as far as they are in use
EXACT_ROWS = 64  # rows whose Gram matrix is diagonalized; of more rows the leading directions are found by iteration
ITERATIONS = 2  # of that search
GROWTH = 1.2  # after a search in vain: the factor by which the residual must grow before the next search
FADING = 0.98  # the factor of that threshold at every later field


class Directions(NamedTuple):
    """A basis of directions q_i with <q_i q_j> = delta_ij, in the order in which fields needed them."""

    q: Array  # (capacity, S); rows from `size` on are zero, so that sums over all rows are sums over the basis
    size: Array  # number of directions k
    scale: Array  # running maximum of the mean square of the represented fields; (orders,) for Series
    residual: Array  # mean square of the last field outside the basis, in units of `scale`
    threshold: Array  # the residual above which a search for new directions pays
    weights: Array | None = None  # of particles in averages (S,), for derivatives in them; None if all are one
    memory: Array | None = None  # (capacity, capacity): sum of <F^T F> of past fields, which fades; None to keep all

    def average(self, x: Fields, y: Array) -> Fields:
        """Returns <x y> (..., k) of a field x (..., S) and rows y (k, S)."""
        weighted = y if self.weights is None else y * self.weights
        return x @ weighted.T * (1 / self.q.shape[1])


def make_empty_basis(capacity: int, particles: int, dtype: Any, orders: int = 1, remembers: bool = False) -> Directions:
    """Returns NumPy arrays of a basis without directions, with room for `capacity`, of fields with `orders` orders."""
    zeros: Any = np.zeros
    scale, memory = (
        zeros(orders if orders > 1 else (), dtype),
        zeros((capacity, capacity), dtype) if remembers else None,
    )
    q, size = zeros((capacity, particles), dtype), zeros((), int)
    return Directions(q, size, scale, zeros((), dtype), zeros((), dtype), memory=memory)


def project(directions: Directions, x: Fields) -> Fields:
    """Returns the coordinates F = <x q> (..., capacity) of a field x (..., S)."""
    return directions.average(x, directions.q)


def _over_used(directions: Directions, add: Callable[[Array, Array, Array], Array], start: Array) -> Array:
    """Returns `start` after add(it, rows of the basis, number of the first) for all rows that are in use.

    A loop of unknown length has no reverse derivative: where those in the weights are taken, all rows come at once.
    """
    q = directions.q
    if len(q) <= 2 * IN_USE or len(q) % IN_USE or directions.weights is not None:
        return add(start, q, jnp.zeros((), int))

    def body(block: Array, now: Array) -> Array:
        return add(now, lax.dynamic_slice_in_dim(q, block * IN_USE, IN_USE), block * IN_USE)

    return lax.fori_loop(0, -(-directions.size // IN_USE), body, start)


def _project_used(directions: Directions, x: Array) -> Array:
    """Returns <x q> (rows, capacity), as `project` does."""

    def add(F: Array, q: Array, first: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(F, directions.average(x, q), first, axis=1)

    return _over_used(directions, add, jnp.zeros((len(x), len(directions.q)), x.dtype))


def _subtract_used(directions: Directions, x: Array, F: Array) -> Array:
    """Returns x - F q (rows, S)."""

    def subtract(E: Array, q: Array, first: Array) -> Array:
        return E - lax.dynamic_slice_in_dim(F, first, len(q), axis=1) @ q

    return _over_used(directions, subtract, x)


def represent(
    directions: Directions, x: Fields, mass: Array, tol: float, complete: bool = False, block: int = BLOCK
) -> tuple[Directions, Fields]:
    """Returns the basis with the leading directions of a field x (P, ..., S), and the coordinates F (P, ..., capacity).

    With E = x - F q, what the basis leaves out, the new directions are the eigenvectors of the mean of E_mu E_mu^T over
    rows mu whose eigenvalues exceed `tol` times the running maximum of the mean square. The points have the weights
    `mass` (P,) in that mean. The coefficients of a Series share the basis, each with a scale of its own.

    A basis that is `complete` leaves out no more than `tol`, and has no room to keep for later. One search finds at
    most `block` directions.
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
        directions, F = _represent_rows(directions, rows, energy, weight, tol, complete or tol <= EXACT, block)
        if directions.memory is not None:
            directions = directions._replace(memory=directions.memory + F.T @ (F * (weight * unit)[:, None]))
    if orders:
        F = F.reshape(*orders, -1, F.shape[-1]) * jnp.sqrt(scale)[:, None, None]
    F = F.reshape(*values.shape[:-1], -1)
    return directions._replace(scale=scale), Series(F) if orders else F


@functools.partial(jax.jit, static_argnames=("tol", "precise", "block"))  # traced once for all that are alike
def _represent_rows(
    directions: Directions, x: Array, energy: Array, weight: Array, tol: float, precise: bool, block: int
) -> tuple[Directions, Array]:
    """Returns the basis and F for rows x (rows, S) of mean square `energy`; means by `weight` are in units of scale."""
    passes = math.ceil(min(len(x), len(directions.q)) / block) + (2 if precise else 0)

    def residual(directions: Directions, F: Array) -> Array:
        if precise:
            return jnp.mean(_subtract_used(directions, x, F) ** 2, axis=1) @ weight
        return jnp.maximum(energy - jnp.sum(F * F, axis=1), 0) @ weight

    def goes_on(now: tuple[Directions, Array, Array]) -> Array:
        directions, _, count = now
        room = directions.size < len(directions.q)
        return room & (count < passes) & (directions.residual > tol) & (directions.residual > directions.threshold)

    def search(now: tuple[Directions, Array, Array]) -> tuple[Directions, Array, Array]:
        directions, F, count = now
        size = directions.size
        directions, F = _extend(directions, F, x, weight, tol, precise, block)
        left = residual(directions, F)
        threshold = jnp.where(directions.size > size, directions.threshold, GROWTH * left)
        return directions._replace(residual=left, threshold=threshold), F, count + 1

    F = _project_used(directions, x)
    directions = directions._replace(residual=residual(directions, F), threshold=FADING * directions.threshold)
    directions, F, _ = lax.while_loop(goes_on, search, (directions, F, jnp.zeros((), int)))
    return directions, F


def _extend(
    directions: Directions, F: Array, x: Array, weight: Array, tol: float, precise: bool, block: int
) -> tuple[Directions, Array]:
    """Returns the basis and F with the leading directions of E = x - F q.

    Unless all must be known, the energy that a direction must have grows as the basis fills up, so that there is room
    for directions with much energy that come late.
    """
    q, capacity = directions.q, len(directions.q)
    cut = jnp.asarray(tol) if precise else tol / (1 - (directions.size / capacity) ** 2)
    new, energy = _find_leading(directions, x, F, jnp.sqrt(weight), block)
    resolved = 1e-10 if x.dtype == jnp.float64 else 1e-5  # of the largest eigenvalue, by one Gram matrix
    leads = jnp.cumprod(energy > jnp.maximum(cut, resolved * energy[0]))
    new = orthonormalize(directions, new / jnp.sqrt(jnp.where(leads, energy, 1))[:, None], leads)
    order = jnp.arange(len(new))
    place = jnp.where(leads > 0, directions.size + order, capacity)  # those beyond the capacity are left to the tail
    loadings = x @ new.T / x.shape[1]  # new directions are orthogonal to the basis
    size = jnp.minimum(directions.size + jnp.sum(leads).astype(int), capacity)
    F = F.at[:, place].add(loadings, mode="drop")
    return directions._replace(q=q.at[place].set(new, mode="drop"), size=size), F


def _find_leading(directions: Directions, x: Array, F: Array, root: Array, block: int) -> tuple[Array, Array]:
    """Returns principal directions (n, S) of the rows root E, E = x - F q, and their eigenvalues, largest first."""
    particles, most = x.shape[1], min(len(x), block)
    if len(x) <= EXACT_ROWS:
        E = _subtract_used(directions, x, F) * root[:, None]
        gram = E @ E.T / particles
        energy, axes = jnp.linalg.eigh(gram.astype(jnp.float64))
        energy, axes = energy[::-1][:most].astype(x.dtype), axes[:, ::-1][:, :most].astype(x.dtype)
        return axes.T @ E, energy

    def mix(axes: Array) -> Array:
        mixed = (axes * root[:, None]).T
        return _subtract_used(directions, mixed @ x, mixed @ F)

    axes = jax.random.normal(jax.random.key(0), (len(x), block), x.dtype)
    for _ in range(ITERATIONS):
        rows = mix(axes)
        axes = jnp.linalg.qr((x @ rows.T - F @ (_project_used(directions, rows).T * x.shape[1])) * root[:, None])[0]
    rows = mix(axes)
    energy, turn = jnp.linalg.eigh((rows @ rows.T / particles).astype(jnp.float64))
    return turn[:, ::-1].T.astype(x.dtype) @ rows, energy[::-1].astype(x.dtype)


def orthonormalize(directions: Directions, new: Array, leads: Array) -> Array:
    """Returns those of a few nearly orthonormal rows that lead, orthonormal and orthogonal to the basis to rounding."""
    q = directions.q
    for _ in range(2):
        new = _subtract_used(directions, new, _project_used(directions, new))
        exact = (new * leads[:, None]).astype(jnp.float64)
        overlap = directions.average(exact, exact)
        triangle = jnp.linalg.cholesky(overlap + jnp.diag(1.0 - leads))
        inverse = solve_triangular(triangle, jnp.eye(len(new)), lower=True)  # a product: it sums like all others
        new = (inverse @ exact).astype(q.dtype)
    return new
