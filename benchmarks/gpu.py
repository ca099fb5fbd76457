"""The march on a GPU: the largest problem that the project promises, and what part of the card's rate it reaches.

    python benchmarks/gpu.py                        # 1,000 images, 1,000 steps
    python benchmarks/gpu.py --points 200 --steps 20 --check

`error` is the standard error of the predictions of all steps, relative to their norm; `--check` solves again with a
third of both tolerances and gives the distance between the two as well. The rate is that of the products that a step
cannot do without (see rate.py), over the whole run without compilation, beside the card's own on square matrices.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
from sklearn.datasets import load_digits

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.march.cost import count
from kernelfield.march.layout import Layout
from kernelfield.solve import solve_run
from rate import machine_rate


def images(points: int) -> kf.Problem:
    """Digits, odd against even."""
    X, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(X))[:points]
    return kf.Problem(X[chosen] / 8 - 1, 2.0 * (labels[chosen] % 2) - 1)


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--time", type=float, default=30.0, help="training time, learning rate times steps")
    parser.add_argument("--particles", type=int, default=8192)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--tol", type=float, default=5e-3)
    parser.add_argument("--precision", choices=["default", "highest"], default="default", help="of matrix products")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", given.precision)
    rate = machine_rate(8192 if jax.default_backend() == "gpu" else 2048)
    print(f"{jax.devices()[0].device_kind}, products in {given.precision} precision: {rate / 1e12:.1f} TFLOP/s\n")
    network = kf.MLP(depth=3, activation="tanh", gamma0=1.0)
    problem = images(given.points)
    training = kf.GradientDescent(learning_rate=given.time / given.steps, steps=given.steps)
    print(
        "| particles x replicates | tol | s | compilation s | loss | error % | distance % | directions "
        "| TFLOP/s | part % |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    before = None
    for part in (1, 3) if given.check else (1,):
        method = kf.March(particles=given.particles, replicates=given.replicates, kernels="none", tol=given.tol / part)
        run = Run(network, problem, training, method)
        solution = solve_run(run)
        f, info = solution.estimate("predictions"), solution.info
        norm = np.linalg.norm(f.mean)
        distance = "" if before is None else f"{100 * np.linalg.norm(f.mean - before) / norm:.2f}"
        before = f.mean
        ranks = info["feature_ranks"], info["gradient_ranks"]
        done = given.replicates * (given.steps + 1) * 2 * count(Layout(run)).products * method.particles
        reached = done / info["seconds_run"]
        print(
            f"| {method.particles} x {method.replicates} | {method.tol:.0e} "
            f"| {info['seconds_run']:.1f} | {info['seconds_compile']:.1f} | {solution.loss[-1]:.4f} "
            f"| {100 * np.linalg.norm(f.se) / norm:.2f} | {distance} | {ranks} "
            f"| {reached / 1e12:.2f} | {100 * reached / rate:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
