"""One solve on particles: replicates march side by side, and what they recorded becomes a Solution.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report
from kernelfield.describe.run import Run
from kernelfield.engine.infinite_matrix import InfiniteMatrix, collect
from kernelfield.march import memory, records
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.cost import bytes_of
from kernelfield.march.devices import ONE_DEVICE, placement, together
from kernelfield.march.flow import FlowReplicate
from kernelfield.march.layout import DIVERGED, Layout
from kernelfield.march.predictor import MarchPredictor
from kernelfield.march.replicate import Replicate
from kernelfield.solution.kernel import Kernel, Key, network_kernels
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted

SECONDS_BETWEEN_REPORTS = 0.3  # what Ctrl-C waits for
TIME_TOL = 1e-7  # variance that a factor of a long run may lose


class _MoreDirections(RuntimeError):
    """A linear network has more directions than there is room for."""


class ParticleRun:
    """One solve by a method on particles.

    Args:
        run: what is solved.
        checkpoint: the checkpoint that keeps what is done; None for none.
    """

    def __init__(self, run: Run, checkpoint: Checkpoint | None = None) -> None:
        self.run, self.layout, self.checkpoint = run, Layout(run), checkpoint
        self.replicates: list[Replicate] = []
        self.placement = ONE_DEVICE
        self.began = time.perf_counter()

    @property
    def steps_done(self) -> int:
        """The number of rows that every replicate has."""
        return min((replicate.t for replicate in self.replicates), default=0)

    def check_memory(self) -> None:
        """Raise ValueError if this machine cannot hold the arrays of the run."""
        layout = self.layout
        if layout.exact or placement(layout.particles).is_split:
            return
        needed, most = bytes_of(layout), memory.available()
        if needed > most:
            smaller = memory.smaller(layout.particles, layout.count, 256, most / needed)
            raise ValueError(
                f"particles={layout.particles} and replicates={layout.count} need about "
                f"{needed / memory.GIB:.1f} GiB of memory, of which {most / memory.GIB:.1f} are available"
                + (f": {smaller} would fit" if smaller else "")
            )

    def march(self, progress: Report) -> Status:
        """March all replicates to the end; again with more room where a linear network has more directions."""
        while True:
            try:
                return self._march(progress)
            except _MoreDirections:
                self.layout.directions *= 2

    def _march(self, progress: Report) -> Status:
        last, layout = self.run.steps, self.layout
        self.replicates, self.placement = [], placement(layout.particles)
        one_thread = threadpool_limits(1, "blas")  # threads of LAPACK wait where those of XLA would work
        with one_thread, ThreadPoolExecutor(layout.side_by_side) as pool, together() as agree:
            try:
                fresh = list(pool.map(lambda index: layout.replicate(index, self.placement), range(layout.count)))
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

        Yields:
            The number of rows that all replicates have, as it grows.
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
        replicate.march(stop, self.layout.kernels_at, self.run.fields_at, self.layout.states_at)
        if self.layout.exact and any(_is_short(matrix) for matrix in collect(replicate.state, InfiniteMatrix)):
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
        return Solution(
            self.run,
            f,
            kernels,
            field_samples=self._field_samples(),
            predictor=self._predictor() if layout.settings.predicts else None,
            exact=layout.exact,
            status=status,
            info=self._info(),
        )

    def _recorded(self, rows: int) -> tuple[np.ndarray, dict[Key, Kernel]]:
        """f and the kernels of the rows that all replicates have."""
        recorded, orders = records.recorded_rows(self.replicates, rows), self.layout.step.orders
        features, gradients = (
            records.factors(self.replicates, kind, recorded, orders, TIME_TOL) for kind in ("features", "gradients")
        )
        outputs = records.outputs(self.replicates, rows)
        f, features, gradients = self.layout.settings.recorded(self.run, outputs, features, gradients)
        with_features, with_gradients = self.layout.settings.records(self.run.problem)
        return f, network_kernels(
            self.run.problem,
            features if with_features else None,
            gradients if with_gradients else None,
            records.tangents(self.replicates, recorded),
            None if len(recorded) == rows else tuple(recorded),
        )

    def _info(self) -> dict[str, Any]:
        replicates = self.replicates
        by_replicate = [collect(replicate.state, InfiniteMatrix) for replicate in replicates]
        compiling = sum(replicate.seconds_compile for replicate in replicates)
        left_out = [
            float(left) for left in (records.left_out(replicate) for replicate in replicates) if left is not None
        ]
        flows = [replicate.accepted for replicate in replicates if isinstance(replicate, FlowReplicate)]
        return {
            "particles": replicates[0].setup.particles,
            "replicates": len(replicates),
            "directions": self.layout.directions,
            "feature_ranks": [max(int(m.below.size) for m in matrices) for matrices in zip(*by_replicate, strict=True)],
            "gradient_ranks": [
                max(int(m.above.size) for m in matrices) for matrices in zip(*by_replicate, strict=True)
            ],
            **({"kernel_left_out": max(left_out)} if left_out else {}),
            "precision": np.dtype(replicates[0].setup.dtype).name,
            **({"steps_taken": flows} if flows else {}),
            "seconds_compile": compiling,
            "seconds_run": time.perf_counter() - self.began - compiling,
        }

    def _predictor(self) -> MarchPredictor:
        """What predicts at new points: the states that were kept."""
        common = set.intersection(*(set(replicate.states) for replicate in self.replicates))
        states = {t: [replicate.states[t] for replicate in self.replicates] for t in sorted(common)}
        if self.steps_done > (last := self.run.steps):
            states[last] = [replicate.known() for replicate in self.replicates]
        setups = [self.layout.setup(number) for number in range(self.layout.count)]
        return MarchPredictor(self.layout.step, setups, self.layout.axes, states)

    def _field_samples(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Fields as samples: particles as they are, or Gaussian combinations of the points of a cubature."""
        combinations, settings = None, self.layout.settings
        if self.layout.exact:
            points, rng = self.replicates[0].setup.particles, np.random.default_rng(settings.seed)
            combinations = rng.standard_normal((points, settings.particles)) / np.sqrt(points)
        return records.field_samples(
            self.replicates, lambda field: settings.values(self.run.network, field), combinations
        )


def _is_short(matrix: InfiniteMatrix) -> bool:
    """Whether one of its bases is full, and leaves something out."""
    return any(
        int(side.size) == len(side.q) and float(side.residual) > matrix.tol for side in (matrix.below, matrix.above)
    )
