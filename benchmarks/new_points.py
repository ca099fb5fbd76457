"""Predictions at new points: after the march, along in the march, and by finite networks of growing width.

    python benchmarks/new_points.py

Four new points beside six that train. Relative to the size of the predictions: the distance between `Solution.predict`
and points of weight zero that ride along (with other samples), and that of networks from `Solution.predict`; beside it
the distance to expect from the standard errors. The share of single predictions within two standard errors.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kernelfield as kf

RNG = np.random.default_rng(0)
X, NEW = RNG.standard_normal((6, 8)), RNG.standard_normal((4, 8))
Y = np.array([1.0, -0.6, 0.8, -1.2, 0.4, 0.7])
CLASSES = np.eye(3)[[0, 1, 2, 1, 0, 2]]
DESCENT = kf.GradientDescent(learning_rate=0.3, steps=15)
MOMENTUM = kf.GradientDescent(learning_rate=0.1, steps=15, momentum=0.7, weight_decay=0.1, schedule="cosine")
BATCHES = kf.SGD(learning_rate=0.5, batch_size=2, epochs=6)
CASES: dict[str, tuple[Any, Any, tuple[int, ...], np.ndarray, str]] = {
    "tanh L=3": (kf.MLP(depth=3, gamma0=2.0), DESCENT, (8,), Y, "mse"),
    "relu L=2": (kf.MLP(depth=2, activation="relu", gamma0=2.0), DESCENT, (8,), Y, "mse"),
    "biases, momentum, decay": (kf.MLP(depth=2, bias_scale=0.5), MOMENTUM, (8,), Y, "mse"),
    "three classes, batches": (kf.MLP(depth=2), BATCHES, (8,), CLASSES, "cross_entropy"),
    "CNN": (kf.CNN(depth=2, activation="tanh", gamma0=2.0), DESCENT, (4, 2), Y, "mse"),
    "ResNet L=4": (kf.ResNet(depth=4), DESCENT, (8,), Y, "mse"),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 128, 512])
    given = parser.parse_args()
    names = ["riding along", "within two", *(f"N = {width}" for width in given.widths)]
    print(f"| network | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}", flush=True)
    for label, (network, rule, shape, y, loss) in CASES.items():
        inputs, new = X.reshape(6, *shape), NEW.reshape(4, *shape)
        problem = kf.Problem(inputs, y, loss=loss)

        def march(problem: kf.Problem, seed: int, network: Any = network, rule: Any = rule) -> kf.Solution:
            method = kf.March(particles=given.particles, replicates=given.replicates, seed=seed, kernels="none")
            return kf.solve(network, problem, rule, method, progress=False)

        found = march(problem, 0).predict(new)
        along = kf.Problem(inputs, y, X_test=new, y_test=np.full((4, *y.shape[1:]), 1 / 3), loss=loss)
        ridden = march(along, 1).restricted(samples=range(6, 10)).estimate("predictions")
        size = np.linalg.norm(found.mean)

        def cell(mean: np.ndarray, se: np.ndarray, found: kf.Estimate = found, size: float = size) -> str:
            off, noise = np.linalg.norm(mean - found.mean), np.sqrt(np.sum(se**2 + found.se**2))
            return f"{100 * off / size:.2f} % ({100 * noise / size:.2f})"

        mean, se = ridden.mean[-1], ridden.se[-1]
        within = np.mean(np.abs(mean - found.mean) < 2 * np.hypot(se, found.se))
        cells = [cell(mean, se), f"{100 * within:.0f} %"]
        for width in given.widths:
            method = kf.FiniteWidth(width=width, seeds=given.seeds, kernels="none")
            networks = kf.solve(network, problem, rule, method, progress=False).predict(new)
            cells.append(cell(networks.mean, networks.se))
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
