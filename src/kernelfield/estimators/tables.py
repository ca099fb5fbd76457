"""Tables of named columns as inputs and targets of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from kernelfield.common.settings import Spec, suggestion

Task = Literal["regression", "classification"]
DataFrame = Any  # pandas.DataFrame, imported where it is needed


def read_table(path: Path) -> DataFrame:
    """A .csv file with a header.

    Args:
        path: of the file.

    Returns:
        pandas.DataFrame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no table.
    """
    import pandas

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        table = pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table of comma-separated values: {error}") from None
    if table.empty:
        raise ValueError(f"{path} holds no rows of data")
    return table


class Column(Spec):
    """A column of inputs: standardized numbers, or one input for every category, one in its place and zero elsewhere.

    Args:
        name: of the column.
        categories: if it holds texts.
        mean, scale: what inputs are shifted and divided by, one number or one for every category.
    """

    name: str
    categories: list[str] | None = None
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)


class Columns(Spec):
    """What the columns of a table mean.

    Args:
        inputs: in the order of the network's inputs.
        target: name of the column to be predicted.
        classes: its labels, of a classification.
        target_mean, target_scale: of a regression, as the network knows its targets.
    """

    inputs: list[Column]
    target: str
    classes: list[bool | int | float | str] | None = None
    target_mean: float = 0.0
    target_scale: float = 1.0

    @classmethod
    def of(cls, table: DataFrame, target: str, task: Task | None = None) -> Columns:
        """Those of a table to learn from; texts and truth values as targets are classes, unless `task` says otherwise.

        Raises:
            ValueError: naming the column and what is wrong with it.
        """
        y = _complete(table, target)
        if len(table.columns) < 2:
            raise ValueError(f"there is no column beside the target '{target}'")
        classes = not _numeric(y) if task is None else task == "classification"
        if not classes and not _numeric(y):
            raise ValueError(f"column '{target}' must hold numbers for a regression: take task='classification'")
        if classes and y.nunique() < 2:
            raise ValueError(f"column '{target}' must hold two classes or more, got {y.iloc[0]} alone")
        inputs = [_described(name, _complete(table, name)) for name in table.columns if name != target]
        return cls(inputs=inputs, target=target, classes=np.unique(y.to_numpy()).tolist() if classes else None)

    def standardized(self, table: DataFrame) -> Columns:
        """With means and scales of the rows of a table."""
        inputs = []
        for each in self.inputs:
            values = _values(table, each)
            scale = values.std(axis=0)
            mean, scale = values.mean(axis=0), np.where(scale > 0, scale, 1.0)
            inputs.append(each.model_copy(update={"mean": tuple(mean.tolist()), "scale": tuple(scale.tolist())}))
        return self.model_copy(update={"inputs": inputs})

    def matrix(self, table: DataFrame) -> np.ndarray:
        """Inputs (n, D) of the rows of a table.

        Raises:
            ValueError: naming the column and what is wrong with it.
        """
        return np.concatenate([(_values(table, each) - each.mean) / each.scale for each in self.inputs], axis=1)

    def targets(self, table: DataFrame) -> np.ndarray:
        """The target (n,) of the rows of a table."""
        return _complete(table, self.target).to_numpy()


def _numeric(column: Any) -> bool:
    return column.dtype.kind in "iuf"


def _complete(table: DataFrame, name: str) -> Any:
    if name not in table:
        raise ValueError(f"there is no column '{name}'{suggestion(name, list(table.columns))}")
    column = table[name]
    if missing := int(column.isna().sum()):
        raise ValueError(
            f"column '{name}' lacks {missing} of {len(column)} values: fill them in, or leave out the rows"
        )
    if _numeric(column) and not np.isfinite(column.to_numpy(float)).all():
        raise ValueError(f"column '{name}' must be finite")
    return column


def _described(name: str, column: Any) -> Column:
    return Column(name=name, categories=None if _numeric(column) else sorted(map(str, column.unique())))


def _values(table: DataFrame, described: Column) -> np.ndarray:
    """(n, 1), or (n, categories)."""
    column, name = _complete(table, described.name), described.name
    if described.categories is None:
        if not _numeric(column):
            raise ValueError(f"column '{name}' must hold numbers, as in training")
        return column.to_numpy(float)[:, None]
    texts = column.astype(str).to_numpy()
    if unknown := sorted(set(texts) - set(described.categories)):
        raise ValueError(f"column '{name}' has '{unknown[0]}', which training did not have")
    return (texts[:, None] == np.array(described.categories)).astype(float)
