"""Gradient independence: W(0) forward and W(0)^T backward are treated as two unrelated matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kernelfield.checkpoint import Checkpoint
from kernelfield.engine.basis import any_full
from kernelfield.layers import FieldTrace, WeightTrace
from kernelfield.layers.base import traces
from kernelfield.layers.bias import BiasTrace
from kernelfield.march import OnParticles
from kernelfield.networks import MLP
from kernelfield.problem import Problem
from kernelfield.replicate import Constants, Pace, Record, Step, blank
from kernelfield.solution import Solution, Status
from kernelfield.theories.deep_linear import DeepLinear, LinearRun
from kernelfield.training import GradientDescent


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
        feature_tol: as in `March`.
        gradient_tol: as in `March`.

    Source: arXiv:2205.09653, section 5, "gradient independence"; there in continuous time.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, network = kf.Problem(np.eye(2), [1.0, -1.0]), kf.MLP(depth=1, activation="linear")
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> approximate = kf.solve(network, problem, training, kf.GradientIndependence())
        >>> bool(np.allclose(approximate.predictions, kf.solve(network, problem, training).predictions))
        True
    """

    coupling: ClassVar[float] = 0.0

    def run(
        self,
        network: Any,
        problem: Problem,
        training: GradientDescent,
        fields_at: Sequence[int],
        progress: Callable[[int, int], None],
        checkpoint: Checkpoint | None = None,
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        plain = isinstance(network, MLP) and network.is_plain and problem.loss.name == "mse" and training.plain
        if not (network.is_linear and plain):
            return super().run(network, problem, training, fields_at, progress, checkpoint)
        equations = LinearRun(DeepLinear(seed=self.seed), network, problem, training, coupling=0.0)
        solution = equations.solve(fields_at, progress)
        info = {name: value for name, value in solution.info.items() if name != "readout_gap"}  # f is not <z^L h^L>
        return dataclasses.replace(solution, method=self, info=info)

    takes: ClassVar[frozenset[str]] = frozenset({"losses", "schedule"})

    def step(self, network: Any, problem: Problem, training: Any) -> Step:
        """A step that adds up the predictions."""
        return IncrementalStep(network.layers, problem.loss, factorizes=network.factorizes)


class Memory(NamedTuple):
    """The step before: its output f (P,), learning rates times error signals (P,), and its trace."""

    f: Array
    moved: Array
    trace: tuple


@dataclasses.dataclass(frozen=True)
class IncrementalStep(Step):
    """A step whose output is the one before, plus what the tangent kernel adds."""

    def begin(self, state: Any, constants: Constants) -> tuple[Any, Memory]:
        """Nothing came before: an output of zero and a trace of zeros add nothing."""

        def sweep(state: Any) -> tuple:
            state, _, trace = self.forward(constants, state)
            return self.layers.backward(state, jnp.ones((len(constants.y), 1)), trace)[2]

        f, moved = (jnp.zeros_like(constants.y) for _ in range(2))  # not one array, which could not be given away twice
        return state, Memory(f, moved, blank(jax.eval_shape(sweep, state)))

    def __call__(self, constants: Constants, state: Any, pace: Pace) -> tuple[Any, Record, tuple]:
        """As `Step`, with the output from its increments."""
        state, before = state
        state, _, trace = self.forward(constants, state)
        learned = self.tangent(state, before.trace, trace) @ before.moved
        f = before.f + learned + curvature(before.trace, trace) / constants.gamma0
        Delta = self.loss.signal(f, constants.y)
        state, trace = self.descend(constants, state, trace, Delta, pace)
        memory, repeats = Memory(f, pace.eta * constants.weights * Delta, trace), any_full(state)
        memory = jax.tree.map(lambda old, new: jnp.where(repeats, old, new), before, memory)
        return (state, memory), self.recorded(state, f, trace), self.fields(trace)

    def tangent(self, state: Any, before: tuple, now: tuple) -> Array:
        """The tangent kernel (P, P) between features of now and before, for the gradients of before."""
        kinds = (WeightTrace, BiasTrace)

        def mixed(old: Any, new: Any) -> Any:
            return new._replace(G=old.G) if isinstance(old, kinds) else new

        features = jax.tree.map(mixed, before, now, is_leaf=lambda leaf: isinstance(leaf, kinds))
        return self.layers.tangent(state, features, before)


def curvature(before: tuple, now: tuple) -> Array:
    """sum_l <z^l dphi(h^l) - g^l dh^l> (P,), between two steps, summed over sites."""
    fields = zip(traces(before, FieldTrace), traces(now, FieldTrace), strict=True)
    each = (
        jnp.mean(old.z * (new.phi - old.phi) - old.g * (new.h - old.h), axis=-1).reshape(len(old.h), -1).sum(axis=1)
        for old, new in fields
    )
    return sum(each, jnp.zeros(()))
