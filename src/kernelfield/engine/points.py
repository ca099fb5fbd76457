"""Gaussian coordinates of a population of particles.

A population of S particles stands for the neurons of one hidden layer. Each weight matrix that touches it
sees its own independent N(0, 1) coordinates, a `Lane`; the lanes of a population share one point set in
S particles, dealt out in turn, so that the first (most important) directions of every matrix get the
leading, best dimensions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

SOBOL = 512  # coordinates of the Sobol sequence, before padding
CACHED = 256  # points at a time, which stay in the processor's cache
GROUP = 64  # coordinates of the padding that share a random generator
FURTHER = 2**20  # the coordinate from which on those of inputs outside the span of the data are
STRATA = 2**16  # of the normal distribution: those of more particles are four times as many


class PointSet(Protocol):
    """Gaussian coordinates of a number of particles."""

    def __call__(self, dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
        """Coordinates `first` to `dimensions`, (dimensions - first, particles)."""
        ...


def padded_sobol(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
    """Standard normal coordinates (dimensions, particles), <z_i z_j> ~ delta_ij: scrambled Sobol points, then padding.

    Errors are those of Sobol points throughout: coordinates that come late carry little, and for them Latin hypercube
    sampling, one stratified sample in an order of its own for each, is as good at a fraction of the time.

    Args:
        dimensions, particles: how many.
        seed: of all of them.
        first: leave out those before.
    """
    z = np.empty((dimensions - first, particles), np.float32)
    if first < (few := min(dimensions, SOBOL)):
        # A longer draw has an independent scramble, so that its new dimensions may join those of a shorter one.
        sequence = qmc.Sobol(few, scramble=True, rng=np.random.default_rng(_child(seed, few)))
        fine = _strata(max(STRATA, 4 * particles))
        for start in range(0, particles, CACHED):
            uniform = sequence.random(min(CACHED, particles - start))[:, first:]
            z[: few - first, start : start + CACHED] = fine[(len(fine) * uniform).astype(int)].T
    strata = _strata(particles)
    for start in range(SOBOL, dimensions, GROUP):
        if start + GROUP > first:
            group = np.tile(strata, (GROUP, 1))
            np.random.default_rng(_child(seed, SOBOL + start)).permuted(group, axis=1, out=group)
            wanted = slice(max(start, first), min(start + GROUP, dimensions))
            z[wanted.start - first : wanted.stop - first] = group[wanted.start - start : wanted.stop - start]
    return z


@functools.lru_cache(maxsize=8)
def _strata(count: int) -> np.ndarray:
    """The middle of so many equally likely parts of the normal distribution, of unit variance: (count,)."""
    middle = ndtri((np.arange(count) + 0.5) / count)
    return (middle / np.sqrt(np.mean(middle**2))).astype(np.float32)


def _child(seed: np.random.SeedSequence, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number))


def cubature(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
    """Signed unit vectors: <z_i z_j> = delta_ij exactly, hence exact averages of quadratic functions.

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
    """The Gaussian coordinates that n matrices see on one population: `rows` each, in order of need."""

    matrices: int
    rows: int
    grows: bool


@dataclass(eq=False)
class Population:
    """S particles whose coordinates are dealt to lanes in turn: one to each matrix that wants more."""

    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    lanes: list[Lane] = field(default_factory=list)
    joined: Population | None = None

    def lane(self, matrices: int, rows: int, grows: bool = False) -> Lane:
        """A new lane of `rows` coordinates for each matrix; one that grows can have more later."""
        self.lanes.append(Lane(matrices, rows, grows))
        return self.lanes[-1]

    @property
    def itself(self) -> Population:
        """The population that this one is part of, after all joining."""
        return self if self.joined is None else self.joined.itself

    def join(self, other: Population) -> None:
        """Make both populations one: the same particles, as where fields of both are added."""
        mine, theirs = self.itself, other.itself
        if mine is not theirs:
            mine.lanes, theirs.lanes, theirs.joined = mine.lanes + theirs.lanes, [], mine

    @property
    def dimensions(self) -> int:
        """Number of coordinates that the lanes have."""
        return sum(places.size for places in self._dimensions().values())

    def dimensions_with(self, rows: int) -> int:
        """The same, with so many more of all lanes that grow."""
        return self.dimensions + rows * sum(lane.matrices for lane in self.lanes if lane.grows)

    def coordinates(self) -> dict[Lane, np.ndarray]:
        """The coordinates of every lane, (matrices, rows, S) each."""
        table = self.points(self.dimensions, self.particles, self.seed)
        return {lane: table[places] for lane, places in self._dimensions().items()}

    def further(self, lane: Lane, rows: int) -> np.ndarray:
        """`rows` more coordinates of a lane that grows, (matrices, rows, S), the same however many others there are."""
        before = self.lanes[: self.lanes.index(lane)]
        start = self.dimensions if self.points is cubature else FURTHER
        start += rows * sum(other.matrices for other in before if other.grows)
        table = self.points(start + lane.matrices * rows, self.particles, self.seed, start)
        return table.reshape(rows, lane.matrices, -1).swapaxes(0, 1)

    def _dimensions(self) -> dict[Lane, np.ndarray]:
        """Dimensions of the point set that every lane has, (matrices, rows)."""
        places: dict[Lane, list[range]] = {lane: [] for lane in self.lanes}
        dimension = 0
        for row in range(max((lane.rows for lane in self.lanes), default=0)):
            for lane, taken in places.items():
                if row < lane.rows:
                    taken.append(range(dimension, dimension + lane.matrices))
                    dimension += lane.matrices
        return {lane: np.array(taken, int).reshape(-1, lane.matrices).T for lane, taken in places.items()}
