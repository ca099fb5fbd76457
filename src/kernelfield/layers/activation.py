"""The nonlinearity, particle by particle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from jax import Array

from kernelfield.activations import Activation as Nonlinearity
from kernelfield.activations import elementwise_derivative
from kernelfield.engine.series import lift
from kernelfield.layers.base import FieldTrace, Setup, Signal

Below = TypeVar("Below")


@dataclass(frozen=True)
class Activation:
    """phi(h) going up, g = phi'(h) z going down."""

    nonlinearity: Nonlinearity

    def init(self, setup: Setup, below: Below) -> tuple[None, Below]:
        """No state, the same population."""
        return None, below

    def forward(self, state: None, signal: Signal) -> tuple[None, Signal, FieldTrace]:
        """phi(h), and phi(u) of the Gaussian part."""
        phi = lift(self.nonlinearity.phi, self.nonlinearity.dphi)
        return None, Signal(phi(signal.value), phi(signal.gaussian)), FieldTrace(h=signal.value)

    def backward(self, state: None, chi: Array, trace: FieldTrace) -> tuple[None, Array, FieldTrace]:
        """g = phi'(h) z."""
        dphi = self.nonlinearity.dphi
        g = lift(dphi, elementwise_derivative(dphi))(trace.h) * chi
        return None, g, trace._replace(z=chi, g=g)

    def update(self, state: None, trace: FieldTrace, rate: Array) -> None:
        """Nothing to learn."""

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[None, int]:
        """No parameters."""
        return None, inputs

    def finite_apply(self, params: None, x: Array) -> Array:
        """phi(x)."""
        return self.nonlinearity.phi(x)
