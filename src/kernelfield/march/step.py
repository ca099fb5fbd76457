"""One step of training on one replicate: forward, error signal, backward, update."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.describe.losses import LOSSES, Loss
from kernelfield.engine.infinite_matrix import change_images, collect, damp, decay, forget, move
from kernelfield.engine.series import Fields, apply_linear, lowest_order
from kernelfield.layers import FieldTrace, Readout, Sequential, WeightTrace
from kernelfield.layers.base import Mass, Signal


class Constants(NamedTuple):
    """The numbers of a run that do not change."""

    data: Array  # coordinates F_x (P, *sites, k) with F_x F_x^T the input kernel of every pair of sites
    y: Array  # targets (P, C)
    weights: Array  # of points in the loss (P,)
    gamma0: Any
    momentum: Array
    weight_decay: Array
    limit: Array  # the loss above which a run has diverged
    temperature: Array | None = None  # of Langevin dynamics


class Pace(NamedTuple):
    """How a step learns: its rate, whether it learns at all, whether it is the first; a key, its number from 1 on."""

    eta: Any
    learns: Any
    first: Any
    noise: Array | None = None  # a key
    number: Any = None


class Marched(NamedTuple):
    """The state of the march: of all layers, and phi of the last hidden layer at initialization for a step's points."""

    layers: tuple
    initial: Any = None


