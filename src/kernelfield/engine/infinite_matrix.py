"""The infinite matrix: an N x N Gaussian weight matrix at N = infinity, as one linear operator on particles.

A matrix W from population a (below) to population b (above) is used in both directions,

    forward   h = W phi / sqrt(N),        backward   z = W^T g / sqrt(N).

It is known exactly on a few leading directions of both sides, q_a of the features and q_b of the gradients. A fast
pseudo-Gaussian matrix J, the tail, says what W(0) does to everything else. With s the scale of W(0),

    W = s J + sum_i q_a[i] -> D_a[i] + sum_j (1 - q_a q_a) D_b[j] -> q_b[j],      D_a = s K_a + M_a,  D_b = s K_b + M_b,

where K_a = W(0) q_a - J q_a is what W(0) makes of a direction more than the tail does, M_a is what was learned of it,
K_b and M_b are the same for the transpose. So with F = <phi q_a> and G = <g q_b>

    h = s J phi  + F D_a + (<phi D_b> - F <q_a D_b>) q_b
    z = s J^T g  + G D_b + (<g D_a> - G <q_b D_a>) q_a.

A direction q that joins a basis does not change the operator: K_new = <q K_o> q_o and M_new = <q M_o> q_o, with o the
other side. (In the terms of the theory, its image is (1 - q_o q_o) J q and its response <q Z_o> q_o.) Only the very
first directions of a basis have Gaussian coordinates zeta of their own: K_new += (1 - q_o q_o) (zeta - J q).

Learning adds c F^T (Delta g) to M_a and c (Delta G)^T phi to M_b; of what is learned, only what takes the features'
tail to the gradients' tail is left out. A convolution is n matrices, one for each place of its kernel, between the same
two populations: they share the bases, and each has its own images and tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.directions import BLOCK, Directions, coordinates, represent
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.engine.tail import Tail, at_place, pass_down, pass_up, unrelated

State = TypeVar("State")


class Images(NamedTuple):
    """What n matrices make of known directions (or of the coordinates of data), on the particles that receive them.

    Attributes:
        K: (n, k, S) what W(0) / `sigma` at initialization makes of them, less what the tail does.
        M: (n, k, S) what was learned; a Series where gamma0 is a formal variable.
        sigma: scale of W(0) at initialization.
        kept: what weight decay has left of W(0).
        gain: factor of what is learned.
        velocity: (n, k, S) the direction in which M moves; None without momentum.
    """

    K: Array
    M: Fields
    sigma: Array
    kept: Array
    gain: Array
    velocity: Fields | None = None

    @property
    def scale(self) -> Array:
        """s, of W(0) now."""
        return self.sigma * self.kept

    @property
    def D(self) -> Fields:
        """s K + M, (n, k, S)."""
        return self.M + self.scale * self.K


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InfiniteMatrix:
    """n matrices between two populations.

    Attributes:
        below, above: leading directions of the features and of the gradients.
        up: images of `below` on the particles above; down: images of `above` on the particles below.
        tail: None for a matrix that is known on everything it meets (linear networks).
        tol: energy above which a direction is leading, in units of the mean square.
        coupled: False for gradient independence: W(0) and its transpose are unrelated.
        ratio: width above over width below.
    """

    below: Directions
    above: Directions
    up: Images
    down: Images
    tail: Tail | None
    tol: float = field(metadata={"static": True})
    coupled: bool = field(metadata={"static": True})
    ratio: float = field(metadata={"static": True})


class Way(NamedTuple):
    """A matrix seen in one direction, from a sender to a receiver.

    Attributes:
        sender, receiver: leading directions.
        images: of the sender's directions, on the receiver.
        back: of the receiver's directions, on the sender.
        tail: of all places; None if there is none.
        act, transposed: x -> J x and J^T x of the tail of one place.
        share: <g, W phi> is `share` times <W^T g, phi>, by the ratio of widths.
        coupled: whether W(0) and its transpose are one matrix.
    """

    sender: Directions
    receiver: Directions
    images: Images
    back: Images
    tail: Tail | None
    act: Callable[[Tail, Fields], Fields]
    transposed: Callable[[Tail, Fields], Fields]
    share: float
    coupled: bool

    @property
    def returned(self) -> Fields:
        """What the receiver's directions see of the sender's tail, D_b, (n, k, S)."""
        if not self.coupled:
            return self.back.M * self.share
        if self.share == 1:
            return self.back.D
        return self.back.D * self.share + (math.sqrt(self.share) - 1) * self.images.scale * self._of_tail(
            self.transposed, self.receiver.q
        )

    def _of_tail(self, act: Callable[[Tail, Fields], Fields], q: Array) -> Array:
        """What the tails make of directions (k, S): (n, k, S)."""
        if self.tail is None:
            return jnp.zeros_like(self.images.K[:, :1])
        places = range(len(self.tail.core))
        return jnp.stack([act(at_place(self.tail, place), q) for place in places])

    def born(self, sender: Directions) -> Images:
        """Images that have those of new directions of the sender too, made a block at a time."""
        block = min(BLOCK, len(sender.q))

        def more(now: tuple[Array, Images]) -> tuple[Array, Images]:
            start = jnp.minimum(now[0], len(sender.q) - block)
            order = start + jnp.arange(block)
            new = ((order >= self.sender.size) & (order < sender.size))[:, None]
            return start + block, self._with_block(now[1], sender, start, new)

        return lax.while_loop(lambda now: now[0] < sender.size, more, (self.sender.size, self.images))[1]

    def _with_block(self, images: Images, sender: Directions, start: Array, new: Array) -> Images:
        """Images with those of the `new` ones among a block of the sender's directions."""
        q_o, particles = self.receiver.q, sender.q.shape[1]
        q = lax.dynamic_slice_in_dim(sender.q, start, len(new))

        def block(values: Array) -> Array:
            return lax.dynamic_slice_in_dim(values, start, len(new), axis=-2)

        def put(values: Array, rows: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(values, jnp.where(new, rows, block(values)), start, axis=-2)

        def responded(values: Array) -> Array:
            return jnp.einsum("ks,...js->...kj", q, values) / particles @ q_o

        def learned(mine: Fields, others: Fields) -> Fields:
            return jax.tree.map(lambda values, other: put(values, self.share * responded(other)), mine, others)

        def inside(x: Array) -> Array:
            return (x @ q_o.T / particles) @ q_o

        def gaussian() -> Array:
            more = block(images.K) - self._of_tail(self.act, q)
            return more - inside(more) if self.coupled else more

        first = (self.sender.size == 0) | (self.tail is None)
        K = lax.cond(first, gaussian, lambda: jnp.zeros_like(block(images.K)))
        if self.coupled:
            K = K + math.sqrt(self.share) * responded(self.back.K)
            if self.share != 1:
                K = K + (math.sqrt(self.share) - 1) * inside(self._of_tail(self.act, q))
        velocity, back = images.velocity, self.back
        return images._replace(
            K=put(images.K, K),
            M=learned(images.M, back.M),
            velocity=None if velocity is None else learned(velocity, back.velocity),
        )


def way(matrix: InfiniteMatrix, upward: bool) -> Way:
    """The matrix as it sends features up, or gradients down."""
    tail, ratio, coupled = matrix.tail, matrix.ratio, matrix.coupled
    if upward:
        ends = matrix.below, matrix.above, matrix.up, matrix.down
        return Way(*ends, tail, pass_up, pass_down, 1 / ratio, coupled)
    ends = matrix.above, matrix.below, matrix.down, matrix.up
    backward = tail if coupled or tail is None else unrelated(tail)
    return Way(*ends, backward, pass_down, pass_up, ratio, coupled)


def meet(matrix: InfiniteMatrix, x: Fields, mass: Array | None, upward: bool) -> tuple[InfiniteMatrix, Fields]:
    """The matrix after it has met features (upward) or gradients x (P, ..., S), and their coordinates (P, ..., k).

    Args:
        matrix: as it is.
        x: what is going to be sent.
        mass: weights of the points in the choice of directions; None to leave the matrix as it is.
        upward: whether it is sent up.
    """
    sent = way(matrix, upward)
    if mass is None:
        return matrix, coordinates(sent.sender, x)
    sender, F = represent(sent.sender, x, mass, matrix.tol)
    images = lax.cond(sender.size > sent.sender.size, lambda: sent.born(sender), lambda: sent.images)
    ends = {"below": sender, "up": images} if upward else {"above": sender, "down": images}
    return replace(matrix, **ends), F


def beyond(sent: Way, x: Fields, F: Fields) -> Fields:
    """What the receiver's directions get of the sender's tail, <x D_b> - F <q_a D_b>.

    Args:
        sent: the matrix as it sends x.
        x: (..., S).
        F: its coordinates (..., k).

    Returns:
        (..., n k'), for every place of a kernel.
    """
    q = sent.sender.q
    back = linear(lambda values: values.reshape(-1, values.shape[-1]), sent.returned)
    if leading(x).size < q.size:  # the sooner way of fewer rows
        return (x - F @ q) @ back.T * (1 / q.shape[1])
    return (x @ back.T - F @ (q @ back.T)) * (1 / q.shape[1])


def learn(images: Images, rate: Fields, coordinates: Fields, x: Fields) -> Images:
    """Gradient descent: M += sum_i rate_i coordinates_i^T x_i over rows i, with rate (rows, 1); or its velocity.

    Coordinates are (rows, n k).
    """
    moving = images.M if images.velocity is None else images.velocity
    moved = (images.gain * (rate * coordinates)).T @ x
    moved = moving + linear(lambda values: values.reshape(images.K.shape), moved)
    return images._replace(M=moved) if images.velocity is None else images._replace(velocity=moved)


def decayed(images: Images, left: Array) -> Images:
    """After weight decay, which leaves the part `left` of everything."""
    left = left.astype(images.K.dtype)
    return images._replace(M=images.M * left, kept=images.kept * left)


def slowed(images: Images, momentum: Array) -> Images:
    """With the part `momentum` of its velocity left."""
    assert images.velocity is not None
    return images._replace(velocity=images.velocity * momentum.astype(images.K.dtype))


def moved(images: Images, rate: Array) -> Images:
    """After one step along its velocity."""
    assert images.velocity is not None
    return images._replace(M=images.M + images.velocity * rate.astype(images.K.dtype))


def unlearned(images: Images) -> Images:
    """As if nothing had been learned: what weight decay has left of W(0)."""
    return images._replace(M=jax.tree.map(jnp.zeros_like, images.M))


def is_images(leaf: object) -> bool:
    """Whether a leaf of a tree of states is Images."""
    return isinstance(leaf, Images)


def all_images(tree: object) -> list[Images]:
    """Every Images in a tree of states, in order."""
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_images) if is_images(leaf)]


def change_images(change: Callable[[Images], Images], tree: State) -> State:
    """A tree of states with all Images changed."""
    return jax.tree.map(lambda leaf: change(leaf) if is_images(leaf) else leaf, tree, is_leaf=is_images)


def all_matrices(tree: object) -> list[InfiniteMatrix]:
    """Every infinite matrix in a tree of states, in order."""

    def is_matrix(leaf: object) -> bool:
        return isinstance(leaf, InfiniteMatrix)

    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_matrix) if is_matrix(leaf)]
