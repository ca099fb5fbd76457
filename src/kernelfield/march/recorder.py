"""The recorder of kernels: it keeps the fields of recorded rows as coordinates in bases of its own.

Training follows few directions of its fields, but two-time kernels need the fields of all times. The recorder projects
fields on directions that it chooses by energy at a tight tolerance, and reports what they leave out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from kernelfield.engine.directions import Directions, make_empty_basis, represent
from kernelfield.engine.infinite_matrix import collect
from kernelfield.engine.series import Fields, apply_linear, lowest_order
from kernelfield.layers import Bias, Readout, Sequential, Setup, WeightTrace
from kernelfield.layers.base import Layer, Pair, uses
from kernelfield.layers.bias import BiasTrace
from kernelfield.layers.weights import Weights


class RecordedRow(NamedTuple):
    """The record of one step.

    Attributes:
        features: coordinates of the features of hidden layers 1..L, (P, *sites, k) each.
        gradients: coordinates of the gradients of every output, (P C, *sites, k) each.
        tangent: the tangent kernel (P C, P C), where the factors do not give it.
        left_out: the largest part of a field's mean square that is not recorded.
    """

    features: tuple[Fields, ...] = ()
    gradients: tuple[Fields, ...] = ()
    tangent: Array | None = None
    left_out: Array | None = None


@dataclass(frozen=True)
class Recorder:
    """What is recorded, and how.

    Args:
        layers: the layers of the network.
        outputs: C.
        features, gradients: whether their kernels are recorded.
        tangent: whether the tangent kernel is recorded too.
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
        """Returns empty bases by weights: for the features that enter them, and for the gradients at their outputs."""
        learning = {place: layer for place, layer, _ in self._uses(None)}

        def empty(places: list[int]) -> dict[int, Directions]:
            return {
                place: make_empty_basis(self.capacity, setup.particles, setup.dtype, setup.orders) for place in places
            }

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
        """Returns the bases after they have met the fields of a pass, and the record."""
        features, gradients = dict(bases["features"]), dict(bases["gradients"])
        F: list[Fields] = []
        pairs: list[Pair] = []
        recorded: list[Fields] = []
        left = []
        for place, layer, trace in self._uses(passed):
            here: Any = getattr(trace, "phi", None)
            if place in features:
                one = apply_linear(lambda values: values[:: self.outputs], here)
                features[place], here = self._project(features[place], one)
                left.append(features[place].residual)
                F.append(here)
            G = trace.G if isinstance(layer, Readout) else trace.g
            if place in gradients:
                gradients[place], G = self._project(gradients[place], G)
                left.append(gradients[place].residual)
                recorded += [G] if isinstance(layer, Weights) else []
            if self.outputs > 1 and place in features:
                here = jnp.repeat(here, self.outputs, axis=0)
            pairs.append(Pair(here, G))
        tangent = tangent_kernel(self.layers, pairs, pairs) if self.tangent and self.gradients else None
        left_out = jnp.max(jnp.stack(left)) if left else None
        return {"features": features, "gradients": gradients}, RecordedRow(tuple(F), tuple(recorded), tangent, left_out)

    def _project(self, basis: Directions, x: Fields) -> tuple[Directions, Fields]:
        return represent(basis, x, jnp.ones(len(lowest_order(x))), self.tol)

    def _uses(self, passed: Any) -> list[tuple[int, Layer, Any]]:
        return learned_uses(self.layers, passed)


def learned_uses(layers: Sequential, passed: Any) -> list[tuple[int, Layer, Any]]:
    """Returns every use of weights, bottom to top: the number of the weights, the layer, and the trace of the pass."""
    every = [layer for layer in uses(layers) if isinstance(layer, (Weights, Bias, Readout))]
    numbers: dict[int, int] = {}
    places = [numbers.setdefault(id(layer), len(numbers)) for layer in every]
    of_pass: list[Any] = [None] * len(every)
    if passed is not None:
        of_pass = [*collect(passed.body, (WeightTrace, BiasTrace)), passed.readout]
    return list(zip(places, every, of_pass, strict=True))


def tangent_kernel(layers: Sequential, one: list[Pair], other: list[Pair]) -> Array:
    """Returns the tangent kernel (P, P') between two passes: the sum over all pairs of uses of the same weights.

    Args:
        layers: the layers of the network.
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
    """Returns features and gradients at every use of weights, so scaled that their products are averages."""
    pairs = []
    for place, layer, trace in learned_uses(layers, passed):
        F, G = getattr(trace, "phi", None), trace.G if isinstance(layer, Readout) else trace.g
        if place > 0 and F is not None:
            F = F / jnp.sqrt(F.shape[-1])
        if not isinstance(layer, Readout) and G is not None:
            G = G / jnp.sqrt(G.shape[-1])
        pairs.append(Pair(F, G))
    return pairs
