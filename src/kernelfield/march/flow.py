"""Gradient flow at infinite width: the march in continuous time, with steps as long as the accuracy allows.

What makes gradient flow stiff is the tangent kernel K: errors along its largest eigenvectors decay long before the
others move. Within a step K hardly changes, and with K frozen the error signal is known in closed form,

    Delta(s) = exp(s J) Delta,   J = (d Delta / d f) K w,   mean over a step of length h: phi_1(h J) Delta.

A step follows the gradients of its midpoint with the mean error signal instead of the one at its start: the exponential
midpoint rule, second order, and stable however large h K is. The same step with the kernel of its start is of first
order; what both disagree about in f is the error that sets h.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import expm

from kernelfield.describe.training import GradientFlow
from kernelfield.engine.infinite_matrix import change_images, move
from kernelfield.march.devices import ONE_DEVICE, Placement
from kernelfield.march.layout import Layout
from kernelfield.march.recorder import field_pairs, tangent_kernel
from kernelfield.march.replicate import Replicate
from kernelfield.march.step import Constants, Marched, Pace, Passed, Step

SAFETY, SHORTEST, LONGEST = 0.8, 0.2, 4.0  # factors of the length of the next step


class Flowed(NamedTuple):
    """The state after a step, f at its start, the rms error of f, and the size that the error counts against."""

    state: Marched
    f: Array
    error: Array
    size: Array


def flow(step: Step, constants: Constants, state: Marched, h: Array, first: Array) -> Flowed:
    """Returns the state after a step of length h in training time, from a state that has velocities.

    `first` says whether the step starts where training does. The size of the result is the rms of f and y.
    """
    layers, passed = step.forward(state.layers, constants.data, constants.weights)
    start = jnp.where(first, passed.readout.phi, state.initial)
    f = step.output(constants.gamma0, layers, passed.readout.phi, start)
    Delta, weights = jnp.ravel(step.loss.signal(f, constants.y)), jnp.repeat(constants.weights, step.outputs)
    slope = jax.jacfwd(lambda values: jnp.ravel(step.loss.signal(values.reshape(f.shape), constants.y)))(jnp.ravel(f))

    def mean_signal(K: Array, h: Array) -> Array:
        """phi_1(h J) Delta, from the exponential of [[h J, Delta], [0, 0]]."""
        n = len(Delta)
        J = jnp.zeros((n + 1, n + 1)).at[:n, :n].set(h * slope @ (K * weights)).at[:n, n].set(Delta)
        return expm(J, max_squarings=48)[:n, n]

    K = _tangent(step, layers, passed)
    euler = h * K @ (weights * mean_signal(K, h))
    half, whole = (Pace(length, jnp.array(True), first) for length in (h / 2, h))
    layers, passed = step.backward(layers, passed, mean_signal(K, h / 2).reshape(f.shape), constants.weights)
    layers = step.learn(constants, layers, passed, constants.weights, half)
    layers, passed = step.forward(layers, constants.data, constants.weights)
    K = _tangent(step, layers, passed)
    signal = mean_signal(K, h)
    midpoint = h * K @ (weights * signal)
    layers, passed = step.backward(layers, passed, signal.reshape(f.shape), constants.weights)
    layers = change_images(lambda images: move(images, -h / 2), layers)
    layers = step.learn(constants, layers, passed, constants.weights, whole)
    error, size = (jnp.sqrt(jnp.sum(weights * each**2)) for each in (midpoint - euler, jnp.ravel(constants.y)))
    size = jnp.maximum(size, jnp.sqrt(jnp.sum(weights * jnp.ravel(f) ** 2)))
    return Flowed(Marched(layers, start), f, error, size)


def _tangent(step: Step, layers: tuple, passed: Passed) -> Array:
    """The tangent kernel of all outputs (P C, P C)."""
    pairs = field_pairs(step.layers, step.every_output(layers, passed)[1])
    return tangent_kernel(step.layers, pairs, pairs).astype(jnp.float64)


class FlowReplicate(Replicate):
    """One scramble in continuous time."""

    counters: ClassVar[tuple[str, ...]] = (*Replicate.counters, "time", "h", "accepted", "rejected")

    def __init__(self, layout: Layout, number: int, placement: Placement = ONE_DEVICE) -> None:
        super().__init__(layout, number, placement)
        training = cast(GradientFlow, layout.training)
        self.between, self.last, self.rtol = training.learning_rate, training.steps, training.rtol
        self.rounding = 1e-12 * self.between
        self.time, self.h, self.accepted, self.rejected = 0.0, self.between, 0, 0

    @property
    def _at_row(self) -> bool:
        return self.time >= self.t * self.between - self.rounding

    def _flow(self, h: float) -> Any:
        return self._run(flow, self.constants, self.state, np.asarray(h), np.asarray(self.time == 0.0))

    def _prime(self) -> None:
        self.state, self.primed = self._flow(0.0).state, True

    def _advance(self, stop: int) -> None:
        """Take one step towards the next row; a row that is reached is recorded first."""
        due = self._at_row
        left = max(0.0, min(self.t + due, self.last) * self.between - self.time)
        h = left / math.ceil(left / self.h) if left > self.rounding else 0.0
        now = self._flow(h)
        if due:
            self.outputs.append(np.asarray(now.f)[None])
            self.t += 1
        error = float(now.error) / (self.rtol * float(now.size))
        if not math.isfinite(error):
            self.alive = h > 1e-9 * self.between
            self.h = h / 10
            return
        if error <= 1:
            self.state, self.time = now.state, self.time + h
            self.accepted += h > 0
        else:
            self.rejected += 1
        if h > 0:
            self.h = h * min(LONGEST, max(SHORTEST, SAFETY / math.sqrt(max(error, 1e-12))))
