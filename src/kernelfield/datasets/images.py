"""What data sets of images share: classes, pooling, and the choice between rows of numbers and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernelfield.describe.problem import Problem


def of_classes(
    pictures: Sequence[np.ndarray],
    loss: str | Callable[..., Any] = "mse",
    *,
    images: bool = False,
    grey: bool = False,
    pool: int = 1,
) -> Problem:
    """A Problem of images of several classes, class by class.

    Args:
        pictures: of every class (n, channels, rows, columns).
        loss: as `kernelfield.Problem` takes it.
        images, grey, pool: as `inputs` takes them.

    Returns:
        Problem with X of `inputs`, and y (points,) of two classes, 1 for the first and -1 for the second, or rows of
        zeros and a one at the place of the class (points, classes): of more classes, and for the loss "cross_entropy".

    Raises:
        ValueError: from `inputs`, or the loss is not defined for such targets.
    """
    X = inputs(np.concatenate(pictures), images=images, grey=grey, pool=pool)
    labels = np.repeat(np.arange(len(pictures)), [len(each) for each in pictures])
    two = len(pictures) == 2 and loss != "cross_entropy"
    return Problem(X, 1.0 - 2.0 * labels if two else np.eye(len(pictures))[labels], loss=loss)


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
    """Different classes of 0..9, at least two, as a list.

    Args:
        classes: to check.
        what: they are called.

    Returns:
        The classes.

    Raises:
        ValueError: if they are not that.
    """
    chosen = list(classes)
    if len(chosen) < 2 or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(10)):
        raise ValueError(f"classes must be two or more different {what} of 0..9, got {chosen}")
    return chosen


def check_points(points: int, classes: int, most: int) -> int:
    """How many images of each class make so many in all.

    Args:
        points: to check.
        classes: how many.
        most: images that there are of each class.

    Returns:
        points / classes.

    Raises:
        ValueError: if `points` is not a multiple of the number of classes, too small or too large.
    """
    if points % classes or not classes <= points <= classes * most:
        need = "an even number" if classes == 2 else f"a multiple of {classes}"
        raise ValueError(f"points must be {need} in {classes}..{classes * most}, got {points}")
    return points // classes
