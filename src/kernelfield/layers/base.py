"""What a layer is: how it acts on particles, and its finite-width twin.

A layer object holds only settings. On particles its state is a pytree of arrays, and it answers

    init(setup, below)            state at initialization, and the population it feeds
    forward(state, signal)        what goes up
    backward(state, chi, trace)   what goes down: chi is the pregradient that reached the layer
    update(state, trace, rate)    one step of gradient descent

Forward and backward return the state, because meeting a new direction extends it, and a trace of what passed.
The finite-width twin of a layer (`finite_init`, `finite_apply`) is a plain function whose gradients come from
automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.basis import Basis, empty_basis
from kernelfield.engine.infinite_matrix import Side
from kernelfield.engine.points import Lane, PointSet, Population

State = Any


class Signal(NamedTuple):
    """What goes forward: the field itself, and its Gaussian part (from W(0) alone, without responses)."""

    value: Array
    gaussian: Array


class WeightTrace(NamedTuple):
    """What passed a weight layer l: rows (rows, S) and their coordinates in the layer's bases.

    Feature and gradient kernels are Phi^l = F F^T and G^{l+1} = G G^T.
    """

    phi: Any = None
    F: Any = None
    g: Any = None
    G: Any = None


class FieldTrace(NamedTuple):
    """Preactivation h, pregradient z and gradient g = phi'(h) z at an activation, (rows, S) each."""

    h: Any
    z: Any = None
    g: Any = None


@dataclass
class Setup:
    """How a network is laid out on particles.

    Attributes:
        input_coordinates: F_x (P, k) with F_x F_x^T = K_x.
        gamma0: feature-learning strength, a number or the formal `Variable`.
        points: makes Gaussian coordinates.
        particles: S.
        seed: of the coordinates.
        capacities: room for directions in each basis, in the order in which the layers ask for bases.
        feature_tol, gradient_tol: variance that may stay outside a basis, relative to the mean square.
        coupling: 1, or 0 for gradient independence.
        dtype: of fields on particles.
        populations: what the layers asked for; coordinates are dealt once all have asked.
    """

    input_coordinates: np.ndarray
    gamma0: Any
    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    capacities: Iterator[int]
    feature_tol: float
    gradient_tol: float
    coupling: float
    dtype: Any
    populations: list[Population] = field(default_factory=list)

    def population(self) -> Population:
        """A new population of particles with its own point set."""
        seed = np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, len(self.populations)))
        self.populations.append(Population(self.points, self.particles, seed))
        return self.populations[-1]

    def basis(self, tol: float) -> Basis:
        """An empty basis."""
        return empty_basis(next(self.capacities), self.particles, tol, self.dtype)

    def side(self, basis: Basis, population: Population, images: int | Basis) -> Side:
        """One side of a matrix: `images` of a fixed number of directions, or of those of the other side's basis.

        Z and W hold a `Lane` until `dealt` puts its coordinates there: at initialization W = Z.
        """
        grows = isinstance(images, Basis)
        lane: Any = population.lane(images.q.shape[0] if grows else images, grows)
        return Side(basis, lane, lane)

    def dealt(self, state: State) -> State:
        """`state` with the coordinates of every lane in its place."""
        dealt = {
            lane: rows.astype(self.dtype)
            for population in self.populations
            for lane, rows in population.coordinates().items()
        }
        return jax.tree.map(
            lambda leaf: jnp.array(dealt[leaf]) if isinstance(leaf, Lane) else leaf,
            state,
            is_leaf=lambda leaf: isinstance(leaf, Lane),
        )


class Layer(Protocol):
    """The contract of every layer; see the module's docstring."""

    def init(self, setup: Setup, below: Any) -> tuple[State, Any]:
        """The state at initialization and the population that the layer feeds."""
        ...

    def forward(self, state: State, signal: Any) -> tuple[State, Any, Any]:
        """The state, what goes up and a trace."""
        ...

    def backward(self, state: State, chi: Array, trace: Any) -> tuple[State, Any, Any]:
        """The state, what goes down and the completed trace."""
        ...

    def update(self, state: State, trace: Any, rate: Array) -> State:
        """The state after one step; row mu of the gradients moves the weights at rate_mu, rate (rows, 1)."""
        ...

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[Any, int]:
        """Parameters of the layer at finite width, and the number of its outputs."""
        ...

    def finite_apply(self, params: Any, x: Array) -> Array:
        """The layer at finite width on x (rows, inputs)."""
        ...
