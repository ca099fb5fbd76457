"""One step of Adam at infinite width."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.engine.entries import Adam, Entries, descend
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix
from kernelfield.march.step import Constants, Pace, Passed, Step


@dataclasses.dataclass(frozen=True)
class AdamStep(Step):
    """One step of Adam: gradients come in by entries, and then all entries move by their own."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def initial(self, layers: tuple) -> tuple:
        """Returns the states as if nothing had been learned."""

        def rest(part: object) -> object:
            return replace(part, learned=None) if isinstance(part, InfiniteMatrix) else part

        return super().initial(jax.tree.map(rest, layers, is_leaf=lambda part: isinstance(part, InfiniteMatrix)))

    def learn(self, constants: Constants, layers: tuple, passed: Passed, rate: Array, pace: Pace) -> tuple:
        """Returns the states after one update."""
        layers = self.update(layers, passed, rate.astype(constants.data.dtype))
        b1, b2, eps = (jnp.asarray(value) for value in (*self.betas, self.eps))
        rate, kept = pace.eta * constants.gamma0, 1 - pace.eta * constants.weight_decay
        adam = Adam(b1, b2, eps, pace.number, jnp.asarray(rate), jnp.asarray(kept), pace.learns)

        def change(part: object) -> object:
            if isinstance(part, InfiniteMatrix):
                assert part.learned is not None
                up, down = (_decay(images, adam) for images in (part.up, part.down))
                return replace(part, up=up, down=down, learned=part.learned.descend(adam))
            if isinstance(part, Images):
                assert part.moments is not None
                entries = descend(Entries(part.M, part.velocity, part.moments), part.gain, adam)
                return _decay(part, adam)._replace(M=entries.M, velocity=entries.gradient, moments=entries.moments)
            return part

        return jax.tree.map(change, layers, is_leaf=lambda part: isinstance(part, (InfiniteMatrix, Images)))


def _decay(images: Images, adam: Adam) -> Images:
    kept = jnp.where(adam.learns, adam.kept, 1).astype(images.decay.dtype)
    return images._replace(decay=images.decay * kept)
