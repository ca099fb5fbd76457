"""What `kernelfield estimate` says against what the solve takes, each in a process of its own.

    python benchmarks/estimates.py
    python benchmarks/estimates.py --large       # 512 points on 32768 particles

Estimates are given a third of the seconds that the solve takes, and no more than 150. Time is that of running,
without compilation; memory the most that the solving process had resident. Bases get half as much room again when they
are full: where a run ends just before that, a few directions too many in the estimate are much memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
from typing import NamedTuple

import kernelfield as kf
from cases import breast_cancer
from goals import goal
from kernelfield.datasets import digits
from kernelfield.march.cost import GIB
from processes import alone

WHY = {
    "time": "on a shared machine one process may do the same product a third faster than the next",
    "memory": "",
}


class Run(NamedTuple):
    """What is solved and estimated."""

    name: str
    network: kf.MLP
    problem: kf.Problem
    training: kf.GradientDescent
    method: kf.March


def runs(large: bool) -> list[Run]:
    """Digits and measurements of cells, three and two hidden layers."""
    tanh, relu = kf.MLP(depth=3, activation="tanh", gamma0=1.0), kf.MLP(depth=2, activation="relu", gamma0=1.0)

    def steps(rate: float, count: int) -> kf.GradientDescent:
        return kf.GradientDescent(learning_rate=rate, steps=count)

    if large:
        method = kf.March(particles=32768, replicates=2, kernels="none")
        return [Run("cells, P = 512, tanh L = 3", tanh, breast_cancer(512), steps(0.1, 270), method)]
    return [
        Run("digits, P = 48, tanh L = 3", tanh, digits(points=48), steps(0.15, 40), kf.March()),
        Run("digits, P = 96, tanh L = 3", tanh, digits(points=96), steps(0.15, 20), kf.March()),
        Run("cells, P = 64, relu L = 2", relu, breast_cancer(64), steps(0.1, 30), kf.March()),
    ]


def estimated(run: Run) -> kf.Cost:
    """What the estimate says."""
    return kf.estimate(run.network, run.problem, run.training, run.method)


def solved(run: Run) -> tuple[float, int]:
    """Seconds, and bytes that the process had at most."""
    solution = kf.solve(run.network, run.problem, run.training, run.method, progress=False)
    return solution.info["seconds_run"], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    print("| run | said s | took s | ratio | said GiB | took GiB | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    times, sizes = [], []
    for run in runs(parser.parse_args().large):
        seconds, memory = alone(solved, run)
        print(f"# {run.name}: {seconds:.0f} s, {memory} bytes", file=sys.stderr, flush=True)
        cost = alone(estimated, run)
        times.append(cost.seconds / seconds)
        sizes.append(cost.memory / memory)
        print(
            f"| {run.name} "
            f"| {cost.seconds:.0f} | {seconds:.0f} | {times[-1]:.2f} "
            f"| {cost.memory / GIB:.2f} | {memory / GIB:.2f} | {sizes[-1]:.2f} |",
            flush=True,
        )
    print()
    for what, bound, ratios in (("time", 0.2, times), ("memory", 0.2, sizes)):
        worst = max(abs(ratio - 1) for ratio in ratios)
        print(goal(f"Estimate of {what}, part that it is off, worst", f"<= {bound}", worst, WHY[what]))


if __name__ == "__main__":
    main()
