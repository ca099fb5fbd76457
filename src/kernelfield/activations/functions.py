"""Activation functions by their plain definitions, and the Gaussian averages known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf as _erf
from jax.scipy.stats import norm

from kernelfield.common.settings import look_up

Array = Any
KernelMap = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

ROUNDING = 32 * np.finfo(float).eps  # of a cosine: fields that are nearer to each other are equal


@dataclass(frozen=True)
class Activation:
    """An activation function phi with its derivative.

    `feature_map` and `derivative_map` give <phi(a) phi(b)> and <phi'(a) phi'(b)> for zero-mean Gaussian a, b with
    variances k11, k22 and covariance k12 (called with k11, k12, k22, any equal shapes), or are None where no closed
    form is known. `smooth` tells whether phi' is continuous.
    """

    name: str
    phi: Callable[[Array], Array]
    dphi: Callable[[Array], Array]
    feature_map: KernelMap | None = None
    derivative_map: KernelMap | None = None
    smooth: bool = True

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Returns what is pickled: the name alone of an activation that is known by name."""
        known = ACTIVATIONS.get(self.name) is self
        return (activation, (self.name,)) if known else super().__reduce_ex__(protocol)

    @property
    def is_linear(self) -> bool:
        """Whether phi is the identity, so that the theory is Gaussian and solved exactly."""
        return self.name == "linear"


def activation(choice: str | Activation | Callable[[Array], Array]) -> Activation:
    """Returns the Activation for a name, or for any elementwise JAX function (derivative by autodiff).

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if isinstance(choice, Activation):
        return choice
    if (known := look_up("activation", choice, ACTIVATIONS)) is not None:
        return known
    function: Any = choice
    return Activation(getattr(function, "__name__", "custom"), function, elementwise_derivative(function))


def elementwise_derivative(phi: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Returns the derivative of an elementwise JAX function, by automatic differentiation."""
    return lambda h: jax.jvp(phi, (h,), (jnp.ones_like(h),))[1]


# --- closed forms; 1 / (2 pi) factors as for max(h, 0) and erf(h) themselves, theory.md section 5


def _relu_angle(k11, k12, k22):
    """Returns the angle of two Gaussian fields; zero for equal ones, whose cosine is one but for rounding."""
    cosine = k12 / np.maximum(np.sqrt(k11) * np.sqrt(k22), 1e-300)
    cosine = np.where(1 - np.abs(cosine) < ROUNDING, np.sign(cosine), cosine)
    return np.arctan2(np.sqrt((1 - cosine) * (1 + cosine)), cosine)


def _relu_features(k11, k12, k22):
    angle = _relu_angle(k11, k12, k22)
    return np.sqrt(k11) * np.sqrt(k22) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)


def _relu_derivatives(k11, k12, k22):
    return (np.pi - _relu_angle(k11, k12, k22)) / (2 * np.pi)


def _area(k11, k12, k22):
    """Returns k11 k22 - k12^2, without the rounding of large squares; zero for equal fields."""
    root = np.sqrt(k11) * np.sqrt(k22)
    apart, size = root - np.abs(k12), root + np.abs(k12)
    return np.where(apart < ROUNDING * size, 0, apart) * size


def _erf_features(k11, k12, k22):
    spread = 1 + 2 * (k11 + k22) + 4 * _area(k11, k12, k22)
    return (2 / np.pi) * np.arctan2(2 * k12, np.sqrt(spread))


def _erf_derivatives(k11, k12, k22):
    return (4 / np.pi) / np.sqrt(1 + 2 * (k11 + k22) + 4 * _area(k11, k12, k22))


def _gelu_averages(k11, k12, k22):
    """Returns <A A'> and <a a'> for A the normal distribution function and a its density."""
    root = np.sqrt(1 + k11 + k22 + _area(k11, k12, k22))
    return 0.25 + np.arctan2(k12, root) / (2 * np.pi), 1 / (2 * np.pi * root)


def _gelu_features(k11, k12, k22):
    both, density = _gelu_averages(k11, k12, k22)
    rest = k11 / (1 + k11) * (k22 + _area(k11, k12, k22)) + k12 * (k12 / (1 + k22))
    return k12 * both + density * rest


def _gelu_derivatives(k11, k12, k22):
    both, density = _gelu_averages(k11, k12, k22)
    square = 1 + k11 + k22 + _area(k11, k12, k22)
    return both + density * k12 * (1 / (1 + k11) + 1 / (1 + k22) + 1 / square)


ACTIVATIONS: dict[str, Activation] = {
    entry.name: entry
    for entry in (
        Activation(
            "linear", lambda h: h, jnp.ones_like, lambda k11, k12, k22: k12, lambda k11, k12, k22: np.ones_like(k12)
        ),
        Activation("tanh", jnp.tanh, lambda h: 1 - jnp.tanh(h) ** 2),
        Activation(
            "relu",
            lambda h: jnp.where(h > 0, h, 0),
            lambda h: jnp.where(h > 0, jnp.ones_like(h), 0),
            _relu_features,
            _relu_derivatives,
            smooth=False,
        ),
        Activation("erf", _erf, lambda h: (2 / math.sqrt(math.pi)) * jnp.exp(-(h**2)), _erf_features, _erf_derivatives),
        Activation(
            "gelu",
            lambda h: h * norm.cdf(h),
            lambda h: norm.cdf(h) + h * norm.pdf(h),
            _gelu_features,
            _gelu_derivatives,
        ),
        Activation("softplus", jax.nn.softplus, jax.nn.sigmoid),
    )
}
