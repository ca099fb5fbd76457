"""Orthonormal basis of the directions that training visits on one population of particles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.engine.series import Fields, coefficients, like

State = TypeVar("State")

RESOLVED = 1e-10  # variances that one eigendecomposition of a Gram matrix resolves, relative to the largest
MARGIN = 0.2  # an extension leaves this part of the tolerance, so that the next one comes later
PASSES = 3  # extensions at once in double precision, each resolving what the one before left


class Basis(NamedTuple):
    """Directions q_i with <q_i q_j> = delta_ij, in the order in which they were met.

    Attributes:
        q: (capacity, S); rows from `size` on are zero, so that sums over all rows are sums over the basis.
        size: number of directions k.
        scale: running maximum of the mean square of what was represented; (orders,) for a Series.
        tol: variance, in units of `scale`, that may stay outside the basis.
    """

    q: Array
    size: Array
    scale: Array
    tol: Array


def empty_basis(capacity: int, particles: int, tol: float, dtype: jnp.dtype) -> Basis:
    """A basis without directions and room for `capacity`."""
    return Basis(
        q=jnp.zeros((capacity, particles), dtype),
        size=jnp.zeros((), int),
        scale=jnp.zeros((), dtype),
        tol=jnp.asarray(tol, dtype),
    )


def when(predicate: Array, update: Callable[[State], State], state: State) -> State:
    """update(state) where the predicate holds, else state: a loop of at most one turn, which runs in place."""
    return lax.while_loop(
        lambda carry: carry[0], lambda carry: (jnp.zeros_like(carry[0]), update(carry[1])), (predicate, state)
    )[1]


def represent(basis: Basis, x: Fields) -> tuple[Basis, Fields]:
    """Coordinates F = <x q> of the rows of x, extending the basis where it leaves too much of x out.

    Args:
        basis: directions met so far.
        x: (rows, S), or a Series of that: all its coefficients share the basis, each with a scale of its own.

    Returns:
        The basis, whose new directions (at most one a row of every coefficient) follow the old ones, and
        F (rows, capacity), a Series as x is.
    """
    values = coefficients(x)
    scale = jnp.maximum(basis.scale, jnp.mean(values * values, axis=(-2, -1)))
    unit = jnp.sqrt(jnp.where(scale > 0, scale, 1))[..., None, None]
    basis, F = _coordinates(basis._replace(scale=scale), (values / unit).reshape(-1, values.shape[-1]))
    return basis, like(x, unit * F.reshape(*values.shape[:-1], -1))


def _coordinates(basis: Basis, x: Array) -> tuple[Basis, Array]:
    """`represent` for rows (rows, S) in units of their scale."""

    def too_much_left(now: tuple[Basis, Array, Array, Array]) -> Array:
        basis, _, left, count = now
        return (left > basis.tol) & (count < _passes(basis))

    def extend(now: tuple[Basis, Array, Array, Array]) -> tuple[Basis, Array, Array, Array]:
        basis, F, _, count = now
        basis, F = _extend(basis, F, x)
        return basis, F, _left_out(basis, F, x), count + 1

    F = x @ basis.q.T / x.shape[1]
    start = basis, F, _left_out(basis, F, x), jnp.zeros((), int)
    basis, F, *_ = lax.while_loop(too_much_left, extend, start)
    return basis, F


def _passes(basis: Basis) -> int:
    return PASSES if basis.q.dtype == jnp.float64 else 1


def _left_out(basis: Basis, F: Array, x: Array) -> Array:
    """The largest variance of a row of x outside the basis: by Pythagoras, in double precision from the residual."""
    if x.dtype == jnp.float64:
        return jnp.max(jnp.mean((x - F @ basis.q) ** 2, axis=1))
    return jnp.max(jnp.mean(x * x, axis=1) - jnp.sum(F * F, axis=1))


def _extend(basis: Basis, F: Array, x: Array) -> tuple[Basis, Array]:
    residual = x - F @ basis.q
    correction = residual @ basis.q.T / x.shape[1]  # a second pass: orthogonal to rounding
    residual, F = residual - correction @ basis.q, F + correction
    directions, loadings, fresh = _principal_directions(residual, MARGIN * basis.tol)
    here = basis.size
    q = lax.dynamic_update_slice(basis.q, directions, (here, 0))
    old = lax.dynamic_slice(F, (0, here), loadings.shape)
    return basis._replace(q=q, size=here + fresh), lax.dynamic_update_slice(F, old + loadings, (0, here))


def _principal_directions(residual: Array, cut: Array) -> tuple[Array, Array, Array]:
    """The fewest principal directions that leave no row of `residual` a variance above `cut`.

    Returns:
        directions (rows, S), loadings (rows, rows), both zero past the number kept, and that number.
    """
    exact = residual.astype(jnp.float64)
    variance, axes = jnp.linalg.eigh(exact @ exact.T / residual.shape[1])
    variance, axes = jnp.maximum(variance[::-1], 0), axes[:, ::-1]
    shares = axes**2 * variance  # variance of each row along each direction
    left = jnp.max(jnp.sum(shares, axis=1, keepdims=True) - jnp.cumsum(shares, axis=1) + shares, axis=0)
    kept = jnp.cumprod((left > cut) & (variance > RESOLVED * variance[0])).astype(jnp.float64)
    root = jnp.sqrt(jnp.maximum(variance, jnp.finfo(jnp.float64).tiny))
    directions = (axes / root * kept).T @ exact
    overlap = directions @ directions.T / residual.shape[1]  # the identity to rounding over the smallest variance
    triangle = jnp.linalg.cholesky(overlap + jnp.diag(1 - kept))
    directions = solve_triangular(triangle, directions, lower=True)
    loadings = exact @ directions.T / residual.shape[1]
    return directions.astype(residual.dtype), loadings.astype(residual.dtype), jnp.sum(kept).astype(int)


def bases(tree: object) -> list[Basis]:
    """Every basis in a tree of states, in order."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Basis))
    return [leaf for leaf in leaves if isinstance(leaf, Basis)]


def capacity_needed(basis: Basis, rows: int) -> Array:
    """Capacity with which `rows` more rows can be represented: each pass writes a block of that many."""
    return basis.size + rows * _passes(basis)


def room(tree: object, rows: int) -> Array:
    """Whether every basis in a tree of states can represent `rows` more rows."""
    return jnp.all(jnp.stack([capacity_needed(basis, rows) <= basis.q.shape[0] for basis in bases(tree)]))
