"""One step of training on one replicate: forward, error signal, backward, update."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.describe.losses import LOSSES, Loss
from kernelfield.engine.infinite_matrix import change_images, decayed, moved, slowed, unlearned
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import FieldTrace, Readout, Sequential, WeightTrace
from kernelfield.layers.base import traces

State = TypeVar("State")


class Constants(NamedTuple):
    """The data, y and weights (P,), gamma0, momentum and weight decay, and the loss above which a run has diverged.

    Data (P, *sites, k) are coordinates F_x with F_x F_x^T the input kernel of every pair of sites; y is (P,) or (P, C).
    """

    data: Array
    y: Array
    weights: Array
    gamma0: Any
    momentum: Array
    weight_decay: Array
    limit: Array


class Pace(NamedTuple):
    """The learning rate eta of a step, whether it learns at all, and whether it is the first; or of several (n,)."""

    eta: Array
    learns: Array
    first: Array


class Marched(NamedTuple):
    """The states of all layers, and phi of the last hidden layer at initialization, of the points of a step."""

    layers: tuple
    initial: Any = None

    def with_layers(self, layers: tuple) -> Marched:
        """The same, with other states of the layers."""
        return self._replace(layers=layers)


class Passed(NamedTuple):
    """What passed a network: traces of the layers below the readout, and of the readout."""

    body: tuple
    readout: WeightTrace


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of training on one replicate: forward, error signal, backward, update.

    Gradients carry the error signal Delta, summed over outputs: one row of gradients a point.

    Args:
        layers: of the network.
        loss: whose error signal trains.
        outputs: C; None for one output without an axis of its own.
        momentum, decays: whether there is momentum, and weight decay.
    """

    layers: Sequential
    loss: Loss = LOSSES["mse"]
    outputs: int | None = None
    momentum: bool = False
    decays: bool = False

    orders: ClassVar[int] = 1  # of the power series that fields are

    @property
    def body(self) -> Sequential:
        """All layers but the last."""
        return Sequential(self.layers.layers[:-1])

    @property
    def readout(self) -> Readout:
        """The last layer."""
        last = self.layers.layers[-1]
        assert isinstance(last, Readout)
        return last

    def begin(self, constants: Constants, state: Marched) -> Any:
        """What the first step starts from, given the layers' states at initialization."""
        return state

    def __call__(self, constants: Constants, state: Any, pace: Pace) -> tuple[Any, Fields]:
        """The state after the step, and f before it."""
        layers, passed = self.forward(state.layers, constants.data, constants.weights)
        phi = passed.readout.phi
        if self.decays:  # W(0) is not what it was
            start = at_start(self, layers, constants.data)
        else:
            start = jnp.where(pace.first, leading(phi), state.initial)
        f = self.output(constants.gamma0, layers, phi, start)
        chi = linear(lambda values: values.reshape(len(values), -1), self.loss.signal(f, constants.y))
        layers, _ = self.descend(constants, layers, passed, chi, constants.weights, pace)
        return Marched(layers, start), f

    def forward(self, layers: tuple, data: Array, mass: Array | None) -> tuple[tuple, Passed]:
        """The states of all layers, and what passed."""
        below, phi, trace = self.body.forward(layers[:-1], data, mass)
        last, _, top = self.readout.forward(layers[-1], phi, mass)
        return (*below, last), Passed(trace, top)

    def output(self, gamma0: Any, layers: tuple, phi: Fields, initial: Array) -> Fields:
        """The outputs f, (P,) or (P, C)."""
        f = self.readout.outputs(layers[-1], phi, initial) / gamma0
        return f if self.outputs else linear(lambda values: values[:, 0], f)

    def backward(self, layers: tuple, passed: Passed, chi: Fields, mass: Array | None) -> tuple[tuple, Passed]:
        """The states of all layers, and what passed on the way down of error signals chi (P, C)."""
        last, z, top = self.readout.backward(layers[-1], chi, passed.readout, mass)
        below, _, trace = self.body.backward(layers[:-1], z, passed.body, mass)
        return (*below, last), Passed(trace, top)

    def descend(
        self, constants: Constants, layers: tuple, passed: Passed, chi: Fields, rate: Fields, pace: Pace
    ) -> tuple[tuple, Passed]:
        """Backward and update; `rate` (P,) are the weights of the rows, with the error signal if chi lacks it."""
        layers, passed = self.backward(layers, passed, chi, constants.weights)
        if self.momentum:
            left = jnp.where(pace.learns, constants.momentum, 1.0)
            layers = change_images(lambda images: slowed(images, left), layers)
        if self.decays:
            kept = jnp.where(pace.learns, 1 - pace.eta * constants.weight_decay, 1.0)
            layers = change_images(lambda images: decayed(images, kept), layers)
        learns = jnp.where(pace.learns, 1.0 if self.momentum else pace.eta, 0.0)
        layers = self.update(layers, passed, self.paced(constants, rate * learns))
        if self.momentum:
            along = jnp.where(pace.learns, pace.eta, 0.0)
            layers = change_images(lambda images: moved(images, along), layers)
        return layers, passed

    def paced(self, constants: Constants, rate: Fields) -> Fields:
        """gamma0 times the rates, in the precision of the fields."""
        return linear(lambda values: values.astype(constants.data.dtype), rate * constants.gamma0)

    def update(self, layers: tuple, passed: Passed, rate: Fields) -> tuple:
        """The states after learning."""
        below = self.body.update(layers[:-1], passed.body, rate)
        return (*below, self.readout.update(layers[-1], passed.readout, rate))

    def every_output(self, layers: tuple, passed: Passed, mass: Array | None = None) -> tuple[tuple, Passed]:
        """The states, and what passed with gradients of every output by itself: rows (P C, ...)."""
        outputs, points = self.outputs or 1, len(leading(passed.readout.phi))
        if outputs > 1:
            passed = jax.tree.map(lambda leaf: jnp.repeat(leaf, outputs, axis=0), passed)
        return self.backward(layers, passed, jnp.tile(jnp.eye(outputs), (points, 1)), mass)

    def fields(self, passed: Passed) -> tuple[FieldTrace, ...]:
        """The fields of points at activations, of what passed with rows (P C, ...)."""
        every = traces(passed.body, FieldTrace)
        outputs = self.outputs or 1
        return tuple(jax.tree.map(lambda leaf: leaf[::outputs], each) for each in every) if outputs > 1 else (*every,)


def at_start(step: Step, layers: tuple, data: Array) -> Array:
    """phi of the last hidden layer (P, *sites, S) if nothing had been learned."""
    return leading(step.forward(change_images(unlearned, layers), data, None)[1].readout.phi)


def stays_low(step: Step, constants: Constants, f: Fields) -> Array:
    """Whether the loss is not so high that training has diverged."""
    return constants.weights @ step.loss.values(leading(f), constants.y) <= constants.limit


def at(tree: State, number: Any) -> State:
    """Entry `number` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[number], tree)
