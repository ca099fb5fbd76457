"""A bias: the same for every sample and site, one for each neuron."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.infinite_matrix import Images
from kernelfield.engine.series import Fields
from kernelfield.layers import lazy
from kernelfield.layers.base import Mass, Pair, Setup, Simple, Space, Tape, descend
from kernelfield.layers.wiring import sum_products, wire_all


class BiasTrace(NamedTuple):
    """The gradients g (P, *sites, S) that reached a bias."""

    g: Any = None


@dataclass(frozen=True)
class Bias(Simple):
    """h + b, with b from N(0, scale^2) at initialization, trained like every weight.

    Args:
        scale: sigma_b.
    """

    scale: float = 0.0

    def init(self, setup: Setup, below: Space) -> tuple[Images, Space]:
        """Returns one Gaussian coordinate."""
        return setup.make_images(below.population.add_lane(1, 1), self.scale), below

    def forward(self, state: Images, x: Fields, mass: Mass) -> tuple[Images, Fields, BiasTrace]:
        """Returns h + b."""
        return state, x + state.D.reshape(*[1] * (len(x.shape) - 1), -1), BiasTrace()

    def backward(self, state: Images, chi: Fields, trace: BiasTrace, mass: Mass) -> tuple[Images, Fields, BiasTrace]:
        """Returns the gradients that came, which go down."""
        return state, chi, BiasTrace(chi)

    def update(self, state: Images, trace: BiasTrace, rate: Fields) -> Images:
        """Returns b += sum_mu rate_mu g_mu, summed over sites."""
        ones = jnp.ones((math.prod(trace.g.shape[:-1]), 1), state.K.dtype)
        return descend(state, rate, ones, trace.g)

    def tangent(self, one: Pair, other: Pair) -> Array:
        """Returns the kernel of g, summed over pairs of sites."""
        ours, theirs = (
            Pair(jnp.ones((math.prod(pair.G.shape[:-1]), 1), pair.G.dtype), pair.G) for pair in (one, other)
        )
        return sum_products(ours, theirs, wire_all(()).up)

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, None]:
        """Returns the kernel plus sigma_b^2."""
        return kernel + self.scale**2, None

    def lazy_backward(self, kernel: np.ndarray, trace: None) -> tuple[np.ndarray, np.ndarray, None]:
        """Returns the kernel that came, which goes down; the tangent kernel sums it over sites."""
        return kernel, lazy.sum_sites(kernel), None

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Array, tuple[int, ...]]:
        """Returns b (channels,) from N(0, scale^2)."""
        return self.scale * jax.random.normal(key, shape[-1:]), shape

    def finite_apply(self, params: Array, x: Array, tape: Tape) -> Array:
        """Returns x + b."""
        return x + params
