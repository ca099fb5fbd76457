"""What a solve will take, before it runs: time and memory, from its first steps and from smaller runs to the end.

How many directions there will be is not known beforehand. The first steps of the run itself say where it begins; how
it goes on is seen in a run of fewer points on as many fewer particles. A step moves every point along every direction
on all particles, and a new direction is compared with all others: seconds are a combination of the two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from scipy.optimize import nnls

from kernelfield import memory
from kernelfield.engine.basis import BLOCK
from kernelfield.march import March, MarchRun, OnParticles, first_capacity
from kernelfield.problem import Problem
from kernelfield.progress import bar
from kernelfield.replicate import RECORD_BYTES
from kernelfield.room import rooms
from kernelfield.solution import Solution
from kernelfield.solve import check, check_input
from kernelfield.training import GradientDescent

FEWEST = 8  # points of the smallest run
LONGER = 8.0  # times the seconds of one run that one of twice the points on twice the particles takes, about
LOOKS = 3  # at a run, before it is given up: fewer say nothing of how it goes on
ARRAYS = 2  # as large as the largest of the state, that a compiled step needs for itself
FIELDS = 2  # of all points on all particles, for every basis: h and phi of one of features, z and g of one of gradients
PROCESS = memory.GIB // 2  # what it holds besides arrays
PROGRAM = memory.GIB // 6  # compiled for a room, and what is not given back when bases are enlarged


@dataclass(frozen=True)
class Look:
    """At a run: the step it had come to, after so many seconds, and its directions in every basis."""

    step: int
    seconds: float
    directions: tuple[int, ...]


@dataclass(frozen=True)
class Pilot:
    """The run of a part of the points, or the first steps of the whole, by as many replicates as march at once.

    Args:
        points: n.
        particles: S.
        steps: that were done.
        seconds: to run.
        seconds_compile: to compile.
        looks: at it on the way.
    """

    points: int
    particles: int
    steps: int
    seconds: float
    seconds_compile: float
    looks: tuple[Look, ...] = field(repr=False)

    @property
    def directions(self) -> tuple[int, ...]:
        """In every basis at the end."""
        return self.looks[-1].directions

    @property
    def seconds_after(self) -> float:
        """From the last step to the solution."""
        return self.seconds - self.looks[-1].seconds

    def at(self, step: int) -> np.ndarray:
        """Directions in every basis at a step."""
        known = np.array([each.directions for each in self.looks]).T
        return np.array([np.interp(step, [each.step for each in self.looks], counts) for counts in known])


@dataclass(frozen=True)
class Cost:
    """What a solve will take.

    Args:
        seconds: to run, without compilation.
        seconds_compile: to compile what no earlier run has.
        memory: bytes at the peak, of the whole process.
        available: bytes that this machine has for it.
        directions: in every basis at the end.
        pilots: what it was extrapolated from.
        advice: the setting that would make it fit into memory, if it does not.
    """

    seconds: float
    seconds_compile: float
    memory: int
    available: int
    directions: tuple[int, ...]
    pilots: tuple[Pilot, ...] = field(repr=False)
    advice: str | None = None

    @property
    def fits(self) -> bool:
        """Whether there is enough memory."""
        return self.memory <= self.available


def estimate(
    network: Any,
    problem: Problem,
    training: GradientDescent,
    method: OnParticles | None = None,
    *,
    seconds: float = 60.0,
    progress: bool = True,
) -> Cost:
    """Time and memory that `kernelfield.solve` will take, from its first steps and solves of a few of the points.

    Args:
        network: what learns.
        problem: what is learned.
        training: how it learns.
        method: March() by default, or another one on particles.
        seconds: that the estimate itself may take, roughly, without compilation.
        progress: show a progress bar.

    Returns:
        Cost.

    Raises:
        ValueError: for input that cannot be solved, a method that is not on particles, or a rule of training that is
            not plain gradient descent.
        SolveError: a solve of some of the points failed.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.random.default_rng(0).standard_normal((16, 4)), np.tile([1.0, -1.0], 8))
        >>> training = kf.GradientDescent(learning_rate=0.2, steps=3)
        >>> cost = kf.estimate(kf.MLP(depth=1), problem, training, kf.March(particles=64), seconds=1, progress=False)
        >>> cost.fits
        True
    """
    method = method or March()
    if not isinstance(method, OnParticles):
        raise ValueError(f"estimate is for methods on particles, March for instance, not {type(method).__name__}")
    check_input(network, problem, training, method)
    if type(training) is not GradientDescent:
        raise ValueError(f"estimate knows what GradientDescent takes, not {type(training).__name__}")
    own = psutil.Process().memory_info().rss + PROCESS
    most, run = own + memory.available(), MarchRun(method, network, problem, training, [0, training.steps])

    def needed(directions: Sequence[int]) -> int:
        return own + _bytes(run, directions)

    with bar("estimate", progress) as report:
        pilots = _pilots(run, seconds, report, lambda look: needed(look.directions) <= most)
    last = pilots[-1]
    directions, one_round = last.directions, last.seconds
    if (last.points, last.steps) != (problem.points, training.steps):
        directions, one_round = _extrapolated(pilots, run)
    whole, smooth = needed(directions), network.smooth
    return Cost(
        seconds=one_round * math.ceil(run.count / run.at_once),
        seconds_compile=last.seconds_compile
        * len(_rooms(smooth, problem.points, run.particles, directions))
        / len(_rooms(smooth, last.points, last.particles, last.directions)),
        memory=whole,
        available=most,
        directions=directions,
        pilots=tuple(pilots),
        advice=None if whole <= most else memory.smaller(run.particles, run.count, 4 * problem.points, most / whole),
    )


def _pilots(
    run: MarchRun, seconds: float, report: Callable[[int, int], None], fits: Callable[[Look], bool]
) -> list[Pilot]:
    """Runs of more and more points for half of the seconds, then the whole as far as it comes and fits into memory."""
    problem, halvings = run.problem, max(0, int(math.log2(run.problem.points / FEWEST)))
    order = np.random.default_rng(0).permutation(problem.points)
    order = order[np.argsort(problem.weights[order] == 0, kind="stable")] if not problem.weights.all() else order
    ran: list[Pilot] = []
    left = seconds
    for halving in range(halvings, -1, -1):
        report(halvings - halving, halvings + 1)
        if halving and (not ran or LONGER * ran[-1].seconds < left / 2):
            chosen = order[: math.ceil(problem.points / 2**halving)]
            part = Problem(problem.X[chosen], problem.y[chosen], problem.weights[chosen], problem.loss)
            ran.append(_pilot(run, part, run.settings.particles >> halving, left / 2))
        elif not halving and (not ran or fits(ran[-1].looks[0])):
            ran.append(_pilot(run, problem, run.settings.particles, left, fits))
        left = seconds - sum(each.seconds for each in ran)
    return ran


class _Enough(Exception):
    """A run has taken its time."""


def _pilot(
    whole: MarchRun,
    problem: Problem,
    particles: int,
    seconds: float,
    fits: Callable[[Look], bool] = lambda look: True,
) -> Pilot:
    """A run, as far as it comes in so many seconds and fits; on all particles if these do not suffice."""
    began, last, looks = time.perf_counter(), whole.training.steps, []
    method = whole.settings.model_copy(update={"particles": particles})
    run = MarchRun(method, whole.network, problem, whole.training, [0, last])
    run.count = run.at_once

    def compiling() -> float:
        return sum(each.seconds_compile for each in run.replicates)

    def look(done: int, total: int) -> None:
        nonlocal began
        while looks and looks[-1].step >= done:  # the last step is reported twice, a run that begins again once more
            looks.pop()
        counts = tuple(map(max, zip(*(each.directions for each in run.replicates), strict=True)))
        now = time.perf_counter()
        looks.append(Look(done, now - began - compiling(), counts))
        enough = len(looks) >= LOOKS and (looks[-1].seconds > seconds or not fits(looks[-1]))
        began += time.perf_counter() - now  # it takes a while to tell whether it fits
        if enough:
            raise _Enough

    with contextlib.suppress(_Enough):
        status = run.march_with_enough(look)
        if status.code == "out_of_particles" and particles < whole.settings.particles:
            return _pilot(whole, problem, whole.settings.particles, seconds)
        solution = run.solution(status)
        check(status, solution if isinstance(solution, Solution) else None)
    elapsed = time.perf_counter() - began - compiling()
    return Pilot(problem.points, run.particles, looks[-1].step, elapsed, compiling(), tuple(looks))


def _extrapolated(pilots: Sequence[Pilot], run: MarchRun) -> tuple[tuple[int, ...], float]:
    """Directions at the end and seconds of the whole, which goes on as the run before it, or is a multiple of that."""
    points, steps, last = run.problem.points, run.training.steps, pilots[-1]
    if last.points == points:
        shape = pilots[-2] if len(pilots) > 1 else last
        start, elapsed = last.steps, last.looks[-1].seconds
        factors = np.array(last.directions) / np.maximum(shape.at(start), 1)
    else:
        shape, start, elapsed = last, 0, 0.0
        factors = np.full(len(last.directions), points / last.points)
    path = np.array([np.minimum(factors * shape.at(t), run.particles) for t in range(start, steps + 1)])
    work = [
        _work(each, [look.step for look in each.looks], [look.directions for look in each.looks]) for each in pilots
    ]
    taken = [np.diff([look.seconds for look in each.looks]) for each in pilots]
    rates, _ = nnls(np.concatenate(work), np.concatenate(taken))
    ahead = _work(dataclasses.replace(last, points=points, particles=run.particles), range(start, steps + 1), path)
    known = shape.points * max(1, sum(shape.directions))
    records = points * max(1, path[-1].sum()) / known  # times as many of them in the end
    seconds = elapsed + ahead.sum(axis=0) @ rates + shape.seconds_after * records
    return tuple(round(count) for count in path[-1]), float(seconds)


def _work(run: Pilot, steps: Sequence[int], directions: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Products between looks at these steps, (looks - 1, 2): of points and directions, of directions with new ones.

    Points are directions too, of the data.
    """
    counts = np.array(directions, float)
    moved = run.points * np.diff(steps) * (run.points + counts[1:].sum(axis=1))
    met = np.sum(counts[1:] * np.diff(counts, axis=0), axis=1)
    return run.particles * np.stack([moved, met], axis=1)


