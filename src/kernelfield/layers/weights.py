"""Weight layers between two populations: fully connected, and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.directions import coordinates
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, Way, beyond, learn, meet, way
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import lazy
from kernelfield.layers.base import (
    Pair,
    Setup,
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
from kernelfield.layers.wiring import Padding, Wiring, added, all_to_one, convolution, gathered, spread, through

State = InfiniteMatrix | Images


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

    def init(self, setup: Setup, below: Space) -> tuple[State, Space]:
        """Infinite matrices from `below` to a new population; from data, what they make of its coordinates."""
        wiring = self.wiring(below.sites)
        above = Space(setup.population(), wiring.above, width=self.width)
        numbers = {"sigma": self.scale, "gain": self.gain}
        if below.population is None:  # inputs outside the span of the data may come later
            places, fresh = wiring.places, below.channels - below.outside
            return setup.images(above.population, below.channels, fresh, places, True, **numbers), above
        return setup.matrix(below, above, wiring.places, **numbers), above

    def forward(self, state: State, x: Fields, mass: Array | None) -> tuple[State, Fields, WeightTrace]:
        """h, what every site sees through every matrix."""
        wiring = self.wiring(sites_of(x))
        if isinstance(state, Images):  # data are their own coordinates
            F, h = x, _combined(gathered(x, wiring.up), state)
        else:
            state, F = meet(state, x, mass, upward=True)
            h = _sent(way(state, upward=True), x, F, wiring.up)
        return state, spread(h, len(leading(x)), wiring.above), WeightTrace(phi=x, F=F)

    def backward(
        self, state: State, chi: Fields, trace: WeightTrace, mass: Array | None
    ) -> tuple[State, Fields, WeightTrace]:
        """z of every site below; nothing goes down to data."""
        if isinstance(state, Images):
            return state, None, trace._replace(g=chi)
        wiring = self.wiring(sites_of(trace.phi))
        state, G = meet(state, chi, mass, upward=False)
        z = _sent(way(state, upward=False), chi, G, wiring.down)
        return state, spread(z, len(leading(chi)), wiring.below), trace._replace(g=chi, G=G)

    def update(self, state: State, trace: WeightTrace, rate: Fields) -> State:
        """M_a += sum_mu rate_mu F_mu^T g_mu and M_b += sum_mu rate_mu G_mu^T phi_mu, summed over sites."""
        wiring = self.wiring(sites_of(trace.F))

        def learned(images: Images, coordinates: Fields, table: np.ndarray, x: Fields) -> Images:
            rows = flat(x)
            return learn(images, in_rows(rate, len(leading(rows))), gathered(coordinates, table), rows)

        if isinstance(state, Images):
            return learned(state, trace.F, wiring.up, trace.g)
        up, down = learned(state.up, trace.F, wiring.up, trace.g), learned(state.down, trace.G, wiring.down, trace.phi)
        return replace(state, up=up, down=down)

    def measured(self, state: State, trace: WeightTrace) -> WeightTrace:
        """The trace with coordinates in all directions that are known by now."""
        if isinstance(state, Images):
            return trace
        return trace._replace(F=coordinates(state.below, trace.phi), G=coordinates(state.above, trace.g))

    def tangent(self, one: Pair, other: Pair) -> Array:
        """G^{l+1} Phi^l, summed over pairs of sites above."""
        up = self.wiring(sites_of(one.F)).up
        ours, theirs = ((gathered(each.F, up), flat(each.G)) for each in (one, other))
        return products(*ours, *theirs, len(one.F)) * (self.gain * self.width)

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


def _combined(F: Fields, images: Images) -> Fields:
    """F D of coordinates F (rows, n k)."""
    return F @ linear(lambda values: values.reshape(-1, values.shape[-1]), images.D)


def _sent(sent: Way, x: Fields, F: Fields, table: np.ndarray) -> Fields:
    """W x of a field x (P, *sites, S) with coordinates F, through the table's wiring: (P B, S)."""
    h = _combined(gathered(F, table), sent.images) + added(beyond(sent, x, F), table) @ sent.receiver.q
    if sent.tail is None:
        return h
    return h + through(sent.act, sent.tail, x, table) * sent.images.scale


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
