"""The march: one causal sweep through training time at infinite width.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, field_validator
from threadpoolctl import threadpool_limits

from kernelfield import memory
from kernelfield.checkpoint import Checkpoint
from kernelfield.devices import ONE_DEVICE, multiple, placement, together
from kernelfield.engine.points import OutOfParticles, cubature, padded_sobol
from kernelfield.flow import FlowReplicate
from kernelfield.identity import describe
from kernelfield.layers import Setup
from kernelfield.predictor import MarchPredictor
from kernelfield.problem import Problem
from kernelfield.records import factors, field_samples, largest, recorded
from kernelfield.replicate import Constants, Replicate, Schedule, Step, at
from kernelfield.room import data_space, small_state, state_bytes
from kernelfield.solution import Solution, Status
from kernelfield.training import SGD, GradientDescent, GradientFlow, OnlineSGD
from kernelfield.validation import Spec

Progress = Callable[[int, int], None]
SINGLE_PRECISION_TOL = 1e-6  # smaller tolerances resolve directions that float32 particles blur
SECONDS_BETWEEN_REPORTS = 0.3  # what Ctrl-C waits for
SMALLEST_TOL = 1e-28  # above rounding of squares in double precision
EXACT_TOL = 1e-26  # of linear networks
DIVERGED = 1e3  # times the initial loss
SMALL = 1e-3  # of the bytes available: numbers in one of dozens of arrays
SMOOTH, KINKED = 10, 30  # directions a point that activations need on common data
ROOM = 10**7  # numbers in a basis that may have room for them all at once
TIME_TOL = 0.01  # of its basis' tolerance, variance that a factor of a long run may lose


class OnParticles(Spec):
    """A theory of infinite width that is solved on particles, in one sweep through training time.

    The settings that all of them share, and, from `step` on, what they do differently; see `March`.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        feature_tol: variance, relative to the mean square, that may stay outside the basis of the features.
        gradient_tol: the same for gradients.
    """

    particles: int = Field(default=4096, ge=16)
    replicates: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    feature_tol: float | None = Field(default=None, gt=SMALLEST_TOL, lt=1)
    gradient_tol: float | None = Field(default=None, gt=SMALLEST_TOL, lt=1)

    coupling: ClassVar[float] = 1.0  # 0: W(0) and its transpose are unrelated
    predicts: ClassVar[bool] = False  # at new points, by a forward pass
    keeps_checkpoints: ClassVar[bool] = True

    @field_validator("particles")
    @classmethod
    def _balanced(cls, particles: int) -> int:
        if particles & (particles - 1):
            raise ValueError(f"particles must be a power of two (Sobol points), got {particles}")
        return particles

    def check(self, network: Any, problem: Problem, training: Any) -> None:
        """Raise ValueError if there are too few particles."""
        if not network.is_linear and self.particles < 4 * problem.points:
            raise ValueError(f"particles must be at least 4 P = {4 * problem.points}, got {self.particles}")

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
            run.particles = found or run.particles
        return run.solution(run.march_with_enough(progress))

    def tolerances(self, network: Any) -> tuple[float, float]:
        """Feature and gradient tolerance for a network, defaults filled in."""
        if network.is_linear:
            feature_tol, ratio, most = EXACT_TOL, 1.0, 1.0
        else:
            feature_tol, ratio, most = (1e-5, 3.0, 0.1) if network.smooth else (1e-6, 1e4, 1e-2)
            feature_tol = min(feature_tol, 1e-4 * network.gamma0**2)
        feature_tol = self.feature_tol or feature_tol
        return feature_tol, self.gradient_tol or min(ratio * feature_tol, most)

    @property
    def tracks_features(self) -> bool:
        """Whether kernels are recorded."""
        return True

    def tracks_gradients(self, problem: Problem) -> bool:
        """Whether gradient kernels are recorded."""
        return True

    def step(self, network: Any, problem: Problem, training: Any) -> Step:
        """One step of training, to be compiled."""
        flows = isinstance(training, GradientFlow)  # along velocities, by the gradients of every output
        return Step(
            network.layers,
            problem.loss,
            problem.outputs,
            flows or self.tracks_gradients(problem),
            network.factorizes,
            flows or training.momentum > 0,
            not flows and training.weight_decay > 0,
            self.tracks_features,
        )

    def setup(self, network: Any, problem: Problem, particles: int, replicate: int) -> Setup:
        """How a replicate lays out the network on so many particles."""
        feature_tol, gradient_tol = self.tolerances(network)
        return Setup(
            gamma0=self.gamma0(network),
            points=cubature if network.is_linear else padded_sobol,
            particles=particles,
            seed=np.random.SeedSequence(self.seed, spawn_key=(replicate,)),
            capacities=iter(()),
            feature_tol=feature_tol,
            gradient_tol=gradient_tol,
            coupling=self.coupling,
            dtype=jnp.float32 if feature_tol >= SINGLE_PRECISION_TOL else jnp.float64,
            outputs=problem.outputs or 1,
        )

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
        return {
            "replicate_predictions": predictions,
            "feature_factors": (problem.input_coordinates[None, None], *features) if self.tracks_features else (),
            "gradient_factors": (*gradients, one) if self.tracks_gradients(problem) else (),
            "tangent_kernels": tangents,
        }


class March(OnParticles):
    """Infinite width, solved on particles in one sweep through time (theory: exact as particles -> infinity).

    Linear networks choose exact cubature by themselves: one replicate, no sampling error.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        feature_tol: variance, relative to the mean square, that may stay outside the basis of the features.
            By default 1e-5 for smooth and 1e-6 for kinked activations, whose neurons a new direction throws off their
            kink, and at most 1e-4 gamma0^2, since features move by O(gamma0).
        gradient_tol: the same for gradients; three times `feature_tol` by default. For kinked activations, whose
            gradients have a long tail of directions that matter little, ten thousand times that, and at most 1e-2.
        kernels: "all" tracks gradient kernels and the NTK of a network with one output; "features" back-propagates the
            error signal itself, which needs fewer directions, and leaves gradient kernels out; "none" leaves out all
            kernels and the directions that only they need: of one hidden layer almost all the time and memory, of three
            a quarter of the time. Networks of several outputs are solved as "features" unless asked for
            "per_output", which tracks G and NTK of every output, at C times the cost.
    """

    kernels: Literal["all", "features", "none", "per_output"] = "all"

    predicts: ClassVar[bool] = True
    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD, OnlineSGD, GradientFlow)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "outputs", "momentum", "weight_decay", "schedule"})

    @property
    def tracks_features(self) -> bool:
        """Whether kernels are recorded."""
        return self.kernels != "none"

    def tracks_gradients(self, problem: Problem) -> bool:
        """Whether gradient kernels are recorded."""
        return self.kernels == "per_output" or (self.kernels == "all" and problem.outputs is None)

    def restored_predictor(self, solution: Solution, arrays: Mapping[str, np.ndarray]) -> MarchPredictor:
        """What a run of a Solution without it had left to predict with, given its `arrays`."""
        network, problem, particles = solution.network, solution.problem, solution.info["particles"]
        setups = [self.setup(network, problem, particles, int(number)) for number in arrays["replicates"]]
        return MarchPredictor.restored(network, problem, setups, arrays)


def readout_gradients(problem: Problem) -> np.ndarray:
    """The factor of G^{L+1}: one; of several outputs (1, 1, P C, C), one for the same output and zero for others."""
    return np.tile(np.eye(problem.outputs or 1), (problem.points, 1))[None, None]


def first_capacity(points: int, particles: int, smooth: bool) -> int:
    """Room for directions to begin with: for all that activations need on common data, where it is not much.

    More is compiled anew.
    """
    return 32 + min((SMOOTH if smooth else KINKED) * points, max(320 + 2 * points, ROOM // particles))


def schedule(training: Any, problem: Problem) -> Schedule:
    """When what is learned: a rule of gradient descent on a problem.

    Args:
        training: the rule.
        problem: whose points are drawn.

    Raises:
        ValueError: the rule does not fit the problem.
    """
    return Schedule(training.rates(problem), training.batches(problem), training.updates_per_step(problem))


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
        self.data, self.step = network.coordinates(problem), march.step(network, problem, training)
        self.exact = network.is_linear
        self.feature_tol, self.gradient_tol = march.tolerances(network)
        self.particles = multiple(16 * problem.points + 128) if self.exact else march.particles  # to begin with
        self.count = 1 if self.exact else march.replicates
        self.replicates: list[Replicate] = []
        self.placement = ONE_DEVICE
        self.began = time.perf_counter()

    @property
    def first_capacity(self) -> int:
        """Room for directions in every basis, to begin with."""
        return first_capacity(self.step.orders * self.problem.points, self.particles, self.network.smooth)

    @property
    def at_once(self) -> int:
        """Replicates that march side by side; on several devices one, whose sums would wait for those of another."""
        return 1 if placement(self.particles).is_split else min(self.count, os.cpu_count() or 1)

    def check_memory(self) -> None:
        """Raise ValueError if this machine cannot even hold the states of the beginning."""
        if self.exact or placement(self.particles).is_split:
            return
        points, first, most = self.problem.points, self.first_capacity, memory.available()
        if self.count * self.particles * first < SMALL * most:  # not worth a closer look
            return
        needed = self.count * self.state_bytes(itertools.repeat(first))
        if needed > most:
            smaller = memory.smaller(self.particles, self.count, 4 * points, most / needed)
            raise ValueError(
                f"particles={self.particles} and replicates={self.count} need at least "
                f"{needed / memory.GIB:.1f} GiB of memory, of which {most / memory.GIB:.1f} are available"
                + (f": {smaller} would fit" if smaller else "")
            )

    def state_bytes(self, capacities: Iterable[int]) -> int:
        """Size of the state of one replicate with so much room in every basis."""
        data = self.data[: self.problem.points]
        return state_bytes(self.network.layers, self.setup(0), data_space(data), capacities)

    def record_bytes(self, directions: Iterable[int]) -> list[int]:
        """Size of what a step of one replicate records of every layer, with so many directions in every basis."""
        setup, data = self.setup(0), self.data[: self.problem.points]
        state = small_state(self.network.layers, setup, data_space(data), directions)
        pace = at(schedule(self.training, self.problem).paces(0), 0)
        with jax.enable_x64(True):
            _, record, _ = jax.eval_shape(self.step, self._constants(setup, data), state, pace)
        return [math.prod(each.shape) * each.dtype.itemsize for each in (*record.features, *record.gradients)]

    def setup(self, replicate: int) -> Setup:
        """How a replicate lays out the network."""
        setup, step = self.settings.setup(self.network, self.problem, self.particles, replicate), self.step
        features = step.records or step.plain  # which flows and tangent kernels need
        return dataclasses.replace(setup, momentum=step.momentum, features=features, gradients=step.plain)

    @property
    def states_at(self) -> list[int]:
        """Rows whose states are kept to predict from; that of the last one, which learns nothing, stays as it is."""
        return [t for t in self.fields_at if t < self.training.steps] if self.settings.predicts else []

    @property
    def steps_done(self) -> int:
        """Rows that every replicate has."""
        return min((replicate.t for replicate in self.replicates), default=0)

    def march_with_enough(self, progress: Progress) -> Status:
        """`march`, again where a linear network runs out of particles: a cubature of any size is exact, but whole."""
        while True:
            try:
                return self.march(progress)
            except memory.OutOfMemory as error:
                self._keep()
                advice = "use fewer particles or replicates, a larger feature_tol, or kernels='none'"
                return Status("out_of_memory", f"{error} at step {self.steps_done}: {advice}")
            except OutOfParticles as error:
                if not self.exact:
                    advice = "use more particles or a larger feature_tol"
                    return Status("out_of_particles", f"{error} at step {self.steps_done}: {advice}")
                self.particles *= 2

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
            memory.require(2 * largest(self.replicates))  # which the end will put together
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
        replicate.march(stop, self.fields_at, self.states_at)
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
                replicate = FlowReplicate(
                    self.step, constants, setup, unused, self.first_capacity, placement=on, at_once=self.at_once
                )
                return replicate.start(self.training)
            drawn_from, stream = None, self.problem.stream
            if stream is not None:
                drawn_from = constants._replace(data=jnp.asarray(fresh, setup.dtype), y=jnp.asarray(stream.y))
            rule = schedule(self.training, self.problem)
            return Replicate(
                self.step, constants, setup, rule, self.first_capacity, drawn_from, self.placement, self.at_once
            )

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
        """What was recorded, as a Solution, which the records are used up for; the status alone if nothing was."""
        rows, replicates = self.steps_done, self.replicates
        seconds_compile = sum(each.seconds_compile for each in replicates)
        if not rows:
            return status
        features = factors(replicates, "features", rows, self.step.orders, TIME_TOL * self.feature_tol)
        gradients = factors(replicates, "gradients", rows, self.step.orders, TIME_TOL * self.gradient_tol)
        predictions, tangents = recorded(replicates, "f", rows), recorded(replicates, "tangent", rows)
        feature_ranks, gradient_ranks = ([each.shape[-1] for each in kind] for kind in (features, gradients))
        return Solution(
            network=self.network,
            problem=self.problem,
            training=self.training,
            method=self.settings,
            **self.settings.recorded(self.network, self.problem, predictions, features, gradients, tangents),
            field_samples=self._field_samples(),
            predictor=self._predictor(),
            exact=self.exact,
            status=status,
            info={
                "particles": replicates[0].setup.particles,
                "replicates": len(replicates),
                "feature_ranks": feature_ranks,
                "gradient_ranks": gradient_ranks,
                "feature_tol": self.feature_tol,
                "gradient_tol": self.gradient_tol,
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
        if self.steps_done > (last := self.training.steps) in self.fields_at:
            states[last] = [each.known() for each in self.replicates]
        return MarchPredictor(
            layers=self.network.layers,
            outputs=self.problem.outputs,
            setups=[self.settings.setup(self.network, self.problem, self.particles, i) for i in range(self.count)],
            axes=self._axes(),
            states=states,
        )

    def _axes(self) -> np.ndarray:
        """(k, D) orthonormal: the data are their coordinates times sqrt(D) times these."""
        inputs = self.network.every_input(self.problem)
        rows, F = (values.reshape(-1, values.shape[-1]) for values in (inputs, self.data))
        return (F / (F**2).sum(axis=0)).T @ rows / np.sqrt(rows.shape[1])

    def _flows(self) -> list[FlowReplicate]:
        return [each for each in self.replicates if isinstance(each, FlowReplicate)]

    def _field_samples(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Fields as samples: particles as they are, or Gaussian combinations of a cubature's points."""
        names, gaussian = ("h", "z", "g") if self.step.plain else ("h",), None
        if self.exact:
            points, rng = self.replicates[0].setup.particles, np.random.default_rng(self.settings.seed)
            gaussian = rng.standard_normal((points, self.settings.particles)) / np.sqrt(points)
        return field_samples(self.replicates, names, functools.partial(self.settings.values, self.network), gaussian)
