"""The last weight layer: from the last population to the output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jax import Array

from kernelfield.engine.infinite_matrix import Images, learn
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import lazy
from kernelfield.layers.base import Pair, Setup, Space, Tape, WeightTrace, in_rows, products, sites_of
from kernelfield.layers.lazy import LazyWeights
from kernelfield.layers.scaled import Scaled
from kernelfield.layers.wiring import all_to_one, gathered, spread


@dataclass(frozen=True)
class Readout(Scaled):
    """f = w . phi / (gamma0 N); with n sites, each with a w of its own, n^{-1/2} sum_a w_a . phi_a / (gamma0 N).

    A network of several outputs has a w for each.

    Args:
        scale, multiplies: see `Scaled`.
    """

    def init(self, setup: Setup, below: Space) -> tuple[Images, Space]:
        """One Gaussian coordinate r for every site and output: (C, n, S)."""
        if below.width != 1:
            raise ValueError(f"widths are relative to that of the last hidden layer, which is 1, got {below.width:g}")
        images = setup.images(
            below.population, math.prod(below.sites), matrices=setup.outputs, sigma=self.scale, gain=self.gain
        )
        return images, Space(None)

    def outputs(self, state: Images, phi: Fields, initial: Array) -> Fields:
        """gamma0 f = <r (phi - phi(0))> + <m phi>, (P, C).

        The control variate <r phi(0)>, the output of the initial network, has mean zero. The difference is taken before
        the average: there rounding matters least.

        Args:
            state: of the readout.
            phi: features (P, *sites, S).
            initial: what they were at initialization.
        """
        C, sites, particles = state.K.shape
        learned = linear(lambda values: values.reshape(C, -1), state.M)
        phi, change = (linear(lambda values: values.reshape(len(values), -1), each) for each in (phi, phi - initial))
        f = phi @ learned.T + change @ (state.scale * state.K.reshape(C, -1)).T
        return f * (1 / (particles * math.sqrt(sites)))

    def forward(self, state: Images, x: Fields, mass: Array | None) -> tuple[Images, Fields, WeightTrace]:
        """What `outputs` are of."""
        return state, x, WeightTrace(phi=x)

    def backward(
        self, state: Images, chi: Fields, trace: WeightTrace, mass: Array | None
    ) -> tuple[Images, Fields, WeightTrace]:
        """z = sum_c chi_c w_c: chi (P, C) is Delta for gradients that carry the error signal, else of one output."""
        G = linear(lambda values: values.astype(state.K.dtype), chi)
        sites = sites_of(trace.phi)
        w = linear(lambda values: values.reshape(len(state.K), -1), state.D)
        z = spread((G * self._scale(sites)) @ w, len(leading(chi)), sites)
        return state, z, trace._replace(G=G)

    def update(self, state: Images, trace: WeightTrace, rate: Fields) -> Images:
        """w_c += sum_mu rate_mu chi_{mu c} phi_mu."""
        phi = linear(lambda values: values.reshape(len(values), -1), trace.phi)
        column, G = in_rows(rate, len(leading(phi))), trace.G * self._scale(sites_of(trace.phi))
        return learn(state, column, G, phi)

    def tangent(self, one: Pair, other: Pair) -> Array:
        """Phi^L of every output, with sites their mean."""
        up = all_to_one(sites_of(one.F)).up
        ours, theirs = ((gathered(each.F, up), each.G) for each in (one, other))
        return products(*ours, *theirs, len(one.F)) * self.gain

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
