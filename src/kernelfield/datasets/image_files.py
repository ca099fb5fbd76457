"""Data sets of images from files on disk: CIFAR-10, MNIST, and those in files like MNIST's."""

from __future__ import annotations

import gzip
import math
import os
import pickle
import zlib
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
MNIST_IMAGES, MNIST_LABELS = ("train-images", 3), ("train-labels", 1)  # names and dimensions
MNIST_PLACES = (".", "MNIST/raw")  # below the folder; the second is where torchvision puts them
IDX_BYTES = 0x0800  # magic number of an IDX file of unsigned bytes, without its dimensions


# --- CIFAR-10, in both of its formats


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

    X holds pixels / 255, standardized as in `digits`. Images are ordered by class: the first ones of each in the
    training batches.

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


# --- MNIST


def mnist(
    folder: str | os.PathLike[str],
    classes: Sequence[int] = (0, 1),
    points: int = 20,
    *,
    images: bool = False,
    pool: int = 1,
    loss: str | Callable[..., Any] = "mse",
) -> Problem:
    """Returns two or more classes of MNIST, from its own files on disk; nothing is downloaded.

    X holds pixels / 255, standardized as in `digits`. Images are ordered by class: the first ones of each in the
    training set. Fashion-MNIST (and KMNIST) are in files of the same names and format: give their folder.

    Args:
        folder: folder of train-images-idx3-ubyte and train-labels-idx1-ubyte (or with a dot: train-images.idx3-ubyte),
            as they are or compressed (.gz); or of MNIST/raw, where torchvision puts them.
        classes: different ones of 0..9, with targets as for `digits`.
        points, images: as for `digits`.
        pool: a divisor of 28: n x n pixels become one, their mean, before anything else.
        loss: the loss, as `kernelfield.Problem` takes it.

    Returns:
        Problem with X (points, (28 / pool)^2), or (points, 28 / pool, 28 / pool, 1) for images, and y (points,) or
        (points, classes).

    Raises:
        ValueError: for other classes, numbers of points or pools; a folder or file that is missing, or damaged.

    Source: http://yann.lecun.com/exdb/mnist describes the format; https://github.com/zalandoresearch/fashion-mnist.

    Example:
        >>> from kernelfield.datasets import mnist
        >>> mnist("data/fashion", classes=(0, 6), images=True, pool=4).X.shape  # doctest: +SKIP
        (20, 7, 7, 1)
    """
    chosen = check_classes(classes)
    image_file, label_file = _mnist_files(Path(folder))
    labels = _read_idx(label_file, MNIST_LABELS[1])
    if len(labels) and labels.max() > 9:
        raise ValueError(f"labels in {label_file} must be 0..9, got {labels.min()} to {labels.max()}")
    rows = [np.flatnonzero(labels == label) for label in chosen]
    if missing := [label for label, numbers in zip(chosen, rows, strict=True) if not len(numbers)]:
        raise ValueError(f"{label_file} holds no label {missing[0]}")
    count = points_per_class(points, len(chosen), min(map(len, rows)))
    pictures = _read_idx(image_file, MNIST_IMAGES[1])
    if len(pictures) != len(labels):
        raise ValueError(f"{image_file} holds {len(pictures)} images, but {label_file} {len(labels)} labels")
    return image_problem([pictures[numbers[:count], None] / 255 for numbers in rows], loss, images=images, pool=pool)


def _mnist_files(folder: Path) -> tuple[Path, Path]:
    """Returns the files of images and of labels, which must be in the same place."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    for place in (folder / name for name in MNIST_PLACES):
        paths = (_mnist_paths(place, *kind) for kind in (MNIST_IMAGES, MNIST_LABELS))
        images, labels = (next(filter(Path.is_file, choices), None) for choices in paths)
        if images and labels:
            return images, labels
        if images:
            raise ValueError(f"{_mnist_paths(place, *MNIST_LABELS)[0]} is missing (or .gz), beside {images.name}")
    raise ValueError(f"{folder} holds no MNIST: neither {_mnist_paths(Path(), *MNIST_IMAGES)[0]} nor its .gz is there")


def _mnist_paths(place: Path, stem: str, dimensions: int) -> list[Path]:
    """Returns all paths that a file of a data set may have."""
    names = [f"{stem}{dot}idx{dimensions}-ubyte" for dot in "-."]
    return [place / f"{name}{ending}" for ending in ("", ".gz") for name in names]


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Returns the unsigned bytes of an IDX file, in an array of the shape that its header gives.

    The header is big-endian: a magic number, then each dimension, 4 bytes each.
    """
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):  # compressed, whatever its name is
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be decompressed: {error}") from None
    size = 4 * (1 + dimensions)
    magic, *shape = (int.from_bytes(content[place : place + 4], "big") for place in range(0, size, 4))
    if len(content) < size or magic != IDX_BYTES + dimensions:
        need = f"the magic number {IDX_BYTES + dimensions} and {dimensions} dimension(s)"
        raise ValueError(f"{path} must begin with {need}, got {content[:size].hex(' ', 4) or 'nothing'}")
    if len(content) != size + math.prod(shape):
        shown = " x ".join(map(str, shape))
        raise ValueError(f"{path} must be {size + math.prod(shape)} bytes long for {shown}, got {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=size).reshape(shape)
