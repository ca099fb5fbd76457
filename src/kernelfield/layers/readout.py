"""The last weight layer: from the last population to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.engine.basis import represent
from kernelfield.engine.infinite_matrix import Side, learn
from kernelfield.engine.points import Population
from kernelfield.engine.series import Fields, linear
from kernelfield.layers.base import Setup, Signal, WeightTrace


class ReadoutState(NamedTuple):
    """The side of w seen from the last population: Z = r (1, S), W = r + learned = z^L; and gamma0."""

    side: Side
    gamma0: Any


def mean_over_particles(x: Fields) -> Fields:
    """<x> of each row."""
    return linear(lambda values: jnp.mean(values, axis=-1), x)


@dataclass(frozen=True)
class Readout:
    """f = w . phi / (gamma0 N)."""

    def init(self, setup: Setup, below: Population) -> tuple[ReadoutState, None]:
        """One Gaussian coordinate r."""
        side = setup.side(setup.basis(setup.feature_tol), below, images=1)
        return ReadoutState(side, jax.tree.map(jnp.asarray, setup.gamma0)), None

    def forward(self, state: ReadoutState, signal: Signal) -> tuple[ReadoutState, Array, WeightTrace]:
        """f = <z^L phi(h) - r phi(u)> / gamma0 (rows,): the second term has mean zero and removes most noise."""
        phi, side = signal.value, state.side
        basis, F = represent(side.basis, phi)
        f = mean_over_particles((side.W - side.Z) * phi + (phi - signal.gaussian) * side.Z) / state.gamma0
        return state._replace(side=side._replace(basis=basis)), f, WeightTrace(phi=phi, F=F)

    def backward(self, state: ReadoutState, chi: Array, trace: WeightTrace) -> tuple[ReadoutState, Array, WeightTrace]:
        """z = chi z^L: chi (rows,) is one for plain gradients, Delta for those that carry the error signal."""
        G = chi[:, None].astype(state.side.Z.dtype)
        return state, G @ state.side.W, trace._replace(G=G)

    def update(self, state: ReadoutState, trace: WeightTrace, rate: Array) -> ReadoutState:
        """z^L += sum_mu rate_mu chi_mu phi_mu."""
        return state._replace(side=learn(state.side, rate, trace.G, trace.phi))

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[Array, int]:
        """w (width,) from N(0, 1)."""
        return jax.random.normal(key, (inputs,)), 1

    def finite_apply(self, params: Array, x: Array) -> Array:
        """w . x / N; the division by gamma0 belongs to the network."""
        return x @ params / x.shape[1]
