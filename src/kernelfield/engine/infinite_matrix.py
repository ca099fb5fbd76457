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
tail to the gradients' tail is left out.

What sends gradients down may be another matrix than W^T, whose W(0) has the correlation a with that of W (`Feedback`).
Its tail is a J^T + sqrt(1 - a^2) J'^T, and each side knows of the other a K in place of K.

A convolution is n matrices, one for each place of its kernel, between the same two populations: they share the bases,
and each has its own images and tail.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.directions import BLOCK, Directions, project, represent
from kernelfield.engine.entries import Moments, Pairs, Skeleton
from kernelfield.engine.plan import Plan
from kernelfield.engine.series import Fields, apply_linear
from kernelfield.engine.tail import Tail, decorrelate
from kernelfield.engine.wiring import apply_tail, gather, sum_places

EQUAL = 1e-12  # difference of factors that is rounding

State = TypeVar("State")
Part = TypeVar("Part")


class Feedback(NamedTuple):
    """What sends gradients down: W^T, or a matrix of its own that begins as a W(0)^T + sqrt(1 - a^2) W'^T."""

    alignment: float = 1.0  # a
    learns: bool = True  # whether it has what W has learned; else it rests


class Images(NamedTuple):
    """The images of k directions (or coordinates of data) under n matrices, on the particles that receive them."""

    K: Array  # (n, k, S): images under W(0) / `sigma` at initialization, minus those under the tail
    M: Fields  # (n, k, S): images under the learned part; a Series where gamma0 is a formal variable
    sigma: Array  # scale of W(0) at initialization
    decay: Array  # factor of W(0) by weight decay
    gain: Array  # factor of the learned part
    velocity: Fields = None  # (n, k, S): the direction in which M moves; None without momentum
    moments: Moments | None = None  # of Adam, whose gradients come in as velocities
    feedback: Array | None = None  # (C, n, S): what sends error signals down in place of these weights, or past them

    @property
    def scale(self) -> Array:
        """The scale s of W(0) now."""
        return self.sigma * self.decay

    @property
    def D(self) -> Fields:
        """D = s K + M, (n, k, S)."""
        return self.M + self.scale * self.K


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InfiniteMatrix:
    """The n matrices W of a weight layer, which send features from the population below to that above.

    `W.T` is the same operator with the other orientation: it sends gradients, and "below" is where they come from.
    """

    below: Directions  # q_a, leading directions of the features
    above: Directions  # q_b, leading directions of the gradients
    up: Images  # K_a and M_a, on the particles above
    down: Images  # K_b and M_b, on the particles below
    tail: Tail | None  # None for a matrix that is known on every field (linear networks)
    tol: float = field(metadata={"static": True})  # energy of a leading direction, in units of the mean square
    feedback: Feedback = field(metadata={"static": True})
    ratio: float = field(metadata={"static": True})  # width above over width below, of W
    learned: Pairs | Skeleton | None = None  # what is learned entry by entry, and not by products of fields
    transposed: bool = field(default=False, metadata={"static": True})  # whether this is W.T

    @property
    def T(self) -> InfiniteMatrix:
        """The transpose."""
        ends = {"below": self.above, "above": self.below, "up": self.down, "down": self.up}
        tail = None if self.tail is None else self.tail.T
        return replace(self, **ends, tail=tail, transposed=not self.transposed)

    @property
    def share(self) -> float:
        """The factor between averages, <g, W phi> = share <W^T g, phi>, by the ratio of widths."""
        return self.ratio if self.transposed else 1 / self.ratio

    @property
    def tail_share(self) -> float:
        """The factor between averages of the tail, <g, J phi> = tail_share <J^T g, phi>, by the numbers of neurons."""
        return math.sqrt(self.below.q.shape[1] / self.above.q.shape[1])

    @property
    def rests(self) -> bool:
        """Whether this sends gradients down, and does not learn."""
        return self.transposed and not self.feedback.learns

    @property
    def scale(self) -> Array:
        """The scale s of W(0) now."""
        return self.up.sigma if self.rests else self.up.scale

    @property
    def tails(self) -> list[tuple[float, Tail]]:
        """The tails whose weighted sum is J."""
        if self.tail is None:
            return []
        a = self.feedback.alignment if self.transposed else 1.0
        parts = (a, self.tail), (math.sqrt(1 - a * a), decorrelate(self.tail))
        return [(weight, tail) for weight, tail in parts if weight]

    def apply_tails(self, q: Array) -> Array:
        """Returns J q (n, k, S) of directions (k, S), for every place."""
        images = [_apply_places(tail, q, weight) for weight, tail in self.tails]
        return functools.reduce(jnp.add, images) if images else jnp.zeros_like(self.up.K[:, :1])

    @property
    def D_a(self) -> Fields:
        """D_a (n, k, S)."""
        return self.scale * self.up.K if self.rests else self.up.D

    @property
    def D_b(self) -> Fields:
        """D_b (n, k, S), in averages over the particles below."""
        a, share = self.feedback.alignment, self.share
        factor = self.down.sigma if self.rests else self.down.sigma * self.up.decay
        D_b = self.down.K * (factor if a == 1 else factor * a)
        if not self.rests:
            D_b = self.down.M + D_b if a else self.down.M
        D_b = D_b if share == 1 else D_b * share
        excess = math.sqrt(share) - self.tail_share
        if not a or not self.tails or abs(excess) < EQUAL:
            return D_b
        images = [_apply_places(tail.T, self.above.q, weight) for weight, tail in self.tails]
        return D_b + excess * self.scale * functools.reduce(jnp.add, images)


