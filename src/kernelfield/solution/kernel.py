"""Kernels as a Solution holds them: between any two times and samples, of every replicate.

Every kernel answers `between(t, s)`, whatever it is kept as: factors (`FactorKernel`), the values at equal times
(`RecordedKernel`), or a sum of products of factors (`TangentKernel`). The rows of a kernel are samples, or pairs
(sample, output) with the outputs of a sample side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.solution.factors import Chosen, Factor, at_times, restricted

# of learning rules also the effective tangent kernel, and the cosines between gradients and what stands for them
Symbol = Literal["Phi", "G", "NTK", "eNTK", "cosine"]
Key = tuple[Symbol, int | None]  # and the layer, None of the NTK
Steps = tuple[int, ...]


class Kernel(ABC):
    """A kernel of training time and samples."""

    outputs: int  # C if its rows are pairs (sample, output), 1 if they are samples
    steps: Steps | None  # the steps that are kept; all if None
    exact: bool = False  # known, and not sampled, in every run

    @abstractmethod
    def between(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns K(t, s) for numbers of steps, () or (n,) both.

        It is (R, rows, rows), with an axis of times before the rows of each of t and s that has one.
        """

    @property
    def kept(self) -> slice | np.ndarray:
        """The steps that are kept, as an index of steps."""
        return slice(None) if self.steps is None else np.array(self.steps, int)

    def places(self, steps: np.ndarray) -> np.ndarray:
        """Returns where steps are among those that are kept; raises ValueError if one of them was not."""
        if self.steps is None:
            return steps
        missing = np.setdiff1d(steps, self.steps)
        if missing.size:
            kept = ", ".join(map(str, self.steps[:8])) + (", ..." if len(self.steps) > 8 else "")
            raise ValueError(f"kernels of step {missing[0]} were not kept, only those of steps {kept}: see save_at")
        return np.searchsorted(self.steps, steps)


