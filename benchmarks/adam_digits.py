"""Adam on 500 digits by batches: infinite width beside networks, and what it costs beside SGD.

    python benchmarks/adam_digits.py

Ten classes, cross-entropy, tanh, L = 2, gamma0 = 1. Distances of f at the last row are relative norms in percent, in
brackets what the standard errors of both sides make of a distance of zero; seconds are those of one replicate or
network, without compiling.
"""

from __future__ import annotations

import argparse
from typing import Any

import kernelfield as kf
from distances import cell
from kernelfield.datasets import digits

SETTINGS: dict[str, dict[str, Any]] = {
    "SGD, 32 directions": {"tol": 2e-3, "directions": 32},
    "SGD, 192 directions": {"tol": 4e-3, "directions": 192},
    "Adam, 128 columns, rank 40": {"skeleton": (128, 40)},
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--widths", nargs="+", type=int, default=[512, 2048])
    given = parser.parse_args()
    problem = digits(classes=tuple(range(10)), points=given.points, loss="cross_entropy")
    network = kf.MLP(depth=2, activation="tanh", gamma0=1.0)
    batches = {"batch_size": 50, "epochs": given.epochs}
    rules = {
        "SGD": kf.SGD(learning_rate=2.0, **batches),
        "SGD, 32 directions": kf.SGD(learning_rate=2.0, **batches),
        "SGD, 192 directions": kf.SGD(learning_rate=2.0, **batches),
        "Adam": kf.Adam(learning_rate=0.02, **batches),
        "Adam, 128 columns, rank 40": kf.Adam(learning_rate=0.02, **batches),
    }
    print("| rule | beside infinite width | f | loss | s |\n|---|---|---|---|---|", flush=True)
    for name, rule in rules.items():

        def solve(method: Any, rule: Any = rule) -> kf.Solution:
            return kf.solve(network, problem, rule, method, fields_at=(), progress=False)

        more = SETTINGS.get(name, {})
        march = solve(kf.March(particles=4096, replicates=4, kernels="none", **more))
        f = [kf.Estimate(march.replicate_predictions[:, -1], False)]
        row = f"{cell(f, f)} | {march.loss[-1]:.4f} | {march.info['seconds_run'] / 4:.2f}"
        print(f"| {name} | itself | {row} |", flush=True)
        for width in given.widths:
            seeds = max(2, 8192 // width)
            found = solve(kf.FiniteWidth(width=width, seeds=seeds, kernels="none", algorithm="explicit"))
            apart = cell([kf.Estimate(found.replicate_predictions[:, -1], False)], f)
            seconds = found.info["seconds_run"] / seeds
            print(f"| | {seeds} of N = {width} | {apart} | {found.loss[-1]:.4f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
