"""An infinitely wide network for a table: chosen on a validation split, and tested beside other predictors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from kernelfield.datasets.columns import Columns, Task
from kernelfield.estimators import baselines
from kernelfield.estimators.base import GAMMAS
from kernelfield.estimators.estimators import InfiniteWidthClassifier, InfiniteWidthRegressor
from kernelfield.finite.method import FiniteWidth
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

if TYPE_CHECKING:
    from pandas import DataFrame

FEWEST = 20  # rows of a table
FEWEST_OF_CLASS = 3
TESTS = 0.2  # part of the rows that tests
RESAMPLED = 1000  # sets of test points, for the error of R^2
NEARLY_LAZY = 0.05  # gamma0 of a finite network beside the static kernel

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
    inputs: Sequence[str] | None = None,
    gammas: Sequence[float] = GAMMAS,
    depth: int = 2,
    activation: str = "erf",
    max_steps: int = 200,
    max_epochs: int = 20,
    batch_size: int | Literal["auto"] | None = "auto",
    points: int | None = None,
    width: int = 512,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> Fit:
    """Trains on some rows of a table, with gamma0 and the number of steps from a validation split, and tests on others.

    Args:
        table: pandas.DataFrame; texts are read as numbers, dates or truth values where a whole column is, or else are
            categories.
        target: name of the column to be predicted.
        task: "regression" or "classification"; by default of numbers and of anything else.
        inputs: names of the columns of inputs; by default all others but those that only number the rows.
        gammas: values of gamma0 to choose among.
        depth: hidden layers.
        activation: of the network.
        max_steps: of training, at most, where every update takes all rows.
        max_epochs: of training in batches, at most.
        batch_size: rows of an update, None for all; "auto" takes batches from 300 rows on.
        points: rows that train, at most; None for four fifths.
        width: of the finite network beside it.
        seed: of splits and samples.
        say: called with a line about what comes next.

    Raises:
        ValueError: naming what is wrong with the table.
    """
    if len(table) < FEWEST:
        raise ValueError(f"a table of {FEWEST} rows or more is needed, got {len(table)}")
    columns = Columns.of(table, target, task, inputs)
    labels = None if columns.classes is None else columns.targets(table)
    train, test = _split(table, target, labels, points, seed)
    columns = columns.standardized(train)
    X, y, X_test, y_test = columns.matrix(train), columns.targets(train), columns.matrix(test), columns.targets(test)
    settings: dict[str, Any] = {"depth": depth, "activation": activation, "max_steps": max_steps, "random_state": seed}
    settings |= {"max_epochs": max_epochs, "batch_size": batch_size}
    cautions = [*columns.cautions, *_doubt_rows(X, y, target)]
    gammas = gammas if labels is not None or np.ptp(y) else gammas[:1]
    kind = InfiniteWidthRegressor if labels is None else InfiniteWidthClassifier
    say(f"infinite width on {len(X)} rows: gamma0 among {', '.join(f'{gamma0:g}' for gamma0 in gammas)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = kind(gamma0=tuple(gammas), early_stopping=True, **settings).fit(X, y)
    cautions += [*(str(warning.message) for warning in caught), *_doubt_length(model)]
    if isinstance(model, InfiniteWidthRegressor):
        update: dict[str, Any] = {"target_mean": float(model.target_mean_), "target_scale": float(model.target_scale_)}
    else:
        update = {"classes": model.classes_.tolist()}
    columns = columns.model_copy(update=update)
    say("the static kernel, a network of finite width, kernel ridge regression and gradient boosting")
    predictions = _predict_by_all(model, columns, X, y, X_test, width, seed)
    score = _r2 if labels is None else _accuracy
    scores = [Score(name, *score(y_test, values)) for name, values in predictions.items()]
    return Fit(model, columns, scores, (len(X), len(X_test)), cautions)


def _predict_by_all(
    model: Model, columns: Columns, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, width: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns predictions (n,) for X_test (n, D) by name: those of the model, and of others that learn X and y."""
    unfitted: Any = clone(model)
    lazy = unfitted.set_params(gamma0=0.0).fit(X, y) if model.gamma0_ else model
    finite, _ = restore(_attach(columns, _train_finite(model, width, seed)))
    return {
        f"infinite width, gamma0 = {model.gamma0_:g}": model.predict(X_test),
        "infinite width, NTK": lazy.predict(X_test),
        f"network of width {width}": finite.predict(X_test),
        **baselines.predict(X, y, X_test, columns.classes is not None, seed),
    }


