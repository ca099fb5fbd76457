"""How the network learns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from kernelfield.validation import Spec


class Batches(NamedTuple):
    """Points that every step learns from: their numbers (T, B), and their weights in the mean loss (T, B)."""

    rows: np.ndarray
    weights: np.ndarray


class GradientDescent(Spec):
    """Gradient descent in discrete time, full-batch or on mini-batches.

    Every weight moves with learning rate `learning_rate` * gamma0^2 * N on the mean loss (N the width), so
    that one step advances training time by `learning_rate` at any gamma0 and width.

    Args:
        learning_rate: eta, training time per step.
        steps: number of updates T. Solutions have T + 1 rows: row t is before update t, row T is final.
        batch: points drawn for every step, of those that have a weight; its loss is their weighted mean. Each point is
            drawn once in an epoch, every epoch in a new order; the last batch of an epoch has what is left of it. All
            points if None. Networks of finite width alone (`kernelfield.FiniteWidth`) train on mini-batches.
        seed: of the order in which points are drawn, the same for all networks; without effect on full batches.

    Source: theory of arXiv:2205.09653 in discrete time.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientDescent(learning_rate=0.2, steps=100).time
        20.0
    """

    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(ge=1)
    batch: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def time(self) -> float:
        """Total training time eta * T."""
        return self.learning_rate * self.steps

    def batches(self, weights: np.ndarray) -> Batches | None:
        """The points of every step, for a problem whose points have the given weights (P,).

        Args:
            weights: (P,), not negative.

        Returns:
            Batches, where a batch that is not full has weights of zero; None if every step takes all points.

        Raises:
            ValueError: `batch` is more than the points that have a weight.
        """
        if self.batch is None:
            return None
        trained, size = np.flatnonzero(weights), self.batch
        if size > len(trained):
            raise ValueError(f"batch must be at most {len(trained)}, the number of points that train, got {size}")
        rng, each = np.random.default_rng(self.seed), -(-len(trained) // size)
        epochs = -(-self.steps // each)
        rows = np.full((epochs, each * size), trained[0])
        share = np.zeros(rows.shape)
        for epoch in range(epochs):
            rows[epoch, : len(trained)] = rng.permutation(trained)
        share[:, : len(trained)] = weights[rows[:, : len(trained)]]
        rows, share = (values.reshape(-1, size)[: self.steps] for values in (rows, share))
        return Batches(rows, share / share.sum(axis=1, keepdims=True))


class GradientFlow(Spec):
    """Full-batch gradient descent in continuous time, the limit of small learning rates.

    Args:
        time: total training time.
        steps: rows recorded after the first, equally spaced in time.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientFlow(time=20.0, steps=100).learning_rate
        0.2
    """

    time: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(default=100, ge=1)

    @property
    def learning_rate(self) -> float:
        """Training time between two rows."""
        return self.time / self.steps


Training = GradientDescent | GradientFlow
