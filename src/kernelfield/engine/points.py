"""Gaussian coordinates of a population of particles.

A population of S particles stands for the neurons of one hidden layer. Each weight matrix that touches it sees its own
independent N(0, 1) coordinates, a `Lane`. The lanes of a population share one point set in S particles, dealt out in
turn, so that the first (most important) directions of every matrix get the leading, best dimensions.

A particle can carry C components, each of them a neuron, that a function mixes: the query, key and value of a head of
attention. To a matrix these are C S neurons, one component after the other; each has coordinates of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

SOBOL = 512  # coordinates of the Sobol sequence, before padding
CACHED = 256  # points at a time, which stay in the processor's cache
GROUP = 64  # coordinates of the padding that share a random generator
OUTSIDE = 2**20  # number of the first coordinate for inputs outside the span of the data
STRATA = 2**16  # of the normal distribution, at least; four for every particle
PointSet = Callable[..., np.ndarray]  # (dimensions, particles, seed, first = 0) -> (dimensions - first, particles)


def padded_sobol(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
    """Returns standard normal coordinates with <z_i z_j> ~ delta_ij: scrambled Sobol points, then padding.

    Errors are those of Sobol points throughout: coordinates that come late carry little, and for them Latin hypercube
    sampling, one stratified sample in an order of its own for each, is as good at a fraction of the time.
    """
    z = np.empty((dimensions - first, particles), np.float32)
    if first < (few := min(dimensions, SOBOL)):
        # A longer draw has an independent scramble, so that its new dimensions may join those of a shorter one.
        from scipy.stats import qmc  # lazy: it takes half a second to import

        sequence = qmc.Sobol(few, scramble=True, rng=np.random.default_rng(child_seed(seed, few)))
        fine = _stratify(max(STRATA, 4 * particles))
        for start in range(0, particles, CACHED):
            uniform = sequence.random(min(CACHED, particles - start))[:, first:]
            z[: few - first, start : start + CACHED] = fine[(len(fine) * uniform).astype(int)].T
    strata = _stratify(particles)

    def shuffle(rng: np.random.Generator) -> np.ndarray:
        group = np.tile(strata, (GROUP, 1))
        return rng.permuted(group, axis=1, out=group)

    for start in range(SOBOL, dimensions, GROUP):
        _put_group(z, first, start, lambda start=start: shuffle(np.random.default_rng(child_seed(seed, SOBOL + start))))
    return z


def independent(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
    """Returns independent standard normal numbers: the coordinates of the neurons of one network of finite width."""
    z = np.empty((dimensions - first, particles), np.float32)
    for start in range(0, dimensions, GROUP):
        rng = functools.partial(np.random.default_rng, child_seed(seed, start))
        _put_group(z, first, start, lambda rng=rng: rng().standard_normal((GROUP, particles), np.float32))
    return z


def _put_group(z: np.ndarray, first: int, start: int, draw: Callable[[], np.ndarray]) -> None:
    """Put those of the GROUP coordinates from `start` on into z, which holds coordinates from `first` on."""
    here = slice(max(start, first), min(start + GROUP, first + len(z)))
    if here.start < here.stop:
        z[here.start - first : here.stop - first] = draw()[here.start - start : here.stop - start]


@functools.lru_cache(maxsize=8)
def _stratify(count: int) -> np.ndarray:
    """Returns the middles (count,) of equally likely parts of the normal distribution, scaled to unit variance."""
    middle = ndtri((np.arange(count) + 0.5) / count)
    return (middle / np.sqrt(np.mean(middle**2))).astype(np.float32)


def child_seed(seed: np.random.SeedSequence, *numbers: int) -> np.random.SeedSequence:
    """Returns the seed at a place in the tree of seeds below another."""
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *numbers))


def cubature(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
    """Returns signed unit vectors: <z_i z_j> = delta_ij exactly, hence exact averages of quadratic functions.

    A coordinate that no matrix has asked for yet is zero on every particle in use, so that rounding errors
    cannot correlate the present with the future, as they do on a dense orthogonal set.
    """
    rng = np.random.default_rng(seed)
    places, signs = rng.permutation(particles), rng.choice([-1.0, 1.0], particles)  # the same for any number of them
    places, signs = places[first:dimensions], signs[first:dimensions]
    z = np.zeros((dimensions - first, particles))
    z[np.arange(dimensions - first), places] = signs
    return np.sqrt(particles) * z


@dataclass(eq=False)
class Lane:
    """The Gaussian coordinates that n matrices see on one population: `rows` each, in the order in which they join."""

    matrices: int
    rows: int
    grows: bool  # whether there can be more later
    room: int  # for how many coordinates and directions of each matrix there is room
    components: int = 1  # of every particle

    @property
    def draws(self) -> int:
        """The number of coordinates of a particle in one row of all matrices."""
        return self.matrices * self.components

    def arrange(self, table: np.ndarray) -> np.ndarray:
        """Returns coordinates (..., draws, S) as (..., matrices, components S)."""
        return table.reshape(*table.shape[:-2], self.matrices, -1)


@dataclass(eq=False)
class Population:
    """S particles whose coordinates are dealt to lanes in turn: one to each matrix that wants more."""

    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    lanes: list[Lane] = field(default_factory=list)
    whole: Population | None = None  # the population that this one has joined

    def add_lane(self, matrices: int, rows: int, grows: bool = False, room: int = 0, components: int = 1) -> Lane:
        """Returns a new lane of `rows` coordinates for each matrix, and with room for them at least."""
        self.root.lanes.append(lane := Lane(matrices, rows, grows, max(rows, room), components))
        return lane

    @property
    def root(self) -> Population:
        """The population of which this one is a part after all joins."""
        return self if self.whole is None else self.whole.root

    def join(self, other: Population) -> None:
        """Make both populations one: the same particles, as where fields of both are added."""
        mine, theirs = self.root, other.root
        if mine is not theirs:
            mine.lanes, theirs.lanes, theirs.whole = mine.lanes + theirs.lanes, [], mine

    def dimensions(self, further: int = 0) -> int:
        """Returns the number of coordinates of all lanes, once each lane that grows has `further` more."""
        return sum(lane.draws * (lane.rows + further * lane.grows) for lane in self.lanes)

    def coordinates(self) -> dict[Lane, np.ndarray]:
        """Returns the coordinates (matrices, rows, components S) of every lane."""
        table, used = self.points(self.dimensions(), self.particles, self.seed), 0
        shapes = {lane: (lane.matrices, lane.rows, lane.components * self.particles) for lane in self.lanes}
        dealt = {lane: np.empty(shape, table.dtype) for lane, shape in shapes.items()}
        for row in range(max((lane.rows for lane in self.lanes), default=0)):
            for lane in self.lanes:
                if row < lane.rows:
                    dealt[lane][:, row] = lane.arrange(table[used : used + lane.draws])
                    used += lane.draws
        return dealt

    def draw_more(self, lane: Lane, rows: int) -> np.ndarray:
        """Returns `rows` coordinates (matrices, rows, components S) of a lane that grows, after those that it has."""
        before = self.lanes[: self.lanes.index(lane)]
        start = self.dimensions() if self.points is cubature else OUTSIDE
        start += rows * sum(other.draws for other in before if other.grows)
        table = self.points(start + lane.draws * rows, self.particles, self.seed, start)
        return lane.arrange(table.reshape(rows, lane.draws, -1)).swapaxes(0, 1)
