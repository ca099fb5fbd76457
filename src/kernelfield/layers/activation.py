"""The nonlinearity, particle by particle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import Array

from kernelfield.activations.functions import Activation as Nonlinearity
from kernelfield.activations.functions import activation, elementwise_derivative
from kernelfield.activations.gaussian_averages import kernel_map
from kernelfield.engine.series import Fields, lift
from kernelfield.layers.base import FieldTrace, Mass, Stateless, Tape
from kernelfield.layers.lazy import LazyField


@dataclass(frozen=True)
class Activation(Stateless):
    """phi(h) going up, g = phi'(h) z going down.

    Args:
        nonlinearity: a name that `kernelfield.MLP` knows, or any elementwise JAX function.
    """

    nonlinearity: Nonlinearity

    def __post_init__(self) -> None:
        object.__setattr__(self, "nonlinearity", activation(self.nonlinearity))

    def forward(self, state: None, x: Fields, mass: Mass) -> tuple[None, Fields, FieldTrace]:
        """Returns phi(h)."""
        phi = lift(self.nonlinearity.phi, self.nonlinearity.dphi)(x)
        return None, phi, FieldTrace(h=x, phi=phi)

    def backward(self, state: None, chi: Fields, trace: FieldTrace, mass: Mass) -> tuple[None, Fields, FieldTrace]:
        """Returns g = phi'(h) z."""
        dphi = self.nonlinearity.dphi
        g = lift(dphi, elementwise_derivative(dphi))(trace.h) * chi
        return None, g, trace._replace(z=chi, g=g)

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, LazyField]:
        """Returns <phi(h) phi(h)>, and <phi'(h) phi'(h)> in the trace, for Gaussian h."""
        phi, rows = self.nonlinearity, kernel.reshape(int(np.sqrt(kernel.size)), -1)
        slope = kernel_map(rows, phi.dphi, phi.derivative_map).reshape(kernel.shape)
        return kernel_map(rows, phi.phi, phi.feature_map).reshape(kernel.shape), LazyField(kernel, slope)

    def lazy_backward(self, kernel: np.ndarray, trace: LazyField) -> tuple[np.ndarray, float, LazyField]:
        """Returns <g g> = <phi'(h) phi'(h)> <z z>."""
        return kernel * trace.slope, 0.0, trace._replace(z=kernel)

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """Returns phi(x)."""
        return tape("phi", self.nonlinearity.phi(tape("h", x)))
