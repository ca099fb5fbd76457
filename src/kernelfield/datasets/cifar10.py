"""CIFAR-10 from its own files, in both formats."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.datasets.images import check_classes, image_problem, points_per_class
from kernelfield.describe.problem import Problem

CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")  # as the archives unpack
CIFAR_SHAPE = (3, 32, 32)  # colours red, green, blue; rows; columns
CIFAR_PIXELS = math.prod(CIFAR_SHAPE)
CIFAR_EACH = 5_000  # images of each class in the training batches


def cifar(
    folder: str | os.PathLike[str],
    classes: Sequence[int] = (0, 1),
    points: int = 20,
    *,
    images: bool = False,
    grey: bool = False,
    pool: int = 1,
    loss: str | Callable[..., Any] = "mse",
) -> Problem:
    """Returns two or more classes of CIFAR-10, from its own files on disk; nothing is downloaded.

    X holds pixels / 255, minus their mean and divided by their standard deviation (two numbers, over all chosen images
    and pixels). Images are ordered by class: the first ones of each in the training batches.

    Args:
        folder: folder of the training batches, Python's (data_batch_1, ...) or binary ones (data_batch_1.bin, ...), or
            the folder above, in which the archive keeps them.
        classes: different ones of 0..9 (0 airplane, 1 automobile), with targets as for `digits`.
        points: number of images P, a multiple of the number of classes.
        images: whether rows, columns and colours stay axes; if not, all of red comes first, then green, then blue.
        grey: whether the three colours become one channel, their plain mean (weights 1/3, not those of luma).
        pool: a divisor of 32: n x n pixels of each colour become one, their mean, before they are standardized.
        loss: the loss, as `kernelfield.Problem` takes it.

    Returns:
        Problem with X (points, C (32 / pool)^2), or (points, 32 / pool, 32 / pool, C) for images, and y (points,) or
        (points, classes); C = 3 colours, or 1 if grey.

    Raises:
        ValueError: for other classes, numbers of points or pools; a folder, batch or image that is missing; a damaged
            batch.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html describes both formats.

    Example:
        >>> from kernelfield.datasets import cifar
        >>> cifar("data", classes=(3, 5), points=40, images=True, pool=2).X.shape  # doctest: +SKIP
        (40, 16, 16, 3)
    """
    chosen = check_classes(classes)
    count = points_per_class(points, len(chosen), CIFAR_EACH)
    place, suffix = _cifar_batches(Path(folder))
    chosen_rows: dict[int, list[np.ndarray]] = {label: [] for label in chosen}
    for name in CIFAR_BATCHES:
        path = place / f"{name}{suffix}"
        if not path.is_file():
            raise ValueError(f"{path} is missing, and the batches before it do not hold {points} images of the classes")
        pixels, labels = _binary_batch(path) if suffix else _python_batch(path)
        for label, rows in chosen_rows.items():
            rows.extend(pixels[labels == label][: count - len(rows)])
        if all(len(rows) == count for rows in chosen_rows.values()):
            pictures = [np.reshape(rows, (-1, *CIFAR_SHAPE)) / 255 for rows in chosen_rows.values()]
            return image_problem(pictures, loss, images=images, grey=grey, pool=pool)
    raise ValueError(f"the five batches in {place} do not hold {count} images of each of the classes {chosen}")


def _cifar_batches(folder: Path) -> tuple[Path, str]:
    """Returns the folder that holds the batches, and the ending of their names."""
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
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels (n, 3072) and labels (n,) of one batch, a pickled dictionary."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = entries["data"], np.asarray(entries["labels"], dtype=np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a CIFAR-10 batch in Python's format: {problem}") from None
    return _check_batch(path, pixels, labels)


def _binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels (n, 3072) and labels (n,) of one batch, whose records are one label and all pixels."""
    numbers = np.fromfile(path, dtype=np.uint8)
    if not len(numbers) or len(numbers) % (1 + CIFAR_PIXELS):
        raise ValueError(f"{path} must be a multiple of {1 + CIFAR_PIXELS} bytes long, got {len(numbers)}")
    records = numbers.reshape(-1, 1 + CIFAR_PIXELS)
    return _check_batch(path, records[:, 1:], records[:, 0].astype(np.int64))


def _check_batch(path: Path, pixels: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels and labels, if they are (n, 3072) bytes and n labels of 0..9."""
    shape, dtype = getattr(pixels, "shape", None), getattr(pixels, "dtype", None)
    if dtype != np.uint8 or shape != (*labels.shape, CIFAR_PIXELS):
        need = f"a row of {CIFAR_PIXELS} bytes for each of {labels.size} labels"
        raise ValueError(f"{path} must hold {need}, got {shape}, {dtype}")
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"labels in {path} must be 0..9, got {labels.min()} to {labels.max()}")
    return pixels, labels
