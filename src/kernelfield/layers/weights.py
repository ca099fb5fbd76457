"""Weight layers between two populations: fully connected, and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine import infinite_matrix
from kernelfield.engine.infinite_matrix import InfiniteMatrix, learn
from kernelfield.engine.series import Fields, leading
from kernelfield.engine.slabs import combination
from kernelfield.engine.visitors import Visited, visit
from kernelfield.layers import lazy
from kernelfield.layers.base import (
    Setup,
    Signal,
    Sites,
    Space,
    Tape,
    WeightTrace,
    flat,
    in_rows,
    products,
    sites_of,
)
from kernelfield.layers.lazy import LazyWeights
from kernelfield.layers.scaled import Scaled
from kernelfield.layers.wiring import Padding, Wiring, all_to_one, convolution, gathered, spread


@dataclass(frozen=True, kw_only=True)
class Weights(Scaled):
    """h_a = n^{-1/2} sum_j W_j phi_{a + j} / sqrt(N): n infinite matrices, wired between sites.

    Args:
        scale, multiplies: see `Scaled`.
        width: of the layer that the weights make, relative to that of the last hidden layer.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.width > 0:
            raise ValueError(f"width must be above 0, got {self.width}")

    def wiring(self, sites: Sites) -> Wiring:
        """How sites below are wired to sites above."""
        raise NotImplementedError

    def init(self, setup: Setup, below: Space) -> tuple[InfiniteMatrix, Space]:
        """Infinite matrices from `below` to a new population."""
        wiring, above, ratio = self.wiring(below.sites), setup.population(), self.width / below.width
        lower = setup.feature_basis(sent=True) if below.population else None
        upper = setup.gradient_basis(sent=lower is not None)
        matrix = InfiniteMatrix(
            below=lower
            and setup.side(
                lower,
                below.population,
                upper,
                wiring.places,
                scale=self.scale * math.sqrt(ratio),
                response=math.sqrt(ratio),
                gain=self.gain * ratio,
            ),
            above=setup.side(
                upper,
                above,
                lower or below.channels,
                wiring.places,
                grows=True,  # inputs outside the span of the data may come
                scale=self.scale,
                response=1 / math.sqrt(ratio),
                gain=self.gain,
            ),
        )
        return matrix, Space(above, wiring.above, width=self.width)

    def forward(self, state: Any, signal: Any) -> tuple[Any, Signal, WeightTrace]:
        """h = F W_F and u = scale F Z_u, F gathered from the sites that each site sees.

        The state is an InfiniteMatrix, or one that is `Visited`.
        """
        phi = signal.value
        wiring, samples = self.wiring(sites_of(phi)), len(leading(phi))
        if isinstance(state, Visited):
            state, F, *up = visit(state, phi, lambda coordinates: gathered(coordinates, wiring.up))
            return state, Signal(*(spread(rows, samples, wiring.above) for rows in up)), WeightTrace(phi=phi, F=F)
        state, F = infinite_matrix.forward(state, phi)
        seen = gathered(F, wiring.up)
        up = (combination(seen, images, state.features) for images in (state.above.W, state.above.Z))
        h, u = (spread(rows, samples, wiring.above) for rows in up)
        return state, Signal(h, state.above.scale * u), WeightTrace(phi=phi, F=F)

    def backward(
        self, state: InfiniteMatrix, chi: Fields, trace: WeightTrace
    ) -> tuple[InfiniteMatrix, Fields, WeightTrace]:
        """z = G W_B, G gathered from the sites that see each site; nothing goes down to data."""
        state, G = infinite_matrix.backward(state, chi)
        trace = trace._replace(g=chi, G=G)
        if state.below is None:
            return state, None, trace
        wiring = self.wiring(sites_of(trace.phi))
        z = combination(gathered(G, wiring.down), state.below.W, state.gradients)
        return state, spread(z, len(leading(chi)), wiring.below), trace

    def update(self, state: InfiniteMatrix, trace: WeightTrace, rate: Fields) -> InfiniteMatrix:
        """W_F += sum_mu rate_mu F_mu^T g_mu and W_B += sum_mu rate_mu G_mu^T phi_mu, summed over sites."""
        wiring = self.wiring(sites_of(trace.F))

        def learned(side: Any, coordinates: Fields, table: np.ndarray, x: Fields, size: Any) -> Any:
            rows = flat(x)
            return learn(side, in_rows(rate, len(leading(rows))), gathered(coordinates, table), rows, size)

        return state._replace(
            above=learned(state.above, trace.F, wiring.up, trace.g, state.features),
            below=state.below and learned(state.below, trace.G, wiring.down, trace.phi, state.gradients),
        )

    def tangent(self, state: InfiniteMatrix, trace: WeightTrace, other: WeightTrace) -> Fields:
        """G^{l+1} Phi^l, summed over pairs of sites above."""
        up = self.wiring(sites_of(trace.F)).up
        one, two = ((gathered(each.F, up), flat(each.G)) for each in (trace, other))
        return products(one, two, len(leading(trace.F))) * (self.gain * self.width)

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, LazyWeights]:
        """<h_a h_b> = scale^2 n^{-1} sum_j <phi_{a + j} phi_{b + j}>."""
        wiring = self.wiring(lazy.sites_of(kernel))
        h = lazy.mean_over_places(kernel, wiring.up, wiring.above)
        return self.scale**2 * h, LazyWeights(phi=kernel, h=h)

    def lazy_backward(self, kernel: np.ndarray, trace: LazyWeights) -> tuple[np.ndarray, np.ndarray, LazyWeights]:
        """<z_a z_b> = scale^2 n^{-1} sum_j <g_{a - j} g_{b - j}>; the tangent kernel sums <g_a g_b> <h_a h_b>.

        Kernels that go down are sums over neurons, which widths do not change, not means.
        """
        wiring = self.wiring(lazy.sites_of(trace.phi))
        z = self.scale**2 * lazy.mean_over_places(kernel, wiring.down, wiring.below)
        return z, self.gain * lazy.summed(kernel * trace.h), trace._replace(g=kernel / self.width)


