"""One solve on particles: replicates march side by side, and what they recorded becomes a Solution.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientFlow
from kernelfield.engine.infinite_matrix import InfiniteMatrix, collect
from kernelfield.engine.series import coefficients
from kernelfield.march import records
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.cost import check_memory
from kernelfield.march.devices import placement, together
from kernelfield.march.flow import FlowReplicate
from kernelfield.march.layout import DIVERGED, Layout
from kernelfield.march.predictor import MarchPredictor
from kernelfield.march.replicate import Replicate
from kernelfield.solution.kernel import KeptKernel, Key, network_kernels
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted

SECONDS_BETWEEN_REPORTS = 0.3  # what Ctrl-C waits for
TIME_TOL = 1e-7  # variance that a factor of a long run may lose
LEFT_OUT = 0.02  # part of what is learned, from which a warning says that it is left out


class _MoreDirections(RuntimeError):
    """Fields that must be known on all of their directions have more than there is room for."""


class ParticleRun:
    """One solve by a method on particles, which a checkpoint keeps if there is one."""

    def __init__(self, run: Run, checkpoint: Checkpoint | None = None) -> None:
        self.run, self.layout, self.checkpoint = run, Layout(run), checkpoint
        self.replicates: list[Replicate] = []
        self.began = time.perf_counter()

    @property
    def steps_done(self) -> int:
        """The number of rows that every replicate has."""
        return min((replicate.t for replicate in self.replicates), default=0)

    def march(self, progress: Report) -> Status:
        """March all replicates to the end; again with more room where too many directions were needed."""
        while True:
            try:
                return self._march(progress)
            except _MoreDirections:
                self.layout.directions *= 2
                check_memory(self.layout)

    def _march(self, progress: Report) -> Status:
        last, layout, self.replicates = self.run.steps, self.layout, []
        kind = FlowReplicate if isinstance(self.run.training, GradientFlow) else Replicate
        make = functools.partial(kind, layout, placement=placement(layout.particles))
        one_thread = threadpool_limits(1, "blas")  # threads of LAPACK wait where those of XLA would work
        with one_thread, ThreadPoolExecutor(layout.side_by_side) as pool, together() as agree:
            try:
                fresh = list(pool.map(make, range(layout.count)))
                if self.checkpoint is not None:
                    self.began -= self.checkpoint.begin(fresh)
                self.replicates = fresh
                for done in self._strides(pool, agree):
                    progress(min(done, last), last)
                if not all(replicate.alive for replicate in self.replicates):
                    return diverged(self.steps_done, self.run.training.learning_rate, DIVERGED)
                pool.submit(self._write_checkpoint).result()
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                self._write_checkpoint()
                return interrupted(max(self.steps_done - 1, 0), last)
        return Status()

    def _strides(self, pool: ThreadPoolExecutor, agree: Callable[[int], int]) -> Iterator[int]:
        """Let the replicate that is furthest behind take a stride, whenever a core is free, until all are at the end.

        No replicate waits for another, but for a checkpoint. The end is that of training, or where one diverged.
        Yields the number of rows that all replicates have, as it grows.
        """
        stride, reported = 1, self.steps_done
        running: dict[Future[tuple[int, float]], Replicate] = {}
        while True:
            due = self.checkpoint is not None and self.checkpoint.due and self.steps_done > 0
            if due and not running:
                pool.submit(self._write_checkpoint).result()  # in a thread, where Ctrl-C does not stop it half-way
                due = False
            end = min([self.run.steps + 1, *(replicate.t for replicate in self.replicates if not replicate.alive)])
            idle = [replicate for replicate in self.replicates if replicate not in running.values()]
            behind = sorted((replicate for replicate in idle if replicate.t < end), key=lambda replicate: replicate.t)
            for replicate in behind[: 0 if due else self.layout.side_by_side - len(running)]:
                running[pool.submit(self._stride, replicate, min(replicate.t + stride, end))] = replicate
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                steps, seconds = future.result()
                stride = agree(max(1, int(steps * min(4.0, SECONDS_BETWEEN_REPORTS / seconds))))
            if self.steps_done > reported:
                reported = self.steps_done
                yield reported

    def _stride(self, replicate: Replicate, stop: int) -> tuple[int, float]:
        """Take a replicate to a row; returns the steps of the stride, and its seconds."""
        began, start = time.perf_counter(), replicate.t
        replicate.march(stop)
        if self.layout.complete and any(_is_short(matrix) for matrix in collect(replicate.state, InfiniteMatrix)):
            raise _MoreDirections
        return stop - start, time.perf_counter() - began

    def _write_checkpoint(self) -> None:
        if self.checkpoint is not None and self.replicates:
            self.checkpoint.write(self.replicates, time.perf_counter() - self.began)

    def solution(self, status: Status) -> Solution | Status:
        """Returns what was recorded as a Solution; the status alone if nothing was."""
        rows, layout = self.steps_done, self.layout
        if not rows:
            return status
        f, kernels = self._recorded(rows)
        info = self._info()
        if (left_out := info["learning_left_out"]) > LEFT_OUT:
            warnings.warn(
                f"{100 * left_out:.0f} % of what the last step learned is left out, a bias that no error bar contains: "
                f"solve with more than directions={layout.directions}, and see whether the answer moves",
                stacklevel=5,  # where a person calls `solve`
            )
        return Solution(
            self.run,
            f,
            kernels,
            field_samples=self._field_samples(),
            predictor=self._predictor() if layout.settings.predicts and not layout.noisy else None,
            exact=layout.exact,
            status=status,
            info=info,
        )

    def _recorded(self, rows: int) -> tuple[np.ndarray, dict[Key, KeptKernel]]:
        """f and the kernels of the rows that all replicates have."""
        replicates, orders = self.replicates, self.layout.step.orders
        recorded = [step for step in records.common_steps(replicates, "rows") if step < rows]
        outputs = [np.concatenate([coefficients(f) for f in replicate.outputs])[:rows] for replicate in replicates]
        for f in outputs:
            f[0] = 0  # where rounding of two passes can be different
        features, gradients = (
            records.factors(replicates, kind, recorded, orders, TIME_TOL) for kind in ("features", "gradients")
        )
        f, features, gradients = self.layout.settings.recorded(self.run, np.stack(outputs), features, gradients)
        with_features, with_gradients = self.layout.settings.records(self.run.problem)
        return f, network_kernels(
            self.run.problem,
            features if with_features else None,
            gradients if with_gradients else None,
            records.recorded_kernels(replicates, recorded),
            None if len(recorded) == rows else tuple(recorded),
        )

    def _info(self) -> dict[str, Any]:
        replicates, layout = self.replicates, self.layout
        matrices = list(zip(*(collect(replicate.state, InfiniteMatrix) for replicate in replicates), strict=True))
        compiling = max(replicate.seconds_compile for replicate in replicates)  # they wait for each other
        rows = [row for replicate in replicates for row in replicate.rows.values()]
        left_out = [float(row.left_out) for row in rows if row.left_out is not None]
        flows = [replicate.accepted for replicate in replicates if isinstance(replicate, FlowReplicate)]
        return {
            "particles": layout.particles,
            "replicates": layout.count,
            "directions": layout.directions,
            "feature_ranks": [max(int(matrix.below.size) for matrix in scrambles) for scrambles in matrices],
            "gradient_ranks": [max(int(matrix.above.size) for matrix in scrambles) for scrambles in matrices],
            "learning_left_out": max((_left_out(matrix) for each in matrices for matrix in each), default=0.0),
            **({"kernel_left_out": max(left_out)} if left_out else {}),
            "precision": np.dtype(layout.dtype).name,
            **({"steps_taken": flows} if flows else {}),
            "seconds_compile": compiling,
            "seconds_run": time.perf_counter() - self.began - compiling,
        }

    def _predictor(self) -> MarchPredictor:
        """What predicts at new points: the states that were kept."""
        common = records.common_steps(self.replicates, "states")
        states = {t: [replicate.states[t] for replicate in self.replicates] for t in common}
        if self.steps_done > (last := self.run.steps):
            states[last] = [replicate.known() for replicate in self.replicates]
        setups = [self.layout.setup(number) for number in range(self.layout.count)]
        return MarchPredictor(self.layout.step, setups, self.layout.axes, states)

    def _field_samples(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Fields as samples: particles as they are, or Gaussian combinations of the points of a cubature."""
        combinations, settings = None, self.layout.settings
        if self.layout.exact:
            points, rng = self.layout.particles, np.random.default_rng(settings.seed)
            combinations = rng.standard_normal((points, settings.particles)) / np.sqrt(points)
        value = functools.partial(settings.values, self.run.network)
        return records.field_samples(self.replicates, value, combinations)


def _left_out(matrix: InfiniteMatrix) -> float:
    """The part of what the last step learned that is left out: of fields outside of the bases on both sides."""
    return float(matrix.below.residual) * float(matrix.above.residual) if matrix.learned is None else 0.0


def _is_short(matrix: InfiniteMatrix) -> bool:
    """Whether one of its bases is full, and leaves something out."""
    sides = matrix.below, matrix.above
    return any(int(side.size) == len(side.q) < side.q.shape[1] and float(side.residual) > matrix.tol for side in sides)
