"""Kernels of fields with sites in the lazy limit, (P, *sites, P, *sites): what layers do to them at initialization."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class LazyWeights(NamedTuple):
    """At a weight layer: kernels of the features that enter it, of h that leaves it and of the gradients g there."""

    phi: np.ndarray
    h: np.ndarray
    g: Any = None


class LazyField(NamedTuple):
    """At an activation: kernels of the preactivation h, of the slopes phi'(h) and of the pregradient z."""

    h: np.ndarray
    slope: np.ndarray
    z: Any = None


def sites_of(kernel: np.ndarray) -> tuple[int, ...]:
    """Sites of a kernel (P, *sites, P, *sites)."""
    return kernel.shape[1 : kernel.ndim // 2]


def by_site(kernel: np.ndarray) -> np.ndarray:
    """A kernel as (P, A, P, A)."""
    half = len(kernel), int(np.prod(sites_of(kernel)))
    return kernel.reshape(half + half)


def summed(kernel: np.ndarray) -> np.ndarray:
    """The sum over both sites (P, P)."""
    return by_site(kernel).sum(axis=(1, 3))


def over_sites(kernel: np.ndarray) -> np.ndarray:
    """The sum over equal sites (P, P)."""
    return np.einsum("mana->mn", by_site(kernel))


def mean_over_places(kernel: np.ndarray, table: np.ndarray, sites: tuple[int, ...]) -> np.ndarray:
    """n^{-1} sum_j K[table[a, j], table[b, j]], for a table (B, n) of sites, -1 where there is none."""
    padded = np.pad(by_site(kernel), [(0, 0), (0, 1), (0, 0), (0, 1)])
    total = sum(padded[:, place][:, :, :, place] for place in table.T) / table.shape[1]
    return np.reshape(total, (len(kernel), *sites) * 2)
