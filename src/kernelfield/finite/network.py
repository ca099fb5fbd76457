"""A network of finite width as plain functions: outputs, gradients by `jax.vjp`, training of many at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.ode import odeint

from kernelfield.describe.losses import Loss

Kernels = Literal["all", "per_output", "features", "none"]
CHUNK = 32  # rows recorded on the device between two fetches, at most
STREAMED = 256  # points of a stream whose first outputs are computed at once
OTHER_OUTPUTS = 2**31 - 1  # of the key of a network: its layers have 0, 1, ...


class Constants(NamedTuple):
    """X (P, D) or (P, *sites, C), y (P,) or (P, outputs), weights (P,), gamma0, last row T, and the highest loss.

    A run whose loss exceeds it has diverged. Momentum and weight decay are None where there is none, and so is the
    stream (X, y) that batches are of, if not of the points above.
    """

    X: Array
    y: Array
    weights: Array
    gamma0: Array
    last: Array
    limit: Array
    momentum: Array | None = None
    weight_decay: Array | None = None
    stream: tuple[Array, Array] | None = None


class Updates(NamedTuple):
    """The updates U between two rows: rates eta (U,), and the points of mini-batches (U, B), weighted (U, B).

    Without points there is one update, on all of them.
    """

    eta: Any  # arrays of NumPy, or of JAX
    rows: Any = None
    weights: Any = None


class Weights(NamedTuple):
    """One network in training: parameters, its output at initialization f0, and what moves weights with momentum.

    `stream_f0` is the output at initialization of the points of a stream.
    """

    params: Any
    f0: Array
    velocity: Any = None
    stream_f0: Array | None = None


class Recorded(NamedTuple):
    """f, features and gradients g of hidden layers 1..L, (P, *sites, N) each, and the tangent kernel (P, P).

    f is (P,) or (P, outputs); gradients of every output have rows (sample, output), P C of them, as the tangent kernel.
    """

    f: Array
    features: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()
    tangent: Array | None = None


class Advance(NamedTuple):
    """All networks before row `t`, and what the rows since `start` recorded."""

    weights: Weights
    t: Array
    alive: Array
    records: Recorded


class Passed(NamedTuple):
    """What passed one place of the network: its kind (see `Layer.finite_apply`) and the values there."""

    kind: str
    values: Array


@dataclass(frozen=True)
class Finite:
    """The network at width N, and how it learns, as plain functions of its parameters.

    Args:
        layers: of the network.
        inputs: shape of one input, (D,) or (*sites, C).
        width: N.
        loss: of one point.
        outputs: number of outputs; None for one without an axis of its own.
        factorizes: the tangent kernel follows from feature and gradient kernels; else it is recorded.
        rtol: of gradient flow, relative to what weights move; None for updates in discrete time.
    """

    layers: Any
    inputs: tuple[int, ...]
    width: int
    loss: Loss
    outputs: int | None = None
    factorizes: bool = True
    rtol: float | None = None

    def init(self, seed: Array) -> Any:
        """Parameters at initialization; for several outputs the readout has a row of weights for each (C, sites N).

        The readout is the last layer, so that its weights are the last leaf: further rows are those of other networks.
        """

        def drawn(key: Array) -> Any:
            return self.layers.finite_init(key, self.inputs, self.width)[0]

        key = jax.random.key(seed)
        (*below, first), tree = jax.tree.flatten(drawn(key))
        if self.outputs is None:
            return tree.unflatten([*below, first])
        keys = jax.random.split(jax.random.fold_in(key, OTHER_OUTPUTS), self.outputs - 1)
        others = jax.vmap(lambda each: jax.tree.leaves(drawn(each))[-1])(keys)
        return tree.unflatten([*below, jnp.concatenate([first[None], others])])

    def tracks_gradients(self, kernels: Kernels) -> bool:
        """Whether gradient kernels are recorded; for several outputs only those of every output."""
        return kernels == "per_output" or (kernels == "all" and self.outputs is None)

    def apply(self, params: Any, x: Array, probes: Sequence[Array] | None = None) -> tuple[Array, list[Passed]]:
        """gamma0 f (P,) or (P, outputs), and what passed all places on the way, a probe added at each."""
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
            output, passed = self.apply(params, x)
            found.extend(each.kind for each in passed)
            return output

        jax.eval_shape(run, params, x)
        return found

    def pulled(self, params: Any, x: Array) -> tuple[Array, dict[str, list[Array]], Callable[[Array], tuple]]:
        """gamma0 f, what passed by kind, and the pullback of gamma0 f to parameters and, by kind, to what passed."""
        kinds = self.kinds(params, x)
        free = jax.eval_shape(lambda *now: [each.values for each in self.apply(*now)[1]], params, x)
        probes = [jnp.zeros(each.shape, each.dtype) for each in free]

        def output(params: Any, probes: Any) -> tuple[Array, list[Array]]:
            f, passed = self.apply(params, x, probes)
            return f, [each.values for each in passed]

        f, pullback, passed = jax.vjp(output, params, probes, has_aux=True)

        def pulled_back(toward: Array) -> tuple[Any, dict[str, list[Array]]]:
            descent, slopes = pullback(toward)
            return descent, by_kind(kinds, slopes)

        return f, by_kind(kinds, passed), pulled_back

    def step(
        self, kernels: Kernels, constants: Constants, weights: Weights, t: Array, updates: Updates
    ) -> tuple[Weights, Recorded]:
        """Record all points, then update: once on all of them, which shares the forward pass, or batch after batch."""
        output, passed, pullback = self.pulled(weights.params, constants.X)
        f = output / constants.gamma0
        weights = weights._replace(f0=jnp.where(t == 0, f, weights.f0))
        if constants.stream is not None:
            weights = weights._replace(stream_f0=self.first_outputs(constants, constants.stream[0], weights, t))
        record = Recorded(f - weights.f0)
        if kernels != "none":
            record = record._replace(features=tuple(passed["in"][1:]))
        if self.tracks_gradients(kernels):
            record = record._replace(gradients=self.gradients(pullback, f))
            if not self.factorizes:
                record = record._replace(tangent=self.tangent(weights.params, constants.X))
        if self.rtol is not None:
            return self.flow(constants, weights, t, updates.eta[0]), record
        if updates.rows is not None:
            return self.epoch(constants, weights, jnp.where(t < constants.last, len(updates.eta), 0), updates), record
        descent, _ = pullback(self.toward(record.f, constants.y, constants.weights))
        return self.moved(constants, weights, updates.eta[0], descent), record

    def first_outputs(self, constants: Constants, X: Array, weights: Weights, t: Array) -> Array:
        """f of all points X of the stream at initialization, computed at row 0, a few points at once."""

        def one(x: Array) -> Array:
            return self.apply(weights.params, x[None])[0][0] / constants.gamma0

        def every(_: Array) -> Array:
            return lax.map(one, X, batch_size=STREAMED)

        return lax.cond(t == 0, every, lambda known: known, weights.stream_f0)

    def epoch(self, constants: Constants, weights: Weights, count: Array, updates: Updates) -> Weights:
        """The first `count` updates, each of which touches the points of its batch alone."""
        X, y = constants.stream or (constants.X, constants.y)

        def update(place: Array, weights: Weights) -> Weights:
            eta, rows, shares = (values[place] for values in updates)
            f, back = jax.vjp(lambda params: self.apply(params, X[rows])[0], weights.params)
            f0 = weights.f0 if weights.stream_f0 is None else weights.stream_f0
            (descent,) = back(self.toward(f / constants.gamma0 - f0[rows], y[rows], shares))
            return self.moved(constants, weights, eta, descent)

        return lax.fori_loop(0, count, update, weights)

    def flow(self, constants: Constants, weights: Weights, t: Array, time: Array) -> Weights:
        """Gradient flow to the next row, by Dormand and Prince's method with steps of its own choice; it is explicit.

        Weights of order one move by O(N^-1/2), which is what errors are small against.
        """

        def slope(params: Any, _: Array) -> Any:
            f, back = jax.vjp(lambda params: self.apply(params, constants.X)[0], params)
            (descent,) = back(self.toward(f / constants.gamma0 - weights.f0, constants.y, constants.weights))
            return jax.tree.map(lambda toward: constants.gamma0 * self.width * toward, descent)

        times, small = jnp.stack([jnp.zeros_like(time), time]), (self.rtol or 0.0) / math.sqrt(self.width)
        ends = odeint(slope, weights.params, times, rtol=0.0, atol=small)
        params = jax.tree.map(lambda old, new: jnp.where(t < constants.last, new[1], old), weights.params, ends)
        return weights._replace(params=params)

    def toward(self, f: Array, y: Array, weights: Array) -> Array:
        """w Delta, shaped as f: where the loss of points with weights w (P,) pulls their f."""
        Delta = self.loss.signal(f, y)
        return weights.reshape(-1, *[1] * (Delta.ndim - 1)) * Delta

    def moved(self, constants: Constants, weights: Weights, eta: Array, descent: Any) -> Weights:
        """One update with rate eta gamma0^2 N along v, `descent` (of gamma0 f) or its sum with momentum."""
        rate, params = eta * constants.gamma0 * self.width, weights.params
        if constants.momentum is not None:
            descent = jax.tree.map(lambda v, toward: constants.momentum * v + toward, weights.velocity, descent)
            weights = weights._replace(velocity=descent)
        if constants.weight_decay is not None:
            kept = 1 - eta * constants.weight_decay
            params = jax.tree.map(lambda value: kept * value, params)
        return weights._replace(params=jax.tree.map(lambda value, toward: value + rate * toward, params, descent))

    def gradients(self, pullback: Callable[[Array], tuple], f: Array) -> tuple[Array, ...]:
        """g = gamma0 N df/dh of hidden layers, (P, *sites, N), or of every output (P C, *sites, N).

        Rows are independent: a cotangent of ones gives those of every row at once.
        """

        def of(toward: Array) -> list[Array]:
            return [self.width * slope for slope in pullback(toward)[1]["out"][:-1]]

        if self.outputs is None:
            return tuple(of(jnp.ones_like(f)))
        each = jnp.broadcast_to(jnp.eye(self.outputs, dtype=f.dtype)[:, None], (self.outputs, *f.shape))
        return tuple(jnp.moveaxis(g, 0, 1).reshape(f.size, *g.shape[2:]) for g in jax.vmap(of)(each))

    def tangent(self, params: Any, X: Array, others: Array | None = None) -> Array:
        """The tangent kernel N gamma0^2 (df_mu/dW) . (df_nu/dW) (P, P), one column after the other.

        Columns are `others`, if given. Of several outputs (P C, P C), rows and columns (sample, output).
        """

        def output(points: Array) -> Callable[[Any], Array]:
            return lambda params: self.apply(params, points)[0].reshape(-1)

        f, pullback = jax.vjp(output(X if others is None else others), params)
        columns = lax.map(lambda one: jax.jvp(output(X), (params,), pullback(one))[1], jnp.eye(len(f), dtype=f.dtype))
        return self.width * columns.T

    def fields(self, constants: Constants, weights: Weights, t: Array) -> list[dict[str, Array]]:
        """At every activation: h, z = gamma0 N df/dphi(h) and g = gamma0 N df/dh, of all sites (P, A N) each.

        Of several outputs z and g are sum_c Delta_c z_c and sum_c Delta_c g_c, with the error signal before step t.
        """
        output, passed, pullback = self.pulled(weights.params, constants.X)
        toward = jnp.ones_like(output)
        if self.outputs is not None:
            f = output / constants.gamma0
            toward = self.loss.signal(f - jnp.where(t == 0, f, weights.f0), constants.y)
        _, slopes = pullback(toward)
        places = zip(passed["h"], slopes["phi"], slopes["h"], strict=True)
        named = ({"h": h, "z": self.width * z, "g": self.width * g} for h, z, g in places)
        return [{name: each.reshape(len(each), -1) for name, each in place.items()} for place in named]

    def advance(
        self, kernels: Kernels, constants: Constants, weights: Weights, start: Array, stop: Array, updates: Updates
    ) -> Advance:
        """Train all networks (leading axis of `weights`) from row `start` to `stop`, at most CHUNK rows.

        `updates` are those of CHUNK rows from `start` on (CHUNK, ...). Ends early after a row at which a network
        diverged.
        """
        every = jax.vmap(functools.partial(self.step, kernels, constants), in_axes=(0, None, None))
        _, record = jax.eval_shape(every, weights, start, jax.tree.map(lambda values: values[0], updates))
        records = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), record)

        def go(now: Advance) -> Advance:
            weights, record = every(now.weights, now.t, jax.tree.map(lambda values: values[now.t - start], updates))
            loss = self.loss.values(record.f, constants.y) @ constants.weights
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


def begun(finite: Finite, momentum: bool, seeds: Array, y: Array, stream_y: Array | None = None) -> Weights:
    """The networks of `seeds` (R,) at initialization; f0, shaped as y (and the stream's), is known once they ran."""
    params = lax.map(finite.init, seeds)
    velocity = jax.tree.map(jnp.zeros_like, params) if momentum else None
    f0, stream_f0 = jax.tree.map(lambda of: jnp.zeros((len(seeds), *of.shape), of.dtype), (y, stream_y))
    return Weights(params, f0, velocity, stream_f0)


@functools.lru_cache(maxsize=32)
def compiled(
    finite: Finite,
    kernels: Kernels,
    points: int,
    seeds: int,
    precision: str,
    rule: tuple[bool, bool] = (False, False),
    batches: tuple[int, int] | None = None,
    fresh: int | None = None,
) -> Programs:
    """Everything that `seeds` networks at once need, compiled (under the x64 setting of `precision`).

    They learn with momentum and weight decay if `rule` says so, from batches of (updates between rows, size) of a
    stream of `fresh` points, or of the `points`; from all of these if None.
    """
    real, whole = jnp.dtype(precision), jnp.asarray(0).dtype

    def like(*shape: int, dtype: Any = real) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    outputs = () if finite.outputs is None else (finite.outputs,)
    y = like(points, *outputs)
    stream = None if fresh is None else (like(fresh, *finite.inputs), like(fresh, *outputs))
    momentum, decay = (like() if has else None for has in rule)
    data = like(points, *finite.inputs), y, like(points)
    constants = Constants(*data, like(), like(dtype=whole), like(), momentum, decay, stream)
    updates = Updates(like(CHUNK, 1))
    if batches is not None:
        updates = Updates(like(CHUNK, batches[0]), like(CHUNK, *batches, dtype=jnp.int32), like(CHUNK, *batches))
    init = jax.jit(lambda numbers: begun(finite, rule[0], numbers, y, stream and stream[1])).lower(
        like(seeds, dtype=jnp.uint32)
    )
    weights, step = init.out_info, like(dtype=whole)
    advance = jax.jit(functools.partial(finite.advance, kernels), donate_argnums=1)
    fields = jax.jit(jax.vmap(finite.fields, in_axes=(None, 0, None))).lower(constants, weights, step)
    advance = advance.lower(constants, weights, step, step, updates)
    return Programs(init.compile(), advance.compile(), fields.compile())
