"""All ten digits by cross-entropy on mini-batches, rich and nearly lazy, at infinite width and at finite width.

python benchmarks/ten_digits.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import kernelfield as kf
from kernelfield import observables
from kernelfield.datasets import digits


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--width", type=int, default=2048)
    given = parser.parse_args()
    each, total = given.points // 10, given.points + given.tests
    data = digits(classes=tuple(range(10)), points=total, loss="cross_entropy")
    trains = np.arange(total) % (total // 10) < each  # images are ordered by class
    problem = kf.Problem(data.X, data.y, weights=trains, loss="cross_entropy")
    print(
        "| gamma0 | method | loss | train % | test % | steps s | compilation s |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for gamma0, rate in ((2.0, 1.5), (0.2, 10.0)):
        network = kf.MLP(depth=2, activation="tanh", gamma0=gamma0)
        rule = kf.SGD(learning_rate=rate, batch_size=50, epochs=given.epochs, schedule="cosine")
        methods = {
            "March": kf.March(particles=given.particles, replicates=2),
            f"FiniteWidth, N = {given.width}": kf.FiniteWidth(width=given.width, seeds=4, kernels="none"),
        }
        for name, method in methods.items():
            began = time.perf_counter()
            solution = kf.solve(network, problem, rule, method, throw=False, fields_at=())
            spent, compiling = time.perf_counter() - began, solution.info["seconds_compile"]
            cells = [f"{solution.loss[-1]:.4f} ({solution.loss_se[-1]:.4f})"]
            for points in ("train", "test"):
                right = observables.accuracy(solution, points)
                cells.append(f"{100 * right.mean[-1]:.1f} ({100 * right.se[-1]:.1f})")
            ended = "" if solution.status.code == "ok" else f", {solution.status}"
            row = f"| {gamma0:g} | {name}{ended} | {' | '.join(cells)} | {spent - compiling:.0f} | {compiling:.0f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
