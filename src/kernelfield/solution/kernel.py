"""Kernels as a Solution holds them: between any two times and samples, of every replicate.

Every kernel answers `between(t, s)`, whatever it is kept as: factors (`FactorKernel`), the values at equal times
(`RecordedKernel`), or a sum of products of other kernels (`TangentKernel`). The rows of a kernel are samples, or pairs
(sample, output) with the outputs of a sample side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.solution.factors import Factor, at_times, restricted

Symbol = Literal["Phi", "G", "NTK"]
Key = tuple[Symbol, int | None]  # and the layer, None of the NTK
Steps = tuple[int, ...]


class NotKept(ValueError):
    """A kernel, or the step of one, that was not kept."""


class Kernel(ABC):
    """A kernel of training time and samples.

    Attributes:
        outputs: C if its rows are pairs (sample, output), 1 if they are samples.
        steps: the steps that are kept; all if None.
        exact: it is known, and not sampled, in every run.
    """

    outputs: int
    steps: Steps | None
    exact: bool = False

    @abstractmethod
    def orders(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the terms of its power series in gamma0, (orders, R, ...) with the axes of `between`.

        Args:
            t, s: numbers of steps, () or (n,).
        """

    @property
    @abstractmethod
    def rests(self) -> bool:
        """Whether it does not depend on time."""

    @property
    def kept(self) -> slice | np.ndarray:
        """The steps that are kept, as an index of steps."""
        return slice(None) if self.steps is None else np.array(self.steps, int)

    def between(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns K(t, s): (R, rows, rows), with an axis of times before the rows of each of t and s that has one."""
        return self.orders(t, s).sum(axis=0)

    def places(self, steps: np.ndarray) -> np.ndarray:
        """Returns where steps are among those that are kept.

        Raises:
            NotKept: one of them was not kept.
        """
        if self.steps is None:
            return steps
        missing = np.setdiff1d(steps, self.steps)
        if missing.size:
            kept = ", ".join(map(str, self.steps[:8])) + (", ..." if len(self.steps) > 8 else "")
            raise NotKept(f"kernels of step {missing[0]} were not kept, only those of steps {kept}: see save_at")
        return np.searchsorted(self.steps, steps)


@dataclass(frozen=True, eq=False)
class FactorKernel(Kernel):
    """K(t, s) = F(t) F(s)^T, or the power series sum_n F(t) diag(w_n) F(s)^T in gamma0.

    Args:
        factor: F with axes (replicate, time, row, rank), of length one where nothing depends on replicate or time.
        outputs, steps, exact: as of every Kernel.
        weights: w with axes (order, rank); None without a series.
    """

    factor: Factor
    outputs: int = 1
    steps: Steps | None = None
    exact: bool = False
    weights: np.ndarray | None = None

    @property
    def rests(self) -> bool:
        """Whether it does not depend on time."""
        return self.steps is None and self.factor.shape[1] == 1

    def at(self, t: np.ndarray) -> np.ndarray:
        """Returns the factor at some steps, (R, rows, rank) or (R, times, rows, rank)."""
        return at_times(self.factor, t if self.rests else self.places(t))

    def orders(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the terms of its power series; one without weights."""
        left, right = self.at(t), self.at(s)
        letters = ("m" if left.ndim == 3 else "tm", "n" if right.ndim == 3 else "sn")
        product = "r{0}k,r{1}k->r{0}{1}".format(*letters)
        lefts = [left] if self.weights is None else [left * each for each in self.weights]
        return np.stack([np.einsum(product, each, right, optimize=True) for each in lefts])

    def restricted(self, samples: np.ndarray | None, replicates: np.ndarray | None) -> FactorKernel:
        """Returns the kernel of some samples and replicates; of all if None."""
        chosen = None if self.factor.shape[0] == 1 else replicates
        return replace(self, factor=restricted(self.factor, _rows(samples, self.outputs), chosen))

    def at_steps(self, steps: Steps) -> FactorKernel:
        """Returns the kernel with these steps alone."""
        if self.rests or self.steps == steps:
            return self
        return replace(self, factor=at_times(self.factor, self.places(np.array(steps, int))), steps=steps)


@dataclass(frozen=True, eq=False)
class RecordedKernel(Kernel):
    """K(t, t), recorded.

    Args:
        values: with axes (replicate, time, row, row).
        outputs, steps: as of every Kernel.
    """

    values: np.ndarray
    outputs: int = 1
    steps: Steps | None = None

    @property
    def rests(self) -> bool:
        """Whether it does not depend on time."""
        return self.steps is None and self.values.shape[1] == 1

    def orders(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the values at one time."""
        if np.ndim(t) or np.ndim(s) or t != s:
            raise NotKept("the NTK of a network with sites, biases or shared weights is known at one time, t = s")
        return self.values[None, :, 0 if self.rests else self.places(t)]

    def restricted(self, samples: np.ndarray | None, replicates: np.ndarray | None) -> RecordedKernel:
        """Returns the kernel of some samples and replicates; of all if None."""
        rows, values = _rows(samples, self.outputs), self.values
        if replicates is not None and len(values) > 1:
            values = values[replicates]
        return replace(self, values=values if rows is None else values[:, :, rows][..., rows])

    def at_steps(self, steps: Steps) -> RecordedKernel:
        """Returns the kernel with these steps alone."""
        if self.rests or self.steps == steps:
            return self
        return replace(self, values=self.values[:, self.places(np.array(steps, int))], steps=steps)


@dataclass(frozen=True, eq=False)
class TangentKernel(Kernel):
    """sum_l Phi^l G^{l+1}, elementwise; of power series in gamma0 up to the order that both have.

    Args:
        pairs: Phi^l and G^{l+1} of l = 0..L.
    """

    pairs: tuple[tuple[Kernel, Kernel], ...]

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """Those of G."""
        return self.pairs[0][1].outputs

    @property
    def steps(self) -> Steps | None:  # type: ignore[override]
        """Those that Phi and G have."""
        return next((each.steps for pair in self.pairs for each in pair if each.steps is not None), None)

    @property
    def rests(self) -> bool:
        """Whether it does not depend on time."""
        return all(each.rests for pair in self.pairs for each in pair)

    def orders(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Returns the sum, as one term."""
        total = np.zeros(())
        for features, gradients in self.pairs:
            Phi, G = features.orders(t, s), gradients.orders(t, s)
            if self.outputs > 1:  # Phi is the same for all outputs
                Phi = Phi.repeat(self.outputs, axis=2 + np.ndim(t)).repeat(self.outputs, axis=-1)
            for order in range(len(Phi)):
                total = total + Phi[order] * G[: len(G) - order].sum(axis=0)
        return total[None]


KeptKernel = FactorKernel | RecordedKernel
Series = tuple[Factor, np.ndarray]  # a factor, and the weights of its terms (orders, rank)


def network_kernels(
    problem: Problem,
    features: Sequence[Factor | Series] | None,
    gradients: Sequence[Factor | Series] | None,
    ntk: np.ndarray | None = None,
    steps: Steps | None = None,
) -> dict[Key, KeptKernel]:
    """Returns the kernels of a network: those of its hidden layers, and those of input and output, which do not move.

    Args:
        problem: what was learned.
        features, gradients: factors of Phi and G of the hidden layers 1..L, each (R, T, rows, rank), with weights if
            they are power series in gamma0; None if they were not kept.
        ntk: tangent kernels (R, T, rows, rows) at equal times, where Phi and G do not give them.
        steps: that were kept; all if None.
    """
    outputs = problem.outputs or 1
    found: dict[Key, KeptKernel] = {}
    if features is not None:
        found["Phi", 0] = _fixed(problem.input_coordinates, 1, features)
        for layer, factor in enumerate(features, start=1):
            found["Phi", layer] = _sampled(factor, 1, steps)
    if gradients is not None:
        for layer, factor in enumerate(gradients, start=1):
            found["G", layer] = _sampled(factor, outputs, steps)
        found["G", len(gradients) + 1] = _fixed(np.tile(np.eye(outputs), (problem.points, 1)), outputs, gradients)
    if ntk is not None:
        found["NTK", None] = RecordedKernel(ntk, outputs, steps)
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


def _rows(samples: np.ndarray | None, outputs: int) -> np.ndarray | None:
    """Returns the rows of samples in a kernel; all rows if None."""
    if samples is None or outputs == 1:
        return samples
    return (samples[:, None] * outputs + np.arange(outputs)).ravel()
