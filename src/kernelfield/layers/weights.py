"""Weight layers between two populations: fully connected, and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.infinite_matrix import (
    Images,
    InfiniteMatrix,
    add_directions,
    change_images,
    combine,
    learn,
    send,
)
from kernelfield.engine.series import Fields
from kernelfield.engine.wiring import Sites, Wiring, gather, wire_all, wire_windows
from kernelfield.layers import kernels
from kernelfield.layers.base import Layer, Mass, Setup, Signal, Space, Tape, WeightTrace

State = InfiniteMatrix | Images
Multiplies = Literal["initialization", "weight"]
Padding = Literal["zero", "circular"]


@dataclass(frozen=True, kw_only=True)
class Scaled(Layer):
    """Weights with a scale, and a learning rate of their own.

    Args:
        scale: sigma_w, by default of the initialization N(0, sigma_w^2).
        multiplies: what `scale` multiplies: the "initialization", or the "weight" in use, which starts as N(0, 1); what
            is learned then moves fields sigma_w^2 times as far.
        relative_rate: learning rate of these weights by gradient descent, relative to that of training. Adam moves
            them by its square root.
        learns: whether the loss moves these weights; if not, they stay random, but for weight decay and noise, which
            act on all weights.
    """

    scale: float = 1.0
    multiplies: Multiplies = "initialization"
    relative_rate: float = 1.0
    learns: bool = True

    @property
    def is_linear(self) -> bool:
        """True."""
        return True

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, got {self.scale}")
        if self.multiplies not in ("initialization", "weight"):
            raise ValueError(f"multiplies must be 'initialization' or 'weight', got {self.multiplies!r}")
        check_rate(self.relative_rate)

    @property
    def gain(self) -> float:
        """The factor of the learned part, zero for weights that do not learn."""
        return self.speed if self.learns else 0.0

    @property
    def speed(self) -> float:
        """The factor that the learned part has, or would have."""
        return self.relative_rate * (self.scale**2 if self.multiplies == "weight" else 1.0)

    @property
    def multiplier(self) -> float:
        """The multiplier of weights of finite width in use, which all learn at the rate of training."""
        return math.sqrt(self.relative_rate) * (self.scale if self.multiplies == "weight" else 1.0)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Returns weights of finite width at initialization."""
        weights, std = jax.random.normal(key, shape), self.scale / self.multiplier
        return weights if std == 1 else std * weights

    def hold(self, params: Array) -> Array:
        """Returns weights of finite width, without derivatives if they do not learn."""
        return params if self.learns else lax.stop_gradient(params)

    def multiply(self, h: Array) -> Array:
        """Returns the product h of weights of finite width, times their multiplier."""
        return h if self.multiplier == 1 else self.multiplier * h

    def rest(self, state: Any) -> Any:
        """Returns the state as these weights learn: with the factor zero of what is learned, or as it is."""
        if self.learns:
            return state
        if getattr(state, "learned", None) is not None:
            state = replace(state, learned=replace(state.learned, gain=0 * state.learned.gain))
        return change_images(lambda images: images._replace(gain=0 * images.gain), state)


def check_rate(relative_rate: float) -> None:
    """Raises ValueError unless a relative rate is a number above 0."""
    if not 0 < relative_rate < math.inf:
        raise ValueError(f"relative_rate must be above 0, got {relative_rate}")


