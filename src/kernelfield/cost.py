"""What a solve will take, before it runs: time and memory, from solves of a few of its points.

A step moves every point along every direction of every basis on all particles, so that its cost is points times
directions times particles, and that of moving bases through memory directions times particles: two solves give the
shares of both. How many directions there will be is not known beforehand; solves of n, 2n, 4n, ... points show how it
grows with the number of points, which is extrapolated by a power law.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from scipy.optimize import nnls

from kernelfield import memory
from kernelfield.engine.basis import BLOCK, bases
from kernelfield.march import March, MarchRun, OnParticles, first_capacity
from kernelfield.problem import Problem
from kernelfield.progress import bar
from kernelfield.replicate import RECORD_BYTES
from kernelfield.solution import Solution
from kernelfield.solve import check, check_input
from kernelfield.training import GradientDescent

FEWEST = 8  # points of the first pilot
LONGER = 4.0  # times the seconds of one pilot that the next one takes, about
ARRAYS = 3  # as large as the largest of the state, that a compiled step needs for itself
COPIES = 3  # of a state while its bases are enlarged: in NumPy, larger, and larger in NumPy
PROGRAMS = 3 * memory.GIB // 4  # compiled, and what else the process holds besides arrays


@dataclass(frozen=True)
class Pilot:
    """A solve of some of the points, by as many replicates as march at once.

    Args:
        points: n.
        particles: S.
        seconds: to run.
        seconds_compile: to compile.
        directions: in every basis at the end.
    """

    points: int
    particles: int
    seconds: float
    seconds_compile: float
    directions: tuple[int, ...]

    @property
    def work(self) -> np.ndarray:
        """What seconds are a combination of: particles times directions, which move through memory, and products."""
        return np.array([1.0, self.points]) * self.particles * sum(self.directions)


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
    """Time and memory that `kernelfield.solve` will take, from solves of a few of the points.

    Args:
        network: what learns.
        problem: what is learned.
        training: how it learns.
        method: March() by default, or another one on particles.
        seconds: that the estimate itself may take, roughly.
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
    own = psutil.Process().memory_info().rss + PROGRAMS
    with bar("estimate", progress) as report:
        pilots = _pilots(method, network, problem, training, seconds, report)
    run = MarchRun(method, network, problem, training, [0, training.steps])
    points, particles, last = problem.points, run.particles, pilots[-1]
    directions = tuple(
        round(min(particles, _at(points, [each.points for each in pilots], counts)))
        for counts in zip(*(each.directions for each in pilots), strict=True)
    )
    whole = Pilot(points, particles, 0.0, 0.0, directions)
    seconds = last.seconds * _relative(whole, last, pilots[-2:])
    needed, most = own + _bytes(run, directions), own + memory.available()
    return Cost(
        seconds=seconds * math.ceil(run.count / run.at_once),
        seconds_compile=last.seconds_compile
        * len(_rooms(points, particles, directions))
        / len(_rooms(last.points, last.particles, last.directions)),
        memory=needed,
        available=most,
        directions=directions,
        pilots=tuple(pilots),
        advice=None if needed <= most else memory.smaller(particles, run.count, 4 * points, most / needed),
    )


def _pilots(
    method: OnParticles,
    network: Any,
    problem: Problem,
    training: GradientDescent,
    seconds: float,
    report: Callable[[int, int], None],
) -> list[Pilot]:
    """At least two, as long as they take no more than so many seconds, up to one of all points."""
    order = np.random.default_rng(0).permutation(problem.points)
    order = order[np.argsort(problem.weights[order] == 0, kind="stable")] if not problem.weights.all() else order
    sizes = [problem.points]
    while sizes[0] >= 2 * FEWEST:
        sizes.insert(0, math.ceil(sizes[0] / 2))
    ran: list[Pilot] = []
    for number, size in enumerate(sizes):
        left = seconds - sum(each.seconds + each.seconds_compile for each in ran)
        if len(ran) >= 2 and LONGER * ran[-1].seconds > left:
            break
        report(number, len(sizes))
        ran.append(_pilot(method, network, _part(problem, order[:size]), training))
    return ran


def _part(problem: Problem, chosen: np.ndarray) -> Problem:
    return Problem(problem.X[chosen], problem.y[chosen], problem.weights[chosen], problem.loss)


def _pilot(method: OnParticles, network: Any, problem: Problem, training: GradientDescent) -> Pilot:
    began, last = time.perf_counter(), training.steps
    run = MarchRun(method, network, problem, training, [0, last])
    run.count = run.at_once
    status = run.march_with_enough(lambda done, total: None)
    solution = run.solution(status)
    check(status, solution if isinstance(solution, Solution) else None)
    sizes = [[int(basis.size) for basis in bases(each.state)] for each in run.replicates]
    compiling = sum(each.seconds_compile for each in run.replicates)
    elapsed = time.perf_counter() - began - compiling
    return Pilot(problem.points, run.particles, elapsed, compiling, tuple(map(max, zip(*sizes, strict=True))))


def _relative(whole: Pilot, last: Pilot, pilots: Sequence[Pilot]) -> float:
    """How many times as long as the last of the pilots, two of which give the shares of memory and products."""
    shares, _ = nnls(np.stack([each.work / each.seconds for each in pilots]), np.ones(len(pilots)))
    return float(whole.work @ shares / (last.work @ shares))


def _at(x: float, known: Sequence[float], values: Sequence[float]) -> float:
    """The power law through the last two of the values, at x; proportional to x where there is one."""
    power = 1.0
    if len(values) > 1 and min(values[-2:]) > 0:
        power = float(np.clip(np.log(values[-1] / values[-2]) / np.log(known[-1] / known[-2]), 0.0, 1.2))
    return values[-1] * (x / known[-1]) ** power


def _rooms(points: int, particles: int, directions: Sequence[int]) -> list[tuple[int, ...]]:
    """Room of all bases, as they grow: a step is compiled for each."""
    return memory.rooms(first_capacity(points), directions, min(points, BLOCK), particles)


def _bytes(run: MarchRun, directions: Sequence[int]) -> int:
    """What arrays take: at the end, or when bases are enlarged for the last time, which takes copies of those at work.

    Every replicate has its state, again that of the first and at the end that of the last step, for predictions, and
    the coordinates that it recorded, of which one layer's are copied in the end.
    """
    points, particles, item = run.problem.points, run.particles, np.dtype(run.setup(0).dtype).itemsize
    rooms = _rooms(points, particles, directions)
    first, last = run.state_bytes(rooms[0]), run.state_bytes(rooms[-1])
    kinds = run.step.records + run.step.records * run.step.plain  # features and gradients, about half of the room each
    recorded = (run.training.steps + 1) * points * item * kinds / 2 * sum(rooms[-1])
    one_layer = (run.training.steps + 1) * points * item * max(directions) if kinds else 0
    at_the_end = last + round(recorded) + one_layer
    enlarging = run.at_once * COPIES * last if len(rooms) > 1 else 0
    working = run.at_once * (ARRAYS * max(rooms[-1]) * particles * item + RECORD_BYTES)
    return run.count * (first + last) + working + max(run.count * at_the_end, enlarging)
