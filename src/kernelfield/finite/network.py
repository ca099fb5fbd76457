"""A network of finite width as plain functions: outputs, gradients by `jax.vjp`, training of many at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.ode import odeint

from kernelfield.describe.losses import Loss
from kernelfield.describe.rules import Hebbian, LearningRule
from kernelfield.finite.lesson import Lesson, draw_feedback
from kernelfield.finite.optimizers import Moments, add_noise, normalize, start_moments
from kernelfield.march.recorder import correlate

if TYPE_CHECKING:
    from kernelfield.layers import Sequential

Kernels = Literal["all", "per_output", "features", "none"]
Places = dict[str, list[Array]]  # values at the places of a network by their kind, see `Layer.finite_apply`
CHUNK = 32  # rows recorded on the device between two fetches, at most
STREAMED = 256  # points of a stream whose first outputs are computed at once
OTHER_OUTPUTS, NOISE, FEEDBACK = (2**31 - number for number in (1, 2, 4))  # of keys: layers have 0, 1, ...


class Constants(NamedTuple):
    """X (P, D) or (P, *sites, C), y (P, C), weights (P,), gamma0, last row T, and the highest loss.

    A run whose loss exceeds it has diverged. Mini-batches take their points from the stream (X, y), if there is one.
    `moments` are the settings of Adam, and `temperature` is that of Langevin noise.
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
    moments: Moments | None = None
    temperature: Array | None = None


class Updates(NamedTuple):
    """The updates U between two rows: rates eta (U,), and the points of mini-batches (U, B) with weights (U, B).

    Without points there is one update, on all of them.
    """

    eta: Any  # arrays of NumPy, or of JAX
    rows: Any = None
    weights: Any = None


class State(NamedTuple):
    """One network in training: its parameters, its output f0 at initialization, and its velocity with momentum.

    `stream_f0` is the output at initialization of the points of a stream, `moments` is the state of Adam, and `key`
    that of Langevin noise.
    """

    params: Any
    f0: Array
    velocity: Any = None
    stream_f0: Array | None = None
    feedback: Any = None  # the weights of a learning rule that rest, see `Lesson`
    moments: Any = None
    key: Array | None = None


class Record(NamedTuple):
    """f, features and gradients g of hidden layers 1..L, (P, *sites, N) each, and the tangent kernel (P, P).

    f is (P, C); gradients of every output have rows (sample, output), P C of them, as the tangent kernel.
    """

    f: Any
    features: Any = ()
    gradients: Any = ()
    tangent: Any = None
    cosines: Any = ()  # of learning rules, between gradients and what stands for them, (P C, P C) a hidden layer
    effective: Any = None  # of learning rules, the effective tangent kernel (P C, P C)


class Advance(NamedTuple):
    """All networks before row `t`, and the records of the rows since `start`."""

    state: State
    t: Array
    alive: Array
    records: Record


