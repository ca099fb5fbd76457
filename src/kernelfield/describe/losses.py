"""Loss functions: what gradient descent makes smaller, and the error signal that drives it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from kernelfield.common.settings import look_up
from kernelfield.engine.series import Fields

MOST_CLASSES = 100  # of labels that are not at least twice as many

Array = jax.Array | np.ndarray
Function = Callable[[Any, Any], Any]  # (f, y) -> loss


@dataclass(frozen=True)
class Loss:
    """The loss of one point, a function of its outputs f and targets y, (C,) both, or numbers.

    Attributes:
        name: the name of the loss.
        function: (f, y) -> a number; a JAX function that can be differentiated in f.
        numbers: whether the function takes numbers f and y, in place of (1,).
    """

    name: str
    function: Function
    numbers: bool = False

    def values(self, f: Array, y: Array) -> jax.Array:
        """Returns the loss (..., P) of every point of f and y, (..., P, C) or (..., P).

        Axes before the points belong to f alone.
        """
        return _map_points(self.of_point, f, y)

    def signal(self, f: Fields, y: Array) -> Fields:
        """Returns the error signal Delta = -d loss / d f, shaped as f; f can be a Series for mse, y - f."""
        return y - f if self.name == "mse" else -_map_points(jax.grad(self.of_point), f, y)

    def of_point(self, f: Array, y: Array) -> Array:
        """Returns the loss of one point, of f and y (C,), or numbers."""
        return self.function(f[0], y[0]) if self.numbers and f.ndim else self.function(f, y)

    def measured(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns `values` of NumPy arrays, in double precision."""
        if self.name == "mse":
            return ((y - f) ** 2).reshape(*f.shape[: f.ndim - y.ndim + 1], -1).sum(axis=-1) / 2
        with jax.enable_x64(True):
            return np.asarray(_compiled(self).values(f, y))

    def measured_signal(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns `signal` of NumPy arrays, in double precision."""
        with jax.enable_x64(True):
            return np.asarray(_compiled(self).signal(f, y))


class _Compiled(NamedTuple):
    """The functions of a loss, compiled once for arrays of a shape."""

    values: Any
    signal: Any


@functools.lru_cache(maxsize=32)
def _compiled(loss: Loss) -> _Compiled:
    return _Compiled(jax.jit(loss.values), jax.jit(loss.signal))


def _map_points(function: Function, f: Array, y: Array) -> jax.Array:
    """Returns a function of every point; axes before the points belong to f alone."""
    mapped = jax.vmap(function)
    for _ in range(f.ndim - y.ndim):
        mapped = jax.vmap(mapped, in_axes=(0, None))
    return mapped(f, y)


def loss(choice: str | Loss | Function) -> Loss:
    """Returns the Loss for a name, or for any JAX function of the outputs and targets of one point.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if isinstance(choice, Loss):
        return choice
    if (known := look_up("loss", choice, LOSSES)) is not None:
        return known
    name = getattr(choice, "__name__", "custom")
    return Loss("custom" if name in LOSSES else name, choice)  # type: ignore[arg-type]


def check_targets(name: str, y: np.ndarray) -> None:
    """Raises ValueError if a loss is not defined for targets (P,) or (P, C); those of "cross_entropy" are (P, C)."""
    if name in ("logistic", "hinge") and not np.isin(y, (-1, 1)).all():
        raise ValueError(f"the loss '{name}' needs targets of -1 and 1")
    if name == "cross_entropy" and (y.shape[1] < 2 or y.min() < 0 or not np.allclose(y.sum(axis=1), 1)):
        raise ValueError("the loss 'cross_entropy' needs labels, one for each point, or rows of probabilities")


def find_classes(labels: ArrayLike) -> np.ndarray:
    """Returns the different labels (C,) of points (P,), sorted.

    Raises:
        ValueError: labels are missing, are numbers that are not whole, or are one or too many to be classes.
    """
    array = _label_array(labels)
    if array.dtype.kind not in "biufUS" or (array.dtype.kind == "f" and not (array == np.round(array)).all()):
        raise ValueError(f"labels must be texts, whole numbers or truth values, got {array.dtype}")
    classes = np.unique(array.astype(int) if array.dtype.kind == "f" else array)
    if len(classes) < 2:
        raise ValueError(f"labels must be of two classes or more, got {classes[0]} alone")
    if len(classes) > max(MOST_CLASSES, len(array) // 2):
        raise ValueError(f"labels must be of few classes, got {len(classes)} different ones of {len(array)} points")
    return classes


def _label_array(labels: ArrayLike) -> np.ndarray:
    """Returns labels as an array of one type; raises ValueError if some are missing or masked."""
    array = np.asarray(labels)
    is_masked = isinstance(labels, np.ma.MaskedArray) and np.ma.getmaskarray(labels).any()
    if is_masked or any(label is None or label != label for label in array.tolist()):
        raise ValueError("labels must not be missing")
    return np.array(array.tolist()) if array.dtype.kind == "O" else array


def encode_labels(labels: ArrayLike, classes: np.ndarray) -> np.ndarray:
    """Returns targets (P, C) of labels (P,): one in the column of its class, zero in others.

    Raises:
        ValueError: naming a label that is no class.
    """
    array = _label_array(labels)
    if not (known := np.isin(array, classes)).all():
        raise ValueError(f"label {array[~known][0]} is not one of the classes {', '.join(map(str, classes))}")
    order = np.argsort(classes)
    return np.eye(len(classes))[order[np.searchsorted(classes, array, sorter=order)]]


def mse(f: Array, y: Array) -> jax.Array:
    """Returns |f - y|^2 / 2."""
    return jnp.sum((f - y) ** 2) / 2


def logistic(f: Array, y: Array) -> jax.Array:
    """Returns log(1 + exp(-y f))."""
    return jnp.sum(jax.nn.softplus(-y * f))


def cross_entropy(f: Array, y: Array) -> jax.Array:
    """Returns -sum_c y_c log softmax(f)_c."""
    return -jnp.sum(y * jax.nn.log_softmax(f))


def hinge(f: Array, y: Array) -> jax.Array:
    """Returns max(0, 1 - y f)."""
    return jnp.sum(jax.nn.relu(1 - y * f))


LOSSES = {function.__name__: Loss(function.__name__, function) for function in (mse, logistic, cross_entropy, hinge)}
