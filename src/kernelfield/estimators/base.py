"""What both estimators share: their settings, and training by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import bar
from kernelfield.common.settings import check_mask
from kernelfield.describe.problem import Problem
from kernelfield.estimators.trainer import EXACT, SOME, WHOLE, Trainer, in_parts
from kernelfield.solution.estimate import Estimate

GAMMAS = (0.0, 0.3, 1.0, 3.0)  # that "auto" chooses among, from lazy to rich


@dataclass(eq=False, repr=False)
class InfiniteWidth(BaseEstimator):
    """The settings of the regressor and the classifier, and training by them."""

    depth: int = 2
    _: KW_ONLY
    activation: Any = "tanh"
    gamma0: float | Sequence[float] | Literal["auto"] = 1.0
    bias_scale: float | None = 0.5
    learning_rate: float | Literal["auto"] = "auto"
    momentum: float = 0.9
    batch_size: int | Literal["auto"] | None = "auto"
    steps: int | Literal["converged"] = "converged"
    max_steps: int = 800
    max_epochs: int = 20
    early_stopping: bool = False
    validation_fraction: float = 0.2
    particles: int = 1024
    replicates: int = 2
    random_state: Any = None
    progress: bool = True

    def _train(self, X: np.ndarray, y: np.ndarray, loss: str, weights: np.ndarray, classes: bool) -> None:
        """Sets the attributes of a trained estimator; a validation split keeps the proportions of classes."""
        choices = self._check_settings()
        searches = self.early_stopping or self.gamma0 == "auto"
        if len(choices) > 1 and not searches:
            raise ValueError("among several gamma0 a validation split chooses: set early_stopping=True")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        problem = Problem(X, y, weights, loss=loss)
        training = Trainer(self, problem, seed)
        threads = threadpool_limits(1 if problem.points <= EXACT else None, "blas")  # more would wait for each other
        with threads, bar("training", self.progress) as report:
            again = len(choices) > 1 and problem.points > SOME
            training.report = in_parts(report, len(choices) + 1 + again if searches else 1)
            if searches:
                labels = y if classes else None
                steps = training.choose(choices, labels)
                self.validation_losses_ = training.validation_losses
                self.solution_ = training.solve(problem, steps)
            else:
                training.start_with(choices[0])
                converges = self.steps == "converged"
                self.solution_ = training.solve_until_converged() if converges else training.solve(problem)
        self.gamma0_, self.learning_rate_ = training.gamma0, training.learning_rate
        self.n_iter_ = self.solution_.steps_done

    def _check_settings(self) -> list[float]:
        """Returns the values of gamma0 to choose among; raises ValueError for a setting that is wrong."""
        for name, word in (("steps", "converged"), ("learning_rate", "auto"), ("batch_size", "auto")):
            value, kind = getattr(self, name), Real if name == "learning_rate" else Integral
            fits = isinstance(value, kind) and not isinstance(value, bool) and float(value) > 0  # type: ignore[arg-type]
            if not fits and not (value is None and name == "batch_size") and not _is_word(value, word):
                need = "a positive number" if name == "learning_rate" else "a positive integer"
                raise ValueError(f"{name} must be {need} or '{word}', got {value!r}")
        if isinstance(self.gamma0, str) and self.gamma0 != "auto":
            raise ValueError(f"gamma0 must be a number, several numbers or 'auto', got {self.gamma0!r}")
        return list(GAMMAS) if isinstance(self.gamma0, str) else [float(value) for value in np.atleast_1d(self.gamma0)]

    def _check_weights(self, X: np.ndarray, y: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns inputs, targets and weights of the points of some weight, equal ones as one where all train at once.

        So points that are given twice count as one point of twice the weight.
        """
        weights = np.ones(len(X)) if weights is None else np.asarray(weights, float)
        if weights.shape != (len(X),) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
            raise ValueError(f"sample_weight must have {len(X)} weights that are not negative, nor all zero")
        X, y, kept = X[weights > 0], y[weights > 0], weights[weights > 0]
        if len(X) > WHOLE:
            return X, y, kept
        rows, first, point = np.unique(np.column_stack([X, y]), axis=0, return_index=True, return_inverse=True)
        if len(rows) == len(weights):  # all have a weight and are different: they keep their order
            return X, y, kept
        return X[first], y[first], np.bincount(point.ravel(), kept)

    def _outputs(self, X: Any) -> Estimate:
        """Returns the outputs f of the network, (n,) or (n, C), for inputs (n, D), after checking them."""
        check_is_fitted(self)
        check_mask("X", X)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.solution_.predict(X)


def check_masks(X: Any, y: Any) -> None:
    """Raises ValueError for masked arrays, whose masks scikit-learn does not see."""
    check_mask("X", X)
    check_mask("y", y)


def _is_word(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word