def _doubt_rows(X: np.ndarray, y: np.ndarray, target: str) -> list[str]:
    """Returns cautions about inputs (n, D) or targets (n,) that are all equal; classes are two or more."""
    cautions = []
    if (y == y[0]).all():
        cautions.append(f"column '{target}' is {y[0]:g} in all rows that train: R^2 is not defined")
    if not X.any():
        cautions.append("all inputs are constant: so are the predictions")
    return cautions


def _doubt_length(model: Model) -> list[str]:
    """Returns a caution if the validation loss was least at the end of the longest run."""
    losses, unit = model.validation_losses_[model.gamma0_], model.solution_.training.unit
    last = model.max_steps if unit == "step" else model.max_epochs
    if losses.argmin() < last:
        return []
    return [f"the validation loss was least after all {last} {unit}s: more of them (max_{unit}s) may be better"]


def _split(table: DataFrame, target: str, labels: np.ndarray | None, points: int | None, seed: int) -> Any:
    """Returns the rows of a table that train, `points` at most, and those that test; of all classes alike."""
    tests = math.ceil(TESTS * len(table))
    trains = min(points or len(table), len(table) - tests)
    if labels is not None:
        classes, counts = np.unique(labels, return_counts=True)
        if counts.min() < FEWEST_OF_CLASS:
            rare = classes[counts.argmin()]
            need = f"{FEWEST_OF_CLASS} or more, to train, to choose and to test"
            raise ValueError(f"column '{target}' has '{rare}' in {counts.min()} rows alone: {need}, are needed")
    try:
        return train_test_split(table, test_size=tests, train_size=trains, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ValueError(f"column '{target}': {error}") from None


def _attach(columns: Columns, solution: Solution) -> Solution:
    """Returns the solution with the columns in its `info`."""
    return replace(solution, info={**solution.info, "table": {**columns.model_dump(), "names": columns.input_names}})


def restore(solution: Solution) -> tuple[Model, Columns]:
    """Returns the estimator and the columns of a `Fit` from its solution; raises ValueError for another solution."""
    if "table" not in solution.info:
        raise ValueError("it is not a model of a table, as kernelfield fit writes them")
    columns = Columns(**{name: value for name, value in solution.info["table"].items() if name != "names"})
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


def _train_finite(model: Model, width: int, seed: int) -> Solution:
    """Returns the solution of one network of finite width, trained by the rule of the model."""
    solution = model.solution_
    network = solution.network if model.gamma0_ else solution.network.model_copy(update={"gamma0": NEARLY_LAZY})
    method = FiniteWidth(width=width, seeds=1, seed=seed, kernels="none")
    return solve(network, solution.problem, solution.training, method, fields_at=(-1,))


def _r2(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Returns R^2, and its standard error by resampling the points; NaN for targets that are all equal."""
    if np.ptp(y) == 0:
        return float("nan"), float("nan")
    rows = np.random.default_rng(0).integers(len(y), size=(RESAMPLED, len(y)))
    squares, spread = np.square(y - predictions)[rows].sum(axis=1), y[rows].var(axis=1) * len(y)
    error = np.std(squares[spread > 0] / spread[spread > 0])
    return float(r2_score(y, predictions)), float(error)


def _accuracy(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Returns the share of right classes, and its standard error with one more right and one more wrong."""
    right = np.sum(y == predictions)
    share = (right + 1) / (len(y) + 2)
    return float(right / len(y)), float(np.sqrt(share * (1 - share) / (len(y) + 2)))