@dataclass(frozen=True, eq=False)
class FactorKernel(Kernel):
    """K(t, s) = F(t) F(s)^T, or the power series sum_n F(t) diag(w_n) F(s)^T in gamma0."""

    factor: Factor  # F (replicate, time, row, rank), an axis of length one where nothing depends on replicate or time
    outputs: int = 1
    steps: Steps | None = None
    exact: bool = False
    weights: np.ndarray | None = None  # w (order, rank); None without a series

    @property
    def rests(self) -> bool:
        """Whether it does not depend on time."""
        return self.steps is None and self.factor.shape[1] == 1

    def at(self, t: np.ndarray) -> np.ndarray:
        """Returns the factor at some steps, (R, rows, rank) or (R, times, rows, rank)."""
        return at_times(self.factor, t if self.rests else self.places(t))

    def between(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns F(t) F(s)^T, or the sum of the power series."""
        return self.orders(t, s).sum(axis=0)

    def orders(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the terms of the power series (orders, R, ...), with the axes of `between`; one without weights."""
        left, right = self.at(t), self.at(s)
        letters = ("m" if left.ndim == 3 else "tm", "n" if right.ndim == 3 else "sn")
        product = "r{0}k,r{1}k->r{0}{1}".format(*letters)
        lefts = [left] if self.weights is None else [left * each for each in self.weights]
        return np.stack([np.einsum(product, each, right, optimize=True) for each in lefts])

    def restricted(self, samples: Chosen, replicates: Chosen) -> FactorKernel:
        """Returns the kernel of some samples and replicates."""
        chosen = slice(None) if self.factor.shape[0] == 1 else replicates
        return replace(self, factor=restricted(self.factor, _rows(samples, self.outputs), chosen))

    def at_steps(self, steps: Steps) -> FactorKernel:
        """Returns the kernel with these steps alone."""
        if self.rests or self.steps == steps:
            return self
        return replace(self, factor=at_times(self.factor, self.places(np.array(steps, int))), steps=steps)


@dataclass(frozen=True, eq=False)
class RecordedKernel(Kernel):
    """K(t, t), recorded."""

    values: np.ndarray  # (replicate, time, row, row)
    outputs: int = 1
    steps: Steps | None = None

    @property
    def rests(self) -> bool:
        """Whether it does not depend on time."""
        return self.steps is None and self.values.shape[1] == 1

    def between(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the values at one time."""
        if np.ndim(t) or np.ndim(s) or t != s:
            raise ValueError("this kernel was recorded at equal times alone, t = s, as factors do not give it")
        return self.values[:, 0 if self.rests else self.places(t)]

    def restricted(self, samples: Chosen, replicates: Chosen) -> RecordedKernel:
        """Returns the kernel of some samples and replicates."""
        chosen = slice(None) if len(self.values) == 1 else replicates
        rows = _rows(samples, self.outputs)
        return replace(self, values=self.values[chosen][:, :, rows][..., rows])

    def at_steps(self, steps: Steps) -> RecordedKernel:
        """Returns the kernel with these steps alone."""
        if self.rests or self.steps == steps:
            return self
        return replace(self, values=self.values[:, self.places(np.array(steps, int))], steps=steps)


@dataclass(frozen=True, eq=False)
class TangentKernel(Kernel):
    """sum_l Phi^l G^{l+1}, elementwise; of power series in gamma0 up to the order that both have."""

    pairs: tuple[tuple[FactorKernel, FactorKernel], ...]  # Phi^l and G^{l+1} of l = 0..L
    outputs: int
    steps: Steps | None

    def between(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the sum."""
        total = np.zeros(())
        for features, gradients in self.pairs:
            Phi, G = features.orders(t, s), gradients.orders(t, s)
            if self.outputs > 1:  # Phi is the same for all outputs
                Phi = Phi.repeat(self.outputs, axis=2 + np.ndim(t)).repeat(self.outputs, axis=-1)
            for order in range(len(Phi)):
                total = total + Phi[order] * G[: len(G) - order].sum(axis=0)
        return total


KeptKernel = FactorKernel | RecordedKernel
Series = tuple[Factor, np.ndarray]  # a factor, and the weights of its terms (orders, rank)


def network_kernels(
    problem: Problem,
    features: Sequence[Factor | Series] | None,
    gradients: Sequence[Factor | Series] | None,
    recorded: Mapping[Key, np.ndarray] | None = None,
    steps: Steps | None = None,
) -> dict[Key, KeptKernel]:
    """Returns the kernels of a network: those of its hidden layers, and those of input and output, which do not move.

    Args:
        problem: what was learned.
        features, gradients: factors of Phi and G of the hidden layers 1..L, each (R, T, rows, rank), with weights if
            they are power series in gamma0; None if they were not kept.
        recorded: kernels (R, T, rows, rows) at equal times, which Phi and G do not give.
        steps: that were kept; all if None.
    """
    outputs = problem.outputs
    found: dict[Key, KeptKernel] = {
        key: RecordedKernel(values, 1 if key[0] == "Phi" else outputs, steps)
        for key, values in (recorded or {}).items()
    }
    if features is not None:
        found["Phi", 0] = _fixed(problem.input_coordinates, 1, features)
        for layer, factor in enumerate(features, start=1):
            found["Phi", layer] = _sampled(factor, 1, steps)
    if gradients is not None:
        for layer, factor in enumerate(gradients, start=1):
            found["G", layer] = _sampled(factor, outputs, steps)
        last = max([len(gradients), *(layer or 0 for symbol, layer in found if symbol == "G")])
        found["G", last + 1] = _fixed(np.tile(np.eye(outputs), (problem.points, 1)), outputs, gradients)
    return found


def _fixed(factor: np.ndarray, outputs: int, others: Sequence[Factor | Series]) -> FactorKernel:
    """A kernel that is known and does not move: a power series of order zero beside others that are series."""
    weights = None
    if others and isinstance(others[0], tuple):
        weights = np.zeros((len(others[0][1]), factor.shape[-1]))
        weights[0] = 1.0
    return FactorKernel(factor[None, None], outputs, None, True, weights)


def _sampled(factor: Factor | Series, outputs: int, steps: Steps | None) -> FactorKernel:
    values, weights = factor if isinstance(factor, tuple) else (factor, None)
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)  # as a file gives it back, so that products are the same bits
    return FactorKernel(values, outputs, steps, False, weights)


def _rows(samples: Chosen, outputs: int) -> Chosen:
    """Returns the rows of samples in a kernel."""
    if isinstance(samples, slice) or outputs == 1:
        return samples
    return (samples[:, None] * outputs + np.arange(outputs)).ravel()
