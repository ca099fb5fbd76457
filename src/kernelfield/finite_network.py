"""A network of finite width as plain functions: outputs, gradients by `jax.vjp`, training of many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

Kernels = Literal["all", "features", "none"]
CHUNK = 32  # steps recorded on the device between two fetches, at most


class Constants(NamedTuple):
    """X (P, D), y and weights (P,), gamma0, learning rate eta, last step T, and the loss above which a run diverged."""

    X: Array
    y: Array
    weights: Array
    gamma0: Array
    eta: Array
    last: Array
    limit: Array


class Weights(NamedTuple):
    """One network in training: its parameters, and its output at initialization f0 (P,)."""

    params: Any
    f0: Array


class Record(NamedTuple):
    """f (P,) and, of hidden layers 1..L, features phi(h) and gradients g (P, N each)."""

    f: Array
    features: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()


class Advance(NamedTuple):
    """All networks before step `t`, and what the steps since `start` recorded."""

    weights: Weights
    t: Array
    alive: Array
    records: Record


class Finite:
    """The network at width N as plain functions of its parameters."""

    def __init__(self, layers: Any, inputs: int, width: int) -> None:
        self.layers, self.inputs, self.width = layers, inputs, width
        shapes = jax.eval_shape(self.init, jnp.zeros((), jnp.uint32))
        weights = [place for place, values in enumerate(shapes) if jax.tree.leaves(values)]
        self.h_from = weights[:-1]  # h^l leaves weight layer l - 1
        self.phi_from = [place - 1 for place in weights[1:]]  # phi(h^l) enters weight layer l

    def init(self, seed: Array) -> Any:
        """Parameters from N(0, 1)."""
        return self.layers.finite_init(jax.random.key(seed), self.inputs, self.width)[0]

    def outputs(self, params: Any, probes: Sequence[Array], x: Array) -> tuple[Array, ...]:
        """What leaves every layer, a probe added to each; the last is gamma0 f (P,)."""
        passed = []
        for layer, values, probe in zip(self.layers, params, probes, strict=True):
            x = layer.finite_apply(values, x) + probe
            passed.append(x)
        return tuple(passed)

    def pulled(self, params: Any, x: Array) -> tuple[tuple[Array, ...], Callable[[Array], tuple[Any, Any]]]:
        """The outputs at zero probes, and the pullback of gamma0 f to (parameters, probes)."""
        free = jax.eval_shape(self.outputs, params, [0.0] * len(params), x)
        probes = tuple(jnp.zeros(each.shape, each.dtype) for each in free)

        def output(params: Any, probes: Any) -> tuple[Array, tuple[Array, ...]]:
            passed = self.outputs(params, probes, x)
            return passed[-1], passed

        _, pullback, passed = jax.vjp(output, params, probes, has_aux=True)
        return passed, pullback

    def step(self, kernels: Kernels, constants: Constants, weights: Weights, t: Array) -> tuple[Weights, Record]:
        """Record, then one step of gradient descent (none at the last step) with rate eta gamma0^2 N.

        Rows are independent: a cotangent of ones gives g = gamma0 N df/dh of every row at once.
        """
        passed, pullback = self.pulled(weights.params, constants.X)
        f = passed[-1] / constants.gamma0
        f0 = jnp.where(t == 0, f, weights.f0)
        record = Record(f - f0)
        if kernels != "none":
            record = record._replace(features=tuple(passed[place] for place in self.phi_from))
        if kernels == "all":
            _, slopes = pullback(jnp.ones_like(f))
            record = record._replace(gradients=tuple(self.width * slopes[place] for place in self.h_from))
        descent, _ = pullback(constants.weights * (constants.y - record.f))
        rate = jnp.where(t < constants.last, constants.eta * constants.gamma0 * self.width, 0.0)
        params = jax.tree.map(lambda value, toward: value + rate * toward, weights.params, descent)
        return Weights(params, f0), record

    def fields(self, weights: Weights, X: Array) -> list[dict[str, Array]]:
        """Of hidden layers 1..L: h, z = gamma0 N df/dphi(h) and g = gamma0 N df/dh, (P, N) each."""
        passed, pullback = self.pulled(weights.params, X)
        _, slopes = pullback(jnp.ones_like(passed[-1]))
        return [
            {"h": passed[h], "z": self.width * slopes[phi], "g": self.width * slopes[h]}
            for h, phi in zip(self.h_from, self.phi_from, strict=True)
        ]

    def advance(self, kernels: Kernels, constants: Constants, weights: Weights, start: Array, stop: Array) -> Advance:
        """Train all networks (leading axis of `weights`) from step `start` to `stop`, at most CHUNK steps.

        Ends early after a step at which one of them diverged.
        """
        every = jax.vmap(functools.partial(self.step, kernels, constants), in_axes=(0, None))
        _, record = jax.eval_shape(every, weights, start)
        records = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), record)

        def go(now: Advance) -> Advance:
            weights, record = every(now.weights, now.t)
            loss = (constants.y - record.f) ** 2 @ constants.weights / 2
            kept = jax.tree.map(
                lambda old, new: lax.dynamic_update_index_in_dim(old, new, now.t - start, 0),
                now.records,
                record,
            )
            return Advance(weights, now.t + 1, jnp.all(loss <= constants.limit), kept)

        begin = Advance(weights, start, jnp.array(True), records)
        return lax.while_loop(lambda now: (now.t < stop) & now.alive, go, begin)


class Programs(NamedTuple):
    """Compiled functions of a batch of networks: seeds -> weights, `Finite.advance` and `Finite.fields`."""

    init: Callable[..., Weights]
    advance: Callable[..., Advance]
    fields: Callable[..., list[dict[str, Array]]]


@functools.lru_cache(maxsize=32)
def compiled(
    layers: Any, kernels: Kernels, width: int, points: int, inputs: int, seeds: int, precision: str
) -> Programs:
    """Everything a batch of `seeds` networks needs, compiled (under the x64 setting of `precision`)."""
    finite = Finite(layers, inputs, width)
    real, whole = jnp.dtype(precision), jnp.asarray(0).dtype
    number, step = jax.ShapeDtypeStruct((), real), jax.ShapeDtypeStruct((), whole)
    data = [jax.ShapeDtypeStruct(shape, real) for shape in ((points, inputs), (points,), (points,))]
    shapes: Any = (*data, number, number, step, number)
    constants = Constants(*shapes)

    def begin(numbers: Array) -> Weights:
        return Weights(lax.map(finite.init, numbers), jnp.zeros((seeds, points), real))

    init = jax.jit(begin).lower(jax.ShapeDtypeStruct((seeds,), jnp.uint32))
    weights = jax.eval_shape(begin, jax.ShapeDtypeStruct((seeds,), jnp.uint32))
    advance = jax.jit(functools.partial(finite.advance, kernels), donate_argnums=1)
    fields = jax.jit(jax.vmap(finite.fields, in_axes=(0, None))).lower(weights, constants.X)
    return Programs(init.compile(), advance.lower(constants, weights, step, step).compile(), fields.compile())
