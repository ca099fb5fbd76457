"""When what is learned: the learning rate and the batch of every update."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Batches, Descent
from kernelfield.march.step import Pace

CHUNK = 64  # updates between two looks of the host, at most


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The updates of training.

    Args:
        rates: the learning rate of every update (T,).
        batches: the points of every update; None if each takes all points.
        per_row: the number of updates between two rows of a Solution.
    """

    rates: np.ndarray
    batches: Batches | None = None
    per_row: int = 1

    @classmethod
    def of(cls, training: Descent, problem: Problem) -> Schedule:
        """Returns the schedule of a training rule on a problem.

        Raises:
            ValueError: the rule does not fit the problem.
        """
        return cls(training.rates(problem), training.batches(problem), training.updates_per_step(problem))

    def paces(self, start: int, learns: bool = True) -> Pace:
        """Returns those of CHUNK updates from one on; updates beyond the last one do not learn."""
        eta = self.rates[start : start + CHUNK]
        left_over = (0, CHUNK - len(eta))
        learn = np.pad(np.full(len(eta), learns), left_over)
        first = learn & (self.batches is None) & (start + np.arange(CHUNK) == 0)
        return Pace(*map(jnp.asarray, (np.pad(eta, left_over), learn, first)))

    def batches_from(self, start: int) -> Batches:
        """Returns the batches of CHUNK updates from one on."""
        assert self.batches is not None
        several = (values[start : start + CHUNK] for values in self.batches)
        rows, weights = (np.pad(values, [(0, CHUNK - len(values)), (0, 0)]) for values in several)
        return jax.tree.map(jnp.asarray, Batches(rows, weights))