@dataclass(frozen=True)
class Dense(Weights):
    """Fully connected: h = W phi / sqrt(N), and with sites n^{-1/2} sum_a W_a phi_a / sqrt(N), without sites above.

    Args:
        scale, multiplies, width: see `Weights`.
    """

    def wiring(self, sites: Sites) -> Wiring:
        """Every site has its own weights."""
        return all_to_one(sites)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """W (neurons, inputs)."""
        weights = self.drawn(key, (neurons := round(self.width * width), math.prod(shape)))
        return weights, (neurons,)

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """W x / sqrt(inputs)."""
        x = tape("in", x).reshape(len(x), -1)
        return tape("out", self.multiplied(x @ params.T / jnp.sqrt(x.shape[1])))


@dataclass(frozen=True)
class Conv(Weights):
    """A convolution over the sites of a sequence or an image: h_a = n^{-1/2} sum_j W_j phi_{a stride + j} / sqrt(N).

    Args:
        kernel: sites of its window along each axis; a window of even size reaches further up.
        stride: between outputs, of which there are ceil(sites / stride) along each axis.
        padding: "zero": what is outside adds nothing; "circular": the other end follows.
        scale, multiplies, width: see `Weights`.
    """

    kernel: int = 3
    stride: int = 1
    padding: Padding = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.stride < 1:
            raise ValueError(f"kernel and stride must be at least 1, got {self.kernel} and {self.stride}")
        if self.padding not in ("zero", "circular"):
            raise ValueError(f"padding must be 'zero' or 'circular', got {self.padding!r}")

    def wiring(self, sites: Sites) -> Wiring:
        """A window around every stride-th site."""
        if not sites:
            raise ValueError("Conv needs inputs with sites: X of shape (P, positions, C) or (P, rows, columns, C)")
        return convolution(sites, (self.kernel,) * len(sites), self.stride, self.padding)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """W (places channels, neurons)."""
        *sites, channels = shape
        weights = self.drawn(key, (self.kernel ** len(sites) * channels, neurons := round(self.width * width)))
        return weights, (*self.wiring(tuple(sites)).above, neurons)

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """The convolution / sqrt(n channels)."""
        before, axes = (self.kernel - 1) // 2, range(1, x.ndim - 1)
        x = tape("in", x)
        edges = [(0, 0), *[(before, self.kernel - 1 - before)] * len(axes), (0, 0)]
        x = jnp.pad(x, edges, mode="constant" if self.padding == "zero" else "wrap")
        for axis in axes:  # windows, one axis after the other: (..., sites, ..., channels) -> (..., places channels)
            last = x.shape[axis] - self.kernel + 1
            shifted = [lax.slice_in_dim(x, j, j + last, self.stride, axis) for j in range(self.kernel)]
            x = jnp.concatenate(shifted, axis=-1)
        return tape("out", self.multiplied(x @ params / math.sqrt(len(params))))
