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
from kernelfield.layers import FieldTrace, Sequential, Setup, WeightTrace

RECORD_BYTES = 2**26  # kernel factors kept on the device between two fetches
NEARLY_FULL = 0.8  # bases this full are enlarged together with one that is full


class Record(NamedTuple):
    """One evaluation of the network: f (P,), and kernel factors of hidden layers 1..L (P, capacity each)."""

    f: Array
    features: tuple[Array, ...]
    gradients: tuple[Array, ...]


class Constants(NamedTuple):
    """F_x (P, k), y (P,), c = eta gamma0 / P, the last step T, and the loss above which a run has diverged."""

    data: Array
    y: Array
    rate: Array
    last: Array
    limit: Array


class Advance(NamedTuple):
    """The state of the march at step `t`, what the steps since `start` recorded, and the latest fields."""

    state: Any
    t: Array
    alive: Array
    records: Record
    fields: tuple[FieldTrace, ...]


def step(layers: Sequential, plain: bool, constants: Constants, state: Any, t: Array) -> tuple[Any, Record, tuple]:
    """One step of training on one replicate: forward, error signal, backward, update (none at the last step).

    Plain gradients g do not carry the error signal Delta, which then enters the update; else they carry it.
    """
    state, f, trace = layers.forward(state, constants.data)
    Delta = constants.y - f
    chi, weight = (jnp.ones_like(Delta), Delta) if plain else (Delta, jnp.ones_like(Delta))
    state, _, trace = layers.backward(state, chi, trace)
    rate = jnp.where(t < constants.last, constants.rate, 0.0) * weight
    state = layers.update(state, trace, rate.astype(constants.data.dtype))
    weights = [each for each in trace if isinstance(each, WeightTrace)]
    record = Record(f, tuple(each.F for each in weights[1:]), tuple(each.G for each in weights[:-1]))
    return state, record, tuple(each for each in trace if isinstance(each, FieldTrace))


def advance(
    layers: Sequential, plain: bool, chunk: int, constants: Constants, state: Any, start: Array, stop: Array
) -> Advance:
    """March from step `start` to `stop` (at most `chunk` steps).

    Ends early, before a step, when a basis might not have room for it, and after a step that diverged.
    """
    one = functools.partial(step, layers, plain, constants)
    _, record, fields = jax.eval_shape(one, state, start)
    blank = functools.partial(jax.tree.map, lambda leaf: jnp.zeros(leaf.shape, leaf.dtype))
    records = blank(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape), leaf.dtype), record))
    points = len(constants.y)

    def goes_on(now: Advance) -> Array:
        return (now.t < stop) & now.alive & room(now.state, points)

    def go(now: Advance) -> Advance:
        state, record, fields = one(now.state, now.t)
        loss = jnp.mean((constants.y - record.f) ** 2) / 2
        records = jax.tree.map(
            lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, now.t - start, 0),
            now.records,
            record,
        )
        return Advance(state, now.t + 1, loss <= constants.limit, records, fields)

    return lax.while_loop(goes_on, go, Advance(state, start, jnp.array(True), records, blank(fields)))


@functools.lru_cache(maxsize=64)
def _compiled(layers: Sequential, plain: bool, chunk: int, signature: tuple) -> Callable[..., Advance]:
    """`advance`, compiled for arguments of the shapes and dtypes in `signature` (a flattened tree)."""
    structure, leaves = signature
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    function = jax.jit(functools.partial(advance, layers, plain, chunk), donate_argnums=1)
    return function.lower(*shapes).compile()


COMPILING = threading.Lock()


class Replicate:
    """One scramble: its state on the device, and what its steps have recorded."""

    def __init__(self, layers: Sequential, plain: bool, constants: Constants, setup: Setup, capacity: int) -> None:
        self.layers, self.plain, self.constants, self.setup = layers, plain, constants, setup
        self.points, self.t, self.alive = len(constants.y), 0, True
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
                if self.t < stop and self.alive and not room(self.state, self.points):
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
            function = _compiled(self.layers, self.plain, chunk, signature)
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
        row = sum(basis.q.shape[0] * basis.q.dtype.itemsize for basis in bases(self.state)) * self.points
        return max(1, min(64, RECORD_BYTES // row))

    def _initial_state(self, capacities: Iterator[int]) -> Any:
        setup = dataclasses.replace(self.setup, capacities=capacities, populations=[])
        return setup.dealt(self.layers.init(setup, None)[0])

    def _enlarge(self) -> None:
        """More room where it is getting short: a larger initial state, with the present one copied into it."""
        capacities = []
        for basis in bases(self.state):
            needed, capacity = int(capacity_needed(basis, self.points)), basis.q.shape[0]
            if needed > self.setup.particles:
                raise OutOfParticles(f"{needed} directions do not fit {self.setup.particles} particles")
            full = needed > NEARLY_FULL * capacity
            capacities.append(self._rounded(max(1.5 * capacity, needed) + self.points) if full else capacity)
        self.state = jax.tree.map(
            lambda new, old: new.at[tuple(slice(n) for n in old.shape)].set(old),
            self._initial_state(iter(capacities)),
            self.state,
        )

    def _rounded(self, capacity: float) -> int:
        """The next multiple of 32, so that similar problems share a compilation; never more than particles."""
        return min(32 * math.ceil(capacity / 32), self.setup.particles)
