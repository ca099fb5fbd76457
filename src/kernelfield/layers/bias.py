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

    def init(self, setup: Setup, below: Space) -> tuple[Side, Space]:
        """One Gaussian coordinate."""
        return setup.side(setup.basis(setup.gradient_tol), below.population, images=1), below

    def forward(self, state: Side, signal: Signal) -> tuple[Side, Signal, BiasTrace]:
        """h + sigma_b Z + m, and u + sigma_b Z."""
        scaled, axes = self.scale * state.Z[0, 0], leading(signal.value).ndim - 1
        b = linear(lambda each: each.reshape(*[1] * axes, -1), state.W - state.Z + self.scale * state.Z)
        return state, Signal(signal.value + b, signal.gaussian + scaled), BiasTrace()

    def backward(self, state: Side, chi: Fields, trace: BiasTrace) -> tuple[Side, Fields, BiasTrace]:
        """What came goes down."""
        basis, G = represent(state.basis, chi)
        return state._replace(basis=basis), chi, BiasTrace(chi, G)

    def update(self, state: Side, trace: BiasTrace, rate: Fields) -> Side:
        """m += sum_mu rate_mu g_mu, summed over sites."""
        rows = flat(trace.g)
        count = len(leading(rows))
        return learn(state, in_rows(rate, count), jnp.ones((count, 1), state.Z.dtype), rows)

    def tangent(self, trace: BiasTrace, other: BiasTrace) -> Fields:
        """G, summed over pairs of sites."""
        samples = len(leading(trace.G))
        one, two = (flat(each.G) for each in (trace, other))
        ones = jnp.ones((len(leading(one)), 1), leading(one).dtype)
        return products((ones, one), (ones, two), samples)

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
