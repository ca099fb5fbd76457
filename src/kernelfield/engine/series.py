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


@jax.tree_util.register_pytree_node_class
class Series:
    """sum_n coefficients[n] gamma0^n, up to the highest order kept.

    Attributes:
        coefficients: (orders, ...).
    """

    def __init__(self, coefficients: Array) -> None:
        self.coefficients = coefficients

    def tree_flatten(self) -> tuple[tuple[Array], None]:
        """For JAX."""
        return (self.coefficients,), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: Any) -> Series:
        """For JAX."""
        return cls(*leaves)

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
        return self._product(other, lambda a, b: a * b)

    def __matmul__(self, other: Series | Array) -> Series:
        return self._product(other, lambda a, b: a @ b)

    def __rmatmul__(self, other: Array) -> Series:
        return Series(other @ self.coefficients)

    __radd__, __rmul__ = __add__, __mul__

    def _product(self, other: Any, times: Callable[[Array, Array], Array]) -> Any:
        if isinstance(other, Variable):
            return NotImplemented
        if not isinstance(other, Series):
            return Series(times(self.coefficients, other))
        a, b = self.coefficients, other.coefficients
        return Series(jnp.stack([sum(times(a[i], b[n - i]) for i in range(n + 1)) for n in range(len(a))]))

    @property
    def T(self) -> Series:
        """Transpose of the last two axes."""
        return Series(jnp.swapaxes(self.coefficients, -1, -2))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Variable:
    """gamma0 itself: the product with a series, and the quotient of a series that vanishes at gamma0 = 0.

    The highest order of the quotient is not known, and left zero.
    """

    def __rmul__(self, x: Series) -> Series:
        return Series(jnp.roll(x.coefficients, 1, axis=0).at[0].set(0))

    def __rtruediv__(self, x: Series) -> Series:
        return Series(jnp.roll(x.coefficients, -1, axis=0).at[-1].set(0))


def lift(function: Function, derivative: Function) -> Function:
    """An elementwise function of arrays, as a function of arrays or Series.

    (phi o h)_n = 1/n sum_{j=1..n} j h_j (phi' o h)_{n-j}, from d phi(h) = phi'(h) dh.
    """

    def composed(phi: Function, dphi: Function, h: Array, orders: int) -> list[Array]:
        if orders == 1:
            return [phi(h[0])]
        slope = composed(dphi, elementwise_derivative(dphi), h, orders - 1)
        higher = [
            sum((j * h[j] * slope[n - j] for j in range(2, n + 1)), h[1] * slope[n - 1]) for n in range(1, orders)
        ]
        return [phi(h[0]), *(each / n for n, each in enumerate(higher, start=1))]

    def lifted(x: Fields) -> Fields:
        if not isinstance(x, Series):
            return function(x)
        return Series(jnp.stack(composed(function, derivative, x.coefficients, len(x.coefficients))))

    return lifted


def coefficients(x: Fields) -> Array:
    """The coefficients of a Series, (orders, ...); an array as it is."""
    return x.coefficients if isinstance(x, Series) else x


def leading(x: Fields) -> Array:
    """The value at gamma0 = 0 of a Series; an array as it is."""
    return x.coefficients[0] if isinstance(x, Series) else x


def like(x: Fields, values: Array) -> Fields:
    """`values` as what x is: coefficients of a Series, or an array."""
    return Series(values) if isinstance(x, Series) else values


def linear(function: Function, x: Fields) -> Fields:
    """A linear function of an array, or of every coefficient of a Series."""
    return Series(jax.vmap(function)(x.coefficients)) if isinstance(x, Series) else function(x)
