"""What every method returns: predictions and kernels with their error bars, and how the run went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import t as student_t

from kernelfield.common.settings import Spec, real_array
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training
from kernelfield.solution.time_modes import Factor, at_times, restricted

if TYPE_CHECKING:
    from kernelfield.describe.networks import Architecture
    from kernelfield.march.predictor import Predictor
    from kernelfield.theories.fixed_point import FixedPoint

Code = Literal["ok", "diverged", "interrupted", "not_converged"]
Times = int | slice | list[int] | np.ndarray


@dataclass(frozen=True)
class Status:
    """How a run ended: a code, and a sentence that says what happened and what to try next."""

    code: Code = "ok"
    message: str = "all steps done"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class SolveError(RuntimeError):
    """A run that failed. Its `solution` holds the steps computed so far, or None if there are none."""

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run. Its `solution` holds the steps computed so far, or None if there are none."""

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


@dataclass(frozen=True, eq=False)
class Estimate:
    """A quantity measured on independent replicates.

    Args:
        replicates: (R, ...), one value for each replicate (an independent scramble, or a network's seed).
        exact: the value is exact, so that its standard error is zero.
    """

    replicates: np.ndarray
    exact: bool = False

    @property
    def mean(self) -> np.ndarray:
        """Mean over replicates."""
        return self.replicates.mean(axis=0)

    @property
    def se(self) -> np.ndarray:
        """Standard error of the mean: zero where exact, NaN for a single replicate."""
        count = len(self.replicates)
        if self.exact:
            return np.zeros_like(self.mean)
        if count < 2:
            return np.full_like(self.mean, np.nan)
        return self.replicates.std(axis=0, ddof=1) / np.sqrt(count)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Confidence interval (low, high) from Student's t with R - 1 degrees of freedom."""
        if self.exact or len(self.replicates) < 2:
            half = self.se
        else:
            half = self.se * student_t.ppf((1 + level) / 2, len(self.replicates) - 1)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, eq=False)
