"""New points at infinite width: a forward pass of the march, on a copy of its state that is then thrown away.

A new point goes up through the layers as a point of weight zero does in the march. What the bases do not know of it
becomes new directions, with Gaussian images and responses of their own, and so do inputs outside the span of the data;
the copy has room for them, and the state that was kept stays as it was. For predictions every point has its directions
to itself (`engine.visitors`); for kernels between new points the bases of the copy take them up. Every architecture and
training rule has the same forward pass, and no line here knows them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
from kernelfield.layers import FieldTrace, Sequential, Setup, Signal, Space, WeightTrace
from kernelfield.layers.base import traces
from kernelfield.layers.base import uses as every_use
from kernelfield.problem import Problem, principal_coordinates
from kernelfield.room import data_space, grown, initial_state

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

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """A kernel (R, n, m) between inputs a and b at step t: of the features of a hidden layer 1..L.

        With sites, their mean. For None, the tangent kernel: (R, n C, m C), rows (sample, output), if outputs differ.
        """
        ...

    def of_replicates(self, chosen: Any) -> Predictor:
        """That of some replicates, a slice or their numbers."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """All that cannot be made again from network, problem, rule and method, to be stored."""
        ...


class Passed(NamedTuple):
    """The state after a pass of some points, its trace, and whether a basis was full."""

    state: Any
    trace: Any
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


@functools.partial(jax.jit, static_argnums=(0, 1))
def passed(layers: Sequential, outputs: int, state: Any, data: Array) -> Passed:
    """One forward pass of coordinates of data (n, *sites, k), and a backward pass of so many outputs, if any."""
    data = jnp.repeat(data, max(outputs, 1), axis=0)
    state, _, trace = layers.forward(state, Signal(data, data))
    if outputs:
        chi = jnp.tile(jnp.eye(outputs, dtype=data.dtype), (len(data) // outputs, 1))
        state, _, trace = layers.backward(state, chi, trace)
    return Passed(state, _without_particles(trace), any_full(state))


def _without_particles(trace: Any) -> Any:
    """Of a trace, coordinates."""

    def bare(part: Any) -> Any:
        return part._replace(phi=None, g=None) if isinstance(part, WeightTrace) else None

    kinds = (WeightTrace, FieldTrace)
    return jax.tree.map(
        lambda part: bare(part) if isinstance(part, kinds) else part,
        trace,
        is_leaf=lambda part: isinstance(part, kinds),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def between(layers: Sequential, outputs: int, layer: int, state: Any, one: Any, other: Any) -> Array:
    """The kernel of two passes of as many points: of a layer (n, n), or of backward passes the tangent kernel."""
    if outputs:
        return layers.tangent(state, one, other)
    a, b = (traces(each, WeightTrace)[layer].F for each in (one, other))
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T / math.prod(a.shape[1:-1])


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

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """The bases of a copy take up all points of b, and those of a some at a time.

        Raises:
            OutOfParticles: the points have more directions than there are particles left.
        """
        A, B = np.split(self.coordinates(np.concatenate([a, b])), [len(a)])
        outputs = 0 if layer is not None else self.outputs or 1
        each = max(outputs, 1)  # rows of a point

        def one(setup: Setup, state: Any) -> np.ndarray:
            step = functools.partial(self._pass, setup, outputs)
            size = max(len(A), len(B))
            ours, theirs = (_batches(np.asarray(points, setup.dtype), ROWS, size) for points in (A, B))
            most = (len(B) + min(len(A), len(ours[0]))) * each
            state = self._with_room(setup, state, B[:1], most * math.prod(B.shape[1:-1]), B.shape[-1])
            known = []
            for batch in theirs:
                state, trace = step(state, batch)
                known.append(trace)
            rows = []
            for batch in ours:
                every, trace = step(state, batch)
                columns = (between(self.layers, outputs, layer or 0, every, trace, other) for other in known)
                rows.append(np.concatenate(list(columns), axis=1))
            return np.concatenate(rows)[: len(a) * each, : len(b) * each]

        with jax.enable_x64(True):
            return np.stack([one(*each) for each in zip(self.setups, self.states[t], strict=True)]).astype(float)

    def _pass(self, setup: Setup, outputs: int, state: Any, batch: np.ndarray) -> tuple[Any, Any]:
        """The state after a batch, and its trace."""
        now = passed(self.layers, outputs, state, jnp.asarray(batch))
        if now.full:
            raise OutOfParticles(f"new points have more directions than {setup.particles} particles leave")
        return now.state, now.trace

    def arrays(self) -> dict[str, np.ndarray]:
        """Axes, numbers of steps and replicates, and every array of the states by them and its place."""
        numbers = np.array([setup.seed.spawn_key[0] for setup in self.setups])
        return {"axes": self.axes, "replicates": numbers, "steps": np.array(self.steps)} | {
            f"step{t}_replicate{replicate}_{place}": leaf
            for t, states in self.states.items()
            for replicate, state in enumerate(states)
            for place, leaf in enumerate(jax.tree.leaves(state))
        }

    @classmethod
    def restored(
        cls, network: Any, problem: Problem, setups: Sequence[Setup], arrays: Mapping[str, np.ndarray]
    ) -> MarchPredictor:
        """The predictor with `arrays`; a small initial state tells what they are."""
        with jax.enable_x64(True):
            space = data_space(network.coordinates(problem))
            leaves, tree = jax.tree.flatten(initial_state(network.layers, setups[0], space, itertools.repeat(1)))

        def state(t: int, replicate: int) -> Any:
            names = (f"step{t}_replicate{replicate}_{place}" for place in range(len(leaves)))
            return tree.unflatten([arrays[name].astype(leaf.dtype) for name, leaf in zip(names, leaves, strict=True)])

        states = {int(t): [state(t, each) for each in range(len(setups))] for t in arrays["steps"]}
        return cls(network.layers, problem.outputs, setups, arrays["axes"], states)

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


def _batches(data: np.ndarray, rows: int, size: int | None = None) -> list[np.ndarray]:
    """Batches of `size`, or of so many rows (points times sites); the last one is filled up with what it has."""
    size = min(size or len(data), max(1, rows // math.prod(data.shape[1:-1])))
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    parts[-1] = parts[-1][np.arange(size) % len(parts[-1])]
    return parts
