"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.describe.losses import LOSSES, Loss
from kernelfield.describe.training import Batches
from kernelfield.engine.infinite_matrix import change_images, decayed, moved, slowed, unlearned
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import FieldTrace, Readout, Sequential, Setup, Space, WeightTrace
from kernelfield.layers.base import traces
from kernelfield.march.devices import ONE_DEVICE, Placement, gathered
from kernelfield.march.recorder import RecordedRow, Recorder

State = TypeVar("State")

CHUNK = 64  # steps between two looks of the host, at most
PASS_ROWS = 512  # points times sites of one pass of points that do not learn, about
KEPT = 2**28  # bytes of initial fields that a replicate keeps for its batches


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


class Advance(NamedTuple):
    """The state of the march at step `t`, and f of the steps since the beginning of the chunk."""

    state: Any
    t: Array
    alive: Array
    f: Array


def advance(
    step: Step, chunk: int, constants: Constants, state: Any, paces: Pace, start: Array, stop: Array
) -> Advance:
    """March from step `start` to `stop` (at most `chunk` steps), whose paces are given from `start` on.

    Ends early after a step that diverged.
    """
    shape = jax.eval_shape(functools.partial(step, constants), state, at(paces, 0))[1]
    f = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), shape)

    def go(now: Advance) -> Advance:
        state, f = step(constants, now.state, at(paces, now.t - start))
        kept = jax.tree.map(lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, now.t - start, 0), now.f, f)
        return Advance(state, now.t + 1, stays_low(step, constants, f), kept)

    return lax.while_loop(lambda now: (now.t < stop) & now.alive, go, Advance(state, start, jnp.array(True), f))


class Descent(NamedTuple):
    """The state of the march after `done` updates on batches."""

    state: Any
    done: Array
    alive: Array


def descend(
    step: Step, constants: Constants, state: Any, kept: Any, batches: Batches, paces: Pace, begin: Array, end: Array
) -> Descent:
    """Updates `begin` to `end` of those given, each on the points of its batch alone; ends early if one diverged.

    Args:
        step: of training.
        constants: of the points that batches are of.
        state: at the beginning.
        kept: phi of these points at initialization; None to pass batches through the initial network.
        batches, paces: of the updates.
        begin, end: numbers of the first update and of that after the last one.
    """

    def go(now: Descent) -> Descent:
        rows, weights = at(batches, now.done)
        batch = constants._replace(data=constants.data[rows], y=constants.y[rows], weights=weights)
        start = at_start(step, now.state.layers, batch.data) if kept is None else kept[rows]
        state, f = step(batch, now.state._replace(initial=start), at(paces, now.done))
        return Descent(state._replace(initial=None), now.done + 1, stays_low(step, batch, f))

    return lax.while_loop(lambda now: (now.done < end) & now.alive, go, Descent(state, begin, jnp.array(True)))


def at_start(step: Step, layers: tuple, data: Array) -> Array:
    """phi of the last hidden layer (P, *sites, S) if nothing had been learned."""
    return leading(step.forward(change_images(unlearned, layers), data, None)[1].readout.phi)


def predict(step: Step, gamma0: Any, layers: tuple, data: Array) -> Fields:
    """f of points (P, *sites, k), which take the same pass as those that train."""
    phi = step.forward(layers, data, None)[1].readout.phi
    return step.output(gamma0, layers, phi, at_start(step, layers, data))


class Look(NamedTuple):
    """Bases of the recorder, its row, fields at activations, and the states of the layers where they met directions."""

    bases: Any
    row: RecordedRow
    fields: tuple[FieldTrace, ...]
    layers: tuple | None = None


def look(step: Step, recorder: Recorder, meets: bool, layers: tuple, bases: Any, data: Array) -> Look:
    """Kernels and fields of points.

    Args:
        step: of training.
        recorder: of kernels.
        meets: whether the layers meet the directions of these fields, as they must where there are no tails; else the
            state stays as it is.
        layers, bases: states.
        data: of the points.
    """
    mass = jnp.ones(len(data)) if meets else None
    layers, passed = step.forward(layers, data, mass)
    layers, passed = step.every_output(layers, passed, mass)
    return Look(*recorder.record(bases, passed), step.fields(passed), layers if meets else None)


def stays_low(step: Step, constants: Constants, f: Fields) -> Array:
    """Whether the loss is not so high that training has diverged."""
    return constants.weights @ step.loss.values(leading(f), constants.y) <= constants.limit


