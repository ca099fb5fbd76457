"""The infinite matrix: an N x N Gaussian weight matrix at N = infinity, known only where training looks.

A matrix W from population a (below) to population b (above) is used in both directions,

    forward   h = W phi / sqrt(N),        backward   z = W^T g / sqrt(N),

and acts on few directions: the features phi and the gradients g that training visits. Each population keeps a
`Side` of it. With F = <phi q_a> the coordinates of the features and G = <g q_b> those of the gradients,

    h = F W_F,   W_F = Z_u + a q_b + (learned),   a = <q_a Z_r>      on the particles of b
    z = G W_B,   W_B = Z_r + b q_a + (learned),   b = <q_b Z_u>      on the particles of a

Z_u = W(0) q_a and Z_r = W(0)^T q_b are fresh Gaussian coordinates; the responses a, b are what is left of the
fact that W(0) is one matrix. Forward and backward are the same operation seen from the two sides, `transmit`.

W(0) may start with another variance than one, and shrinks with weight decay: a factor `scale` multiplies all that
comes from it, of old and new directions alike. Momentum adds a `velocity` along which what is learned keeps moving.

A convolution is n independent matrices, one for each place of its kernel, between the same two populations: they
share their bases, and coordinates (rows, n k) address them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.basis import Basis, block_size, represent
from kernelfield.engine.series import Fields, coefficients, leading, like, linear
from kernelfield.engine.slabs import combination, coordinates, plus_products

State = TypeVar("State")


class Side(NamedTuple):
    """What n matrices look like from one of their two populations.

    Attributes:
        basis: directions that were sent into the matrices from here.
        Z: (n, capacity of the other side's basis, S) Gaussian images, on these particles, of the other side's
            directions.
        W: (same shape) their full images: Gaussian part, response and what was learned; as a Series in gamma0,
            only what was learned depends on gamma0.
        scale: of W(0), here and now.
        response: factor of responses: 0 for gradient independence (W(0) and its transpose unrelated), else 1, or with
            populations of different width the root of (width of the other side / width of this side).
        gain: factor of what is learned.
        velocity: (same shape as W) the direction in which it moves; None without momentum.
    """

    basis: Basis
    Z: Array
    W: Fields
    scale: Array
    response: Array
    gain: Array
    velocity: Fields | None = None


class InfiniteMatrix(NamedTuple):
    """Both sides. Matrices that act on data have none below: data are their own coordinates, and do not respond."""

    below: Side | None
    above: Side

    @property
    def features(self) -> Array | int:
        """Number of directions of features that W is known on; all of data."""
        return self.above.Z.shape[1] if self.below is None else self.below.basis.size

    @property
    def gradients(self) -> Array:
        """Number of directions of gradients that W^T is known on."""
        return self.above.basis.size


def forward(matrix: InfiniteMatrix, phi: Fields) -> tuple[InfiniteMatrix, Fields]:
    """The matrix, extended to know W on the features phi (..., S), and their coordinates F; then h = F W_F."""
    if matrix.below is None:
        return matrix, phi
    below, above, F = transmit(matrix.below, matrix.above, phi)
    return matrix._replace(below=below, above=above), F


def backward(matrix: InfiniteMatrix, g: Fields) -> tuple[InfiniteMatrix, Fields]:
    """The matrix, extended to know W^T on the gradients g (..., S), and their coordinates G; then z = G W_B."""
    if matrix.below is None:
        basis, G = represent(matrix.above.basis, g)
        return matrix._replace(above=matrix.above._replace(basis=basis)), G
    above, below, G = transmit(matrix.above, matrix.below, g)
    return matrix._replace(below=below, above=above), G


def transmit(sender: Side, receiver: Side, x: Fields) -> tuple[Side, Side, Fields]:
    """Send x (..., S) from one side to the other.

    A direction met for the first time is born on the receiver at once, with a Gaussian image and with its
    response to all that the receiver has sent so far. This order is causality.

    Returns:
        sender, receiver and the coordinates (..., capacity) of x.
    """
    known = sender.basis.size
    basis, X = represent(sender.basis, x)
    particles = basis.q.shape[1]
    block = block_size(basis, coefficients(x).size // particles)

    def bear(now: tuple[Array, Fields]) -> tuple[Array, Fields]:
        start, W = now
        born = lax.dynamic_slice_in_dim(basis.q, start, block)
        sent = receiver.basis
        response = coordinates(born, sender.Z, sent.size).reshape(-1, len(sent.q)) / particles
        responded = combination(response, sent.q[None], sent.size).reshape(block, len(sender.Z), -1)
        gaussian = lax.dynamic_slice_in_dim(receiver.Z, start, block, axis=1)
        images = receiver.scale * (gaussian + receiver.response * jnp.moveaxis(responded, 0, 1))
        return start + block, with_rows(W, images, start)

    _, W = lax.while_loop(lambda now: now[0] < basis.size, bear, (known, receiver.W))
    return sender._replace(basis=basis), receiver._replace(W=W), X


def with_rows(W: Fields, rows: Array, start: Array) -> Fields:
    """W with `rows` (n, block, S) put in from direction `start` on; into the lowest order of a Series."""
    values = coefficients(W)
    block = rows.reshape((1,) * (values.ndim - rows.ndim) + rows.shape)
    return like(W, lax.dynamic_update_slice(values, block, (0,) * (values.ndim - 2) + (start, 0)))


def learn(side: Side, rate: Fields, coordinates: Fields, x: Fields, size: Array | int) -> Side:
    """Gradient descent: W += sum_i rate_i coordinates_i^T x_i over rows i, with rate (rows, 1); or its velocity.

    Coordinates are (rows, n k), of which the first `size` directions are in use.
    """
    moving, width = side.W if side.velocity is None else side.velocity, leading(x).shape[-1]
    wide = linear(lambda values: values.reshape(len(values), -1, width), moving)  # of a readout, all sites
    moved = plus_products(wide, side.gain * (rate * coordinates), x, size)
    moved = linear(lambda values: values.reshape(side.Z.shape), moved)
    return side._replace(W=moved) if side.velocity is None else side._replace(velocity=moved)


def decayed(side: Side, kept: Array) -> Side:
    """After weight decay, which leaves the part `kept` of everything."""
    kept = kept.astype(side.Z.dtype)
    return side._replace(W=side.W * kept, scale=side.scale * kept)


def slowed(side: Side, momentum: Array) -> Side:
    """With the part `momentum` of its velocity left."""
    assert side.velocity is not None
    return side._replace(velocity=side.velocity * momentum.astype(side.Z.dtype))


def moved(side: Side, rate: Array) -> Side:
    """After one step along its velocity."""
    assert side.velocity is not None
    return side._replace(W=side.W + side.velocity * rate.astype(side.Z.dtype))


def in_use(tree: State) -> State:
    """A tree of states in NumPy without room: with the directions that were met, and one at least.

    Not every kind of file has empty arrays.
    """

    def known(side: Side, images: int) -> Side:
        basis, images = side.basis._replace(q=side.basis.q[: max(1, side.basis.size)]), max(1, images)
        W = linear(lambda values: values[..., :images, :], side.W)
        return side._replace(basis=basis, Z=side.Z[:, :images], W=W)

    def least(leaf: Any) -> Any:
        if isinstance(leaf, InfiniteMatrix):
            below = leaf.below and known(leaf.below, int(leaf.gradients))
            return InfiniteMatrix(below, known(leaf.above, int(leaf.features)))
        return known(leaf, leaf.Z.shape[1]) if is_side(leaf) else leaf

    return jax.tree.map(least, tree, is_leaf=lambda leaf: isinstance(leaf, InfiniteMatrix) or is_side(leaf))


def is_side(leaf: object) -> bool:
    """Whether a leaf of a tree of states is a side."""
    return isinstance(leaf, Side)


def sides(tree: object) -> list[Side]:
    """Every side in a tree of states, in order."""
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_side) if is_side(leaf)]


def each_side(change: Callable[[Side], Side], tree: State) -> State:
    """A tree of states with every side changed."""
    return jax.tree.map(lambda leaf: change(leaf) if is_side(leaf) else leaf, tree, is_leaf=is_side)
