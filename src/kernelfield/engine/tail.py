"""The tail: a fast pseudo-Gaussian matrix J, which says what W(0) does to everything but its leading directions.

J acts on blocks of n particles. All blocks share one n x n matrix, between random signs of every particle on both
sides, so that a pass is one product of many rows with a small matrix, on CPUs and GPUs, and particles that are split
over devices need no traffic. The shared matrix is random but for two things: it has the singular values of a large
Gaussian matrix (the quarter circle law, <s^2> = 1, <s^4> = 2, <s^6> = 5), and rows and columns of unit length.

Particles with several components take a core for every pair of components below and above.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

SWEEPS = 6  # over singular values and lengths of rows and columns, until all are what they should be


class Tail(NamedTuple):
    """The matrices J_j of every place j of a kernel, J_j = diag(above_j) core_j diag(below_j) in every block.

    `J @ x` multiplies the matrix of one place, whose arrays have no axis for places, with x (rows, C S).
    """

    core: Array  # (places, C', C, n, n), the matrices that all blocks share, from C components to C'
    below: Array  # (places, C S), signs of the neurons below
    above: Array  # (places, C' S), signs of the neurons above

    @property
    def T(self) -> Tail:
        """The transposes."""
        return Tail(self.core.swapaxes(-1, -2).swapaxes(-3, -4), self.above, self.below)

    def __matmul__(self, x: Array) -> Array:
        to, of, n, _ = self.core.shape
        blocks = jnp.split((x * self.below).reshape(len(x), -1, n), of, axis=1)

        def component(d: int) -> Array:
            parts = [jnp.einsum("rbi,ji->rbj", blocks[c], self.core[d, c]) for c in range(of)]
            return functools.reduce(jnp.add, parts).reshape(len(x), -1)

        image = jnp.concatenate([component(d) for d in range(to)], axis=-1) * self.above
        return image if of == 1 else image * (1 / math.sqrt(of))


def make_tail(
    places: int, particles: int, components: tuple[int, int], block: int, seed: np.random.SeedSequence, dtype: type
) -> Tail:
    """Returns a new tail in blocks of n = `block` particles, which divides S = `particles`; its arrays are NumPy's.

    Particles have the numbers C and C' of `components` below and above.
    """
    rng, (of, to) = np.random.default_rng(seed), components
    signs: Any = rng.choice(np.array([-1, 1], dtype), (of + to, places, particles)).swapaxes(0, 1)
    cores: Any = np.stack([_draw_core(block, rng) for _ in range(places * to * of)]).astype(dtype)
    below, above = signs[:, :of].reshape(places, -1), signs[:, of:].reshape(places, -1)
    return Tail(cores.reshape(places, to, of, block, block), below, above)


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


def decorrelate(tail: Tail) -> Tail:
    """Returns an uncorrelated tail, which has the same numbers in other places."""
    return Tail(tail.core[..., ::-1, ::-1], jnp.roll(tail.below, 1, -1), jnp.roll(tail.above, 1, -1))
