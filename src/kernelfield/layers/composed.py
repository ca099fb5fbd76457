"""Layers made of others: one after the other, and residual blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from kernelfield.engine.directions import project
from kernelfield.engine.infinite_matrix import InfiniteMatrix
from kernelfield.engine.series import Fields
from kernelfield.layers.base import Layer, Mass, Setup, Signal, Space, Stateless, Tape, uses
from kernelfield.layers.vectors import Gain, NeuronWeights
from kernelfield.layers.weights import Weights

GAIN_BELOW = "the lazy limit of a Gain directly below {layer} is not known: put Dense or Conv between them"
NOT_GAUSSIAN = "the lazy limit of {layer} is known for Gaussian fields, which weights make: put Dense or Conv below it"
MISUSE = "a layer that is used twice must act on a hidden layer of the same sites each time"
NO_LIMIT = "weights that are used more than once have no lazy limit here: use March with a small gamma0"


@dataclass(frozen=True)
class Sequential(Layer):
    """The composition of `layers`, itself a layer.

    A layer object that occurs more than once shares its weights between all uses: one state, a trace of each use.

    Args:
        layers: bottom to top.
    """

    layers: tuple[Layer, ...]
    state_of: tuple[int, ...] = field(init=False)  # the use of a layer -> number of its state

    def __init__(self, layers: Iterable[Layer]) -> None:
        layers, numbers = tuple(layers), dict[int, int]()
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "state_of", tuple(numbers.setdefault(id(layer), len(numbers)) for layer in layers))

    @property
    def parts(self) -> tuple[Layer, ...]:
        """All layers."""
        return self.layers

    @property
    def is_linear(self) -> bool:
        """Whether all layers say that they are linear."""
        return all(getattr(layer, "is_linear", False) for layer in self.layers)

    @property
    def _places(self) -> list[tuple[int, Layer]]:
        """The number of the state of every use, and the layer."""
        return list(zip(self.state_of, self.layers, strict=True))

    def init(self, setup: Setup, below: Space) -> tuple[tuple, Space]:
        """Returns the states of all layers and the last space."""
        states, spaces = {}, {}
        for place, layer in self._places:
            if jax.tree.leaves(states.get(place)):  # weights used again act on the same population as before
                first, above = spaces[place]
                if first.population is None or below.population is None or first[1:] != below[1:]:
                    raise ValueError(MISUSE)
                first.population.join(below.population)
            else:
                states[place], above = layer.init(setup, below)
                spaces[place] = below, above
            below = above
        return tuple(states.values()), below

    def forward(self, state: tuple, x: Fields, mass: Mass) -> tuple[tuple, Fields, tuple]:
        """Returns the states, the fields that go up, and the traces, bottom to top."""
        states, traces = list(state), []
        for place, layer in self._places:
            states[place], x, trace = layer.forward(states[place], x, mass)
            traces.append(trace)
        return tuple(states), x, tuple(traces)

    def backward(
        self, state: tuple, chi: Fields, trace: tuple, mass: Mass, signal: Signal
    ) -> tuple[tuple, Fields, tuple]:
        """Returns the states, the fields that go down, and the completed traces; the last layer comes first."""
        states, traces = list(state), list(trace)
        for use, (place, layer) in reversed(list(enumerate(self._places))):
            states[place], chi, traces[use] = layer.backward(states[place], chi, traces[use], mass, signal)
        return tuple(states), chi, tuple(traces)

    def update(self, state: tuple, trace: tuple, rate: Fields) -> tuple:
        """Returns the states after an update for every use."""
        states = list(state)
        for (place, layer), part in zip(self._places, trace, strict=True):
            matrix = states[place]
            if self.state_of.count(place) > 1 and isinstance(matrix, InfiniteMatrix):  # later uses added directions
                part = part._replace(F=project(matrix.below, part.phi), G=project(matrix.above, part.g))
            states[place] = layer.update(states[place], part, rate)
        return tuple(states)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, tuple]:
        """Returns the kernel of the fields that go up, and the traces, bottom to top."""
        shared = [layer for place, layer in self._places if self.state_of.count(place) > 1]
        if not all(isinstance(use, Stateless) for layer in shared for use in uses(layer)):
            raise ValueError(NO_LIMIT)
        traces = []
        for layer in self.layers:
            kernel, trace = layer.lazy_forward(kernel, seed)
            traces.append(trace)
        return kernel, tuple(traces)

    def lazy_backward(self, kernel: np.ndarray, trace: tuple, seed: int) -> tuple[np.ndarray, Any, tuple]:
        """Returns the kernel of the fields that go down, the sum of the tangent kernels, and the completed traces."""
        tangent, traces = 0.0, list(trace)
        for use, layer in reversed(list(enumerate(self.layers))):
            kernel, part, traces[use] = layer.lazy_backward(kernel, traces[use], seed)
            tangent = tangent + part
        return kernel, tangent, tuple(traces)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[tuple, tuple[int, ...]]:
        """Returns the parameters of all layers, and the shape of the outputs."""
        params, keys = {}, jax.random.split(key, len(self.layers))
        for (place, layer), layer_key in zip(self._places, keys, strict=True):
            values, shape = layer.finite_init(layer_key, shape, width)
            if jax.tree.map(np.shape, params.setdefault(place, values)) != jax.tree.map(np.shape, values):
                raise ValueError(MISUSE)
        return tuple(params.values()), shape

    def finite_apply(self, params: tuple, x: Array, tape: Tape) -> Array:
        """Returns the output of the last layer."""
        for place, layer in self._places:
            x = layer.finite_apply(params[place], x, tape)
        return x

    def fan_in(self, params: tuple) -> tuple:
        """Returns the numbers n of all layers."""
        layers = dict(self._places)
        return tuple(layers[place].fan_in(values) for place, values in enumerate(params))


@dataclass(frozen=True)
class Residual(Layer):
    """x + scale branch(x).

    Args:
        branch: a layer whose outputs have the shape of its inputs, and which ends in weights.
        scale: of the branch; 1/sqrt(depth) lets dynamics converge as blocks are added, arXiv:2309.16620.
    """

    branch: Layer
    scale: float = 1.0

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The branch alone."""
        return (self.branch,)

    @property
    def is_linear(self) -> bool:
        """Whether the branch says that it is linear."""
        return getattr(self.branch, "is_linear", False)

    def init(self, setup: Setup, below: Space) -> tuple[Any, Space]:
        """Returns the branch's state; the population above the branch becomes one with that below."""
        state, above = self.branch.init(setup, below)
        if above.sites != below.sites:
            raise ValueError(f"the branch of a Residual must keep its sites {below.sites}, it makes {above.sites}")
        if above.components != below.components:
            raise ValueError("the branch of a Residual must end in as many components as it begins with")
        if above.width != below.width:
            raise ValueError(f"the branch of a Residual must keep its width {below.width:g}, it makes {above.width:g}")
        below.population.join(above.population)
        return state, below

    def forward(self, state: Any, x: Fields, mass: Mass) -> tuple[Any, Fields, Any]:
        """Returns the sum."""
        state, branch, trace = self.branch.forward(state, x, mass)
        return state, x + self.scale * branch, trace

    def backward(self, state: Any, chi: Fields, trace: Any, mass: Mass, signal: Signal) -> tuple[Any, Fields, Any]:
        """Returns the sum of the gradients of both ways."""
        state, down, trace = self.branch.backward(state, self.scale * chi, trace, mass, signal)
        return state, chi + down, trace

    def update(self, state: Any, trace: Any, rate: Fields) -> Any:
        """Returns the branch's state after one step."""
        return self.branch.update(state, trace, rate)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, Any]:
        """Returns the sum: a branch that ends in weights is independent of what it is added to."""
        if not isinstance(uses(self.branch)[-1], (Weights, NeuronWeights)):
            raise ValueError("the lazy limit of a Residual is known for branches that end in Dense, Conv or Bias")
        branch, trace = self.branch.lazy_forward(kernel, seed)
        return kernel + self.scale**2 * branch, trace

    def lazy_backward(self, kernel: np.ndarray, trace: Any, seed: int) -> tuple[np.ndarray, Any, Any]:
        """Returns the sum, for the same reason."""
        down, tangent, trace = self.branch.lazy_backward(self.scale**2 * kernel, trace, seed)
        return kernel + down, tangent, trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Any, tuple[int, ...]]:
        """Returns the parameters of the branch."""
        params, above = self.branch.finite_init(key, shape, width)
        if above != shape:
            raise ValueError(f"the branch of a Residual must keep the shape {shape}, it makes {above}")
        return params, shape

    def finite_apply(self, params: Any, x: Array, tape: Tape) -> Array:
        """Returns x + scale branch(x)."""
        return x + self.scale * self.branch.finite_apply(params, x, tape)

    def fan_in(self, params: Any) -> Any:
        """Returns the numbers n of the branch."""
        return self.branch.fan_in(params)


class Below(NamedTuple):
    """The fields below a layer at initialization."""

    gaussian: bool = True
    gained: bool = False  # whether a gain made them, and no weights since


FIRST = Below()  # data, below the first layer


def check_lazy(layer: Any, below: Below = FIRST) -> Below:
    """Returns what the fields above a layer are.

    Raises:
        ValueError: a layer whose lazy limit is an average over Gaussian fields has others below, or a gain.
    """
    if isinstance(layer, Residual):
        branch = check_lazy(layer.branch, below)
        return Below(below.gaussian and branch.gaussian, below.gained or branch.gained)
    for part in layer.parts:
        below = check_lazy(part, below)
    if layer.parts:
        return below
    if isinstance(layer, Weights):
        return Below()
    if isinstance(layer, Gain):
        return below._replace(gained=True)
    if layer.keeps_gaussian:
        return below
    if not below.gaussian or below.gained:
        reason = GAIN_BELOW if below.gained else NOT_GAUSSIAN
        raise ValueError(reason.format(layer=type(layer).__name__))
    return below._replace(gaussian=False)
