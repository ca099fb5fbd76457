"""Room for directions: states of any capacity, and states that are copied into larger ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.engine.slabs import SHORT, SLAB, THIN
from kernelfield.layers import Sequential, Setup, Space

NEARLY_FULL = 0.7  # bases this full are enlarged together with one that is full
GROWTH = 1.5  # factor by which they are
GRADES = 100  # between the beginning and the end of a run


def enlarged(rooms: Iterable[tuple[int, int, bool]], particles: int) -> tuple[int, ...]:
    """The next capacity of every basis, given capacity, size and whether it is full; the nearly full grow too."""
    return tuple(
        rounded(GROWTH * capacity, particles) if full or size > NEARLY_FULL * capacity else capacity
        for capacity, size, full in rooms
    )


def rounded(capacity: float, particles: int) -> int:
    """The next number of slabs, so that similar problems share a compilation; never above particles."""
    unit = THIN if capacity <= SHORT else SLAB
    return min(unit * math.ceil(capacity / unit), particles)


def data_space(data: Any) -> Space:
    """The space of data (P, *sites, k)."""
    return Space(None, data.shape[1:-1], data.shape[-1])


def initial_state(
    layers: Sequential, setup: Setup, space: Space, capacities: Iterator[int], present: Any = None
) -> Any:
    """The states of all layers at initialization, with room for so many directions in every basis.

    Without the coordinates of a smaller state, `present`, that is about to be copied into it.
    """
    setup = dataclasses.replace(setup, capacities=capacities, populations=[])
    return setup.dealt(layers.init(setup, space)[0], present)


def grown(layers: Sequential, setup: Setup, space: Space, capacities: Iterator[int], state: Any) -> Any:
    """A larger initial state, with `state` (NumPy arrays) copied into it."""
    return filled(lambda: initial_state(layers, setup, space, capacities, state), state)


def filled(larger: Callable[[], Any], state: Any) -> Any:
    """What `larger` returns, on the device, with `state` in the corners of its arrays: one after the other, for room.

    In NumPy, which compiles nothing for new shapes.
    """
    leaves, structure = jax.tree.flatten(larger())
    for number, values in enumerate(jax.tree.leaves(state)):
        leaf = leaves[number]
        if not (isinstance(leaf, np.ndarray) and leaf.flags.writeable):
            leaf = np.array(leaf)
        leaf[tuple(slice(n) for n in values.shape)] = values
        leaves[number] = jnp.asarray(leaf)
    return jax.tree.unflatten(structure, leaves)


def small_state(layers: Sequential, setup: Setup, space: Space, capacities: Iterable[int], particles: int = 1) -> Any:
    """A state of zeros on a few particles, which says how large others are."""
    small = dataclasses.replace(setup, points=_no_points, particles=particles)
    with jax.enable_x64(True):
        return initial_state(layers, small, space, iter(capacities))


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
    states = (
        small_state(layers, setup, space, rooms, particles)
        for particles, rooms in enumerate(itertools.tee(capacities), start=1)
    )
    one, two = (sum(leaf.nbytes for leaf in jax.tree.leaves(state)) for state in states)
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
