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
from kernelfield.layers.base import Setup, Signal, Space, Tape, WeightTrace, in_rows, products, sites_of
from kernelfield.layers.lazy import LazyWeights
from kernelfield.layers.scaled import Scaled
from kernelfield.layers.wiring import all_to_one, gathered, spread


class ReadoutState(NamedTuple):
    """The side of the C readout vectors w seen from the last population, Z and W = w (C, n, S); and gamma0."""

    side: Side
    gamma0: Any


@dataclass(frozen=True)
class Readout(Scaled):
    """f = w . phi / (gamma0 N); with n sites, each with a w of its own, n^{-1/2} sum_a w_a . phi_a / (gamma0 N).

    A network of several outputs has a w for each.

    Args:
        scale, multiplies: see `Scaled`.
    """

    def init(self, setup: Setup, below: Space) -> tuple[ReadoutState, Space]:
        """One Gaussian coordinate r for every site and output."""
        if below.width != 1:
            raise ValueError(f"widths are relative to that of the last hidden layer, which is 1, got {below.width:g}")
        basis, sites = setup.feature_basis(sent=False), math.prod(below.sites)
        side = setup.side(basis, below.population, sites, setup.outputs, scale=self.scale, gain=self.gain)
        return ReadoutState(side, jax.tree.map(jnp.asarray, setup.gamma0)), Space(None)

    def forward(self, state: ReadoutState, signal: Signal) -> tuple[ReadoutState, Fields, WeightTrace]:
        """f = <w phi(h) - r phi(u)> / gamma0 (P, C): the second term has mean zero and removes most noise."""
        side, (outputs, sites, particles) = state.side, state.side.Z.shape
        phi, mean_free = (linear(lambda each: each.reshape(len(each), -1), each) for each in signal)
        W, r = (linear(lambda each: each.reshape(outputs, -1), each) for each in (side.W, side.scale * side.Z))
        basis, F = represent(side.basis, signal.value)
        f = (phi @ (W - r).T + (phi - mean_free) @ r.T) * (1 / (particles * math.sqrt(sites)))
        return state._replace(side=side._replace(basis=basis)), f / state.gamma0, WeightTrace(phi=signal.value, F=F)

    def backward(
        self, state: ReadoutState, chi: Fields, trace: WeightTrace
    ) -> tuple[ReadoutState, Fields, WeightTrace]:
        """z = sum_c chi_c w_c: chi (P, C) is Delta for gradients that carry the error signal, else of one output."""
        G = linear(lambda values: values.astype(state.side.Z.dtype), chi)
        sites = sites_of(trace.phi)
        w = linear(lambda each: each.reshape(len(state.side.Z), -1), state.side.W)
        z = spread((G * self._scale(sites)) @ w, len(leading(chi)), sites)
        return state, z, trace._replace(G=G)

    def update(self, state: ReadoutState, trace: WeightTrace, rate: Fields) -> ReadoutState:
        """w_c += sum_mu rate_mu chi_{mu c} phi_mu."""
        phi = linear(lambda each: each.reshape(len(each), -1), trace.phi)
        column, G = in_rows(rate, len(leading(phi))), trace.G * self._scale(sites_of(trace.phi))
        return state._replace(side=learn(state.side, column, G, phi, 1))

    def tangent(self, state: ReadoutState, trace: WeightTrace, other: WeightTrace) -> Fields:
        """Phi^L of every output, with sites their mean."""
        up = all_to_one(sites_of(trace.F)).up
        one, two = ((gathered(each.F, up), each.G) for each in (trace, other))
        return products(one, two, len(leading(trace.F))) * self.gain

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, LazyWeights]:
        """The mean over sites, without the scale of w, which no field knows."""
        h = lazy.over_sites(kernel) / math.prod(lazy.sites_of(kernel))
        return h, LazyWeights(phi=kernel, h=h)

    def lazy_backward(self, kernel: np.ndarray, trace: LazyWeights) -> tuple[np.ndarray, np.ndarray, LazyWeights]:
        """Every site's r is independent of the others'."""
        sites = lazy.sites_of(trace.phi)
        n = math.prod(sites)
        z = np.reshape(self.scale**2 * kernel[:, None, :, None] * np.eye(n)[:, None] / n, trace.phi.shape)
        return z, self.gain * kernel * trace.h, trace._replace(g=kernel)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """w (sites N,); for C outputs `Finite` makes it (C, sites N)."""
        return self.drawn(key, (math.prod(shape),)), ()

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """w . x / (sqrt(sites) N) of every w, (P,) or (P, outputs); the division by gamma0 belongs to the network."""
        x = tape("in", x)
        f = x.reshape(len(x), -1) @ params.T / (math.sqrt(math.prod(x.shape[1:-1])) * x.shape[-1])
        return tape("out", self.multiplied(f))

    @staticmethod
    def _scale(sites: tuple[int, ...]) -> float:
        return 1 / math.sqrt(math.prod(sites))
