"""The infinite matrix: an N x N Gaussian weight matrix at N = infinity, known only where training looks.

A matrix W from population a (below) to population b (above) is used in both directions,

    forward   h = W phi / sqrt(N),        backward   z = W^T g / sqrt(N),

and acts on few directions: the features phi and the gradients g that training visits. Each population keeps a
`Side` of it. With F = <phi q_a> the coordinates of the features and G = <g q_b> those of the gradients,

    h = F W_F,   W_F = Z_u + a q_b + (learned),   a = <q_a Z_r>      on the particles of b
    z = G W_B,   W_B = Z_r + b q_a + (learned),   b = <q_b Z_u>      on the particles of a

Z_u = W(0) q_a and Z_r = W(0)^T q_b are fresh Gaussian coordinates; the responses a, b are what is left of the
fact that W(0) is one matrix. Forward and backward are the same operation seen from the two sides, `transmit`.
"""

from __future__ import annotations

from typing import NamedTuple

from jax import Array, lax

from kernelfield.engine.basis import Basis, represent, when
from kernelfield.engine.series import Fields, coefficients, like


class Side(NamedTuple):
    """What a matrix looks like from one of its two populations.

    Attributes:
        basis: directions that were sent into the matrix from here.
        Z: (capacity of the other side's basis, S) Gaussian image, on these particles, of the other side's directions.
        W: (same shape) their full image: Gaussian part, response and what was learned; as a Series in gamma0,
            only what was learned depends on gamma0.
    """

    basis: Basis
    Z: Array
    W: Fields


class InfiniteMatrix(NamedTuple):
    """Both sides; `coupling` is 1, or 0 for gradient independence (W(0) and W(0)^T unrelated)."""

    below: Side
    above: Side
    coupling: Array


def forward(matrix: InfiniteMatrix, phi: Fields) -> tuple[InfiniteMatrix, Fields]:
    """The matrix, extended to know W on the features phi (rows, S), and their coordinates F; then h = F W_F."""
    below, above, F = transmit(matrix.below, matrix.above, matrix.coupling, phi)
    return matrix._replace(below=below, above=above), F


def backward(matrix: InfiniteMatrix, g: Fields) -> tuple[InfiniteMatrix, Fields]:
    """The matrix, extended to know W^T on the gradients g (rows, S), and their coordinates G; then z = G W_B."""
    above, below, G = transmit(matrix.above, matrix.below, matrix.coupling, g)
    return matrix._replace(below=below, above=above), G


def transmit(sender: Side, receiver: Side, coupling: Array, x: Fields) -> tuple[Side, Side, Fields]:
    """Send x (rows, S) from one side to the other.

    A direction met for the first time is born on the receiver at once, with a Gaussian image and with its
    response to all that the receiver has sent so far. This order is causality.

    Returns:
        sender, receiver and the coordinates (rows, capacity) of x.
    """
    known = sender.basis.size
    basis, coordinates = represent(sender.basis, x)

    def bear(W: Fields) -> Fields:
        at_most = coefficients(x).size // basis.q.shape[1]
        born = lax.dynamic_slice_in_dim(basis.q, known, at_most)
        response = born @ sender.Z.T / basis.q.shape[1]
        gaussian = lax.dynamic_slice_in_dim(receiver.Z, known, at_most)
        return with_rows(W, gaussian + coupling * response @ receiver.basis.q, known)

    W = when(basis.size > known, bear, receiver.W)
    return sender._replace(basis=basis), receiver._replace(W=W), coordinates


def with_rows(W: Fields, rows: Array, start: Array) -> Fields:
    """W with `rows` put in from row `start`; into the lowest order of a Series."""
    values = coefficients(W)
    block = rows.reshape((1,) * (values.ndim - 2) + rows.shape)
    return like(W, lax.dynamic_update_slice(values, block, (0,) * (values.ndim - 2) + (start, 0)))


def learn(side: Side, rate: Fields, coordinates: Fields, x: Fields) -> Side:
    """One step of gradient descent: W += sum_mu rate_mu coordinates_mu^T x_mu, with rate (rows, 1)."""
    return side._replace(W=side.W + (rate * coordinates).T @ x)
