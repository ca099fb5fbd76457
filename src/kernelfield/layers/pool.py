"""Averages over sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.series import Fields, linear
from kernelfield.layers import lazy
from kernelfield.layers.base import Setup, Sites, Space, Stateless, Tape, sites_of


class Pool(Stateless):
    """The average over windows of sites that do not overlap: a linear map between sites."""

    def windows(self, sites: Sites) -> Sites:
        """Sites of a window along each axis."""
        raise NotImplementedError

    def left(self, sites: Sites) -> Sites:
        """Sites that are left, none if there is a single one."""
        raise NotImplementedError

    def init(self, setup: Setup, below: Space) -> tuple[None, Space]:
        """The same population on fewer sites."""
        self.windows(below.sites)
        return None, below._replace(sites=self.left(below.sites))

    def forward(self, state: None, x: Fields, mass: Array | None) -> tuple[None, Fields, Below]:
        """The average."""
        return None, linear(self._averaged, x), Below(sites_of(x))

    def backward(self, state: None, chi: Fields, trace: Below, mass: Array | None) -> tuple[None, Fields, Below]:
        """An equal share for every site."""
        sites, windows = trace.sites, self.windows(trace.sites)

        def shared(chi: Array) -> Array:
            each = chi.reshape(len(chi), *_interleaved(sites, windows, ones=True), chi.shape[-1])
            whole = jnp.broadcast_to(each, (len(chi), *_interleaved(sites, windows), chi.shape[-1]))
            return whole.reshape(len(chi), *sites, chi.shape[-1]) / math.prod(windows)

        return None, linear(shared, chi), trace

    def _averaged(self, x: Any) -> Any:
        sites = x.shape[1:-1]
        split = x.reshape(len(x), *_interleaved(sites, self.windows(sites)), x.shape[-1])
        mean = split.mean(axis=tuple(range(2, 2 + 2 * len(sites), 2)))
        return mean.reshape(len(x), *self.left(sites), x.shape[-1])

    def _matrix(self, sites: Sites) -> np.ndarray:
        """The map (sites left, sites)."""
        units = np.eye(math.prod(sites)).reshape(-1, *sites, 1)
        return np.asarray(self._averaged(units)).reshape(len(units), -1).T

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, Below]:
        """The average over both sites."""
        sites = lazy.sites_of(kernel)
        matrix = self._matrix(sites)
        pooled = np.einsum("ba,manc,dc->mbnd", matrix, lazy.by_site(kernel), matrix, optimize=True)
        return pooled.reshape((len(kernel), *self.left(sites)) * 2), Below(sites)

    def lazy_backward(self, kernel: np.ndarray, trace: Below) -> tuple[np.ndarray, float, Below]:
        """An equal share for every pair of sites."""
        matrix = self._matrix(trace.sites)
        shared = np.einsum("ba,mbnd,dc->manc", matrix, lazy.by_site(kernel), matrix, optimize=True)
        return shared.reshape((len(kernel), *trace.sites) * 2), 0.0, trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """No parameters."""
        return None, (*self.left(shape[:-1]), shape[-1])

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """The average."""
        return self._averaged(x)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Below:
    """Sites below a pool."""

    sites: Sites


@dataclass(frozen=True)
class AveragePool(Pool):
    """The average over windows of `size` sites along each axis, which do not overlap.

    Args:
        size: of the windows; it divides the number of sites along each axis.
    """

    size: int = 2

    def windows(self, sites: Sites) -> Sites:
        """`size` along each axis."""
        if not sites or any(each % self.size for each in sites):
            raise ValueError(f"AveragePool(size={self.size}) needs sites that its size divides, got {sites}")
        return (self.size,) * len(sites)

    def left(self, sites: Sites) -> Sites:
        """One for each window."""
        return tuple(each // self.size for each in sites)


@dataclass(frozen=True)
class GlobalAveragePool(Pool):
    """The average over all sites, which leaves a field without sites."""

    def windows(self, sites: Sites) -> Sites:
        """All of them."""
        if not sites:
            raise ValueError("GlobalAveragePool needs a field with sites")
        return sites

    def left(self, sites: Sites) -> Sites:
        """None."""
        return ()


def _interleaved(sites: Sites, windows: Sites, ones: bool = False) -> tuple[int, ...]:
    """Windows along each axis, each followed by its sites (or by 1)."""
    pairs = ((size // window, 1 if ones else window) for size, window in zip(sites, windows, strict=True))
    return tuple(number for pair in pairs for number in pair)
