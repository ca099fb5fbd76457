"""Orthonormal basis of the directions that training visits on one population of particles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

State = TypeVar("State")


class Basis(NamedTuple):
    """Directions q_i with <q_i q_j> = delta_ij, in the order in which they were met.

    Attributes:
        q: (capacity, S); rows from `size` on are zero, so that sums over all rows are sums over the basis.
        size: number of directions k.
        scale: running maximum of the mean square of what was represented.
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


def represent(basis: Basis, x: Array) -> tuple[Basis, Array]:
    """Coordinates F = <x q> of the rows of x (rows, S), extending the basis where it leaves too much of x out.

    Returns:
        The basis, whose new directions (at most one a row) follow the old ones, and F (rows, capacity).
    """
    mean_square = jnp.mean(x * x, axis=1)
    basis = basis._replace(scale=jnp.maximum(basis.scale, jnp.mean(mean_square)))
    F = x @ basis.q.T / x.shape[1]
    unexplained = jnp.max(mean_square - jnp.sum(F * F, axis=1))
    return when(unexplained > basis.tol * basis.scale, lambda old: _extend(*old, x), (basis, F))


def _extend(basis: Basis, F: Array, x: Array) -> tuple[Basis, Array]:
    residual = x - F @ basis.q
    correction = residual @ basis.q.T / x.shape[1]  # a second pass: orthogonal to rounding
    residual, F = residual - correction @ basis.q, F + correction
    directions, loadings, fresh = _principal_directions(residual, basis.tol * basis.scale)
    here = basis.size
    q = lax.dynamic_update_slice(basis.q, directions, (here, 0))
    return basis._replace(q=q, size=here + fresh), lax.dynamic_update_slice(F, loadings, (0, here))


def _principal_directions(residual: Array, cut: Array) -> tuple[Array, Array, Array]:
    """The fewest principal directions that leave no row of `residual` a variance above `cut`.

    Returns:
        directions (rows, S), loadings (rows, rows), both zero past the number kept, and that number.
    """
    exact = residual.astype(jnp.float64)
    variance, axes = jnp.linalg.eigh(exact @ exact.T / residual.shape[1])
    variance, axes = variance[::-1], axes[:, ::-1]
    shares = axes**2 * jnp.maximum(variance, 0)  # variance of each row along each direction
    left = jnp.max(jnp.sum(shares, axis=1, keepdims=True) - jnp.cumsum(shares, axis=1) + shares, axis=0)
    kept = jnp.cumprod((left > cut) & (variance > 0)).astype(jnp.float64)
    root = jnp.sqrt(jnp.maximum(variance, jnp.finfo(jnp.float64).tiny))
    directions = (axes / root * kept).T @ exact
    loadings = axes * root * kept
    return directions.astype(residual.dtype), loadings.astype(residual.dtype), jnp.sum(kept).astype(int)


def room(tree: object, rows: int) -> Array:
    """Whether every basis in a tree of states can take `rows` more directions."""
    bases = [leaf for leaf in jax.tree.leaves(tree, is_leaf=_is_basis) if _is_basis(leaf)]
    return jnp.all(jnp.stack([jnp.all(basis.size + rows <= basis.q.shape[-2]) for basis in bases]))


def _is_basis(leaf: object) -> bool:
    return isinstance(leaf, Basis)
