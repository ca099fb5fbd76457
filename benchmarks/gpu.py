"""The march on a GPU: large problems, and predictions beside those of the CPU, meant to take less than four minutes.

    python benchmarks/gpu.py                # all parts; without a GPU tiny ones, on the CPU
    python benchmarks/gpu.py --parts a d    # these alone

- a: 1,000 digits, odd against even, 1,000 steps, tanh L = 3, whose error should be below 1 %; `--check` solves it again
  with a third of the tolerance.
- b: 60,000 synthetic images of 28 x 28 pixels in ten classes (see epoch.py), erf L = 2, one epoch in batches of 128.
- c: 512 synthetic images of 32 x 32 pixels in three colours, ten classes, through three convolutions of tanh.
- d: 20 digits, on the accelerator and on the CPU of the same machine.

`error` is the standard error of the predictions of all steps, and `distance` that from the row before or from the CPU,
both relative to their norm. TFLOP/s count the products that a run makes (see rate.py), without the time of compilation,
and `part of rate` compares them with the product of square matrices.
"""

from __future__ import annotations

import argparse
import os
from unittest import mock

import jax
import numpy as np
from sklearn.datasets import load_digits

import kernelfield as kf
from epoch import images
from kernelfield.describe.run import Run
from kernelfield.march.cost import count
from kernelfield.march.layout import Layout
from kernelfield.march.replicate import KEPT
from kernelfield.solve import solve_run
from processes import alone
from rate import machine_rate

BATCH, CLASSES, TOL = 128, 10, 5e-3


def march(particles: int, replicates: int = 2, tol: float | None = None) -> kf.March:
    """The method, without kernels."""
    return kf.March(particles=particles, replicates=replicates, kernels="none", tol=tol)


def digits(points: int, steps: int, particles: int, replicates: int = 2, tol: float = TOL) -> Run:
    """Odd against even, to training time 30."""
    X, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(X))[:points]
    problem = kf.Problem(X[chosen] / 8 - 1, 2.0 * (labels[chosen] % 2) - 1)
    training = kf.GradientDescent(learning_rate=30 / steps, steps=steps)
    return Run(kf.MLP(depth=3, activation="tanh"), problem, training, march(particles, replicates, tol))


def epoch(points: int, particles: int) -> Run:
    """The epoch of epoch.py."""
    problem = kf.Problem(*images(points), loss="cross_entropy")
    training = kf.SGD(learning_rate=5.0, batch_size=BATCH, epochs=1)
    return Run(kf.MLP(depth=2, activation="erf"), problem, training, march(particles))


def colours(points: int, steps: int, particles: int) -> Run:
    """A coarse pattern for each class, under noise."""
    rng = np.random.default_rng(0)
    patterns, labels = rng.standard_normal((CLASSES, 8, 8, 3)), rng.integers(0, CLASSES, points)
    X = np.kron(patterns, np.ones((1, 4, 4, 1)))[labels] + 0.5 * rng.standard_normal((points, 32, 32, 3))
    problem, training = kf.Problem(X, np.eye(CLASSES)[labels] - 0.1), kf.GradientDescent(learning_rate=2.0, steps=steps)
    return Run(kf.CNN(depth=3, pool=2, activation="tanh"), problem, training, march(particles))


def operations(run: Run) -> float:
    """Twice the products of a run; batches also pass the initial network if its features are too large to be kept."""
    layout = Layout(run)
    work, rows = count(layout), run.steps + 1
    products = rows * work.products
    if layout.batched:
        again = work.passed if layout.initial_bytes > KEPT else 0
        updates = run.steps * run.training.updates_per_step(run.problem) + 1
        products = updates * (work.products + again) + rows * work.passed * run.problem.points / layout.rows
    return 2.0 * layout.count * layout.particles * products


def predictions(run: Run) -> np.ndarray:
    """The predictions of all steps."""
    return solve_run(run, progress=False).predictions


def row(part: str, run: Run, rate: float, before: np.ndarray | None = None) -> np.ndarray:
    """Print a row of the table; returns the predictions of all steps."""
    solution = solve_run(run, progress=False)
    f, info, loss = solution.estimate("predictions"), solution.info, solution.loss[-1]
    norm, reached = np.linalg.norm(f.mean) / 100, operations(run) / info["seconds_run"]
    apart = "" if before is None else f"{np.linalg.norm(f.mean - before) / norm:.3f}"
    sizes = f"{run.problem.points} | {run.steps} | {info['particles']} x {info['replicates']}"
    spent = f"{info['seconds_run']:.1f} | {info['seconds_compile']:.1f} | {loss:.4f}"
    rates = f"{reached / 1e12:.3g} | {100 * reached / rate:.0f}"
    print(f"| {part} | {sizes} | {spent} | {np.linalg.norm(f.se) / norm:.2f} | {apart} | {rates} |", flush=True)
    return f.mean


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices="abcd", default="abdc")  # the largest at the end
    parser.add_argument("--small", action=argparse.BooleanOptionalAction, help="tiny sizes, the default without a GPU")
    parser.add_argument("--precision", choices=["default", "highest"], default="default", help="of matrix products")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", given.precision)
    on_gpu = jax.default_backend() == "gpu"
    small = not on_gpu if given.small is None else given.small
    card = jax.devices()[0].device_kind if on_gpu else "These figures are of a CPU, as JAX sees no GPU: this CPU"
    rate = machine_rate(8192 if on_gpu else 1024)
    print(f"{card}, products in {given.precision} precision: {rate / 1e12:.2f} TFLOP/s\n")
    head = "part | points | steps | particles x replicates | s | compilation s | loss | error % | distance %"
    print(f"| {head} | TFLOP/s | part of rate % |\n" + "|---" * 11 + "|", flush=True)
    for part in given.parts:
        if part == "a":
            sizes = (20, 40, 256) if small else (1000, 1000, 8192)
            f = row("a", digits(*sizes), rate)
            if given.check:
                row("a, finer", digits(*sizes, tol=TOL / 3), rate, f)
        elif part == "b":
            row("b", epoch(1000, 256) if small else epoch(60_000, 4096), rate)
        elif part == "c":
            row("c", colours(4, 2, 128) if small else colours(512, 20, 1024), rate)
        else:
            run = digits(20, 40, 256 if small else 4096, replicates=4)
            with mock.patch.dict(os.environ, JAX_PLATFORMS="cpu"):
                cpu = alone(predictions, run)
            row("d, from the CPU", run, rate, cpu)


if __name__ == "__main__":
    main()