class Passed(NamedTuple):
    """What a pass through the network leaves: traces of the layers below the readout, and of the readout."""

    body: tuple
    readout: WeightTrace


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of training on one replicate: forward, error signal, backward, update.

    Gradients carry the error signal Delta, summed over outputs: one row of gradients a point.
    """

    layers: Sequential
    loss: Loss = LOSSES["mse"]  # whose error signal trains
    outputs: int = 1  # C
    momentum: bool = False  # whether there is momentum
    decays: bool = False  # whether there is weight decay
    by_gradients: bool = True  # False: what moves weights below the readout stands for gradients
    hebbian: bool = False  # whether these are activities

    orders: ClassVar[int] = 1  # of the power series that fields are

    @property
    def body(self) -> Sequential:
        """All layers but the readout."""
        return Sequential(self.layers.layers[:-1])

    @property
    def readout(self) -> Readout:
        """The readout, the last layer."""
        last = self.layers.layers[-1]
        assert isinstance(last, Readout)
        return last

    def begin(self, constants: Constants, state: Marched) -> Any:
        """Returns what the first step starts from, given the state at initialization."""
        return state

    def __call__(self, constants: Constants, state: Any, pace: Pace) -> tuple[Any, Fields]:
        """Returns the state after the step, and f before it."""
        mass = self.mass(constants)
        layers, passed = self.forward(state.layers, constants.data, mass)
        phi = passed.readout.phi
        if self.decays:  # W(0) is not what it was
            start = at_start(self, layers, constants.data)
        else:
            start = jnp.where(pace.first, lowest_order(phi), state.initial)
        f = self.output(constants.gamma0, layers, phi, start)
        Delta = self.loss.signal(f, constants.y)
        layers, passed = self.backward(layers, passed, Delta, mass, Delta if self.hebbian else None)
        return Marched(self.learn(constants, layers, passed, constants.weights, pace), start), f

    def mass(self, constants: Constants) -> Mass:
        """Returns what chooses directions: the weights of points, those in the loss."""
        return constants.weights

    def initial(self, layers: tuple) -> tuple:
        """Returns the states as if nothing had been learned, with what weight decay left of the initial weights."""
        return change_images(forget, layers)

    def forward(self, layers: tuple, data: Array, mass: Mass) -> tuple[tuple, Passed]:
        """Returns the states of all layers, and what the pass left."""
        below, phi, trace = self.body.forward(layers[:-1], data, mass)
        last, _, top = self.readout.forward(layers[-1], phi, mass)
        return (*below, last), Passed(trace, top)

    def output(self, gamma0: Any, layers: tuple, phi: Fields, initial: Array) -> Fields:
        """Returns the outputs f (P, C)."""
        return self.readout.outputs(layers[-1], phi, initial) / gamma0

    def backward(
        self, layers: tuple, passed: Passed, chi: Fields, mass: Mass, Delta: Array | None = None
    ) -> tuple[tuple, Passed]:
        """Returns the states of all layers, and what error signals chi (P, C) leave on their way down.

        Activities stand for gradients where the error signals Delta (P, C) of training are given.
        """
        signal = Signal(chi, None if Delta is None else jnp.sum(chi * Delta, axis=1))
        last, z, top = self.readout.backward(layers[-1], chi, passed.readout, mass, signal)
        below, _, trace = self.body.backward(layers[:-1], z, passed.body, mass, signal)
        return (*below, last), Passed(trace, top)

    def learn(self, constants: Constants, layers: tuple, passed: Passed, rate: Fields, pace: Pace) -> tuple:
        """Returns the states after one step of gradient descent, given a pass up and down.

        The rate (P,) has the weights of the rows, times the error signal if the gradients do not carry it.
        """
        if self.momentum:
            left = jnp.where(pace.learns, constants.momentum, 1.0)
            layers = change_images(lambda images: damp(images, left), layers)
        if self.decays:
            kept = jnp.where(pace.learns, 1 - pace.eta * constants.weight_decay, 1.0)
            layers = change_images(lambda images: decay(images, kept), layers)
        learns = jnp.where(pace.learns, 1.0 if self.momentum else pace.eta, 0.0)
        layers = self.update(layers, passed, self.paced(constants, rate * learns))
        if self.momentum:
            along = jnp.where(pace.learns, pace.eta, 0.0)
            layers = change_images(lambda images: move(images, along), layers)
        return layers

    def paced(self, constants: Constants, rate: Fields) -> Fields:
        """Returns gamma0 times the rates, in the precision of the fields."""
        return apply_linear(lambda values: values.astype(constants.data.dtype), rate * constants.gamma0)

    def update(self, layers: tuple, passed: Passed, rate: Fields) -> tuple:
        """Returns the states after learning."""
        below = self.body.update(layers[:-1], passed.body, rate)
        return (*below, self.readout.update(layers[-1], passed.readout, rate))

    def every_output(
        self, layers: tuple, passed: Passed, mass: Mass = None, Delta: Array | None = None
    ) -> tuple[tuple, Passed]:
        """Returns the states, and what a pass with gradients of every output leaves, in rows (P C, ...).

        Activities stand for gradients where the error signals Delta (P, C) of training are given.
        """
        points = len(lowest_order(passed.readout.phi))
        if self.outputs > 1:
            passed = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.outputs, axis=0), passed)
            Delta = None if Delta is None else jnp.repeat(Delta, self.outputs, axis=0)
        return self.backward(layers, passed, jnp.tile(jnp.eye(self.outputs), (points, 1)), mass, Delta)

    def pseudo_gradients(self, constants: Constants, layers: tuple, passed: Passed) -> Passed:
        """Returns what a pass leaves with what stands for the gradients of every output, given a pass up."""
        Delta = None
        if self.hebbian:
            f = self.output(constants.gamma0, layers, passed.readout.phi, at_start(self, layers, constants.data))
            Delta = self.loss.signal(f, constants.y)
        return self.every_output(layers, passed, None, Delta)[1]

    def fields(self, passed: Passed) -> tuple[FieldTrace, ...]:
        """Returns the fields of points at activations, given a pass with rows (P C, ...)."""
        fields = tuple(collect(passed.body, FieldTrace))
        return jax.tree.map(lambda leaf: leaf[:: self.outputs], fields) if self.outputs > 1 else fields


def at_start(step: Step, layers: tuple, data: Array) -> Array:
    """Returns phi of the last hidden layer (P, *sites, S) as if nothing had been learned."""
    return lowest_order(step.forward(step.initial(layers), data, None)[1].readout.phi)


def has_not_diverged(step: Step, constants: Constants, f: Fields) -> Array:
    """Returns whether the loss is below the limit."""
    return constants.weights @ step.loss.values(lowest_order(f), constants.y) <= constants.limit


def entry(tree: Any, number: Any) -> Any:
    """Returns one entry of every leaf."""
    return jax.tree.map(lambda leaf: leaf[number], tree)
