"""What is learned: inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield.validation import real_array


@dataclass(frozen=True, eq=False)
class Problem:
    """A training set for the mean squared error (1/P) sum_mu (f_mu - y_mu)^2 / 2.

    Inputs are used as given: neither centred nor scaled.

    Args:
        X: inputs (P, D), finite.
        y: targets (P,), finite.

    Raises:
        ValueError: naming the argument, what is required and what came.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(3), [1.0, -1.0, 1.0])
        >>> problem.points, problem.dimensions
        (3, 3)
    """

    X: np.ndarray
    y: np.ndarray

    def __init__(self, X: Any, y: Any) -> None:
        object.__setattr__(self, "X", real_array("X", X, dimensions=2))
        object.__setattr__(self, "y", real_array("y", y, dimensions=1))
        if len(self.X) != len(self.y):
            raise ValueError(f"X and y must have the same length, got {len(self.X)} and {len(self.y)}")

    @property
    def points(self) -> int:
        """Number of training points P."""
        return self.X.shape[0]

    @property
    def dimensions(self) -> int:
        """Input dimension D."""
        return self.X.shape[1]

    @property
    def input_kernel(self) -> np.ndarray:
        """K_x = X X^T / D, shape (P, P)."""
        return self.X @ self.X.T / self.dimensions

    @property
    def input_coordinates(self) -> np.ndarray:
        """F_x (P, k) with F_x F_x^T = K_x and k <= min(P, D): the data in its own principal axes."""
        left, singular, _ = np.linalg.svd(self.X / np.sqrt(self.dimensions), full_matrices=False)
        kept = max(1, np.count_nonzero(singular > 1e-12 * max(singular[0], 1e-300)))
        return left[:, :kept] * singular[:kept]
