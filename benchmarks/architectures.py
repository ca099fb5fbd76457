"""Convolutional, residual and weight-sharing networks at infinite width against ensembles of growing width.

    python benchmarks/architectures.py
    python benchmarks/architectures.py --cases "ResNet relu L=8" --widths 16 64 --seeds 16

Distances are relative Frobenius norms, in percent: of predictions f at all steps, and of kernels at the last step
(mean over layers). In brackets, what the standard errors of both sides make of a distance of zero. The last lines
are the control: gradient independence, which leaves the response functions out, against the march.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import kernelfield as kf
from distances import cell
from kernelfield.layers import Activation, Dense, Readout

RNG = np.random.default_rng(0)
Y = np.array([1.0, -0.7, 0.9, -1.1])
SEQUENCES = kf.Problem(RNG.standard_normal((4, 6, 3)), Y)
IMAGES = kf.Problem(RNG.standard_normal((4, 4, 4, 1)), Y)
VECTORS = kf.Problem(RNG.standard_normal((4, 10)), Y)
TANH, AGAIN = Activation("tanh"), Dense()

CASES = {
    "CNN 1-D tanh L=3, zero": (kf.CNN(depth=3, activation="tanh"), SEQUENCES),
    "CNN 1-D tanh L=2, circular, stride 2, flatten": (
        kf.CNN(depth=2, activation="tanh", padding="circular", stride=2, readout="flatten"),
        SEQUENCES,
    ),
    "CNN 1-D relu L=2, pooled by 2": (kf.CNN(depth=2, activation="relu", pool=2), SEQUENCES),
    "CNN 2-D tanh L=2, zero": (kf.CNN(depth=2, activation="tanh"), IMAGES),
    "CNN 2-D tanh L=2, circular, stride 2, flatten": (
        kf.CNN(depth=2, activation="tanh", padding="circular", stride=2, readout="flatten"),
        IMAGES,
    ),
    "ResNet tanh L=3": (kf.ResNet(depth=3), VECTORS),
    "ResNet tanh L=8": (kf.ResNet(depth=8), VECTORS),
    "ResNet relu L=8": (kf.ResNet(depth=8, activation="relu"), VECTORS),
    "three uses of one matrix": (
        kf.Network(layers=[Dense(), TANH, AGAIN, TANH, AGAIN, TANH, AGAIN, TANH, Readout()]),
        VECTORS,
    ),
}
KINDS = ("f", "Phi", "G", "NTK")


def quantities(solution: kf.Solution) -> dict[str, list[kf.Estimate]]:
    """By kind: predictions of all steps, and the last kernels of every layer."""
    layers = range(1, solution.network.hidden_layers + 1)
    return {
        "f": [solution.estimate("predictions")],
        "Phi": [solution.estimate("feature_kernel", layer) for layer in layers],
        "G": [solution.estimate("gradient_kernel", layer) for layer in layers],
        "NTK": [solution.estimate("ntk")],
    }


def distances(found: kf.Solution, truth: kf.Solution) -> list[str]:
    """For each kind the distance and its noise, in percent of the truth's norm."""
    one, other = quantities(found), quantities(truth)
    return [cell(one[kind], other[kind]) for kind in KINDS]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--particles", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    training = kf.GradientDescent(learning_rate=0.5, steps=given.steps)
    print("| network | beside the march | f | Phi | G | NTK | s |\n|---|---|---|---|---|---|---|", flush=True)
    for name in given.cases:
        network, problem = CASES[name]
        march = kf.solve(network, problem, training, kf.March(particles=given.particles))
        seconds = march.info["seconds_run"]
        print(f"| {name} | march itself | {' | '.join(distances(march, march))} | {seconds:.1f} |", flush=True)
        others = {
            **{f"N = {width}": kf.FiniteWidth(width=width, seeds=given.seeds) for width in given.widths},
            "responses off": kf.GradientIndependence(particles=given.particles),
        }
        for label, method in others.items():
            began = time.perf_counter()
            found = kf.solve(network, problem, training, method)
            spent = time.perf_counter() - began
            print(f"| | {label} | {' | '.join(distances(found, march))} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
