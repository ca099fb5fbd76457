"""What a layer is: how it acts on particles, its lazy limit, and its finite-width twin.

A layer object holds only settings. On particles its state is a pytree of arrays, and it answers

    init(setup, below)            state at initialization, and the space it feeds
    forward(state, signal)        what goes up
    backward(state, chi, trace)   what goes down: chi is the pregradient that reached the layer
    update(state, trace, rate)    one step of gradient descent
    tangent(state, trace, other)  its part of the tangent kernel

Forward and backward return the state, because meeting a new direction extends it, and a trace of what passed.
Fields are arrays (P, *sites, S): samples, then the sites of an image if there are any, then particles. All
particles of a population see all sites; a layer that knows no sites acts on each of them.

In the lazy limit a layer maps kernels (`lazy_forward`, `lazy_backward`). The finite-width twin (`finite_init`,
`finite_apply`) is a plain function whose gradients come from automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.basis import Basis, empty_basis
from kernelfield.engine.infinite_matrix import Side, each_side, sides
from kernelfield.engine.points import PointSet, Population
from kernelfield.engine.series import Fields, leading, linear

State = Any
Sites = tuple[int, ...]
Tape = Callable[[str, Array], Array]


class Signal(NamedTuple):
    """What goes forward: the field itself, and its Gaussian part (from W(0) alone, without responses)."""

    value: Any
    gaussian: Any


class WeightTrace(NamedTuple):
    """What passed a weight layer l: fields (P, *sites, S) and their coordinates (P, *sites, k) in its bases.

    Without sites, feature and gradient kernels are Phi^l = F F^T and G^{l+1} = G G^T; with them, Phi is the mean
    over sites and G the sum.
    """

    phi: Any = None
    F: Any = None
    g: Any = None
    G: Any = None


class FieldTrace(NamedTuple):
    """At an activation: preactivation h, phi(h), pregradient z and gradient g = phi'(h) z, (P, *sites, S) each."""

    h: Any
    phi: Any
    z: Any = None
    g: Any = None


class Space(NamedTuple):
    """Where fields live: their population (None for data), their sites, for data the number of channels.

    `width` is that of the population, relative to the last one's.
    """

    population: Any  # Population | None, for data
    sites: Sites = ()
    channels: int = 0
    width: float = 1.0


@dataclass
class Setup:
    """How a network is laid out on particles.

    Attributes:
        gamma0: feature-learning strength, a number or the formal `Variable`.
        points: makes Gaussian coordinates.
        particles: S.
        seed: of the coordinates.
        capacities: room for directions in each basis, in the order in which the layers ask for bases.
        feature_tol, gradient_tol: variance that may stay outside a basis, relative to the mean square.
        coupling: 1, or 0 for gradient independence.
        dtype: of fields on particles.
        outputs: of the network.
        momentum: whether what is learned has a velocity.
        features, gradients: whether anybody asks for their kernels, not the matrices alone.
        populations: what the layers asked for; coordinates are dealt once all have asked.
    """

    gamma0: Any
    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    capacities: Iterator[int]
    feature_tol: float
    gradient_tol: float
    coupling: float
    dtype: Any
    outputs: int = 1
    momentum: bool = False
    features: bool = True
    gradients: bool = True
    populations: list[Population] = field(default_factory=list)

    def population(self) -> Population:
        """A new population of particles with its own point set."""
        seed = np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, len(self.populations)))
        self.populations.append(Population(self.points, self.particles, seed))
        return self.populations[-1]

    def feature_basis(self, sent: bool) -> Basis:
        """An empty basis of features, which are sent into a matrix, or are there for their kernel alone."""
        return self._basis(self.feature_tol, sent or self.features)

    def gradient_basis(self, sent: bool) -> Basis:
        """An empty basis of gradients."""
        return self._basis(self.gradient_tol, sent or self.gradients)

    def _basis(self, tol: float, needed: bool) -> Basis:
        room = next(self.capacities)
        return empty_basis(room if needed else 0, self.particles, tol, self.dtype)

    def side(
        self,
        basis: Basis,
        population: Population,
        images: int | Basis,
        matrices: int = 1,
        grows: bool = False,
        scale: float = 1.0,
        response: float = 1.0,
        gain: float = 1.0,
    ) -> Side:
        """One side of n matrices: `images` of a number of directions, or of those of the other side's basis.

        A number may grow later too.

        Z holds a `Lane` until `dealt` puts its coordinates there, and in W what they are at initialization.
        """
        rows = images.q.shape[0] if isinstance(images, Basis) else images
        lane: Any = population.itself.lane(matrices, rows, grows or isinstance(images, Basis))
        factors: Any = (np.asarray(each, self.dtype) for each in (scale, self.coupling * response, gain))
        return Side(basis, lane, None, *factors)

    def dealt(self, state: State, present: State = None) -> State:
        """`state` with the coordinates of every lane in its place, as NumPy arrays.

        Those that a smaller state has are left out, zeros, if it is `present`; W(0) of the others has decayed as much.
        """
        lanes: list[Any] = [side.Z for side in sides(state)]
        known = dict(zip(lanes, (small.Z.shape[1] for small in sides(present)), strict=False))
        scales = {lane: np.asarray(side.scale) for lane, side in zip(lanes, sides(present or state), strict=True)}
        coordinates = {lane: rows for each in self.populations for lane, rows in each.coordinates(known).items()}

        def filled(side: Side) -> Side:
            lane: Any = side.Z
            Z = coordinates[lane].astype(self.dtype, copy=False)
            W = scales[lane] * Z
            return side._replace(Z=Z, W=W, velocity=np.zeros_like(Z) if self.momentum else None)

        return each_side(filled, state)


