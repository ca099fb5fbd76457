"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield import memory
from kernelfield.devices import ONE_DEVICE, Placement, gathered
from kernelfield.engine.basis import any_full, bases, completed, repeated
from kernelfield.engine.infinite_matrix import decayed, each_side, in_use, moved, slowed
from kernelfield.engine.points import OutOfParticles
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import FieldTrace, Sequential, Setup, Signal, WeightTrace
from kernelfield.layers.base import traces
from kernelfield.losses import LOSSES, Loss
from kernelfield.room import data_space, enlarged, filled, initial_state, rounded, state_bytes
from kernelfield.training import Batches

State = TypeVar("State")

CHUNK = 64  # steps between two fetches, at most
RECORD_BYTES = 2**26  # kernel factors kept on the device between two fetches


class Record(NamedTuple):
    """One evaluation of the network.

    Attributes:
        f: (P,), or (P, C) of C outputs.
        features, gradients: coordinates F and G of hidden layers 1..L, (P, *sites, capacity) each; gradients of every
            output, where they are kept, (P C, *sites, capacity).
        tangent: the tangent kernel (P, P) or (P C, P C), where the factors do not give it.
    """

    f: Fields
    features: tuple[Fields, ...] = ()
    gradients: tuple[Fields, ...] = ()
    tangent: Fields | None = None


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
    """The learning rate eta of a step, and whether it learns at all; or of several steps (n,)."""

    eta: Array
    learns: Array


