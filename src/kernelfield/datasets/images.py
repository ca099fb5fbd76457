"""What data sets of images share: two classes, pooling, and the choice between rows of numbers and images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernelfield.problem import Problem


def two_classes(
    first: np.ndarray, second: np.ndarray, *, images: bool = False, grey: bool = False, pool: int = 1
) -> Problem:
    """A Problem of two classes: images of the first one with target +1, then those of the second with -1.

    Args:
        first, second: images of each class, (points / 2, channels, rows, columns).
        images, grey, pool: as `inputs` takes them.

    Returns:
        Problem with X of `inputs` and y (points,).

    Raises:
        ValueError: from `inputs`.
    """
    X = inputs(np.concatenate([first, second]), images=images, grey=grey, pool=pool)
    return Problem(X, np.repeat([1.0, -1.0], [len(first), len(second)]))


def inputs(planes: np.ndarray, *, images: bool = False, grey: bool = False, pool: int = 1) -> np.ndarray:
    """Images as inputs of a network: made grey, then pooled, then standardized by two numbers.

    Args:
        planes: (points, channels, rows, columns).
        images: whether rows, columns and channels stay axes, channels last.
        grey: whether the channels become one, their plain mean.
        pool: side of the squares of pixels that become one, their mean (`pooled`).

    Returns:
        (points, rows, columns, channels) of what is left, or (points, channels * rows * columns) in this order.

    Raises:
        ValueError: if `pool` does not divide rows and columns, or all pixels are equal.
    """
    planes = planes.mean(axis=1, keepdims=True) if grey else planes
    planes = pooled(planes, pool)
    rows = standardized(planes.reshape(len(planes), -1))
    return np.ascontiguousarray(rows.reshape(planes.shape).transpose(0, 2, 3, 1)) if images else rows


def pooled(planes: np.ndarray, pool: int) -> np.ndarray:
    """Means of blocks of pool x pool pixels.

    Args:
        planes: (points, channels, rows, columns).
        pool: n >= 1, a divisor of rows and columns.

    Returns:
        (points, channels, rows / n, columns / n).

    Raises:
        ValueError: if `pool` does not divide rows and columns.
    """
    points, channels, rows, columns = planes.shape
    if pool < 1 or rows % pool or columns % pool:
        raise ValueError(f"pool must divide the sides of the images, {rows} x {columns}, got {pool}")
    if pool == 1:
        return planes
    return planes.reshape(points, channels, rows // pool, pool, columns // pool, pool).mean(axis=(3, 5))


def standardized(X: np.ndarray) -> np.ndarray:
    """X minus its mean over all entries, divided by its standard deviation over all entries.

    Args:
        X: inputs, of any shape.

    Returns:
        Of the same shape.

    Raises:
        ValueError: if all entries are equal.

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


def check_classes(classes: Sequence[int], what: str = "labels") -> list[int]:
    """Two different classes of 0..9, as a list.

    Args:
        classes: to check.
        what: they are called.

    Returns:
        The two classes.

    Raises:
        ValueError: if they are not that.
    """
    chosen = list(classes)
    if len(set(chosen)) != 2 or len(chosen) != 2 or not set(chosen) <= set(range(10)):
        raise ValueError(f"classes must be two different {what} of 0..9, got {chosen}")
    return chosen


def check_points(points: int, most: int) -> None:
    """Raise an error unless there can be that many images, half of them of each class.

    Args:
        points: to check.
        most: images that there are.

    Raises:
        ValueError: if `points` is odd, too small or too large.
    """
    if points % 2 or not 2 <= points <= most:
        raise ValueError(f"points must be an even number in 2..{most}, got {points}")
