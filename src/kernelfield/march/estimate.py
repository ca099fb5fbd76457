"""Estimates of the time and memory of a solve, by counting and a short measurement of this machine.

Most of a step are products of all points with the leading directions of their fields and with the tails, on all
particles. Their number follows from the network; how fast this machine does them, and passes over fields, is measured.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientFlow, Training
from kernelfield.layers.base import uses
from kernelfield.march import cost
from kernelfield.march.layout import BLOCK, Layout
from kernelfield.march.method import March, OnParticles

PROCESS = cost.GIB // 2  # what a process holds besides arrays
PASSES = 12  # over such a field in a step, besides products
COMPILE = 1.0, 0.5  # seconds to compile a step, and more for every use of weights, about
REPEATS = 30  # of a measurement


@dataclass(frozen=True)
class Cost:
    """What a solve will take.

    Args:
        seconds: to run, without compilation.
        seconds_compile: to compile what no earlier run has.
        memory: bytes at the peak, of the whole process.
        available: bytes that this machine has for it.
        directions: room for leading directions of a field.
        gflops: 10^9 operations in a second that this machine does.
        advice: the setting that would make it fit into memory, if it does not.
    """

    seconds: float
    seconds_compile: float
    memory: int
    available: int
    directions: int
    gflops: float
    advice: str | None = None

    @property
    def fits(self) -> bool:
        """Whether there is enough memory."""
        return self.memory <= self.available


def estimate(network: Architecture, problem: Problem, training: Training, method: OnParticles | None = None) -> Cost:
    """Returns the time and memory that `kernelfield.solve` will take.

    Args:
        network: what learns.
        problem: what is learned.
        training: how it learns.
        method: March() by default, or another one on particles.

    Raises:
        ValueError: for input that cannot be solved, a method that is not on particles, or gradient flow, whose steps
            are known only when it runs.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.random.default_rng(0).standard_normal((16, 4)), np.tile([1.0, -1.0], 8))
        >>> training = kf.GradientDescent(learning_rate=0.2, steps=3)
        >>> kf.estimate(kf.MLP(depth=1), problem, training, kf.March(particles=64)).fits
        True
    """
    method = method or March()
    if not isinstance(method, OnParticles):
        raise ValueError(f"estimate is for methods on particles, March for instance, not {type(method).__name__}")
    run = Run(network, problem, training, method, fields_at=(0, training.steps))
    method.supports(run)
    if isinstance(training, GradientFlow):
        raise ValueError("estimate knows what rules in discrete time take, not GradientFlow, which chooses its steps")
    layout = Layout(run)
    work, particles = cost.count(layout), layout.particles
    rate, bandwidth = _rates(layout)
    item, points = np.dtype(layout.dtype).itemsize, problem.points / layout.rows

    def seconds(products: float, fields: float) -> float:
        return 2 * products * particles / rate + PASSES * fields * particles * item / bandwidth

    row = training.updates_per_step(problem) * seconds(work.products, work.fields)
    if layout.batched:  # all points are evaluated between epochs
        row += seconds(work.passed * points, work.fields * points / 4)
    look = seconds(1.5 * work.passed * points + work.recorded * points, work.fields * points)
    spent = (training.steps + 1) * row + len(layout.kernels_at) * look
    own = psutil.Process().memory_info().rss + PROCESS
    needed, most = own + cost.bytes_of(layout), own + cost.available()
    return Cost(
        seconds=spent * layout.count,
        seconds_compile=COMPILE[0] + COMPILE[1] * len(uses(layout.step.layers)) / 2,
        memory=needed,
        available=most,
        directions=layout.directions,
        gflops=rate / 1e9,
        advice=None if needed <= most else cost.advice(layout, most / needed),
    )


def _rates(layout: Layout) -> tuple[float, float]:
    """Operations in a second of products like those of a step, and bytes in a second of passes over a field."""
    rows = min(layout.rows * layout.sites, 1024)
    S, k, dtype = layout.particles, layout.directions, layout.dtype
    with jax.enable_x64(True):
        x, q, core = (jnp.ones(shape, dtype) for shape in ((rows, S), (k, S), (BLOCK, BLOCK)))

        def products(x: Any, q: Any) -> Any:
            F = x @ q.T
            return F @ q + jnp.einsum("rbi,ij->rbj", x.reshape(rows, -1, BLOCK), core).reshape(x.shape)

        blocks = S % BLOCK == 0
        done = 2 * rows * S * (2 * k + BLOCK)
        rate = done / _time(products, x, q) if blocks else 2 * rows * S * k / _time(lambda x, q: x @ q.T, x, q)
        bandwidth = rows * S * np.dtype(dtype).itemsize / _time(jnp.tanh, x)
    return rate, bandwidth


def _time(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of a compiled call, the shortest of some."""
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    return min(timeit.repeat(lambda: jax.block_until_ready(compiled(*arguments)), number=1, repeat=REPEATS))