@dataclass(frozen=True, kw_only=True)
class Weights(Scaled):
    """h_a = n^{-1/2} sum_j W_j phi_{a + j} / sqrt(N): n infinite matrices, wired between sites.

    Args:
        scale, multiplies, relative_rate, learns: see `Scaled`.
        width: of the layer that the weights make, all its neurons, relative to that of the last hidden layer.
        components: of every particle above, which a `Particlewise` layer mixes: 3 d for the query, key and value of a
            head of attention of dimension d.
    """

    width: float = 1.0
    components: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.width > 0:
            raise ValueError(f"width must be above 0, got {self.width}")
        if self.components < 1:
            raise ValueError(f"components must be at least 1, got {self.components}")

    def neurons(self, width: int) -> int:
        """Returns the number of neurons that the weights make, where the last hidden layer has `width`."""
        particles = round(self.width * width / self.components)
        if not particles:
            raise ValueError(f"width must be larger, for one particle of {self.components} components, got {width}")
        return self.components * particles

    def space_above(self, below: Space) -> Space:
        """Returns the sites, the width and the components of the layer that the weights make."""
        sites = self.wiring(below.sites).above
        return Space(None, sites, width=self.width, components=self.components, fork=below.fork)

    def wiring(self, sites: Sites) -> Wiring:
        """Returns how sites below are wired to sites above."""
        raise NotImplementedError

    def init(self, setup: Setup, below: Space) -> tuple[State, Space]:
        """Returns infinite matrices from `below` to a new population; from data, the images of their coordinates."""
        wiring = self.wiring(below.sites)
        above = self.space_above(below)
        above = above._replace(population=setup.add_population(above.width, above.components))
        if below.population is not None:
            matrix = setup.make_matrix(below, above, wiring.places, self.scale, self.speed)
            if setup.direct:
                matrix = replace(matrix, down=matrix.down._replace(feedback=setup.make_feedback(below)))
            return self.rest(matrix), above
        # inputs outside the span of the data may come later
        rows = below.channels - below.outside
        lane = above.population.add_lane(wiring.places, rows, True, below.channels, self.components)
        images = setup.make_images(lane, self.scale, self.speed, wiring.places * below.channels)
        return self.rest(images), above

    def forward(self, state: State, x: Fields, mass: Mass) -> tuple[State, Fields, WeightTrace]:
        """Returns h of every site above."""
        wiring = self.wiring(x.shape[1:-1])
        if isinstance(state, Images):  # data are their own coordinates
            F, h = x, combine(x, state.D, wiring.up)
        else:
            state, F = add_directions(state, x, mass)
            h = send(state, x, F, wiring.up)
        return state, h.reshape(x.shape[0], *wiring.above, -1), WeightTrace(phi=x, F=F)

    def backward(
        self, state: State, chi: Fields, trace: WeightTrace, mass: Mass, signal: Signal
    ) -> tuple[State, Fields, WeightTrace]:
        """Returns z of every site below; nothing goes down to data.

        Direct feedback is z = sum_c chi_c v_c; where activities stand for gradients nothing goes down.
        """
        if isinstance(state, Images):
            return state, None, trace._replace(g=chi)
        wiring = self.wiring(trace.phi.shape[1:-1])
        transpose, G = add_directions(state.T, chi, mass)
        if signal.activity is not None:
            z = jnp.zeros_like(trace.phi)
        elif (v := state.down.feedback) is not None:
            z = signal.chi.astype(v.dtype) @ v.reshape(len(v), -1)
        else:
            z = send(transpose, chi, G, wiring.down)
        return transpose.T, z.reshape(chi.shape[0], *wiring.below, -1), trace._replace(g=chi, G=G)

    def update(self, state: State, trace: WeightTrace, rate: Fields) -> State:
        """Returns M_a += sum_mu rate_mu F_mu^T g_mu and M_b += sum_mu rate_mu G_mu^T phi_mu, summed over sites."""
        wiring = self.wiring(trace.F.shape[1:-1])
        if isinstance(state, Images):
            return learn(state, rate, gather(trace.F, wiring.up), trace.g)
        if state.learned is not None:
            return replace(state, learned=state.learned.collect(rate, trace.phi, trace.g, wiring.up))
        up = learn(state.up, rate, gather(trace.F, wiring.up), trace.g)
        down = learn(state.down, rate, gather(trace.G, wiring.down), trace.phi)
        return replace(state, up=up, down=down)

    def tangent(self, one: kernels.Pair, other: kernels.Pair) -> Array:
        """Returns G^{l+1} Phi^l, summed over pairs of sites above."""
        return kernels.sum_products(one, other, self.wiring(one.F.shape[1:-1]).up) * (self.gain * self.width)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, WeightTrace]:
        """Returns <h_a h_b> = scale^2 n^{-1} sum_j <phi_{a + j} phi_{b + j}>."""
        wiring = self.wiring(kernels.sites_of(kernel))
        h = kernels.average_places(kernel, wiring.up, wiring.above)
        return self.scale**2 * h, WeightTrace(phi=kernel, F=h)

    def lazy_backward(
        self, kernel: np.ndarray, trace: WeightTrace, seed: int
    ) -> tuple[np.ndarray, np.ndarray, WeightTrace]:
        """Returns <z_a z_b> = scale^2 n^{-1} sum_j <g_{a - j} g_{b - j}>; the tangent kernel sums <g_a g_b> <h_a h_b>.

        Kernels that go down are sums over neurons, which widths do not change, not means.
        """
        wiring = self.wiring(kernels.sites_of(trace.phi))
        z = self.scale**2 * kernels.average_places(kernel, wiring.down, wiring.below)
        return z, self.gain * kernels.sum_sites(kernel * trace.F), trace._replace(g=kernel / self.width)


