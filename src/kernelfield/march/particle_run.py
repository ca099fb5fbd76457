"""One solve on particles: replicates that march side by side, and what they recorded as a Solution.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report
from kernelfield.describe.problem import OUTSIDE
from kernelfield.describe.run import Run
from kernelfield.describe.training import Descent, GradientDescent, GradientFlow
from kernelfield.engine.infinite_matrix import InfiniteMatrix, all_matrices
from kernelfield.engine.points import cubature, padded_sobol
from kernelfield.layers import Setup, Space
from kernelfield.march import memory
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.devices import ONE_DEVICE, multiple, placement, together
from kernelfield.march.flow import FlowReplicate
from kernelfield.march.predictor import MarchPredictor
from kernelfield.march.recorder import Recorder
from kernelfield.march.records import factors, field_samples, outputs, recorded_rows, tangents
from kernelfield.march.replicate import KEPT, Replicate
from kernelfield.march.schedule import Schedule
from kernelfield.march.step import Constants
from kernelfield.march.work import bytes_of
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted

if TYPE_CHECKING:
    from kernelfield.march.method import OnParticles

TOL = 5e-3  # of leading directions
DIRECTIONS = {16: 24, 64: 32, 10**9: 48}  # the most of a field, by rows of points and sites that train together
EXACT_TOL = 1e-26  # of linear networks, whose fields are known on all of their directions
BLOCK = 64  # particles of a block of the tail
RECORD_TOL, RECORD_DIRECTIONS = 1e-5, 512  # of the bases for kernels
SMOOTH, KINKED = 10, 30  # directions a point and site that they take with such activations
SECONDS_BETWEEN_REPORTS = 0.3  # what Ctrl-C waits for
DIVERGED = 1e3  # times the initial loss
TIME_TOL = 1e-7  # variance that a factor of a long run may lose


class _MoreDirections(RuntimeError):
    """A linear network has more directions than there is room for."""


class ParticleRun:
    """One solve: replicates marching side by side, and what they recorded as a Solution.

    Args:
        run: what is solved, by a method on particles.
        checkpoint: to keep what is done; None for none.
    """

    def __init__(self, run: Run, checkpoint: Checkpoint | None = None) -> None:
        self.run, self.checkpoint = run, checkpoint
        self.settings = cast("OnParticles", run.method)
        self.network, self.problem, self.training = run.network, run.problem, run.training
        self.axes = self.network.input_axes(self.problem).axes
        self.data, self.outside = self.network.coordinates(self.problem)
        self.step = self.settings.step(run)
        self.exact = self.network.is_linear
        self.count = 1 if self.exact else self.settings.replicates
        rows = self.rows * math.prod(self.data.shape[1:-1])
        common = 16 + 8 * rows if self.exact else next(most for few, most in DIRECTIONS.items() if rows <= few)
        self.directions = self.settings.directions or common
        self.replicates: list[Replicate] = []
        self.placement = ONE_DEVICE
        self.began = time.perf_counter()

    @functools.cached_property
    def rows(self) -> int:
        """Points that train together."""
        batch = getattr(self.training, "batch_size", None)
        return int(batch or np.count_nonzero(self.problem.weights))

    @property
    def kernels_at(self) -> tuple[int, ...]:
        """Rows whose kernels are recorded."""
        return self.run.kernel_steps if any(self.settings.records(self.problem)) else ()

    @property
    def particles(self) -> int:
        """S: as asked for, or as many as the coordinates of a linear network need."""
        if not self.exact:
            return self.settings.particles
        setup = self._setup(0, 1)
        self.step.layers.init(setup, self.space)
        outside = min(self.axes.shape[1] - len(self.axes), OUTSIDE)
        return multiple(max(each.dimensions_with(outside) for each in setup.populations))

    @property
    def space(self) -> Space:
        """Of the data."""
        return Space(None, self.data.shape[1:-1], self.data.shape[-1], outside=self.outside)

    @property
    def at_once(self) -> int:
        """Replicates that march side by side; on several devices one, whose sums would wait for those of another."""
        return 1 if placement(self.particles).is_split else min(self.count, os.cpu_count() or 1)

    def check_memory(self) -> None:
        """Raise ValueError if this machine cannot hold the arrays of the run."""
        if self.exact or placement(self.particles).is_split:
            return
        needed, most = bytes_of(self), memory.available()
        if needed > most:
            smaller = memory.smaller(self.particles, self.count, 256, most / needed)
            raise ValueError(
                f"particles={self.particles} and replicates={self.count} need about "
                f"{needed / memory.GIB:.1f} GiB of memory, of which {most / memory.GIB:.1f} are available"
                + (f": {smaller} would fit" if smaller else "")
            )

    @property
    def batched(self) -> bool:
        """Whether updates are on batches."""
        return not isinstance(self.training, (GradientDescent, GradientFlow))

    @property
    def initial_bytes(self) -> int:
        """Size of the initial fields that a replicate keeps."""
        points = self.problem.points if self.problem.stream is None else self.problem.stream.points
        size = points * math.prod(self.data.shape[1:-1]) * self.particles * np.dtype(self.setup(0).dtype).itemsize
        return min(size, KEPT) if self.batched else size

    def setup(self, replicate: int) -> Setup:
        """How a replicate lays out the network."""
        return self._setup(replicate, self.particles)

    def _setup(self, replicate: int, particles: int) -> Setup:
        single = not self.exact and self.settings.is_single(self.run)
        return Setup(
            gamma0=self.settings.gamma0(self.network),
            points=cubature if self.exact else padded_sobol,
            particles=particles,
            seed=np.random.SeedSequence(self.settings.seed, spawn_key=(replicate,)),
            rows=self.rows,
            capacity=self.directions,
            block=None if self.exact else min(BLOCK, particles),
            tol=EXACT_TOL if self.exact else self.settings.tol,
            coupled=self.settings.coupled,
            dtype=jnp.float32 if single else jnp.float64,
            outputs=self.problem.outputs or 1,
            momentum=self.step.momentum,
            orders=self.step.orders,
        )

    @property
    def recorder(self) -> Recorder:
        """Of the kernels that were asked for."""
        features, gradients = self.settings.records(self.problem)
        outputs, sites = self.problem.outputs or 1, math.prod(self.data.shape[1:-1])
        each = (SMOOTH if self.network.smooth else KINKED) * self.problem.points * outputs * sites
        most = self.particles if self.exact else min(RECORD_DIRECTIONS, 32 + each, self.particles)
        return Recorder(
            self.step.layers,
            outputs,
            features,
            gradients,
            gradients and not self.network.factorizes and self.step.orders == 1,
            most if self.kernels_at else 0,
            EXACT_TOL if self.exact else RECORD_TOL,
        )

    @property
    def states_at(self) -> list[int]:
        """Rows whose states are kept to predict from; that of the last one, which learns nothing, stays as it is."""
        return [t for t in self.run.fields_at if t < self.training.steps] if self.settings.predicts else []

    @property
    def steps_done(self) -> int:
        """Rows that every replicate has."""
        return min((replicate.t for replicate in self.replicates), default=0)

    def march_with_enough(self, progress: Report) -> Status:
        """`march`, again where a linear network has more directions than there is room for."""
        while True:
            try:
                return self.march(progress)
            except _MoreDirections:
                self.directions *= 2

    def march(self, progress: Report) -> Status:
        """March all replicates, as many at once as there are cores, reporting on the way what all of them have done."""
        last = self.training.steps
        self.replicates, self.placement = [], placement(self.particles)
        one_each = threadpool_limits(1, "blas")  # of LAPACK's threads, which wait where those of XLA would work
        with one_each, ThreadPoolExecutor(self.at_once) as pool, together() as agreed:
            try:
                fresh = list(pool.map(self.replicate, range(self.count)))
                if self.checkpoint is not None:
                    self.began -= self.checkpoint.begin(fresh)
                self.replicates = fresh
                for done in self._strides(pool, agreed):
                    progress(min(done, last), last)
                if not all(replicate.alive for replicate in self.replicates):
                    return diverged(self.steps_done, self.training.learning_rate, DIVERGED)
                pool.submit(self._keep).result()
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                self._keep()
                return interrupted(max(self.steps_done - 1, 0), last)
        return Status()

    def _strides(self, pool: ThreadPoolExecutor, agreed: Callable[[int], int]) -> Iterator[int]:
        """Let the replicate that is furthest behind take a stride, whenever a core is free, until all are at the end.

        None waits for another, but for a checkpoint. The end is that of training, or the row at which one diverged.

        Yields:
            Rows that all have, as they grow.
        """
        stride, reported = 1, self.steps_done
        running: dict[Future[tuple[int, float]], Replicate] = {}
        while True:
            due = self.checkpoint is not None and self.checkpoint.due and self.steps_done > 0
            if due and not running:
                pool.submit(self._keep).result()  # in a thread, where Ctrl-C does not stop it half-way
                due = False
            end = min([self.training.steps + 1, *(each.t for each in self.replicates if not each.alive)])
            behind = [each for each in self.replicates if each.t < end and each not in running.values()]
            free = 0 if due else self.at_once - len(running)
            for replicate in sorted(behind, key=lambda each: each.t)[:free]:
                running[pool.submit(self._stride, replicate, min(replicate.t + stride, end))] = replicate
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                steps, seconds = future.result()
                stride = agreed(max(1, int(steps * min(4.0, SECONDS_BETWEEN_REPORTS / seconds))))
            if self.steps_done > reported:
                reported = self.steps_done
                yield reported

    def _stride(self, replicate: Replicate, stop: int) -> tuple[int, float]:
        """The steps of a stride, and its seconds."""
        began, start = time.perf_counter(), replicate.t
        replicate.march(stop, self.kernels_at, self.run.fields_at, self.states_at)
        if self.exact and any(_is_short(matrix) for matrix in all_matrices(replicate.state)):
            raise _MoreDirections
        return stop - start, time.perf_counter() - began

    def _keep(self) -> None:
        """Write what was done to the checkpoint, if there is one."""
        if self.checkpoint is not None and self.replicates:
            self.checkpoint.write(self.replicates, time.perf_counter() - self.began)

    def replicate(self, index: int) -> Replicate:
        """One of them, at initialization."""
        with jax.enable_x64(True):
            data, fresh = np.split(self.data, [self.problem.points])
            setup = self.setup(index)
            constants = self._constants(setup, data)
            if isinstance(self.training, GradientFlow):
                unused, on = Schedule(np.zeros(0)), self.placement
                flow = FlowReplicate(self.step, constants, setup, self.space, unused, self.recorder, placement=on)
                return flow.start(self.training)
            drawn_from, stream = None, self.problem.stream
            if stream is not None:
                drawn_from = constants._replace(data=jnp.asarray(fresh, setup.dtype), y=jnp.asarray(stream.y))
            rule = Schedule.of(cast(Descent, self.training), self.problem)
            return Replicate(self.step, constants, setup, self.space, rule, self.recorder, drawn_from, self.placement)

    def _constants(self, setup: Setup, data: np.ndarray) -> Constants:
        """Of the points that rows are of, given their coordinates."""
        return Constants(
            data=jnp.asarray(data, setup.dtype),
            y=jnp.asarray(self.problem.y),
            weights=jnp.asarray(self.problem.weights),
            gamma0=jax.tree.map(jnp.asarray, setup.gamma0),
            momentum=jnp.asarray(getattr(self.training, "momentum", 0.0)),
            weight_decay=jnp.asarray(getattr(self.training, "weight_decay", 0.0)),
            limit=jnp.asarray(DIVERGED * self.problem.initial_loss or np.inf),  # rounding is not divergence
        )

    def solution(self, status: Status) -> Solution | Status:
        """What was recorded, as a Solution; the status alone if nothing was."""
        rows, replicates = self.steps_done, self.replicates
        seconds_compile = sum(each.seconds_compile for each in replicates)
        if not rows:
            return status
        recorded = recorded_rows(replicates, rows)
        features, gradients = (
            factors(replicates, kind, recorded, self.step.orders, TIME_TOL) for kind in ("features", "gradients")
        )
        matrices = [all_matrices(each.state) for each in replicates]
        left_out = [
            float(row.left_out) for each in replicates for row in each.rows.values() if row.left_out is not None
        ]
        f, features, gradients = self.settings.recorded(self.run, outputs(replicates, rows), features, gradients)
        with_features, with_gradients = self.settings.records(self.problem)
        kernels = network_kernels(
            self.problem,
            features if with_features else None,
            gradients if with_gradients else None,
            tangents(replicates, recorded),
            None if len(recorded) == rows else tuple(recorded),
        )
        return Solution(
            self.run,
            f,
            kernels,
            field_samples=self._field_samples(),
            predictor=self._predictor(),
            exact=self.exact,
            status=status,
            info={
                "particles": replicates[0].setup.particles,
                "replicates": len(replicates),
                "directions": self.directions,
                "feature_ranks": [max(int(each.below.size) for each in same) for same in zip(*matrices, strict=True)],
                "gradient_ranks": [max(int(each.above.size) for each in same) for same in zip(*matrices, strict=True)],
                **({"kernel_left_out": max(left_out)} if left_out else {}),
                "precision": np.dtype(replicates[0].setup.dtype).name,
                **({"steps_taken": [each.accepted for each in flows]} if (flows := self._flows()) else {}),
                "seconds_compile": seconds_compile,
                "seconds_run": time.perf_counter() - self.began - seconds_compile,
            },
        )

    def _predictor(self) -> MarchPredictor | None:
        """What is left to predict with, of a method whose outputs are those of a forward pass."""
        if not self.settings.predicts:
            return None
        common = set.intersection(*(set(each.states) for each in self.replicates))
        states = {t: [each.states[t] for each in self.replicates] for t in sorted(common)}
        if self.steps_done > (last := self.training.steps):
            states[last] = [each.known() for each in self.replicates]
        setups = [self.setup(number) for number in range(self.count)]
        return MarchPredictor(self.step, setups, self.axes, states)

    def _flows(self) -> list[FlowReplicate]:
        return [each for each in self.replicates if isinstance(each, FlowReplicate)]

    def _field_samples(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Fields as samples: particles as they are, or Gaussian combinations of a cubature's points."""
        gaussian = None
        if self.exact:
            points, rng = self.replicates[0].setup.particles, np.random.default_rng(self.settings.seed)
            gaussian = rng.standard_normal((points, self.settings.particles)) / np.sqrt(points)
        return field_samples(self.replicates, functools.partial(self.settings.values, self.network), gaussian)


def _is_short(matrix: InfiniteMatrix) -> bool:
    """Whether one of its bases is full, and leaves something out."""
    return any(int(side.size) == len(side.q) and float(side.left) > matrix.tol for side in (matrix.below, matrix.above))
