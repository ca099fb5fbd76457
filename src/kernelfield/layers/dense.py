"""A fully connected weight layer between two populations."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.engine import infinite_matrix
from kernelfield.engine.infinite_matrix import InfiniteMatrix, learn
from kernelfield.engine.points import Population
from kernelfield.layers.base import Setup, Signal, WeightTrace


@dataclass(frozen=True)
class Dense:
    """h = W phi / sqrt(N): one infinite matrix."""

    def init(self, setup: Setup, below: Population) -> tuple[InfiniteMatrix, Population]:
        """An infinite matrix from `below` to a new population."""
        above = setup.population()
        q_a, q_b = setup.basis(setup.feature_tol), setup.basis(setup.gradient_tol)
        matrix = InfiniteMatrix(
            below=setup.side(q_a, below, images=q_b),
            above=setup.side(q_b, above, images=q_a),
            coupling=jnp.asarray(setup.coupling, setup.dtype),
        )
        return matrix, above

    def forward(self, state: InfiniteMatrix, signal: Signal) -> tuple[InfiniteMatrix, Signal, WeightTrace]:
        """h = F W_F and u = F Z_u."""
        state, F = infinite_matrix.forward(state, signal.value)
        return state, Signal(F @ state.above.W, F @ state.above.Z), WeightTrace(phi=signal.value, F=F)

    def backward(
        self, state: InfiniteMatrix, chi: Array, trace: WeightTrace
    ) -> tuple[InfiniteMatrix, Array, WeightTrace]:
        """z = G W_B."""
        state, G = infinite_matrix.backward(state, chi)
        return state, G @ state.below.W, trace._replace(g=chi, G=G)

    def update(self, state: InfiniteMatrix, trace: WeightTrace, rate: Array) -> InfiniteMatrix:
        """W_F += sum_mu rate_mu F_mu^T g_mu and W_B += sum_mu rate_mu G_mu^T phi_mu."""
        return state._replace(
            above=learn(state.above, rate, trace.F, trace.g),
            below=learn(state.below, rate, trace.G, trace.phi),
        )

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[Array, int]:
        """W (width, inputs) from N(0, 1)."""
        return jax.random.normal(key, (width, inputs)), width

    def finite_apply(self, params: Array, x: Array) -> Array:
        """W x / sqrt(N)."""
        return x @ params.T / jnp.sqrt(x.shape[1])
