"""Loss functions: what gradient descent makes smaller, and the error signal that drives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.common.settings import named

Array = Any


@dataclass(frozen=True)
class Loss:
    """The loss of one point, a function of its outputs f and targets y, (C,) both, or numbers.

    Attributes:
        name: by which it is known.
        function: (f, y) -> a number; a JAX function that can be differentiated in f.
    """

    name: str
    function: Callable[[Array, Array], Array]

    def values(self, f: Array, y: Array) -> Array:
        """The loss of every point.

        Args:
            f, y: (..., P) or (..., P, C); axes before the points belong to f alone.

        Returns:
            (..., P).
        """
        return self._over_points(self.function, f, y)

    def signal(self, f: Any, y: Array) -> Any:
        """The error signal Delta = -d loss / d f, shaped as f; for mse y - f, of a Series too."""
        return y - f if self.name == "mse" else -self._over_points(jax.grad(self.function), f, y)

    def measured(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`values` of NumPy arrays, in double precision."""
        if self.name == "mse":
            return ((y - f) ** 2).reshape(*f.shape[: f.ndim - y.ndim + 1], -1).sum(axis=-1) / 2
        with jax.enable_x64(True):
            return np.asarray(self.values(jnp.asarray(f), jnp.asarray(y)))

    def measured_signal(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`signal` of NumPy arrays, in double precision."""
        if self.name == "mse":
            return y - f
        with jax.enable_x64(True):
            return np.asarray(self.signal(jnp.asarray(f), jnp.asarray(y)))

    @staticmethod
    def _over_points(function: Callable[[Array, Array], Array], f: Array, y: Array) -> Array:
        mapped = jax.vmap(function)
        for _ in range(f.ndim - y.ndim):
            mapped = jax.vmap(mapped, in_axes=(0, None))
        return mapped(f, y)


def loss(choice: str | Loss | Callable[[Array, Array], Array]) -> Loss:
    """The Loss for a name, or for any JAX function of the outputs and targets of one point.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if isinstance(choice, Loss):
        return choice
    if (known := named("loss", choice, LOSSES)) is not None:
        return known
    function: Any = choice
    name = getattr(choice, "__name__", "custom")
    return Loss("custom" if name in LOSSES else name, function)


def targets(name: str, y: np.ndarray) -> np.ndarray:
    """Targets as a loss takes them.

    Args:
        name: of the loss.
        y: (P,) or (P, C); for "cross_entropy" also labels 0, 1, ... (P,).

    Returns:
        (P,) or (P, C): for "cross_entropy" one row of probabilities for each point.

    Raises:
        ValueError: the loss is not defined for these targets.
    """
    if name in ("logistic", "hinge") and not np.isin(y, (-1, 1)).all():
        raise ValueError(f"the loss '{name}' needs targets of -1 and 1")
    if name != "cross_entropy":
        return y
    if y.ndim == 1:
        labels = y.astype(int)
        if (labels != y).any() or labels.min() < 0:
            raise ValueError("the loss 'cross_entropy' needs labels 0, 1, ... or rows of probabilities")
        y = np.eye(max(2, labels.max() + 1))[labels]
    if y.shape[1] < 2 or y.min() < 0 or not np.allclose(y.sum(axis=1), 1):
        raise ValueError("the loss 'cross_entropy' needs labels 0, 1, ... or rows of probabilities")
    return y


def mse(f: Array, y: Array) -> Array:
    """|f - y|^2 / 2."""
    return jnp.sum((f - y) ** 2) / 2


def logistic(f: Array, y: Array) -> Array:
    """log(1 + exp(-y f))."""
    return jnp.sum(jax.nn.softplus(-y * f))


def cross_entropy(f: Array, y: Array) -> Array:
    """-sum_c y_c log softmax(f)_c."""
    return -jnp.sum(y * jax.nn.log_softmax(f))


def hinge(f: Array, y: Array) -> Array:
    """max(0, 1 - y f)."""
    return jnp.sum(jax.nn.relu(1 - y * f))


LOSSES: dict[str, Loss] = {each.__name__: Loss(each.__name__, each) for each in (mse, logistic, cross_entropy, hinge)}
