"""MNIST at infinite width, beside finite networks and the lazy limit: seconds, accuracy, memory.

    python benchmarks/mnist.py FILE

FILE has X (n, 28, 28) and y; the last 1,000 points are for tests. Two hidden layers of erf, cross-entropy, batches of
128, five epochs; the lazy limit, that of the static kernel, has gamma0 = 0.01. Seconds are without compilation;
accuracies are of the mean of the outputs over replicates or seeds, with the binomial standard error of the test points;
`se %` is the standard error of the outputs at the test points.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

import kernelfield as kf
from goals import goal
from processes import alone

TESTS, BATCH, EPOCHS = 1000, 128, 5


def row(name: str, file: str, rate: float, gamma0: float) -> tuple[str, float]:
    """A line of the table, and seconds of training."""
    data = np.load(file)
    X, y = data["X"].reshape(len(data["X"]), -1) / 255.0, data["y"]
    X = (X - X.mean()) / X.std()
    problem = kf.Problem(X[:-TESTS], y[:-TESTS], loss="cross_entropy")
    network = kf.MLP(depth=2, activation="erf", gamma0=0.01 if name == "lazy" else gamma0)
    training = kf.SGD(learning_rate=rate, batch_size=BATCH, epochs=EPOCHS)
    methods = {
        "infinite": kf.March(kernels="none"),
        "512": kf.FiniteWidth(width=512, seeds=2, kernels="none"),
        "2048": kf.FiniteWidth(width=2048, seeds=2, kernels="none"),
        "lazy": kf.March(kernels="none"),
    }
    began = time.perf_counter()
    solution = kf.solve(network, problem, training, methods[name])
    spent = time.perf_counter() - began - solution.info.get("seconds_compile", 0.0)
    found = solution.predict(X[-TESTS:])
    right = np.mean(found.mean.argmax(axis=1) == y[-TESTS:])
    trained = np.mean(solution.predictions[-1].argmax(axis=1) == y[:-TESTS])
    noise = 100 * np.linalg.norm(found.se) / np.linalg.norm(found.mean)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cells = f"{100 * trained:.1f} | {100 * right:.1f} ({100 * np.sqrt(right * (1 - right) / TESTS):.1f}) | {noise:.1f}"
    return f"| {name} | {len(found.replicates)} | {spent:.0f} | {cells} | {memory:.1f} |", spent


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--gamma0", type=float, default=1.0)
    given = parser.parse_args()
    print("| width | runs | s | train % | test % | se % | GB |\n|---|---|---|---|---|---|---|", flush=True)
    seconds = 0.0
    for name in ("infinite", "512", "2048", "lazy"):
        line, spent = alone(row, name, given.file, given.rate, given.gamma0)
        seconds = seconds or spent
        print(line, flush=True)
    print("\n" + goal("Seconds of five epochs of MNIST, 7,000 points, four replicates", "<= 90", seconds))


if __name__ == "__main__":
    main()
