"""Small training sets by name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.problem import Problem

CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")  # as the archives unpack
CIFAR_PIXELS = 3 * 32 * 32


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

    chosen = _two_classes(classes, "digits")
    table: Any = load_digits()
    rows = [np.flatnonzero(table.target == digit) for digit in chosen]
    _check_even(points, 2 * min(len(each) for each in rows))
    if seed is not None:
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(each) for each in rows]
    pixels = table.data[np.concatenate([each[: points // 2] for each in rows])] / 16
    return Problem(standardized(pixels), np.repeat([1.0, -1.0], points // 2))


def cifar(folder: str | os.PathLike[str], classes: Sequence[int] = (0, 1), points: int = 20) -> Problem:
    """Two classes of CIFAR-10, from its own files on disk; nothing is downloaded.

    Pixels / 255, minus their mean and divided by their standard deviation (two numbers, over all chosen images
    and pixels). Images are ordered by class: the first ones of each in the training batches.

    Args:
        folder: with the training batches, Python's (data_batch_1, ...) or binary ones (data_batch_1.bin, ...), or
            with the folder in which the archive keeps them.
        classes: two different ones of 0..9 (0 airplane, 1 automobile); targets are +1 for the first, -1 for the second.
        points: number of images P, even.

    Returns:
        Problem with X (points, 3072) and y (points,).

    Raises:
        ValueError: for other classes or numbers of points; a folder, batch or image that is missing; a damaged batch.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html describes both formats.
    """
    chosen = _two_classes(classes, "labels")
    _check_even(points, 10_000)
    place, suffix = _cifar_batches(Path(folder))
    found: dict[int, list[np.ndarray]] = {label: [] for label in chosen}
    for name in CIFAR_BATCHES:
        path = place / f"{name}{suffix}"
        if not path.is_file():
            raise ValueError(f"{path} is missing, and the batches before it do not hold {points} images of the classes")
        pixels, labels = _binary_batch(path) if suffix else _python_batch(path)
        for label, images in found.items():
            images.extend(pixels[labels == label][: points // 2 - len(images)])
        if all(len(images) == points // 2 for images in found.values()):
            rows = np.stack([image for images in found.values() for image in images])
            return Problem(standardized(rows / 255), np.repeat([1.0, -1.0], points // 2))
    raise ValueError(f"the five batches in {place} do not hold {points // 2} images of each of the classes {chosen}")


def _cifar_batches(folder: Path) -> tuple[Path, str]:
    """The folder that holds the batches, and the ending of their names."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    for place in (folder, *(folder / name for name in CIFAR_FOLDERS)):
        for suffix in ("", ".bin"):
            if (place / f"{CIFAR_BATCHES[0]}{suffix}").is_file():
                return place, suffix
    raise ValueError(f"{folder} holds no CIFAR-10: neither {CIFAR_BATCHES[0]} nor {CIFAR_BATCHES[0]}.bin is there")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what CIFAR-10's batches are made of, NumPy arrays of numbers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("_core", "core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return _latin1
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,) of one batch, a pickled dictionary."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = entries["data"], np.asarray(entries["labels"], dtype=np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path} is not a CIFAR-10 batch in Python's format: {type(error).__name__}: {error}"
        ) from None
    return _checked_batch(path, pixels, labels)


def _binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,) of one batch, records of one label and all pixels."""
    numbers = np.fromfile(path, dtype=np.uint8)
    if not len(numbers) or len(numbers) % (1 + CIFAR_PIXELS):
        raise ValueError(f"{path} must be a multiple of {1 + CIFAR_PIXELS} bytes long, got {len(numbers)}")
    records = numbers.reshape(-1, 1 + CIFAR_PIXELS)
    return _checked_batch(path, records[:, 1:], records[:, 0].astype(np.int64))


def _checked_batch(path: Path, pixels: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape, dtype = getattr(pixels, "shape", None), getattr(pixels, "dtype", None)
    if dtype != np.uint8 or shape != (*labels.shape, CIFAR_PIXELS):
        raise ValueError(
            f"{path} must hold a row of {CIFAR_PIXELS} bytes for each of {labels.size} labels, got {shape}, {dtype}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"labels in {path} must be 0..9, got {labels.min()} to {labels.max()}")
    return pixels, labels


def _two_classes(classes: Sequence[int], what: str) -> list[int]:
    chosen = list(classes)
    if len(set(chosen)) != 2 or len(chosen) != 2 or not set(chosen) <= set(range(10)):
        raise ValueError(f"classes must be two different {what} of 0..9, got {chosen}")
    return chosen


def _check_even(points: int, most: int) -> None:
    if points % 2 or not 2 <= points <= most:
        raise ValueError(f"points must be an even number in 2..{most}, got {points}")


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
