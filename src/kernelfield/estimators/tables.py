"""Tables of named columns as inputs and targets of networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kernelfield.common.atomic_files import check_file
from kernelfield.common.settings import Spec, suggestion

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Task = Literal["regression", "classification"]


def read_table(path: Path) -> DataFrame:
    """Returns the table in a .csv file with a header; raises ValueError if the file holds none."""
    import pandas

    check_file(path)
    try:
        table = pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table of comma-separated values: {error}") from None
    if table.empty:
        raise ValueError(f"{path} holds no rows of data")
    return table


class Column(Spec):
    """A column of inputs: standardized numbers, or an input for every category, one for its rows and zero elsewhere."""

    name: str
    categories: list[str] | None = None  # None for numbers
    mean: tuple[float, ...] = (0.0,)  # of the numbers, or of the input of every category
    scale: tuple[float, ...] = (1.0,)

    def encode(self, table: DataFrame) -> np.ndarray:
        """Returns the inputs (n, 1) or (n, categories) of the rows of a table, before they are standardized."""
        column = _complete_column(table, self.name)
        if self.categories is None:
            if not _is_numeric(column):
                raise ValueError(f"column '{self.name}' must hold numbers, as in training")
            return column.to_numpy(float)[:, None]
        texts = column.astype(str).to_numpy()
        if unknown := sorted(set(texts) - set(self.categories)):
            raise ValueError(f"column '{self.name}' has '{unknown[0]}', which training did not have")
        return (texts[:, None] == np.array(self.categories)).astype(float)


class Columns(Spec):
    """The columns of a table that a network takes as inputs, and the one that it predicts."""

    inputs: list[Column]  # in the order of the network's inputs
    target: str  # the name of the column to be predicted
    classes: list[bool | int | float | str] | None = None  # its labels, of a classification
    target_mean: float = 0.0  # of a regression, whose network predicts (target - target_mean) / target_scale
    target_scale: float = 1.0

    @classmethod
    def of(cls, table: DataFrame, target: str, task: Task | None = None) -> Columns:
        """Returns the columns of a table to learn from; raises ValueError, which names the column that is wrong.

        Texts and truth values as targets are classes, unless `task` says otherwise.
        """
        y = _complete_column(table, target)
        if len(table.columns) < 2:
            raise ValueError(f"there is no column beside the target '{target}'")
        has_classes = not _is_numeric(y) if task is None else task == "classification"
        if not has_classes and not _is_numeric(y):
            raise ValueError(f"column '{target}' must hold numbers for a regression: take task='classification'")
        if has_classes and y.nunique() < 2:
            raise ValueError(f"column '{target}' must hold two classes or more, got {y.iloc[0]} alone")
        inputs = []
        for name in table.columns.drop(target):
            column = _complete_column(table, name)
            categories = None if _is_numeric(column) else sorted(map(str, column.unique()))
            inputs.append(Column(name=name, categories=categories))
        return cls(inputs=inputs, target=target, classes=np.unique(y.to_numpy()).tolist() if has_classes else None)

    def standardized(self, table: DataFrame) -> Columns:
        """Returns the columns with the means and scales of the rows of a table."""
        inputs = []
        for column in self.inputs:
            values = column.encode(table)
            mean, scale = values.mean(axis=0), values.std(axis=0)
            scale = np.where(scale > 0, scale, 1.0)
            inputs.append(column.model_copy(update={"mean": tuple(mean.tolist()), "scale": tuple(scale.tolist())}))
        return self.model_copy(update={"inputs": inputs})

    def matrix(self, table: DataFrame) -> np.ndarray:
        """Returns the inputs (n, D) of the rows of a table; raises ValueError, which names the column that is wrong."""
        return np.concatenate([(column.encode(table) - column.mean) / column.scale for column in self.inputs], axis=1)

    def targets(self, table: DataFrame) -> np.ndarray:
        """Returns the targets (n,) of the rows of a table."""
        return _complete_column(table, self.target).to_numpy()


def _is_numeric(column: Series) -> bool:
    return column.dtype.kind in "iuf"


def _complete_column(table: DataFrame, name: str) -> Series:
    """Returns a column of a table; raises ValueError if it is not there, or has gaps or infinite numbers."""
    if name not in table:
        raise ValueError(f"there is no column '{name}'{suggestion(name, list(table.columns))}")
    column: Any = table[name]
    if missing := int(column.isna().sum()):
        gaps = f"lacks {missing} of {len(column)} values"
        raise ValueError(f"column '{name}' {gaps}: fill them in, or leave out the rows")
    if _is_numeric(column) and not np.isfinite(column.to_numpy(float)).all():
        raise ValueError(f"column '{name}' must be finite")
    return column
