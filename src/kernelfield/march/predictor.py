"""Predictions at new points: the forward pass of the points that train, at any state that was kept.

A trained network is an operator, and a new point goes through it as all others do: it needs nothing of its own.
Only inputs outside the span of the training inputs see coordinates of the first weights that no training point saw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.describe.problem import InputAxes
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, change_images, collect
from kernelfield.layers import Setup, Space, WeightTrace
from kernelfield.layers.kernels import Pair
from kernelfield.march.programs import predict
from kernelfield.march.recorder import field_pairs, tangent_kernel
from kernelfield.march.replicate import blocks, initial_state, without_motion
from kernelfield.march.step import Step

predictions, tangent = (jax.jit(function, static_argnums=0) for function in (predict, tangent_kernel))


@functools.partial(jax.jit, static_argnums=(0, 1))
def slopes(step: Step, output: int, gamma0: Array, layers: tuple, data: Array) -> Array:
    """Returns the gradients of an output in the coordinates of its point, shaped as data."""

    def total(data: Array) -> Array:
        f = predict(step, gamma0, layers, data)
        return jnp.sum(f[:, output])

    return jax.grad(total)(data)


@functools.partial(jax.jit, static_argnums=(0, 1))
def features(step: Step, layer: int, layers: tuple, data: Array, mass: Array | None) -> Array:
    """Returns features of a hidden layer 1..L, one row a point, so scaled that products are kernels."""
    passed = step.forward(layers, data, mass)[1]
    traces = [*collect(passed.body, WeightTrace), passed.readout]
    phi = [trace.phi for trace in traces if trace.phi is not None][layer]
    return phi.reshape(len(phi), -1) / math.sqrt(phi[0].size)


@functools.partial(jax.jit, static_argnums=0)
def pairs(step: Step, layers: tuple, data: Array, mass: Array | None) -> list[Pair]:
    """Returns features and gradients of every output at every use of weights."""
    _, passed = step.every_output(*step.forward(layers, data, mass), mass)
    return field_pairs(step.layers, passed)


@dataclass(frozen=True, eq=False)
class MarchPredictor:
    """The states of all replicates of a march, which predict; see `kernelfield.solution.solution.Predictor`."""

    step: Step
    setups: Sequence[Setup]  # how every replicate lays out the network
    axes: np.ndarray  # (k, D), principal axes of the data: coordinates of inputs are inputs @ axes^T / sqrt(D)
    states: Mapping[int, Sequence[tuple]]  # by step, the states of the layers of every replicate, as NumPy arrays

    @property
    def steps(self) -> list[int]:
        """The steps whose states were kept."""
        return sorted(self.states)

    def of_replicates(self, chosen: Any) -> MarchPredictor:
        """Returns the predictor of some replicates."""
        numbers = np.arange(len(self.setups))[chosen]
        states = {t: [layers[number] for number in numbers] for t, layers in self.states.items()}
        return replace(self, setups=[self.setups[number] for number in numbers], states=states)

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns f (R, n, C)."""
        with jax.enable_x64(True):
            f = [
                blocks(functools.partial(predictions, self.step, jnp.asarray(setup.gamma0), layers), data)
                for setup, layers, data in self._ready(inputs, t)
            ]
            return np.stack(f).astype(float)

    def gradients(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns the gradients of outputs in the inputs (R, n, C, *sites, D): by coordinates, along their axes."""
        with jax.enable_x64(True):
            found = [
                [
                    blocks(functools.partial(slopes, self.step, output, jnp.asarray(setup.gamma0), layers), data)
                    for output in range(self.step.outputs)
                ]
                for setup, layers, data in self._ready(inputs, t)
            ]
        basis = InputAxes(self.axes).basis(inputs)
        by_axis = np.array(found, float)[..., : len(basis)]
        return np.moveaxis(by_axis, 1, 2) @ basis / np.sqrt(inputs.shape[-1])

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns a kernel, from averages of products of fields, some points at a time."""
        with jax.enable_x64(True):
            ready = self._ready(np.concatenate([a, b]), t)
            kernels = [self._kernel(setup.is_complete, layers, data, len(a), layer) for setup, layers, data in ready]
            return np.stack(kernels).astype(float)

    def _kernel(self, exact: bool, layers: tuple, data: Array, count: int, layer: int | None) -> np.ndarray:
        size = len(data) if exact else max(1, 128 // math.prod(data.shape[1:-1]))
        mass = jnp.ones(len(data)) if exact else None  # networks without tails meet all of them at once
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        if layer is not None:
            every = np.concatenate([features(self.step, layer, layers, part, mass) for part in parts])
            return every[:count] @ every[count:].T
        every = [pairs(self.step, layers, part, mass) for part in parts]
        rows = [np.concatenate([tangent(self.step.layers, one, two) for two in every], axis=1) for one in every]
        C = self.step.outputs
        return np.concatenate(rows)[: count * C, count * C :]

    def _ready(self, inputs: np.ndarray, t: int) -> Any:
        """Yields for every replicate its setup, the states of its layers, and the coordinates of inputs."""
        data, outside = InputAxes(self.axes).coordinates(inputs)
        for setup, layers in zip(self.setups, self.states[t], strict=True):
            wider = self._with_further(setup, layers, data, outside) if outside else layers
            yield setup, *jax.device_put((wider, data.astype(setup.dtype)))

    def _with_further(self, setup: Setup, layers: tuple, data: np.ndarray, outside: int) -> tuple:
        """Returns the states with coordinates of the first weights for inputs outside the span of the data.

        Without tails all other matrices have coordinates for them too.
        """
        fresh = replace(setup, populations=[])
        laid_out, _ = self.step.layers.init(fresh, Space(None, data.shape[1:-1], len(self.axes)))
        lanes: list[Any] = [images.K for images in collect(laid_out, Images)]
        population = {lane: each for each in fresh.populations for lane in each.lanes}
        grows = [lane.grows and (setup.is_complete or number == 0) for number, lane in enumerate(lanes)]
        which = iter(zip(lanes, grows, strict=True))

        def widened(images: Images) -> Images:
            lane, wider = next(which)
            if not wider or (lane is lanes[0] and images.K.shape[1] == data.shape[-1]):  # known in training
                return images
            more = population[lane].draw_more(lane, outside).astype(setup.dtype)
            M = np.pad(images.M, [(0, 0), (0, outside), (0, 0)])
            return images._replace(K=np.concatenate([images.K, more], axis=1), M=M)

        wider = change_images(widened, layers)
        if not setup.is_complete:
            return wider

        def roomier(matrix: Any) -> Any:
            if not isinstance(matrix, InfiniteMatrix):
                return matrix
            q = np.pad(matrix.below.q, [(0, outside), (0, 0)])
            return replace(matrix, below=matrix.below._replace(q=q))

        return jax.tree.map(roomier, wider, is_leaf=lambda leaf: isinstance(leaf, InfiniteMatrix))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns axes, numbers of steps and replicates, and every array of the states by step, replicate and place."""
        numbers = np.array([setup.seed.spawn_key[0] for setup in self.setups])
        return {"axes": self.axes, "replicates": numbers, "steps": np.array(self.steps)} | {
            f"step{t}_replicate{replicate}_{place}": leaf
            for t, states in self.states.items()
            for replicate, state in enumerate(states)
            for place, leaf in enumerate(jax.tree.leaves(state))
        }

    @classmethod
    def restored(
        cls, step: Step, setups: Sequence[Setup], space: Space, arrays: Mapping[str, np.ndarray]
    ) -> MarchPredictor:
        """Returns the predictor with `arrays`, whose tree is that of a small initial state."""
        small = replace(setups[0], particles=16, block=setups[0].block and 16, momentum=False)
        with jax.enable_x64(True):
            leaves, tree = jax.tree.flatten(without_motion(initial_state(step.layers, small, space)))

        def state(t: int, replicate: int) -> Any:
            names = (f"step{t}_replicate{replicate}_{place}" for place in range(len(leaves)))
            return tree.unflatten([arrays[name].astype(leaf.dtype) for name, leaf in zip(names, leaves, strict=True)])

        states = {int(t): [state(t, each) for each in range(len(setups))] for t in arrays["steps"]}
        return cls(step, setups, arrays["axes"], states)
