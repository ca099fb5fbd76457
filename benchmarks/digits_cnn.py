"""Digits through a convolutional network at infinite width, beside finite networks: seconds and accuracy.

    python benchmarks/digits_cnn.py

Two convolutions 3 x 3 of tanh on 8 x 8 images of all ten digits, 200 points, the mean squared error of ten outputs.
Seconds are without compilation; `se %` is the standard error of the outputs of all steps, `apart %` their distance from
infinite width, both relative to their norm; accuracies are those of the mean over replicates or seeds at the
remaining digits, with their binomial standard error.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import kernelfield as kf
from points import digits

POINTS, STEPS, RATE = 200, 40, 20.0
METHODS = {
    "infinite": kf.March(kernels="none", replicates=4),
    "N = 64": kf.FiniteWidth(width=64, seeds=16, kernels="none"),
    "N = 128": kf.FiniteWidth(width=128, seeds=8, kernels="none"),
    "N = 256": kf.FiniteWidth(width=256, seeds=4, kernels="none"),
    "N = 512": kf.FiniteWidth(width=512, seeds=2, kernels="none"),
}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--particles", type=int, default=1024)
    given = parser.parse_args()
    X, labels = digits()
    X = X.reshape(-1, 8, 8, 1)
    tests = slice(1000, None)
    problem = kf.Problem(X[: given.points], np.eye(10)[labels[: given.points]] - 0.1)
    network = kf.CNN(depth=2, activation="tanh")
    training = kf.GradientDescent(learning_rate=RATE, steps=STEPS)
    print("| width | runs | s a run | train % | test % | se % | apart % |\n|---|---|---|---|---|---|---|", flush=True)
    limit: Any = None
    for name, method in METHODS.items():
        if name == "infinite":
            method = method.model_copy(update={"particles": given.particles})
        began = time.perf_counter()
        solution = kf.solve(network, problem, training, method, fields_at=(-1,))
        spent = time.perf_counter() - began - solution.info.get("seconds_compile", 0.0)
        count = len(solution.replicate_predictions)
        f, norm = solution.predictions, np.linalg.norm(solution.predictions) / 100
        limit = f if limit is None else limit
        right = np.mean(solution.predict(X[tests]).mean.argmax(axis=1) == labels[tests])
        trained = np.mean(f[-1].argmax(axis=1) == labels[: given.points])
        error = np.sqrt(right * (1 - right) / len(labels[tests]))
        accuracy = f"{100 * trained:.1f} | {100 * right:.1f} ({100 * error:.1f})"
        noise, apart = np.linalg.norm(solution.predictions_se) / norm, np.linalg.norm(f - limit) / norm
        print(f"| {name} | {count} | {spent / count:.1f} | {accuracy} | {noise:.2f} | {apart:.2f} |", flush=True)


if __name__ == "__main__":
    main()
