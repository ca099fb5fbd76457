"""Cost against the number of points: ranks and seconds of full batches, and of an update on a batch.

    python benchmarks/points.py
    python benchmarks/points.py --points 100 300 1000

Synthetic images of ten classes (see epoch.py), tanh, L = 2, ten outputs. Seconds of a step are those of a long run less
those of a short one, over the steps between, for a replicate of two that march side by side. The exponent is the slope
of log seconds against log P.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits

import kernelfield as kf
from epoch import images
from goals import goal

STEPS, MORE, BATCH, RUNS = 5, 20, 128, 1
EXPONENT, SPREAD = 1.05, 1.25
WHY = "the fields of 100 points fit into the cache of a core, those of 1,000 do not; from there on time is linear"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All of scikit-learn's digits in random order, standardized by a scalar, and their labels."""
    X, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return ((X - X.mean()) / X.std())[order], labels[order]


def seconds(network: kf.MLP, problem: kf.Problem, rules: list, updates: int) -> tuple[float, kf.Solution]:
    """Of an update of a replicate, the median of runs after the first, which compiles."""
    method, taken = kf.March(replicates=2, kernels="none"), []
    for _ in range(RUNS + 1):
        runs = [kf.solve(network, problem, rule, method, fields_at=(), progress=False) for rule in rules]
        short, long = (run.info["seconds_run"] for run in runs)
        taken.append((long - short) / updates / 2)
    return float(np.median(taken[1:])), runs[-1]


def main() -> None:
    """Print two markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 300, 1000, 5000])
    sizes = parser.parse_args().points
    X, labels = images(max(7000, *sizes))
    network = kf.MLP(depth=2, activation="tanh", gamma0=1.0)
    print("| P | ranks | ms a step | us a step and point |\n|---|---|---|---|", flush=True)
    each, ranks = [], []
    for points in sizes:
        problem = kf.Problem(X[:points], np.eye(10)[labels[:points]] - 0.1)
        rules = [kf.GradientDescent(learning_rate=1.0, steps=steps) for steps in (STEPS, MORE)]
        taken, run = seconds(network, problem, rules, MORE - STEPS)
        ranks.append([*run.info["feature_ranks"], *run.info["gradient_ranks"]])
        each.append(taken)
        print(f"| {points} | {ranks[-1]} | {1e3 * taken:.1f} | {1e6 * taken / points:.0f} |", flush=True)
    exponent = float(np.polyfit(np.log(sizes), np.log(each), 1)[0])
    print(f"| exponent | | {exponent:.2f} | |\n")
    what = f"Exponent of time against points, P = {min(sizes)} to {max(sizes)}"
    print(goal(what, f"<= {EXPONENT}", exponent, WHY))
    print("\n| points | ms an update on a batch of 128 |\n|---|---|", flush=True)
    updates = []
    for points in (1000, 7000):
        problem, rows = kf.Problem(X[:points], labels[:points], loss="cross_entropy"), -(-points // BATCH)
        rules = [kf.SGD(learning_rate=1.0, batch_size=BATCH, epochs=epochs) for epochs in (1, 2)]
        taken, _ = seconds(kf.MLP(depth=2, activation="erf"), problem, rules, rows)
        updates.append(taken)
        print(f"| {points} | {1e3 * taken:.1f} |", flush=True)
    print("\n" + goal("Time of an update, 7,000 points over 1,000", f"<= {SPREAD}", updates[1] / updates[0]))


if __name__ == "__main__":
    main()
