"""Long averages of Langevin dynamics at temperature = weight decay beside the Bayesian posterior.

    python benchmarks/posterior.py

Four points in twenty dimensions, tanh. Distances are relative norms in percent, of the mean predictions and of the
feature kernel of the last hidden layer, from those of `BayesianPosterior`; in brackets the standard error. Averages are
over the second half of a time 6 / lambda. The temperature of the march is lambda (1 - eta lambda / 2), for which
weights at rest have the variance of the posterior at a finite eta too.
"""

from __future__ import annotations

import argparse

import numpy as np

import kernelfield as kf
from kernelfield import observables


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--lambdas", nargs="+", type=float, default=[0.1, 0.5, 2.0])
    parser.add_argument("--depths", nargs="+", type=int, default=[1, 2])
    given = parser.parse_args()
    X, y = np.random.default_rng(1).standard_normal((4, 20)), np.array([1.0, 1.0, -1.0, -1.0])
    problem = kf.Problem(X, y)
    print(
        "| depth | lambda = T | gamma0 | eta | f | Phi | lazy posterior: f | s |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for depth in given.depths:
        for decay in given.lambdas:
            for gamma0, steps in ((0.05, 40), (2.0, 40), (2.0, 80)):
                rate = 6 / decay / steps
                network = kf.MLP(depth=depth, activation="tanh", gamma0=gamma0)
                lazy = kf.MLP(depth=depth, activation="tanh", gamma0=1e-3)
                still = kf.Langevin(learning_rate=rate, steps=1, weight_decay=decay, temperature=decay)
                posterior, without = (
                    kf.solve(each, problem, still, kf.BayesianPosterior(), progress=False) for each in (network, lazy)
                )
                training = still.model_copy(update={"steps": steps, "temperature": decay * (1 - rate * decay / 2)})
                method = kf.March(particles=given.particles, replicates=given.replicates, kernels="features")
                march = kf.solve(network, problem, training, method, progress=False)
                cells = []
                for quantity, layer in (("predictions", None), ("Phi", depth)):
                    found = observables.time_average(march, quantity, steps // 2, layer)  # type: ignore[arg-type]
                    truth = posterior.predictions[-1] if layer is None else posterior.feature_kernel(depth)
                    size = np.linalg.norm(truth)
                    distance, error = np.linalg.norm(found.mean - truth), np.linalg.norm(found.se)
                    cells.append(f"{100 * distance / size:.1f} ({100 * error / size:.1f})")
                f = posterior.predictions[-1]
                far = f"{100 * np.linalg.norm(without.predictions[-1] - f) / np.linalg.norm(f):.1f}"
                seconds = march.info["seconds_run"]
                head = f"| {depth} | {decay:g} | {gamma0:g} | {rate:g}"
                print(f"{head} | {' | '.join(cells)} | {far} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
