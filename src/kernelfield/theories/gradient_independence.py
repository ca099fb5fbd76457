"""Gradient independence: W(0) forward and W(0)^T backward are treated as two unrelated matrices."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.engine.infinite_matrix import Feedback
from kernelfield.layers import FieldTrace
from kernelfield.layers.kernels import Pair
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.method import OnParticles
from kernelfield.march.recorder import field_pairs, tangent_kernel
from kernelfield.march.step import Constants, Marched, Pace, Step
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.theories.deep_linear import DeepLinear, LinearRun


class GradientIndependence(OnParticles):
    """Infinite width without responses, A = B = 0: exact in the lazy limit and for one hidden layer.

    Fields follow the equations of the theory without their responses. Predictions follow the tangent kernel,
    df/dt = NTK Delta, in the form that is exact in discrete time:

        gamma0 [f(t+1) - f(t)] = c sum_l [G^{l+1}(t,t) Phi^l(t+1,t)] Delta(t) + sum_l <z^l dphi(h^l) - g^l dh^l>

    with c = eta gamma0 / P, dh = h(t+1) - h(t) and z, g before the step. Linear networks are solved exactly, by the
    algebraic equations of `DeepLinear` with A = B = 0.

    Args:
        particles, replicates, seed, tol, directions, precision: as in `March`.

    Source: arXiv:2205.09653, section 5, "gradient independence"; there in continuous time.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, network = kf.Problem(np.eye(2), [1.0, -1.0]), kf.MLP(depth=1, activation="linear")
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> approximate = kf.solve(network, problem, training, kf.GradientIndependence())
        >>> bool(np.allclose(approximate.predictions, kf.solve(network, problem, training).predictions))
        True
    """

    feedback: ClassVar[Feedback] = Feedback(alignment=0.0)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "schedule"})

    def solve(self, run: Run, progress: Report, checkpoint: Checkpoint | None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        network, training = run.network, cast(GradientDescent, run.training)
        is_plain = isinstance(network, MLP) and network.is_plain and run.problem.loss.name == "mse" and training.plain
        if not (network.is_linear and is_plain):
            return super().solve(run, progress, checkpoint)
        solution = LinearRun(run, DeepLinear(seed=self.seed), coupling=0.0).solve(progress)
        info = {name: value for name, value in solution.info.items() if name != "readout_gap"}  # f is not <z^L h^L>
        return dataclasses.replace(solution, info=info)

    def step(self, run: Run) -> Step:
        """Returns a step that adds up the predictions."""
        return IncrementalStep(run.network.layers, run.problem.loss)


class Memory(NamedTuple):
    """The states of all layers, and from the step before its output f (P, 1), its update, and its fields.

    The update (P,) is the learning rate times weights times error signals. `pairs` are features and gradients at
    weights, `fields` those at activations.
    """

    layers: tuple
    f: Array
    update: Array
    pairs: list[Pair]
    fields: tuple[FieldTrace, ...]


@dataclasses.dataclass(frozen=True)
class IncrementalStep(Step):
    """A step that adds to the output before what the tangent kernel gives; gradients do not carry Delta."""

    def begin(self, constants: Constants, state: Marched) -> Memory:
        """Returns a memory of zeros before the first step: fields of zero add nothing."""

        def fields(layers: tuple) -> tuple:
            _, passed = self.every_output(layers, self.forward(layers, constants.data, None)[1])
            return field_pairs(self.layers, passed), self.fields(passed)

        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(fields, state.layers))
        f, update = jnp.zeros(constants.y.shape), jnp.zeros(len(constants.y))
        return Memory(state.layers, f, update, *zeros)

    def __call__(self, constants: Constants, state: Memory, pace: Pace) -> tuple[Memory, Array]:
        """Returns the memory after the step, and f before it."""
        layers, passed = self.forward(state.layers, constants.data, constants.weights)
        pairs = [Pair(new.F, old.G) for new, old in zip(field_pairs(self.layers, passed), state.pairs, strict=True)]
        change = tangent_kernel(self.layers, pairs, state.pairs) @ state.update
        change = change + curvature(state.fields, self.fields(passed)) / constants.gamma0
        f = state.f + change[:, None]
        rate = constants.weights * self.loss.signal(f, constants.y)[:, 0]
        one = jnp.ones((len(constants.y), 1))
        layers, passed = self.backward(layers, passed, one, constants.weights)
        layers = self.learn(constants, layers, passed, rate, pace)
        now = f, pace.eta * rate, field_pairs(self.layers, passed), self.fields(passed)
        return Memory(layers, *jax.tree.map(lambda old, new: jnp.where(pace.learns, new, old), state[1:], now)), f


def curvature(before: tuple[FieldTrace, ...], now: tuple[FieldTrace, ...]) -> Array:
    """Returns sum_l <z^l dphi(h^l) - g^l dh^l> (P,), between two steps, summed over sites."""
    layers = (
        jnp.mean(old.z * (new.phi - old.phi) - old.g * (new.h - old.h), axis=-1).reshape(len(old.h), -1).sum(axis=1)
        for old, new in zip(before, now, strict=True)
    )
    return sum(layers, jnp.zeros(()))
