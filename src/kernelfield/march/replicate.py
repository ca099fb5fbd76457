"""One replicate of the march: one scramble of the Gaussian coordinates, taken through training."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.describe.training import Batches
from kernelfield.engine.entries import Pairs, Skeleton
from kernelfield.engine.infinite_matrix import Images
from kernelfield.layers import FieldTrace, Sequential, Setup, Space
from kernelfield.march.devices import ONE_DEVICE, Placement, gathered
from kernelfield.march.layout import Layout
from kernelfield.march.programs import COMPILING, Advance, advance, compiled, descend, look, meet, predict
from kernelfield.march.recorder import RecordedRow
from kernelfield.march.step import Marched, Pace, at_start

CHUNK = 64  # updates between two looks of the host, at most
PASS_ROWS = 512  # points times sites of one pass of points that do not learn, about
KEPT = 2**28  # bytes of initial features that a replicate keeps for its batches
STARTS = jax.jit(at_start, static_argnums=0)  # traced once for all replicates that are alike


class Replicate:
    """One scramble of a run: its state, which is placed on devices, and what its steps have recorded."""

    counters: ClassVar[tuple[str, ...]] = ("t", "updates", "alive", "primed", "seconds_compile")

    def __init__(self, layout: Layout, number: int, placement: Placement = ONE_DEVICE) -> None:
        self.layout, self.number, self.placement = layout, number, placement
        self.step, self.recorder, self.setup = layout.step, layout.recorder, layout.setup(number)
        self.rates, self.batches, self.per_row = layout.schedule()
        self.t, self.updates, self.alive, self.primed, self.seconds_compile = 0, 0, True, False, 0.0
        self.programs: dict[tuple, Callable[..., Any]] = {}
        self.outputs: list[np.ndarray] = []  # f of rows in a row
        self.rows: dict[int, RecordedRow] = {}  # by step
        self.fields: dict[int, tuple[FieldTrace, ...]] = {}
        self.states: dict[int, Any] = {}
        self.starts: dict[int, Any] = {}  # at 0, phi of all points at initialization, which batches are gathered from
        with jax.enable_x64(True):
            self.constants, self.source = layout.constants()
            state = self._initial_state()
            self.state, self.bases = placement.put((state, self.recorder.bases(self.setup, state.layers)))

    def march(self, stop: int) -> None:
        """Advance to row `stop`, or until the run diverges, and keep kernels, fields and states that are asked for."""
        looks, states_at = {*self.layout.kernels_at, *self.layout.run.fields_at}, self.layout.states_at
        with jax.enable_x64(True):
            if not self.primed:
                self._prime()
            while self.t < stop and self.alive:
                if self.batches is not None and self.updates < self.t * self.per_row:
                    self._descend()
                    continue
                if self.t in looks and self._at_row:
                    self._look()
                if self.t in states_at and self._at_row:
                    self.states[self.t] = self.known()
                later = (row for row in (*looks, *states_at) if row > self.t)
                self._advance(min([stop, *later]))

    def known(self) -> tuple:
        """Returns copies of the layers' states, without velocities: what a forward pass needs."""
        return jax.tree.map(np.array, gathered(without_motion(self.state.layers)))

    @property
    def _at_row(self) -> bool:
        """Whether the state is that of row t."""
        return True

    def _prime(self) -> None:
        """Meet the leading directions of the first fields, which have Gaussian coordinates; nothing is learned.

        Every second replicate compiles the program that records first, and so two cores compile two programs.
        """
        if self.number % 2 and self.layout.kernels_at:
            self._compile(look, self._seen(), self._look_settings, donated=(1,))
        if self.batches is None:
            self._run_rows(1, learns=False)
        elif self.setup.is_finite:
            self._meet(self.source.data)
        else:
            self._descend(learns=False)
        self.primed = True

    def _meet(self, data: Array) -> Array:
        """Take up the directions of points; returns f."""
        layers, f = self._run(meet, self.constants.gamma0, self.state.layers, data)
        self.state = self.state._replace(layers=layers)
        return f

    def _advance(self, stop: int) -> None:
        """March to row `stop`, or as far as one compiled call does."""
        if self.batches is not None:  # one row, by a forward pass of all points
            data, gamma0 = self.constants.data, self.constants.gamma0
            f = self._meet(data) if self.setup.is_finite else self._blocks(predict, data, gamma0)
            self.outputs.append(np.asarray(f)[None])
            self.t += 1
            return
        now = self._run_rows(min(stop, self.t + CHUNK))
        self.alive = bool(now.alive)
        done = int(now.t) - self.t - (not self.alive)  # a step that diverged is not kept
        self.t += done
        if done:
            self.outputs.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:done], now.f))

    def _run_rows(self, stop: int, learns: bool = True) -> Advance:
        """Do the steps before row `stop` in one compiled call."""
        paces, numbers = self._paces(self.t, learns), (np.asarray(self.t), np.asarray(stop))
        now = self._run(advance, self.constants, self.state, paces, *numbers, donated=(1,))
        self.state = now.state
        return now

    def _descend(self, learns: bool = True) -> None:
        """Do updates on the next batches, before row t, in one compiled call; or pass the first batch alone."""
        if learns and not self.starts and not self.step.decays and self.layout.initial_bytes <= KEPT:
            self.starts[0] = self._blocks(at_start, self.source.data)
        count = min(CHUNK, self.t * self.per_row - self.updates) if learns else 1
        updates = self._next_batches(), self._paces(self.updates, learns), np.asarray(0), np.asarray(count)
        now = self._run(descend, self.source, self.state, self.starts.get(0), *updates, donated=(1,))
        self.state = now.state
        if learns:
            self.alive, self.updates = bool(now.alive), self.updates + int(now.t)

    def _paces(self, start: int, learns: bool) -> Pace:
        """The paces of CHUNK updates from `start` on; updates beyond the last one do not learn."""
        eta = self.rates[start : start + CHUNK]
        left_over = (0, CHUNK - len(eta))
        learn = np.pad(np.full(len(eta), learns), left_over)
        first = learn & (self.batches is None) & (start + np.arange(CHUNK) == 0)
        noise = None
        if self.setup.noisy:
            key = jax.device_put(self.setup.seed.generate_state(2))
            noise = jax.vmap(functools.partial(jax.random.fold_in, key))(start + jnp.arange(CHUNK))
        return Pace(np.pad(eta, left_over), learn, first, noise, start + 1 + np.arange(CHUNK))

    def _next_batches(self) -> Batches:
        """The batches of the next CHUNK updates."""
        assert self.batches is not None
        several = (values[self.updates : self.updates + CHUNK] for values in self.batches)
        rows, weights = (np.pad(values, [(0, CHUNK - len(values)), (0, 0)]) for values in several)
        return Batches(rows, weights)

    def _blocks(self, function: Callable[..., Any], data: Array, *more: Any) -> Array:
        """The results of a program for all points, a block at a time."""
        return blocks(lambda block: self._run(function, *more, self.state.layers, block), data)

    def _look(self) -> None:
        """Record kernels and fields of the present state."""
        now = self._run(look, *self._seen(), settings=self._look_settings, donated=(1,))
        self.bases = now.bases
        if now.layers is not None:
            self.state = self.state._replace(layers=now.layers)
        self.rows[self.t] = gathered(now.row)
        if self.t in self.layout.run.fields_at:
            self.fields[self.t] = gathered(now.fields)

    def _seen(self) -> tuple:
        """What recording looks at."""
        return self.state.layers, self.bases, self.constants

    @property
    def _look_settings(self) -> tuple:
        return self.recorder, self.setup.is_complete

    def _run(
        self, function: Callable[..., Any], *arguments: Any, settings: tuple = (), donated: tuple[int, ...] = ()
    ) -> Any:
        """The result of a compiled call."""
        return jax.block_until_ready(self._compile(function, arguments, settings, donated)(*arguments))

    def _compile(
        self, function: Callable[..., Any], arguments: tuple, settings: tuple, donated: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        """A compiled program; a thread that needs what another one compiles waits for it, and the time is counted."""
        leaves, tree = jax.tree.flatten(arguments)
        key = function, tree, tuple(leaf.shape for leaf in leaves)
        if key in self.programs:
            return self.programs[key]
        shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        began = time.perf_counter()
        with COMPILING[function]:
            program = compiled(function, (self.step, *settings), self.placement, donated, tree, shapes)
        self.seconds_compile += time.perf_counter() - began
        self.programs[key] = program
        return program

    def _initial_state(self) -> Any:
        layers, start = initial_state(self.step.layers, self.setup, self.layout.space), None
        if self.batches is None:
            shape = STARTS.eval_shape(self.step, layers, self.constants.data)
            start = np.zeros(shape.shape, shape.dtype)
        return self.step.begin(self.constants, Marched(layers, start))


def without_motion(layers: tuple) -> tuple:
    """Returns the states of layers without what only learning needs: velocities and moments."""

    def change(part: object) -> object:
        if isinstance(part, Skeleton):
            return replace(part, columns=None, rows=None)
        if isinstance(part, Pairs):
            return replace(part, entries=part.entries._replace(gradient=None, moments=None))
        return part._replace(velocity=None, moments=None) if isinstance(part, Images) else part

    return jax.tree.map(change, layers, is_leaf=lambda part: isinstance(part, (Pairs, Skeleton, Images)))


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