class Layer(Protocol):
    """The contract of every layer; see the module's docstring."""

    @property
    def parts(self) -> tuple[Layer, ...]:
        """Layers that this one is made of, in the order in which they act; none for most."""
        ...

    def init(self, setup: Setup, below: Space) -> tuple[State, Space]:
        """The state at initialization and the space that the layer feeds."""
        ...

    def forward(self, state: State, signal: Any) -> tuple[State, Any, Any]:
        """The state, what goes up and a trace."""
        ...

    def backward(self, state: State, chi: Any, trace: Any) -> tuple[State, Any, Any]:
        """The state, what goes down and the completed trace."""
        ...

    def update(self, state: State, trace: Any, rate: Fields) -> State:
        """The state after one step; the gradients of sample mu move the weights at rate_mu, rate (P,)."""
        ...

    def tangent(self, state: State, trace: Any, other: Any) -> Fields:
        """Products of the gradients of f with respect to the layer's weights, sample by sample (P, P)."""
        ...

    def lazy_forward(self, kernel: np.ndarray) -> tuple[np.ndarray, Any]:
        """The kernel of what goes up, given that of what comes in, (P, *sites, P, *sites) both, and a trace."""
        ...

    def lazy_backward(self, kernel: np.ndarray, trace: Any) -> tuple[np.ndarray, Any, Any]:
        """The kernel of what goes down, the layer's part of the tangent kernel (P, P), and the completed trace."""
        ...

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Any, tuple[int, ...]]:
        """Parameters at finite width for inputs of shape (*sites, channels), and the shape of the outputs."""
        ...

    def finite_apply(self, params: Any, x: Array, tape: Tape) -> Array:
        """The layer at finite width on x (P, *sites, channels); `tape(kind, x)` listens to what passes.

        Kinds are "in" and "out" of weights, and "h" and "phi" before and after an activation.
        """
        ...


class Simple:
    """A layer that is not made of others."""

    parts: tuple[Layer, ...] = ()


class Stateless(Simple):
    """A layer without weights."""

    def update(self, state: None, trace: Any, rate: Fields) -> None:
        """Nothing to learn."""

    def tangent(self, state: None, trace: Any, other: Any) -> float:
        """No weights."""
        return 0.0

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """No parameters."""
        return None, shape


def uses(layer: Layer) -> list[Layer]:
    """The simple layers that a layer is made of, in the order in which they act."""
    return [use for part in layer.parts for use in uses(part)] if layer.parts else [layer]


def traces(tree: Any, kind: type) -> list:
    """The traces of one kind in a tree of traces, in the order in which layers act."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def sites_of(x: Fields) -> Sites:
    """Sites of a field (P, *sites, S)."""
    return leading(x).shape[1:-1]


def flat(x: Fields) -> Fields:
    """A field (P, *sites, n) as rows (P A, n)."""
    return linear(lambda values: values.reshape(-1, values.shape[-1]), x)


def in_rows(rate: Fields, rows: int) -> Fields:
    """What belongs to samples (P,) as a column for rows (P A, 1)."""
    return linear(lambda values: jnp.repeat(values, rows // len(values))[:, None], rate)


def products(trace: tuple[Fields, Fields], other: tuple[Fields, Fields], samples: int) -> Fields:
    """sum over sites a, b of (F_a . F'_b) (G_a . G'_b), sample by sample (P, P); rows are (sample, site)."""
    (F, G), (F2, G2) = trace, other
    both = (F @ F2.T) * (G @ G2.T)
    return linear(lambda values: values.reshape(samples, -1, samples, values.shape[-1] // samples).sum((1, 3)), both)
