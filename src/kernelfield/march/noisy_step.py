"""One step of Langevin dynamics."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.engine.noise import fade, stir
from kernelfield.engine.series import Fields
from kernelfield.layers.base import Mass
from kernelfield.march.step import Constants, Pace, Passed, Step


@dataclasses.dataclass(frozen=True)
class NoisyStep(Step):
    """One step of gradient descent with weight decay, and noise on all weights.

    There is no tail, which would have to move as well: fields are known up to the tolerance of their directions.
    """

    def mass(self, constants: Constants) -> Mass:
        """Returns ones: points that do not train need directions too."""
        return jnp.ones_like(constants.weights)

    def learn(self, constants: Constants, layers: tuple, passed: Passed, rate: Array, pace: Pace) -> tuple:
        """Returns the states after decay, noise, and the step along the gradient."""
        assert pace.noise is not None and constants.temperature is not None
        stirring, fading = jax.random.split(pace.noise)
        kept = jnp.where(pace.learns, 1 - pace.eta * constants.weight_decay, 1.0)
        spread = jnp.where(pace.learns, jnp.sqrt(2 * pace.eta * constants.temperature), 0.0)
        layers = stir(layers, kept, spread, stirring)
        learns: Fields = rate * jnp.where(pace.learns, pace.eta, 0.0)
        layers = self.update(layers, passed, self.paced(constants, learns))
        return fade(layers, kept, fading)
