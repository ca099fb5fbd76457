"""Averages over sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.series import Fields, apply_linear
from kernelfield.layers import lazy
from kernelfield.layers.base import Mass, Setup, Sites, Space, Stateless, Tape


@jax.tree_util.register_static
@dataclass(frozen=True)
class SitesBelow:
    """The sites below a pool."""

    sites: Sites


class Pool(Stateless):
    """The average over windows of sites that do not overlap: a linear map between sites."""

    def windows(self, sites: Sites) -> Sites:
        """Returns the sites of a window along each axis."""
        raise NotImplementedError

    def sites_above(self, sites: Sites) -> Sites:
        """Returns one site for each window."""
        return tuple(size // window for size, window in zip(sites, self.windows(sites), strict=True))

    def init(self, setup: Setup, below: Space) -> tuple[None, Space]:
        """Returns the same population on fewer sites."""
        self.windows(below.sites)
        return None, below._replace(sites=self.sites_above(below.sites))

    def forward(self, state: None, x: Fields, mass: Mass) -> tuple[None, Fields, SitesBelow]:
        """Returns the average."""
        return None, apply_linear(self._average, x), SitesBelow(x.shape[1:-1])

    def backward(self, state: None, chi: Fields, trace: SitesBelow, mass: Mass) -> tuple[None, Fields, SitesBelow]:
        """Returns an equal share for every site."""
        sites, windows = trace.sites, self.windows(trace.sites)

        def divide(chi: Array) -> Array:
            shares = chi.reshape(len(chi), *_interleave(sites, windows, ones=True), chi.shape[-1])
            whole = jnp.broadcast_to(shares, (len(chi), *_interleave(sites, windows), chi.shape[-1]))
            return whole.reshape(len(chi), *sites, chi.shape[-1]) / math.prod(windows)

        return None, apply_linear(divide, chi), trace

    def _average(self, x: Any) -> Any:
        sites = x.shape[1:-1]
        split = x.reshape(len(x), *_interleave(sites, self.windows(sites)), x.shape[-1])
        mean = split.mean(axis=tuple(range(2, 2 + 2 * len(sites), 2)))
        return mean.reshape(len(x), *self.sites_above(sites), x.shape[-1])

    def _matrix(self, sites: Sites) -> np.ndarray:
        """Returns the map (sites above, sites below)."""
        units = np.eye(math.prod(sites)).reshape(-1, *sites, 1)
        return np.asarray(self._average(units)).reshape(len(units), -1).T

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, SitesBelow]:
        """Returns the average over both sites."""
        sites = lazy.sites_of(kernel)
        matrix = self._matrix(sites)
        pooled = np.einsum("ba,manc,dc->mbnd", matrix, lazy.split_sites(kernel), matrix, optimize=True)
        return pooled.reshape((len(kernel), *self.sites_above(sites)) * 2), SitesBelow(sites)

    def lazy_backward(self, kernel: np.ndarray, trace: SitesBelow) -> tuple[np.ndarray, float, SitesBelow]:
        """Returns an equal share for every pair of sites."""
        matrix = self._matrix(trace.sites)
        divided = np.einsum("ba,mbnd,dc->manc", matrix, lazy.split_sites(kernel), matrix, optimize=True)
        return divided.reshape((len(kernel), *trace.sites) * 2), 0.0, trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """Returns no parameters, and the shape above."""
        return None, (*self.sites_above(shape[:-1]), shape[-1])

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """Returns the average."""
        return self._average(x)


@dataclass(frozen=True)
class AveragePool(Pool):
    """The average over windows of `size` sites along each axis, which do not overlap.

    Args:
        size: of the windows; it divides the number of sites along each axis.
    """

    size: int = 2

    def windows(self, sites: Sites) -> Sites:
        """Returns `size` along each axis."""
        if not sites or any(number % self.size for number in sites):
            raise ValueError(f"AveragePool(size={self.size}) needs sites that its size divides, got {sites}")
        return (self.size,) * len(sites)


@dataclass(frozen=True)
class GlobalAveragePool(Pool):
    """The average over all sites, which leaves a field without sites."""

    def windows(self, sites: Sites) -> Sites:
        """Returns all sites."""
        if not sites:
            raise ValueError("GlobalAveragePool needs a field with sites")
        return sites

    def sites_above(self, sites: Sites) -> Sites:
        """Returns no sites."""
        return ()


def _interleave(sites: Sites, windows: Sites, ones: bool = False) -> tuple[int, ...]:
    """Returns the number of windows along each axis, each followed by the sites of a window (or by 1)."""
    pairs = ((size // window, 1 if ones else window) for size, window in zip(sites, windows, strict=True))
    return tuple(number for pair in pairs for number in pair)