def _rooms(smooth: bool, points: int, particles: int, directions: Sequence[int]) -> list[tuple[int, ...]]:
    """Room of all bases, as they grow: a step is compiled for each."""
    return rooms(first_capacity(points, particles, smooth), directions, min(points, BLOCK), particles)


def _bytes(run: MarchRun, directions: Sequence[int]) -> int:
    """What arrays and programs take at most: in the end, or while the bases are enlarged for the last time.

    Every replicate has its state, the fields of rows that it keeps, and the coordinates that it recorded, of which one
    layer's are copied in the end. While bases are enlarged, no step is at work, and both states are there; in the end
    the last row has its fields too.
    """
    points, particles, item = run.problem.points, run.particles, np.dtype(run.setup(0).dtype).itemsize
    grow = _rooms(run.network.smooth, points, particles, directions)
    state = run.state_bytes(grow[-1])
    before = run.state_bytes(grow[-2]) if len(grow) > 1 else 0
    layers = [(run.training.steps + 1) * each for each in run.record_bytes(directions)]
    recorded, one_layer = sum(layers), max(layers, default=0)
    fields = FIELDS * len(directions) * points * particles * item
    working = run.at_once * (ARRAYS * max(grow[-1]) * particles * item + RECORD_BYTES)
    lasting = state + (len(run.fields_at) - 1) * fields + recorded
    arrays = run.count * lasting + max(run.at_once * before, working + run.count * (fields + one_layer))
    return arrays + len(grow) * PROGRAM
