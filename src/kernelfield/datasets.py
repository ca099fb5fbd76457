"""Small training sets by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelfield.problem import Problem


def digits(classes: Sequence[int] = (0, 1), points: int = 20, seed: int | None = None) -> Problem:
    """Two classes of scikit-learn's 8 x 8 handwritten digits.

    Pixels / 16, minus their mean and divided by their standard deviation (two numbers, over all chosen images
    and pixels). Images are ordered by class, half of each.

    Args:
        classes: two different digits; targets are +1 for the first and -1 for the second.
        points: number of images P, even.
        seed: of the choice of images; the first ones of each class if None.

    Returns:
        Problem with X (points, 64) and y (points,).

    Raises:
        ValueError: for other classes, or a number of points that cannot be had.

    Example:
        >>> from kernelfield.datasets import digits
        >>> problem = digits(classes=(3, 8), points=4)
        >>> problem.X.shape, problem.y.tolist()
        ((4, 64), [1.0, 1.0, -1.0, -1.0])
    """
    from sklearn.datasets import load_digits  # lazy: takes a second to import

    chosen = list(classes)
    if len(set(chosen)) != 2 or len(chosen) != 2 or not set(chosen) <= set(range(10)):
        raise ValueError(f"classes must be two different digits of 0..9, got {chosen}")
    table: Any = load_digits()
    rows = [np.flatnonzero(table.target == digit) for digit in chosen]
    most = 2 * min(len(each) for each in rows)
    if points % 2 or not 2 <= points <= most:
        raise ValueError(f"points must be an even number in 2..{most}, got {points}")
    if seed is not None:
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(each) for each in rows]
    pixels = table.data[np.concatenate([each[: points // 2] for each in rows])] / 16
    return Problem(standardized(pixels), np.repeat([1.0, -1.0], points // 2))


def gaussian(points: int, dimensions: int, seed: int = 0) -> Problem:
    """Standard normal inputs with random signs as targets.

    Args:
        points: P >= 1.
        dimensions: D >= 1.
        seed: of inputs and targets.

    Returns:
        Problem with X (points, dimensions) and y (points,), +1 or -1.

    Raises:
        ValueError: for fewer than one point or dimension.

    Example:
        >>> from kernelfield.datasets import gaussian
        >>> gaussian(points=5, dimensions=3).X.shape
        (5, 3)
    """
    for name, value in (("points", points), ("dimensions", dimensions)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    rng = np.random.default_rng(seed)
    return Problem(rng.standard_normal((points, dimensions)), rng.choice([-1.0, 1.0], points))


def standardized(X: np.ndarray) -> np.ndarray:
    """X minus its mean over all entries, divided by its standard deviation over all entries.

    Args:
        X: (P, D).

    Returns:
        (P, D).

    Raises:
        ValueError: if all entries are equal.
    """
    X = np.asarray(X, dtype=np.float64)
    scale = X.std()
    if scale == 0:
        raise ValueError("inputs that are all equal cannot be standardized")
    return (X - X.mean()) / scale
