"""Time to the same error with many points, and for other architectures: the march against ensembles of networks.

    python benchmarks/many_points.py
    python benchmarks/many_points.py --cases CNN transformer

All ten digits by an MLP (tanh, two hidden layers); twenty images of two digits by a CNN (tanh, two convolutions); six
sequences of four tokens by a transformer of one block. As in equal_error.py, with fewer sizes: error^2 = bias^2 +
variance / M of outputs after training, relative to their norm. The truth is the mean of the marches of most particles;
the bias of networks falls as 1/N, fitted over the widths. An ensemble takes the best width, wider ones extrapolated;
the march at least two replicates. Compilation is left out.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

import kernelfield as kf
import transformers
from equal_error import FEWEST, Peer, _with_bias, least_time
from goals import goal
from kernelfield import datasets
from kernelfield.describe.architecture import Architecture
from points import digits


@dataclass(frozen=True)
class Case:
    """What is solved, with which sizes, and the ratios that are aimed at, by error."""

    network: Architecture
    problem: kf.Problem
    training: kf.GradientDescent
    particles: dict[int, int]  # particles -> replicates that measure them
    widths: dict[int, int]  # width -> seeds
    aims: dict[float, int]


def many(points: int) -> Case:
    """All ten digits."""
    X, labels = digits()
    problem = kf.Problem(X[:points], np.eye(10)[labels[:points]] - 0.1)
    network, training = kf.MLP(depth=2, activation="tanh"), kf.GradientDescent(learning_rate=1.0, steps=40)
    sizes = {4096: 6, 16384: 4}, {512: 48, 1024: 24, 2048: 10}
    return Case(network, problem, training, *sizes, {0.01: 5, 0.003: 12})


def cnn() -> Case:
    """Two digits as images."""
    problem, training = datasets.digits(points=20, images=True), kf.GradientDescent(learning_rate=1.0, steps=30)
    sizes = {1024: 8, 4096: 4}, {64: 96, 128: 48, 256: 16}
    return Case(kf.CNN(depth=2, activation="tanh"), problem, training, *sizes, {0.003: 5})


def transformer() -> Case:
    """Random sequences with random signs."""
    network = kf.Transformer(depth=1, head_dim=2, mlp_width=2.0, activation="tanh", readout="mean", gamma0=1.0)
    training = kf.GradientDescent(learning_rate=0.05, steps=20)
    sizes = {1024: 8, 4096: 4}, {64: 512, 128: 256, 256: 96, 512: 32}
    return Case(network, transformers.data(), training, *sizes, {0.003: 5})


CASES = {
    "P = 300": lambda: many(300),
    "P = 1000": lambda: many(1000),
    "CNN": cnn,
    "transformer": transformer,
}


def outputs(case: Case, method: kf.March | kf.FiniteWidth, count: int) -> tuple[np.ndarray, float]:
    """Outputs after training (count, entries), and seconds of each."""
    few = {"seeds": 1} if isinstance(method, kf.FiniteWidth) else {"replicates": 2}
    for chosen in (method.model_copy(update=few), method):  # the first one compiles
        solution = kf.solve(case.network, case.problem, case.training, chosen, fields_at=(), progress=False)
    return solution.replicate_predictions[:, -1].reshape(count, -1), solution.info["seconds_run"] / count


def main() -> None:
    """Print markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    lines, goals = [], []
    print("| case | size | s each | spread % | bias % |\n|---|---|---|---|---|", flush=True)
    for name in parser.parse_args().cases:
        case = CASES[name]()
        marches = {
            S: outputs(case, kf.March(particles=S, replicates=R, kernels="none"), R) for S, R in case.particles.items()
        }
        finest = marches[max(marches)][0]
        truth, norm = finest.mean(axis=0), float(np.linalg.norm(finest.mean(axis=0)))
        own = float(np.sum(finest.var(axis=0, ddof=1))) / len(finest)

        def peer(values: np.ndarray, seconds: float, at_once: int, truth=truth, own=own) -> Peer:
            variance = float(np.sum(values.var(axis=0, ddof=1)))
            bias2 = float(np.sum((values.mean(axis=0) - truth) ** 2)) - variance / len(values) - own
            return Peer(seconds * at_once, at_once, variance, bias2, len(values))

        networks = {
            N: outputs(case, kf.FiniteWidth(width=N, seeds=M, kernels="none"), M) for N, M in case.widths.items()
        }
        theirs = _with_bias({N: peer(*found, 1) for N, found in networks.items()})
        ours = {S: peer(*found, 2)._replace(bias2=0.0) for S, found in marches.items()}
        for letter, sizes in (("S", ours), ("N", theirs)):
            for size in (size for size in sizes if size in {**marches, **networks}):
                each = sizes[size]
                figures = f"{each.seconds / each.at_once:.3g} | {100 * math.sqrt(each.variance) / norm:.2f}"
                bias = 100 * math.sqrt(max(0.0, each.bias2)) / norm
                print(f"| {name} | {letter} = {size} | {figures} | {bias:.2f} |", flush=True)
        for error in (0.01, 0.003):
            time, S, R = least_time(ours, error * norm, FEWEST)
            other, N, M = least_time(theirs, error * norm)
            cells = f"{S} x {R} | {time:.3g} | {N} x {M} | {other:.3g} | {other / time:.1f}"
            lines.append(f"| {name} | {100 * error:g} | {cells} |")
            if error in case.aims:
                goals.append(
                    goal(f"Ensembles over the march, {name}, {100 * error:g} %", f">= {case.aims[error]}", other / time)
                )
    print("\n| case | error % | particles x replicates | march s | width x networks | ensemble s | ratio |")
    print("|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n" + "\n".join(goals))


if __name__ == "__main__":
    main()
