"""A quantity measured on independent replicates, and its error bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True, eq=False)
class Estimate:
    """A quantity measured on independent replicates.

    Args:
        replicates: (R, ...), one value for each replicate (an independent scramble, or a network's seed).
        exact: the value is exact, so that its standard error is zero.
    """

    replicates: np.ndarray
    exact: bool = False

    @property
    def mean(self) -> np.ndarray:
        """The mean over replicates."""
        return self.replicates.mean(axis=0)

    @property
    def se(self) -> np.ndarray:
        """The standard error of the mean: zero where the value is exact, NaN for a single replicate."""
        count = len(self.replicates)
        if self.exact:
            return np.zeros_like(self.mean)
        if count < 2:
            return np.full_like(self.mean, np.nan)
        return self.replicates.std(axis=0, ddof=1) / np.sqrt(count)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Returns the confidence interval (low, high) from Student's t with R - 1 degrees of freedom."""
        half = self.se
        if not self.exact and len(self.replicates) > 1:
            half = half * stdtrit(len(self.replicates) - 1, (1 + level) / 2)
        return self.mean - half, self.mean + half
