"""A plan of directions: which rows of every field become directions, chosen once for many networks.

Bases that choose by energy depend on every number of a network: two networks that have neurons in common take different
directions, and are not smooth functions of their neurons. Along one plan they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.directions import Directions, orthonormalize, project


class Plan:
    """Row numbers (m,) for every field that a step represents, in the order of fields; -1 fills them up."""

    def __init__(self, rows: Iterable[Array]) -> None:
        self.rows: Iterator[Array] = iter(rows)

    def choose(self, directions: Directions, x: Array) -> tuple[Directions, Array]:
        """Returns the basis, and which rows of x (rows, S) come next."""
        return directions, next(self.rows)

    def extend(self, directions: Directions, x: Array) -> tuple[Directions, Array, Array]:
        """Returns the basis with what it leaves out of some rows of x (P, ..., S), the coordinates F, and what is new.

        There is room for all of them. Which rows of the basis are new is (m, 1), from its size before on.
        """
        values = x.reshape(-1, x.shape[-1])
        directions, rows = self.choose(directions, values)
        leads = rows >= 0
        rest = values[rows] - project(directions, values[rows]) @ directions.q
        square = jnp.diagonal(directions.average(rest, rest))
        new = orthonormalize(directions, rest / jnp.sqrt(jnp.where(leads, square, 1))[:, None], leads)
        order = directions.size + jnp.arange(len(rows))
        q = directions.q.at[jnp.where(leads, order, len(directions.q))].set(new, mode="drop")
        directions = directions._replace(q=q, size=directions.size + jnp.sum(leads))
        return directions, project(directions, x), leads[:, None]


class Planner(Plan):
    """The plan of one network, made as it trains: rows are chosen one by one, the one with the largest rest first.

    Attributes:
        tol: mean square of a rest, in units of the largest mean square of the field so far, up to which it is left out.
        chosen: rows (n,) of every field so far, as many as the field has.
    """

    def __init__(self, tol: float) -> None:
        self.tol = tol
        self.chosen: list[Array] = []

    def choose(self, directions: Directions, x: Array) -> tuple[Directions, Array]:
        """Returns the basis, which knows the size of the field, and the rows whose rests exceed the tolerance."""
        scale = jnp.maximum(directions.scale, jnp.max(jnp.mean(x * x, axis=1)))
        rest = x - project(directions, x) @ directions.q
        room = jnp.minimum(len(x), len(directions.q) - directions.size)

        def goes_on(now: tuple[Array, Array, Array]) -> Array:
            gram, _, count = now
            return (count < room) & (jnp.max(jnp.diagonal(gram)) > self.tol * scale)

        def take(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            gram, rows, count = now
            row = jnp.argmax(jnp.diagonal(gram))
            return gram - jnp.outer(gram[row], gram[row]) / gram[row, row], rows.at[count].set(row), count + 1

        start = rest @ rest.T / rest.shape[1], jnp.full(len(x), -1), jnp.zeros((), int)
        _, rows, _ = lax.while_loop(goes_on, take, start)
        self.chosen.append(rows)
        return directions._replace(scale=scale), rows
