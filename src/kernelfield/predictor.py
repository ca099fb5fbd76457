"""New points at infinite width: a forward pass of the march, on a copy of its state that is then thrown away.

A new point goes up through the layers as a point of weight zero does in the march. What the bases do not know of it
becomes new directions, with Gaussian images and responses of their own, and so do inputs outside the span of the data;
the copy has room for them, and the state that was kept stays as it was. For predictions every point has its directions
to itself (`engine.visitors`); for kernels between new points the bases of the copy take them up. Every architecture and
training rule has the same forward pass, and no line here knows them.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.basis import any_full, bases, block_size
from kernelfield.engine.infinite_matrix import InfiniteMatrix
from kernelfield.engine.points import OutOfParticles
from kernelfield.engine.visitors import Visited
from kernelfield.layers import Sequential, Setup, Signal, Space, WeightTrace
from kernelfield.layers.base import traces
from kernelfield.layers.base import uses as every_use
from kernelfield.problem import principal_coordinates
from kernelfield.replicate import grown

ROWS = 128  # points times sites of one forward pass, about


class Predictor(Protocol):
    """What a method keeps of training to predict at new points; inputs are as the network takes them."""

    @property
    def steps(self) -> Sequence[int]:
        """At which it was kept."""
        ...

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Outputs f of inputs (n, D) or (n, *sites, C) at step t: (R, n), or (R, n, C) of C outputs."""
        ...

    def features(self, inputs: np.ndarray, t: int, layer: int) -> np.ndarray:
        """F (R, n, k) with the feature kernel F F^T of a hidden layer 1..L at step t: with sites, their mean."""
        ...

    def of_replicates(self, chosen: Any) -> Predictor:
        """That of some replicates, a slice or their numbers."""
        ...


class Passed(NamedTuple):
    """The state after a forward pass, outputs f (n, C), coordinates F of features at every hidden layer; is it full?"""

    state: Any
    f: Array
    F: tuple[Array, ...]
    full: Array


@functools.partial(jax.jit, static_argnums=0)
def visitors(layers: Sequential, state: Any, data: Array) -> Array:
    """f (n, C) of points that do not know each other: in double precision, since rounding depends on their places."""

    def visited(leaf: Any) -> Any:
        return Visited(leaf) if isinstance(leaf, InfiniteMatrix) else leaf

    def precise(leaf: Array) -> Array:
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    state = jax.tree.map(precise, state)
    state = jax.tree.map(visited, state, is_leaf=lambda leaf: isinstance(leaf, InfiniteMatrix))
    return layers.forward(state, Signal(data, data))[1]


@functools.partial(jax.jit, static_argnums=0)
def passed(layers: Sequential, state: Any, data: Array) -> Passed:
    """One forward pass of coordinates of data (n, *sites, k)."""
    state, f, trace = layers.forward(state, Signal(data, data))
    return Passed(state, f, tuple(each.F for each in traces(trace, WeightTrace)[1:]), any_full(state))


