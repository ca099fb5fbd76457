"""Infinitely wide networks as scikit-learn estimators."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from kernelfield.estimators.base import InfiniteWidth, check_masks


class InfiniteWidthRegressor(RegressorMixin, InfiniteWidth):
    """Regression by an infinitely wide network that learns features.

    Inputs are used as given: scale them (`StandardScaler`). Targets are standardized inside, so that gamma0 means the
    same for all data. Trained by gradient descent on the squared error.

    Args:
        depth: number of hidden layers L.
        activation: see `kernelfield.MLP`.
        gamma0: feature-learning strength; 0 is the predictor of the neural tangent kernel. Among several, with early
            stopping, the one with the least loss on the validation split is taken, of more than 4,000 points by that
            many of them; "auto" stands for 0, 0.3, 1 and 3 with early stopping.
        bias_scale: of trained biases; None for none, when tanh networks are odd functions of their inputs.
        learning_rate: training time per step; "auto" takes what the tangent kernel allows, halved where training then
            diverges or overshoots.
        momentum: of gradient descent.
        batch_size: points of an update, None for all; "auto" takes all up to 300 points, and 128 of more, but for
            gamma0 = 0 all up to 1,000 points, whose kernel is exact.
        steps: a number, or "converged": until the second half of all steps takes less than one percent off the loss.
            With batches a step is an epoch.
        max_steps: at most, where every update takes all points.
        max_epochs: at most, with batches.
        early_stopping: stop where the loss on a validation split is least, of up to 1,000 points that on four splits;
            all points are then trained that long.
        validation_fraction: of the points, in that split.
        particles: sample neurons of each layer, of every replicate.
        replicates: independent runs, whose spread is the error of the solver.
        random_state: seed of samples, batches and split.
        progress: whether a terminal shows one bar for all runs, with the time left.

    Attributes:
        solution_: the `kernelfield.Solution` of training, on standardized targets.
        n_iter_: number of steps.
        learning_rate_: that was used.
        gamma0_: that was used.
        validation_losses_: with early stopping, for every gamma0 those of every step, on the points that choose it.
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> InfiniteWidthRegressor:
        """Trains on inputs X (n, D) and targets y (n,) or (n, C) of points with weights (n,), equal ones by default."""
        check_masks(X, y)
        checks: dict[str, Any] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        X, y = cast(Any, validate_data(self, X, y, dtype=np.float64, **checks))
        if y.dtype.kind not in "iufb":
            raise ValueError(f"y must hold real numbers, got {y.dtype}: InfiniteWidthClassifier takes labels")
        X, y, weights = self._check_weights(X, y, sample_weight)
        self.target_mean_ = np.average(y, axis=0, weights=weights)
        scale = np.sqrt(np.average((y - self.target_mean_) ** 2, axis=0, weights=weights))
        is_constant = np.ptp(y, axis=0) == 0  # where the mean is the value but for rounding
        self.target_mean_ = np.where(is_constant, y[0], self.target_mean_)
        self.target_scale_ = np.where(is_constant, 1.0, scale)
        self._train(X, (y - self.target_mean_) / self.target_scale_, "mse", weights, classes=False)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Returns predictions (n,) or (n, C) for X (n, D); with `return_std` the solver's standard errors as well."""
        f = self._outputs(X)
        mean = f.mean * self.target_scale_ + self.target_mean_
        return (mean, f.se * self.target_scale_) if return_std else mean


class InfiniteWidthClassifier(ClassifierMixin, InfiniteWidth):
    """Classification by an infinitely wide network that learns features.

    Inputs are used as given: scale them (`StandardScaler`). Trained by gradient descent on the logistic loss, or for
    several classes on the cross-entropy.

    Args:
        depth, activation, gamma0, bias_scale, learning_rate, momentum, batch_size, steps, max_steps, max_epochs,
            early_stopping, validation_fraction, particles, replicates, random_state, progress: as for
            `InfiniteWidthRegressor`.

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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> InfiniteWidthClassifier:
        """Trains on inputs X (n, D) and labels y (n,) of two classes or more, with weights (n,), by default equal."""
        check_masks(X, y)
        X, y = cast(Any, validate_data(self, X, y, dtype=np.float64))
        check_classification_targets(y)
        labels = np.unique(y, return_inverse=True)[1]
        X, labels, weights = self._check_weights(X, labels, sample_weight)
        self.classes_, labels = np.unique(np.unique(y)[labels.astype(int)], return_inverse=True)
        if len(self.classes_) < 2:
            got = f"1 class: {self.classes_[0]}"
            raise ValueError(f"InfiniteWidthClassifier needs samples of 2 classes or more, got {got}")
        is_binary = len(self.classes_) == 2
        targets, loss = (2.0 * labels - 1, "logistic") if is_binary else (labels, "cross_entropy")
        self._train(X, targets, loss, weights, classes=True)
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
