"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.basis import bases, capacity_needed, room
from kernelfield.engine.points import OutOfParticles
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import FieldTrace, Sequential, Setup, WeightTrace

RECORD_BYTES = 2**26  # kernel factors kept on the device between two fetches
NEARLY_FULL = 0.8  # bases this full are enlarged together with one that is full


class Record(NamedTuple):
    """One evaluation of the network: f (P,), and kernel factors of hidden layers 1..L (P, capacity each)."""

    f: Fields
    features: tuple[Fields, ...]
    gradients: tuple[Fields, ...]


class Constants(NamedTuple):
    """F_x (P, k), y and weights (P,), gamma0, eta, the last step T, and the loss above which a run has diverged."""

    data: Array
    y: Array
    weights: Array
    gamma0: Any
    eta: Array
    last: Array
    limit: Array

    @property
    def rate(self) -> Array:
        """Learning rate of every point (P,)."""
        return self.eta * self.weights


class Advance(NamedTuple):
    """The state of the march at step `t`, what the steps since `start` recorded, and the latest fields."""

    state: Any
    t: Array
    alive: Array
    records: Record
    fields: tuple[FieldTrace, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of training on one replicate: forward, error signal, backward, update (none at the last step).

    Args:
        layers: of the network.
        plain: back-propagate gradients g that do not carry the error signal Delta, which then enters the update;
            else they carry it.
    """

    layers: Sequential
    plain: bool = True

    def begin(self, state: Any, constants: Constants) -> Any:
        """What the first step starts from, given the layers' states at initialization."""
        return state

    def rows(self, points: int) -> int:
        """Rows that one step represents in a basis."""
        return points

    def __call__(self, constants: Constants, state: Any, t: Array) -> tuple[Any, Record, tuple]:
        """The state after step t, what was recorded, and the fields at activations."""
        state, f, trace = self.layers.forward(state, constants.data)
        state, trace = self.descend(constants, state, trace, constants.y - f, t)
        return state, recorded(f, trace), activations(trace)

    def descend(self, constants: Constants, state: Any, trace: tuple, Delta: Fields, t: Array) -> tuple[Any, tuple]:
        """Backward and update, given the error signal; the state and the completed trace."""
        one = jnp.ones_like(constants.y)
        chi, weight = (one, Delta) if self.plain else (Delta, one)
        state, _, trace = self.layers.backward(state, chi, trace)
        rate = jnp.where(t < constants.last, constants.rate, 0.0) * weight * constants.gamma0
        rate = linear(lambda values: values[:, None].astype(constants.data.dtype), rate)
        return self.layers.update(state, trace, rate), trace


def recorded(f: Fields, trace: tuple) -> Record:
    """The outputs, and the coordinates of features and gradients of every hidden layer."""
    weights = [each for each in trace if isinstance(each, WeightTrace)]
    return Record(f, tuple(each.F for each in weights[1:]), tuple(each.G for each in weights[:-1]))


def activations(trace: tuple) -> tuple[FieldTrace, ...]:
    """The fields of hidden layers 1..L."""
    return tuple(each for each in trace if isinstance(each, FieldTrace))


def blank(shapes: Any) -> Any:
    """Zeros in the shapes of a tree."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def advance(step: Step, chunk: int, constants: Constants, state: Any, start: Array, stop: Array) -> Advance:
    """March from step `start` to `stop` (at most `chunk` steps).

    Ends early, before a step, when a basis might not have room for it, and after a step that diverged.
    """
    one = functools.partial(step, constants)
    _, record, fields = jax.eval_shape(one, state, start)
    records = blank(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape), leaf.dtype), record))
    rows = step.rows(len(constants.y))

    def goes_on(now: Advance) -> Array:
        return (now.t < stop) & now.alive & room(now.state, rows)

    def go(now: Advance) -> Advance:
        state, record, fields = one(now.state, now.t)
        loss = constants.weights @ (constants.y - leading(record.f)) ** 2 / 2
        records = jax.tree.map(
            lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, now.t - start, 0),
            now.records,
            record,
        )
        return Advance(state, now.t + 1, loss <= constants.limit, records, fields)

    return lax.while_loop(goes_on, go, Advance(state, start, jnp.array(True), records, blank(fields)))


@functools.lru_cache(maxsize=64)
def _compiled(step: Step, chunk: int, signature: tuple) -> Callable[..., Advance]:
    """`advance`, compiled for arguments of the shapes and dtypes in `signature` (a flattened tree)."""
    structure, leaves = signature
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    function = jax.jit(functools.partial(advance, step, chunk), donate_argnums=1)
    return function.lower(*shapes).compile()


COMPILING = threading.Lock()


class Replicate:
    """One scramble: its state on the device, and what its steps have recorded."""

    def __init__(self, step: Step, constants: Constants, setup: Setup, capacity: int) -> None:
        self.step, self.constants, self.setup = step, constants, setup
        self.rows, self.t, self.alive = step.rows(len(constants.y)), 0, True
        self.records: list[Record] = []
        self.fields: dict[int, tuple[FieldTrace, ...]] = {}
        self.seconds_compile = 0.0
        self.state = self._initial_state(itertools.repeat(self._rounded(capacity)))

    def march(self, stop: int, fields_at: Sequence[int]) -> None:
        """Advance to step `stop` unless the run diverges; `alive` tells."""
        with jax.enable_x64(True):
            while self.t < stop and self.alive:
                reached = self._advance(min([stop, *(t + 1 for t in fields_at if t >= self.t)]))
                if reached and self.t - 1 in fields_at:
                    self.fields[self.t - 1] = reached
                if self.t < stop and self.alive and not room(self.state, self.rows):
                    self._enlarge()

    def _advance(self, stop: int) -> tuple[FieldTrace, ...] | None:
        """One compiled call; the fields at the last step done, or None if there was no room for any."""
        chunk = self._chunk()
        stop = min(stop, self.t + chunk)
        arguments = self.constants, self.state, jnp.asarray(self.t), jnp.asarray(stop)
        leaves, structure = jax.tree.flatten(arguments)
        with COMPILING:
            began = time.perf_counter()
            signature = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
            function = _compiled(self.step, chunk, signature)
            self.seconds_compile += time.perf_counter() - began
        now = jax.block_until_ready(function(*arguments))
        self.state, self.alive = now.state, bool(now.alive)
        done = int(now.t) - self.t - (not self.alive)  # a step that diverged is not kept
        self.t += done
        if not done:
            return None
        self.records.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:done], now.records))
        return now.fields

    def _chunk(self) -> int:
        """Steps whose records fit in RECORD_BYTES."""
        row = sum(basis.q.shape[0] * basis.q.dtype.itemsize for basis in bases(self.state)) * self.rows
        return max(1, min(64, RECORD_BYTES // row))

    def _initial_state(self, capacities: Iterator[int]) -> Any:
        setup = dataclasses.replace(self.setup, capacities=capacities, populations=[])
        return self.step.begin(setup.dealt(self.step.layers.init(setup, None)[0]), self.constants)

    def _enlarge(self) -> None:
        """More room where it is getting short: a larger initial state, with the present one copied into it."""
        capacities = []
        for basis in bases(self.state):
            needed, capacity = int(capacity_needed(basis, self.rows)), basis.q.shape[0]
            if needed > self.setup.particles:
                raise OutOfParticles(f"{needed} directions do not fit {self.setup.particles} particles")
            full = needed > NEARLY_FULL * capacity
            capacities.append(self._rounded(max(1.5 * capacity, needed) + self.rows) if full else capacity)
        self.state = jax.tree.map(
            lambda new, old: new.at[tuple(slice(n) for n in old.shape)].set(old),
            self._initial_state(iter(capacities)),
            self.state,
        )

    def _rounded(self, capacity: float) -> int:
        """The next multiple of 32, so that similar problems share a compilation; never more than particles."""
        return min(32 * math.ceil(capacity / 32), self.setup.particles)