@dataclass(frozen=True, eq=False)
class MarchPredictor:
    """The states of all replicates of a march, and how to continue them.

    Args:
        layers: of the network.
        outputs: C; None for one output without an axis of its own.
        setups: of the initial state of every replicate.
        axes: (k, D) principal axes of the data: coordinates of inputs are inputs @ axes^T / sqrt(D).
        states: of every replicate, as NumPy arrays, at the steps that were kept.
    """

    layers: Sequential
    outputs: int | None
    setups: Sequence[Setup]
    axes: np.ndarray
    states: Mapping[int, Sequence[Any]]

    @property
    def steps(self) -> list[int]:
        """At which states were kept."""
        return sorted(self.states)

    def of_replicates(self, chosen: Any) -> MarchPredictor:
        """That of some replicates."""
        numbers = np.arange(len(self.setups))[chosen]
        states = {t: [each[number] for number in numbers] for t, each in self.states.items()}
        return replace(self, setups=[self.setups[number] for number in numbers], states=states)

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """f (R, n) or (R, n, C), of every point by itself.

        Raises:
            OutOfParticles: a point has more directions than there are particles left.
        """
        data = self.coordinates(inputs)
        own = math.prod(data.shape[1:-1])
        uses = max(Counter(id(each) for each in every_use(self.layers)).values())

        def alone(setup: Setup, state: Any) -> np.ndarray:
            if max(int(basis.size) for basis in bases(state)) + own * uses > setup.particles:
                raise OutOfParticles(f"new points have more directions than {setup.particles} particles leave")
            state = self._with_room(setup, state, data[:1], own * uses, len(self.axes) + own)
            batches = map(jnp.asarray, _batches(data, ROWS))
            return np.concatenate([visitors(self.layers, state, batch) for batch in batches])[: len(data)]

        with jax.enable_x64(True):
            f = np.stack([alone(*each) for each in zip(self.setups, self.states[t], strict=True)]).astype(float)
        return f[..., 0] if self.outputs is None else f

    def features(self, inputs: np.ndarray, t: int, layer: int) -> np.ndarray:
        """F (R, n, A k) of A sites: all points through the same copy, whose bases know them all in the end.

        Raises:
            OutOfParticles: the points have more directions than there are particles left.
        """
        data = self.coordinates(inputs)

        def together(setup: Setup, state: Any) -> np.ndarray:
            state = self._with_room(setup, state, data, math.prod(data.shape[:-1]), data.shape[-1])
            parts = []
            for batch in _batches(data, ROWS):
                now = passed(self.layers, state, jnp.asarray(batch, setup.dtype))
                if now.full:
                    raise OutOfParticles(f"new points have more directions than {setup.particles} particles leave")
                state = now.state
                parts.append(np.asarray(now.F[layer - 1]))
            return _joined(parts, np.concatenate)[: len(data)]

        with jax.enable_x64(True):
            F = _joined([together(*each) for each in zip(self.setups, self.states[t], strict=True)], np.stack)
        return F.reshape(*F.shape[:2], -1).astype(float) / math.sqrt(math.prod(F.shape[2:-1]))

    def coordinates(self, inputs: np.ndarray) -> np.ndarray:
        """(n, *sites, k + r): in the axes of the data, and what is outside them in r axes of its own."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        inside = rows @ self.axes.T
        outside = rows - inside @ self.axes
        every = [inside / math.sqrt(rows.shape[1])]
        if len(self.axes) < rows.shape[1]:
            every.append(principal_coordinates(outside))
        return np.concatenate(every, axis=1).reshape(*inputs.shape[:-1], -1)

    def _with_room(self, setup: Setup, state: Any, data: np.ndarray, directions: int, channels: int) -> Any:
        """A copy of the state with room for so many more directions in every basis, and for coordinates of data."""
        space = Space(None, data.shape[1:-1], channels)
        capacities = (_capacity(basis, directions, setup.particles) for basis in bases(state))
        return grown(self.layers, setup, space, capacities, state)


def _capacity(basis: Any, directions: int, particles: int) -> int:
    """Room for more directions, which are found in blocks."""
    most = int(basis.size) + directions + block_size(basis, directions)
    return max(len(basis.q), min(32 * math.ceil(most / 32), particles))


def _batches(data: np.ndarray, rows: int) -> list[np.ndarray]:
    """Batches of one size with about so many rows (points times sites); the last one is filled up with what it has."""
    size = min(len(data), max(1, rows // math.prod(data.shape[1:-1])))
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    parts[-1] = parts[-1][np.arange(size) % len(parts[-1])]
    return parts


def _joined(parts: Sequence[np.ndarray], join: Callable[[list[np.ndarray]], np.ndarray]) -> np.ndarray:
    """Coordinates in bases of several capacities, in the largest one."""
    rank = max(part.shape[-1] for part in parts)
    return join([np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, rank - part.shape[-1])]) for part in parts])
