"""The part of the machine's own rate of float32 matrix products that the march reaches.

    python benchmarks/rate.py

A step on P points, S particles and k directions of a basis makes products of 2 P k S operations: one for coordinates
in every basis, and for every basis of an infinite matrix two more, its image and what it learns. `steps %` counts these
alone. `all %` counts the products of n new directions too: what the basis leaves out, 2 P k S, its Gram matrix 2 P^2 S
(in double precision), the directions and their loadings 4 P n S, making them orthogonal 4 n k S, and with k' directions
on the other side of the matrix their responses, 4 n k' S. Operations are those that the theory asks for, with the
directions in use: not rows of zeros up to the capacity, nor anything that is done twice for precision. The machine's
rate is that of square matrices of 2048, on all cores, in the same run. Two replicates march side by side, as in every
solve on two cores, once without a stop, which gives the rate, and once step by step, each of which then has its own
time: `growing` are the steps that met new directions, `settled` the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

import kernelfield as kf
from cases import breast_cancer
from goals import goal
from kernelfield.march import MarchRun
from kernelfield.replicate import Replicate

LAYERS = 3
REPLICATES = 2  # side by side
AIM = 0.6  # of the machine's rate


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


def operations(points: int, particles: int, directions: Sequence[int]) -> float:
    """Of one step; bases come from below: gradients of layer 1, features of 1, gradients of 2, ..., features of L."""
    products = sum(directions) + 2 * sum(directions[1:-1]) + directions[-3]  # the last for u, the Gaussian part of h^L
    return 2.0 * points * particles * products


def operations_of_new(points: int, particles: int, before: Sequence[int], now: Sequence[int]) -> float:
    """Of new directions, given those in every basis before and after a step."""
    total = 0.0
    for place, (known, k) in enumerate(zip(before, now, strict=True)):
        if new := k - known:
            total += 2 * points * known + 2 * points**2 + 4 * points * new + 4 * new * k
            if 0 < place < len(now) - 1:  # features of layer l and gradients of l + 1 belong to one matrix
                total += 4 * new * now[place + 1 if place % 2 else place - 1]
    return particles * total


class Taken(NamedTuple):
    """By a step of a replicate: whether it met new directions, its operations, those of new directions, seconds."""

    growing: bool
    own: float
    new: float
    seconds: float


def measured(points: int, particles: int, steps: int, learning_rate: float) -> tuple[list[Taken], float]:
    """Every step of two replicates, and the seconds of both without a stop."""
    network = kf.MLP(depth=LAYERS, activation="tanh", gamma0=1.0)
    training = kf.GradientDescent(learning_rate=learning_rate, steps=steps)
    run = MarchRun(kf.March(particles=particles, replicates=REPLICATES), network, breast_cancer(points), training, [])

    def step_by_step(replicate: Replicate) -> list[Taken]:
        found, before = [], replicate.directions
        for t in range(1, steps + 2):
            began, compiled = time.perf_counter(), replicate.seconds_compile
            replicate.march(t)
            elapsed = time.perf_counter() - began - (replicate.seconds_compile - compiled)
            now = replicate.directions
            own, new = operations(points, particles, now), operations_of_new(points, particles, before, now)
            found.append(Taken(now != before, own, new, elapsed))
            before = now
        return found

    def side_by_side(march: Callable[[Replicate], Any]) -> tuple[list[Any], float]:
        replicates = [run.replicate(number) for number in range(REPLICATES)]
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(REPLICATES) as pool:
            began = time.perf_counter()
            return list(pool.map(march, replicates)), time.perf_counter() - began

    side_by_side(step_by_step)  # compiles
    taken, _ = side_by_side(step_by_step)
    _, seconds = side_by_side(lambda replicate: replicate.march(steps + 1))
    return [each for steps in taken for each in steps], seconds


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    given = parser.parse_args()
    rate = machine_rate()
    print(f"The machine: {rate / 1e9:.0f} GFLOP/s\n")
    print("| P | steps | GFLOP/s | all % | steps % | growing: all % | steps % | settled % | settled steps |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for points in given.points:
        steps, seconds = measured(points, given.particles, given.steps, given.learning_rate)
        every = sum(each.own + each.new for each in steps) / seconds

        def part(chosen: list[Taken], of_new: bool) -> float:
            done = sum(each.own + of_new * each.new for each in chosen)
            return REPLICATES * done / sum(each.seconds for each in chosen) / rate if chosen else np.nan

        growing, settled = ([each for each in steps if each.growing == kind] for kind in (True, False))
        own = sum(each.own for each in steps) / seconds / rate
        parts = [own, part(growing, True), part(growing, False), part(settled, False)]
        percent = " | ".join(f"{100 * each:.0f}" for each in [every / rate, *parts])
        print(
            f"| {points} | {given.steps + 1} | {every / 1e9:.0f} | {percent} | {len(settled) // REPLICATES} |",
            flush=True,
        )
    print("\n" + goal(f"Part of the machine's rate of products, P = {points}, tanh L = 3", f">= {AIM}", every / rate))


if __name__ == "__main__":
    main()
