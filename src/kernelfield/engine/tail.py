"""The tail: a fast pseudo-Gaussian matrix J, which says what W(0) does to everything but its leading directions.

J acts on blocks of n particles. All blocks share one n x n matrix, between random signs of every particle on both
sides, so that a pass is one product of many rows with a small matrix, on CPUs and GPUs, and particles that are split
over devices need no traffic. The shared matrix is random but for two things: it has the singular values of a large
Gaussian matrix (the quarter circle law, <s^2> = 1, <s^4> = 2, <s^6> = 5), and rows and columns of unit length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.series import Fields, linear

SWEEPS = 6  # that bring singular values, and the length of rows and columns, to what they should be


class Tail(NamedTuple):
    """The matrices J_j of every place j of a kernel.

    Attributes:
        core: (places, n, n), what all blocks share.
        below, above: (places, S) signs of the particles on both sides.
    """

    core: Array
    below: Array
    above: Array


def make_tail(places: int, particles: int, block: int, seed: np.random.SeedSequence, dtype: type) -> Tail:
    """A new tail, in NumPy.

    Args:
        places: number of matrices.
        particles: S, a multiple of `block`.
        block: n.
        seed: of its random numbers.
        dtype: of its numbers.
    """
    rng = np.random.default_rng(seed)
    below: Any
    below, above = rng.choice(np.array([-1, 1], dtype), (2, places, particles))
    core: Any = np.stack([_core(block, rng) for _ in range(places)]).astype(dtype)
    return Tail(core, below, above)


def _core(n: int, rng: np.random.Generator) -> np.ndarray:
    """One (n, n) matrix with the singular values of a large Gaussian one, rows and columns of unit length."""
    angle = np.linspace(0, np.pi / 2, 20001)
    middle = (np.arange(n) + 0.5) / n
    singular = np.interp(middle, (np.sin(2 * angle) + 2 * angle) / np.pi, 2 * np.sin(angle))[::-1]
    core = rng.standard_normal((n, n))
    for _ in range(SWEEPS):
        left, _, right = np.linalg.svd(core)
        core = left * singular @ right
        for axis in (0, 1):
            core /= np.linalg.norm(core, axis=axis, keepdims=True)
    return core


def at_place(tail: Tail, place: Any) -> Tail:
    """The tail of one place: core (n, n) and signs (S,)."""
    return Tail(*(values[place] for values in tail))


def pass_up(tail: Tail, x: Fields) -> Fields:
    """J x of one place, for x (rows, S)."""
    return _pass(tail.above, tail.core.T, tail.below, x)


def pass_down(tail: Tail, x: Fields) -> Fields:
    """J^T x of one place, for x (rows, S)."""
    return _pass(tail.below, tail.core, tail.above, x)


def unrelated(tail: Tail) -> Tail:
    """Another tail, with the same numbers in other places."""
    return Tail(tail.core[..., ::-1, ::-1], jnp.roll(tail.below, 1, -1), jnp.roll(tail.above, 1, -1))


def _pass(after: Array, core: Array, before: Array, x: Fields) -> Fields:
    def act(rows: Array) -> Array:
        blocks = (rows * before).reshape(len(rows), -1, len(core))
        return jnp.einsum("rbi,ij->rbj", blocks, core).reshape(rows.shape) * after

    return linear(act, x)
