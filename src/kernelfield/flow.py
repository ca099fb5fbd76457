"""Gradient flow at infinite width: the march in continuous time, with steps as long as the accuracy allows.

What makes gradient flow stiff is the tangent kernel K: errors along its largest eigenvectors decay long before the
others move. Within a step K hardly changes, and with K frozen the error signal is known in closed form,

    Delta(s) = exp(s J) Delta,   J = (d Delta / d f) K w,   mean over a step of length h: phi_1(h J) Delta.

A step follows the gradients of its midpoint with the mean error signal instead of the one at its start: the exponential
midpoint rule, second order, and stable however large h K is. The same step with the kernel of its start is of first
order; what both disagree about in f is the error that sets h.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import expm

from kernelfield.devices import Placement, gathered
from kernelfield.engine.basis import any_full, completed, with_flags
from kernelfield.engine.infinite_matrix import each_side, moved, slowed
from kernelfield.layers import FieldTrace
from kernelfield.replicate import Constants, Record, Replicate, Step, shapes
from kernelfield.training import GradientFlow

SAFETY, SHORTEST, LONGEST = 0.8, 0.2, 4.0  # factors of the length of the next step


class Flowed(NamedTuple):
    """The state after a step of length h, what was recorded and passed at its start, and the error of f, rms."""

    state: Any
    record: Record
    fields: tuple[FieldTrace, ...]
    error: Array
    size: Array


def flowed(step: Step, constants: Constants, state: Any, h: Array) -> Flowed:
    """One step of length h.

    Args:
        step: keeps gradients of every output apart, and has velocities.
        constants: of the run.
        state: at the start.
        h: training time.

    Returns:
        Flowed; `size` is the rms of f and y, against which the error counts.
    """
    state, f, trace = step.forward(constants, state)
    Delta, weights = jnp.ravel(step.loss.signal(f, constants.y)), jnp.repeat(constants.weights, step.rows)
    slope = jax.jacfwd(lambda each: jnp.ravel(step.loss.signal(each.reshape(f.shape), constants.y)))(jnp.ravel(f))

    def mean_signal(K: Array, h: Array) -> Array:
        """phi_1(h J) Delta, from the exponential of [[h J, Delta], [0, 0]]."""
        n = len(Delta)
        J = jnp.zeros((n + 1, n + 1)).at[:n, :n].set(h * slope @ (K * weights)).at[:n, n].set(Delta)
        return expm(J, max_squarings=48)[:n, n]

    state, trace, K = turned(step, constants, state, trace)
    record, fields = step.recorded(state, f, trace), step.fields(trace)
    euler = h * K @ (weights * mean_signal(K, h))
    state = toward(step, constants, state, trace, mean_signal(K, h / 2))
    state = each_side(lambda side: moved(side, h / 2), state)
    state, _, trace = step.forward(constants, state)
    state, trace, K = turned(step, constants, state, trace)
    signal = mean_signal(K, h)
    midpoint = h * K @ (weights * signal)
    state = each_side(lambda side: moved(side, -h / 2), state)
    state = toward(step, constants, state, trace, signal)
    state = each_side(lambda side: moved(side, h), state)
    error, size = (jnp.sqrt(jnp.sum(weights * each**2)) for each in (midpoint - euler, jnp.ravel(constants.y)))
    return Flowed(state, record, fields, error, jnp.maximum(size, jnp.sqrt(jnp.sum(weights * jnp.ravel(f) ** 2))))


def turned(step: Step, constants: Constants, state: Any, trace: tuple) -> tuple[Any, tuple, Array]:
    """After the backward pass: state, trace, and the tangent kernel of all outputs (P C, P C)."""
    chi = jnp.tile(jnp.eye(step.outputs or 1), (len(constants.y), 1))
    state, _, trace = step.layers.backward(state, chi, trace)
    return state, trace, step.layers.tangent(state, trace, trace).astype(chi.dtype)


def toward(step: Step, constants: Constants, state: Any, trace: tuple, signal: Array) -> Any:
    """The state with the velocity of gradient descent for an error signal (P C,)."""
    state = each_side(lambda side: slowed(side, jnp.zeros(())), state)
    rate = jnp.repeat(constants.weights, step.rows) * signal * constants.gamma0
    return step.layers.update(state, trace, rate.astype(constants.data.dtype))


@functools.lru_cache(maxsize=64)
def _flowing(step: Step, placement: Placement, signature: tuple) -> Callable[..., Flowed]:
    return placement.compiled(functools.partial(flowed, step), shapes(signature))


class FlowReplicate(Replicate):
    """One scramble in continuous time."""

    counters: ClassVar[tuple[str, ...]] = (*Replicate.counters, "time", "h", "accepted", "rejected")

    def start(self, training: GradientFlow) -> FlowReplicate:
        """Itself, at time zero."""
        self.between, self.last, self.rtol = training.learning_rate, training.steps, training.rtol
        self.time, self.h, self.accepted, self.rejected = 0.0, self.between, 0, 0
        return self

    @property
    def _at_row(self) -> bool:
        return self.time >= self.t * self.between - self._rounding

    @property
    def _rounding(self) -> float:
        return 1e-12 * self.between

    def _advance(self, stop: int, fields_at: Sequence[int]) -> None:
        """One step towards the next row, from a row that is recorded unless it was before."""
        due = self._at_row
        left = max(0.0, min(self.t + due, self.last) * self.between - self.time)
        h = left / math.ceil(left / self.h) if left > self._rounding else 0.0
        arguments = self.constants, self.state, jnp.asarray(h)
        now = jax.block_until_ready(self._compiled(functools.partial(_flowing, self.step), arguments)(*arguments))
        self.full = bool(any_full(now.state))
        if self.full:
            self.state = with_flags(self.state, now.state)
            return
        if due:
            self.records.append(jax.tree.map(lambda leaf: jax.device_get(leaf)[None], now.record))
            if self.t in fields_at:
                self.fields[self.t] = gathered(now.fields)
            self.t += 1
        error = float(now.error) / (self.rtol * float(now.size))
        if not math.isfinite(error):
            self.alive = h > 1e-9 * self.between
            self.h = h / 10
        else:
            if error <= 1:
                self.state, self.time = completed(now.state, jnp.asarray(True)), self.time + h
                self.accepted += h > 0
            else:
                self.rejected += 1
            if h > 0:
                self.h = h * min(LONGEST, max(SHORTEST, SAFETY / math.sqrt(max(error, 1e-12))))
