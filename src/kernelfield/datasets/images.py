"""What data sets of images share: classes, pooling, and the choice between rows of numbers and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernelfield.describe.problem import Problem


def image_problem(
    pictures: Sequence[np.ndarray],
    loss: str | Callable[..., Any],
    *,
    images: bool,
    pool: int,
    grey: bool = False,
) -> Problem:
    """Returns a Problem of the pictures of several classes, (n, channels, rows, columns) each; see `digits`."""
    planes = np.concatenate(pictures)
    planes = pool_pixels(planes.mean(axis=1, keepdims=True) if grey else planes, pool)
    X = standardized(planes.reshape(len(planes), -1))
    if images:
        X = np.ascontiguousarray(X.reshape(planes.shape).transpose(0, 2, 3, 1))
    labels = np.repeat(np.arange(len(pictures)), list(map(len, pictures)))
    two = len(pictures) == 2 and loss != "cross_entropy"
    return Problem(X, 1.0 - 2.0 * labels if two else np.eye(len(pictures))[labels], loss=loss)


def pool_pixels(planes: np.ndarray, pool: int) -> np.ndarray:
    """Returns the means of blocks of pool x pool pixels of planes (points, channels, rows, columns)."""
    points, channels, rows, columns = planes.shape
    if pool < 1 or rows % pool or columns % pool:
        raise ValueError(f"pool must divide the sides of the images, {rows} x {columns}, got {pool}")
    return planes.reshape(points, channels, rows // pool, pool, columns // pool, pool).mean(axis=(3, 5))


def standardized(X: ArrayLike) -> np.ndarray:
    """Returns X minus its mean over all entries, divided by its standard deviation over all entries.

    Args:
        X: inputs, of any shape.

    Returns:
        Inputs of the same shape.

    Raises:
        ValueError: all entries are equal.

    Example:
        >>> from kernelfield.datasets import standardized
        >>> standardized([[1.0, 3.0], [3.0, 1.0]]).tolist()
        [[-1.0, 1.0], [1.0, -1.0]]
    """
    X = np.asarray(X, dtype=np.float64)
    scale = X.std()
    if scale == 0:
        raise ValueError("inputs that are all equal cannot be standardized")
    return (X - X.mean()) / scale


def check_classes(classes: Sequence[int], noun: str = "labels") -> list[int]:
    """Returns the classes as a list, which must be two or more different ones of 0..9; an error calls them `noun`."""
    chosen = list(classes)
    if len(chosen) < 2 or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(10)):
        raise ValueError(f"classes must be two or more different {noun} of 0..9, got {chosen}")
    return chosen


def points_per_class(points: int, classes: int, most: int) -> int:
    """Returns points / classes, which must be a whole number in 1..most."""
    if points % classes or not classes <= points <= classes * most:
        need = "an even number" if classes == 2 else f"a multiple of {classes}"
        raise ValueError(f"points must be {need} in {classes}..{classes * most}, got {points}")
    return points // classes
