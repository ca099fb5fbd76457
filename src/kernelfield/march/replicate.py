"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.infinite_matrix import change_images
from kernelfield.layers import FieldTrace, Sequential, Setup, Space
from kernelfield.march.devices import ONE_DEVICE, Placement, gathered
from kernelfield.march.programs import COMPILING, Advance, Program, advance, compiled, descend, look, predict, signature
from kernelfield.march.recorder import RecordedRow, Recorder
from kernelfield.march.schedule import CHUNK, Schedule
from kernelfield.march.step import Constants, Marched, Pace, Step, at_start

PASS_ROWS = 512  # points times sites of one pass of points that do not learn, about
KEPT = 2**28  # bytes of initial fields that a replicate keeps for its batches


class Replicate:
    """One scramble: its state on the device, and what its steps have recorded.

    Args:
        step: one step of training.
        constants: those of the points that are observed.
        setup: how the network is laid out on particles.
        space: the space of the data.
        schedule: the updates.
        recorder: what is recorded of kernels.
        source: the constants of the points that batches choose from, if those are others.
        placement: where arrays are on devices.
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
        source: Constants | None = None,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        self.step, self.constants, self.setup, self.space, self.schedule = step, constants, setup, space, schedule
        self.recorder, self.source, self.placement = recorder, source or constants, placement
        self.t, self.updates, self.alive, self.primed = 0, 0, True, False
        self.outputs: list[np.ndarray] = []  # f of rows in a row
        self.rows: dict[int, RecordedRow] = {}  # by step
        self.fields: dict[int, tuple[FieldTrace, ...]] = {}
        self.states: dict[int, Any] = {}
        self.starts: dict[int, Any] = {}  # at 0, phi of all points at initialization, which batches are gathered from
        self.seconds_compile = 0.0
        self.state, self.bases = self.to_devices(self._initial_state()), self.to_devices(recorder.bases(setup))

    def march(self, stop: int, kernels_at: Sequence[int], fields_at: Sequence[int], states_at: Sequence[int]) -> None:
        """Advance to row `stop`, or until the run diverges, and keep kernels, fields and states of the rows given."""
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
        """All that a checkpoint needs to go on: the state, and the bases of the recorder."""
        return self.state, self.bases

    def snapshot(self) -> tuple[Any, Any]:
        """Returns `all_state` as NumPy arrays, which are valid until the replicate advances."""
        return jax.device_get(gathered(self.all_state))

    def known(self) -> tuple:
        """Returns copies of the layers' states, without velocities: what a forward pass needs."""
        layers = change_images(lambda images: images._replace(velocity=None), self.state.layers)
        return jax.tree.map(np.array, jax.device_get(gathered(layers)))

    def restore(self, state: Any, bases: Any) -> None:
        """Go on from the state of a `snapshot`."""
        self.state, self.bases = self.to_devices(state), self.to_devices(bases)

    def to_devices(self, tree: Any) -> Any:
        """Returns a tree of NumPy arrays on the devices."""
        return self.placement.make(lambda: jax.tree.map(jnp.asarray, tree))

    @property
    def batched(self) -> bool:
        """Whether updates are on batches."""
        return self.schedule.batches is not None

    @property
    def _behind(self) -> bool:
        """Whether updates before the next row are not done yet."""
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
        """March to row `stop`, or as far as one compiled call does."""
        if self.batched:  # one row, by a forward pass of all points
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
        """Do updates on the next batches, before row t, in one compiled call."""
        if not self.starts and not primes and self._keeps_initial_features:
            self.starts[0] = self._blocks(at_start, self.source.data)
        start = self.updates
        count = 1 if primes else min(CHUNK, self.t * self.schedule.per_row - self.updates)
        paces, batches = self.schedule.paces(start, learns=not primes), self.schedule.batches_from(start)
        numbers = jnp.asarray(0), jnp.asarray(count)
        arguments = self.source, self.state, self.starts.get(0), batches, paces, *numbers
        now = self._run(descend, (self.step,), *arguments, donated=1)
        self.state = now.state
        if not primes:
            self.alive, self.updates = bool(now.alive), self.updates + int(now.done)

    @property
    def _keeps_initial_features(self) -> bool:
        """Whether the initial features of all points fit into memory, so that batches need not pass again."""
        data = self.source.data
        sites = math.prod(data.shape[1:-1])
        return not self.step.decays and len(data) * sites * self.setup.particles * data.dtype.itemsize <= KEPT

    def _predicted(self) -> np.ndarray:
        """f of all points in the present state."""
        return np.asarray(self._blocks(predict, self.constants.data, self.constants.gamma0))

    def _blocks(self, function: Callable[..., Any], data: Array, *more: Any) -> Array:
        """The results of a program for all points, a block at a time."""
        return blocks(lambda block: self._run(function, (self.step,), *more, self.state.layers, block), data)

    def _look(self, keep_fields: bool) -> None:
        """Record kernels and fields of the present state."""
        settings = self.step, self.recorder, self.setup.is_exact
        now = self._run(look, settings, self.state.layers, self.bases, self.constants.data)
        self.bases = now.bases
        if now.layers is not None:
            self.state = self.state.with_layers(now.layers)
        self.rows[self.t] = jax.tree.map(np.asarray, gathered(now.row))
        if keep_fields:
            self.fields[self.t] = gathered(now.fields)

    def _run(self, function: Callable[..., Any], settings: tuple, *arguments: Any, donated: int | None = None) -> Any:
        """The result of a compiled call; threads compile in turns, and the time is counted."""
        with COMPILING:
            began = time.perf_counter()
            program = compiled(Program(function, settings), self.placement, donated, signature(arguments))
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
    """Returns the states of all layers at initialization, in NumPy, for data in a space."""
    setup = dataclasses.replace(setup, populations=[])
    return setup.deal(layers.init(setup, space)[0])


def blocks(function: Callable[[Array], Any], data: Any) -> Array:
    """Returns the results of a function for all points, PASS_ROWS at a time; the last block is filled up."""
    size = min(len(data), max(1, PASS_ROWS // math.prod(data.shape[1:-1])))
    parts = []
    for start in range(0, len(data), size):
        block = np.arange(start, start + size) % len(data)
        parts.append(function(data[block] if size < len(data) else data))
    return jnp.concatenate(parts)[: len(data)] if len(parts) > 1 else parts[0]
