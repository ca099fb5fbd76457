"""A bias: the same for every sample and site, one for each neuron."""

from __future__ import annotations

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
from kernelfield.layers.base import Setup, Signal, Simple, Space, Tape, flat, in_rows, products


class BiasState(NamedTuple):
    """The side of b seen from its population, b = side.W, and the population's width relative to the last one's."""

    side: Side
    width: Array


class BiasTrace(NamedTuple):
    """Gradients g (P, *sites, S) that reached a bias and their coordinates G."""

    g: Any = None
    G: Any = None


@dataclass(frozen=True)
class Bias(Simple):
    """h + b, with b from N(0, scale^2) at initialization, trained like every weight.

    Args:
        scale: sigma_b.
    """

    scale: float = 0.0

    def init(self, setup: Setup, below: Space) -> tuple[BiasState, Space]:
        """One Gaussian coordinate."""
        side = setup.side(setup.gradient_basis(sent=False), below.population, images=1, scale=self.scale)
        return BiasState(side, jnp.asarray(below.width, setup.dtype)), below

    def forward(self, state: BiasState, signal: Signal) -> tuple[BiasState, Signal, BiasTrace]:
        """h + b and u + sigma_b Z."""
        side, axes = state.side, leading(signal.value).ndim - 1
        b = linear(lambda each: each.reshape(*[1] * axes, -1), side.W)
        return state, Signal(signal.value + b, signal.gaussian + side.scale * side.Z[0, 0]), BiasTrace()

    def backward(self, state: BiasState, chi: Fields, trace: BiasTrace) -> tuple[BiasState, Fields, BiasTrace]:
        """What came goes down."""
        basis, G = represent(state.side.basis, chi)
        return state._replace(side=state.side._replace(basis=basis)), chi, BiasTrace(chi, G)

    def update(self, state: BiasState, trace: BiasTrace, rate: Fields) -> BiasState:
        """b += sum_mu rate_mu g_mu, summed over sites."""
        rows = flat(trace.g)
        count = len(leading(rows))
        ones = jnp.ones((count, 1), state.side.Z.dtype)
        return state._replace(side=learn(state.side, in_rows(rate, count), ones, rows, 1))

    def tangent(self, state: BiasState, trace: BiasTrace, other: BiasTrace) -> Fields:
        """G, summed over pairs of sites."""
        samples = len(leading(trace.G))
        one, two = (flat(each.G) for each in (trace, other))
        ones = jnp.ones((len(leading(one)), 1), leading(one).dtype)
        return products((ones, one), (ones, two), samples) * state.width

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, None]:
        """sigma_b^2 more."""
        return kernel + self.scale**2, None

    def lazy_backward(self, kernel: np.ndarray, trace: None) -> tuple[np.ndarray, np.ndarray, None]:
        """What came goes down; the tangent kernel sums it over sites."""
        return kernel, lazy.summed(kernel), None

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """b (channels,) / scale from N(0, 1), or zero."""
        return self.scale * jax.random.normal(key, shape[-1:]), shape

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """x + b."""
        return x + params
