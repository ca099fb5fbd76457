"""What a layer is: how it acts on particles, its lazy limit, and its finite-width twin.

A layer object holds only settings. On particles its state is a pytree of arrays. Fields are arrays (P, *sites, S):
samples, then the sites of an image if there are any, then particles. All particles of a population see all sites; a
layer that knows no sites acts on each of them. Particles that carry C components are C S neurons, one component after
the other: to all layers but `Particlewise` they are neurons like others.
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

from kernelfield.engine.directions import make_empty_basis
from kernelfield.engine.entries import Moments, learn_nothing
from kernelfield.engine.infinite_matrix import Feedback, Images, InfiniteMatrix, change_images, collect
from kernelfield.engine.plan import Plan
from kernelfield.engine.points import Lane, PointSet, Population, child_seed
from kernelfield.engine.series import Fields, Series
from kernelfield.engine.tail import make_tail
from kernelfield.engine.wiring import Sites

State = Any
# what chooses leading directions: weights (P,) of the points, or a plan; None leaves the state as it is
Mass = Array | Plan | None
Tape = Callable[[str, Array], Array]


class Signal(NamedTuple):
    """What a pass down starts from, which some learning rules send to every layer."""

    chi: Any  # (P, C): error signals at the readout, or units for gradients of every output
    activity: Any = None  # (P,): the factor of phi(h), which stands for the gradient at activations; None for gradients


class Fresh(NamedTuple):
    """Feedback scale (alignment K + sqrt(1 - alignment^2) K'), with the coordinates K' of a lane."""

    lane: Lane
    alignment: float
    scale: float


class WeightTrace(NamedTuple):
    """The fields at weights: features phi that came in and gradients g of the fields that went out, (P, *sites, S).

    F and G are their coordinates in the leading directions of the weights. A bias has g alone. In the lazy limit all
    are kernels: <phi phi>, <g g>, and F is that of the features which all places of the weights see.
    """

    phi: Any = None
    F: Any = None
    g: Any = None
    G: Any = None


class FieldTrace(NamedTuple):
    """The fields at an activation: preactivation h, phi(h), pregradient z, gradient g = phi'(h) z, (P, *sites, S).

    In the lazy limit these are their kernels.
    """

    h: Any
    phi: Any
    z: Any = None
    g: Any = None


class Space(NamedTuple):
    """Where fields live: their population (None for data), their sites, for data the number of channels.

    `width` is that of the population, relative to the last one's; `outside` are channels that no training point has;
    `components` are those of every particle; `fork` says of a branch where it began, and which others have ended.
    """

    population: Any  # Population | None, for data
    sites: Sites = ()
    channels: int = 0
    width: float = 1.0
    outside: int = 0
    components: int = 1
    fork: Any = None  # Fork | None

    @property
    def neurons(self) -> int:
        """The number of neurons that its particles are."""
        return self.components * self.population.root.particles


@dataclass
class Setup:
    """The layout of a network on particles: what layers need to make their states."""

    gamma0: Any  #: feature-learning strength, a number or the formal `Variable`
    points: PointSet  #: makes Gaussian coordinates
    particles: int  #: S, or the width N of a network of finite width
    seed: np.random.SeedSequence  #: of the coordinates and the tails
    rows: int  #: points that train together
    capacity: int  #: the most leading directions of a field
    block: int | None  #: particles in a block of the tails; None for no tails
    tol: float  #: energy above which a direction is leading, in units of the mean square
    feedback: Feedback  #: what sends gradients down
    dtype: Any  #: of fields on particles
    outputs: int = 1  #: of the network
    direct: bool = False  #: whether error signals reach every layer at once
    momentum: bool = False  #: whether the learned parts have a velocity
    noisy: bool = False  #: whether weights move at random
    by_entries: bool = False  #: whether weights learn entry by entry
    skeleton: tuple[int, int] | None = None  #: then, how many columns and rows are known, and the rank; None for all
    orders: int = 1  #: of power series in gamma0; 1 for numbers
    is_finite: bool = False  #: whether particles are all the neurons of a network, in layers as wide as they are
    populations: list[Population] = field(default_factory=list)  #: of the layers, in the order in which they are made

    @property
    def is_complete(self) -> bool:
        """Whether fields are known on all of their directions, and no tail is needed."""
        return self.block is None

    def add_population(self, width: float, components: int) -> Population:
        """Returns a new population with its own point set, for a layer of a width relative to the last one's."""
        particles = self.particles
        if self.is_finite:
            particles = round(exact := width * self.particles / components)
            if abs(exact - particles) > 1e-9 * exact:
                whole = "whole numbers of neurons, and of particles with components"
                raise ValueError(
                    f"width={self.particles} must give all layers {whole}: one of them would have {exact:g}"
                )
        self.populations.append(Population(self.points, particles, child_seed(self.seed, len(self.populations))))
        return self.populations[-1]

    def make_images(self, lane: Lane, sigma: float, gain: float = 1.0, inputs: int = 1) -> Images:
        """Returns images with the Gaussian coordinates of a lane; K is the lane until `deal` puts them in its place.

        As many numbers as there are `inputs` enter each sum, where weights learn entry by entry; those of an infinite
        matrix do not, and have none.
        """
        K: Any = lane
        decay = 1.0
        if self.noisy and sigma == 0:  # they become random
            sigma, decay = 1.0, 0.0
        numbers: Any = (np.asarray(number, self.dtype) for number in (sigma, decay, gain))
        moments: Any = None
        if self.by_entries and inputs:
            moments = Moments(None, None, np.asarray(math.sqrt(gain * inputs), self.dtype))  # type: ignore[arg-type]
        return Images(K, None, *numbers, moments=moments)

    def make_matrix(self, below: Space, above: Space, matrices: int, sigma: float, gain: float) -> InfiniteMatrix:
        """Returns an infinite matrix between hidden layers."""
        ratio, neurons = above.width / below.width, [space.neurons for space in (below, above)]
        room = [min(self.capacity, count) if self.is_finite else self.capacity for count in neurons]

        def fresh(space: Space, room: int) -> int:
            return min(room, self.orders * self.rows * math.prod(space.sites)) if self.block else room

        components = below.components, above.components
        lane = above.population.add_lane(matrices, fresh(below, room[0]), self.is_complete, room[0], components[1])
        up = self.make_images(lane, sigma, gain, inputs=0)
        lane = below.population.add_lane(matrices, fresh(above, room[1]), room=room[1], components=components[0])
        down = self.make_images(lane, sigma * math.sqrt(ratio), gain * ratio, inputs=0)
        tail = None
        if self.block:
            lanes = sum(len(population.lanes) for population in self.populations)
            seed = child_seed(self.seed, len(self.populations), lanes)
            tail = make_tail(matrices, self.particles, components, self.block, seed, self.dtype)
        bases = zip(room, neurons, strict=True)
        features, gradients = (
            make_empty_basis(most, count, self.dtype, self.orders, self.noisy) for most, count in bases
        )
        learned = None
        if self.by_entries:
            learned = learn_nothing(matrices, (neurons[0], neurons[1]), self.skeleton, gain, self.dtype)
        return InfiniteMatrix(features, gradients, up, down, tail, self.tol, self.feedback, ratio, learned)

    def make_feedback(self, below: Space, alignment: float = 0.0, scale: float = 1.0) -> Any:
        """Returns the weights of error signals that go down to a space: numbers for each of its sites and outputs."""
        lane = below.population.add_lane(self.outputs, math.prod(below.sites), components=below.components)
        return Fresh(lane, alignment, scale)

    def deal(self, state: State) -> State:
        """Returns the state with the coordinates of every lane in its place, as NumPy arrays."""
        coordinates = {lane: rows for population in self.populations for lane, rows in population.coordinates().items()}
        data = collect(state, Images)[0].K  # the lane of the data

        def fill(images: Images) -> Images:
            lane: Any = images.K
            rows = coordinates[lane]
            K = np.zeros((lane.matrices, lane.room, rows.shape[-1]), self.dtype)
            K[:, : lane.rows] = rows
            if lane is data and lane.room > lane.rows:  # inputs outside the span of the data
                K[:, lane.rows :] = self.populations[0].root.draw_more(lane, lane.room - lane.rows)
            M: Any = Series(jnp.zeros((self.orders, *K.shape), self.dtype)) if self.orders > 1 else np.zeros_like(K)
            feedback: Any = images.feedback
            if isinstance(feedback, Fresh):
                known, fresh = feedback.alignment, math.sqrt(1 - feedback.alignment**2)
                other = (feedback.scale * fresh) * coordinates[feedback.lane].astype(self.dtype)
                feedback = other + (feedback.scale * known) * K if known else other
            moves, moments = self.momentum or images.moments is not None, images.moments
            if moments is not None:
                moments = moments._replace(first=np.zeros_like(K), second=np.zeros_like(K))
            velocity = np.zeros_like(K) if moves else None
            return images._replace(K=K, M=M, velocity=velocity, moments=moments, feedback=feedback)

        return change_images(fill, state)


class Layer(Protocol):
    """The contract of every layer.

    On particles `forward` sends features up, `backward` sends gradients down, and `update` is one step of gradient
    descent. New leading directions extend the state. Layers with weights have also `tangent(one, other)`, their part of
    the tangent kernel between two Pairs. In the lazy limit a layer maps kernels (`lazy_forward`, `lazy_backward`), with
    a seed for those that have to be averaged over samples. The finite-width twin (`finite_init`, `finite_apply`) is a
    plain function, differentiated automatically.
    """

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers that this one is made of, in the order in which they act; none for most."""
        return ()

    @property
    def is_linear(self) -> bool:
        """Whether the fields that go up are linear in those below: False for a layer that does not say so.

        The theory of networks of linear layers is Gaussian, and solved exactly.
        """
        return False

    @property
    def keeps_gaussian(self) -> bool:
        """Whether fields that are Gaussian at initialization stay Gaussian on their way up."""
        return self.is_linear

    @property
    def is_sampled(self) -> bool:
        """Whether its lazy limit is an average over samples, which a seed chooses."""
        return False

    def space_above(self, below: Space) -> Space:
        """Returns the space of the fields that go up, but for the population of new weights."""
        return below

    def init(self, setup: Setup, below: Space) -> tuple[State, Space]:
        """Returns the state at initialization and the space that the layer feeds."""
        ...

    def forward(self, state: State, x: Fields, mass: Mass) -> tuple[State, Fields, Any]:
        """Returns the state, the fields that go up, and a trace."""
        ...

    def backward(self, state: State, chi: Fields, trace: Any, mass: Mass, signal: Signal) -> tuple[State, Fields, Any]:
        """Returns the state, the fields that go down, given the pregradient chi, and the completed trace."""
        ...

    def update(self, state: State, trace: Any, rate: Fields) -> State:
        """Returns the state after one step; the gradients of sample mu move the weights at rate_mu, rate (P,)."""
        ...

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, Any]:
        """Returns the kernel of the fields that go up, (P, *sites, P, *sites) like that of those below, and a trace."""
        ...

    def lazy_backward(self, kernel: np.ndarray, trace: Any, seed: int) -> tuple[np.ndarray, Any, Any]:
        """Returns the kernel of the fields that go down, a part of the tangent kernel (P, P), and the full trace."""
        ...

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[Any, tuple[int, ...]]:
        """Returns parameters at finite width for inputs of shape (*sites, channels), and the shape of the outputs."""
        ...

    def finite_apply(self, params: Any, x: Array, tape: Tape) -> Array:
        """Returns the output at finite width for x (P, *sites, channels); `tape(kind, x)` sees the arrays that pass.

        Kinds are "in" and "out" of weights, and "h" and "phi" before and after an activation.
        """
        ...

    def fan_in(self, params: Any) -> Any:
        """Returns the number n of every tensor at finite width, shaped as the parameters: W / sqrt(n) acts on fields.

        It is 1 for a layer that does not say so: biases, gains, and the readout.
        """
        return jax.tree.map(lambda _: 1, params)


class Stateless(Layer):
    """A layer without weights, which may change the sites of fields."""

    def sites_above(self, sites: Sites) -> Sites:
        """Returns the sites of the fields that go up."""
        return sites

    def space_above(self, below: Space) -> Space:
        """Returns the space on the sites above."""
        return below._replace(sites=self.sites_above(below.sites))

    def init(self, setup: Setup, below: Space) -> tuple[None, Space]:
        """Returns no state, and the same population in the space above."""
        return None, self.space_above(below)

    def update(self, state: None, trace: Any, rate: Fields) -> None:
        """Returns None: there is nothing to learn."""

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """Returns no parameters, and the shape above."""
        return None, (*self.sites_above(shape[:-1]), shape[-1])


def uses(layer: Layer) -> list[Layer]:
    """Returns the simple layers of which a layer is made, in the order in which they act, one for each use."""
    return [use for part in layer.parts for use in uses(part)] if layer.parts else [layer]
