"""A network of infinite width for a table: chosen on a validation split, and tested beside other predictors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, train_test_split

from kernelfield.estimators.estimators import InfiniteWidthClassifier, InfiniteWidthRegressor
from kernelfield.estimators.tables import Columns, DataFrame, Task
from kernelfield.finite.method import FiniteWidth
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

GAMMAS = (0.0, 0.3, 1.0, 3.0)
FEWEST = 20  # rows of a table
RESAMPLED = 1000  # sets of test points, for the error of R^2
NEARLY_LAZY = 0.05  # gamma0 of a finite network beside the static kernel
RIDGES = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1, 1.0], "gamma": [0.03, 0.1, 0.3, 1.0, 3.0]}  # of kernel ridge regression

Model = InfiniteWidthRegressor | InfiniteWidthClassifier


@dataclass(frozen=True)
class Score:
    """R^2, or the share of right classes, of the test points.

    Args:
        name: of the predictor.
        value: for the test points.
        error: its standard error, from their number.
    """

    name: str
    value: float
    error: float


@dataclass(frozen=True)
class Fitted:
    """What `fit` found.

    Args:
        model: the estimator.
        columns: what the columns of the table mean.
        scores: on the test points, of the model first.
        rows: of training and of testing.
        cautions: about the training of the model.
    """

    model: Model
    columns: Columns
    scores: list[Score]
    rows: tuple[int, int]
    cautions: list[str]

    @property
    def metric(self) -> str:
        """What scores are."""
        return "R^2" if self.columns.classes is None else "accuracy"

    def solution(self) -> Solution:
        """That of the model, for `restored`."""
        return _marked(self.model.solution_, self.columns)


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
    test_fraction: float = 0.2,
    width: int = 512,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> Fitted:
    """Train on some rows of a table, with gamma0 and the number of steps from a validation split, and test on others.

    Args:
        table: pandas.DataFrame; texts are categories.
        target: name of the column to be predicted.
        task: "regression" or "classification"; by default of numbers and of anything else.
        gammas: values of gamma0 to choose among.
        depth: hidden layers.
        activation: of the network.
        max_steps: of training, at most.
        points: rows that train, at most.
        test_fraction: of the rows.
        width: of the finite network beside it.
        seed: of splits and samples.
        say: is told what comes next.

    Returns:
        Fitted.

    Raises:
        ValueError: naming what is wrong with the table.
    """
    if len(table) < FEWEST:
        raise ValueError(f"a table of {FEWEST} rows or more is needed, got {len(table)}")
    columns = Columns.of(table, target, task)
    labels = None if columns.classes is None else columns.targets(table)
    tests = math.ceil(test_fraction * len(table))
    trains = min(points, len(table) - tests)
    try:
        split: Any = train_test_split(table, test_size=tests, train_size=trains, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ValueError(f"column '{target}': {error}") from None
    train, test = split
    columns = columns.standardized(train)
    X, y, X_test, y_test = columns.matrix(train), columns.targets(train), columns.matrix(test), columns.targets(test)
    kind, scored = (InfiniteWidthRegressor, _r2) if labels is None else (InfiniteWidthClassifier, _accuracy)
    settings: dict[str, Any] = {"depth": depth, "activation": activation, "max_steps": max_steps, "random_state": seed}
    say(f"infinite width on {len(X)} rows: gamma0 among {', '.join(f'{each:g}' for each in gammas)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = kind(gamma0=tuple(gammas), early_stopping=True, **settings).fit(X, y)
    found = {f"infinite width, gamma0 = {model.gamma0_:g}": model.predict(X_test)}
    say("the static kernel, kernel ridge regression, and a network of finite width")
    if isinstance(model, InfiniteWidthRegressor):
        update: dict[str, Any] = {"target_mean": float(model.target_mean_), "target_scale": float(model.target_scale_)}
    else:
        update = {"classes": model.classes_.tolist()}
    columns = columns.model_copy(update=update)
    lazy: Any = clone(model)
    found["infinite width, NTK"] = lazy.set_params(gamma0=0.0).fit(X, y).predict(X_test)
    found["kernel ridge, RBF"] = _kernel_ridge(X, y, X_test, labels is not None)
    finite, _ = restored(_marked(_finite(model, width, seed), columns))
    found[f"network of width {width}"] = finite.predict(X_test)
    scores = [Score(name, *scored(y_test, each)) for name, each in found.items()]
    return Fitted(model, columns, scores, (len(X), len(X_test)), [str(each.message) for each in caught])


def _marked(solution: Solution, columns: Columns) -> Solution:
    """With the columns in its `info`, where `restored` finds them."""
    return replace(solution, info={**solution.info, "table": columns.model_dump()})


def restored(solution: Solution) -> tuple[Model, Columns]:
    """The estimator, and what the columns of its table mean, from the solution of `Fitted`.

    Raises:
        ValueError: the solution is not of a table.
    """
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


def predicted(solution: Solution, table: DataFrame) -> DataFrame:
    """A table with predictions in further columns: of numbers with the solver's error, of classes with probabilities.

    Args:
        solution: of `Fitted`.
        table: pandas.DataFrame with the columns of inputs.

    Returns:
        pandas.DataFrame.

    Raises:
        ValueError: the solution is not of a table, or naming what is wrong with this one.
    """
    model, columns = restored(solution)
    X, name = columns.matrix(table), f"{columns.target}_predicted"
    if isinstance(model, InfiniteWidthRegressor):
        mean, error = model.predict(X, return_std=True)
        return table.assign(**{name: mean, f"{columns.target}_solver_error": error})
    chances = model.predict_proba(X)
    probabilities = {f"probability_{label}": each for label, each in zip(columns.classes or (), chances.T, strict=True)}
    return table.assign(**{name: model.classes_[chances.argmax(axis=1)], **probabilities})


def _kernel_ridge(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, classes: bool) -> np.ndarray:
    """Kernel ridge regression with a Gaussian kernel, its ridge and width by cross-validation."""
    labels, numbers = np.unique(y, return_inverse=True) if classes else (None, None)
    targets = y if labels is None else np.eye(len(labels))[numbers]
    mean = targets.mean(axis=0)
    widths = [each / X.shape[1] for each in RIDGES["gamma"]]
    search = GridSearchCV(
        KernelRidge(kernel="rbf"), {**RIDGES, "gamma": widths}, cv=3, scoring="neg_mean_squared_error"
    )
    found = search.fit(X, targets - mean).predict(X_test) + mean
    return found if labels is None else labels[found.argmax(axis=1)]


def _finite(model: Model, width: int, seed: int) -> Solution:
    """One network of finite width, trained by the rule of the model."""
    solution = model.solution_
    network = solution.network
    if not model.gamma0_:
        network = network.model_copy(update={"gamma0": NEARLY_LAZY})
    method = FiniteWidth(width=width, seeds=1, seed=seed, kernels="none")
    return solve(network, solution.problem, solution.training, method, fields_at=(-1,))


def _r2(y: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """R^2, and its standard error by resampling the points."""
    drawn = np.random.default_rng(0).integers(len(y), size=(RESAMPLED, len(y)))
    return float(r2_score(y, found)), float(np.std([r2_score(y[rows], found[rows]) for rows in drawn]))


def _accuracy(y: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The share of right classes, and its standard error with one more right and one more wrong."""
    right = np.sum(y == found)
    share = (right + 1) / (len(y) + 2)
    return float(right / len(y)), float(np.sqrt(share * (1 - share) / (len(y) + 2)))
