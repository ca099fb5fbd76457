"""MNIST, and every data set in the same files, from disk."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.datasets.images import check_classes, image_problem, points_per_class
from kernelfield.describe.problem import Problem

IMAGES, LABELS = ("train-images", 3), ("train-labels", 1)  # names and dimensions
PLACES = (".", "MNIST/raw")  # below the folder; the second is where torchvision puts them
BYTES = 0x0800  # magic number of an IDX file of unsigned bytes, without its dimensions


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

    X holds pixels / 255, minus their mean and divided by their standard deviation (two numbers, over all chosen images
    and pixels). Images are ordered by class: the first ones of each in the training set.

    Fashion-MNIST (and KMNIST) are in files of the same names and format: give their folder.

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
    image_file, label_file = _files(Path(folder))
    labels = _idx(label_file, LABELS[1])
    if len(labels) and labels.max() > 9:
        raise ValueError(f"labels in {label_file} must be 0..9, got {labels.min()} to {labels.max()}")
    rows = [np.flatnonzero(labels == label) for label in chosen]
    if missing := [label for label, numbers in zip(chosen, rows, strict=True) if not len(numbers)]:
        raise ValueError(f"{label_file} holds no label {missing[0]}")
    count = points_per_class(points, len(chosen), min(map(len, rows)))
    pictures = _idx(image_file, IMAGES[1])
    if len(pictures) != len(labels):
        raise ValueError(f"{image_file} holds {len(pictures)} images, but {label_file} {len(labels)} labels")
    return image_problem([pictures[numbers[:count], None] / 255 for numbers in rows], loss, images=images, pool=pool)


def _files(folder: Path) -> tuple[Path, Path]:
    """Returns the files of images and of labels, which must be in the same place."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    for place in (folder / name for name in PLACES):
        images, labels = (next(filter(Path.is_file, _names(place, *kind)), None) for kind in (IMAGES, LABELS))
        if images and labels:
            return images, labels
        if images:
            raise ValueError(f"{_names(place, *LABELS)[0]} is missing (or .gz), beside {images.name}")
    raise ValueError(f"{folder} holds no MNIST: neither {_names(Path(), *IMAGES)[0]} nor its .gz is there")


def _names(place: Path, stem: str, dimensions: int) -> list[Path]:
    """Returns all paths that a file of a data set may have."""
    names = [f"{stem}{dot}idx{dimensions}-ubyte" for dot in "-."]
    return [place / f"{name}{ending}" for ending in ("", ".gz") for name in names]


def _idx(path: Path, dimensions: int) -> np.ndarray:
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
    if len(content) < size or magic != BYTES + dimensions:
        need = f"the magic number {BYTES + dimensions} and {dimensions} dimension(s)"
        raise ValueError(f"{path} must begin with {need}, got {content[:size].hex(' ', 4) or 'nothing'}")
    if len(content) != size + math.prod(shape):
        shown = " x ".join(map(str, shape))
        raise ValueError(f"{path} must be {size + math.prod(shape)} bytes long for {shown}, got {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=size).reshape(shape)
