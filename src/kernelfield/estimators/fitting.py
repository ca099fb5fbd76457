"""An infinitely wide network for a table: chosen on a validation split, and tested beside other predictors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, train_test_split

from kernelfield.estimators.estimators import InfiniteWidthClassifier, InfiniteWidthRegressor
from kernelfield.estimators.tables import Columns, Task
from kernelfield.finite.method import FiniteWidth
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

if TYPE_CHECKING:
    from pandas import DataFrame

GAMMAS = (0.0, 0.3, 1.0, 3.0)
FEWEST = 20  # rows of a table
TESTS = 0.2  # part of the rows that tests
RESAMPLED = 1000  # sets of test points, for the error of R^2
NEARLY_LAZY = 0.05  # gamma0 of a finite network beside the static kernel
RIDGES = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1, 1.0], "gamma": [0.03, 0.1, 0.3, 1.0, 3.0]}  # of kernel ridge regression

Model = InfiniteWidthRegressor | InfiniteWidthClassifier


@dataclass(frozen=True)
class Score:
    """The score of a predictor on the test points: R^2, or the share of right classes."""

    name: str  # of the predictor
    value: float
    error: float  # the standard error, from the number of test points


@dataclass(frozen=True)
class Fit:
    """The model that `fit` chose for a table, and its test."""

    model: Model
    columns: Columns
    scores: list[Score]  # of the model first, and of other predictors
    rows: tuple[int, int]  # the numbers of rows that trained and tested
    cautions: list[str]  # about the training of the model

    @property
    def metric(self) -> str:
        """The name of the scores."""
        return "R^2" if self.columns.classes is None else "accuracy"

    def solution(self) -> Solution:
        """Returns the solution of the model with the columns in its `info`, from which `restore` makes the model."""
        return _attach(self.columns, self.model.solution_)


def fit(
    table: DataFrame,
    target: str,
    task: Task | None = None,
    *,
    gammas: Sequence[float] = GAMMAS,
    depth: int = 2,
    activation: str = "erf",
    max_steps: int = 200,
    points: int = 300,
    width: int = 512,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> Fit:
    """Trains on some rows of a table, with gamma0 and the number of steps from a validation split, and tests on others.

    Args:
        table: pandas.DataFrame; texts are categories.
        target: name of the column to be predicted.
        task: "regression" or "classification"; by default of numbers and of anything else.
        gammas: values of gamma0 to choose among.
        depth: hidden layers.
        activation: of the network.
        max_steps: of training, at most.
        points: rows that train, at most.
        width: of the finite network beside it.
        seed: of splits and samples.
        say: called with a line about what comes next.

    Raises:
        ValueError: naming what is wrong with the table.
    """
    if len(table) < FEWEST:
        raise ValueError(f"a table of {FEWEST} rows or more is needed, got {len(table)}")
    columns = Columns.of(table, target, task)
    labels = None if columns.classes is None else columns.targets(table)
    tests = math.ceil(TESTS * len(table))
    trains = min(points, len(table) - tests)
    try:
        split: Any = train_test_split(table, test_size=tests, train_size=trains, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ValueError(f"column '{target}': {error}") from None
    train, test = split
    columns = columns.standardized(train)
    X, y, X_test, y_test = columns.matrix(train), columns.targets(train), columns.matrix(test), columns.targets(test)
    kind, score = (InfiniteWidthRegressor, _r2) if labels is None else (InfiniteWidthClassifier, _accuracy)
    settings: dict[str, Any] = {"depth": depth, "activation": activation, "max_steps": max_steps, "random_state": seed}
    say(f"infinite width on {len(X)} rows: gamma0 among {', '.join(f'{gamma0:g}' for gamma0 in gammas)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = kind(gamma0=tuple(gammas), early_stopping=True, **settings).fit(X, y)
    if isinstance(model, InfiniteWidthRegressor):
        update: dict[str, Any] = {"target_mean": float(model.target_mean_), "target_scale": float(model.target_scale_)}
    else:
        update = {"classes": model.classes_.tolist()}
    columns = columns.model_copy(update=update)
    say("the static kernel, kernel ridge regression, and a network of finite width")
    lazy: Any = clone(model)
    finite, _ = restore(_attach(columns, _train_finite(model, width, seed)))
    predictions = {
        f"infinite width, gamma0 = {model.gamma0_:g}": model.predict(X_test),
        "infinite width, NTK": lazy.set_params(gamma0=0.0).fit(X, y).predict(X_test),
        "kernel ridge, RBF": _predict_by_kernel_ridge(X, y, X_test, labels is not None),
        f"network of width {width}": finite.predict(X_test),
    }
    scores = [Score(name, *score(y_test, values)) for name, values in predictions.items()]
    return Fit(model, columns, scores, (len(X), len(X_test)), [str(warning.message) for warning in caught])


def _attach(columns: Columns, solution: Solution) -> Solution:
    """Returns the solution with the columns in its `info`."""
    return replace(solution, info={**solution.info, "table": columns.model_dump()})


def restore(solution: Solution) -> tuple[Model, Columns]:
    """Returns the estimator and the columns of a `Fit` from its solution; raises ValueError for another solution."""
    if "table" not in solution.info:
        raise ValueError("it is not a model of a table, as kernelfield fit writes them")
    columns = Columns(**solution.info["table"])
    model: Any = InfiniteWidthRegressor() if columns.classes is None else InfiniteWidthClassifier()
    if columns.classes is None:
        model.target_mean_, model.target_scale_ = columns.target_mean, columns.target_scale
    else:
        model.classes_ = np.array(columns.classes)
    model.solution_, model.n_features_in_ = solution, solution.problem.X.shape[1]
    return model, columns


def predict(solution: Solution, table: DataFrame) -> DataFrame:
    """Returns a table with more columns: predictions with the solver's error, or classes with their probabilities.

    Args:
        solution: of a `Fit`.
        table: pandas.DataFrame with the columns of inputs.

    Raises:
        ValueError: the solution is not of a table, or naming what is wrong with this one.
    """
    model, columns = restore(solution)
    X, name = columns.matrix(table), f"{columns.target}_predicted"
    if isinstance(model, InfiniteWidthRegressor):
        mean, error = model.predict(X, return_std=True)
        return table.assign(**{name: mean, f"{columns.target}_solver_error": error})
    chances = model.predict_proba(X)
    probabilities = {f"probability_{label}": chances[:, place] for place, label in enumerate(columns.classes or ())}
    return table.assign(**{name: model.classes_[chances.argmax(axis=1)], **probabilities})


def _predict_by_kernel_ridge(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, classes: bool) -> np.ndarray:
    """Returns predictions (n,) of kernel ridge regression, with ridge and width of a Gaussian by cross-validation."""
    labels, numbers = np.unique(y, return_inverse=True) if classes else (None, None)
    targets = y if labels is None else np.eye(len(labels))[numbers]
    mean, choices = targets.mean(axis=0), {**RIDGES, "gamma": [width / X.shape[1] for width in RIDGES["gamma"]]}
    search = GridSearchCV(KernelRidge(kernel="rbf"), choices, cv=3, scoring="neg_mean_squared_error")
    predictions = search.fit(X, targets - mean).predict(X_test) + mean
    return predictions if labels is None else labels[predictions.argmax(axis=1)]


def _train_finite(model: Model, width: int, seed: int) -> Solution:
    """Returns the solution of one network of finite width, trained by the rule of the model."""
    solution = model.solution_
    network = solution.network if model.gamma0_ else solution.network.model_copy(update={"gamma0": NEARLY_LAZY})
    method = FiniteWidth(width=width, seeds=1, seed=seed, kernels="none")
    return solve(network, solution.problem, solution.training, method, fields_at=(-1,))


def _r2(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Returns R^2, and its standard error by resampling the points."""
    draws = np.random.default_rng(0).integers(len(y), size=(RESAMPLED, len(y)))
    error = np.std([r2_score(y[rows], predictions[rows]) for rows in draws])
    return float(r2_score(y, predictions)), float(error)


def _accuracy(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Returns the share of right classes, and its standard error with one more right and one more wrong."""
    right = np.sum(y == predictions)
    share = (right + 1) / (len(y) + 2)
    return float(right / len(y)), float(np.sqrt(share * (1 - share) / (len(y) + 2)))
