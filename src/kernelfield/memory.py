"""Memory that a march needs, known from the shapes of its arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import psutil

from kernelfield.layers import Sequential, Setup, Space
from kernelfield.replicate import enlarged, initial_state, rounded

GIB = 2**30
GRADES = 100  # between the beginning and the end of a run


def available() -> int:
    """Bytes that programs can still have on this machine."""
    return psutil.virtual_memory().available


def state_bytes(layers: Sequential, setup: Setup, space: Space, capacities: Iterable[int]) -> int:
    """Size of the state of a replicate: those of one and of two particles tell how it grows with their number.

    Args:
        layers: of the network.
        setup: of the initial state.
        space: of the data.
        capacities: room in every basis.

    Returns:
        Bytes.
    """

    def size(particles: int, capacities: Iterator[int]) -> int:
        small = dataclasses.replace(setup, points=_no_points, particles=particles)
        with jax.enable_x64(True):
            state = initial_state(layers, small, space, capacities)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    one, two = map(size, (1, 2), itertools.tee(capacities))
    return one + (setup.particles - 1) * (two - one)


def _no_points(dimensions: int, particles: int, seed: Any, first: int = 0) -> np.ndarray:
    return np.zeros((dimensions - first, particles))


def rooms(first: int, directions: Sequence[int], block: int, particles: int) -> list[tuple[int, ...]]:
    """Room in every basis, from the beginning to the end, if all grow in proportion.

    Args:
        first: room at the beginning.
        directions: k at the end, of every basis.
        block: directions that are added at once.
        particles: S, the most there can be.

    Returns:
        Rooms in the order in which they are needed: a step is compiled for each of them.
    """
    found = [(rounded(first, particles),) * len(directions)]
    for part in np.linspace(0, 1, GRADES):
        sizes = [int(part * count) for count in directions]
        while any(full := [size + block > room < particles for size, room in zip(sizes, found[-1], strict=True)]):
            found.append(enlarged(zip(found[-1], sizes, full, strict=True), particles))
    return found


def smaller(particles: int, replicates: int, least: int, share: float) -> str | None:
    """The settings that take no more than a share of the memory of so many particles and replicates.

    Args:
        particles: S.
        replicates: R.
        least: number of particles.
        share: below one.

    Returns:
        The first setting that suffices, as text; None if there is none.
    """
    fewer = 2 ** math.floor(math.log2(max(1.0, particles * share)))
    if fewer >= least:
        return f"particles={fewer}"
    if (count := int(replicates * share)) >= 2:
        return f"replicates={count}"
    return None
