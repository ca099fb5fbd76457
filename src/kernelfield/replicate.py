"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.engine.basis import any_full, bases, completed, repeated
from kernelfield.engine.points import OutOfParticles
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import FieldTrace, Sequential, Setup, Signal, Space, WeightTrace
from kernelfield.layers.base import traces

RECORD_BYTES = 2**26  # kernel factors kept on the device between two fetches
NEARLY_FULL = 0.7  # bases this full are enlarged together with one that is full
GROWTH = 1.5  # factor by which they are


class Record(NamedTuple):
    """One evaluation of the network.

    Attributes:
        f: (P,).
        features, gradients: coordinates F and G of hidden layers 1..L, (P, *sites, capacity) each.
        tangent: the tangent kernel (P, P), where the factors do not give it.
    """

    f: Fields
    features: tuple[Fields, ...]
    gradients: tuple[Fields, ...]
    tangent: Fields | None = None


class Constants(NamedTuple):
    """The data, y and weights (P,), gamma0, eta, the last step T, and the loss above which a run has diverged.

    Data (P, *sites, k) are coordinates F_x with F_x F_x^T the input kernel, of every pair of sites.
    """

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
        factorizes: the tangent kernel follows from feature and gradient kernels; else it is recorded.
    """

    layers: Sequential
    plain: bool = True
    factorizes: bool = True

    def begin(self, state: Any, constants: Constants) -> Any:
        """What the first step starts from, given the layers' states at initialization."""
        return state

    orders: ClassVar[int] = 1  # of the power series that fields are

    def __call__(self, constants: Constants, state: Any, t: Array) -> tuple[Any, Record, tuple]:
        """The state after step t, what was recorded, and the fields at activations."""
        state, f, trace = self.layers.forward(state, Signal(constants.data, constants.data))
        state, trace = self.descend(constants, state, trace, constants.y - f, t)
        return state, self.recorded(f, trace), tuple(traces(trace, FieldTrace))

    def descend(self, constants: Constants, state: Any, trace: tuple, Delta: Fields, t: Array) -> tuple[Any, tuple]:
        """Backward and update, given the error signal; the state and the completed trace.

        Where a basis was full, nothing is learned: the step is going to be repeated.
        """
        one = jnp.ones_like(constants.y)
        chi, weight = (one, Delta) if self.plain else (Delta, one)
        state, _, trace = self.layers.backward(state, chi, trace)
        learns = (t < constants.last) & ~any_full(state)
        rate = jnp.where(learns, constants.rate, 0.0) * weight * constants.gamma0
        rate = linear(lambda values: values.astype(constants.data.dtype), rate)
        return self.layers.update(state, trace, rate), trace

    def recorded(self, f: Fields, trace: tuple) -> Record:
        """The outputs, and the coordinates of features and gradients of every hidden layer."""
        weights = traces(trace, WeightTrace)
        tangent = self.layers.tangent(trace, trace) if self.plain and not self.factorizes else None
        return Record(f, tuple(each.F for each in weights[1:]), tuple(each.G for each in weights[:-1]), tangent)


def blank(shapes: Any) -> Any:
    """Zeros in the shapes of a tree."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def advance(step: Step, chunk: int, constants: Constants, state: Any, start: Array, stop: Array) -> Advance:
    """March from step `start` to `stop` (at most `chunk` steps).

    Ends early at a step that a basis has no room for, which does not count, and after a step that diverged.
    """
    one = functools.partial(step, constants)
    _, record, fields = jax.eval_shape(one, state, start)
    records = blank(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape), leaf.dtype), record))

    def goes_on(now: Advance) -> Array:
        return (now.t < stop) & now.alive & ~any_full(now.state)

    def go(now: Advance) -> Advance:
        state, record, fields = one(now.state, now.t)
        loss, done = constants.weights @ (constants.y - leading(record.f)) ** 2 / 2, ~any_full(state)
        state = completed(state, done)
        records = jax.tree.map(
            lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, now.t - start, 0),
            now.records,
            record,
        )
        return Advance(state, now.t + done, (loss <= constants.limit) | ~done, records, fields)

    return lax.while_loop(goes_on, go, Advance(state, start, jnp.array(True), records, blank(fields)))


class Program(NamedTuple):
    """`advance`, compiled, and the steps it does at most."""

    advance: Callable[..., Advance]
    chunk: int


@functools.lru_cache(maxsize=64)
def _compiled(step: Step, signature: tuple) -> Program:
    """For arguments of the shapes and dtypes in `signature` (a flattened tree), and as many steps as RECORD_BYTES."""
    structure, leaves = signature
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    _, record, _ = jax.eval_shape(step, *shapes[:3])
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(record))
    chunk = max(1, min(64, RECORD_BYTES // row))
    function = jax.jit(functools.partial(advance, step, chunk), donate_argnums=1)
    return Program(function.lower(*shapes).compile(), chunk)


COMPILING = threading.Lock()


class Replicate:
    """One scramble: its state on the device, and what its steps have recorded."""

    def __init__(self, step: Step, constants: Constants, setup: Setup, capacity: int) -> None:
        self.step, self.constants, self.setup = step, constants, setup
        self.t, self.alive, self.full = 0, True, False
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
                if self.full:
                    self._enlarge()

    def _advance(self, stop: int) -> tuple[FieldTrace, ...] | None:
        """One compiled call; the fields at the last step done, or None if there was no room for any."""
        arguments = self.constants, self.state, jnp.asarray(self.t), jnp.asarray(stop)
        leaves, structure = jax.tree.flatten(arguments)
        with COMPILING:
            began = time.perf_counter()
            signature = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
            program = _compiled(self.step, signature)
            self.seconds_compile += time.perf_counter() - began
        stop = min(stop, self.t + program.chunk)
        now = jax.block_until_ready(program.advance(*arguments[:3], jnp.asarray(stop)))
        self.state, self.alive, self.full = now.state, bool(now.alive), bool(now.alive) and int(now.t) < stop
        done = int(now.t) - self.t - (not self.alive)  # a step that diverged is not kept
        self.t += done
        if not done:
            return None
        self.records.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:done], now.records))
        return None if self.full else now.fields

    def _initial_state(self, capacities: Iterator[int]) -> Any:
        setup = dataclasses.replace(self.setup, capacities=capacities, populations=[])
        space = Space(None, self.constants.data.shape[1:-1], self.constants.data.shape[-1])
        return self.step.begin(setup.dealt(self.step.layers.init(setup, space)[0]), self.constants)

    def _enlarge(self) -> None:
        """More room where it is getting short: a larger initial state, with the present one copied into it."""
        capacities = []
        for basis in bases(self.state):
            capacity = basis.q.shape[0]
            if basis.full and capacity >= self.setup.particles:
                raise OutOfParticles(f"more directions than {self.setup.particles} particles")
            grows = basis.full or basis.size > NEARLY_FULL * capacity
            capacities.append(self._rounded(GROWTH * capacity) if grows else capacity)
        self.state = jax.tree.map(_into, self._initial_state(iter(capacities)), repeated(jax.device_get(self.state)))

    def _rounded(self, capacity: float) -> int:
        """The next multiple of 32, so that similar problems share a compilation; never more than particles."""
        return min(32 * math.ceil(capacity / 32), self.setup.particles)


def _into(larger: Array, values: np.ndarray) -> Array:
    """`larger` with `values` in its corner; in NumPy, which compiles nothing for new shapes."""
    filled = np.array(larger)
    filled[tuple(slice(n) for n in values.shape)] = values
    return jnp.asarray(filled)
