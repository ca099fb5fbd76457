"""Part of the machine's rate of products that the march reaches.

    python benchmarks/rate.py

Counted are the products that a step makes of fields, with leading directions, images and tails (see
`kernelfield.march.cost`), not the search for directions, elementwise functions and what passes through memory, which
take time too. The machine's rate is that of a product of square matrices.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp

import kernelfield as kf
from cases import breast_cancer
from goals import goal
from kernelfield.describe.run import Run
from kernelfield.march.cost import count
from kernelfield.march.layout import Layout

REPLICATES = 2  # side by side
AIM = 0.6  # of the machine's rate
WHY = "the rest of a step is the search for directions, elementwise functions and passes over memory"


def machine_rate(size: int = 2048) -> float:
    """Operations a second of a product of square matrices, the best of ten."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    rate, part = machine_rate(), 0.0
    print(f"The machine: {rate / 1e9:.0f} GFLOP/s\n")
    print("| P | steps | s | GFLOP/s | % |\n|---|---|---|---|---|", flush=True)
    network, training = kf.MLP(depth=3, activation="tanh"), kf.GradientDescent(learning_rate=0.1, steps=given.steps)
    for points in given.points:
        method = kf.March(particles=given.particles, replicates=REPLICATES, kernels="none")
        run = Run(network, breast_cancer(points), training, method)
        for _ in range(2):  # the first one compiles
            solution = kf.solve(network, run.problem, training, method, fields_at=(), progress=False)
        seconds = solution.info["seconds_run"]
        reached = REPLICATES * (given.steps + 1) * 2 * count(Layout(run)).products * given.particles / seconds
        part = reached / rate
        print(f"| {points} | {given.steps + 1} | {seconds:.2f} | {reached / 1e9:.0f} | {100 * part:.0f} |", flush=True)
    print("\n" + goal(f"Part of the machine's rate of products, P = {points}, tanh L = 3", f">= {AIM}", part, WHY))


if __name__ == "__main__":
    main()
