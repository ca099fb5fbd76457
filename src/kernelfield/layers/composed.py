"""Layers made of others: one after the other, and residual blocks; and whose lazy limit is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from kernelfield.engine.directions import project
from kernelfield.engine.infinite_matrix import InfiniteMatrix
from kernelfield.engine.series import Fields
from kernelfield.layers.base import Layer, Mass, Setup, Signal, Space, Stateless, Tape, uses
from kernelfield.layers.branches import MIXED, Branches, BranchTrace, Concatenate, Multiply
from kernelfield.layers.stateless import Activation
from kernelfield.layers.vectors import Gain, NeuronWeights
from kernelfield.layers.weights import Dense, Weights

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
class Residual(Branches):
    """x + scale branch(x).

    Args:
        branch: a layer whose outputs have the shape of its inputs, and which ends in weights.
        scale: of the branch; 1/sqrt(depth) lets dynamics converge as blocks are added, arXiv:2309.16620.
    """

    branch: Layer
    scale: float = 1.0

    @property
    def branches(self) -> tuple[Layer, ...]:  # type: ignore[override]
        """The field itself, and the branch."""
        return Sequential([]), self.branch

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The branch alone, which ends in the space in which it begins."""
        return (self.branch,)

    def join_spaces(self, spaces: Sequence[Space]) -> Space:
        """Returns the space below, in which the branch has to end."""
        below, above = spaces
        if above.sites != below.sites:
            raise ValueError(f"the branch of a Residual must keep its sites {below.sites}, it makes {above.sites}")
        if above.components != below.components:
            raise ValueError("the branch of a Residual must end in as many components as it begins with")
        if above.width != below.width:
            raise ValueError(f"the branch of a Residual must keep its width {below.width:g}, it makes {above.width:g}")
        return below

    def combine(self, fields: Sequence[Fields]) -> Fields:
        """Returns the sum."""
        return fields[0] + self.scale * fields[1]

    def share(self, chi: Fields, fields: Sequence[Fields]) -> tuple[Fields, Fields]:
        """Returns the gradients of both ways."""
        return chi, self.scale * chi

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, BranchTrace]:
        """Returns the sum: a branch that ends in weights is independent of what it is added to."""
        if not isinstance(uses(self.branch)[-1], (Weights, NeuronWeights)):
            raise ValueError("the lazy limit of a Residual is known for branches that end in Dense, Conv or Bias")
        return super().lazy_forward(kernel, seed)

    def combine_kernels(self, kernels: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the sum."""
        return kernels[0] + self.scale**2 * kernels[1]

    def share_kernel(self, kernel: np.ndarray, kernels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernels of both ways."""
        return kernel, self.scale**2 * kernel

    def split_key(self, key: Array) -> Any:
        """Returns the key of the branch, which alone draws weights."""
        return key, key

    def join_shapes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape below."""
        below, above = shapes
        if above != below:
            raise ValueError(f"the branch of a Residual must keep the shape {below}, it makes {above}")
        return below


def stack_gated_layers(depth: int, gate: str | Callable[[Any], Any]) -> Layer:
    """Returns `depth` gated linear layers, h^l = gate(m^l . x) W^l h^{l-1}, with h^0 = x, for a network of their own.

    Each has a gate of its own, a fixed random function of the field x below the first of them; W^l learns.
    `Dense(learns=False)` as the first layer of the network hands data on: its field has their kernel.

    Args:
        depth: number of layers.
        gate: a name that `Activation` knows, or any elementwise JAX function.

    Source: arXiv:2210.02157, section on gated linear networks.

    Example:
        >>> import kernelfield as kf
        >>> from kernelfield.layers import Dense, Readout, stack_gated_layers
        >>> network = kf.Network(layers=[Dense(learns=False), stack_gated_layers(2, "softplus"), Readout()])
        >>> network.hidden_layers  # data, and two weights a layer
        5
    """
    layers: Layer = Sequential([])
    for _ in range(depth):
        gates = Sequential([Dense(learns=False), Activation(gate)])  # type: ignore[arg-type]
        layers = Multiply([Sequential([layers, Dense()]), gates])
    return layers


class Below(NamedTuple):
    """The fields below a layer at initialization."""

    gaussian: bool = True
    gained: bool = False  # whether a gain made them, and no weights since
    mixed: bool = False  # whether neurons of several laws are side by side


FIRST = Below()  # data, below the first layer


def check_lazy(layer: Any, below: Below = FIRST) -> Below:
    """Returns what the fields above a layer are.

    Raises:
        ValueError: a layer whose lazy limit is an average over Gaussian fields has others below, or a gain.
    """
    if isinstance(layer, Branches):
        gaussian, gained, mixed = zip(*(check_lazy(branch, below) for branch in layer.branches), strict=True)
        if isinstance(layer, Multiply) and any(mixed):
            raise ValueError(MIXED)
        sums = isinstance(layer, Residual)
        return Below(sums and all(gaussian), any(gained), any(mixed) or isinstance(layer, Concatenate))
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
