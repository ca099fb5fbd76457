"""Kernels of a march: fields of recorded rows, as coordinates in bases that are for this alone.

Training knows few directions of its fields; two-time kernels need the fields of all times. What the recorder sees is
projected on directions that are chosen by energy at a tight tolerance, and what they leave out is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from kernelfield.engine.directions import Directions, no_directions, represent
from kernelfield.engine.series import Fields, leading, linear
from kernelfield.layers import Bias, Readout, Sequential, Setup, WeightTrace
from kernelfield.layers.base import Layer, Pair, traces, uses
from kernelfield.layers.bias import BiasTrace
from kernelfield.layers.weights import Weights


class RecordedRow(NamedTuple):
    """What is recorded of one step.

    Attributes:
        features: coordinates of the features of hidden layers 1..L, (P, *sites, k) each.
        gradients: of the gradients of every output, (P C, *sites, k) each; none if nobody asked.
        tangent: the tangent kernel (P C, P C), where the factors do not give it.
        left_out: the largest part of a field's mean square that is not recorded.
    """

    features: tuple[Fields, ...] = ()
    gradients: tuple[Fields, ...] = ()
    tangent: Array | None = None
    left_out: Array | None = None


@dataclass(frozen=True)
class Recorder:
    """What is recorded of a network.

    Args:
        layers: of the network.
        outputs: C.
        features, gradients: whether their kernels are.
        tangent: whether the tangent kernel is, in addition to gradients.
        capacity: the most directions of a basis.
        tol: part of the mean square that a direction must have.
    """

    layers: Sequential
    outputs: int = 1
    features: bool = False
    gradients: bool = False
    tangent: bool = False
    capacity: int = 0
    tol: float = 1e-5

    def bases(self, setup: Setup) -> dict[str, dict[int, Directions]]:
        """Empty ones, of the features that enter weights and of the gradients at what leaves them, by the weights."""
        learning = {place: layer for place, layer, _ in self._uses(None)}

        def empty(places: list[int]) -> dict[int, Directions]:
            return {place: no_directions(self.capacity, setup.particles, setup.dtype, setup.orders) for place in places}

        above = [place for place, layer in learning.items() if not isinstance(layer, Bias) and place > 0]
        below = [
            place
            for place, layer in learning.items()
            if not isinstance(layer, Readout) and (self.tangent or isinstance(layer, Weights))
        ]
        return {
            "features": empty(above if self.features else []),
            "gradients": empty(below if self.gradients else []),
        }

    def record(self, bases: dict[str, dict[int, Directions]], passed: Any) -> tuple[Any, RecordedRow]:
        """The bases after they have met what passed, and the row."""
        features, gradients = dict(bases["features"]), dict(bases["gradients"])
        F: list[Fields] = []
        pairs: list[Pair] = []
        kept: list[Fields] = []
        left = []
        for place, layer, trace in self._uses(passed):
            here: Any = getattr(trace, "phi", None)
            if place in features:
                one = linear(lambda values: values[:: self.outputs], here)
                features[place], here = self._met(features[place], one)
                left.append(features[place].left)
                F.append(here)
            G = trace.G if isinstance(layer, Readout) else trace.g
            if place in gradients:
                gradients[place], G = self._met(gradients[place], G)
                left.append(gradients[place].left)
                kept += [G] if isinstance(layer, Weights) else []
            if self.outputs > 1 and place in features:
                here = jnp.repeat(here, self.outputs, axis=0)
            pairs.append(Pair(here, G))
        tangent = tangent_kernel(self.layers, pairs, pairs) if self.tangent and self.gradients else None
        left_out = jnp.max(jnp.stack(left)) if left else None
        return {"features": features, "gradients": gradients}, RecordedRow(tuple(F), tuple(kept), tangent, left_out)

    def _met(self, basis: Directions, x: Fields) -> tuple[Directions, Fields]:
        return represent(basis, x, jnp.ones(len(leading(x))), self.tol)

    def _uses(self, passed: Any) -> list[tuple[int, Layer, Any]]:
        return learned_uses(self.layers, passed)


def learned_uses(layers: Sequential, passed: Any) -> list[tuple[int, Layer, Any]]:
    """Every use of weights, bottom to top: the number of its weights, the layer, and its trace (None without any)."""
    every = [layer for layer in uses(layers) if isinstance(layer, (Weights, Bias, Readout))]
    numbers: dict[int, int] = {}
    places = [numbers.setdefault(id(layer), len(numbers)) for layer in every]
    found: list[Any] = [None] * len(every)
    if passed is not None:
        found = [*traces(passed.body, (WeightTrace, BiasTrace)), passed.readout]
    return list(zip(places, every, found, strict=True))


def tangent_kernel(layers: Sequential, one: list[Pair], other: list[Pair]) -> Array:
    """The tangent kernel (P, P') between two passes: the sum over all pairs of uses of the same weights.

    Args:
        layers: of the network.
        one, other: features and gradients at every use of weights, bottom to top.
    """
    total, width, every = jnp.zeros(()), 1.0, learned_uses(layers, None)
    for (place, layer, _), ours in zip(every, one, strict=True):
        width = layer.width if isinstance(layer, Weights) else width
        factor = width if isinstance(layer, Bias) else 1.0
        for (again, _, _), theirs in zip(every, other, strict=True):
            if again == place:
                total = total + factor * layer.tangent(ours, theirs)  # type: ignore[attr-defined]
    return total


def field_pairs(layers: Sequential, passed: Any) -> list[Pair]:
    """Features, and gradients if there are any, at every use of weights, so scaled that products are averages."""
    pairs = []
    for place, layer, trace in learned_uses(layers, passed):
        F, G = getattr(trace, "phi", None), trace.G if isinstance(layer, Readout) else trace.g
        if place > 0 and F is not None:
            F = F / jnp.sqrt(F.shape[-1])
        if not isinstance(layer, Readout) and G is not None:
            G = G / jnp.sqrt(G.shape[-1])
        pairs.append(Pair(F, G))
    return pairs
