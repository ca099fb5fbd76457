"""Gaussian coordinates of a population of particles.

A population of S particles stands for the neurons of one hidden layer. Each weight matrix that touches it
sees its own independent N(0, 1) coordinates, a `Lane`; the lanes of a population share one point set in
S particles, dealt out in turn, so that the first (most important) directions of every matrix get the
leading, best dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

PointSet = Callable[[int, int, np.random.SeedSequence], np.ndarray]


class OutOfParticles(RuntimeError):
    """More Gaussian coordinates are needed than the point set can supply."""


def sobol(dimensions: int, particles: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Scrambled Sobol points through the normal quantile: (dimensions, particles), <z_i z_j> ~ delta_ij."""
    if dimensions > qmc.Sobol.MAXDIM:
        raise OutOfParticles(f"{dimensions} Gaussian coordinates, the Sobol sequence has {qmc.Sobol.MAXDIM}")
    # A longer draw has an independent scramble, so that its new dimensions may join those of a shorter one.
    rng = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, dimensions)))
    uniform = qmc.Sobol(dimensions, scramble=True, rng=rng).random(particles)
    return ndtri(np.clip(uniform.T, 1e-12, 1 - 1e-12))


def cubature(dimensions: int, particles: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Signed unit vectors: <z_i z_j> = delta_ij exactly, hence exact averages of quadratic functions.

    A coordinate that no matrix has asked for yet is zero on every particle in use, so that rounding errors
    cannot correlate the present with the future, as they do on a dense orthogonal set.
    """
    if dimensions > particles:
        raise OutOfParticles(f"{dimensions} Gaussian coordinates on {particles} particles")
    rng = np.random.default_rng(seed)
    z = np.zeros((dimensions, particles))
    z[np.arange(dimensions), rng.permutation(particles)[:dimensions]] = rng.choice([-1.0, 1.0], dimensions)
    return np.sqrt(particles) * z


@dataclass(eq=False)
class Lane:
    """The Gaussian coordinates that one weight matrix sees on one population: `rows` of them, in order of need."""

    rows: int
    grows: bool


@dataclass(eq=False)
class Population:
    """S particles whose coordinates are dealt to lanes in turn: one to each lane that wants more."""

    points: PointSet
    particles: int
    seed: np.random.SeedSequence
    lanes: list[Lane] = field(default_factory=list)

    def lane(self, rows: int, grows: bool) -> Lane:
        """A new lane of `rows` coordinates, of which a lane that grows may want more later."""
        self.lanes.append(Lane(rows, grows))
        return self.lanes[-1]

    def coordinates(self) -> dict[Lane, np.ndarray]:
        """The coordinates of every lane, (rows, S) each.

        Row j of a lane has the same dimension of the point set however many rows the growing lanes have.
        """
        turns = max([lane.rows for lane in self.lanes], default=0)
        wanted = [
            (lane, row) for row in range(turns) for lane in self.lanes if row < (turns if lane.grows else lane.rows)
        ]
        dimensions: dict[Lane, list[int]] = {lane: [] for lane in self.lanes}
        for dimension, (lane, row) in enumerate(wanted):
            if row < lane.rows:
                dimensions[lane].append(dimension)
        needed = 1 + max(max(at, default=0) for at in dimensions.values())
        table = self.points(needed, self.particles, self.seed)
        return {lane: table[at] for lane, at in dimensions.items()}
