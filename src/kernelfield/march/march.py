"""The march: one causal sweep through training time at infinite width.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, field_validator
from threadpoolctl import threadpool_limits

from kernelfield.common.settings import Spec
from kernelfield.describe.fingerprint import describe
from kernelfield.describe.problem import OUTSIDE, Problem
from kernelfield.describe.training import SGD, GradientDescent, GradientFlow, OnlineSGD
from kernelfield.engine.infinite_matrix import all_matrices
from kernelfield.engine.points import cubature, padded_sobol
from kernelfield.layers import Setup, Space
from kernelfield.march import memory
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.devices import ONE_DEVICE, multiple, placement, together
from kernelfield.march.flow import FlowReplicate
from kernelfield.march.predictor import MarchPredictor
from kernelfield.march.recorder import Recorder
from kernelfield.march.records import factors, field_samples, outputs, recorded_rows, tangents
from kernelfield.march.replicate import KEPT, Constants, Replicate, Schedule, Step
from kernelfield.march.work import bytes_of
from kernelfield.solution.solution import Solution, Status

Progress = Callable[[int, int], None]
TOL = 5e-3  # of leading directions
DIRECTIONS = {16: 24, 64: 32, 10**9: 48}  # the most of a field, by rows of points and sites that train together
EXACT_TOL = 1e-26  # of linear networks, whose fields are known on all of their directions
SINGLE_PRECISION = 1e-4  # gamma0 times the size of the error signal from which float32 is enough
BLOCK = 64  # particles of a block of the tail
RECORD_TOL, RECORD_DIRECTIONS = 1e-5, 512  # of the bases for kernels
SMOOTH, KINKED = 10, 30  # directions a point and site that they take with such activations
RECORDED = 500  # points times sites whose kernels are recorded unless somebody asks
SECONDS_BETWEEN_REPORTS = 0.3  # what Ctrl-C waits for
DIVERGED = 1e3  # times the initial loss
TIME_TOL = 1e-7  # variance that a factor of a long run may lose


class OnParticles(Spec):
    """A theory of infinite width that is solved on particles, in one sweep through training time.

    The settings that all of them share, and, from `step` on, what they do differently; see `March`.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        tol: part of a field's mean square that a direction must have to be treated exactly.
        directions: the most directions of a field that are; by default by the number of points.
        precision: "single", "double", or "auto".
        save_at: steps whose kernels are recorded, all by default.
    """

    particles: int = Field(default=4096, ge=16)
    replicates: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    tol: float = Field(default=TOL, gt=0, lt=1)
    directions: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "single", "double"] = "auto"
    save_at: list[int] | None = None

    coupled: ClassVar[bool] = True  # False: W(0) and its transpose are unrelated
    predicts: ClassVar[bool] = False  # at new points, by a forward pass
    keeps_checkpoints: ClassVar[bool] = True

    @field_validator("particles")
    @classmethod
    def _balanced(cls, particles: int) -> int:
        if particles & (particles - 1):
            raise ValueError(f"particles must be a power of two (Sobol points, blocks of the tail), got {particles}")
        return particles

    def check(self, network: Any, problem: Problem, training: Any) -> None:
        """Raise ValueError if `save_at` names steps that are not there."""
        last = training.steps
        outside = [step for step in self.save_at or () if not -last - 1 <= step <= last]
        if outside:
            raise ValueError(f"save_at must be steps in 0..{last} (or negative, from the end), got {outside[0]}")

    def run(
        self,
        network: Any,
        problem: Problem,
        training: GradientDescent,
        fields_at: Sequence[int],
        progress: Progress,
        checkpoint: Checkpoint | None = None,
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        if checkpoint is not None and jax.process_count() > 1:
            raise ValueError("checkpoints are kept of one process, which may have several devices, not of several")
        run = MarchRun(self, network, problem, training, fields_at, checkpoint)
        run.check_memory()
        if checkpoint is not None:
            found = checkpoint.open(describe(network, problem, training, self, fields_at))
            run.directions = found or run.directions
        return run.solution(run.march_with_enough(progress))

    def records(self, problem: Problem) -> tuple[bool, bool]:
        """Whether feature kernels are recorded, and gradient kernels."""
        return True, True

    def step(self, network: Any, problem: Problem, training: Any) -> Step:
        """One step of training, to be compiled."""
        flows = isinstance(training, GradientFlow)  # along velocities
        return Step(
            network.layers,
            problem.loss,
            problem.outputs,
            flows or training.momentum > 0,
            not flows and training.weight_decay > 0,
        )

    def is_single(self, network: Any, problem: Problem) -> bool:
        """Whether fields are float32: they move by gamma0 times the size of the error signal."""
        if self.precision != "auto":
            return self.precision == "single"
        start = problem.loss.measured_signal(np.zeros((1, *problem.y.shape)), problem.y)
        size = float(np.sqrt(np.mean(start**2)))
        return size == 0 or size * network.gamma0 >= SINGLE_PRECISION

    def gamma0(self, network: Any) -> Any:
        """The number, or a formal variable."""
        return network.gamma0

    def values(self, network: Any, field: Any) -> np.ndarray:
        """A recorded field on particles as numbers."""
        return np.asarray(field)

    def recorded(
        self,
        network: Any,
        problem: Problem,
        predictions: np.ndarray,
        features: list[Any],
        gradients: list[Any],
        tangents: np.ndarray | None,
    ) -> dict[str, Any]:
        """Arguments of the Solution.

        Args:
            network: what learned.
            problem: what was learned.
            predictions: (R, rows, P).
            features, gradients: factors of the kernels of hidden layers 1..L, (R, rows, P, k).
            tangents: tangent kernels (R, rows, P, P), where the factors do not give them.

        Returns:
            Predictions and kernels by the names that `Solution` has for them.
        """
        one = readout_gradients(problem)
        with_features, with_gradients = self.records(problem)
        return {
            "replicate_predictions": predictions,
            "feature_factors": (problem.input_coordinates[None, None], *features) if with_features else (),
            "gradient_factors": (*gradients, one) if with_gradients else (),
            "tangent_kernels": tangents,
        }


class March(OnParticles):
    """Infinite width, solved on particles in one sweep through time (theory: exact as particles -> infinity).

    Linear networks choose exact cubature by themselves: one replicate, no sampling error.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        tol: part of a field's mean square that a direction must have to be treated exactly; a fast pseudo-Gaussian
            matrix says what W(0) does to all others. No accuracy is lost by it: it trades directions against particles.
        directions: the most directions of a field that are treated exactly; 24 to 48 by default, by the number of
            points. Those beyond are left to that matrix, and not learned: `info` of the Solution tells.
        precision: of fields, "single" or "double"; "auto" is single where gamma0 times the size of the error signal is
            1e-4 or more: features move by that, and rounding of their change is the error (0.03 % there).
        save_at: steps whose kernels are recorded (negative from the end); all by default.
        kernels: "all" records feature kernels, and gradient kernels and the NTK of a network with one output;
            "features" the first alone; "per_output" G and NTK of every output too; "none" records no kernels, at no
            cost. "auto" is "all" up to 500 points (times sites), and "none" beyond. Training does not depend on it.
    """

    kernels: Literal["auto", "all", "features", "none", "per_output"] = "auto"

    predicts: ClassVar[bool] = True
    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD, OnlineSGD, GradientFlow)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "outputs", "momentum", "weight_decay", "schedule"})

    def records(self, problem: Problem) -> tuple[bool, bool]:
        """Whether feature kernels are recorded, and gradient kernels."""
        kernels = self.kernels
        if kernels == "auto":
            kernels = "all" if problem.points <= RECORDED else "none"
        return kernels != "none", kernels == "per_output" or (kernels == "all" and problem.outputs is None)

    def restored_predictor(self, solution: Solution, arrays: Mapping[str, np.ndarray]) -> MarchPredictor | None:
        """What a run of a Solution without it had left to predict with, given its `arrays`.

        None of a file whose states are of bases that dropped directions.
        """
        if "directions" not in solution.info:
            return None
        run = MarchRun(self, solution.network, solution.problem, solution.training, ())
        run.directions = solution.info["directions"]
        setups = [run.setup(int(number)) for number in arrays["replicates"]]
        return MarchPredictor.restored(run.step, setups, run.space, arrays)


def readout_gradients(problem: Problem) -> np.ndarray:
    """The factor of G^{L+1}: one; of several outputs (1, 1, P C, C), one for the same output and zero for others."""
    return np.tile(np.eye(problem.outputs or 1), (problem.points, 1))[None, None]


def schedule(training: Any, problem: Problem) -> Schedule:
    """When what is learned: a rule of gradient descent on a problem.

    Args:
        training: the rule.
        problem: whose points are drawn.

    Raises:
        ValueError: the rule does not fit the problem.
    """
    return Schedule(training.rates(problem), training.batches(problem), training.updates_per_step(problem))


class _MoreDirections(RuntimeError):
    """A linear network has more directions than there is room for."""


class MarchRun:
    """One solve: replicates marching in step, and what they recorded as a Solution."""

    def __init__(
        self,
        march: OnParticles,
        network: Any,
        problem: Problem,
        training: Any,
        fields_at: Sequence[int],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.settings, self.network, self.problem, self.training = march, network, problem, training
        self.fields_at, self.checkpoint = fields_at, checkpoint
        self.axes = network.input_axes(problem).axes
        self.data, self.outside = network.coordinates(problem)
        self.step = march.step(network, problem, training)
        self.exact = network.is_linear
        self.count = 1 if self.exact else march.replicates
        rows = self.rows * math.prod(self.data.shape[1:-1])
        common = 16 + 8 * rows if self.exact else next(most for few, most in DIRECTIONS.items() if rows <= few)
        self.directions = march.directions or common
        self.replicates: list[Replicate] = []
        self.placement = ONE_DEVICE
        self.began = time.perf_counter()

    @functools.cached_property
    def rows(self) -> int:
        """Points that train together."""
        batch = getattr(self.training, "batch_size", None)
        return int(batch or np.count_nonzero(self.problem.weights))

    @property
    def kernels_at(self) -> list[int]:
        """Rows whose kernels are recorded."""
        if not any(self.settings.records(self.problem)):
            return []
        last = self.training.steps
        chosen = self.settings.save_at
        return list(range(last + 1)) if chosen is None else sorted({step % (last + 1) for step in chosen})

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
        single = not self.exact and self.settings.is_single(self.network, self.problem)
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
        return [t for t in self.fields_at if t < self.training.steps] if self.settings.predicts else []

    @property
    def steps_done(self) -> int:
        """Rows that every replicate has."""
        return min((replicate.t for replicate in self.replicates), default=0)

    def march_with_enough(self, progress: Progress) -> Status:
        """`march`, again where a linear network has more directions than there is room for."""
        while True:
            try:
                return self.march(progress)
            except _MoreDirections:
                self.directions *= 2

    def march(self, progress: Progress) -> Status:
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
                    return self._diverged()
                pool.submit(self._keep).result()
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                self._keep()
                done = max(self.steps_done - 1, 0)
                return Status("interrupted", f"stopped by the user after {done} of {last} steps")
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
        replicate.march(stop, self.kernels_at, self.fields_at, self.states_at)
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
            rule = schedule(self.training, self.problem)
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

    def _diverged(self) -> Status:
        return Status(
            "diverged",
            f"the loss exceeded {DIVERGED:g} times its initial value at step {self.steps_done}: "
            f"try a learning_rate below {self.training.learning_rate:g}",
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
        made = self.settings.recorded(
            self.network, self.problem, outputs(replicates, rows), features, gradients, tangents(replicates, recorded)
        )
        return Solution(
            network=self.network,
            problem=self.problem,
            training=self.training,
            method=self.settings,
            **made,
            kernel_steps=None if len(recorded) == rows else tuple(recorded),
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


def _is_short(matrix: Any) -> bool:
    """Whether one of its bases is full, and leaves something out."""
    return any(int(side.size) == len(side.q) and float(side.left) > matrix.tol for side in (matrix.below, matrix.above))
