"""Learning rules of finite networks, as passes whose values are the network's and whose derivatives are the rule's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from kernelfield.describe.rules import DirectFeedbackAlignment, FeedbackAlignment, Hebbian, LearningRule
from kernelfield.layers import Readout, Sequential
from kernelfield.layers.base import uses
from kernelfield.layers.weights import Weights


@jax.tree_util.register_dataclass
@dataclass
class Taught:
    """Weights that act as W, and send gradients down through B; both are (rows, columns)."""

    W: Array
    B: Array

    @property
    def T(self) -> Taught:
        """The transposes."""
        return Taught(self.W.T, self.B.T)

    def __len__(self) -> int:
        return len(self.W)

    def __rmatmul__(self, x: Array) -> Array:
        past = x @ self.B
        return stop_gradient(x) @ self.W + past - stop_gradient(past)


@dataclass
class Lesson:
    """One pass of a learning rule, in which `teach` sees all places of the network.

    Args:
        rule: the learning rule.
        feedback: its weights that rest, see `draw_feedback`.
        width: N.
        Delta: error signals of the points (P, C) in training, for `Hebbian`.
        detour: what is added to gamma0 f: zero, with the derivatives that go past the weights.
        h: the last preactivation.
    """

    rule: LearningRule
    feedback: Any
    width: int
    Delta: Array | None = None
    detour: Any = 0.0
    h: Any = None

    def begin(self) -> Lesson:
        """Returns the lesson of a new pass."""
        return replace(self, detour=0.0, h=None)

    def pair(self, params: Any) -> Any:
        """Returns the parameters as the pass uses them."""
        if not isinstance(self.rule, FeedbackAlignment):
            return params
        return jax.tree.map(lambda W, B: Taught(W, B) if W.ndim == 2 else W, params, self.feedback)

    def teach(self, kind: str, x: Array, use: int) -> Array:
        """Returns the values x (P, *sites, N) at a place: number `use` of its kind."""
        if isinstance(self.rule, FeedbackAlignment):
            return x
        if kind == "in":  # nothing goes down through weights
            if isinstance(self.rule, DirectFeedbackAlignment) and use > 0:
                change = (x - stop_gradient(x)).reshape(len(x), -1)
                self.detour = self.detour + change @ self.feedback[use - 1].T / self.width
            return stop_gradient(x)
        if kind == "h":
            self.h = x
        if kind == "phi" and self.Delta is not None:
            activity = jnp.sum((self.h - stop_gradient(self.h)) * stop_gradient(x), axis=range(1, x.ndim))
            self.detour = self.detour + activity[:, None] * self.Delta / self.width
            return stop_gradient(x)
        return x


def draw_feedback(rule: LearningRule, layers: Sequential, key: Array, params: Any, others: Any, shapes: list) -> Any:
    """Returns the weights of a rule that rest.

    Args:
        rule: the learning rule.
        layers: of the network.
        key: for random numbers.
        params, others: parameters at initialization, and of another network.
        shapes: of the fields (*sites, N) that enter each use of weights.

    Feedback alignment has matrices shaped as the parameters; direct feedback has vectors (C, sites N) for the fields
    that enter each use of weights but the first.
    """
    if isinstance(rule, FeedbackAlignment):
        a = rule.alignment
        return jax.tree.map(lambda W, other: a * W + math.sqrt(1 - a * a) * other, params, others)
    if isinstance(rule, Hebbian):
        return None
    every = [layer for layer in uses(layers) if isinstance(layer, (Weights, Readout))]
    numbers: dict[int, int] = {}
    drawn, outputs = [], len(jax.tree.leaves(params)[-1])
    for layer, shape in zip(every, shapes, strict=True):
        number = numbers.setdefault(id(layer), len(numbers))
        v = jax.random.normal(jax.random.fold_in(key, number), (outputs, math.prod(shape)))
        drawn.append(v / math.sqrt(math.prod(shape[:-1])) if isinstance(layer, Readout) else v)
    return drawn[1:]
