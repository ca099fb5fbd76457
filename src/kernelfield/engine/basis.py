"""Orthonormal basis of the directions that training visits on one population of particles."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.engine.series import Fields, Series, coefficients, like

State = TypeVar("State")

RESOLVED = 1e-10  # variances that one eigendecomposition of a Gram matrix resolves, relative to the largest
MARGIN = 0.07  # an extension leaves this part of the tolerance, so that the next one comes later
PASSES = 3  # extensions at once in double precision, each resolving what the one before left
BLOCK = 128  # directions of one extension, at most
ITERATIONS = 4  # of the search for leading directions among more than two blocks of rows


class Basis(NamedTuple):
    """Directions q_i with <q_i q_j> = delta_ij, in the order in which they were met.

    Attributes:
        q: (capacity, S); rows from `size` on are zero, so that sums over all rows are sums over the basis.
        size: number of directions k.
        full: whether a direction was needed that there is no room for.
        kept: number of directions when the last step was completed.
        scale: running maximum of the mean square of what was represented; (orders,) for a Series.
        tol: variance, in units of `scale`, that may stay outside the basis.
    """

    q: Array
    size: Array
    full: Array
    kept: Array
    scale: Array
    tol: Array


def empty_basis(capacity: int, particles: int, tol: float, dtype: jnp.dtype) -> Basis:
    """A basis without directions and room for `capacity`."""
    return Basis(
        q=jnp.zeros((capacity, particles), dtype),
        size=jnp.zeros((), int),
        full=jnp.zeros((), bool),
        kept=jnp.zeros((), int),
        scale=jnp.zeros((), dtype),
        tol=jnp.asarray(tol, dtype),
    )


def represent(basis: Basis, x: Fields) -> tuple[Basis, Fields]:
    """Coordinates F = <x q> of a field, extending the basis where it leaves too much of x out.

    Args:
        basis: directions met so far.
        x: (..., S), or a Series of that: all its coefficients share the basis, each with a scale of its own.

    Returns:
        The basis, whose new directions (at most one a row of every coefficient) follow the old ones, and
        F (..., capacity), a Series as x is. Where the basis was full, F lacks the rest.
    """
    values = coefficients(x)
    orders = values.shape[:1] if isinstance(x, Series) else ()
    rows = values.reshape(*orders, -1, values.shape[-1])
    scale = jnp.maximum(basis.scale, jnp.mean(rows * rows, axis=(-2, -1)))
    unit = jnp.sqrt(jnp.where(scale > 0, scale, 1))[..., None, None]
    basis, F = _coordinates(basis._replace(scale=scale), (rows / unit).reshape(-1, rows.shape[-1]))
    return basis, like(x, (unit * F.reshape(*rows.shape[:-1], -1)).reshape(*values.shape[:-1], -1))


def _coordinates(basis: Basis, x: Array) -> tuple[Basis, Array]:
    """`represent` for rows (rows, S) in units of their scale."""
    block = block_size(basis, len(x))
    passes = (PASSES if x.dtype == jnp.float64 else 1) + -(-len(x) // block) - 1

    def has_room(basis: Basis) -> Array:
        return basis.size + block <= len(basis.q)

    def goes_on(now: tuple[Basis, Array, Array, Array]) -> Array:
        basis, _, left, count = now
        return (left > basis.tol) & (count < passes) & has_room(basis)

    def extend(now: tuple[Basis, Array, Array, Array]) -> tuple[Basis, Array, Array, Array]:
        basis, F, _, count = now
        basis, F = _extend(basis, F, x, block)
        return basis, F, _left_out(basis, F, x), count + 1

    F = x @ basis.q.T / x.shape[1]
    start = basis, F, _left_out(basis, F, x), jnp.zeros((), int)
    basis, F, left, count = lax.while_loop(goes_on, extend, start)
    return basis._replace(full=basis.full | (left > basis.tol) & (count < passes) & ~has_room(basis)), F


def block_size(basis: Basis, rows: int) -> int:
    """Directions that one extension for so many rows finds at most; it needs room for as many."""
    return min(rows, BLOCK, len(basis.q))


def _left_out(basis: Basis, F: Array, x: Array) -> Array:
    """The largest variance of a row of x outside the basis: by Pythagoras, in double precision from the residual."""
    if x.dtype == jnp.float64:
        return jnp.max(jnp.mean((x - F @ basis.q) ** 2, axis=1))
    return jnp.max(jnp.mean(x * x, axis=1) - jnp.sum(F * F, axis=1))


def _extend(basis: Basis, F: Array, x: Array, block: int) -> tuple[Basis, Array]:
    residual = x - F @ basis.q
    correction = residual @ basis.q.T / x.shape[1]  # a second pass: orthogonal to rounding
    residual, F = residual - correction @ basis.q, F + correction
    directions, loadings, fresh = _principal_directions(residual, basis.q, MARGIN * basis.tol, block)
    here = basis.size
    q = lax.dynamic_update_slice(basis.q, directions, (here, 0))
    old = lax.dynamic_slice(F, (0, here), loadings.shape)
    return basis._replace(q=q, size=here + fresh), lax.dynamic_update_slice(F, old + loadings, (0, here))


def _principal_directions(residual: Array, q: Array, cut: Array, most: int) -> tuple[Array, Array, Array]:
    """The fewest principal directions, up to `most`, that leave no row of `residual` a variance above `cut`.

    In double precision, whose tolerances are near rounding, weak directions are made orthogonal to `q` once more: the
    rounding of strong rows is large beside them.

    Returns:
        directions (most, S), loadings (rows, most), both zero past the number kept, and that number.
    """
    exact = residual.astype(jnp.float64)
    gram = exact @ exact.T / residual.shape[1]
    variance, axes = _leading_axes(gram, most)
    shares = axes**2 * variance  # variance of each row along each direction
    left = jnp.max(jnp.diag(gram)[:, None] - jnp.cumsum(shares, axis=1) + shares, axis=0)
    kept = jnp.cumprod((left > cut) & (variance > RESOLVED * variance[0])).astype(jnp.float64)
    root = jnp.sqrt(jnp.maximum(variance, jnp.finfo(jnp.float64).tiny))
    directions = (axes / root * kept).T @ exact
    if residual.dtype == jnp.float64:
        directions = directions - directions @ q.T / residual.shape[1] @ q
    overlap = directions @ directions.T / residual.shape[1]  # the identity to rounding over the smallest variance
    triangle = jnp.linalg.cholesky(overlap + jnp.diag(1 - kept))
    directions = solve_triangular(triangle, jnp.eye(most), lower=True) @ directions  # by the inverse: a sum like others
    loadings = exact @ directions.T / residual.shape[1]
    return directions.astype(residual.dtype), loadings.astype(residual.dtype), jnp.sum(kept).astype(int)


def _leading_axes(gram: Array, most: int) -> tuple[Array, Array]:
    """The `most` largest eigenvalues and their eigenvectors (rows, most); of large matrices by subspace iteration."""
    if len(gram) <= 2 * most:
        variance, axes = jnp.linalg.eigh(gram)
    else:
        within = jax.random.normal(jax.random.key(0), (len(gram), most), gram.dtype)
        for _ in range(ITERATIONS):
            within = jnp.linalg.qr(gram @ within)[0]
        variance, axes = jnp.linalg.eigh(within.T @ gram @ within)
        axes = within @ axes
    return jnp.maximum(variance[::-1], 0)[:most], axes[:, ::-1][:, :most]


def bases(tree: object) -> list[Basis]:
    """Every basis in a tree of states, in order."""
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_basis) if isinstance(leaf, Basis)]


def any_full(tree: object) -> Array:
    """Whether a basis in a tree of states lacks room for what it had to represent."""
    return jnp.any(jnp.stack([basis.full for basis in bases(tree)]))


def completed(tree: State, done: Array) -> State:
    """A tree of states after a step that is done, or is to be repeated."""

    def marked(basis: Basis) -> Basis:
        return basis._replace(kept=jnp.where(done, basis.size, basis.kept))

    return jax.tree.map(lambda leaf: marked(leaf) if isinstance(leaf, Basis) else leaf, tree, is_leaf=is_basis)


def repeated(tree: State) -> State:
    """A tree of states, fetched, as it was before the step that was not done, but for scales."""

    def undone(basis: Basis) -> Basis:
        known = np.arange(len(basis.q))[:, None] < basis.kept
        return basis._replace(q=np.where(known, basis.q, 0), size=basis.kept, full=np.zeros((), bool))

    return jax.tree.map(lambda leaf: undone(leaf) if isinstance(leaf, Basis) else leaf, tree, is_leaf=is_basis)


def with_flags(tree: State, later: State) -> State:
    """A tree of states that says which of its bases were full in a later one."""

    def flagged(basis: Basis, other: Basis) -> Basis:
        return basis._replace(full=other.full)

    return jax.tree.map(
        lambda leaf, other: flagged(leaf, other) if isinstance(leaf, Basis) else leaf, tree, later, is_leaf=is_basis
    )


def is_basis(leaf: object) -> bool:
    """Whether a leaf of a tree of states is a basis."""
    return isinstance(leaf, Basis)
