"""The first weight layer: from data to the first population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.engine.basis import represent
from kernelfield.engine.infinite_matrix import Side, learn
from kernelfield.layers.base import Setup, Signal, WeightTrace


@dataclass(frozen=True)
class ReadIn:
    """h = W x / sqrt(D). Its lower basis is the data, F_x F_x^T = K_x: static, so there are no responses."""

    def init(self, setup: Setup, below: None) -> tuple[Side, Any]:
        """A side above the data, with one image for each direction of the data."""
        population = setup.population()
        basis, directions = setup.basis(setup.gradient_tol), setup.input_coordinates.shape[1]
        return setup.side(basis, population, images=directions), population

    def forward(self, state: Side, signal: Array) -> tuple[Side, Signal, WeightTrace]:
        """h = F_x W_F and u = F_x Z_u."""
        return state, Signal(signal @ state.W, signal @ state.Z), WeightTrace(F=signal)

    def backward(self, state: Side, chi: Array, trace: WeightTrace) -> tuple[Side, None, WeightTrace]:
        """Nothing goes down; the coordinates of g give the gradient kernel G^1."""
        basis, G = represent(state.basis, chi)
        return state._replace(basis=basis), None, trace._replace(g=chi, G=G)

    def update(self, state: Side, trace: WeightTrace, rate: Array) -> Side:
        """W_F += sum_mu rate_mu F_x^T g_mu."""
        return learn(state, rate, trace.F, trace.g)

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[Array, int]:
        """W (width, D) from N(0, 1)."""
        return jax.random.normal(key, (width, inputs)), width

    def finite_apply(self, params: Array, x: Array) -> Array:
        """W x / sqrt(D)."""
        return x @ params.T / jnp.sqrt(x.shape[1])
