"""Cost against the number of points: ranks and seconds of full batches, and of an update on a batch.

    python benchmarks/points.py [--mnist FILE]

Full batches: all ten digits, tanh, L = 2. Seconds of a step are those of a long run less those of a short one, over the
steps between, for a replicate of two that march side by side. Batches of 128 are of MNIST, in a file with X (n, 28, 28)
and y, or of digits without one; an update has its share of the evaluation of all points after every epoch.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits

import kernelfield as kf
from goals import goal

STEPS, MORE, BATCH, RUNS = 10, 40, 128, 3


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All images in random order, standardized by a scalar, and their labels."""
    X, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return ((X - X.mean()) / X.std())[order], labels[order]


def seconds(network: kf.MLP, problem: kf.Problem, rules: list, updates: int) -> tuple[float, kf.Solution]:
    """Of an update of a replicate, the median of some runs."""
    method, taken = kf.March(replicates=2, kernels="none"), []
    for _ in range(RUNS + 1):
        runs = [kf.solve(network, problem, rule, method, fields_at=(), progress=False) for rule in rules]
        short, long = (run.info["seconds_run"] for run in runs)
        taken.append((long - short) / updates / 2)
    return float(np.median(taken[1:])), runs[-1]


def main() -> None:
    """Print two markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--mnist", help="file with X (n, 28, 28) and y")
    given = parser.parse_args()
    X, labels = digits()
    network = kf.MLP(depth=2, activation="tanh", gamma0=1.0)
    print("| P | ranks | ms a step | us a step and point |\n|---|---|---|---|", flush=True)
    each, ranks = [], []
    for points in given.points:
        problem = kf.Problem(X[:points], np.eye(10)[labels[:points]] - 0.1)
        rules = [kf.GradientDescent(learning_rate=1.0, steps=steps) for steps in (STEPS, MORE)]
        taken, run = seconds(network, problem, rules, MORE - STEPS)
        ranks.append([*run.info["feature_ranks"], *run.info["gradient_ranks"]])
        each.append(1e6 * taken / points)
        print(f"| {points} | {ranks[-1]} | {1e3 * taken:.1f} | {each[-1]:.0f} |", flush=True)
    spread = np.ptp(ranks, axis=0) / np.max(ranks, axis=0)
    print("\n" + goal("Ranks at different P, part that they differ by", "<= 0.2", float(spread.max())))
    print(goal("Time of a step and point, largest over mean", "<= 1.25", float(np.max(each) / np.mean(each))))
    if given.mnist:
        data = np.load(given.mnist)
        X, labels = data["X"].reshape(len(data["X"]), -1) / 255.0, data["y"]
        X = (X - X.mean()) / X.std()
    print("\n| points | ms an update on a batch of 128 |\n|---|---|", flush=True)
    network, updates = kf.MLP(depth=2, activation="erf", gamma0=1.0), []
    for points in (1000, min(7000, len(X))):
        problem = kf.Problem(X[:points], labels[:points], loss="cross_entropy")
        rules = [kf.SGD(learning_rate=1.0, batch_size=BATCH, epochs=epochs) for epochs in (1, 2)]
        rows = -(-points // BATCH)
        method = kf.March(replicates=2, kernels="none")
        taken = []
        for _ in range(RUNS + 1):
            runs = [kf.solve(network, problem, rule, method, fields_at=(), progress=False).info for rule in rules]
            taken.append((runs[1]["seconds_run"] - runs[0]["seconds_run"]) / rows / 2)
        updates.append(float(np.median(taken[1:])))
        print(f"| {points} | {1e3 * updates[-1]:.1f} |", flush=True)
    print("\n" + goal("Time of an update, many points over 1000", "<= 1.25", updates[1] / updates[0]))


if __name__ == "__main__":
    main()