def _apply_places(tail: Tail, q: Array, weight: float) -> Array:
    """Returns the images (n, k, S) of directions (k, S) under the tail of every place, times a weight."""
    images = jnp.stack([J @ q for J in map(Tail, *tail)])
    return images if weight == 1 else images * weight


def add_directions(matrix: InfiniteMatrix, x: Fields, mass: Array | Plan | None) -> tuple[InfiniteMatrix, Fields]:
    """Returns the matrix with the leading directions of features x (P, ..., S), and the coordinates F (P, ..., k).

    The points have the weights `mass` (P,) in the choice of directions, or a plan chooses; None leaves the matrix as it
    is.
    """
    if mass is None:
        return matrix, project(matrix.below, x)
    if isinstance(mass, Plan):
        below, F, new = mass.extend(matrix.below, x)
        return replace(matrix, below=below, up=_put_images(matrix, matrix.up, below.q, matrix.below.size, new)), F
    below, F = represent(matrix.below, x, mass, matrix.tol, complete=matrix.tail is None)
    block = min(BLOCK, len(below.q), math.prod(x.shape[:-1]))
    up = lax.cond(below.size > matrix.below.size, lambda: _extend(matrix, below, block), lambda: matrix.up)
    return replace(matrix, below=below, up=up), F


def _extend(matrix: InfiniteMatrix, below: Directions, block: int) -> Images:
    """Returns the images of the extended basis `below`, those of new directions computed a block at a time."""

    def add_block(now: tuple[Array, Images]) -> tuple[Array, Images]:
        start = jnp.minimum(now[0], len(below.q) - block)
        order = start + jnp.arange(block)
        new = ((order >= matrix.below.size) & (order < below.size))[:, None]
        return start + block, _put_images(matrix, now[1], below.q, start, new)

    return lax.while_loop(lambda now: now[0] < below.size, add_block, (matrix.below.size, matrix.up))[1]


