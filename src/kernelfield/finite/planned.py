"""Conditioned networks along one plan of directions: many at once, coupled by their neurons, and differentiable."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.describe.run import Run
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, collect
from kernelfield.engine.plan import Plan, Planner
from kernelfield.engine.points import Population, independent
from kernelfield.engine.series import Fields
from kernelfield.finite.conditioned import Conditioned, ConditionedStep
from kernelfield.layers import Readout
from kernelfield.layers.base import Mass
from kernelfield.layers.kernels import Pair
from kernelfield.layers.weights import Weights
from kernelfield.march.layout import Layout
from kernelfield.march.recorder import field_pairs, learned_uses, tangent_kernel
from kernelfield.march.replicate import initial_state
from kernelfield.march.step import Constants, Marched, Pace, at_start, entry


class Ends(NamedTuple):
    """What the populations below and above weights have: their numbers, or the weights of their particles."""

    below: Any = None  # None for data, and for weights that are vectors
    above: Any = None  # None for outputs


@dataclasses.dataclass(frozen=True)
class PlannedStep(ConditionedStep):
    """A step whose directions a plan chooses."""

    plan: Any = None
    weights: Any = None  # of the particles of the last hidden layer in averages (S,); None if all are one

    def mass(self, constants: Constants) -> Mass:
        """Returns the plan."""
        return self.plan

    def output(self, gamma0: float, layers: tuple, phi: Fields, initial: Array) -> Fields:
        """Returns the outputs f (P, C)."""
        if self.weights is not None:
            phi, initial = phi * self.weights, initial * self.weights
        return super().output(gamma0, layers, phi, initial)


@dataclass(frozen=True, eq=False)
class PlannedNetworks:
    """Networks of finite width that train along a plan.

    Args:
        run: by `Conditioned`, on all points at once.
        plan: rows (1, m) of every field of the first step, and (T, m') of later ones.
        capacity: room for directions.
    """

    run: Run
    plan: tuple[Sequence[np.ndarray], Sequence[np.ndarray]]
    capacity: int

    @classmethod
    def of(cls, run: Run, tol: float) -> PlannedNetworks:
        """Returns the networks of a run, with the plan that one of them makes; it leaves out no more than `tol`."""
        bare = cls(run, ([], []), cast(Conditioned, run.method).particles)
        table, most = jax.tree.map(np.asarray, jax.jit(bare.make_plan, static_argnums=1)(bare.start(0), tol))
        first, later = ([_cut(rows[part]) for rows in table] for part in (slice(1), slice(1, None)))
        places = [place for place, _, _ in learned_uses(bare.step.layers, None)]
        uses = max(places.count(place) for place in places)
        further = max((rows.shape[1] for rows in (*first, *later)), default=0)  # what fills up rows has room too
        return cls(run, (first, later), int(most) + uses * further)

    def make_plan(self, layers: tuple, tol: float) -> tuple[list[Array], Array]:
        """Returns the plan of a network, as many rows as there are for every field, and the directions of a field."""

        def go(state: Marched, pace: Pace) -> tuple[Marched, list[Array]]:
            planner = Planner(tol)
            return self.along(planner)(self.constants, state, pace)[0], planner.chosen

        end, table = lax.scan(go, self.begin(layers), self.paces)
        planner = Planner(tol)
        measure(self.along(planner), self.constants, end)
        last = [*planner.chosen, *(jnp.full(rows.shape[1], -1) for rows in table[len(planner.chosen) :])]
        table = [jnp.concatenate([rows, row[None]]) for rows, row in zip(table, last, strict=True)]
        sizes = [side.size for W in collect(end.layers, InfiniteMatrix) for side in (W.below, W.above)]
        return table, jnp.max(jnp.stack([jnp.zeros((), int), *sizes])) + max(map(len, planner.chosen), default=0)

    def layout(self, width: int | None = None) -> Layout:
        """Returns the layout of networks of a width, by default that of the run."""
        method = cast(Conditioned, self.run.method)
        settings = {"particles": width or method.particles, "directions": self.capacity}
        return Layout(replace(self.run, method=method.model_copy(update=settings)))

    @functools.cached_property
    def step(self) -> ConditionedStep:
        """One step of training."""
        return cast(ConditionedStep, self.layout().step)

    def along(self, plan: Plan, weights: Array | None = None) -> PlannedStep:
        """Returns one step of training along a plan, with weights of the particles of the last hidden layer."""
        return PlannedStep(**vars(self.step), plan=plan, weights=weights)

    @functools.cached_property
    def constants(self) -> Constants:
        """The constants of all points."""
        with jax.ensure_compile_time_eval():  # whoever asks first
            return self.layout().constants()[0]

    @functools.cached_property
    def paces(self) -> Pace:
        """The paces of all steps."""
        eta = self.layout().schedule()[0]
        learns: Any = np.ones(len(eta), bool)
        first: Any = np.arange(len(eta)) == 0
        return Pace(cast(Any, eta), learns, first)

    def lay_out(self, width: int | None = None) -> tuple[Any, list[Population]]:
        """Returns the layers, with lanes in place of coordinates, and the populations of a network of a width."""
        layout = self.layout(width)
        setup = replace(layout.setup(0), populations=[])
        state, _ = layout.step.layers.init(setup, layout.space)
        roots = {id(each.root): each.root for each in setup.populations}
        return state, list(roots.values())

    @functools.cached_property
    def ends(self) -> dict[int, Ends]:
        """The numbers of the populations below and above, by the number of weights."""
        state, populations = self.lay_out()
        number = {lane: place for place, each in enumerate(populations) for lane in each.lanes}
        lanes: list[Any] = [
            (W.down.K, W.up.K) if isinstance(W, InfiniteMatrix) else W.K
            for W in collect(state, (InfiniteMatrix, Images))
        ]
        ends = {}
        for place, layer, _ in learned_uses(self.step.layers, None):
            lane = lanes[place]
            if isinstance(lane, tuple):
                ends[place] = Ends(*(number[side] for side in lane))
            else:
                ends[place] = Ends(below=number[lane]) if isinstance(layer, Readout) else Ends(above=number[lane])
        return ends

    def start(self, seed: int, width: int | None = None, part: int = 0, parts: int = 1) -> tuple:
        """Returns the layers of a network at initialization.

        It has one of the equal parts of the neurons of a network that is `parts` times as wide.
        """
        layout = self.layout(width)

        def points(dimensions: int, particles: int, seed: np.random.SeedSequence, first: int = 0) -> np.ndarray:
            whole = independent(dimensions, parts * particles, seed, first)
            return whole[:, part * particles : (part + 1) * particles]

        return initial_state(layout.step.layers, replace(layout.setup(seed), points=points), layout.space)

    def begin(self, layers: tuple) -> Marched:
        """Returns the state at the first step."""
        phi = jax.eval_shape(lambda layers: self.step.forward(layers, self.constants.data, None)[1].readout.phi, layers)
        return Marched(jax.device_put(layers), jnp.zeros(phi.shape, phi.dtype))

    def results(self, layers: tuple, weights: Sequence[Array] | None = None) -> Array:
        """Returns what `measure` finds of one network after training (Q,).

        Args:
            layers: at initialization.
            weights: (S,) of the particles of every population in averages, near one; None if all are one.
        """
        ends, numbers, last = self.ends, itertools.count(), None
        if weights is not None:
            ends = {place: Ends(*(at if at is None else weights[at] for at in both)) for place, both in ends.items()}
            last = ends[max(ends)].below

        def empty(W: Any) -> Any:  # sizes are the plan's, and those of no network
            both = ends[next(numbers)]
            if not isinstance(W, InfiniteMatrix):
                return W
            sides = zip((W.below, W.above), both if weights is not None else (None, None), strict=True)
            below, above = (side._replace(size=jnp.zeros((), int), weights=of_side) for side, of_side in sides)
            return replace(W, below=below, above=above)

        def go(state: Marched, row: tuple[Pace, list[Array]]) -> tuple[Marched, None]:
            return self.along(Plan(row[1]), last)(self.constants, state, row[0])[0], None

        layers = jax.tree.map(empty, layers, is_leaf=lambda leaf: isinstance(leaf, (InfiniteMatrix, Images)))
        first, later = ([jnp.asarray(rows) for rows in part] for part in self.plan)
        state, _ = go(self.begin(layers), (entry(self.paces, 0), entry(first, 0)))
        paces = jax.tree.map(lambda values: values[1:], self.paces)
        end, _ = lax.scan(jax.checkpoint(go), state, (paces, [rows[:-1] for rows in later]))
        plan = Plan(entry(later, -1))
        return measure(self.along(plan, last), self.constants, end, ends if weights is not None else {})


def _cut(rows: np.ndarray) -> np.ndarray:
    """Returns rows (t, n) of a field, which -1 fills up, as (t, m) with the largest number m of any step."""
    return rows[:, : max(1, (rows >= 0).sum(axis=1).max(initial=1))]


def measure(step: PlannedStep, constants: Constants, state: Marched, weights: Any = None) -> Array:
    """Returns what a network is measured by: f, and the alignments y K y / |y|^2 of its kernels with the targets.

    They are f (P C,), the feature kernels of hidden layers 1..L (L,), and for one output the gradient kernels of these
    layers (L,) and the tangent kernel (1,). Only points that train have targets.

    Args:
        step, constants, state: the network.
        weights: Ends of the weights of particles in averages, by the number of weights.
    """
    weights, last, plan = weights or {}, None, step.plan
    layers, passed = step.forward(state.layers, constants.data, plan)
    start = at_start(step, layers, constants.data) if step.decays else state.initial
    f = step.output(constants.gamma0, layers, passed.readout.phi, start)
    if step.outputs == 1:
        layers, passed = step.every_output(layers, passed, plan)
    y = constants.y * (constants.weights > 0)[:, None]
    y = y / jnp.sqrt(jnp.sum(y * y))

    def align(x: Array, of_particles: Array | None) -> Array:
        """The sum over outputs and sites of the mean square of y . x."""
        squares = jnp.einsum("pc,p...->c...", y, x) ** 2
        return jnp.sum(jnp.mean(squares if of_particles is None else squares * of_particles, axis=-1))

    features, gradients = [], []
    for place, layer, trace in learned_uses(step.layers, passed):
        of = weights.get(place, Ends())
        if place > 0 and isinstance(layer, (Weights, Readout)):
            features.append(align(trace.phi, of.below) / np.prod(trace.phi.shape[1:-1]))
        if step.outputs == 1 and isinstance(layer, Weights):
            gradients.append(align(trace.g, of.above))
    if step.outputs == 1:
        pairs = field_pairs(step.layers, passed)
        places = [place for place, _, _ in learned_uses(step.layers, None)]
        weighted = [_weigh(pair, weights.get(place, Ends())) for place, pair in zip(places, pairs, strict=True)]
        last = y[:, 0] @ tangent_kernel(step.layers, weighted, pairs) @ y[:, 0]
    scalars = [*features, *gradients, *([] if last is None else [last])]
    return jnp.concatenate([jnp.ravel(f), jnp.stack(scalars)])


def _weigh(pair: Pair, of: Ends) -> Pair:
    return Pair(*(x if w is None else x * w for x, w in zip(pair, of, strict=True)))
