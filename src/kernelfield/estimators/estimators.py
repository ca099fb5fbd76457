"""Infinitely wide networks as scikit-learn estimators."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Literal, cast

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from kernelfield.activations.gaussian_averages import NotConverged
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solve import check, solve
from kernelfield.theories.static_ntk import StaticNTK, initial_kernels

FIRST_STEPS = 50  # of a run whose length is not known
RESTS = 0.01  # a run has converged if the second half of its steps changes the loss by less than this part
SOLVED = 1e-3  # a run has converged if its loss is below this part of the initial loss
OVERFITS = 0.7  # a run is long enough if its best step lies before this part of it
RETRIES = 8  # of runs that diverge or overshoot
OVERSHOOTS = 0.01  # a step overshoots if it raises the loss by more than this part of the initial loss
SLOPES = {"mse": 1.0, "logistic": 0.25, "cross_entropy": 0.5}  # largest second derivatives of a loss


@dataclass(eq=False, repr=False)
class _InfiniteWidth(BaseEstimator):
    """The settings of the regressor and the classifier, and training by them."""

    depth: int = 2
    _: KW_ONLY
    activation: Any = "tanh"
    gamma0: float | Sequence[float] = 1.0
    bias_scale: float | None = 0.5
    learning_rate: float | Literal["auto"] = "auto"
    momentum: float = 0.9
    steps: int | Literal["converged"] = "converged"
    max_steps: int = 800
    early_stopping: bool = False
    validation_fraction: float = 0.2
    particles: int = 1024
    replicates: int = 2
    random_state: Any = None

    def _train(self, X: np.ndarray, y: np.ndarray, loss: str, labels: np.ndarray | None = None) -> None:
        """Sets the attributes of a trained estimator; a validation split keeps the proportions of the labels (n,)."""
        if self.steps != "converged" and not isinstance(self.steps, Integral):
            raise ValueError(f"steps must be an integer or 'converged', got {self.steps!r}")
        choices = list(map(float, np.atleast_1d(self.gamma0)))
        if len(choices) > 1 and not self.early_stopping:
            raise ValueError("among several gamma0 a validation split chooses: set early_stopping=True")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        most = self.max_steps if self.steps == "converged" else int(self.steps)
        problem, networks = Problem(X, y, loss=loss), [self._network(gamma0) for gamma0 in choices]
        rate = self._lazy_rate(networks[0], problem) if self.learning_rate == "auto" else None
        self._start_with(choices[0], rate)
        if self.steps == "converged" and not self.early_stopping:
            self.solution_ = self._solve_until_converged(problem, most, seed)
        else:
            steps = self._choose(problem, choices, rate, most, seed, labels) if self.early_stopping else most
            self.solution_ = self._solve(problem, steps, most, seed)
        self.n_iter_ = self.solution_.steps_done

    def _choose(
        self,
        problem: Problem,
        choices: Sequence[float],
        rate: float | None,
        most: int,
        seed: int,
        labels: np.ndarray | None,
    ) -> int:
        """Returns the step with the least loss on a validation split; sets its gamma0 and learning rate."""
        points, rates = np.arange(problem.points), {}
        parts: Any = train_test_split(points, test_size=self.validation_fraction, random_state=seed, stratify=labels)
        split = Problem(problem.X, problem.y, np.isin(points, parts[0]), problem.loss)
        self.validation_losses_: dict[float, np.ndarray] = {}
        for gamma0 in choices:
            self._start_with(gamma0, rate)
            self.validation_losses_[gamma0] = self._validation_losses(split, parts[1], most, seed)
            rates[gamma0] = self.learning_rate_
        self.gamma0_ = min(choices, key=lambda gamma0: self.validation_losses_[gamma0].min())
        self.learning_rate_ = rates[self.gamma0_]
        return max(1, int(self.validation_losses_[self.gamma0_].argmin()))

    def _start_with(self, gamma0: float, rate: float | None) -> None:
        """Sets `gamma0_`, and the learning rate to begin with: the user's, or less than that of the lazy limit."""
        self.gamma0_: float = gamma0
        self.learning_rate_: Any = self.learning_rate if rate is None else rate / (1 + gamma0)

    def _network(self, gamma0: float) -> MLP:
        """Returns the network with a gamma0; that of the tangent kernel, 0, has any."""
        return MLP(depth=self.depth, activation=self.activation, gamma0=gamma0 or 1.0, bias_scale=self.bias_scale)

    def _solve(self, problem: Problem, steps: int, most: int, seed: int) -> Solution:
        """Returns the solution; if it overshoots, that of more and smaller steps, `most` of them at most."""
        network, least = self._network(self.gamma0_), self.learning_rate_ / 2**RETRIES
        march = March(particles=self.particles, replicates=self.replicates, seed=seed, kernels="none")
        method, fields_at = (march, ()) if self.gamma0_ else (StaticNTK(), (-1,))
        while True:
            rule = GradientDescent(learning_rate=self.learning_rate_, steps=steps, momentum=self.momentum)
            solution = solve(network, problem, rule, method, fields_at=fields_at, throw=False)
            code, rises = solution.status.code, np.diff(solution.loss).max(initial=0)
            overshot = code == "diverged" or (code == "ok" and rises > OVERSHOOTS * problem.initial_loss)
            if not overshot or self.learning_rate != "auto" or self.learning_rate_ <= least:
                check(solution.status, solution)
                return solution
            self.learning_rate_ /= 2
            steps = min(2 * steps, most)

    def _solve_long_enough(
        self, problem: Problem, most: int, seed: int, is_long_enough: Callable[[Solution], bool]
    ) -> Solution:
        """Returns the solution of the first run that is long enough, of runs of twice the steps, up to `most`."""
        steps = min(FIRST_STEPS, most)
        while True:
            solution = self._solve(problem, steps, most, seed)
            steps = solution.steps_done
            if is_long_enough(solution) or steps == most:
                return solution
            steps = min(2 * steps, most)

    def _solve_until_converged(self, problem: Problem, most: int, seed: int) -> Solution:
        """Returns the solution of a run the second half of which changes little; warns if `most` steps are too few."""

        def has_converged(solution: Solution) -> bool:
            late = solution.loss[solution.steps_done // 2 :]
            return bool(np.ptp(late) < RESTS * late.max() or late[-1] < SOLVED * problem.initial_loss)

        solution = self._solve_long_enough(problem, most, seed, has_converged)
        if not has_converged(solution):
            advice = "raise max_steps, or take early_stopping=True or a number of steps"
            warnings.warn(f"not converged after max_steps = {most} steps: {advice}", ConvergenceWarning, stacklevel=4)
        return solution

    def _validation_losses(self, problem: Problem, test: np.ndarray, most: int, seed: int) -> np.ndarray:
        """Returns the loss after every step of a run that is long enough, on the points `test`, which do not train."""

        def measure(solution: Solution) -> np.ndarray:
            return problem.loss.measured(solution.predictions, problem.y)[:, test].mean(axis=1)

        def is_long_enough(solution: Solution) -> bool:
            return bool(measure(solution).argmin() < OVERFITS * solution.steps_done)

        return measure(self._solve_long_enough(problem, most, seed, is_long_enough))

    def _lazy_rate(self, network: MLP, problem: Problem) -> float:
        """Returns a quarter of the stable learning rate in the lazy limit.

        For an activation whose kernel is not known it is that of erf.
        """
        try:
            ntk = initial_kernels(network, problem).ntk
        except NotConverged:
            ntk = initial_kernels(network.model_copy(update={"activation": "erf"}), problem).ntk
        largest = np.linalg.eigvalsh(ntk)[-1] / problem.points
        return float(0.5 / (max(largest, 1e-12) * SLOPES[problem.loss.name]))

    def _outputs(self, X: Any) -> Estimate:
        """Returns the outputs f of the network, (n,) or (n, C), for inputs (n, D), after checking them."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.solution_.predict(X)


class InfiniteWidthRegressor(RegressorMixin, _InfiniteWidth):
    """Regression by an infinitely wide network that learns features.

    Inputs are used as given: scale them (`StandardScaler`). Targets are standardized inside, so that gamma0 means the
    same for all data. Trained by gradient descent on the squared error.

    Args:
        depth: number of hidden layers L.
        activation: see `kernelfield.MLP`.
        gamma0: feature-learning strength; 0 is the predictor of the neural tangent kernel. Among several, with early
            stopping, the one with the least loss on the validation split is taken.
        bias_scale: of trained biases; None for none, when tanh networks are odd functions of their inputs.
        learning_rate: training time per step; "auto" takes what the tangent kernel allows, halved where training then
            diverges or overshoots.
        momentum: of gradient descent.
        steps: a number, or "converged": until the second half of all steps takes less than one percent off the loss.
        max_steps: at most.
        early_stopping: stop where the loss on a validation split is least; all points are then trained that long.
        validation_fraction: of the points, in that split.
        particles: sample neurons of each layer, of every replicate; four times the number of points if that is more.
        replicates: independent runs, whose spread is the error of the solver.
        random_state: seed of samples and split.

    Attributes:
        solution_: the `kernelfield.Solution` of training, on standardized targets.
        n_iter_: number of steps.
        learning_rate_: that was used.
        gamma0_: that was used.
        validation_losses_: with early stopping, for every gamma0 those of every step.
        target_mean_, target_scale_: of the targets, () or (C,).

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> X = np.random.default_rng(0).standard_normal((20, 3))
        >>> model = kf.InfiniteWidthRegressor(depth=1, activation="linear", steps=200).fit(X, X @ [1, 2, 3])
        >>> model.score(X, X @ [1, 2, 3]) > 0.99
        True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> InfiniteWidthRegressor:
        """Trains on inputs X (n, D) and targets y (n,) or (n, C)."""
        checks: dict[str, Any] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        X, y = cast(Any, validate_data(self, X, y, dtype=np.float64, **checks))
        self.target_mean_, scale = y.mean(axis=0), y.std(axis=0)
        self.target_scale_ = np.where(scale > 0, scale, 1.0)
        self._train(X, (y - self.target_mean_) / self.target_scale_, "mse")
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Returns predictions (n,) or (n, C) for X (n, D); with `return_std` the solver's standard errors as well."""
        f = self._outputs(X)
        mean = f.mean * self.target_scale_ + self.target_mean_
        return (mean, f.se * self.target_scale_) if return_std else mean


class InfiniteWidthClassifier(ClassifierMixin, _InfiniteWidth):
    """Classification by an infinitely wide network that learns features.

    Inputs are used as given: scale them (`StandardScaler`). Trained by gradient descent on the logistic loss, or for
    several classes on the cross-entropy.

    Args:
        depth, activation, gamma0, bias_scale, learning_rate, momentum, steps, max_steps, early_stopping,
            validation_fraction, particles, replicates, random_state: as for `InfiniteWidthRegressor`.

    Attributes:
        classes_: labels.
        solution_, n_iter_, learning_rate_, gamma0_, validation_losses_: as of `InfiniteWidthRegressor`.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> X = np.random.default_rng(0).standard_normal((20, 3))
        >>> model = kf.InfiniteWidthClassifier(depth=1, steps=30, replicates=1, particles=128)
        >>> model.fit(X, np.where(X[:, 0] > 0, "right", "left")).predict([[2, 0, 0], [-2, 0, 0]]).tolist()
        ['right', 'left']
    """

    def fit(self, X: Any, y: Any) -> InfiniteWidthClassifier:
        """Trains on inputs X (n, D) and labels y (n,) of two classes or more."""
        X, y = cast(Any, validate_data(self, X, y, dtype=np.float64))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            got = f"1 class: {self.classes_[0]}"
            raise ValueError(f"InfiniteWidthClassifier needs samples of 2 classes or more, got {got}")
        is_binary = len(self.classes_) == 2
        self._train(X, 2.0 * labels - 1 if is_binary else labels, "logistic" if is_binary else "cross_entropy", labels)
        return self

    def decision_function(self, X: Any, return_std: bool = False) -> Any:
        """Returns the outputs f for X (n, D), and with `return_std` the solver's standard errors of them too.

        They are (n,) for two classes, above 0 for the second one, and (n, classes) for more.
        """
        f = self._outputs(X)
        return (f.mean, f.se) if return_std else f.mean

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities (n, classes) for X (n, D): the logistic function of f, or softmax."""
        f = self.decision_function(X)
        if f.ndim == 1:
            return np.stack([expit(-f), expit(f)], axis=1)
        return softmax(f, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable labels (n,) for X (n, D)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
