"""The programs that a replicate compiles: steps in a row, updates on batches, a forward pass, and recording."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.describe.training import Batches
from kernelfield.engine.infinite_matrix import replace_feedback
from kernelfield.engine.series import Fields
from kernelfield.layers import FieldTrace
from kernelfield.march.devices import Placement
from kernelfield.march.recorder import RecordedRow, Recorder
from kernelfield.march.step import Constants, Pace, Step, at_start, entry, has_not_diverged

COMPILING: defaultdict[Callable[..., Any], threading.Lock] = defaultdict(threading.Lock)  # one for each function


class Advance(NamedTuple):
    """The state of the march after steps or updates up to `t`, whether it is alive, and f of the steps if kept."""

    state: Any
    t: Array
    alive: Array
    f: Any = None


def advance(step: Step, constants: Constants, state: Any, paces: Pace, start: Array, stop: Array) -> Advance:
    """Returns the state after the steps from `start` to `stop`, or after one that diverged.

    The paces are those of the steps from `start` on, at least as many as there are steps.
    """
    follow = jax.jit(functools.partial(step, constants), inline=True)  # traced once, for the shape and for the loop
    shape = jax.eval_shape(follow, state, entry(paces, 0))[1]
    f = jax.tree.map(lambda leaf: jnp.zeros((len(paces.eta), *leaf.shape), leaf.dtype), shape)

    def go(now: Advance) -> Advance:
        state, f = follow(now.state, entry(paces, now.t - start))
        kept = jax.tree.map(lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, now.t - start, 0), now.f, f)
        return Advance(state, now.t + 1, has_not_diverged(step, constants, f), kept)

    return lax.while_loop(lambda now: (now.t < stop) & now.alive, go, Advance(state, start, jnp.array(True), f))


def descend(
    step: Step, constants: Constants, state: Any, initial: Any, batches: Batches, paces: Pace, begin: Array, end: Array
) -> Advance:
    """Returns the state after updates on batches, each of which takes its own points alone; one that diverged ends it.

    Args:
        step: one step of training.
        constants: those of the points that batches choose from.
        state: the state of the march.
        initial: phi of all these points at initialization; None to pass batches through the initial network.
        batches, paces: those of several updates.
        begin, end: the updates `begin` to `end - 1` of those are done.
    """

    def go(now: Advance) -> Advance:
        rows, weights = entry(batches, now.t)
        batch = constants._replace(data=constants.data[rows], y=constants.y[rows], weights=weights)
        start = at_start(step, now.state.layers, batch.data) if initial is None else initial[rows]
        state, f = step(batch, now.state._replace(initial=start), entry(paces, now.t))
        return Advance(state._replace(initial=None), now.t + 1, has_not_diverged(step, batch, f))

    return lax.while_loop(lambda now: (now.t < end) & now.alive, go, Advance(state, begin, jnp.array(True)))


def predict(step: Step, gamma0: Any, layers: tuple, data: Array) -> Fields:
    """Returns f of points (P, *sites, k), which take the same pass as those that train."""
    phi = step.forward(layers, data, None)[1].readout.phi
    return step.output(gamma0, layers, phi, at_start(step, layers, data))


def meet(step: Step, gamma0: Any, layers: tuple, data: Array) -> tuple[tuple, Fields]:
    """Returns the layers after they took up the directions of points (P, *sites, k), and f of these points."""
    layers, passed = step.forward(layers, data, jnp.ones(len(data)))
    return layers, step.output(gamma0, layers, passed.readout.phi, at_start(step, layers, data))


class Look(NamedTuple):
    """What recording gives: the recorder's bases and row, fields, and the layers if they met new directions."""

    bases: Any
    row: RecordedRow
    fields: tuple[FieldTrace, ...]
    layers: tuple | None = None


def look(step: Step, recorder: Recorder, meets: bool, layers: tuple, bases: Any, constants: Constants) -> Look:
    """Returns kernels and fields of points.

    With `meets` the layers take up the directions of these fields, as they must where there are no tails; else their
    state stays as it is.
    """
    mass = jnp.ones(len(constants.data)) if meets else None
    layers, up = step.forward(layers, constants.data, mass)
    if step.by_gradients:
        layers, passed, pseudo = *step.every_output(layers, up, mass), None
    else:
        passed = step.every_output(replace_feedback(layers), up)[1]
        pseudo = step.pseudo_gradients(constants, layers, up) if recorder.gradients else None
    return Look(*recorder.record(bases, passed, pseudo), step.fields(passed), layers if meets else None)


@functools.lru_cache(maxsize=64)
def compiled(
    function: Callable[..., Any],
    settings: tuple,
    placement: Placement,
    donated: tuple[int, ...],
    tree: Any,
    shapes: tuple,
) -> Any:
    """Returns a function of arrays, after its settings, compiled for a tree of arrays of these shapes."""
    program = functools.partial(function, *settings)
    return placement.compiled(program, tree.unflatten(shapes), donate_argnums=donated)
