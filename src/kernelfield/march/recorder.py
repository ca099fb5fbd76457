"""The recorder of kernels: it keeps the fields of recorded rows as coordinates in bases of its own.

Training follows few directions of its fields, but two-time kernels need the fields of all times. The recorder projects
fields on directions that it chooses by energy at a tight tolerance, and reports what they leave out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.directions import Directions, make_empty_basis, represent
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, collect
from kernelfield.engine.series import Fields, apply_linear, lowest_order
from kernelfield.layers import Readout, Sequential, Setup, Space, WeightTrace
from kernelfield.layers.base import Layer, uses
from kernelfield.layers.kernels import Pair
from kernelfield.layers.vectors import NeuronWeights
from kernelfield.layers.weights import Weights

BLOCK = 8  # directions that one search finds: fields of one row are near to those of the row before
LEARNS = Weights, NeuronWeights, Readout  # layers whose weights learn


class RecordedRow(NamedTuple):
    """The record of one step."""

    features: tuple[Fields, ...] = ()  # coordinates of the features of hidden layers 1..L, (P, *sites, k) each
    gradients: tuple[Fields, ...] = ()  # coordinates of the gradients of every output, (P C, *sites, k) each
    tangent: Array | None = None  # the tangent kernel (P C, P C), where the factors do not give it
    left_out: Array | None = None  # the largest part of a field's mean square that is not recorded
    # of learning rules, with what stands for gradients, g~ of every output:
    cosines: tuple[Array, ...] = ()  # <g g~> over both sizes, of hidden layers 1..L, (P C, P C) each
    effective: Array | None = None  # the effective tangent kernel (P C, P C): gradients on the left, g~ on the right
    # where directions come and go, kernels at equal times in place of coordinates:
    kernels: tuple[tuple[Array, ...], tuple[Array, ...]] = ((), ())  # of features (P, P), of gradients (P C, P C)


@dataclass(frozen=True)
class Recorder:
    """What is recorded, and how."""

    layers: Sequential
    outputs: int  # C
    features: bool  # whether feature kernels are recorded
    gradients: bool  # whether gradient kernels are recorded
    tangent: bool  # whether the tangent kernel is recorded too
    capacity: int  # the most directions of a basis
    tol: float  # part of the mean square that a direction must have
    equal_times: bool = False  # whether kernels between different times are not recorded

    def bases(self, setup: Setup, state: Any) -> dict[str, dict[int, Directions]]:
        """Returns empty bases by weights: for the features that enter them, and for the gradients at their outputs.

        The state of the layers tells how many neurons there are.
        """
        bases: dict[str, dict[int, Directions]] = {"features": {}, "gradients": {}}
        if self.equal_times:
            return bases
        weights = collect(state, (InfiniteMatrix, Images))

        def fresh(images: Images) -> Directions:
            return make_empty_basis(self.capacity, images.K.shape[-1], setup.dtype, setup.orders)

        for place, layer, _ in learned_uses(self.layers, None):
            W = weights[place]
            below, above = (W.down, W.up) if isinstance(W, InfiniteMatrix) else (W, W)
            if self.features and place > 0 and not isinstance(layer, NeuronWeights):
                bases["features"][place] = fresh(below)
            if self.gradients and not isinstance(layer, Readout) and (self.tangent or isinstance(layer, Weights)):
                bases["gradients"][place] = fresh(above)
        return bases

    def record(
        self, bases: dict[str, dict[int, Directions]], passed: Any, pseudo: Any = None
    ) -> tuple[Any, RecordedRow]:
        """Returns the bases after they have met the fields of a pass, and the record.

        `pseudo` is a pass with what stands for gradients, if training does not follow these.
        """
        if self.equal_times:
            return bases, self._record_kernels(passed)
        bases = {kind: dict(of_kind) for kind, of_kind in bases.items()}
        features, gradients, pairs, left = [], [], [], []

        def project(kind: str, place: int, x: Fields) -> Fields:
            bases[kind][place], F = represent(
                bases[kind][place], x, jnp.ones(len(lowest_order(x))), self.tol, block=BLOCK
            )
            left.append(bases[kind][place].residual)
            return F

        for place, layer, trace in learned_uses(self.layers, passed):
            F, G = trace.phi, trace.G if isinstance(layer, Readout) else trace.g
            if place in bases["features"]:
                F = project("features", place, apply_linear(lambda values: values[:: self.outputs], F))
                features.append(F)
            if place in bases["gradients"]:
                G = project("gradients", place, G)
                gradients += [G] if isinstance(layer, Weights) else []
            if self.outputs > 1 and place in bases["features"]:
                F = jnp.repeat(F, self.outputs, axis=0)
            pairs.append(Pair(F, G))
        tangent = tangent_kernel(self.layers, pairs, pairs) if self.tangent else None
        left_out = jnp.max(jnp.stack(left)) if left else None
        row = RecordedRow(tuple(features), tuple(gradients), tangent, left_out)
        if pseudo is not None:
            one, other = field_pairs(self.layers, passed), field_pairs(self.layers, pseudo)
            every = zip(learned_uses(self.layers, None), one, other, strict=True)
            cosines = [
                correlate(ours.G, theirs.G) for (_, layer, _), ours, theirs in every if isinstance(layer, Weights)
            ]
            row = row._replace(cosines=tuple(cosines), effective=tangent_kernel(self.layers, one, other))
        return bases, row

    def _record_kernels(self, passed: Any) -> RecordedRow:
        pairs = field_pairs(self.layers, passed)
        every = list(zip(learned_uses(self.layers, None), pairs, strict=True))
        features, gradients = [], []
        for (place, layer, _), pair in every:
            if self.features and place > 0 and not isinstance(layer, NeuronWeights):
                F = pair.F[:: self.outputs].reshape(len(pair.F) // self.outputs, -1)
                features.append(F @ F.T / np.prod(pair.F.shape[1:-1]))
            if self.gradients and isinstance(layer, Weights):
                G = pair.G.reshape(len(pair.G), -1)
                gradients.append(G @ G.T)
        tangent = tangent_kernel(self.layers, pairs, pairs) if self.gradients else None
        return RecordedRow(tangent=tangent, kernels=(tuple(features), tuple(gradients)))


def correlate(x: Array, y: Array) -> Array:
    """Returns the cosines (n, m) between fields x (n, ...) and y (m, ...), zero for fields that vanish."""
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    size = jnp.linalg.norm(x, axis=1)[:, None] * jnp.linalg.norm(y, axis=1)
    return jnp.where(size > 0, x @ y.T / jnp.where(size > 0, size, 1), 0)


def learned_uses(layers: Sequential, passed: Any) -> list[tuple[int, Layer, Any]]:
    """Returns every use of weights, bottom to top: the number of the weights, the layer, and the trace of the pass."""
    every = [layer for layer in uses(layers) if isinstance(layer, LEARNS)]
    numbers: dict[int, int] = {}
    places = [numbers.setdefault(id(layer), len(numbers)) for layer in every]
    of_pass: list[Any] = [None] * len(every)
    if passed is not None:
        of_pass = [*collect(passed.body, WeightTrace), passed.readout]
    return list(zip(places, every, of_pass, strict=True))


def tangent_kernel(layers: Sequential, one: list[Pair], other: list[Pair]) -> Array:
    """Returns the tangent kernel (P, P') between two passes: the sum over all pairs of uses of the same weights.

    A pass gives features and gradients at every use of weights, bottom to top.
    """
    total, every, widths, space = jnp.zeros(()), learned_uses(layers, None), [], Space(None, one[0].F.shape[1:-1])
    for layer in uses(layers):
        if isinstance(layer, LEARNS):
            widths.append(space.width if isinstance(layer, NeuronWeights) else 1.0)
        space = layer.space_above(space)
    for (place, layer, _), factor, ours in zip(every, widths, one, strict=True):
        for (again, _, _), theirs in zip(every, other, strict=True):
            if again == place:
                total = total + factor * layer.tangent(ours, theirs)  # type: ignore[attr-defined]
    return total


def field_pairs(layers: Sequential, passed: Any) -> list[Pair]:
    """Returns features and gradients at every use of weights, so scaled that their products are averages."""
    pairs = []
    for place, layer, trace in learned_uses(layers, passed):
        F, G = trace.phi, trace.G if isinstance(layer, Readout) else trace.g
        if place > 0 and F is not None:
            F = F / jnp.sqrt(F.shape[-1])
        if not isinstance(layer, Readout) and G is not None:
            G = G / jnp.sqrt(G.shape[-1])
        pairs.append(Pair(F, G))
    return pairs
