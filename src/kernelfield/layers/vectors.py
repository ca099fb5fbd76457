"""Weights that are vectors: one number for each neuron. They are biases, gains, and the readout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.infinite_matrix import Images, learn
from kernelfield.engine.series import Fields, lowest_order
from kernelfield.engine.wiring import wire_all
from kernelfield.layers import kernels
from kernelfield.layers.base import Layer, Mass, Setup, Signal, Space, Tape, WeightTrace
from kernelfield.layers.weights import Scaled, check_rate


class NeuronWeights(Layer):
    """One weight for each neuron, the same at all sites, trained like every weight."""

    scale: float = 0.0  #: of the weights at initialization
    relative_rate: float = 1.0  #: learning rate, relative to that of training

    def __post_init__(self) -> None:
        check_rate(self.relative_rate)

    @property
    def multiplier(self) -> float:
        """The multiplier of weights of finite width in use, which all learn at the rate of training."""
        return math.sqrt(self.relative_rate)

    @property
    def keeps_gaussian(self) -> bool:
        """True."""
        return True

    def init(self, setup: Setup, below: Space) -> tuple[Images, Space]:
        """Returns one Gaussian coordinate."""
        lane = below.population.add_lane(1, 1, components=below.components)
        return setup.make_images(lane, self.scale, self.relative_rate), below

    def update(self, state: Images, trace: Any, rate: Fields) -> Images:
        """Returns the weights plus sum_mu rate_mu g_mu, summed over sites."""
        ones = jnp.ones((math.prod(trace.g.shape[:-1]), 1), state.K.dtype)
        return learn(state, rate, ones, trace.g)

    def tangent(self, one: kernels.Pair, other: kernels.Pair) -> Array:
        """Returns the kernel of g, summed over pairs of sites."""
        G, G2 = (pair.G.reshape(-1, pair.G.shape[-1]) for pair in (one, other))
        samples = len(one.G)
        sites = len(G) // samples
        return self.relative_rate * (G @ G2.T).reshape(samples, sites, -1, sites).sum((1, 3))


@dataclass(frozen=True)
class Bias(NeuronWeights):
    """h + b, with b from N(0, scale^2) at initialization.

    Args:
        scale: sigma_b.
        skips_padding: whether sites at which all of h is zero, the padding of sequences, stay zero.
        relative_rate: learning rate of these biases, relative to that of training; see `Scaled`.
    """

    scale: float = 0.0
    skips_padding: bool = False
    relative_rate: float = 1.0

    @property
    def is_linear(self) -> bool:
        """True, where no site is skipped."""
        return not self.skips_padding

    def forward(self, state: Images, x: Fields, mass: Mass) -> tuple[Images, Fields, WeightTrace]:
        """Returns h + b."""
        b = _at_all_sites(state, x)
        if self.skips_padding:
            b = b * jnp.any(lowest_order(x) != 0, axis=-1, keepdims=True)
        return state, x + b, WeightTrace()

    def backward(
        self, state: Images, chi: Fields, trace: WeightTrace, mass: Mass, signal: Signal
    ) -> tuple[Images, Fields, WeightTrace]:
        """Returns the gradients that came, which go down."""
        return state, chi, WeightTrace(g=chi)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        """Returns the kernel plus sigma_b^2."""
        if not self.skips_padding:
            return kernel + self.scale**2, None
        rows = math.isqrt(kernel.size)
        present = np.diag(kernel.reshape(rows, rows)) > 0
        return kernel + self.scale**2 * np.outer(present, present).reshape(kernel.shape), None

    def lazy_backward(self, kernel: np.ndarray, trace: None, seed: int) -> tuple[np.ndarray, np.ndarray, None]:
        """Returns the kernel that came, which goes down; the tangent kernel sums it over sites."""
        return kernel, self.relative_rate * kernels.sum_sites(kernel), None

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns b (channels,) from N(0, scale^2)."""
        return self.scale / self.multiplier * jax.random.normal(key, shape[-1:]), shape

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns x + b."""
        b = params if self.multiplier == 1 else self.multiplier * params
        return x + b * jnp.any(x != 0, axis=-1, keepdims=True) if self.skips_padding else x + b


class GainTrace(NamedTuple):
    """The field below a gain, and what moves the gain, as at other weights."""

    x: Any
    weights: WeightTrace = WeightTrace()


@dataclass(frozen=True)
class Gain(NeuronWeights):
    """(1 + a) h, with a that starts at zero: the gain of `LayerNorm` and `RMSNorm`.

    Args:
        relative_rate: learning rate of these gains, relative to that of training; see `Scaled`.
    """

    relative_rate: float = 1.0

    def forward(self, state: Images, x: Fields, mass: Mass) -> tuple[Images, Fields, GainTrace]:
        """Returns (1 + a) h."""
        return state, x + _at_all_sites(state, x) * x, GainTrace(x)

    def backward(
        self, state: Images, chi: Fields, trace: GainTrace, mass: Mass, signal: Signal
    ) -> tuple[Images, Fields, GainTrace]:
        """Returns (1 + a) times the gradients that came."""
        return state, chi + _at_all_sites(state, chi) * chi, trace._replace(weights=WeightTrace(g=chi * trace.x))

    def update(self, state: Images, trace: GainTrace, rate: Fields) -> Images:
        """Returns a += sum_mu rate_mu g_mu h_mu, summed over sites."""
        return super().update(state, trace.weights, rate)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel, as the gain is one at initialization; the trace is the kernel too."""
        return kernel, kernel

    def lazy_backward(
        self, kernel: np.ndarray, trace: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the kernel that came; the tangent kernel sums <g g> <h h> over sites."""
        return kernel, self.relative_rate * kernels.sum_sites(kernel * trace), trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns a = 0 (channels,)."""
        return jnp.zeros(shape[-1:]), shape

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns (1 + a) x."""
        return x * (1 + (params if self.multiplier == 1 else self.multiplier * params))


def _at_all_sites(state: Images, x: Fields) -> Fields:
    """Returns the weights (1, ..., S) as they meet a field x (P, *sites, S)."""
    return state.D.reshape(*[1] * (len(x.shape) - 1), -1)


@dataclass(frozen=True)
class Readout(Scaled):
    """f = w . phi / (gamma0 N); with n sites, each with a w of its own, n^{-1/2} sum_a w_a . phi_a / (gamma0 N).

    A network of several outputs has a w for each.

    Args:
        scale, multiplies, relative_rate, learns: see `Scaled`.
    """

    def init(self, setup: Setup, below: Space) -> tuple[Images, Space]:
        """Returns one Gaussian coordinate r for every site and output: (C, n, S)."""
        if below.width != 1:
            raise ValueError(f"widths are relative to that of the last hidden layer, which is 1, got {below.width:g}")
        lane = below.population.add_lane(setup.outputs, math.prod(below.sites), components=below.components)
        images = self.rest(setup.make_images(lane, self.scale, self.speed))
        if setup.direct:
            images = images._replace(feedback=setup.make_feedback(below))
        elif not setup.feedback.learns:
            images = images._replace(feedback=setup.make_feedback(below, setup.feedback.alignment, self.scale))
        return images, Space(None)

    def outputs(self, state: Images, phi: Fields, initial: Array) -> Fields:
        """Returns gamma0 f = <r (phi - phi(0))> + <m phi> (P, C), of features phi and `initial` phi(0) (P, *sites, S).

        The control variate <r phi(0)>, the output of the initial network, has mean zero. The difference is taken before
        the average: there rounding matters least.
        """
        C, sites, particles = state.K.shape
        learned = state.M.reshape(C, -1)
        phi, change = (features.reshape(features.shape[0], -1) for features in (phi, phi - initial))
        f = phi @ learned.T + change @ (state.scale * state.K.reshape(C, -1)).T
        return f * (1 / (particles * math.sqrt(sites)))

    def forward(self, state: Images, x: Fields, mass: Mass) -> tuple[Images, Fields, WeightTrace]:
        """Returns the features, from which `outputs` makes f."""
        return state, x, WeightTrace(phi=x)

    def backward(
        self, state: Images, chi: Fields, trace: WeightTrace, mass: Mass, signal: Signal
    ) -> tuple[Images, Fields, WeightTrace]:
        """Returns z = sum_c chi_c w_c, or of feedback; chi (P, C) is Delta for gradients that carry it, else one.

        Where activities stand for gradients nothing goes down.
        """
        G, (C, n, _) = chi.astype(state.K.dtype), state.K.shape
        w = state.D if state.feedback is None else state.feedback
        z = (G * (1 / math.sqrt(n))) @ w.reshape(C, -1)
        z = z if signal.activity is None else jnp.zeros_like(z)
        return state, z.reshape(chi.shape[0], *trace.phi.shape[1:]), trace._replace(G=G)

    def update(self, state: Images, trace: WeightTrace, rate: Fields) -> Images:
        """Returns w_c += sum_mu rate_mu chi_{mu c} phi_mu."""
        phi = trace.phi.reshape(trace.phi.shape[0], -1)
        return learn(state, rate, trace.G * (1 / math.sqrt(state.K.shape[1])), phi)

    def tangent(self, one: kernels.Pair, other: kernels.Pair) -> Array:
        """Returns Phi^L of every output, with sites their mean."""
        return kernels.sum_products(one, other, wire_all(one.F.shape[1:-1]).up) * self.gain

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, WeightTrace]:
        """Returns the mean over sites, without the scale of w, which no field knows."""
        h = kernels.sum_equal_sites(kernel) / math.prod(kernels.sites_of(kernel))
        return h, WeightTrace(phi=kernel, F=h)

    def lazy_backward(
        self, kernel: np.ndarray, trace: WeightTrace, seed: int
    ) -> tuple[np.ndarray, np.ndarray, WeightTrace]:
        """Returns the kernel of z = chi w: the r of every site is independent of the others'."""
        n = math.prod(kernels.sites_of(trace.phi))
        z = np.reshape(self.scale**2 * kernel[:, None, :, None] * np.eye(n)[:, None] / n, trace.phi.shape)
        return z, self.gain * kernel * trace.F, trace._replace(g=kernel)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns w (1, sites N); a network of C outputs has C such rows."""
        return self.draw(key, (1, math.prod(shape))), ()

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns w . x / (sqrt(sites) N), (P, C); the division by gamma0 belongs to the network."""
        x = tape("in", x)
        f = x.reshape(len(x), -1) @ self.hold(params).T / (math.sqrt(math.prod(x.shape[1:-1])) * x.shape[-1])
        return tape("out", self.multiply(f))
