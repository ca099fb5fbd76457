"""Long averages of Langevin dynamics at temperature = weight decay beside the Bayesian posterior.

    python benchmarks/posterior.py

Four points in twenty dimensions, tanh. Distances are relative norms in percent, of the mean predictions and of the
feature kernel of the last hidden layer, from those of `BayesianPosterior`; in brackets the standard error. Averages are
over the second half of a time 6 / lambda. The temperature of the march is lambda (1 - eta lambda / 2), for which
weights at rest have the variance of the posterior at a finite eta too. What remains falls with the rate eta: "to eta =
0" extrapolates on straight lines through the last two. At gamma0 = 0.05 the posterior is that of the Gaussian process,
`lazy`; networks are 64 of finite width, at the smallest eta.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kernelfield as kf
from kernelfield import observables

RICH, LAZY = 2.0, 0.05
Means = list[tuple[np.ndarray, np.ndarray]]  # of f and Phi, with standard errors


def averages(solution: kf.Solution, depth: int, start: int) -> Means:
    """Averages over time of f and of the last feature kernel, with their standard errors."""
    found = [
        observables.time_average(solution, "predictions", start),
        observables.time_average(solution, "Phi", start, depth),
    ]
    return [(each.mean, each.se) for each in found]


def cells(means: Means, truth: list[np.ndarray]) -> str:
    """Distances from the truth, with what standard errors make of none, in percent."""
    parts = []
    for (mean, se), exact in zip(means, truth, strict=True):
        size = np.linalg.norm(exact)
        parts.append(f"{100 * np.linalg.norm(mean - exact) / size:.1f} ({100 * np.linalg.norm(se) / size:.1f})")
    return " | ".join(parts)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--steps", nargs="+", type=int, default=[40, 80, 160])
    parser.add_argument("--lambdas", nargs="+", type=float, default=[0.1, 0.5, 2.0])
    parser.add_argument("--depths", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--width", type=int, default=256)
    given = parser.parse_args()
    X, y = np.random.default_rng(1).standard_normal((4, 20)), np.array([1.0, 1.0, -1.0, -1.0])
    problem = kf.Problem(X, y)
    print(
        "| depth | lambda = T | gamma0 | eta | f | Phi | lazy posterior: f |\n|---|---|---|---|---|---|---|", flush=True
    )
    for depth in given.depths:
        for decay in given.lambdas:
            for gamma0 in (LAZY, RICH):

                def posterior(gamma0: float, depth: int = depth, decay: float = decay) -> list[np.ndarray]:
                    network = kf.MLP(depth=depth, activation="tanh", gamma0=gamma0)
                    still = kf.Langevin(learning_rate=0.1, steps=1, weight_decay=decay, temperature=decay)
                    exact = kf.solve(network, problem, still, kf.BayesianPosterior(), progress=False)
                    return [exact.predictions[-1], exact.feature_kernel(depth)]

                truth, lazy = posterior(gamma0), posterior(1e-3)
                head = f"| {depth} | {decay:g} | {gamma0:g}"

                def solve(
                    steps: int, method: Any, gamma0: float = gamma0, depth: int = depth, decay: float = decay
                ) -> Means:
                    rate = 6 / decay / steps
                    heat = decay * (1 - rate * decay / 2)
                    training = kf.Langevin(learning_rate=rate, steps=steps, weight_decay=decay, temperature=heat)
                    network = kf.MLP(depth=depth, activation="tanh", gamma0=gamma0)
                    return averages(kf.solve(network, problem, training, method, progress=False), depth, steps // 2)

                found: list[Means] = []
                march = kf.March(particles=given.particles, replicates=given.replicates, kernels="features")
                far = f"{100 * np.linalg.norm(lazy[0] - truth[0]) / np.linalg.norm(truth[0]):.1f}"
                for steps in given.steps:
                    found.append(solve(steps, march))
                    print(f"{head} | {6 / decay / steps:g} | {cells(found[-1], truth)} | {far} |", flush=True)
                ratio = given.steps[-1] / given.steps[-2]
                line = [
                    ((ratio * fine - coarse) / (ratio - 1), np.hypot(ratio * error, other) / (ratio - 1))
                    for (fine, error), (coarse, other) in zip(found[-1], found[-2], strict=True)
                ]
                print(f"{head} | to eta = 0 | {cells(line, truth)} | |", flush=True)
                if gamma0 == RICH:
                    networks = kf.FiniteWidth(width=given.width, seeds=64, kernels="features")
                    beside = solve(given.steps[-1], networks)
                    print(f"{head} | N = {given.width} | {cells(beside, truth)} | |", flush=True)


if __name__ == "__main__":
    main()
