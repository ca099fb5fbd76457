"""Orthonormal basis of the directions that training visits on one population of particles."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.engine.series import Fields, Series, coefficients, like
from kernelfield.engine.slabs import combination, coordinates

State = TypeVar("State")

RESOLVED = 1e-10  # variances that one eigendecomposition of a Gram matrix resolves, relative to the largest
MARGIN = 0.07  # an extension leaves this part of the tolerance, so that the next one comes later
PASSES = 3  # extensions at once in double precision, each resolving what the one before left
BLOCK = 64  # directions that are added at once, at most
LEADING = 128  # directions that are sought among more than twice as many rows
ITERATIONS = 4  # of that search


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
    """A basis without directions and room for `capacity`, in NumPy."""
    full: Any = np.full
    return Basis(
        q=full((capacity, particles), 0, dtype),
        size=full((), 0),
        full=full((), False),
        kept=full((), 0),
        scale=full((), 0, dtype),
        tol=full((), tol, dtype),
    )


def represent(basis: Basis, x: Fields) -> tuple[Basis, Fields]:
    """Coordinates F = <x q> of a field, extending the basis where it leaves too much of x out.

    Args:
        basis: directions met so far.
        x: (..., S), or a Series of that: all its coefficients share the basis, each with a scale of its own.

    Returns:
        The basis, whose new directions (at most one a row of every coefficient) follow the old ones, and
        F (..., capacity), a Series as x is. Where the basis was full, F lacks the rest. A basis of capacity zero is
        one that nobody asks for: it meets no directions.
    """
    values = coefficients(x)
    if not len(basis.q):
        return basis, like(x, values[..., :0])
    orders = values.shape[:1] if isinstance(x, Series) else ()
    rows = values.reshape(*orders, -1, values.shape[-1])
    scale = jnp.maximum(basis.scale, jnp.mean(rows * rows, axis=(-2, -1)))
    unit = jnp.sqrt(jnp.where(scale > 0, scale, 1))[..., None, None]
    with jax.default_matmul_precision("highest"):  # on devices that round products of float32 more by default
        basis, F = _coordinates(basis._replace(scale=scale), (rows / unit).reshape(-1, rows.shape[-1]))
    return basis, like(x, (unit * F.reshape(*rows.shape[:-1], -1)).reshape(*values.shape[:-1], -1))


def _coordinates(basis: Basis, x: Array) -> tuple[Basis, Array]:
    """`represent` for rows (rows, S) in units of their scale."""
    passes = (PASSES if x.dtype == jnp.float64 else 1) + -(-len(x) // LEADING) - 1

    def goes_on(now: tuple[Basis, Array, Array, Array]) -> Array:
        basis, _, left, count = now
        return (left > basis.tol) & (count < passes) & ~basis.full

    def extend(now: tuple[Basis, Array, Array, Array]) -> tuple[Basis, Array, Array, Array]:
        basis, F, _, count = now
        basis, F = _extend(basis, F, x)
        return basis, F, _left_out(basis, F, x), count + 1

    F = _along(x, basis)
    start = basis, F, _left_out(basis, F, x), jnp.zeros((), int)
    basis, F, _, _ = lax.while_loop(goes_on, extend, start)
    return basis, F


def _along(x: Array, basis: Basis) -> Array:
    """<x q> (rows, capacity) of rows x (rows, S)."""
    return coordinates(x, basis.q[None], basis.size) / x.shape[1]


def _field(F: Array, basis: Basis) -> Array:
    """The field (rows, S) of coordinates F (rows, capacity)."""
    return combination(F, basis.q[None], basis.size)


def block_size(basis: Basis, rows: int) -> int:
    """Directions that so many rows add at once; there must be room for all of them, zero or not."""
    return min(rows, BLOCK, len(basis.q))


def _left_out(basis: Basis, F: Array, x: Array) -> Array:
    """The largest variance of a row of x outside the basis: by Pythagoras, in double precision from the residual."""
    if x.dtype == jnp.float64:
        return jnp.max(jnp.mean((x - _field(F, basis)) ** 2, axis=1))
    return jnp.max(jnp.mean(x * x, axis=1) - jnp.sum(F * F, axis=1))


def _extend(basis: Basis, F: Array, x: Array) -> tuple[Basis, Array]:
    """With the principal directions of what F leaves out of x, a block at a time."""
    residual = x - _field(F, basis)
    block = block_size(basis, len(x))
    axes, fresh = _principal_axes(residual, MARGIN * basis.tol, block)

    def has_room(size: Array) -> Array:
        return size + block <= len(basis.q)

    def goes_on(now: tuple[Array, Basis, Array]) -> Array:
        found, basis, _ = now
        return (found < fresh) & has_room(basis.size)

    def add(now: tuple[Array, Basis, Array]) -> tuple[Array, Basis, Array]:
        found, basis, F = now
        count = jnp.minimum(fresh - found, block)
        directions = lax.dynamic_slice_in_dim(axes, found, block, axis=1).T @ residual
        directions = _orthonormal(directions, basis, count)
        loadings = residual @ directions.T / x.shape[1]
        q = lax.dynamic_update_slice(basis.q, directions, (basis.size, 0))
        old = lax.dynamic_slice(F, (0, basis.size), loadings.shape)
        F = lax.dynamic_update_slice(F, old + loadings, (0, basis.size))
        return found + block, basis._replace(q=q, size=basis.size + count), F

    found, basis, F = lax.while_loop(goes_on, add, (jnp.zeros((), int), basis, F))
    return basis._replace(full=basis.full | (found < fresh)), F


def _principal_axes(residual: Array, cut: Array, block: int) -> tuple[Array, Array]:
    """The fewest combinations of rows, of unit variance, that leave no row a variance above `cut`; and their number.

    They are (rows, n), zero past that number, with n a multiple of `block`; by the Gram matrix in double precision.
    """
    exact = residual.astype(jnp.float64)
    gram = exact @ exact.T / residual.shape[1]
    variance, axes = _leading_axes(gram)
    shares = axes**2 * variance  # variance of each row along each direction
    left = jnp.max(jnp.diag(gram)[:, None] - jnp.cumsum(shares, axis=1) + shares, axis=0)
    kept = jnp.cumprod((left > cut) & (variance > RESOLVED * variance[0]))
    root = jnp.sqrt(jnp.maximum(variance, jnp.finfo(jnp.float64).tiny))
    axes = jnp.pad(axes / root * kept, [(0, 0), (0, -len(variance) % block)])
    return axes.astype(residual.dtype), jnp.sum(kept).astype(int)


def _orthonormal(directions: Array, basis: Basis, count: Array) -> Array:
    """The first `count` of a few nearly orthonormal directions, orthonormal and orthogonal to a basis to rounding."""
    directions = directions - _field(_along(directions, basis), basis)
    kept = (jnp.arange(len(directions)) < count).astype(jnp.float64)
    exact = directions.astype(jnp.float64) * kept[:, None]
    overlap = exact @ exact.T / exact.shape[1]
    triangle = jnp.linalg.cholesky(overlap + jnp.diag(1 - kept))
    by_inverse = solve_triangular(triangle, jnp.eye(len(directions)), lower=True)  # a product: sums like all others
    return (by_inverse @ exact).astype(directions.dtype)


def _leading_axes(gram: Array) -> tuple[Array, Array]:
    """The largest eigenvalues and their eigenvectors (rows, n); of large matrices by subspace iteration, LEADING."""
    if len(gram) <= 2 * LEADING:
        variance, axes = jnp.linalg.eigh(gram)
    else:
        within = jax.random.normal(jax.random.key(0), (len(gram), LEADING), gram.dtype)
        for _ in range(ITERATIONS):
            within = jnp.linalg.qr(gram @ within)[0]
        variance, axes = jnp.linalg.eigh(within.T @ gram @ within)
        axes = within @ axes
    return jnp.maximum(variance[::-1], 0), axes[:, ::-1]


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
    """A tree of states, fetched, as it was before the step that was not done, but for scales; bases have no room."""

    def undone(basis: Basis) -> Basis:
        return basis._replace(q=basis.q[: basis.kept], size=basis.kept, full=np.zeros((), bool))

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
