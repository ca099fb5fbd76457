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

from kernelfield.engine.series import Fields, apply_linear

SWEEPS = 6  # over singular values and lengths of rows and columns, until all are what they should be


class Tail(NamedTuple):
    """The matrices J_j of every place j of a kernel, J_j = diag(above_j) core_j diag(below_j) in every block."""

    core: Array  # (places, n, n), the matrix that all blocks share
    below: Array  # (places, S), signs of the particles below
    above: Array  # (places, S), signs of the particles above


def make_tail(places: int, particles: int, block: int, seed: np.random.SeedSequence, dtype: type) -> Tail:
    """Returns a new tail in blocks of n = `block` particles, which divides S = `particles`; its arrays are NumPy's."""
    rng = np.random.default_rng(seed)
    below: Any
    below, above = rng.choice(np.array([-1, 1], dtype), (2, places, particles))
    core: Any = np.stack([_draw_core(block, rng) for _ in range(places)]).astype(dtype)
    return Tail(core, below, above)


def _draw_core(n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns an (n, n) matrix with the singular values of a large Gaussian one, rows and columns of unit length."""
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
    """Returns the tail of one place: core (n, n) and signs (S,)."""
    return Tail(*(values[place] for values in tail))


def pass_up(tail: Tail, x: Fields) -> Fields:
    """Returns J x of one place, for x (rows, S)."""
    return _multiply(tail.above, tail.core.T, tail.below, x)


def pass_down(tail: Tail, x: Fields) -> Fields:
    """Returns J^T x of one place, for x (rows, S)."""
    return _multiply(tail.below, tail.core, tail.above, x)


def decorrelate(tail: Tail) -> Tail:
    """Returns an uncorrelated tail, which has the same numbers in other places."""
    return Tail(tail.core[..., ::-1, ::-1], jnp.roll(tail.below, 1, -1), jnp.roll(tail.above, 1, -1))


def _multiply(after: Array, core: Array, before: Array, x: Fields) -> Fields:
    def act(rows: Array) -> Array:
        blocks = (rows * before).reshape(len(rows), -1, len(core))
        return jnp.einsum("rbi,ij->rbj", blocks, core).reshape(rows.shape) * after

    return apply_linear(act, x)
