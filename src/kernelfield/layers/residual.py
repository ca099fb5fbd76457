"""Residual blocks: x + scale branch(x), on one population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from kernelfield.engine.series import Fields
from kernelfield.layers.base import Layer, Mass, Setup, Space, Tape, uses
from kernelfield.layers.bias import Bias
from kernelfield.layers.weights import Weights


@dataclass(frozen=True)
class Residual:
    """x + scale branch(x).

    Args:
        branch: a layer whose outputs have the shape of its inputs, and which ends in weights.
        scale: of the branch; 1/sqrt(depth) lets dynamics converge as blocks are added, arXiv:2309.16620.
    """

    branch: Layer
    scale: float = 1.0

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The branch alone."""
        return (self.branch,)

    def init(self, setup: Setup, below: Space) -> tuple[Any, Space]:
        """Returns the branch's state; the population above the branch becomes one with that below."""
        state, above = self.branch.init(setup, below)
        if above.sites != below.sites:
            raise ValueError(f"the branch of a Residual must keep its sites {below.sites}, it makes {above.sites}")
        if above.width != below.width:
            raise ValueError(f"the branch of a Residual must keep its width {below.width:g}, it makes {above.width:g}")
        below.population.join(above.population)
        return state, below

    def forward(self, state: Any, x: Fields, mass: Mass) -> tuple[Any, Fields, Any]:
        """Returns the sum."""
        state, branch, trace = self.branch.forward(state, x, mass)
        return state, x + self.scale * branch, trace

    def backward(self, state: Any, chi: Fields, trace: Any, mass: Mass) -> tuple[Any, Fields, Any]:
        """Returns the sum of the gradients of both ways."""
        state, down, trace = self.branch.backward(state, self.scale * chi, trace, mass)
        return state, chi + down, trace

    def update(self, state: Any, trace: Any, rate: Fields) -> Any:
        """Returns the branch's state after one step."""
        return self.branch.update(state, trace, rate)

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, Any]:
        """Returns the sum: a branch that ends in weights is independent of what it is added to."""
        if not isinstance(uses(self.branch)[-1], (Weights, Bias)):
            raise ValueError("the lazy limit of a Residual is known for branches that end in Dense, Conv or Bias")
        branch, trace = self.branch.lazy_forward(kernel)
        return kernel + self.scale**2 * branch, trace

    def lazy_backward(self, kernel: np.ndarray, trace: Any) -> tuple[np.ndarray, Any, Any]:
        """Returns the sum, for the same reason."""
        down, tangent, trace = self.branch.lazy_backward(self.scale**2 * kernel, trace)
        return kernel + down, tangent, trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Any, tuple[int, ...]]:
        """Returns the parameters of the branch."""
        params, above = self.branch.finite_init(key, shape, width)
        if above != shape:
            raise ValueError(f"the branch of a Residual must keep the shape {shape}, it makes {above}")
        return params, shape

    def finite_apply(self, params: Any, x: Array, tape: Tape) -> Array:
        """Returns x + scale branch(x)."""
        return x + self.scale * self.branch.finite_apply(params, x, tape)
