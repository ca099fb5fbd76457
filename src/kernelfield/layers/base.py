"""What a layer is: how it acts on particles, its lazy limit, and its finite-width twin.

A layer object holds only settings. On particles its state is a pytree of arrays, and it answers

    init(setup, below)                  state at initialization, and the space it feeds
    forward(state, x, mass)             what goes up
    backward(state, chi, trace, mass)   what goes down: chi is the pregradient that reached the layer
    update(state, trace, rate)          one step of gradient descent
    tangent(one, other)                 its part of the tangent kernel (layers with weights)

Forward and backward return the state, because meeting a new direction extends it, and a trace of what passed; `mass`
are the weights of the points in the choice of directions, None to leave the state as it is. Fields are arrays
(P, *sites, S): samples, then the sites of an image if there are any, then particles. All particles of a population see
all sites; a layer that knows no sites acts on each of them.

In the lazy limit a layer maps kernels (`lazy_forward`, `lazy_backward`). The finite-width twin (`finite_init`,
`finite_apply`) is a plain function whose gradients come from automatic differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.directions import no_directions
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, all_images, change_images
from kernelfield.engine.points import PointSet, Population
from kernelfield.engine.series import Fields, Series, leading, linear
from kernelfield.engine.tail import make_tail

State = Any
Sites = tuple[int, ...]
Tape = Callable[[str, Array], Array]


class WeightTrace(NamedTuple):
    """What passed weights: features phi that came in and gradients g of what went out, (P, *sites, S).

    F and G are their coordinates in the leading directions of the weights.
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


class Pair(NamedTuple):
    """Features and gradients at weights, (P, *sites, n) each, in any coordinates whose products are their averages."""

    F: Any
    G: Any


class Space(NamedTuple):
    """Where fields live: their population (None for data), their sites, for data the number of channels.

    `width` is that of the population, relative to the last one's; `outside` are channels that no training point has.
    """

    population: Any  # Population | None, for data
    sites: Sites = ()
    channels: int = 0
    width: float = 1.0
    outside: int = 0


@dataclass
class Setup:
    """How a network is laid out on particles.

    Attributes:
        gamma0: feature-learning strength, a number or the formal `Variable`.
        points: makes Gaussian coordinates.
        particles: S.
        seed: of the coordinates and the tails.
        rows: points that train together.
        capacity: the most leading directions of a field.
        block: particles of a block of the tails; None for no tails.
        tol: energy above which a direction is leading, in units of the mean square.
        coupled: False for gradient independence.
        dtype: of fields on particles.
        outputs: of the network.
        momentum: whether what is learned has a velocity.
        orders: of power series in gamma0; 1 for numbers.
        populations: what the layers asked for; coordinates are dealt once all have asked.
    """

    gamma0: Any
    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    rows: int
    capacity: int
    block: int | None
    tol: float
    coupled: bool
    dtype: Any
    outputs: int = 1
    momentum: bool = False
    orders: int = 1
    populations: list[Population] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether averages are exact, and fields known on all of their directions."""
        return self.block is None

    def population(self) -> Population:
        """A new population of particles with its own point set."""
        self.populations.append(Population(self.points, self.particles, self._seed(len(self.populations))))
        return self.populations[-1]

    def _seed(self, *number: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, *number))

    def images(
        self,
        population: Population,
        rows: int,
        fresh: int | None = None,
        matrices: int = 1,
        grows: bool = False,
        sigma: float = 1.0,
        gain: float = 1.0,
    ) -> Images:
        """Images of `rows` directions or coordinates, the first of which, all by default, are Gaussian.

        K holds the number of rows and a `Lane` until `dealt` puts its coordinates there.
        """
        lane: Any = population.itself.lane(matrices, rows if fresh is None else fresh, grows)
        numbers: Any = (np.asarray(number, self.dtype) for number in (sigma, 1.0, gain))
        return Images((lane, rows), None, *numbers)  # type: ignore[arg-type]

    def matrix(self, below: Space, above: Space, matrices: int, sigma: float, gain: float) -> InfiniteMatrix:
        """An infinite matrix between hidden layers."""
        ratio = above.width / below.width
        lower = upper = self.capacity

        def fresh(rows: int, space: Space) -> int:
            return min(rows, self.orders * self.rows * math.prod(space.sites)) if self.block else rows

        up = self.images(above.population, lower, fresh(lower, below), matrices, self.is_exact, sigma=sigma, gain=gain)
        root = math.sqrt(ratio)
        down = self.images(
            below.population, upper, fresh(upper, above), matrices, sigma=sigma * root, gain=gain * ratio
        )
        tail = None
        if self.block:
            seed = self._seed(len(self.populations), sum(len(each.lanes) for each in self.populations))
            tail = make_tail(matrices, self.particles, self.block, seed, self.dtype)
        features, gradients = (no_directions(rows, self.particles, self.dtype, self.orders) for rows in (lower, upper))
        return InfiniteMatrix(features, gradients, up, down, tail, self.tol, self.coupled, ratio)

    def dealt(self, state: State) -> State:
        """`state` with the coordinates of every lane in its place, as NumPy arrays."""
        coordinates = {lane: rows for each in self.populations for lane, rows in each.coordinates().items()}
        outside = {each.K[0]: self.populations[0].itself for each in all_images(state)[:1]}  # of data

        def filled(images: Images) -> Images:
            lane, rows = images.K  # type: ignore[misc]
            K = np.zeros((lane.matrices, rows, self.particles), self.dtype)
            K[:, : lane.rows] = coordinates[lane]
            if lane in outside and rows > lane.rows:
                K[:, lane.rows :] = outside[lane].further(lane, rows - lane.rows)
            M: Any = np.zeros(K.shape, self.dtype)
            if self.orders > 1:
                M = Series(jnp.zeros((self.orders, *K.shape), self.dtype))
            return images._replace(K=K, M=M, velocity=np.zeros_like(K) if self.momentum else None)

        return change_images(filled, state)


class Layer(Protocol):
    """The contract of every layer; see the module's docstring."""

    @property
    def parts(self) -> tuple[Layer, ...]:
        """Layers that this one is made of, in the order in which they act; none for most."""
        ...

    def init(self, setup: Setup, below: Space) -> tuple[State, Space]:
        """The state at initialization and the space that the layer feeds."""
        ...

    def forward(self, state: State, x: Fields, mass: Array | None) -> tuple[State, Fields, Any]:
        """The state, what goes up and a trace."""
        ...

    def backward(self, state: State, chi: Fields, trace: Any, mass: Array | None) -> tuple[State, Fields, Any]:
        """The state, what goes down and the completed trace."""
        ...

    def update(self, state: State, trace: Any, rate: Fields) -> State:
        """The state after one step; the gradients of sample mu move the weights at rate_mu, rate (P,)."""
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

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """No parameters."""
        return None, shape


def uses(layer: Layer) -> list[Layer]:
    """The simple layers that a layer is made of, in the order in which they act."""
    return [use for part in layer.parts for use in uses(part)] if layer.parts else [layer]


def traces(tree: Any, kind: type | tuple[type, ...]) -> list:
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


def products(F: Fields, G: Fields, F2: Fields, G2: Fields, samples: int) -> Fields:
    """sum over sites a, b of (F_a . F2_b) (G_a . G2_b), sample by sample (P, P'); rows are (sample, site)."""
    both = (F @ F2.T) * (G @ G2.T)
    return both.reshape(samples, -1, len(F2) * samples // len(F), len(F) // samples).sum((1, 3))
