"""Gradient independence: W(0) forward and W(0)^T backward are treated as two unrelated matrices."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.layers import FieldTrace
from kernelfield.layers.base import Pair
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.method import OnParticles
from kernelfield.march.recorder import field_pairs, tangent_kernel
from kernelfield.march.step import Constants, Marched, Pace, Step
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.theories.deep_linear import DeepLinear, LinearRun


class GradientIndependence(OnParticles):
    """Infinite width without responses, A = B = 0: exact in the lazy limit and for one hidden layer.

    Fields follow the equations of the theory without their responses, and predictions follow the tangent kernel,
    df/dt = NTK Delta, in its form that is exact in discrete time:

        gamma0 [f(t+1) - f(t)] = c sum_l [G^{l+1}(t,t) Phi^l(t+1,t)] Delta(t) + sum_l <z^l dphi(h^l) - g^l dh^l>

    with c = eta gamma0 / P, dh = h(t+1) - h(t) and z, g before the step. Linear networks are solved exactly, by the
    algebraic equations of `DeepLinear` with A = B = 0.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        tol, directions, precision: as in `March`.

    Source: arXiv:2205.09653, section 5, "gradient independence"; there in continuous time.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, network = kf.Problem(np.eye(2), [1.0, -1.0]), kf.MLP(depth=1, activation="linear")
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> approximate = kf.solve(network, problem, training, kf.GradientIndependence())
        >>> bool(np.allclose(approximate.predictions, kf.solve(network, problem, training).predictions))
        True
    """

    coupled: ClassVar[bool] = False

    takes: ClassVar[frozenset[str]] = frozenset({"losses", "schedule"})

    def solve(self, run: Run, progress: Report, checkpoint: Checkpoint | None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        network, problem, training = run.network, run.problem, cast(GradientDescent, run.training)
        plain = isinstance(network, MLP) and network.is_plain and problem.loss.name == "mse" and training.plain
        if not (network.is_linear and plain):
            return super().solve(run, progress, checkpoint)
        equations = LinearRun(run, DeepLinear(seed=self.seed), coupling=0.0)
        solution = equations.solve(progress)
        info = {name: value for name, value in solution.info.items() if name != "readout_gap"}  # f is not <z^L h^L>
        return dataclasses.replace(solution, info=info)

    def step(self, run: Run) -> Step:
        """Returns a step that adds up the predictions."""
        return IncrementalStep(run.network.layers, run.problem.loss)


class Memory(NamedTuple):
    """The step before: its output f (P,), learning rates times error signals (P,), and its fields.

    `pairs` are features and gradients at weights, `fields` those at activations.
    """

    f: Array
    moved: Array
    pairs: list[Pair]
    fields: tuple[FieldTrace, ...]


class Remembering(NamedTuple):
    """The state of the march, and the step before."""

    march: Marched
    memory: Memory

    @property
    def layers(self) -> tuple:
        """States of all layers."""
        return self.march.layers

    def with_layers(self, layers: tuple) -> Remembering:
        """The same, with other states of the layers."""
        return self._replace(march=self.march._replace(layers=layers))


@dataclasses.dataclass(frozen=True)
class IncrementalStep(Step):
    """A step whose output is the one before, plus what the tangent kernel adds; gradients do not carry Delta."""

    def begin(self, constants: Constants, state: Marched) -> Remembering:
        """Nothing came before: fields of zero add nothing."""

        def fields(layers: tuple) -> tuple:
            _, passed = self.every_output(layers, self.forward(layers, constants.data, None)[1])
            return field_pairs(self.layers, passed), self.fields(passed)

        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(fields, state.layers))
        f, moved = (jnp.zeros(constants.y.shape) for _ in range(2))  # two, since both are given away
        return Remembering(state._replace(initial=None), Memory(f, moved, *zeros))

    def __call__(self, constants: Constants, state: Any, pace: Pace) -> tuple[Remembering, Array]:
        """As `Step`, with the output from its increments."""
        march, before = state
        layers, passed = self.forward(march.layers, constants.data, constants.weights)
        features = [pair.F for pair in field_pairs(self.layers, passed)]
        now = [Pair(F, pair.G) for F, pair in zip(features, before.pairs, strict=True)]
        learned = tangent_kernel(self.layers, now, before.pairs) @ before.moved
        f = before.f + learned + curvature(before.fields, self.fields(passed)) / constants.gamma0
        Delta = self.loss.signal(f, constants.y)
        one = jnp.ones((len(constants.y), 1))
        layers, passed = self.descend(constants, layers, passed, one, constants.weights * Delta, pace)
        memory = Memory(f, pace.eta * constants.weights * Delta, field_pairs(self.layers, passed), self.fields(passed))
        memory = jax.tree.map(lambda old, new: jnp.where(pace.learns, new, old), before, memory)
        return Remembering(Marched(layers), memory), f


def curvature(before: tuple[FieldTrace, ...], now: tuple[FieldTrace, ...]) -> Array:
    """sum_l <z^l dphi(h^l) - g^l dh^l> (P,), between two steps, summed over sites."""
    each = (
        jnp.mean(old.z * (new.phi - old.phi) - old.g * (new.h - old.h), axis=-1).reshape(len(old.h), -1).sum(axis=1)
        for old, new in zip(before, now, strict=True)
    )
    return sum(each, jnp.zeros(()))
