"""What every method returns: predictions and kernels with their error bars, and how the run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kernelfield.common.settings import Spec, real_array
from kernelfield.describe.networks import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import Training
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import FactorKernel, Kernel, Key, NotKept, Symbol, TangentKernel
from kernelfield.solution.status import Status

if TYPE_CHECKING:
    from kernelfield.theories.fixed_point import FixedPoint

Times = int | slice | list[int] | np.ndarray
Samples = np.ndarray | list[int] | None
SYMBOLS: dict[str, Symbol] = {"feature_kernel": "Phi", "gradient_kernel": "G", "ntk": "NTK"}
OK = Status()
QUANTITIES = ("predictions", "errors", "loss", *SYMBOLS)


class Predictor(Protocol):
    """What a method keeps of training to predict at new points; inputs are as the network takes them."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps at which it was kept."""
        ...

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns outputs f of inputs (n, D) or (n, *sites, C) at step t: (R, n), or (R, n, C) of C outputs."""
        ...

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns a kernel (R, n, m) between inputs a and b at step t: of the features of a hidden layer 1..L.

        With sites, it is their mean. For None, it is the tangent kernel, (R, n C, m C) with rows (sample, output).
        """
        ...

    def of_replicates(self, chosen: Any) -> Predictor:
        """Returns the predictor of some replicates, a slice or their numbers."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that cannot be made again from the run, to be stored."""
        ...


