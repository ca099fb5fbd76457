"""Time to the same error with many points: the march against ensembles of finite networks, all ten digits.

    python benchmarks/many_points.py

As in equal_error.py, with fewer sizes: error^2 = bias^2 + variance / M of outputs after training, relative to their
norm. The truth is the mean of all marches; the bias of networks falls as 1/N, fitted over the widths. An ensemble takes
the best width, wider ones extrapolated; the march at least two replicates. Compilation is left out.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

import kernelfield as kf
from equal_error import FEWEST, Peer, _with_bias, least_time
from goals import goal
from points import digits

STEPS = 40
PARTICLES = {4096: 6, 16384: 4}  # particles -> replicates that measure them
WIDTHS = {512: 48, 1024: 24, 2048: 10}
ERRORS = (0.01, 0.003)
AIMS = {0.01: 5, 0.003: 12}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[300, 1000])
    X, labels = digits()
    network, training = kf.MLP(depth=2, activation="tanh"), kf.GradientDescent(learning_rate=1.0, steps=STEPS)
    goals = []
    print("| P | size | s each | spread % | bias % |\n|---|---|---|---|---|", flush=True)
    lines = []
    for points in parser.parse_args().points:
        problem = kf.Problem(X[:points], np.eye(10)[labels[:points]] - 0.1)

        def run(method, count, problem=problem):
            """Outputs after training (count, entries), and seconds of each."""
            for again in range(2):  # the first one compiles
                few = {"seeds": 1} if isinstance(method, kf.FiniteWidth) else {"replicates": 2}
                chosen = method if again else method.model_copy(update=few)
                solution = kf.solve(network, problem, training, chosen, fields_at=(), progress=False)
            return solution.replicate_predictions[:, -1].reshape(count, -1), solution.info["seconds_run"] / count

        marches = {S: run(kf.March(particles=S, replicates=R, kernels="none"), R) for S, R in PARTICLES.items()}
        finest = marches[max(PARTICLES)][0]
        truth, norm = finest.mean(axis=0), np.linalg.norm(finest.mean(axis=0))
        own = float(np.sum(finest.var(axis=0, ddof=1))) / len(finest)
        networks = {N: run(kf.FiniteWidth(width=N, seeds=M, kernels="none"), M) for N, M in WIDTHS.items()}

        def peer(values, seconds, at_once, truth=truth, own=own):
            variance = float(np.sum(values.var(axis=0, ddof=1)))
            bias2 = float(np.sum((values.mean(axis=0) - truth) ** 2)) - variance / len(values) - own
            return Peer(seconds * at_once, at_once, variance, bias2, len(values))

        theirs = _with_bias({N: peer(*found, 1) for N, found in networks.items()})
        ours = {S: peer(*found, 2)._replace(bias2=0.0) for S, found in marches.items()}
        for name, sizes in (("S", ours), ("N", theirs)):
            for size, each in sizes.items():
                if size in (PARTICLES | WIDTHS):
                    figures = f"{each.seconds / each.at_once:.2f} | {100 * math.sqrt(each.variance) / norm:.2f}"
                    bias = 100 * math.sqrt(max(0.0, each.bias2)) / norm
                    print(f"| {points} | {name} = {size} | {figures} | {bias:.2f} |", flush=True)
        for error in ERRORS:
            time, S, R = least_time(ours, error * norm, FEWEST)
            other, N, M = least_time(theirs, error * norm)
            ratio = other / time
            cells = f"{S} x {R} | {time:.1f} | {N} x {M} | {other:.0f} | {ratio:.1f}"
            lines.append(f"| {points} | {100 * error:g} | {cells} |")
            what = f"Ensembles over the march, P = {points}, {100 * error:g} %"
            goals.append(goal(what, f">= {AIMS[error]}", ratio))
    print("\n| P | error % | particles x replicates | march s | width x networks | ensemble s | ratio |")
    print("|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n" + "\n".join(goals))


if __name__ == "__main__":
    main()
