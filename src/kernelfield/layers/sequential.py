"""Layers one after the other: forward up, backward down, update in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import Array

from kernelfield.engine.series import Fields
from kernelfield.layers.base import Layer, Setup, Space, Stateless, Tape, uses
from kernelfield.layers.weights import Weights


@dataclass(frozen=True)
class Sequential:
    """The composition of `layers`, itself a layer.

    A layer object that occurs more than once shares its weights between all uses: one state, a trace of each use.

    Args:
        layers: bottom to top.
    """

    layers: tuple[Layer, ...]
    state_of: tuple[int, ...] = field(init=False)  # the use of a layer -> number of its state

    def __init__(self, layers: Iterable[Layer]) -> None:
        given: dict[int, int] = {}
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "state_of", tuple(given.setdefault(id(each), len(given)) for each in self.layers))

    @property
    def parts(self) -> tuple[Layer, ...]:
        """All layers."""
        return self.layers

    @property
    def shares(self) -> bool:
        """Whether weights are used more than once."""
        return any(
            self.state_of.count(place) > 1 and not all(isinstance(each, Stateless) for each in uses(layer))
            for place, layer in zip(self.state_of, self.layers, strict=True)
        )

    def init(self, setup: Setup, below: Space) -> tuple[tuple, Space]:
        """The states of all layers and the last space."""
        states, spaces = {}, {}
        for place, layer in zip(self.state_of, self.layers, strict=True):
            if jax.tree.leaves(states.get(place)):  # weights used again act on the same population as before
                first, above = spaces[place]
                _reused(first, below)
                below = above
            else:
                spaces[place] = below, (made := layer.init(setup, below))[1]
                states[place], below = made
        return tuple(states.values()), below

    def forward(self, state: tuple, x: Fields, mass: Array | None) -> tuple[tuple, Fields, tuple]:
        """Bottom to top."""
        states, traces = list(state), []
        for place, layer in zip(self.state_of, self.layers, strict=True):
            states[place], x, trace = layer.forward(states[place], x, mass)
            traces.append(trace)
        return tuple(states), x, tuple(traces)

    def backward(self, state: tuple, chi: Fields, trace: tuple, mass: Array | None) -> tuple[tuple, Fields, tuple]:
        """Top to bottom."""
        states, traces = list(state), []
        for place, layer, passed in reversed(list(zip(self.state_of, self.layers, trace, strict=True))):
            states[place], chi, passed = layer.backward(states[place], chi, passed, mass)
            traces.append(passed)
        return tuple(states), chi, tuple(traces[::-1])

    def update(self, state: tuple, trace: tuple, rate: Fields) -> tuple:
        """Each layer by itself, once for every use; of weights used again, in the directions that all uses have met."""
        states = list(state)
        for place, layer, passed in zip(self.state_of, self.layers, trace, strict=True):
            if self.state_of.count(place) > 1 and isinstance(layer, Weights):
                passed = layer.measured(states[place], passed)
            states[place] = layer.update(states[place], passed, rate)
        return tuple(states)

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, tuple]:
        """Bottom to top."""
        if self.shares:
            raise ValueError(
                "weights that are used more than once have no lazy limit here: use March with a small gamma0"
            )
        traces = []
        for layer in self.layers:
            kernel, trace = layer.lazy_forward(kernel)
            traces.append(trace)
        return kernel, tuple(traces)

    def lazy_backward(self, kernel: np.ndarray, trace: tuple) -> tuple[np.ndarray, Any, tuple]:
        """Top to bottom."""
        tangent, traces = 0.0, []
        for layer, passed in reversed(list(zip(self.layers, trace, strict=True))):
            kernel, part, passed = layer.lazy_backward(kernel, passed)
            tangent = tangent + part
            traces.append(passed)
        return kernel, tangent, tuple(traces[::-1])

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[tuple, tuple[int, ...]]:
        """Parameters of all layers."""
        params, keys = {}, jax.random.split(key, len(self.layers))
        for place, layer, layer_key in zip(self.state_of, self.layers, keys, strict=True):
            values, shape = layer.finite_init(layer_key, shape, width)
            if jax.tree.map(np.shape, params.setdefault(place, values)) != jax.tree.map(np.shape, values):
                raise ValueError("a layer that is used twice must act on a hidden layer of the same sites each time")
        return tuple(params.values()), shape

    def finite_apply(self, params: tuple, x: Array, tape: Tape) -> Array:
        """Bottom to top."""
        for place, layer in zip(self.state_of, self.layers, strict=True):
            x = layer.finite_apply(params[place], x, tape)
        return x


def _reused(first: Space, again: Space) -> None:
    """Weights used again: what they act on is the population that they act on already."""
    if first.population is None or again.population is None or first[1:] != again[1:]:
        raise ValueError("a layer that is used twice must act on a hidden layer of the same sites each time")
    first.population.join(again.population)