@dataclass(frozen=True, eq=False)
class Solution:
    """Training, solved by one method.

    Times are in steps (a step advances training time by the learning rate); row t is before update t and the
    last row is final. Layers are counted as in the theory: feature kernels 0..L (0 is the input kernel),
    gradient kernels 1..L+1 (L+1 is one). Negative times count from the end.

    Attributes:
        run: what was solved; its parts are also here, as network, problem, training and method.
        replicate_predictions: (R, steps + 1, P), or (R, steps + 1, P, C) of C outputs, f of every replicate.
        kernels: those that were kept: ("Phi", 0..L), ("G", 1..L+1), and ("NTK", None) where Phi and G do not give it
            (see `Architecture.factorizes`); `kernel` finds them.
        field_samples: (layer, step) -> {"h", "z", "g"}, each (R, P, neurons).
        predictor: what is left of training to predict at new points; None if nothing is.
        exact: no sampling: standard errors are zero.
        status: how the run ended.
        info: numbers about the run, by name.
    """

    run: Run
    replicate_predictions: np.ndarray
    kernels: Mapping[Key, Kernel] = field(default_factory=dict)
    field_samples: Mapping[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    predictor: Predictor | None = None
    exact: bool = False
    status: Status = OK
    info: Mapping[str, Any] = field(default_factory=dict)

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

    # --- quantities of every replicate

    def estimate(self, quantity: str, *args: Any, **kwargs: Any) -> Estimate:
        """Returns a quantity with its error bar.

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
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
        if quantity == "ntk":
            return self.kernel_estimate("NTK", None, *args, **kwargs)
        if quantity in SYMBOLS:
            return self.kernel_estimate(SYMBOLS[quantity], *args, **kwargs)
        f, loss = self.replicate_predictions, self.problem.loss
        values = {
            "predictions": lambda: f,
            "errors": lambda: loss.measured_signal(f, self.problem.y),
            "loss": lambda: loss.measured(f, self.problem.y) @ self.problem.weights,
        }
        return Estimate(values[quantity](), self.exact)

    def kernel_estimate(
        self, symbol: Symbol, layer: int | None = None, t: Times = -1, s: Times | None = None
    ) -> Estimate:
        """Returns a kernel K(t, s) with its error bar.

        Args:
            symbol: "Phi", "G" or "NTK".
            layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
            t: step, or several (slice, list); negative from the end.
            s: the second time; t if omitted.

        Returns:
            Estimate (P, P) for integers; a time that is a list adds an axis: (times, P, times_prime, P).

        Raises:
            ValueError: for a kernel, layer or step that is not there.
        """
        kernel = self.kernel(symbol, layer)
        return Estimate(kernel.between(self.steps(t), self.steps(t if s is None else s)), self.exact or kernel.exact)

    def kernel(self, symbol: Symbol, layer: int | None = None) -> Kernel:
        """Returns a kernel between all times and samples, as it is kept.

        Args:
            symbol: "Phi", "G" or "NTK".
            layer: 0..L of Phi, 1..L+1 of G, None for the NTK.

        Raises:
            ValueError: for a kernel that was not kept, or a layer that is not there.
        """
        if symbol not in SYMBOLS.values():
            raise ValueError(f"kernel must be one of {', '.join(SYMBOLS.values())}, got {symbol!r}")
        if (symbol == "NTK") != (layer is None):
            need = "no layer" if symbol == "NTK" else "a layer"
            raise ValueError(f"kernel {symbol!r} takes {need}, got layer={layer}")
        if (symbol, layer) in self.kernels:
            return self.kernels[symbol, layer]
        if not self.keeps(symbol):
            name = {"Phi": "feature kernels were", "G": "gradient kernels were", "NTK": "the tangent kernel was"}[
                symbol
            ]
            raise NotKept(f"{name} not tracked in this run: solve with kernels='all'")
        if symbol == "NTK":
            return TangentKernel(
                tuple((self.factor_kernel("Phi", at), self.factor_kernel("G", at + 1)) for at in self.layers("Phi"))
            )
        layers, about = self.layers(symbol), "feature" if symbol == "Phi" else "gradient"
        raise ValueError(f"layer of a {about} kernel must be in {layers[0]}..{layers[-1]}, got {layer}")

    def factor_kernel(self, symbol: Symbol, layer: int) -> FactorKernel:
        """Returns Phi or G of a layer, with its factor."""
        kernel = self.kernel(symbol, layer)
        assert isinstance(kernel, FactorKernel)
        return kernel

    def layers(self, symbol: Symbol) -> list[int]:
        """Returns the layers whose kernel of that symbol was kept, the ends that do not move included."""
        return sorted(layer for kind, layer in self.kernels if kind == symbol and layer is not None)

    def hidden(self, symbol: Symbol) -> list[int]:
        """Returns the hidden layers whose kernel of that symbol was kept."""
        return [layer for layer in self.layers(symbol) if 1 <= layer <= self.network.hidden_layers]

    def kernel_steps(self, *symbols: Symbol) -> np.ndarray:
        """Returns the steps whose kernels of these symbols were all kept, in order; all steps by default."""
        steps = self.steps()
        for symbol in symbols:
            for layer in [None] if symbol == "NTK" else self.layers(symbol):
                steps = np.intersect1d(steps, self.steps()[self.kernel(symbol, layer).kept])
        return steps

    def keeps(self, symbol: Symbol) -> bool:
        """Returns whether the run kept Phi, G or the NTK."""
        if symbol == "NTK" and self.network.factorizes:
            return self.keeps("Phi") and self.keeps("G")
        return any(kind == symbol for kind, _ in self.kernels)

    def with_both_ends(self) -> Solution:
        """Returns the solution without kernels whose first or last step was not kept, which do not show what moved."""
        ends = {0, self.steps_done}
        short = {
            key[0] for key, kernel in self.kernels.items() if kernel.steps is not None and not ends <= {*kernel.steps}
        }
        return replace(self, kernels={key: kernel for key, kernel in self.kernels.items() if key[0] not in short})

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

    def restricted(self, samples: Samples = None, replicates: Samples = None) -> Solution:
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
        rows = np.arange(self.problem.points) if samples is None else np.asarray(samples)
        chosen = None if samples is None else rows
        runs = None if replicates is None else np.asarray(replicates)
        X, y, weights = (getattr(self.problem, name)[rows] for name in ("X", "y", "weights"))
        problem = Problem(X, y, weights if weights.any() else None, self.problem.loss, self.problem.stream)
        count = len(self.replicate_predictions)

        def some(values: np.ndarray) -> np.ndarray:
            """Fields (R, P, neurons); one replicate stands for all where they are the same."""
            return (values if runs is None or len(values) < count else values[runs])[:, rows]

        f = self.replicate_predictions if runs is None else self.replicate_predictions[runs]
        return replace(
            self,
            run=self.run.replace(problem=problem),
            replicate_predictions=f[:, :, rows],
            kernels={key: kernel.restricted(chosen, runs) for key, kernel in self.kernels.items()},
            predictor=self.predictor if runs is None or self.predictor is None else self.predictor.of_replicates(runs),
            field_samples={
                key: {name: some(values) for name, values in recorded.items()}
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
        predictor, t = self._predictor_at(step)
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
        predictor, t = self._predictor_at(step)
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
            name = type(self.method).__name__
            raise ValueError(
                f"{name} left no state to predict from: use March, StaticNTK or FiniteWidth, "
                "and for a file save(..., predictor=True)"
            )
        return self.predictor

    def _predictor_at(self, step: int) -> tuple[Predictor, int]:
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
        """One labelled xarray.Dataset; its kernels are expanded when read, see `kernelfield.files.labelled`."""
        from kernelfield.files.labelled import labelled  # lazy: xarray takes a second to import

        return labelled(self)

    def save(self, path: str | PathLike[str], predictor: bool = False) -> None:
        """Write to a NetCDF file, which `kernelfield.load` reads; see `kernelfield.files.storage.save`."""
        from kernelfield.files.storage import save  # lazy: xarray takes a second to import

        save(self, path, predictor)
