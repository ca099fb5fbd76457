"""Loss functions: what gradient descent makes smaller, and the error signal that drives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.common.settings import look_up
from kernelfield.engine.series import Fields

Array = jax.Array | np.ndarray
Function = Callable[[Any, Any], Any]  # (f, y) -> loss


@dataclass(frozen=True)
class Loss:
    """The loss of one point, a function of its outputs f and targets y, (C,) both, or numbers.

    Attributes:
        name: the name of the loss.
        function: (f, y) -> a number; a JAX function that can be differentiated in f.
    """

    name: str
    function: Function

    def values(self, f: Array, y: Array) -> jax.Array:
        """Returns the loss (..., P) of every point of f and y, (..., P, C) or (..., P).

        Axes before the points belong to f alone.
        """
        return _map_points(self.function, f, y)

    def signal(self, f: Fields, y: Array) -> Fields:
        """Returns the error signal Delta = -d loss / d f, shaped as f; f can be a Series for mse, y - f."""
        return y - f if self.name == "mse" else -_map_points(jax.grad(self.function), f, y)

    def measured(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns `values` of NumPy arrays, in double precision."""
        if self.name == "mse":
            return ((y - f) ** 2).reshape(*f.shape[: f.ndim - y.ndim + 1], -1).sum(axis=-1) / 2
        with jax.enable_x64(True):
            return np.asarray(self.values(f, y))

    def measured_signal(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns `signal` of NumPy arrays, in double precision."""
        with jax.enable_x64(True):
            return np.asarray(self.signal(f, y))


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


def targets(name: str, y: np.ndarray) -> np.ndarray:
    """Returns targets (P,) or (P, C) as a loss takes them: labels of "cross_entropy" become rows of probabilities.

    Raises:
        ValueError: the loss is not defined for these targets.
    """
    if name in ("logistic", "hinge") and not np.isin(y, (-1, 1)).all():
        raise ValueError(f"the loss '{name}' needs targets of -1 and 1")
    if name != "cross_entropy":
        return y
    labels = y.astype(int)
    if y.ndim == 1 and (labels == y).all() and labels.min() >= 0:
        y = np.eye(max(2, labels.max() + 1))[labels]
    if y.ndim == 1 or y.shape[1] < 2 or y.min() < 0 or not np.allclose(y.sum(axis=1), 1):
        raise ValueError("the loss 'cross_entropy' needs labels 0, 1, ... or rows of probabilities")
    return y


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