def at(tree: State, number: Any) -> State:
    """Entry `number` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any], placement: Placement, donated: int | None, signature: tuple) -> Any:
    """A function, compiled for arguments as in `signature`."""
    options = {} if donated is None else {"donate_argnums": donated}
    return placement.compiled(function, shapes(signature), **options)


def _signature(arguments: tuple) -> tuple:
    """Shapes and dtypes of arguments, a flattened tree."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def shapes(signature: tuple) -> Any:
    """The arguments of a signature, as shapes and dtypes."""
    structure, leaves = signature
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of arrays and its settings, which can be compared."""

    function: Callable[..., Any]
    settings: tuple

    def __call__(self, *arguments: Any) -> Any:
        """Of arrays."""
        return self.function(*self.settings, *arguments)


COMPILING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate of every update (T,), and the batches that they learn from, so many between two rows.

    Without batches an update learns from all points, and every one has a row.
    """

    rates: np.ndarray
    batches: Batches | None = None
    per_row: int = 1

    def paces(self, start: int, learns: bool = True) -> Pace:
        """Of CHUNK updates; those beyond the last one do not learn."""
        eta = self.rates[start : start + CHUNK]
        left_over = (0, CHUNK - len(eta))
        learn = np.pad(np.full(len(eta), learns), left_over)
        first = learn & (self.batches is None) & (start + np.arange(CHUNK) == 0)
        return Pace(*map(jnp.asarray, (np.pad(eta, left_over), learn, first)))

    def drawn(self, start: int) -> Batches:
        """Of CHUNK updates."""
        assert self.batches is not None
        several = (values[start : start + CHUNK] for values in self.batches)
        rows, weights = (np.pad(values, [(0, CHUNK - len(values)), (0, 0)]) for values in several)
        return jax.tree.map(jnp.asarray, Batches(rows, weights))