def _put_images(matrix: InfiniteMatrix, images: Images, directions: Array, start: Array, new: Array) -> Images:
    """Returns the images with K_new and M_new of the `new` ones (rows, 1) in a block of directions from `start` on."""
    q_o, share, a = matrix.above.q, matrix.share, matrix.feedback.alignment
    q = lax.dynamic_slice_in_dim(directions, start, len(new))

    def block(values: Array) -> Array:
        return lax.dynamic_slice_in_dim(values, start, len(new), axis=-2)

    def put(values: Array, rows: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(values, jnp.where(new, rows, block(values)), start, axis=-2)

    def respond(values: Array) -> Array:  # <q values> q_o
        return matrix.below.average(values, q).swapaxes(-1, -2) @ q_o

    def inside(x: Array) -> Array:  # q_o q_o x
        return project(matrix.above, x) @ q_o

    def gaussian() -> Array:  # (1 - q_o q_o) (zeta - J q)
        rest = block(images.K) - matrix.apply_tails(q)
        known = 1 - math.sqrt(1 - a * a)  # the part of W(0) q in q_o that the other side tells
        return rest - (inside(rest) if a == 1 else known * inside(rest)) if a else rest

    first = (matrix.below.size == 0) | (matrix.tail is None)
    K = lax.cond(first, gaussian, lambda: jnp.zeros_like(block(images.K)))
    if a:
        K = K + (a * math.sqrt(share)) * respond(matrix.down.K)
        if abs(excess := math.sqrt(share) / matrix.tail_share - 1) >= EQUAL:
            K = K + excess * inside(matrix.apply_tails(q))
    K = put(images.K, K)
    learned, others = (images.M, images.velocity), (matrix.down.M, matrix.down.velocity)
    M, velocity = jax.tree.map(lambda mine, theirs: put(mine, share * respond(theirs)), learned, others)
    return images._replace(K=K, M=M, velocity=velocity)


def send(matrix: InfiniteMatrix, x: Fields, F: Fields, table: np.ndarray) -> Fields:
    """Returns h = F D_a + (<x D_b> - F <q_a D_b>) q_b + s J x (P B, S), which is W x / sqrt(N), wired by a table.

    The fields x are (P, *sites, S), with coordinates F.
    """
    h = combine(F, matrix.D_a, table) + sum_places(project_rest(matrix, x, F), table) @ matrix.above.q
    for weight, tail in matrix.tails:
        h = h + apply_tail(tail, x, table) * (matrix.scale if weight == 1 else matrix.scale * weight)
    if matrix.learned is None:
        return h
    if matrix.transposed:
        return h + matrix.learned.send_down(x, table, matrix.ratio)
    return h + matrix.learned.send_up(x, table)


def combine(F: Fields, D: Fields, table: np.ndarray) -> Fields:
    """Returns F D (P B, S), of the coordinates F (P, *sites, k) wired by a table, and images D (n, k, S)."""
    return gather(F, table) @ D.reshape(-1, D.shape[-1])


def project_rest(matrix: InfiniteMatrix, x: Fields, F: Fields) -> Fields:
    """Returns <x D_b> - F <q_a D_b> (..., n k'): the coordinates in q_b of W E, with the rest E = x - F q_a.

    x is (..., S) with coordinates F (..., k); W is one matrix for every place of a kernel.
    """
    below, D = matrix.below, matrix.D_b
    D = D.reshape(-1, D.shape[-1])
    if math.prod(x.shape) < below.q.size:  # the faster order for few rows
        return below.average(x - F @ below.q, D)
    return below.average(x, D) - F @ below.average(below.q, D)


def learn(images: Images, rate: Fields, coordinates: Fields, x: Fields) -> Images:
    """Returns images after gradient descent, M += sum_i rate_i coordinates_i^T x_i over rows i, or with that velocity.

    The rates are (P,), those of samples; rows are samples and sites, of coordinates (P A, n k) and x (P, *sites, S).
    """
    x = x.reshape(-1, x.shape[-1])
    column = apply_linear(lambda values: jnp.repeat(values, x.shape[0] // len(values))[:, None], rate)
    step = ((images.gain * (column * coordinates)).T @ x).reshape(*images.K.shape)
    if images.velocity is None:
        return images._replace(M=images.M + step)
    return images._replace(velocity=images.velocity + step)


def decay(images: Images, factor: Array) -> Images:
    """Returns images after weight decay, which multiplies all weights by a factor."""
    factor = factor.astype(images.K.dtype)
    return images._replace(M=images.M * factor, decay=images.decay * factor)


def damp(images: Images, momentum: Array) -> Images:
    """Returns images with their velocity multiplied by the momentum."""
    return images._replace(velocity=images.velocity * momentum.astype(images.K.dtype))


def move(images: Images, rate: Array) -> Images:
    """Returns images after one step along their velocity."""
    return images._replace(M=images.M + images.velocity * rate.astype(images.K.dtype))


def forget(images: Images) -> Images:
    """Returns images of W(0) alone, with its weight decay, as if nothing had been learned."""
    return images._replace(M=jax.tree.map(jnp.zeros_like, images.M))


def collect(tree: object, kind: type[Part] | tuple[type[Part], ...]) -> list[Part]:
    """Returns the parts of one kind in a tree of states or traces, in the order in which layers act."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def replace_feedback(tree: State) -> State:
    """Returns a tree of states that sends gradients down by W^T itself, whatever else did in training."""

    def change(part: object) -> object:
        if isinstance(part, InfiniteMatrix):
            return _transpose_itself(part)
        return part._replace(feedback=None) if isinstance(part, Images) else part

    return jax.tree.map(change, tree, is_leaf=lambda part: isinstance(part, (InfiniteMatrix, Images)))


def _transpose_itself(matrix: InfiniteMatrix) -> InfiniteMatrix:
    """Returns the matrix with W^T: of q_b it knows a (1 - q_a q_a) K_b, and what W makes of q_a."""
    q_a, known = matrix.below.q, matrix.feedback.alignment * matrix.down.K
    respond = math.sqrt(matrix.T.share) * matrix.above.average(matrix.up.K, matrix.above.q).swapaxes(-1, -2)
    K = known + (respond - project(matrix.below, known)) @ q_a
    return replace(matrix, down=matrix.down._replace(K=K, feedback=None), feedback=Feedback())


def change_images(change: Callable[[Images], Images], tree: State) -> State:
    """Returns a tree of states with all its Images changed."""

    def is_images(leaf: object) -> bool:
        return isinstance(leaf, Images)

    return jax.tree.map(lambda leaf: change(leaf) if is_images(leaf) else leaf, tree, is_leaf=is_images)
