"""Data sets that need no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.datasets.images import check_classes, image_problem, points_per_class
from kernelfield.describe.problem import Problem


def digits(
    classes: Sequence[int] = (0, 1),
    points: int = 20,
    seed: int | None = None,
    *,
    images: bool = False,
    pool: int = 1,
    loss: str | Callable[..., Any] = "mse",
) -> Problem:
    """Returns two or more classes of scikit-learn's 8 x 8 handwritten digits.

    X holds pixels / 16, minus their mean and divided by their standard deviation (two numbers, over all chosen images
    and pixels). Images are ordered by class, equally many of each.

    Args:
        classes: different digits. Targets of two are +1 for the first and -1 for the second. Targets of more, and for
            the loss "cross_entropy", are rows with a one at the place of the class and zeros.
        points: number of images P, a multiple of the number of classes.
        seed: seed of the choice of images; the first ones of each class if None.
        images: whether rows and columns stay axes, with one channel.
        pool: 1, 2, 4 or 8: n x n pixels become one, their mean, before anything else.
        loss: the loss, as `kernelfield.Problem` takes it.

    Returns:
        Problem with X (points, (8 / pool)^2), or (points, 8 / pool, 8 / pool, 1) for images, and y (points,) or
        (points, classes).

    Raises:
        ValueError: for other classes, a number of points that cannot be had, or a pool that does not divide 8.

    Example:
        >>> from kernelfield.datasets import digits
        >>> problem = digits(classes=(3, 8), points=4)
        >>> problem.X.shape, problem.y.tolist()
        ((4, 64), [1.0, 1.0, -1.0, -1.0])
        >>> digits(points=4, images=True, pool=2).X.shape
        (4, 4, 4, 1)
        >>> digits(classes=range(10), points=40, loss="cross_entropy").y.shape
        (40, 10)
    """
    chosen = check_classes(classes, "digits")
    pictures, labels = load_digits()
    rows = [np.flatnonzero(labels == digit) for digit in chosen]
    count = points_per_class(points, len(chosen), min(map(len, rows)))
    if seed is not None:
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(numbers) for numbers in rows]
    return image_problem([pictures[numbers[:count], None] / 16 for numbers in rows], loss, images=images, pool=pool)


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images (n, 8, 8) of scikit-learn's digits, with pixels 0..16, and their labels."""
    package = find_spec("sklearn")  # its file is read without its code, which takes a second to import
    assert package is not None and package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


def gaussian(points: int, dimensions: int, seed: int = 0) -> Problem:
    """Returns standard normal inputs with random signs as targets.

    Args:
        points: P >= 1.
        dimensions: D >= 1.
        seed: seed of inputs and targets.

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
