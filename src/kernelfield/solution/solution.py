"""What every method returns: predictions and kernels with their error bars, and how the run went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import FactorKernel, KeptKernel, Kernel, Key, Symbol, TangentKernel
from kernelfield.solution.status import Status
from kernelfield.solution.trained_network import Predictor, Times, TrainedNetwork

if TYPE_CHECKING:
    from kernelfield.theories.fixed_point import FixedPoint

Numbers = np.ndarray | list[int] | None
SYMBOLS: dict[str, Symbol] = {"feature_kernel": "Phi", "gradient_kernel": "G", "ntk": "NTK"}
ABOUT: dict[Symbol, str] = {
    "Phi": "feature kernels",
    "G": "gradient kernels",
    "NTK": "tangent kernels",
    "eNTK": "effective tangent kernels",
    "cosine": "cosines between gradients and what stands for them",
}


@dataclass(frozen=True, eq=False)
class Solution(TrainedNetwork):
    """Training, solved by one method.

    Times are in steps (a step advances training time by the learning rate); row t is before update t and the
    last row is final. Layers are counted as in the theory: feature kernels 0..L (0 is the input kernel),
    gradient kernels 1..L+1 (L+1 is one). Negative times count from the end.

    Attributes:
        run: what was solved; its parts are also here, as network, problem, training and method.
        replicate_predictions: (R, steps + 1, P, C), f of every replicate; (R, steps + 1, P) for targets (P,), as which
            they are kept.
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
    kernels: Mapping[Key, KeptKernel] = field(default_factory=dict)
    field_samples: Mapping[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    predictor: Predictor | None = None
    exact: bool = False
    status: Status = field(default_factory=Status)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        f = self.replicate_predictions
        object.__setattr__(self, "replicate_predictions", f.reshape(*f.shape[:3], *self.problem.y.shape[1:]))

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
        if quantity == "ntk":
            return self.kernel_estimate("NTK", None, *args, **kwargs)
        if quantity in SYMBOLS:
            return self.kernel_estimate(SYMBOLS[quantity], *args, **kwargs)
        f, y, loss = self.replicate_predictions, self.problem.y, self.problem.loss
        if quantity == "predictions":
            return Estimate(f, self.exact)
        if quantity == "errors":
            return Estimate(loss.measured_signal(f, y), self.exact)
        if quantity == "loss":
            return Estimate(loss.measured(f, y) @ self.problem.weights, self.exact)
        raise ValueError(f"quantity must be one of predictions, errors, loss, {', '.join(SYMBOLS)}, got {quantity!r}")

    def kernel_estimate(
        self, symbol: Symbol, layer: int | None = None, t: Times = -1, s: Times | None = None
    ) -> Estimate:
        """Returns a kernel K(t, s) with its error bar.

        Arguments and errors are those of `kernel` and, for t and s, of `feature_kernel`.
        """
        kernel = self.kernel(symbol, layer)
        return Estimate(kernel.between(self.steps(t), self.steps(t if s is None else s)), self.exact or kernel.exact)

    def kernel(self, symbol: Symbol, layer: int | None = None) -> Kernel:
        """Returns a kernel between all times and samples, as it is kept.

        Args:
            symbol: "Phi", "G" or "NTK"; of learning rules also "eNTK", the effective tangent kernel <g g~> Phi with
                what stands for the gradients, g~, and "cosine", the cosines between g and g~.
            layer: 0..L of Phi, 1..L+1 of G, 1..L of cosines, None for tangent kernels.

        Raises:
            ValueError: for a kernel that was not kept, or a layer that is not there.
        """
        if symbol not in ABOUT:
            raise ValueError(f"kernel must be one of {', '.join(ABOUT)}, got {symbol!r}")
        if (symbol in ("NTK", "eNTK")) != (layer is None):
            need = "a layer" if layer is None else "no layer"
            raise ValueError(f"kernel {symbol!r} takes {need}, got layer={layer}")
        if (symbol, layer) in self.kernels:
            return self.kernels[symbol, layer]
        if not self.keeps(symbol):
            advice = "" if symbol in SYMBOLS.values() else ", and by a learning rule"
            raise ValueError(f"{ABOUT[symbol]} were not tracked in this run: solve with kernels='all'{advice}")
        if symbol == "NTK":
            factors = cast("Mapping[Key, FactorKernel]", self.kernels)
            pairs = tuple((factors["Phi", at], factors["G", at + 1]) for at in self.layers("Phi"))
            return TangentKernel(pairs, factors["G", 1].outputs, factors["G", 1].steps)
        layers = self.layers(symbol)
        raise ValueError(f"layer of {ABOUT[symbol]} must be in {layers[0]}..{layers[-1]}, got {layer}")

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
        ends, kernels = {0, self.steps_done}, self.kernels.items()
        short = {symbol for (symbol, _), kernel in kernels if kernel.steps is not None and not ends <= {*kernel.steps}}
        return replace(self, kernels={key: kernel for key, kernel in kernels if key[0] not in short})

    # --- means and standard errors

    @property
    def predictions(self) -> np.ndarray:
        """f (steps + 1, P), or (steps + 1, P, C) of C outputs: row t is before update t.

        Row 0 is zero, but for finite networks in Langevin dynamics, whose f is the output itself.
        """
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

    def restricted(self, samples: Numbers = None, replicates: Numbers = None) -> Solution:
        """The same run, looked at on some of its samples and replicates.

        Args:
            samples, replicates: their numbers (n,); all if None.

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
        rows, runs = (slice(None) if chosen is None else np.asarray(chosen) for chosen in (samples, replicates))
        X, y, weights = (getattr(self.problem, name)[rows] for name in ("X", "y", "weights"))
        parts = {name: getattr(self.problem, name) for name in ("loss", "stream", "classes", "vocabulary")}
        problem = Problem(X, y, weights if weights.any() else None, **parts)
        f, predictor = self.replicate_predictions, self.predictor

        def restrict(values: np.ndarray) -> np.ndarray:
            """Returns f or a field; a field that all replicates share has one replicate."""
            return values if len(values) < len(f) else values[runs]

        return replace(
            self,
            run=replace(self.run, problem=problem),
            replicate_predictions=restrict(f)[:, :, rows],
            kernels={key: kernel.restricted(rows, runs) for key, kernel in self.kernels.items()},
            predictor=None if predictor is None else predictor.of_replicates(runs),
            field_samples={
                key: {name: restrict(values)[:, rows] for name, values in fields.items()}
                for key, fields in self.field_samples.items()
            },
        )

    def to_xarray(self) -> Any:
        """One labelled xarray.Dataset; its kernels are expanded when read, see `kernelfield.files.labelled`."""
        from kernelfield.files.labelled import labelled  # lazy: xarray takes a second to import

        return labelled(self)

    def save(self, path: str | PathLike[str], predictor: bool = False) -> None:
        """Write to a NetCDF file, which `kernelfield.load` reads; see `kernelfield.files.storage.save`."""
        from kernelfield.files.storage import save  # lazy: xarray takes a second to import

        save(self, path, predictor)
