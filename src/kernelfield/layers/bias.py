"""A bias: the same for every sample and site, one for each neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.infinite_matrix import Images, learn
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import lazy
from kernelfield.layers.base import Pair, Setup, Simple, Space, Tape, flat, in_rows, products


class BiasTrace(NamedTuple):
    """Gradients g (P, *sites, S) that reached a bias."""

    g: Any = None


@dataclass(frozen=True)
class Bias(Simple):
    """h + b, with b from N(0, scale^2) at initialization, trained like every weight.

    Args:
        scale: sigma_b.
    """

    scale: float = 0.0

    def init(self, setup: Setup, below: Space) -> tuple[Images, Space]:
        """One Gaussian coordinate."""
        return setup.images(below.population, 1, sigma=self.scale), below

    def forward(self, state: Images, x: Fields, mass: Array | None) -> tuple[Images, Fields, BiasTrace]:
        """h + b."""
        axes = leading(x).ndim - 1
        return state, x + linear(lambda values: values.reshape(*[1] * axes, -1), state.D), BiasTrace()

    def backward(
        self, state: Images, chi: Fields, trace: BiasTrace, mass: Array | None
    ) -> tuple[Images, Fields, BiasTrace]:
        """What came goes down."""
        return state, chi, BiasTrace(chi)

    def update(self, state: Images, trace: BiasTrace, rate: Fields) -> Images:
        """b += sum_mu rate_mu g_mu, summed over sites."""
        rows = flat(trace.g)
        count = len(leading(rows))
        return learn(state, in_rows(rate, count), jnp.ones((count, 1), state.K.dtype), rows)

    def tangent(self, one: Pair, other: Pair) -> Array:
        """G, summed over pairs of sites."""
        samples = len(one.G)
        ours, theirs = (flat(each.G) for each in (one, other))
        ones = (jnp.ones((len(rows), 1), rows.dtype) for rows in (ours, theirs))
        return products(next(ones), ours, next(ones), theirs, samples)

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
