"""All ten digits: 1,000 images to learn from and 797 to test, at infinite width, lazy and rich, and at finite width.

    python benchmarks/all_digits.py

The estimators of the library; test accuracy with its binomial standard error, seconds of training and prediction, and
the most memory that the process has taken so far.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kernelfield as kf


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gammas", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--width", type=int, default=1024)
    given = parser.parse_args()
    images, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(images / 8 - 1, labels, train_size=1000, random_state=0, stratify=labels)
    print("| gamma0 | width | train % | test % | training s | prediction s | GB |\n|---|---|---|---|---|---|---|")

    def row(width: str, train: np.ndarray, test: np.ndarray, *seconds: float) -> None:
        right = np.mean(test == y_test)
        error = np.sqrt(right * (1 - right) / len(y_test))
        cells = [f"{100 * np.mean(train == y):.1f}", f"{100 * right:.1f} ({100 * error:.1f})"]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cells += [*(f"{each:.0f}" for each in seconds), f"{memory:.1f}"]
        print(f"| {gamma0:g} | {width} | {' | '.join(cells)} |", flush=True)

    for gamma0 in given.gammas:
        settings: dict[str, Any] = {"gamma0": gamma0, "steps": given.steps}
        began = time.perf_counter()
        model = kf.InfiniteWidthClassifier(depth=2, activation="erf", random_state=0, **settings).fit(X, y)
        trained = time.perf_counter()
        test = model.predict(X_test)
        row("infinite", model.predict(X), test, trained - began, time.perf_counter() - trained)
        if gamma0:
            solution, began = model.solution_, time.perf_counter()
            method = kf.FiniteWidth(width=given.width, seeds=1, kernels="none")
            finite = kf.solve(solution.network, solution.problem, solution.training, method, fields_at=(-1,))
            trained = time.perf_counter()
            test = finite.predict(X_test).mean.argmax(axis=1)
            spent = trained - began, time.perf_counter() - trained
            row(f"{given.width}", finite.predictions[-1].argmax(axis=1), test, *spent)


if __name__ == "__main__":
    main()