class Advance(NamedTuple):
    """The state of the march at step `t`, what the steps since `start` recorded, and the latest fields."""

    state: Any
    t: Array
    alive: Array
    records: Record
    fields: tuple[FieldTrace, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of training on one replicate: forward, error signal, backward, update.

    Args:
        layers: of the network.
        loss: whose error signal trains.
        outputs: C; None for one output without an axis of its own.
        plain: back-propagate gradients g of every output that do not carry the error signal Delta, which enters the
            update; else they carry it, summed over outputs.
        factorizes: the tangent kernel follows from feature and gradient kernels; else it is recorded.
        momentum, decays: whether there is momentum, and weight decay.
        records: kernels too, not outputs alone.
    """

    layers: Sequential
    loss: Loss = LOSSES["mse"]
    outputs: int | None = None
    plain: bool = True
    factorizes: bool = True
    momentum: bool = False
    decays: bool = False
    records: bool = True

    orders: ClassVar[int] = 1  # of the power series that fields are

    def begin(self, state: Any, constants: Constants) -> Any:
        """What the first step starts from, given the layers' states at initialization."""
        return state

    @property
    def rows(self) -> int:
        """Rows of each point: one for every output whose gradients are kept apart."""
        return self.outputs if self.outputs and self.plain else 1

    def __call__(self, constants: Constants, state: Any, pace: Pace) -> tuple[Any, Record, tuple]:
        """The state after the step, what was recorded, and the fields at activations."""
        state, f, trace = self.forward(constants, state)
        state, trace = self.descend(constants, state, trace, self.loss.signal(f, constants.y), pace)
        return state, self.recorded(state, f, trace), self.fields(trace)

    def forward(self, constants: Constants, state: Any) -> tuple[Any, Fields, tuple]:
        """The state, f shaped as y, and the trace."""
        data, first = jnp.repeat(constants.data, self.rows, axis=0), 0 if self.outputs is None else slice(None)
        state, f, trace = self.layers.forward(state, Signal(data, data))
        return state, linear(lambda values: values[:: self.rows, first], f), trace

    def descend(self, constants: Constants, state: Any, trace: tuple, Delta: Fields, pace: Pace) -> tuple[Any, tuple]:
        """Backward and update, given the error signal; the state and the completed trace.

        Where a basis was full, nothing is learned: the step is going to be repeated.
        """
        points, one = len(constants.y), jnp.ones_like(constants.weights)
        if self.plain:
            chi, weight = jnp.tile(jnp.eye(self.outputs or 1), (points, 1)), linear(jnp.ravel, Delta)
        else:
            chi, weight = linear(lambda values: values.reshape(points, -1), Delta), one
        state, _, trace = self.layers.backward(state, chi, trace)
        learns = pace.learns & ~any_full(state)
        if self.momentum:
            left = jnp.where(learns, constants.momentum, 1.0)
            state = each_side(lambda side: slowed(side, left), state)
        if self.decays:
            kept = jnp.where(learns, 1 - pace.eta * constants.weight_decay, 1.0)
            state = each_side(lambda side: decayed(side, kept), state)
        rate = jnp.where(learns, constants.weights * (1.0 if self.momentum else pace.eta), 0.0)
        rate = jnp.repeat(rate, self.rows) * weight * constants.gamma0
        rate = linear(lambda values: values.astype(constants.data.dtype), rate)
        state = self.layers.update(state, trace, rate)
        if self.momentum:
            step = jnp.where(learns, pace.eta, 0.0)
            state = each_side(lambda side: moved(side, step), state)
        return state, trace

    def recorded(self, state: Any, f: Fields, trace: tuple) -> Record:
        """The outputs, and the coordinates of features and plain gradients of every hidden layer."""
        if not self.records:
            return Record(f)
        weights = traces(trace, WeightTrace)
        tangent = self.layers.tangent(state, trace, trace) if self.plain and not self.factorizes else None
        features = tuple(linear(lambda F: F[:: self.rows], each.F) for each in weights[1:])
        gradients = tuple(each.G for each in weights[:-1]) if self.plain else ()  # else their kernels are unknown
        return Record(f, features, gradients, tangent)

    def fields(self, trace: tuple) -> tuple[FieldTrace, ...]:
        """What passed the activations: h and phi of points, z and g of their rows."""

        def points(field: Fields) -> Fields:
            return linear(lambda values: values[:: self.rows], field)

        return tuple(each._replace(h=points(each.h), phi=points(each.phi)) for each in traces(trace, FieldTrace))


def blank(shapes: Any) -> Any:
    """Zeros in the shapes of a tree."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def advance(
    step: Step, chunk: int, constants: Constants, state: Any, paces: Pace, start: Array, stop: Array
) -> Advance:
    """March from step `start` to `stop` (at most `chunk` steps), whose paces are given from `start` on.

    Ends early at a step that a basis has no room for, which does not count, and after a step that diverged.
    """
    one = functools.partial(step, constants)
    _, record, fields = jax.eval_shape(one, state, at(paces, 0))
    records = blank(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape), leaf.dtype), record))

    def goes_on(now: Advance) -> Array:
        return (now.t < stop) & now.alive & ~any_full(now.state)

    def go(now: Advance) -> Advance:
        state, record, fields = one(now.state, at(paces, now.t - start))
        done = ~any_full(state)
        state = completed(state, done)
        records = jax.tree.map(
            lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, now.t - start, 0),
            now.records,
            record,
        )
        return Advance(state, now.t + done, stays_low(step, constants, record.f) | ~done, records, fields)

    return lax.while_loop(goes_on, go, Advance(state, start, jnp.array(True), records, blank(fields)))


class Descent(NamedTuple):
    """The state of the march after `done` updates on batches."""

    state: Any
    done: Array
    alive: Array


def descend(
    step: Step, constants: Constants, state: Any, batches: Batches, paces: Pace, begin: Array, end: Array
) -> Descent:
    """Updates `begin` to `end` of those given, each on the points of its batch alone; ends early as `advance` does."""

    def goes_on(now: Descent) -> Array:
        return (now.done < end) & now.alive & ~any_full(now.state)

    def go(now: Descent) -> Descent:
        rows, weights = at(batches, now.done)
        batch = constants._replace(data=constants.data[rows], y=constants.y[rows], weights=weights)
        state, record, _ = step(batch, now.state, at(paces, now.done))
        done = ~any_full(state)
        return Descent(completed(state, done), now.done + done, stays_low(step, batch, record.f) | ~done)

    return lax.while_loop(goes_on, go, Descent(state, begin, jnp.array(True)))


def stays_low(step: Step, constants: Constants, f: Fields) -> Array:
    """Whether the loss is not so high that training has diverged."""
    return constants.weights @ step.loss.values(leading(f), constants.y) <= constants.limit


def at(tree: State, number: Any) -> State:
    """Entry `number` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


class Program(NamedTuple):
    """`advance`, compiled, and the steps it does at most."""

    advance: Callable[..., Advance]
    chunk: int


@functools.lru_cache(maxsize=64)
def _advancing(step: Step, most: int, placement: Placement, signature: tuple) -> Program:
    """For arguments as in `signature`, and as many steps as RECORD_BYTES."""
    given = shapes(signature)
    _, record, _ = jax.eval_shape(step, *given[:2], at(blank(given[2]), 0))
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(record))
    chunk = max(1, min(most, RECORD_BYTES // row))
    return Program(placement.compiled(functools.partial(advance, step, chunk), given, donate_argnums=1), chunk)


@functools.lru_cache(maxsize=64)
def _descending(step: Step, placement: Placement, signature: tuple) -> Callable[..., Descent]:
    """`descend`, compiled for arguments as in `signature`."""
    return placement.compiled(functools.partial(descend, step), shapes(signature), donate_argnums=1)


def _signature(arguments: tuple) -> tuple:
    """Shapes and dtypes of arguments, a flattened tree."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def shapes(signature: tuple) -> Any:
    """The arguments of a signature, as shapes and dtypes."""
    structure, leaves = signature
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


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
        return Pace(jnp.asarray(np.pad(eta, left_over)), jnp.asarray(np.pad(np.full(len(eta), learns), left_over)))

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
        schedule: of the updates.
        capacity: of bases, to begin with.
        drawn_from: constants of the points that batches are of, if these are others.
        placement: of arrays on devices.
        at_once: replicates that march side by side.
    """

    counters: ClassVar[tuple[str, ...]] = ("t", "updates", "alive", "seconds_compile")  # between two calls of `march`

    def __init__(
        self,
        step: Step,
        constants: Constants,
        setup: Setup,
        schedule: Schedule,
        capacity: int,
        drawn_from: Constants | None = None,
        placement: Placement = ONE_DEVICE,
        at_once: int = 1,
    ) -> None:
        self.step, self.constants, self.setup, self.schedule = step, constants, setup, schedule
        self.drawn_from, self.placement, self.at_once = drawn_from or constants, placement, at_once
        self.t, self.updates, self.alive, self.full = 0, 0, True, False
        self.records: list[Record] = []
        self.fields: dict[int, tuple[FieldTrace, ...]] = {}
        self.states: dict[int, Any] = {}
        self.seconds_compile = 0.0
        capacities = itertools.repeat(rounded(capacity, setup.particles))
        self.state = placement.made(lambda: jax.tree.map(jnp.asarray, self._initial_state(capacities)))
        self.directions = (0,) * len(bases(self.state))  # in every basis after the latest march, to be read at any time

    def march(self, stop: int, fields_at: Sequence[int] = (), states_at: Sequence[int] = ()) -> None:
        """Advance to row `stop` unless the run diverges; `alive` tells. Some rows keep their fields, or the state."""
        with jax.enable_x64(True):
            while self.t < stop and self.alive:
                if self.schedule.batches is not None and self.updates < self.t * self.schedule.per_row:
                    self._descend(self.t * self.schedule.per_row)
                else:
                    if self.t in states_at and self._at_row:
                        self.states[self.t] = jax.tree.map(np.array, self.known())  # copies: the state goes on
                    bounds = (bound for t in {*fields_at, *states_at} for bound in (t, t + 1) if bound > self.t)
                    self._advance(min([stop, *bounds]), fields_at)
                if self.full:
                    self._enlarge()
            self.directions = tuple(int(basis.size) for basis in bases(self.state))

    def snapshot(self) -> Any:
        """The state as NumPy arrays, which are valid until it advances."""
        return jax.device_get(gathered(self.state))

    def known(self) -> Any:
        """The snapshot without room and velocities: what a forward pass needs."""
        return in_use(each_side(lambda side: side._replace(velocity=None), self.snapshot()))

    def restore(self, state: Any) -> None:
        """Go on from such a state."""
        self.state = self.placement.made(lambda: jax.tree.map(jnp.asarray, state))

    @property
    def _at_row(self) -> bool:
        """Whether the state is that of row t."""
        return True

    def _advance(self, stop: int, fields_at: Sequence[int]) -> None:
        """One compiled call for the next rows, the last of which may be one that keeps its fields."""
        alone = self.schedule.batches is not None  # a row for itself, which learns nothing
        paces = self.schedule.paces(self.t, learns=not alone)
        arguments = self.constants, self.state, paces, jnp.asarray(self.t), jnp.asarray(stop)
        program = self._compiled(functools.partial(_advancing, self.step, 1 if alone else CHUNK), arguments)
        stop = min(stop, self.t + program.chunk)
        now = jax.block_until_ready(program.advance(*arguments[:4], jnp.asarray(stop)))
        self.state, self.alive, self.full = now.state, bool(now.alive), bool(now.alive) and int(now.t) < stop
        done = int(now.t) - self.t - (not self.alive)  # a step that diverged is not kept
        self.t += done
        if done:
            self.records.append(_slim(jax.tree.map(lambda leaf: np.asarray(leaf)[:done], now.records)))
            if not self.full and self.t - 1 in fields_at:
                self.fields[self.t - 1] = gathered(now.fields)

    def _descend(self, stop: int) -> None:
        """One compiled call for updates on the next batches, before update `stop`."""
        start, count = self.updates, min(CHUNK, stop - self.updates)
        paces, batches = self.schedule.paces(start), self.schedule.drawn(start)
        arguments = self.drawn_from, self.state, batches, paces, jnp.asarray(0), jnp.asarray(count)
        program = self._compiled(functools.partial(_descending, self.step), arguments)
        now = jax.block_until_ready(program(*arguments))
        self.state, self.alive, self.full = now.state, bool(now.alive), bool(now.alive) and int(now.done) < count
        self.updates += int(now.done)

    def _compiled(self, program: Callable[[Placement, tuple], Any], arguments: tuple) -> Any:
        """The program for these arguments; compilation takes turns, and its time is counted."""
        with COMPILING:
            began = time.perf_counter()
            found = program(self.placement, _signature(arguments))
            self.seconds_compile += time.perf_counter() - began
        return found

    def _initial_state(self, capacities: Iterator[int], present: Any = None) -> Any:
        state = initial_state(self.step.layers, self.setup, data_space(self.constants.data), capacities, present)
        return self.step.begin(state, self.constants)

    def _enlarged_bytes(self, capacities: Sequence[int]) -> int:
        """Of a state with so much room."""
        return state_bytes(self.step.layers, self.setup, data_space(self.constants.data), capacities)

    def _enlarge(self) -> None:
        """More room where it is getting short: a larger initial state, with the present one copied into it."""
        particles, found = self.setup.particles, bases(self.state)
        if any(basis.full and len(basis.q) >= particles for basis in found):
            raise OutOfParticles(f"more directions than {particles} particles")
        rooms = [(len(basis.q), int(basis.size), bool(basis.full)) for basis in found]
        capacities = enlarged(rooms, particles)
        memory.require(self.at_once * self._enlarged_bytes(capacities))
        present = repeated(self.snapshot())
        self.state = self.placement.made(
            lambda: filled(lambda: self._initial_state(iter(capacities), present), present)
        )


def _slim(record: Record) -> Record:
    """A copy of what some steps recorded, without room: less of it than bases have, which are growing."""

    def used(values: np.ndarray) -> np.ndarray:
        columns = np.flatnonzero(values.any(axis=tuple(range(values.ndim - 1))))
        return values[..., : rounded(1 + columns.max(initial=0), values.shape[-1])].copy()

    whole = jax.tree.map(np.copy, record._replace(features=(), gradients=()))
    features, gradients = jax.tree.map(used, (record.features, record.gradients))
    return whole._replace(features=features, gradients=gradients)
