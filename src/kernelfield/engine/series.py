"""Formal power series in gamma0, truncated: fields and weights that know how they change with gamma0.

A `Series` stands where an array stands. Sums, products and functions of series are series, so that the march,
run with gamma0 as a formal variable, computes every order of the theory in gamma0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.activations.functions import elementwise_derivative

Function = Callable[[Any], Any]
Fields = Any  # an Array, or a Series


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Series:
    """The series sum_n coefficients[n] gamma0^n up to the highest order kept; coefficients are (orders, ...)."""

    coefficients: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one coefficient."""
        return self.coefficients.shape[1:]

    @property
    def T(self) -> Series:
        """The series with the last two axes exchanged."""
        return Series(jnp.swapaxes(self.coefficients, -1, -2))

    def reshape(self, *shape: int) -> Series:
        """Returns the series with coefficients of another shape."""
        return Series(self.coefficients.reshape(len(self.coefficients), *shape))

    def astype(self, dtype: Any) -> Series:
        """Returns the series with coefficients of another dtype."""
        return Series(self.coefficients.astype(dtype))

    def __add__(self, other: Series | Array) -> Series:
        if isinstance(other, Series):
            return Series(self.coefficients + other.coefficients)
        constant = jnp.arange(len(self.coefficients)).reshape(-1, *[1] * (self.coefficients.ndim - 1)) == 0
        return Series(self.coefficients + jnp.where(constant, other, 0))

    def __neg__(self) -> Series:
        return Series(-self.coefficients)

    def __sub__(self, other: Series | Array) -> Series:
        return self + (-other)

    def __rsub__(self, other: Array) -> Series:
        return -self + other

    def __mul__(self, other: Series | Array) -> Series:
        return self._multiply(other, lambda a, b: a * b)

    def __matmul__(self, other: Series | Array) -> Series:
        return self._multiply(other, lambda a, b: a @ b)

    def __rmatmul__(self, other: Array) -> Series:
        return Series(other @ self.coefficients)

    __radd__, __rmul__ = __add__, __mul__

    def _multiply(self, other: Any, times: Callable[[Array, Array], Array]) -> Any:
        if isinstance(other, Variable):
            return NotImplemented
        if not isinstance(other, Series):
            return Series(times(self.coefficients, other))
        a, b = self.coefficients, other.coefficients
        return Series(jnp.stack([sum(times(a[i], b[n - i]) for i in range(n + 1)) for n in range(len(a))]))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Variable:
    """gamma0 itself: it multiplies a series, and divides a series that vanishes at gamma0 = 0.

    The highest order of the quotient is not known, and left zero.
    """

    def __rmul__(self, x: Series) -> Series:
        return Series(jnp.roll(x.coefficients, 1, axis=0).at[0].set(0))

    def __rtruediv__(self, x: Series) -> Series:
        return Series(jnp.roll(x.coefficients, -1, axis=0).at[-1].set(0))


def lift(function: Function, derivative: Function) -> Function:
    """Returns an elementwise function of arrays as a function of arrays or Series.

    (phi o h)_n = 1/n sum_{j=1..n} j h_j (phi' o h)_{n-j}, from d phi(h) = phi'(h) dh.
    """

    def compose(phi: Function, dphi: Function, h: Array, orders: int) -> list[Array | float]:
        if orders == 1:
            return [phi(h[0])]
        slope = compose(dphi, elementwise_derivative(dphi), h, orders - 1)
        higher = (sum(j * h[j] * slope[n - j] for j in range(1, n + 1)) / n for n in range(1, orders))
        return [phi(h[0]), *higher]

    def apply(x: Fields) -> Fields:
        if not isinstance(x, Series):
            return function(x)
        return Series(jnp.stack(compose(function, derivative, x.coefficients, len(x.coefficients))))

    return apply


def coefficients(x: Fields) -> Array:
    """Returns the coefficients of a Series, (orders, ...), or an array as it is."""
    return x.coefficients if isinstance(x, Series) else x


def lowest_order(x: Fields) -> Array:
    """Returns the value of a Series at gamma0 = 0, or an array as it is."""
    return x.coefficients[0] if isinstance(x, Series) else x


def apply_linear(function: Function, x: Fields) -> Fields:
    """Returns a linear function of an array, or the Series of the function of every coefficient."""
    return Series(jax.vmap(function)(x.coefficients)) if isinstance(x, Series) else function(x)
