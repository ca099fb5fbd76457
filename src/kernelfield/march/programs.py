"""The programs of a replicate, which are compiled: steps in a row, updates on batches, a forward pass, a look."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.describe.training import Batches
from kernelfield.engine.series import Fields
from kernelfield.layers import FieldTrace
from kernelfield.march.devices import Placement
from kernelfield.march.recorder import RecordedRow, Recorder
from kernelfield.march.step import Constants, Pace, Step, at, at_start, stays_low


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


@functools.lru_cache(maxsize=64)
def compiled(function: Callable[..., Any], placement: Placement, donated: int | None, kind: tuple) -> Any:
    """A function, compiled for arguments of a `signature`."""
    options = {} if donated is None else {"donate_argnums": donated}
    return placement.compiled(function, shapes(kind), **options)


def signature(arguments: tuple) -> tuple:
    """Shapes and dtypes of arguments, a flattened tree."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def shapes(kind: tuple) -> Any:
    """The arguments of a signature, as shapes and dtypes."""
    structure, leaves = kind
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
