"""Networks of any finite width without N x N matrices: the infinite matrix, which draws what training looks at.

Training sees a Gaussian matrix W on few directions alone. Conditioned on what it has seen, W is Gaussian on all others:
a new direction q has the image W q = (1 - q_o q_o) zeta + <q W^T q_o> q_o, with fresh normal numbers zeta for every
neuron and the directions q_o of the other side. So births of directions with independent coordinates, and bases that
represent all fields, are a network of width N exactly in distribution, at a cost that grows as N. Nothing is left to a
tail.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field, field_validator

from kernelfield.describe.problem import Problem
from kernelfield.describe.training import SGD, GradientDescent
from kernelfield.engine.infinite_matrix import Images, change_images, forget
from kernelfield.engine.series import Fields
from kernelfield.finite.network import Kernels
from kernelfield.layers.base import Mass
from kernelfield.march.method import OnParticles
from kernelfield.march.step import Constants, Step

ROUNDING = {"single": 1e-8, "double": 1e-24}  # part of a mean square that directions may leave out


@dataclasses.dataclass(frozen=True)
class ConditionedStep(Step):
    """One step of training of a network of finite width: all points must be known, and f is minus its first value."""

    def mass(self, constants: Constants) -> Mass:
        """Returns ones: points that do not train need directions too."""
        return jnp.ones_like(constants.weights)

    def initial(self, layers: tuple) -> tuple:
        """Returns the states at initialization, before weight decay."""
        return change_images(_at_initialization, layers)

    def output(self, gamma0: float, layers: tuple, phi: Fields, initial: Array) -> Fields:
        """Returns the outputs f (P, C), minus those of the network at initialization: weight decay changes these."""
        f = super().output(gamma0, layers, phi, initial)
        if not self.decays:
            return f
        decayed, start = forget(layers[-1]), _at_initialization(layers[-1])
        zero = jnp.zeros_like(initial)
        now, then = (self.readout.outputs(state, initial, zero) for state in (decayed, start))
        return f + (now - then) / gamma0


def _at_initialization(images: Images) -> Images:
    return forget(images)._replace(decay=jnp.ones_like(images.decay))


class Conditioned(OnParticles):
    """Networks of finite width N on their neurons; arguments are those of `FiniteWidth`."""

    particles: int = Field(ge=1)
    kernels: Kernels = "all"
    tol: float | None = Field(default=ROUNDING["single"], gt=0, lt=1)

    kind: ClassVar[type[Step]] = ConditionedStep
    is_finite: ClassVar[bool] = True
    keeps_checkpoints: ClassVar[bool] = False
    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "outputs", "momentum", "weight_decay", "schedule", "mixing"})

    @field_validator("particles")
    @classmethod
    def _balanced(cls, particles: int) -> int:
        return particles

    def seed_of(self, replicate: int) -> np.random.SeedSequence:
        """Returns the seed of a network, which others beside it do not change."""
        return np.random.SeedSequence(self.seed + replicate)

    def records(self, problem: Problem) -> tuple[bool, bool]:
        """Returns whether feature kernels are recorded, and gradient kernels."""
        gradients = self.kernels == "per_output" or (self.kernels == "all" and problem.outputs == 1)
        return self.kernels != "none", gradients
