"""Losses, several outputs, biases, scales, widths and training rules at infinite width against ensembles of networks.

    python benchmarks/training.py
    python benchmarks/training.py --cases momentum "everything at once" --networks "relu L=3" --seeds 64

Distances are relative Frobenius norms, in percent: of predictions f at all rows, and of feature kernels at the last
row (mean over layers). In brackets, what the standard errors of both sides make of a distance of zero.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import kernelfield as kf
from distances import cell

RNG = np.random.default_rng(1)
X = RNG.standard_normal((6, 8))
Y = np.array([1.0, -0.7, 0.9, -1.1, 0.4, -0.5])
OUTPUTS = np.stack([Y, -Y[::-1], Y**2], axis=1)
LABELS = [0, 1, 2, 2, 1, 0]
RATE = 0.15  # of all cases: larger ones make relu with biases unstable
PLAIN = kf.Problem(X, Y)
STREAM = RNG.standard_normal((90, 8))
FRESH = kf.Problem(X, np.tanh(X[:, 0] - X[:, 1]), stream=(STREAM, np.tanh(STREAM[:, 0] - STREAM[:, 1])))
NETWORKS = {f"{activation} L={depth}": (activation, depth) for activation in ("tanh", "relu") for depth in (1, 3)}


@dataclass(frozen=True)
class Case:
    """What differs from gradient descent on the mean squared error of one output.

    Args:
        problem: what is learned.
        training: how, given the number of steps.
        network: arguments of MLP, given its depth.
    """

    problem: kf.Problem = PLAIN
    training: Callable[[int], Any] = lambda steps: descent(steps)
    network: Callable[[int], dict[str, Any]] = lambda depth: {}


def descent(steps: int, **settings: Any) -> kf.GradientDescent:
    """Gradient descent with the learning rate of all cases."""
    return kf.GradientDescent(learning_rate=RATE, steps=steps, **settings)


def sgd(steps: int, **settings: Any) -> kf.SGD:
    """Batches of three points, two in an epoch."""
    return kf.SGD(learning_rate=RATE, batch_size=3, epochs=steps // 2, **settings)


def online(steps: int, **settings: Any) -> kf.OnlineSGD:
    """Three fresh points in an update."""
    return kf.OnlineSGD(learning_rate=RATE, batch_size=3, steps=steps, **settings)


def everything(depth: int) -> dict[str, Any]:
    """Biases, scales and widths at once."""
    return {"bias_scale": 0.3, "weight_scales": np.linspace(1.3, 0.8, depth + 1).tolist(), "widths": widths(depth)}


def widths(depth: int) -> list[float]:
    """Layers of different width."""
    return [2.0, 0.5, 1.0][-depth:]


CASES = {
    "plain": Case(),
    "three outputs": Case(kf.Problem(X, OUTPUTS)),
    "logistic": Case(kf.Problem(X, np.sign(Y), loss="logistic")),
    # before the first margin is met: there networks that differ by O(1/N) part, as the error signal jumps
    "hinge": Case(kf.Problem(X, np.sign(Y), loss="hinge"), lambda steps: descent(steps // 3)),
    "cross-entropy": Case(kf.Problem(X, LABELS, loss="cross_entropy")),
    "biases": Case(network=lambda depth: {"bias_scale": 0.5}),
    "scales of initialization": Case(
        network=lambda depth: {"weight_scales": np.linspace(1.4, 0.7, depth + 1).tolist()}
    ),
    "scales of weights": Case(
        network=lambda depth: {
            "weight_scales": np.linspace(1.4, 0.7, depth + 1).tolist(),
            "scales_multiply": "weight",
        }
    ),
    "widths": Case(network=lambda depth: {"widths": widths(depth)}),
    "momentum": Case(training=lambda steps: descent(steps, momentum=0.7)),
    "weight decay": Case(training=lambda steps: descent(steps, weight_decay=0.1)),
    "cosine schedule": Case(training=lambda steps: descent(steps, schedule="cosine")),
    "mini-batches": Case(training=lambda steps: sgd(steps)),
    "mini-batches with replacement": Case(training=lambda steps: sgd(steps, replacement=True)),
    "online": Case(FRESH, online),
    "gradient flow": Case(training=lambda steps: kf.GradientFlow(time=RATE * steps, steps=5)),
    "mini-batches, momentum, decay": Case(training=lambda steps: sgd(steps, momentum=0.5, weight_decay=0.1)),
    "cross-entropy, biases, schedule": Case(
        kf.Problem(X, LABELS, loss="cross_entropy"),
        lambda steps: descent(steps, schedule="linear"),
        lambda depth: {"bias_scale": 0.5},
    ),
    "everything at once": Case(
        kf.Problem(X, LABELS, loss="cross_entropy"),
        lambda steps: sgd(steps, momentum=0.5, weight_decay=0.1, schedule="cosine"),
        everything,
    ),
}


def distances(found: kf.Solution, truth: kf.Solution) -> list[str]:
    """For f and Phi the distance and its noise, in percent of the truth's norm."""
    layers = range(1, truth.network.hidden_layers + 1)
    f = ([each.estimate("predictions")] for each in (found, truth))
    Phi = ([each.estimate("feature_kernel", layer) for layer in layers] for each in (found, truth))
    return [cell(*f), cell(*Phi)]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--particles", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    heads = [f"{symbol}, N = {width}" for symbol in ("f", "Phi") for width in given.widths]
    print(f"| case | network | {' | '.join(heads)} | s |\n|{'---|' * (3 + len(heads))}", flush=True)
    for name in given.cases:
        for label in given.networks:
            case, (activation, depth), began = CASES[name], NETWORKS[label], time.perf_counter()
            network = kf.MLP(depth=depth, activation=activation, gamma0=1.0, **case.network(depth))
            rule = case.training(given.steps)
            march = kf.solve(network, case.problem, rule, kf.March(particles=given.particles), progress=False)
            cells = []
            for width in given.widths:
                method = kf.FiniteWidth(width=width, seeds=given.seeds, seed=given.seed, kernels="features")
                cells.append(distances(kf.solve(network, case.problem, rule, method, progress=False), march))
            row = [cell for kind in zip(*cells, strict=True) for cell in kind]
            print(f"| {name} | {label} | {' | '.join(row)} | {time.perf_counter() - began:.1f} |", flush=True)


if __name__ == "__main__":
    main()
