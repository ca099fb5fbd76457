"""A network of finite width as plain functions: outputs, gradients by `jax.vjp`, training of many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

Kernels = Literal["all", "features", "none"]
CHUNK = 32  # steps recorded on the device between two fetches, at most


class Constants(NamedTuple):
    """X (P, D) or (P, *sites, C), y and weights (P,), gamma0, learning rate eta, last step T, and the highest loss.

    A run whose loss exceeds it has diverged.
    """

    X: Array
    y: Array
    weights: Array
    gamma0: Array
    eta: Array
    last: Array
    limit: Array


class Batch(NamedTuple):
    """Points that a step learns from: their numbers (B,), and their weights in the loss (B,)."""

    rows: Array
    weights: Array


class Weights(NamedTuple):
    """One network in training: its parameters, and its output at initialization f0 (P,)."""

    params: Any
    f0: Array


class Record(NamedTuple):
    """f (P,), features and gradients g of hidden layers 1..L, (P, *sites, N) each, and the tangent kernel (P, P)."""

    f: Array
    features: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()
    tangent: Array | None = None


class Advance(NamedTuple):
    """All networks before step `t`, and what the steps since `start` recorded."""

    weights: Weights
    t: Array
    alive: Array
    records: Record


class Passed(NamedTuple):
    """What passed one place of the network: its kind (see `Layer.finite_apply`) and the values there."""

    kind: str
    values: Array


@dataclass(frozen=True)
class Finite:
    """The network at width N as plain functions of its parameters.

    Args:
        layers: of the network.
        inputs: shape of one input, (D,) or (*sites, C).
        width: N.
        factorizes: the tangent kernel follows from feature and gradient kernels; else it is recorded.
    """

    layers: Any
    inputs: tuple[int, ...]
    width: int
    factorizes: bool = True

    def init(self, seed: Array) -> Any:
        """Parameters from N(0, 1)."""
        return self.layers.finite_init(jax.random.key(seed), self.inputs, self.width)[0]

    def outputs(self, params: Any, x: Array, probes: Sequence[Array] | None = None) -> tuple[Array, list[Passed]]:
        """gamma0 f (P,), and what passed all places on the way, a probe added at each."""
        passed: list[Passed] = []

        def tape(kind: str, values: Array) -> Array:
            if probes is not None:
                values = values + probes[len(passed)]
            passed.append(Passed(kind, values))
            return values

        return self.layers.finite_apply(params, x, tape), passed

    def kinds(self, params: Any, x: Array) -> list[str]:
        """The kind of every place."""
        found: list[str] = []

        def run(params: Any, x: Array) -> Array:
            output, passed = self.outputs(params, x)
            found.extend(each.kind for each in passed)
            return output

        jax.eval_shape(run, params, x)
        return found

    def pulled(self, params: Any, x: Array) -> tuple[Array, dict[str, list[Array]], Callable[[Array], tuple]]:
        """gamma0 f, what passed by kind, and the pullback of gamma0 f to parameters and, by kind, to what passed."""
        kinds = self.kinds(params, x)
        free = jax.eval_shape(lambda *now: [each.values for each in self.outputs(*now)[1]], params, x)
        probes = [jnp.zeros(each.shape, each.dtype) for each in free]

        def output(params: Any, probes: Any) -> tuple[Array, list[Array]]:
            f, passed = self.outputs(params, x, probes)
            return f, [each.values for each in passed]

        f, pullback, passed = jax.vjp(output, params, probes, has_aux=True)

        def pulled_back(toward: Array) -> tuple[Any, dict[str, list[Array]]]:
            descent, slopes = pullback(toward)
            return descent, by_kind(kinds, slopes)

        return f, by_kind(kinds, passed), pulled_back

    def step(
        self, kernels: Kernels, constants: Constants, weights: Weights, t: Array, batch: Batch | None = None
    ) -> tuple[Weights, Record]:
        """Record, then one step of gradient descent (none at the last step) with rate eta gamma0^2 N.

        Rows are independent: a cotangent of ones gives g = gamma0 N df/dh of every row at once. With a `batch`, all
        points go forward to be recorded, and its points alone a second time, and back.
        """
        output, passed, pullback = self.pulled(weights.params, constants.X)
        f = output / constants.gamma0
        f0 = jnp.where(t == 0, f, weights.f0)
        record = Record(f - f0)
        if kernels != "none":
            record = record._replace(features=tuple(passed["in"][1:]))
        if kernels == "all":
            _, slopes = pullback(jnp.ones_like(f))
            record = record._replace(gradients=tuple(self.width * slope for slope in slopes["out"][:-1]))
            if not self.factorizes:
                record = record._replace(tangent=self.tangent(weights.params, constants.X))
        Delta = constants.y - record.f
        if batch is None:
            descent, _ = pullback(constants.weights * Delta)
        else:
            _, back = jax.vjp(lambda params: self.outputs(params, constants.X[batch.rows])[0], weights.params)
            (descent,) = back(batch.weights * Delta[batch.rows])
        rate = jnp.where(t < constants.last, constants.eta * constants.gamma0 * self.width, 0.0)
        params = jax.tree.map(lambda value, toward: value + rate * toward, weights.params, descent)
        return Weights(params, f0), record

    def tangent(self, params: Any, X: Array) -> Array:
        """The tangent kernel N gamma0^2 (df_mu/dW) . (df_nu/dW) (P, P), one column after the other."""

        def output(params: Any) -> Array:
            return self.outputs(params, X)[0]

        f, pullback = jax.vjp(output, params)
        return self.width * lax.map(
            lambda one: jax.jvp(output, (params,), pullback(one))[1], jnp.eye(len(f), dtype=f.dtype)
        )

    def fields(self, weights: Weights, X: Array) -> list[dict[str, Array]]:
        """At every activation: h, z = gamma0 N df/dphi(h) and g = gamma0 N df/dh, of all sites (P, A N) each."""
        output, passed, pullback = self.pulled(weights.params, X)
        _, slopes = pullback(jnp.ones_like(output))
        places = zip(passed["h"], slopes["phi"], slopes["h"], strict=True)
        named = ({"h": h, "z": self.width * z, "g": self.width * g} for h, z, g in places)
        return [{name: each.reshape(len(each), -1) for name, each in place.items()} for place in named]

    def advance(
        self,
        kernels: Kernels,
        constants: Constants,
        weights: Weights,
        start: Array,
        stop: Array,
        batches: Batch | None = None,
    ) -> Advance:
        """Train all networks (leading axis of `weights`) from step `start` to `stop`, at most CHUNK steps.

        `batches` are those of CHUNK steps from `start` on (CHUNK, B). Ends early after a step at which a network
        diverged.
        """
        every = jax.vmap(functools.partial(self.step, kernels, constants), in_axes=(0, None, None))
        _, record = jax.eval_shape(every, weights, start, None)
        records = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), record)

        def go(now: Advance) -> Advance:
            batch = jax.tree.map(lambda values: values[now.t - start], batches)
            weights, record = every(now.weights, now.t, batch)
            loss = (constants.y - record.f) ** 2 @ constants.weights / 2
            kept = jax.tree.map(
                lambda old, new: lax.dynamic_update_index_in_dim(old, new, now.t - start, 0),
                now.records,
                record,
            )
            return Advance(weights, now.t + 1, jnp.all(loss <= constants.limit), kept)

        begin = Advance(weights, start, jnp.array(True), records)
        return lax.while_loop(lambda now: (now.t < stop) & now.alive, go, begin)


def by_kind(kinds: Sequence[str], values: Sequence[Array]) -> dict[str, list[Array]]:
    """Values of places by their kind, in order."""
    found: dict[str, list[Array]] = {"in": [], "out": [], "h": [], "phi": []}
    for kind, each in zip(kinds, values, strict=True):
        found[kind].append(each)
    return found


class Programs(NamedTuple):
    """Compiled functions of a batch of networks: seeds -> weights, `Finite.advance` and `Finite.fields`."""

    init: Callable[..., Weights]
    advance: Callable[..., Advance]
    fields: Callable[..., list[dict[str, Array]]]


@functools.lru_cache(maxsize=32)
def compiled(
    finite: Finite, kernels: Kernels, points: int, seeds: int, precision: str, batch: int | None = None
) -> Programs:
    """Everything that `seeds` networks at once need, compiled (under the x64 setting of `precision`).

    They learn from `batch` points in every step, from all points if None.
    """
    real, whole = jnp.dtype(precision), jnp.asarray(0).dtype
    number, step = jax.ShapeDtypeStruct((), real), jax.ShapeDtypeStruct((), whole)
    data = [jax.ShapeDtypeStruct(shape, real) for shape in ((points, *finite.inputs), (points,), (points,))]
    shapes: Any = (*data, number, number, step, number)
    constants = Constants(*shapes)

    def begin(numbers: Array) -> Weights:
        return Weights(lax.map(finite.init, numbers), jnp.zeros((seeds, points), real))

    init = jax.jit(begin).lower(jax.ShapeDtypeStruct((seeds,), jnp.uint32))
    weights = jax.eval_shape(begin, jax.ShapeDtypeStruct((seeds,), jnp.uint32))
    advance = jax.jit(functools.partial(finite.advance, kernels), donate_argnums=1)
    fields = jax.jit(jax.vmap(finite.fields, in_axes=(0, None))).lower(weights, constants.X)
    drawn: Any = [jax.ShapeDtypeStruct((CHUNK, batch or 0), dtype) for dtype in (jnp.int32, real)]
    batches = None if batch is None else Batch(*drawn)
    return Programs(init.compile(), advance.lower(constants, weights, step, step, batches).compile(), fields.compile())
