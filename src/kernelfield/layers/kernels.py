"""Kernels of fields with sites, (P, *sites, P, *sites), and sums over their sites."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jax import Array

from kernelfield.engine.wiring import gather


class Pair(NamedTuple):
    """Features and gradients at weights, (P, *sites, n) each, in any coordinates whose products are their averages."""

    F: Any
    G: Any


def sum_products(one: Pair, other: Pair, table: np.ndarray) -> Array:
    """Returns the sum over sites a, b above of (F_a . F'_b) (G_a . G'_b), (P, P'); F_a are the features that a sees."""
    (F, G), (F2, G2) = ((gather(pair.F, table), pair.G.reshape(-1, pair.G.shape[-1])) for pair in (one, other))
    samples = len(one.G)
    sites = len(F) // samples
    return ((F @ F2.T) * (G @ G2.T)).reshape(samples, sites, -1, sites).sum((1, 3))


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