class Replicate:
    """One scramble: its state on the device, and what its steps have recorded.

    Args:
        step: of training.
        constants: of the points that rows are of.
        setup: of the initial state.
        space: of the data.
        schedule: of the updates.
        recorder: of kernels.
        drawn_from: constants of the points that batches are of, if these are others.
        placement: of arrays on devices.
    """

    counters: ClassVar[tuple[str, ...]] = ("t", "updates", "alive", "primed", "seconds_compile")

    def __init__(
        self,
        step: Step,
        constants: Constants,
        setup: Setup,
        space: Space,
        schedule: Schedule,
        recorder: Recorder,
        drawn_from: Constants | None = None,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        self.step, self.constants, self.setup, self.space, self.schedule = step, constants, setup, space, schedule
        self.recorder, self.drawn_from, self.placement = recorder, drawn_from or constants, placement
        self.t, self.updates, self.alive, self.primed = 0, 0, True, False
        self.outputs: list[np.ndarray] = []  # f of rows in a row
        self.rows: dict[int, RecordedRow] = {}  # by step
        self.fields: dict[int, tuple[FieldTrace, ...]] = {}
        self.states: dict[int, Any] = {}
        self.starts: dict[int, Any] = {}  # at 0, phi of all points at initialization, which batches are gathered from
        self.seconds_compile = 0.0
        self.state, self.bases = self.placed(self._initial_state()), self.placed(recorder.bases(setup))

    def march(self, stop: int, kernels_at: Sequence[int], fields_at: Sequence[int], states_at: Sequence[int]) -> None:
        """Advance to row `stop` unless the run diverges; `alive` tells. Some rows keep kernels, fields or states."""
        with jax.enable_x64(True):
            if not self.primed:
                self._prime()
            while self.t < stop and self.alive:
                if self._behind:
                    self._descend()
                    continue
                looks = {*kernels_at, *fields_at}
                if self.t in looks and self._at_row:
                    self._look(self.t in fields_at)
                if self.t in states_at and self._at_row:
                    self.states[self.t] = self.known()
                later = (row for row in (*looks, *states_at) if row > self.t)
                self._advance(min([stop, *later]))

    @property
    def all_state(self) -> tuple[Any, Any]:
        """What it goes on from: the state, and the bases of the recorder."""
        return self.state, self.bases

    def snapshot(self) -> tuple[Any, Any]:
        """`all_state` as NumPy arrays, which are valid until it advances."""
        return jax.device_get(gathered(self.all_state))

    def known(self) -> tuple:
        """The states of the layers, for a forward pass: without velocities, as copies."""
        layers = change_images(lambda images: images._replace(velocity=None), self.state.layers)
        return jax.tree.map(np.array, jax.device_get(gathered(layers)))

    def restore(self, state: Any, bases: Any) -> None:
        """Go on from such a state."""
        self.state, self.bases = self.placed(state), self.placed(bases)

    def placed(self, tree: Any) -> Any:
        """A tree of NumPy arrays on the devices."""
        return self.placement.made(lambda: jax.tree.map(jnp.asarray, tree))

    @property
    def batched(self) -> bool:
        """Whether updates are on batches."""
        return self.schedule.batches is not None

    @property
    def _behind(self) -> bool:
        """Whether the next row has updates before it that are not done."""
        return self.batched and self.updates < self.t * self.schedule.per_row

    @property
    def _at_row(self) -> bool:
        """Whether the state is that of row t."""
        return True

    def _prime(self) -> None:
        """Meet the leading directions of the first fields, which have Gaussian coordinates; nothing is learned."""
        paces = self.schedule.paces(0, learns=False)
        if self.batched:
            self._descend(primes=True)
        else:
            self._run_rows(1, paces)
        self.primed = True

    def _advance(self, stop: int) -> None:
        """The rows up to `stop`, or as many as one compiled call does."""
        if self.batched:  # a row for itself
            self.outputs.append(self._predicted()[None])
            self.t += 1
            return
        now = self._run_rows(min(stop, self.t + CHUNK), self.schedule.paces(self.t))
        self.alive = bool(now.alive)
        done = int(now.t) - self.t - (not self.alive)  # a step that diverged is not kept
        self.t += done
        if done:
            self.outputs.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:done], now.f))

    def _run_rows(self, stop: int, paces: Pace) -> Advance:
        start = jnp.asarray(self.t)
        arguments = self.constants, self.state, paces, start, jnp.asarray(stop)
        now = self._run(advance, (self.step, CHUNK), *arguments, donated=1)
        self.state = now.state
        return now

    def _descend(self, primes: bool = False) -> None:
        """One compiled call for updates on the next batches, before row t."""
        if not self.starts and not primes and self._keeps_starts:
            self.starts[0] = self._blocks(at_start, self.drawn_from.data)
        start = self.updates
        count = 1 if primes else min(CHUNK, self.t * self.schedule.per_row - self.updates)
        paces, batches = self.schedule.paces(start, learns=not primes), self.schedule.drawn(start)
        numbers = jnp.asarray(0), jnp.asarray(count)
        arguments = self.drawn_from, self.state, self.starts.get(0), batches, paces, *numbers
        now = self._run(descend, (self.step,), *arguments, donated=1)
        self.state = now.state
        if not primes:
            self.alive, self.updates = bool(now.alive), self.updates + int(now.done)

    @property
    def _keeps_starts(self) -> bool:
        """Whether the initial fields of all points fit where they are kept."""
        data = self.drawn_from.data
        sites = math.prod(data.shape[1:-1])
        return not self.step.decays and len(data) * sites * self.setup.particles * data.dtype.itemsize <= KEPT

    def _predicted(self) -> np.ndarray:
        """f of all points, in the state as it is."""
        return np.asarray(self._blocks(predict, self.constants.data, self.constants.gamma0))

    def _blocks(self, function: Callable[..., Any], data: Array, *more: Any) -> Array:
        """What a function makes of all points, as many at a time as PASS_ROWS has."""
        return blocks(lambda block: self._run(function, (self.step,), *more, self.state.layers, block), data)

    def _look(self, keep_fields: bool) -> None:
        """Record kernels of the state as it is, and its fields."""
        settings = self.step, self.recorder, self.setup.is_exact
        now = self._run(look, settings, self.state.layers, self.bases, self.constants.data)
        self.bases = now.bases
        if now.layers is not None:
            self.state = self.state.with_layers(now.layers)
        self.rows[self.t] = jax.tree.map(np.asarray, gathered(now.row))
        if keep_fields:
            self.fields[self.t] = gathered(now.fields)

    def _run(self, function: Callable[..., Any], settings: tuple, *arguments: Any, donated: int | None = None) -> Any:
        """A compiled call; compilation takes turns, and its time is counted."""
        with COMPILING:
            began = time.perf_counter()
            program = _compiled(Program(function, settings), self.placement, donated, _signature(arguments))
            self.seconds_compile += time.perf_counter() - began
        return jax.block_until_ready(program(*arguments))

    def _initial_state(self) -> Any:
        data, start = self.constants.data, None
        layers = initial_state(self.step.layers, self.setup, self.space)
        if not self.batched:
            shape = jax.eval_shape(functools.partial(at_start, self.step), layers, data)
            start = np.zeros(shape.shape, shape.dtype)
        return self.step.begin(self.constants, Marched(layers, start))


def initial_state(layers: Sequential, setup: Setup, space: Space) -> tuple:
    """The states of all layers at initialization, in NumPy, for data in a space."""
    setup = dataclasses.replace(setup, populations=[])
    return setup.dealt(layers.init(setup, space)[0])


def blocks(function: Callable[[Array], Any], data: Any) -> Array:
    """What a function makes of all points, as many at a time as PASS_ROWS has; the last block is filled up."""
    size = min(len(data), max(1, PASS_ROWS // math.prod(data.shape[1:-1])))
    parts = []
    for start in range(0, len(data), size):
        block = np.arange(start, start + size) % len(data)
        parts.append(function(data[block] if size < len(data) else data))
    return jnp.concatenate(parts)[: len(data)] if len(parts) > 1 else parts[0]
