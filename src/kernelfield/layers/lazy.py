"""Kernels of fields with sites in the lazy limit, (P, *sites, P, *sites): what layers do to them at initialization."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class LazyWeights(NamedTuple):
    """Kernels at a weight layer: of the features that enter it, of h that leaves it and of the gradients g there."""

    phi: np.ndarray
    h: np.ndarray
    g: Any = None


class LazyField(NamedTuple):
    """Kernels at an activation: of the preactivation h, of the slopes phi'(h) and of the pregradient z."""

    h: np.ndarray
    slope: np.ndarray
    z: Any = None


def sites_of(kernel: np.ndarray) -> tuple[int, ...]:
    """Returns the sites of a kernel (P, *sites, P, *sites)."""
    return kernel.shape[1 : kernel.ndim // 2]


def split_sites(kernel: np.ndarray) -> np.ndarray:
    """Returns the kernel as (P, A, P, A)."""
    half = len(kernel), int(np.prod(sites_of(kernel)))
    return kernel.reshape(half + half)


def sum_sites(kernel: np.ndarray) -> np.ndarray:
    """Returns the sum over both sites, (P, P)."""
    return split_sites(kernel).sum(axis=(1, 3))


def sum_equal_sites(kernel: np.ndarray) -> np.ndarray:
    """Returns the sum over equal sites, (P, P)."""
    return np.einsum("mana->mn", split_sites(kernel))


def average_places(kernel: np.ndarray, table: np.ndarray, sites: tuple[int, ...]) -> np.ndarray:
    """Returns n^{-1} sum_j K[table[a, j], table[b, j]], for a table (B, n) of sites, -1 where there is none."""
    padded = np.pad(split_sites(kernel), [(0, 0), (0, 1), (0, 0), (0, 1)])
    total = sum(padded[:, place][:, :, :, place] for place in table.T) / table.shape[1]
    return np.reshape(total, (len(kernel), *sites) * 2)