@dataclass(frozen=True)
class FiniteNetwork:
    """A network of width N and its training, as plain functions of its parameters."""

    layers: Sequential
    inputs: tuple[int, ...]  # the shape of one input, (D,) or (*sites, C)
    width: int
    loss: Loss
    outputs: int = 1  # C
    factorizes: bool = True  # feature and gradient kernels give the tangent kernel, which else is recorded
    rtol: float | None = None  # of gradient flow, relative to the motion of weights; None in discrete time
    kernels: Kernels = "all"  # those that are recorded, see `kernelfield.FiniteWidth`
    rule: LearningRule | None = None
    centered: bool = True  # f is the output minus its value at initialization; with Langevin noise the output itself

    def init(self, seed: Array) -> Any:
        """Returns parameters at initialization; the readout has weights (C, sites N)."""

        def draw(key: Array) -> Any:
            return self.layers.finite_init(key, self.inputs, self.width)[0]

        key = jax.random.key(seed)
        params = draw(key)
        if self.outputs == 1:
            return params
        (*below, first), tree = jax.tree.flatten(params)  # the last leaf is the readout's, with a row for each network
        keys = jax.random.split(jax.random.fold_in(key, OTHER_OUTPUTS), self.outputs - 1)
        others = jax.vmap(lambda key: jax.tree.leaves(draw(key))[-1][0])(keys)
        return tree.unflatten([*below, jnp.concatenate([first, others])])

    def start(self, constants: Constants, seeds: Array) -> State:
        """Returns the networks of `seeds` (R,) at initialization; their f0 and stream_f0 come with row 0."""
        params = lax.map(self.init, seeds)
        velocity = None if constants.momentum is None else jax.tree.map(jnp.zeros_like, params)
        targets = constants.y, constants.stream and constants.stream[1]
        f0, stream_f0 = jax.tree.map(lambda y: jnp.zeros((len(seeds), *y.shape), y.dtype), targets)
        feedback = None if self.rule is None else lax.map(self.init_feedback, seeds)
        moments = None if constants.moments is None else jax.vmap(start_moments)(params)
        key = None
        if constants.temperature is not None:
            key = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), NOISE))(seeds)
        return State(params, f0, velocity, stream_f0, feedback, moments, key)

    def initial_output(self, state: State, t: Array, f: Array) -> Array:
        """Returns f0, which is subtracted from outputs: their value at initialization, or zero unless `centered`.

        At row t outputs are f, before anything is subtracted.
        """
        return jnp.where(t == 0, f, state.f0) if self.centered else state.f0

    def init_feedback(self, seed: Array) -> Any:
        """Returns the weights of the learning rule that rest."""
        assert self.rule is not None
        key, other = (jax.random.fold_in(jax.random.key(seed), FEEDBACK - number) for number in range(2))
        params, others = self.init(seed), self.init(jax.random.bits(other))
        x = jax.ShapeDtypeStruct((1, *self.inputs), jnp.float32)
        shapes = [values.shape[1:] for values in jax.eval_shape(self.apply, params, x)[1]["in"]]
        return draw_feedback(self.rule, self.layers, key, params, others, shapes)

    def lesson(self, constants: Constants, params: Any, feedback: Any, f0: Array, X: Array, y: Array) -> Lesson | None:
        """Returns the lesson of some points; None for gradients."""
        if self.rule is None:
            return None
        Delta = None
        if isinstance(self.rule, Hebbian):
            Delta = lax.stop_gradient(self.loss.signal(self.apply(params, X)[0] / constants.gamma0 - f0, y))
        return Lesson(self.rule, feedback, self.width, Delta)

    def apply(
        self, params: Any, x: Array, probes: Places | None = None, lesson: Lesson | None = None
    ) -> tuple[Array, Places]:
        """Returns gamma0 f (P, C), and the values at all places, to which probes are added.

        A lesson changes derivatives, and no value.
        """
        places: Places = {"in": [], "out": [], "h": [], "phi": []}
        lesson = lesson and lesson.begin()

        def tape(kind: str, values: Array) -> Array:
            if probes is not None:
                values = values + probes[kind][len(places[kind])]
            places[kind].append(values)
            return values if lesson is None else lesson.teach(kind, values, len(places[kind]) - 1)

        if lesson is None:
            return self.layers.finite_apply(params, x, tape), places
        f = self.layers.finite_apply(lesson.pair(params), x, tape)
        return f + lesson.detour, places

    def pull_back(
        self, params: Any, x: Array, lesson: Lesson | None = None
    ) -> tuple[Array, Places, Callable[[Array], tuple[Any, Places]]]:
        """Returns gamma0 f, the values at all places, and the pullback of gamma0 f to parameters and these values."""
        probes = jax.tree.map(jnp.zeros_like, jax.eval_shape(self.apply, params, x)[1])
        f, pullback, places = jax.vjp(
            lambda *inputs: self.apply(inputs[0], x, inputs[1], lesson), params, probes, has_aux=True
        )
        return f, places, pullback

    def step(self, constants: Constants, state: State, t: Array, updates: Updates) -> tuple[State, Record]:
        """Returns the network after the updates that follow row t, and the record of all points at this row."""
        output, places, pullback = self.pull_back(state.params, constants.X)
        f = output / constants.gamma0
        state = state._replace(f0=self.initial_output(state, t, f))
        if constants.stream is not None:
            state = state._replace(stream_f0=self.first_outputs(constants, constants.stream[0], state, t))
        row = self.record(constants, state, f, places, pullback)
        if self.rtol is not None:
            return self.flow(constants, state, t, updates.eta[0]), row
        if updates.rows is not None:
            return self.epoch(constants, state, jnp.where(t < constants.last, len(updates.eta), 0), updates), row
        if self.rule is None:
            descent, _ = pullback(constants.weights[:, None] * self.loss.signal(row.f, constants.y))
        else:
            descent = self.descent(constants, state, state.f0, constants.X, constants.y, constants.weights)
        return self.update(constants, state, updates.eta[0], descent), row

    def look(self, constants: Constants, state: State, t: Array) -> Record:
        """Returns the record of all points at row t."""
        output, places, pullback = self.pull_back(state.params, constants.X)
        f = output / constants.gamma0
        state = state._replace(f0=self.initial_output(state, t, f))
        return self.record(constants, state, f, places, pullback)

    def record(self, constants: Constants, state: State, f: Array, places: Places, pullback: Any) -> Record:
        """Returns f minus its value at initialization, and the fields of kernels."""
        with_gradients = self.kernels == "per_output" or (self.kernels == "all" and self.outputs == 1)
        gradients = self.gradients(pullback, f) if with_gradients else ()
        row = Record(
            f - state.f0,
            tuple(places["in"][1:]) if self.kernels != "none" else (),
            gradients,
            self.tangent(state.params, constants.X, constants.X) if with_gradients and not self.factorizes else None,
        )
        if self.rule is None or not with_gradients:
            return row
        lesson = self.lesson(constants, state.params, state.feedback, state.f0, constants.X, constants.y)
        pseudo = self.gradients(self.pull_back(state.params, constants.X, lesson)[2], f)
        cosines = tuple(correlate(one, other) for one, other in zip(gradients, pseudo, strict=True))
        return row._replace(cosines=cosines, effective=self.tangent(state.params, constants.X, constants.X, lesson))

    def first_outputs(self, constants: Constants, X: Array, state: State, t: Array) -> Array:
        """Returns f of all points X of the stream at initialization, computed at row 0, a few points at once."""

        def output(x: Array) -> Array:
            return self.apply(state.params, x[None])[0][0] / constants.gamma0

        return lax.cond(t == 0, lambda _: lax.map(output, X, batch_size=STREAMED), lambda f0: f0, state.stream_f0)

    def epoch(self, constants: Constants, state: State, count: Array, updates: Updates) -> State:
        """Returns the network after the first `count` updates, each of which touches the points of its batch alone."""
        X, y = constants.stream or (constants.X, constants.y)

        def update(place: Array, state: State) -> State:
            eta, rows, weights = (values[place] for values in updates)
            f0 = state.f0 if state.stream_f0 is None else state.stream_f0
            descent = self.descent(constants, state, f0[rows], X[rows], y[rows], weights)
            return self.update(constants, state, eta, descent)

        return lax.fori_loop(0, count, update, state)

    def flow(self, constants: Constants, state: State, t: Array, time: Array) -> State:
        """Returns the network at the next row of gradient flow, by Dormand and Prince's method and steps.

        The method is explicit. Weights of order one move by O(N^-1/2), and errors are small against that.
        """

        def velocity(params: Any, _: Array) -> Any:
            now = state._replace(params=params)
            descent = self.descent(constants, now, state.f0, constants.X, constants.y, constants.weights)
            return jax.tree.map(lambda slope: constants.gamma0 * self.width * slope, descent)

        times, atol = jnp.stack([jnp.zeros_like(time), time]), (self.rtol or 0.0) / math.sqrt(self.width)
        ends = odeint(velocity, state.params, times, rtol=0.0, atol=atol)
        params = jax.tree.map(lambda old, new: jnp.where(t < constants.last, new[1], old), state.params, ends)
        return state._replace(params=params)

    def descent(self, constants: Constants, state: State, f0: Array, X: Array, y: Array, weights: Array) -> Any:
        """Returns the descent of the loss of points with weights (P,) through gamma0 f, shaped as the parameters."""
        lesson = self.lesson(constants, state.params, state.feedback, f0, X, y)
        f, pullback = jax.vjp(lambda params: self.apply(params, X, lesson=lesson)[0], state.params)
        return pullback(weights[:, None] * self.loss.signal(f / constants.gamma0 - f0, y))[0]

    def update(self, constants: Constants, state: State, eta: Array, descent: Any) -> State:
        """Returns the network after an update with rate eta gamma0^2 N along v, and Langevin noise.

        v is `descent`, its sum with momentum, or Q / (N sqrt(n)) of Adam, whose G is N sqrt(n) `descent`.
        """
        rate, params = eta * constants.gamma0 * self.width, state.params
        if constants.moments is not None:
            units = jax.tree.map(lambda n: self.width * math.sqrt(n), self.layers.fan_in(params))
            descent, moments = normalize(constants.moments, state.moments, descent, units)
            state = state._replace(moments=moments)
        if constants.momentum is not None:
            descent = jax.tree.map(lambda v, slope: constants.momentum * v + slope, state.velocity, descent)
            state = state._replace(velocity=descent)
        if constants.weight_decay is not None:
            remainder = 1 - eta * constants.weight_decay
            params = jax.tree.map(lambda value: remainder * value, params)
        params = jax.tree.map(lambda value, slope: value + rate * slope, params, descent)
        if state.key is not None and constants.temperature is not None:
            key, fresh = jax.random.split(state.key)
            params = add_noise(fresh, params, jnp.sqrt(2 * eta * constants.temperature))
            state = state._replace(key=key)
        return state._replace(params=params)

    def gradients(self, pullback: Callable[[Array], tuple[Any, Places]], f: Array) -> tuple[Array, ...]:
        """Returns g = gamma0 N df/dh of hidden layers, (P, *sites, N), or of every output (P C, *sites, N)."""

        def slopes(cotangent: Array) -> list[Array]:  # rows are independent: ones give the slopes of all rows at once
            return [self.width * slope for slope in pullback(cotangent)[1]["out"][:-1]]

        units = jnp.broadcast_to(jnp.eye(self.outputs, dtype=f.dtype)[:, None], (self.outputs, *f.shape))
        return tuple(jnp.moveaxis(g, 0, 1).reshape(f.size, *g.shape[2:]) for g in jax.vmap(slopes)(units))

    def tangent(self, params: Any, X: Array, others: Array, lesson: Lesson | None = None) -> Array:
        """Returns the tangent kernel N gamma0^2 (df_mu/dW) . (df_nu/dW) (P, P'), one column after the other.

        With several outputs it is (P C, P' C), with rows and columns (sample, output). Columns are those of a lesson.
        """

        def output(points: Array, lesson: Lesson | None = None) -> Callable[[Any], Array]:
            return lambda params: self.apply(params, points, lesson=lesson)[0].reshape(-1)

        f, pullback = jax.vjp(output(others, lesson), params)
        columns = lax.map(lambda unit: jax.jvp(output(X), (params,), pullback(unit))[1], jnp.eye(len(f), dtype=f.dtype))
        return self.width * columns.T

    def fields(self, constants: Constants, state: State, t: Array) -> list[dict[str, Array]]:
        """Returns h, z = gamma0 N df/dphi(h) and g = gamma0 N df/dh of all sites, (P, A N), at every activation.

        With several outputs z and g are sum_c Delta_c z_c and sum_c Delta_c g_c, with the error signal before step t.
        """
        output, places, pullback = self.pull_back(state.params, constants.X)
        cotangent = jnp.ones_like(output)
        if self.outputs > 1:
            f = output / constants.gamma0
            cotangent = self.loss.signal(f - self.initial_output(state, t, f), constants.y)
        _, slopes = pullback(cotangent)
        activations = zip(places["h"], slopes["phi"], slopes["h"], strict=True)
        fields = [{"h": h, "z": self.width * z, "g": self.width * g} for h, z, g in activations]
        return jax.tree.map(lambda field: field.reshape(len(field), -1), fields)

    def advance(self, constants: Constants, state: State, start: Array, stop: Array, updates: Updates) -> Advance:
        """Returns all networks (leading axis of `state`) after rows `start` to `stop` - 1, at most CHUNK rows.

        `updates` are those of CHUNK rows from `start` on (CHUNK, ...). A row at which a network diverged is the last.
        """
        step = jax.jit(jax.vmap(functools.partial(self.step, constants), in_axes=(0, None, None)), inline=True)
        _, record = jax.eval_shape(step, state, start, jax.tree.map(lambda values: values[0], updates))
        records = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), record)

        def go(now: Advance) -> Advance:
            place = now.t - start
            state, record = step(now.state, now.t, jax.tree.map(lambda values: values[place], updates))
            loss = self.loss.values(record.f, constants.y) @ constants.weights
            put = functools.partial(lax.dynamic_update_index_in_dim, index=place, axis=0)
            return Advance(state, now.t + 1, jnp.all(loss <= constants.limit), jax.tree.map(put, now.records, record))

        begin = Advance(state, start, jnp.array(True), records)
        return lax.while_loop(lambda now: (now.t < stop) & now.alive, go, begin)