@dataclass(frozen=True)
class Dense(Weights):
    """Fully connected: h = W phi / sqrt(N), and with sites n^{-1/2} sum_a W_a phi_a / sqrt(N), without sites above.

    Args:
        scale, multiplies, relative_rate, learns, width, components: see `Weights`.
    """

    def wiring(self, sites: Sites) -> Wiring:
        """Returns weights of its own for every site."""
        return wire_all(sites)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns W (neurons, inputs)."""
        weights = self.draw(key, (neurons := self.neurons(width), math.prod(shape)))
        return weights, (neurons,)

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns W x / sqrt(inputs)."""
        x = tape("in", x).reshape(len(x), -1)
        return tape("out", self.multiply(x @ self.hold(params).T / jnp.sqrt(x.shape[1])))

    def fan_in(self, params: Array) -> int:
        """Returns the number of inputs."""
        return params.shape[1]


@dataclass(frozen=True)
class Conv(Weights):
    """A convolution over the sites of a sequence or an image: h_a = n^{-1/2} sum_j W_j phi_{a stride + j} / sqrt(N).

    Args:
        kernel: sites of its window along each axis; a window of even size reaches further up.
        stride: between outputs, of which there are ceil(sites / stride) along each axis.
        padding: "zero": what is outside adds nothing; "circular": the other end follows.
        scale, multiplies, relative_rate, learns, width, components: see `Weights`.
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
        """Returns a window around every stride-th site."""
        if not sites:
            raise ValueError("Conv needs inputs with sites: X of shape (P, positions, C) or (P, rows, columns, C)")
        return wire_windows(sites, (self.kernel,) * len(sites), self.stride, self.padding)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns W (places channels, neurons)."""
        *sites, channels = shape
        weights = self.draw(key, (self.kernel ** len(sites) * channels, neurons := self.neurons(width)))
        return weights, (*self.wiring(tuple(sites)).above, neurons)

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns the convolution / sqrt(n channels)."""
        before, axes = (self.kernel - 1) // 2, range(1, x.ndim - 1)
        x = tape("in", x)
        edges = [(0, 0), *[(before, self.kernel - 1 - before)] * len(axes), (0, 0)]
        x = jnp.pad(x, edges, mode="constant" if self.padding == "zero" else "wrap")
        for axis in axes:  # windows, one axis after the other: (..., sites, ..., channels) -> (..., places channels)
            last = x.shape[axis] - self.kernel + 1
            shifted = [lax.slice_in_dim(x, j, j + last, self.stride, axis) for j in range(self.kernel)]
            x = jnp.concatenate(shifted, axis=-1)
        return tape("out", self.multiply(x @ self.hold(params) / math.sqrt(len(params))))

    def fan_in(self, params: Array) -> int:
        """Returns the number of channels times places of the window."""
        return len(params)
