"""Cost of the march against steps, particles and points, with compile time apart.

    python benchmarks/scaling.py

Steps: at fixed training time. The exponent is the slope of log seconds against log size. Few points are cheap, and
their directions grow in number with them; from 100 points on, see points.py.
"""

from __future__ import annotations

import argparse

import numpy as np

import kernelfield as kf
from cases import digits
from goals import goal
from kernelfield.datasets import gaussian

NETWORK = kf.MLP(depth=3, activation="tanh", gamma0=1.0)


AIM = 1.05  # exponent of steps


def seconds(problem: kf.Problem, steps: int, method: kf.March) -> tuple[float, float, int]:
    """Least seconds of two runs, seconds to compile and the largest rank."""
    training = kf.GradientDescent(learning_rate=12.0 / steps, steps=steps)
    runs = [kf.solve(NETWORK, problem, training, method).info for _ in range(2)]
    ranks = max(runs[0]["feature_ranks"] + runs[0]["gradient_ranks"])
    return min(run["seconds_run"] for run in runs), max(run["seconds_compile"] for run in runs), ranks


def ladder(name: str, sizes: list[int], timings: list[tuple[float, float, int]]) -> float:
    """Print one ladder and its exponent, which is returned."""
    for size, (run, compiling, rank) in zip(sizes, timings, strict=True):
        print(f"| {name} | {size} | {run:.3f} | {compiling:.1f} | {rank} |")
    exponent = np.polyfit(np.log(sizes), np.log([run for run, *_ in timings]), 1)[0]
    print(f"| {name} | exponent | {exponent:.2f} | | |", flush=True)
    return float(exponent)


LADDERS = {
    "steps, P=5": ([50, 100, 200, 400, 800], lambda size: (gaussian(5, 20), size, kf.March())),
    "particles, P=5": ([1024, 2048, 4096, 8192, 16384], lambda size: (gaussian(5, 20), 50, kf.March(particles=size))),
    "points": ([5, 10, 20, 40], lambda size: (gaussian(size, 20), 50, kf.March())),
    "steps, digits P=20": ([50, 100, 200], lambda size: (digits(20), size, kf.March())),
}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladders", nargs="+", choices=list(LADDERS), default=list(LADDERS))
    print("| against | size | run s | compile s | largest rank |\n|---|---|---|---|---|", flush=True)
    exponents = {}
    for name in parser.parse_args().ladders:
        sizes, settings = LADDERS[name]
        exponents[name] = ladder(name, sizes, [seconds(*settings(size)) for size in sizes])
    print()
    for name, exponent in exponents.items():
        if name.startswith("steps"):
            print(goal(f"Exponent of time against {name}", f"<= {AIM}", exponent))


if __name__ == "__main__":
    main()