class Solution:
    """Training, solved by one method.

    Times are in steps (a step advances training time by the learning rate); row t is before update t and the
    last row is final. Layers are counted as in the theory: feature kernels 0..L (0 is the input kernel),
    gradient kernels 1..L+1 (L+1 is one). Negative times count from the end.

    Attributes:
        replicate_predictions: (R, steps + 1, P), or (R, steps + 1, P, C) of C outputs, f of every replicate.
        feature_factors: for layer 0..L, F with Phi(t, s) = F(t) F(s)^T, (R, steps + 1, P, k); axes of length one
            where nothing depends on replicate or time; large ones are kept as `TimeModes`. Empty if kernels were not
            tracked.
        gradient_factors: for layer 1..L+1, the same for G; empty if gradients were not tracked.
        feature_weights, gradient_weights: of kernels that are truncated power series in gamma0, for each factor
            (orders, k): then Phi(t, s) = sum_n F(t) diag(w_n) F(s)^T, and the NTK keeps products up to the same
            order. Empty for kernels F F^T.
        tangent_kernels: the NTK at equal times where Phi and G do not give it (see `Architecture.factorizes`),
            (R, steps + 1, P, P), or (R, 1, P, P) if it does not move; of C outputs (.., P C, P C).
        kernel_steps: steps whose kernels are recorded; all if None.
        field_samples: (layer, step) -> {"h", "z", "g"}, each (R, P, neurons).
        predictor: what is left of training to predict at new points; None if nothing is.
        exact: no sampling: standard errors are zero.
    """

    network: Architecture
    problem: Problem
    training: Training
    method: Spec
    replicate_predictions: np.ndarray
    feature_factors: tuple[Factor, ...]
    gradient_factors: tuple[Factor, ...] = ()
    feature_weights: tuple[np.ndarray, ...] = ()
    gradient_weights: tuple[np.ndarray, ...] = ()
    tangent_kernels: np.ndarray | None = None
    kernel_steps: tuple[int, ...] | None = None
    field_samples: Mapping[tuple[int, int], Mapping[str, np.ndarray]] = field(default_factory=dict)
    predictor: Predictor | None = None
    exact: bool = False
    status: Status = field(default_factory=Status)
    info: Mapping[str, Any] = field(default_factory=dict)

    # --- quantities of every replicate

    def estimate(self, quantity: str, *args: Any, **kwargs: Any) -> Estimate:
        """A quantity with its error bar.

        Args:
            quantity: "predictions", "errors", "loss", "feature_kernel", "gradient_kernel" or "ntk".
            args, kwargs: arguments of the method of that name, if it has any.

        Returns:
            Estimate: mean, standard error `se`, and `interval(level)` by Student's t.

        Raises:
            ValueError: for an unknown quantity, layer or step.

        Example:
            >>> import numpy as np, kernelfield as kf
            >>> solution = kf.solve(
            ...     kf.MLP(depth=1, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0]),
            ...     kf.GradientDescent(learning_rate=0.1, steps=3), progress=False)
            >>> solution.estimate("feature_kernel", layer=1, t=-1).se.shape
            (2, 2)
        """
        measure = getattr(self, f"_{quantity}", None)
        if quantity not in _QUANTITIES or measure is None:
            raise ValueError(f"quantity must be one of {', '.join(_QUANTITIES)}, got {quantity!r}")
        values, exact = measure(*args, **kwargs)
        return Estimate(values, exact or self.exact)

    def _predictions(self) -> tuple[np.ndarray, bool]:
        return self.replicate_predictions, False

    def _errors(self) -> tuple[np.ndarray, bool]:
        return self.problem.loss.measured_signal(self.replicate_predictions, self.problem.y), False

    def _loss(self) -> tuple[np.ndarray, bool]:
        return self.problem.loss.measured(self.replicate_predictions, self.problem.y) @ self.problem.weights, False

    def _feature_kernel(self, layer: int, t: Times = -1, s: Times | None = None) -> tuple[np.ndarray, bool]:
        return self._feature_series(layer, t, s).sum(axis=0), layer == 0

    def _gradient_kernel(self, layer: int, t: Times = -1, s: Times | None = None) -> tuple[np.ndarray, bool]:
        return self._gradient_series(layer, t, s).sum(axis=0), layer == len(self.gradient_factors)

    def _ntk(self, t: Times = -1, s: Times | None = None) -> tuple[np.ndarray, bool]:
        if not self.network.factorizes:
            return self._recorded_ntk(t, s), False
        total = np.zeros(())
        for layer in range(max(1, len(self.feature_factors))):
            Phi, G = self._feature_series(layer, t, s), self._gradient_series(layer + 1, t, s)
            Phi = self._over_outputs(Phi, axis=2 + np.ndim(self.steps(t)))
            for order in range(len(Phi)):  # the same order for both, products beyond it left out
                total = total + Phi[order] * G[: len(G) - order].sum(axis=0)
        return total, False

    def _over_outputs(self, kernel: np.ndarray, axis: int) -> np.ndarray:
        """Rows (mu, c), the same for all c, of a kernel with samples on `axis` and on the last one."""
        outputs = self.problem.outputs or 1
        return kernel if outputs == 1 else kernel.repeat(outputs, axis).repeat(outputs, -1)

    def _recorded_ntk(self, t: Times, s: Times | None) -> np.ndarray:
        """Entries of `tangent_kernels`; with sites, biases or shared weights Phi and G do not give other ones."""
        if self.tangent_kernels is None:
            raise ValueError("the tangent kernel was not tracked in this run: solve with kernels='all'")
        if np.ndim(self.steps(t)) or (s is not None and self.steps(s) != self.steps(t)):
            raise ValueError("the NTK of a network with sites, biases or shared weights is known at one time, t = s")
        kernels, step = self.tangent_kernels, self.steps(t)
        return kernels[:, 0 if kernels.shape[1] == 1 else self._recorded_row(step)]

    def _feature_series(self, layer: int, t: Times, s: Times | None) -> np.ndarray:
        if not self.feature_factors:
            raise ValueError("feature kernels were not tracked in this run: solve with kernels='all'")
        depth = len(self.feature_factors) - 1
        if not 0 <= layer <= depth:
            raise ValueError(f"layer of a feature kernel must be in 0..{depth}, got {layer}")
        weights = self.feature_weights[layer] if self.feature_weights else None
        return self._kernel_series(self.feature_factors[layer], weights, t, s)

    def _gradient_series(self, layer: int, t: Times, s: Times | None) -> np.ndarray:
        if not self.gradient_factors:
            raise ValueError("gradient kernels were not tracked in this run: solve with kernels='all'")
        depth = len(self.gradient_factors)
        if not 1 <= layer <= depth:
            raise ValueError(f"layer of a gradient kernel must be in 1..{depth}, got {layer}")
        weights = self.gradient_weights[layer - 1] if self.gradient_weights else None
        return self._kernel_series(self.gradient_factors[layer - 1], weights, t, s)

    def _kernel_series(self, factor: Factor, weights: np.ndarray | None, t: Times, s: Times | None) -> np.ndarray:
        """The terms of a kernel, one for each order: (orders, R, ...)."""
        left, right = (self._at(factor, when) for when in (t, t if s is None else s))
        letters = ("m" if left.ndim == 3 else "tm", "n" if right.ndim == 3 else "sn")
        kernel = "r{0}k,r{1}k->r{0}{1}".format(*letters)
        lefts = [left] if weights is None else [left * each for each in weights]
        return np.stack([np.einsum(kernel, each, right, optimize=True) for each in lefts])

    def _at(self, factor: Factor, t: Times) -> np.ndarray:
        return at_times(factor, self._recorded_row(self.steps(t)) if factor.shape[1] > 1 else self.steps(t))

    def _recorded_row(self, steps: np.ndarray) -> np.ndarray:
        """The rows of kernels at some steps."""
        if self.kernel_steps is None:
            return steps
        missing = np.setdiff1d(steps, self.kernel_steps)
        if missing.size:
            known = ", ".join(map(str, self.kernel_steps[:8])) + (", ..." if len(self.kernel_steps) > 8 else "")
            raise ValueError(f"kernels of step {missing[0]} were not recorded, of steps {known} they were: see save_at")
        return np.searchsorted(self.kernel_steps, steps)

    # --- means and standard errors

    @property
    def predictions(self) -> np.ndarray:
        """f (steps + 1, P), or (steps + 1, P, C) of C outputs: row t is before update t; row 0 is zero."""
        return self.estimate("predictions").mean

    @property
    def predictions_se(self) -> np.ndarray:
        """Standard error of `predictions`."""
        return self.estimate("predictions").se

    @property
    def errors(self) -> np.ndarray:
        """The error signal Delta = -d loss / d f, for the mean squared error y - f, shaped as `predictions`."""
        return self.estimate("errors").mean

    @property
    def errors_se(self) -> np.ndarray:
        """Standard error of `errors`."""
        return self.estimate("errors").se

    @property
    def loss(self) -> np.ndarray:
        """Training loss (steps + 1,): the mean over points, weighted if the problem has weights."""
        return self.estimate("loss").mean

    @property
    def loss_se(self) -> np.ndarray:
        """Standard error of `loss`."""
        return self.estimate("loss").se

    def feature_kernel(self, layer: int, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """Phi^layer[t, mu; s, nu] = <phi(h_mu(t)) phi(h_nu(s))>.

        Args:
            layer: 0..L; 0 is the input kernel X X^T / D.
            t: step, or several (slice, list); negative from the end.
            s: the second time; t if omitted.

        Returns:
            (P, P) for integers; a time that is a list adds an axis: (times, P, times_prime, P).

        Raises:
            ValueError: for a layer or step that is not there.
        """
        return self.estimate("feature_kernel", layer, t, s).mean

    def feature_kernel_se(self, layer: int, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """Standard error of `feature_kernel`, entry by entry."""
        return self.estimate("feature_kernel", layer, t, s).se

    def gradient_kernel(self, layer: int, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """G^layer[t, mu; s, nu] = <g_mu(t) g_nu(s)>, layer 1..L+1 (L+1 is one); arguments as `feature_kernel`.

        Of C outputs P C in place of P, with rows (mu, c): sample mu, the gradient of output c.
        """
        return self.estimate("gradient_kernel", layer, t, s).mean

    def gradient_kernel_se(self, layer: int, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """Standard error of `gradient_kernel`, entry by entry."""
        return self.estimate("gradient_kernel", layer, t, s).se

    def ntk(self, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """Tangent kernel sum_{l=0..L} G^{l+1} Phi^l (elementwise); arguments as `feature_kernel`.

        Of C outputs P C in place of P, with rows (mu, c); Phi is then the same for all outputs.
        """
        return self.estimate("ntk", t, s).mean

    def ntk_se(self, t: Times = -1, s: Times | None = None) -> np.ndarray:
        """Standard error of `ntk`, entry by entry."""
        return self.estimate("ntk", t, s).se

    @property
    def tracks_ntk(self) -> bool:
        """Whether the run gives the tangent kernel."""
        if self.network.factorizes:
            return bool(self.feature_factors and self.gradient_factors)
        return self.tangent_kernels is not None

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

    def fields(self, layer: int, t: int = -1) -> dict[str, np.ndarray]:
        """Samples of the activation distribution of a hidden layer at a recorded step.

        Args:
            layer: 1..L.
            t: a step that was recorded (`fields_at` of `solve`: the first and the last by default).

        Returns:
            "h" preactivation, "z" pregradient, "g" = phi'(h) z, each (P, neurons): joint samples, neuron by neuron.

        Raises:
            ValueError: naming what was recorded.
        """
        key = (layer, t % (self.steps_done + 1))
        if key not in self.field_samples:
            layers, steps = (sorted({pair[i] for pair in self.field_samples}) for i in (0, 1))
            raise ValueError(f"fields were recorded at layers {layers} and steps {steps}, not at {key}")
        return {name: np.concatenate(list(values), axis=-1) for name, values in self.field_samples[key].items()}

    def fixed_point(self) -> FixedPoint:
        """The kernel predictor that training with weight decay ends at; see `kernelfield.theories.fixed_point`."""
        from kernelfield.theories.fixed_point import fixed_point

        return fixed_point(self)

    def restricted(self, samples: Any = None, replicates: Any = None) -> Solution:
        """The same run, looked at on some of its samples and replicates.

        Args:
            samples: their numbers (n,); all if None.
            replicates: their numbers (n,); all if None.

        Returns:
            Solution of n points, with all outputs. Their weights are in proportion as before, or equal if all of them
            are zero.

        Example:
            >>> import numpy as np, kernelfield as kf
            >>> solution = kf.solve(
            ...     kf.MLP(depth=1, activation="linear"), kf.Problem(np.eye(3), [1.0, -1.0, 1.0]),
            ...     kf.GradientDescent(learning_rate=0.1, steps=3), progress=False)
            >>> solution.restricted([0, 2]).feature_kernel(layer=1).shape
            (2, 2)
        """
        points, outputs = self.problem.points, self.problem.outputs or 1
        runs = None if replicates is None else np.asarray(replicates)
        rows = np.arange(points) if samples is None else np.asarray(samples)
        of_outputs = (rows[:, None] * outputs + np.arange(outputs)).ravel()

        def chosen(count: int) -> np.ndarray | None:
            """Places on an axis of samples, or of samples and outputs; None for all."""
            return None if samples is None else rows if count == points else of_outputs

        def some(array: Any) -> Any:
            kept = runs if array.shape[0] == len(self.replicate_predictions) else None
            return restricted(array, chosen(array.shape[2]), kept)

        tangents = self.tangent_kernels
        if tangents is not None:
            columns = chosen(tangents.shape[2])
            tangents = some(tangents) if columns is None else some(tangents)[..., columns]
        X, y, weights = (getattr(self.problem, name)[rows] for name in ("X", "y", "weights"))
        return replace(
            self,
            problem=Problem(X, y, weights if weights.any() else None, self.problem.loss, self.problem.stream),
            replicate_predictions=some(self.replicate_predictions),
            feature_factors=tuple(map(some, self.feature_factors)),
            gradient_factors=tuple(map(some, self.gradient_factors)),
            tangent_kernels=tangents,
            predictor=self.predictor if runs is None or self.predictor is None else self.predictor.of_replicates(runs),
            field_samples={
                key: {name: some(values[:, None])[:, 0] for name, values in recorded.items()}
                for key, recorded in self.field_samples.items()
            },
        )

    # --- new points

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
        predictor, t = self._predictor(step)
        return Estimate(predictor.predictions(self._new_inputs(X), t), self.exact)

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
        predictor, t = self._predictor(step)
        a, b = self._new_inputs(X_a), self._new_inputs(X_b)
        if layer == 0:
            rows = (each.reshape(len(each), -1) / np.sqrt(self.problem.dimensions) for each in (a, b))
            return Estimate(np.matmul(next(rows), next(rows).T)[None], True)
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
        predictor, t = self._predictor(step)
        a, b = self._new_inputs(X_a), self._new_inputs(X_b)
        kernel = predictor.kernel(a, b, t, None)
        outputs = kernel.shape[1] // len(a)
        same = np.einsum("racbc->rab", kernel.reshape(len(kernel), len(a), outputs, len(b), outputs))
        return Estimate(same / outputs, self.exact)

    @property
    def kept_predictor(self) -> Predictor:
        """`predictor`, or a ValueError that says why there is none."""
        if self.predictor is None:
            name = type(self.method).__name__
            raise ValueError(
                f"{name} left no state to predict from: use March, StaticNTK or FiniteWidth, "
                "and for a file save(..., predictor=True)"
            )
        return self.predictor

    def _predictor(self, step: int) -> tuple[Predictor, int]:
        predictor = self.kept_predictor
        t = self.steps(step)
        if t not in predictor.steps:
            kept = list(predictor.steps)
            raise ValueError(f"the state was kept at steps {kept}, not at {t}: name it in solve(..., fields_at=)")
        return predictor, int(t)

    def _new_inputs(self, X: Any) -> np.ndarray:
        X, shape = real_array("X", X, dimensions=(1, 2, 3, 4)), self.problem.X.shape
        if X.shape[1:] != shape[1:]:
            raise ValueError(
                f"X must be shaped as the inputs of the problem, {shape} but for their number, got {X.shape}"
            )
        return self.network.inputs(Problem(X, np.zeros(len(X))))

    def to_xarray(self) -> Any:
        """One labelled xarray.Dataset; its kernels are expanded when read, see `kernelfield.files.labelled.labelled`."""
        from kernelfield.files.labelled import labelled  # lazy: xarray takes a second to import

        return labelled(self)

    def save(self, path: str | PathLike[str], predictor: bool = False) -> None:
        """Write to a NetCDF file, which `kernelfield.load` reads; see `kernelfield.files.storage.save`."""
        from kernelfield.files.storage import save  # lazy: xarray takes a second to import

        save(self, path, predictor)


_QUANTITIES = ("predictions", "errors", "loss", "feature_kernel", "gradient_kernel", "ntk")
