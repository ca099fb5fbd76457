"""Products with tall arrays (n, capacity, S) of which only the first rows of each are in use: a slab of rows at a time.

Bases and images have room for more directions than were met so far. Rows that no direction has come to change no
result, only how long it takes. A combination passes over its sum once for each slab and so takes more rows at a time;
the others take few, which stay in the cache. Short arrays are taken whole, those of which all rows are in use, and all
arrays on accelerators, where zeros cost less than the turns of a loop.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.series import Fields, Series, leading, linear

Result = TypeVar("Result")
Number = Array | int

SLAB = 128  # rows at a time in a combination
SHORT = 256  # rows that it takes whole
THIN = 32  # rows at a time elsewhere
FEW = 12  # rows whose products are added one by one


def coordinates(x: Array, q: Array, size: Number) -> Array:
    """x (rows, S) times q (n, capacity, S) transposed: (rows, n capacity), zero from row `size` of each on."""
    many, capacity, _ = q.shape
    height = _height(q, size, THIN)

    def put(F: Array, start: Number) -> Array:
        product = x @ _slab(q, start, height).T
        return lax.dynamic_update_slice_in_dim(F, product.reshape(len(x), many, height), start, axis=2)

    F = _over(put, jnp.zeros((len(x), many, capacity), x.dtype), height, capacity, size)
    return jnp.where(jnp.arange(capacity) < size, F, 0).reshape(len(x), -1)


def combination(F: Fields, q: Fields, size: Number) -> Fields:
    """F (rows, n capacity), zero from row `size` of each on, times q (n, capacity, S)."""
    many, capacity, _ = leading(q).shape
    height = _height(q, size, SLAB, SHORT)

    def term(start: Number) -> Fields:
        return _columns(F, many, start, height) @ linear(lambda values: _slab(values, start, height), q)

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(term, 0))
    return _over(lambda total, start: total + term(start), zero, height, capacity, size)


def plus_products(q: Fields, F: Fields, x: Fields, size: Number) -> Fields:
    """q (n, capacity, S) plus F (rows, n capacity) transposed, zero from row `size` of each on, times x (rows, S)."""
    many, capacity, _ = leading(q).shape
    height = _height(q, size, THIN)

    def add(q: Fields, start: Number) -> Fields:
        product = _products(_columns(F, many, start, height), x)

        def added(values: Array, more: Array) -> Array:
            old = lax.dynamic_slice_in_dim(values, start, height, axis=-2)
            return lax.dynamic_update_slice_in_dim(values, old + more.reshape(old.shape), start, axis=-2)

        return jax.tree.map(added, q, product)

    return _over(add, q, height, capacity, size)


def _products(F: Fields, x: Fields) -> Fields:
    """F (rows, k) transposed times x (rows, S); of few rows one by one, in one pass over the sum."""
    if isinstance(F, Series) or isinstance(x, Series) or len(F) > FEW or jax.default_backend() != "cpu":
        return F.T @ x
    return functools.reduce(operator.add, (column[:, None] * row for column, row in zip(F, x, strict=True)))


def _height(q: Fields, size: Number, slab: int, short: int = 0) -> int:
    """Rows at a time: a slab, or all of those that are few, in use, or on an accelerator."""
    capacity = leading(q).shape[1]
    whole = isinstance(size, int) or capacity <= short or capacity % slab or jax.default_backend() != "cpu"
    return capacity if whole else slab


def _over(body: Callable[[Result, Number], Result], result: Result, height: int, capacity: int, size: Number) -> Result:
    """`result` after body(result, start) of every slab that is in use."""
    if height == capacity:
        return body(result, 0)
    return lax.fori_loop(0, -(-size // height), lambda number, now: body(now, number * height), result)


def _slab(values: Array, start: Number, height: int) -> Array:
    """Rows of values (n, capacity, S), (n height, S)."""
    return lax.dynamic_slice_in_dim(values, start, height, axis=1).reshape(-1, values.shape[-1])


def _columns(F: Fields, many: int, start: Number, height: int) -> Fields:
    """What F (rows, n capacity) has for a slab, (rows, n height)."""

    def part(values: Array) -> Array:
        apart = values.reshape(len(values), many, -1)
        return lax.dynamic_slice_in_dim(apart, start, height, axis=2).reshape(len(values), -1)

    return linear(part, F)
