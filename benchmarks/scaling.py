"""Cost of the march against steps, particles and points, with compile time apart.

    python benchmarks/scaling.py

Steps: at fixed training time. The exponent is the slope of log seconds against log size.
"""

from __future__ import annotations

import numpy as np

import kernelfield as kf
from cases import digits
from kernelfield.datasets import gaussian

NETWORK = kf.MLP(depth=3, activation="tanh", gamma0=1.0)


def seconds(problem: kf.Problem, steps: int, method: kf.March) -> tuple[float, float, int]:
    """Least seconds of two runs, seconds to compile and the largest rank."""
    training = kf.GradientDescent(learning_rate=12.0 / steps, steps=steps)
    runs = [kf.solve(NETWORK, problem, training, method).info for _ in range(2)]
    ranks = max(runs[0]["feature_ranks"] + runs[0]["gradient_ranks"])
    return min(run["seconds_run"] for run in runs), max(run["seconds_compile"] for run in runs), ranks


def ladder(name: str, sizes: list[int], timings: list[tuple[float, float, int]]) -> None:
    """Print one ladder and its exponent."""
    for size, (run, compiling, rank) in zip(sizes, timings, strict=True):
        print(f"| {name} | {size} | {run:.3f} | {compiling:.1f} | {rank} |")
    exponent = np.polyfit(np.log(sizes), np.log([run for run, *_ in timings]), 1)[0]
    print(f"| {name} | exponent | {exponent:.2f} | | |", flush=True)


def main() -> None:
    """Print a markdown table."""
    print("| against | size | run s | compile s | largest rank |\n|---|---|---|---|---|")
    steps, particles, points = [50, 100, 200, 400, 800], [1024, 2048, 4096, 8192, 16384], [5, 10, 20]
    ladder("steps, P=5", steps, [seconds(gaussian(5, 20), count, kf.March()) for count in steps])
    ladder("steps, digits P=20", steps, [seconds(digits(20), count, kf.March()) for count in steps])
    ladder(
        "particles, P=5", particles, [seconds(gaussian(5, 20), 100, kf.March(particles=count)) for count in particles]
    )
    ladder("points", points, [seconds(gaussian(count, 20), 100, kf.March()) for count in points])


if __name__ == "__main__":
    main()
