"""One epoch on a data set as large as MNIST at infinite width: seconds, memory and accuracy.

    python benchmarks/epoch.py

60,000 synthetic images of 28 x 28 pixels in ten classes (a pattern for each class, shifted at random and under noise),
two hidden layers of erf, cross-entropy, batches of 128, one epoch, two replicates of 4,096 particles. Seconds are of
the whole solve, with compilation and with the evaluation of all images before and after; memory is the most that the
process had resident. Accuracy is that at 2,000 other images.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

import kernelfield as kf
from goals import goal

SIDE, CLASSES, TESTS, SHIFT, NOISE = 28, 10, 2000, 3, 0.5


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardized pixels (count, 784) in single precision, and classes (count,)."""
    rng = np.random.default_rng(0)
    coarse = rng.random((CLASSES, 7, 7)).astype(np.float32)
    patterns = np.kron(coarse, np.ones((1, SIDE // 7, SIDE // 7), np.float32))
    labels, shifts = rng.integers(0, CLASSES, count), rng.integers(-SHIFT, SHIFT + 1, (count, 2))
    X = np.empty((count, SIDE, SIDE), np.float32)
    for row, (label, shift) in enumerate(zip(labels, shifts, strict=True)):
        X[row] = np.roll(patterns[label], shift, axis=(0, 1))
    X += NOISE * rng.standard_normal(X.shape, dtype=np.float32)
    return ((X - X.mean()) / X.std()).reshape(count, -1), labels


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--rate", type=float, default=5.0)
    given = parser.parse_args()
    X, labels = images(given.points + TESTS)
    problem = kf.Problem(X[: given.points], labels[: given.points], loss="cross_entropy")
    network = kf.MLP(depth=2, activation="erf", gamma0=1.0)
    training = kf.SGD(learning_rate=given.rate, batch_size=128, epochs=1)
    began = time.perf_counter()
    solution = kf.solve(network, problem, training, kf.March(replicates=2, kernels="none"))
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    right = np.mean(solution.predict(X[given.points :]).mean.argmax(axis=1) == labels[given.points :])
    error = np.sqrt(right * (1 - right) / TESTS)
    print("| points | s | compilation s | GB | loss | test % |\n|---|---|---|---|---|---|")
    loss = f"{solution.loss[-1]:.3f} ({solution.loss_se[-1]:.3f})"
    accuracy = f"{100 * right:.1f} ({100 * error:.1f})"
    compiling = solution.info["seconds_compile"]
    print(f"| {given.points} | {seconds:.0f} | {compiling:.1f} | {memory:.1f} | {loss} | {accuracy} |")
    print("\n" + goal(f"Seconds of an epoch on {given.points:,} x 784, ten classes, two replicates", "<= 180", seconds))
    print(goal("Memory of it, GB", "<= 4", memory))


if __name__ == "__main__":
    main()
