"""Infinitely wide networks as scikit-learn estimators."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

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
RESTS = 0.01  # of its loss, by which it changes in the second half of training that has converged
SOLVED = 1e-3  # part of the initial loss that is as good as none
OVERFITS = 0.7  # where in a run its best step lies, at most, if it need not be longer
RETRIES = 8  # of runs that diverge or run out of particles
OVERSHOOTS = 0.01  # part of the initial loss by which a step of too high a rate raises it
SLOPES = {"mse": 1.0, "logistic": 0.25, "cross_entropy": 0.5}  # largest second derivatives of a loss


class _InfiniteWidth(BaseEstimator):
    """What regressor and classifier have in common."""

    def __init__(
        self,
        depth: int = 2,
        *,
        activation: Any = "tanh",
        gamma0: float | Sequence[float] = 1.0,
        bias_scale: float | None = 0.5,
        learning_rate: float | Literal["auto"] = "auto",
        momentum: float = 0.9,
        steps: int | Literal["converged"] = "converged",
        max_steps: int = 800,
        early_stopping: bool = False,
        validation_fraction: float = 0.2,
        particles: int = 1024,
        replicates: int = 2,
        random_state: Any = None,
    ) -> None:
        self.depth = depth
        self.activation = activation
        self.gamma0 = gamma0
        self.bias_scale = bias_scale
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.steps = steps
        self.max_steps = max_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.particles = particles
        self.replicates = replicates
        self.random_state = random_state

    def _trained(self, X: np.ndarray, y: np.ndarray, loss: str, labels: np.ndarray | None = None) -> None:
        """Set `solution_`, `n_iter_` and `learning_rate_`; labels are what a validation split keeps in proportion."""
        if self.steps != "converged" and not isinstance(self.steps, Integral):
            raise ValueError(f"steps must be an integer or 'converged', got {self.steps!r}")
        choices = list(map(float, np.atleast_1d(self.gamma0)))
        if len(choices) > 1 and not self.early_stopping:
            raise ValueError("among several gamma0 a validation split chooses: set early_stopping=True")
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31 - 1))
        most = self.max_steps if self.steps == "converged" else int(self.steps)
        problem, networks = Problem(X, y, loss=loss), [self._network(gamma0) for gamma0 in choices]
        rate = self._lazy_rate(networks[0], problem) if self.learning_rate == "auto" else None
        self._choose(choices[0], rate)
        if self.early_stopping:
            steps = self._best(problem, choices, rate, most, seed, labels)
            self.solution_ = self._solved(problem, steps, seed, most)
        elif self.steps == "converged":
            self.solution_ = self._converged(problem, most, seed)
        else:
            self.solution_ = self._solved(problem, most, seed, most)
        self.n_iter_ = self.solution_.steps_done

    def _best(
        self,
        problem: Problem,
        choices: Sequence[float],
        rate: float | None,
        most: int,
        seed: int,
        labels: np.ndarray | None,
    ) -> int:
        """The step with the least loss on a validation split; sets its gamma0 and learning rate."""
        every = np.arange(problem.points)
        parts: Any = train_test_split(every, test_size=self.validation_fraction, random_state=seed, stratify=labels)
        split, found = Problem(problem.X, problem.y, np.isin(every, parts[0]), problem.loss), {}
        self.validation_losses_: dict[float, np.ndarray] = {}
        for gamma0 in choices:
            self._choose(gamma0, rate)
            self.validation_losses_[gamma0] = self._validated(split, parts[1], most, seed)
            found[gamma0] = self.learning_rate_
        self.gamma0_ = min(choices, key=lambda gamma0: self.validation_losses_[gamma0].min())
        self.learning_rate_ = found[self.gamma0_]
        return max(1, int(self.validation_losses_[self.gamma0_].argmin()))

    def _choose(self, gamma0: float, rate: float | None) -> None:
        """Set `gamma0_`, and the learning rate to begin with: the given one, or less than a lazy rate."""
        self.gamma0_: float = gamma0
        self.learning_rate_: Any = self.learning_rate if rate is None else rate / (1 + gamma0)

    def _network(self, gamma0: float) -> MLP:
        """With gamma0, which the static kernel does not know."""
        return MLP(depth=self.depth, activation=self.activation, gamma0=gamma0 or 1.0, bias_scale=self.bias_scale)

    def _solved(self, problem: Problem, steps: int, seed: int, most: int) -> Solution:
        """Training, in smaller steps, up to `most`, if it overshoots."""
        network, least = self._network(self.gamma0_), self.learning_rate_ / 2**RETRIES
        while True:
            rule = GradientDescent(learning_rate=self.learning_rate_, steps=steps, momentum=self.momentum)
            march = March(particles=self.particles, replicates=self.replicates, seed=seed, kernels="none")
            method = march if self.gamma0_ else StaticNTK()
            solution = solve(network, problem, rule, method, fields_at=() if self.gamma0_ else (-1,), throw=False)
            code, rises = solution.status.code, np.diff(solution.loss).max(initial=0)
            overshot = code == "diverged" or (code == "ok" and rises > OVERSHOOTS * problem.initial_loss)
            if overshot and self.learning_rate == "auto" and self.learning_rate_ > least:
                self.learning_rate_ /= 2
                steps = min(2 * steps, most)
            else:
                check(solution.status, solution)
                return solution

    def _converged(self, problem: Problem, most: int, seed: int) -> Solution:
        """Trained for twice the steps, until the second half of them changes little."""
        steps = min(FIRST_STEPS, most)
        while True:
            solution = self._solved(problem, steps, seed, most)
            steps = solution.steps_done
            late = solution.loss[steps // 2 :]
            if np.ptp(late) < RESTS * late.max() or late[-1] < SOLVED * problem.initial_loss:
                return solution
            if steps == most:
                advice = "raise max_steps, or take early_stopping=True or a number of steps"
                warnings.warn(
                    f"not converged after max_steps = {most} steps: {advice}", ConvergenceWarning, stacklevel=4
                )
                return solution
            steps = min(2 * steps, most)

    def _validated(self, problem: Problem, test: np.ndarray, most: int, seed: int) -> np.ndarray:
        """The loss of every step on the points `test`, which do not train, of a run that is long enough."""
        steps = min(FIRST_STEPS, most)
        while True:
            solution = self._solved(problem, steps, seed, most)
            steps = solution.steps_done
            losses = problem.loss.measured(solution.predictions, problem.y)[:, test].mean(axis=1)
            if losses.argmin() < OVERFITS * steps or steps == most:
                return losses
            steps = min(2 * steps, most)

    def _lazy_rate(self, network: MLP, problem: Problem) -> float:
        """A quarter of what is stable in a network that does not learn features.

        Of an activation whose kernel is not known, that of erf has to do.
        """
        try:
            ntk = initial_kernels(network, problem).ntk
        except NotConverged:
            ntk = initial_kernels(network.model_copy(update={"activation": "erf"}), problem).ntk
        largest = np.linalg.eigvalsh(ntk)[-1] / problem.points
        return float(0.5 / (max(largest, 1e-12) * SLOPES[problem.loss.name]))

    def _outputs(self, X: Any) -> Estimate:
        """f of checked inputs, as the network has it."""
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
        """Train.

        Args:
            X: (n, D).
            y: (n,) or (n, C).
        """
        how: dict[str, Any] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        checked: Any = validate_data(self, X, y, dtype=np.float64, **how)
        X, y = checked
        self.target_mean_, scale = y.mean(axis=0), y.std(axis=0)
        self.target_scale_ = np.where(scale > 0, scale, 1.0)
        self._trained(X, (y - self.target_mean_) / self.target_scale_, "mse")
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predictions (n,) or (n, C), and with `return_std` the standard error of the solver too, shaped alike."""
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
        """Train.

        Args:
            X: (n, D).
            y: labels (n,), of two classes or more.
        """
        checked: Any = validate_data(self, X, y, dtype=np.float64)
        X, y = checked
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"InfiniteWidthClassifier needs samples of 2 classes or more, got 1 class: {self.classes_[0]}"
            )
        two = len(self.classes_) == 2
        self._trained(X, 2.0 * labels - 1 if two else labels, "logistic" if two else "cross_entropy", labels)
        return self

    def decision_function(self, X: Any, return_std: bool = False) -> Any:
        """Outputs f, (n,) of two classes, above 0 for the second; else (n, classes). With `return_std` errors too."""
        f = self._outputs(X)
        return (f.mean, f.se) if return_std else f.mean

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes): the logistic function of f, or softmax."""
        f = self.decision_function(X)
        if f.ndim == 1:
            return np.stack([expit(-f), expit(f)], axis=1)
        return softmax(f, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable labels (n,)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
