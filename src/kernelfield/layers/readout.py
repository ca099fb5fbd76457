"""The last weight layer: from the last population to the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.basis import represent
from kernelfield.engine.infinite_matrix import Side, learn
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import lazy
from kernelfield.layers.base import Setup, Signal, Simple, Space, Tape, WeightTrace, in_rows, products, sites_of
from kernelfield.layers.lazy import LazyWeights
from kernelfield.layers.wiring import all_to_one, gathered, spread


class ReadoutState(NamedTuple):
    """The side of w seen from the last population: Z = r (n, 1, S), W = r + learned = z^L; and gamma0."""

    side: Side
    gamma0: Any


def mean_over_particles(x: Fields) -> Fields:
    """The mean over particles, of each sample summed over sites: (P, A, S) -> (P,)."""
    return linear(lambda values: jnp.mean(values, axis=-1).sum(axis=-1), x)


@dataclass(frozen=True)
class Readout(Simple):
    """f = w . phi / (gamma0 N); with n sites, each with a w of its own, n^{-1/2} sum_a w_a . phi_a / (gamma0 N)."""

    def init(self, setup: Setup, below: Space) -> tuple[ReadoutState, Space]:
        """One Gaussian coordinate r for every site."""
        sites = math.prod(below.sites)
        side = setup.side(setup.basis(setup.feature_tol), below.population, images=1, matrices=sites)
        return ReadoutState(side, jax.tree.map(jnp.asarray, setup.gamma0)), Space(None)

    def forward(self, state: ReadoutState, signal: Signal) -> tuple[ReadoutState, Fields, WeightTrace]:
        """f = <z^L phi(h) - r phi(u)> / gamma0 (P,): the second term has mean zero and removes most noise."""
        side, shape = state.side, (len(state.side.Z), state.side.Z.shape[-1])
        phi, mean_free = (linear(lambda each: each.reshape(-1, *shape), each) for each in signal)
        W, Z = linear(lambda each: each.reshape(shape), side.W), side.Z.reshape(shape)
        basis, F = represent(side.basis, signal.value)
        f = mean_over_particles((W - Z) * phi + (phi - mean_free) * Z) * (1 / math.sqrt(shape[0]))
        return state._replace(side=side._replace(basis=basis)), f / state.gamma0, WeightTrace(phi=signal.value, F=F)

    def backward(
        self, state: ReadoutState, chi: Fields, trace: WeightTrace
    ) -> tuple[ReadoutState, Fields, WeightTrace]:
        """z = chi z^L: chi (P,) is one for plain gradients, Delta for those that carry the error signal."""
        G = linear(lambda values: values[:, None].astype(state.side.Z.dtype), chi)
        sites = sites_of(trace.phi)
        learned = linear(lambda each: each.reshape(1, -1), state.side.W)
        z = spread((G * self._scale(sites)) @ learned, len(leading(chi)), sites)
        return state, z, trace._replace(G=G)

    def update(self, state: ReadoutState, trace: WeightTrace, rate: Fields) -> ReadoutState:
        """z^L += sum_mu rate_mu chi_mu phi_mu."""
        phi = linear(lambda each: each.reshape(len(each), -1), trace.phi)
        column = in_rows(rate, len(leading(phi)))
        return state._replace(side=learn(state.side, column, trace.G * self._scale(sites_of(trace.phi)), phi))

    def tangent(self, trace: WeightTrace, other: WeightTrace) -> Fields:
        """Phi^L, with sites their mean."""
        up = all_to_one(sites_of(trace.F)).up
        one, two = ((gathered(each.F, up), each.G) for each in (trace, other))
        return products(one, two, len(leading(trace.F)))

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, LazyWeights]:
        """The mean over sites."""
        h = lazy.over_sites(kernel) / math.prod(lazy.sites_of(kernel))
        return h, LazyWeights(phi=kernel, h=h)

    def lazy_backward(self, kernel: np.ndarray, trace: LazyWeights) -> tuple[np.ndarray, np.ndarray, LazyWeights]:
        """Every site's r is independent of the others'."""
        sites = lazy.sites_of(trace.phi)
        n = math.prod(sites)
        z = np.reshape(kernel[:, None, :, None] * np.eye(n)[:, None] / n, trace.phi.shape)
        return z, kernel * trace.h, trace._replace(g=kernel)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """w (sites N,) from N(0, 1)."""
        return jax.random.normal(key, (math.prod(shape),)), ()

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """w . x / (sqrt(sites) N); the division by gamma0 belongs to the network."""
        x = tape("in", x)
        return tape("out", x.reshape(len(x), -1) @ params / (math.sqrt(math.prod(x.shape[1:-1])) * x.shape[-1]))

    @staticmethod
    def _scale(sites: tuple[int, ...]) -> float:
        return 1 / math.sqrt(math.prod(sites))
