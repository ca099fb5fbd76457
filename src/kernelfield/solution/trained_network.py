"""A trained network: its run, its steps, and its outputs and kernels at points that training need not have seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from kernelfield.common.processes import check_process
from kernelfield.common.settings import Spec, real_array
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem, encode_tokens
from kernelfield.describe.run import Run
from kernelfield.describe.training import Training
from kernelfield.solution.estimate import Estimate

Times = int | slice | list[int] | np.ndarray


class Predictor(Protocol):
    """What a method keeps of training to predict at new points; inputs are as the network takes them."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps at which it was kept."""
        ...

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns outputs f of inputs (n, D) or (n, *sites, C) at step t: (R, n, C)."""
        ...

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns a kernel (R, n, m) between inputs a and b at step t: of the features of a hidden layer 1..L.

        With sites, it is their mean. For None, it is the tangent kernel, (R, n C, m C) with rows (sample, output).
        """
        ...

    def gradients(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns the gradients of outputs in the inputs at step t: (R, n, C, D) or (R, n, C, *sites, channels)."""
        ...

    def of_replicates(self, chosen: Any) -> Predictor:
        """Returns the predictor of some replicates, a slice or their numbers."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that cannot be made again from the run, to be stored."""
        ...


class TrainedNetwork:
    """The part of a `Solution` that needs no kernels of its run: steps, and outputs and kernels at any points."""

    run: Run
    replicate_predictions: np.ndarray
    predictor: Predictor | None
    exact: bool

    @property
    def network(self) -> Architecture:
        """What learned."""
        return self.run.network

    @property
    def problem(self) -> Problem:
        """What it learned."""
        return self.run.problem

    @property
    def training(self) -> Training:
        """How it learned."""
        return self.run.training

    @property
    def method(self) -> Spec:
        """What solved it."""
        return self.run.method

    @property
    def steps_done(self) -> int:
        """Number of updates that the rows of `predictions` cover."""
        return self.replicate_predictions.shape[1] - 1

    def steps(self, t: Times | None = None) -> np.ndarray:
        """Numbers of the steps that `t` chooses.

        Args:
            t: step, or several (slice, list); negative from the end; all if None.

        Returns:
            Integers, () or (times,).

        Raises:
            ValueError: for a step that is not there.
        """
        try:
            return np.arange(self.steps_done + 1)[slice(None) if t is None else t]
        except IndexError:
            last = self.steps_done
            raise ValueError(f"time must be a step in 0..{last} (or negative, from the end), got {t}") from None

    @property
    def times(self) -> np.ndarray:
        """Training time of every row: the sum of learning rates so far."""
        return self.training.times(self.problem)[: self.steps_done + 1]

    def predict(self, X: Any, step: int = -1) -> Estimate:
        """Outputs at new points, after training up to a step.

        Args:
            X: inputs (n, D), or with sites, shaped as those of the problem but for their number.
            step: one that the state was kept at (`fields_at` of `solve`: the first and the last by default), negative
                from the end.

        Returns:
            Estimate of f (n,), or (n, C) of C outputs.

        Raises:
            ValueError: inputs of another shape, a step whose state was not kept, or a method that keeps none.

        Example:
            >>> import numpy as np, kernelfield as kf
            >>> solution = kf.solve(
            ...     kf.MLP(depth=1, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0]),
            ...     kf.GradientDescent(learning_rate=0.1, steps=3), progress=False)
            >>> bool(np.allclose(solution.predict(np.eye(2)).mean, solution.predictions[-1]))
            True
        """
        predictor, t = self._predictor_at(step)
        f = predictor.predictions(self._new_inputs(X), t)
        return Estimate(f.reshape(*f.shape[:2], *self.problem.y.shape[1:]), self.exact)

    def input_gradients(self, X: Any, step: int = -1) -> Estimate:
        """The gradients of the outputs in the inputs, at any points, after training up to a step.

        Args:
            X: inputs, as for `predict`.
            step: as for `predict`.

        Returns:
            Estimate (n, D), shaped as X; of C outputs (n, C, D).

        Raises:
            ValueError: as for `predict`.
        """
        predictor, t = self._predictor_at(step)
        gradients = predictor.gradients(self._new_inputs(X), t)
        outputs, inputs = self.problem.y.shape[1:], self.problem.X.shape[1:]
        return Estimate(gradients.reshape(*gradients.shape[:2], *outputs, *inputs), self.exact)

    def feature_kernel_between(self, layer: int, step: int, X_a: Any, X_b: Any) -> Estimate:
        """The feature kernel of a layer after training up to a step, between any points.

        Args:
            layer: 0..L; 0 is the input kernel.
            step: as for `predict`.
            X_a, X_b: inputs (n, D) and (m, D), or with sites, shaped as those of the problem.

        Returns:
            Estimate of Phi^l (n, m); with sites, their mean.

        Raises:
            ValueError: as for `predict`, or no such layer.
        """
        if not 0 <= layer <= self.network.hidden_layers:
            raise ValueError(f"layer must be in 0..{self.network.hidden_layers}, got {layer}")
        predictor, t = self._predictor_at(step)
        a, b = self._new_inputs(X_a), self._new_inputs(X_b)
        if layer == 0:
            a, b = (inputs.reshape(len(inputs), -1) / np.sqrt(self.problem.dimensions) for inputs in (a, b))
            return Estimate((a @ b.T)[None], exact=True)
        return Estimate(predictor.kernel(a, b, t, layer), self.exact)

    def ntk_between(self, step: int, X_a: Any, X_b: Any) -> Estimate:
        """The tangent kernel after training up to a step, between any points.

        Args:
            step: as for `predict`.
            X_a, X_b: inputs (n, D) and (m, D), or with sites, shaped as those of the problem.

        Returns:
            Estimate of the NTK (n, m); of C outputs, the mean of their NTKs.

        Raises:
            ValueError: as for `predict`.
        """
        predictor, t = self._predictor_at(step)
        a, b = self._new_inputs(X_a), self._new_inputs(X_b)
        kernel = predictor.kernel(a, b, t, None)
        outputs = kernel.shape[1] // len(a)
        same = np.einsum("racbc->rab", kernel.reshape(len(kernel), len(a), outputs, len(b), outputs))
        return Estimate(same / outputs, self.exact)

    @property
    def kept_predictor(self) -> Predictor:
        """`predictor`, or a ValueError that says why there is none."""
        if self.predictor is None:
            advice = (
                "use March, StaticNTK or FiniteWidth(algorithm='explicit'), and for a file save(..., predictor=True)"
            )
            raise ValueError(f"{type(self.method).__name__} left no state to predict from: {advice}")
        return self.predictor

    def _predictor_at(self, step: int) -> tuple[Predictor, int]:
        check_process()
        predictor = self.kept_predictor
        t = self.steps(step)
        if t not in predictor.steps:
            kept = list(predictor.steps)
            raise ValueError(f"the state was kept at steps {kept}, not at {t}: name it in solve(..., fields_at=)")
        return predictor, int(t)

    def _new_inputs(self, X: Any) -> np.ndarray:
        if self.problem.vocabulary is not None and np.ndim(X) == 2:
            X = encode_tokens(X, self.problem.vocabulary)
        X, shape = real_array("X", X, dimensions=(1, 2, 3, 4)), self.problem.X.shape
        if X.shape[1:] != shape[1:]:
            raise ValueError(
                f"X must be shaped as the inputs of the problem, {shape} but for their number, got {X.shape}"
            )
        return self.network.inputs(Problem(X, np.zeros(len(X))))
