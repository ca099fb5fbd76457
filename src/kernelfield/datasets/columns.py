"""Columns of a table as numbers: what kind of values each holds, and how a network takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kernelfield.common.settings import Spec, suggestion
from kernelfield.datasets.texts import DATES, TRUTHS, Decimal, doubt_decimals, read_dates, read_numbers

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Task = Literal["regression", "classification"]
Kind = Literal["number", "date", "boolean", "category"]

MOST_CATEGORIES = 100  # of a column of texts, each an input
MOST_CODES = 20  # categories of a column of which most are numbers
FEWEST_IDS = 10  # rows from which on distinct values say nothing
IDENTIFIER = re.compile(r"(^|[^a-z])(id|uuid|guid|index|key|rowid|row)([^a-z]|$)", re.IGNORECASE)
EXACT = 2**53  # integers beyond are no numbers in double precision


class Column(Spec):
    """A column of inputs: standardized numbers, or an input for every category, one for its rows and zero elsewhere."""

    name: str
    kind: Kind = "number"
    decimal: Decimal = "."  # of numbers
    date_format: str | None = None  # of dates, as `pandas.to_datetime` takes it
    categories: list[str] | None = None  # of texts, sorted; None for other kinds
    mean: tuple[float, ...] = (0.0,)  # of the numbers, or of the input of every category
    scale: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, values: Series) -> tuple[Column, str | None]:
        """Returns a column whose kind all values agree with, and a caution or None.

        Raises:
            ValueError: the values are complex, or texts of too many kinds to be categories.
        """
        name = str(values.name)
        if values.dtype.kind == "c":
            raise ValueError(f"column '{name}' must hold real numbers, got complex ones")
        if values.dtype.kind in "iuf":
            return cls(name=name), None
        if values.dtype.kind == "b":
            return cls(name=name, kind="boolean"), None
        if values.dtype.kind == "M":
            return cls(name=name, kind="date"), f"column '{name}' holds dates: days since 1970 are its numbers"
        texts = values.astype(str).str.strip()
        if set(texts.str.lower()) <= set(TRUTHS) and np.isnan(read_numbers(texts, ".")).any():
            return cls(name=name, kind="boolean"), None
        decimals: tuple[Decimal, ...] = (".", ",")
        for decimal in decimals:
            if not np.isnan(read_numbers(texts, decimal)).any():
                return cls(name=name, decimal=decimal), doubt_decimals(name, texts, decimal)
        formats = [form for form in DATES if not np.isnan(read_dates(texts, form)).any()]
        if formats:
            doubt = f"in the format {formats[0]}, which {formats[1]} could be as well" if len(formats) > 1 else ""
            caution = f"column '{name}' holds dates: days since 1970 are its numbers{doubt and ', ' + doubt}"
            return cls(name=name, kind="date", date_format=formats[0]), caution
        categories = sorted(set(texts))
        _check_categories(name, texts, len(categories))
        return cls(name=name, kind="category", categories=categories), None

    def encode(self, table: DataFrame) -> np.ndarray:
        """Returns the inputs (n, 1) or (n, categories) of the rows of a table, before they are standardized.

        Raises:
            ValueError: naming the column and a row, for values of another kind or an unknown category.
        """
        values = complete_column(table, self.name)
        if self.categories is not None:
            texts = values.astype(str).str.strip().to_numpy()
            if unknown := sorted(set(texts) - set(self.categories)):
                raise ValueError(f"column '{self.name}' has '{unknown[0]}', which training did not have")
            return (texts[:, None] == np.array(self.categories)).astype(float)
        numbers = self._read(values)
        if (wrong := np.flatnonzero(np.isnan(numbers))).size:
            need = {"number": "numbers", "date": "dates", "boolean": "truth values"}[self.kind]
            got = f"data row {wrong[0] + 1} has '{values.iloc[wrong[0]]}'"
            raise ValueError(f"column '{self.name}' must hold {need}, as in training, but {got}")
        if not np.isfinite(numbers).all():
            raise ValueError(f"column '{self.name}' must be finite")
        return numbers[:, None]

    def _read(self, values: Series) -> np.ndarray:
        """Returns the values as numbers (n,), NaN where they are of another kind."""
        is_number, is_text = values.dtype.kind in "iufb", values.dtype.kind not in "iufbcM"
        if is_text:
            texts = values.astype(str).str.strip()
            if self.kind == "boolean":
                return texts.str.lower().map(TRUTHS).to_numpy(float)
            return read_dates(texts, self.date_format) if self.kind == "date" else read_numbers(texts, self.decimal)
        if self.kind == "date":
            return read_dates(values, None) if values.dtype.kind == "M" else np.full(len(values), np.nan)
        if not is_number:
            return np.full(len(values), np.nan)
        numbers = values.to_numpy(float)
        return np.where(np.isin(numbers, (0, 1)), numbers, np.nan) if self.kind == "boolean" else numbers


class Columns(Spec):
    """The columns of a table that a network takes as inputs, and the one that it predicts."""

    inputs: list[Column]  # in the order of the network's inputs
    target: str  # the name of the column to be predicted
    classes: list[bool | int | float | str] | None = None  # its labels, of a classification
    decimal: Decimal = "."  # of the target's numbers
    target_mean: float = 0.0  # of a regression, whose network predicts (target - target_mean) / target_scale
    target_scale: float = 1.0
    cautions: tuple[str, ...] = ()  # what a person should know of how the columns were read

    @classmethod
    def of(
        cls, table: DataFrame, target: str, task: Task | None = None, inputs: Sequence[str] | None = None
    ) -> Columns:
        """Returns the columns of a table to learn from; raises ValueError, which names the column that is wrong.

        Args:
            table: pandas.DataFrame.
            target: name of the column to be predicted.
            task: by default "regression" if the target holds numbers, else "classification".
            inputs: names of the columns of inputs; all others that are not identifiers by default.
        """
        y = complete_column(table, target)
        if len(table.columns) < 2:
            raise ValueError(f"there is no column beside the target '{target}'")
        column = _target_column(y, task)
        columns, cautions = read_inputs(table, [target], inputs)
        made = cls(inputs=columns, target=target, decimal=column.decimal, cautions=tuple(cautions))
        if column.kind == "category":
            return made.model_copy(update={"classes": np.unique(made.labels(table)).tolist()})
        return made

    def standardized(self, table: DataFrame) -> Columns:
        """Returns the columns with the means and scales of the rows of a table."""
        inputs = []
        for column in self.inputs:
            values = column.encode(table)
            mean, scale = values.mean(axis=0), values.std(axis=0)
            scale = np.where(scale > 1e-12 * np.abs(values).max(axis=0), scale, 1.0)  # rounding of equal values
            inputs.append(column.model_copy(update={"mean": tuple(mean.tolist()), "scale": tuple(scale.tolist())}))
        return self.model_copy(update={"inputs": inputs})

    def matrix(self, table: DataFrame) -> np.ndarray:
        """Returns the inputs (n, D) of the rows of a table; raises ValueError, which names the column that is wrong."""
        return np.concatenate([(column.encode(table) - column.mean) / column.scale for column in self.inputs], axis=1)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs (D,): of columns, and of categories as "column = category"."""
        return [
            name
            for column in self.inputs
            for name in ([column.name] if column.categories is None else
                         [f"{column.name} = {category}" for category in column.categories])
        ]  # fmt: skip

    def targets(self, table: DataFrame) -> np.ndarray:
        """Returns the targets (n,) of the rows of a table: numbers, or labels of a classification."""
        if self.classes is not None:
            return self.labels(table)
        return Column(name=self.target, decimal=self.decimal).encode(table)[:, 0]

    def labels(self, table: DataFrame) -> np.ndarray:
        """Returns the values of the target column (n,) as labels: whole numbers where all are, else texts."""
        values = complete_column(table, self.target)
        if values.dtype.kind in "iufb":
            return values.to_numpy()
        texts = values.astype(str).str.strip()
        numbers = read_numbers(texts, self.decimal)
        return numbers.astype(int) if (numbers == np.round(numbers)).all() else texts.to_numpy(str)


def read_inputs(
    table: DataFrame, targets: Sequence[str], names: Sequence[str] | None
) -> tuple[list[Column], list[str]]:
    """Returns the columns of inputs, and cautions; raises ValueError, which names the column that is wrong.

    Args:
        table: pandas.DataFrame.
        targets: names of columns that are no inputs.
        names: of the inputs; None for all others but those that only number the rows.
    """
    columns, cautions = [], []
    for name in table.columns.drop(list(targets)) if names is None else names:
        if name in targets:
            raise ValueError(f"the target '{name}' cannot be an input")
        if names is None and (reason := _reason_to_leave_out(table, name)):
            cautions.append(f"the column {repr(name) if name else 'without a name'} is left out: {reason}")
            continue
        column, caution = Column.of(complete_column(table, name))
        columns.append(column)
        cautions += [caution] if caution else []
    if not columns:
        raise ValueError("no column is left as an input: name some, if they hold more than identifiers")
    return columns, cautions


def complete_column(table: DataFrame, name: str) -> Series:
    """Returns a column of a table; raises ValueError if it is not there, or has gaps or infinite numbers."""
    if name not in table:
        raise ValueError(f"there is no column '{name}'{suggestion(name, list(map(str, table.columns)))}")
    values: Any = table[name]
    if values.ndim > 1:
        raise ValueError(f"two columns are named '{name}': rename one")
    if missing := int(values.isna().sum()):
        gaps = f"lacks {missing} of {len(values)} values"
        raise ValueError(f"column '{name}' {gaps}: fill them in, or leave out the rows (or keep NA as a text)")
    if values.dtype.kind == "f" and not np.isfinite(values.to_numpy(float)).all():
        raise ValueError(f"column '{name}' must be finite")
    return values


def _target_column(values: Series, task: Task | None) -> Column:
    """Returns how the target is read: numbers for a regression, categories for a classification."""
    name, distinct = str(values.name), values.nunique()
    try:
        column, _ = Column.of(values)
    except ValueError:
        column = Column(name=name, kind="category")
    if task == "regression" and column.kind != "number":
        raise ValueError(f"column '{name}' must hold numbers for a regression: take task='classification'")
    if column.kind == "number" and task != "classification":
        return column
    if distinct < 2:
        raise ValueError(f"column '{name}' must hold two classes or more, got {values.iloc[0]} alone")
    if column.kind == "number":
        numbers = column.encode(values.to_frame())
        if distinct > MOST_CATEGORIES or (numbers != np.round(numbers)).any():
            raise ValueError(f"column '{name}' holds {distinct} different numbers, no classes: take task='regression'")
    elif distinct > max(2, min(MOST_CATEGORIES, len(values) // 2)):
        raise ValueError(f"column '{name}' has {distinct} different values in {len(values)} rows, too many for classes")
    return column.model_copy(update={"kind": "category"})


def _reason_to_leave_out(table: DataFrame, name: Any) -> str | None:
    """Returns why a column is no input, or None: it is empty, or tells the rows apart."""
    values: Any = table[name]
    if values.ndim > 1 or values.isna().any():
        return "it is empty" if values.ndim == 1 and values.isna().all() else None
    if len(values) < FEWEST_IDS or values.nunique() < len(values):
        return None
    name, texts = str(name), values.astype(str).str.strip()
    is_whole = bool(texts.str.fullmatch(r"[-+]?\d+").all())
    if not is_whole:
        try:
            is_text = values.dtype.kind not in "iufbM" and Column.of(values)[0].kind == "category"
        except ValueError:
            is_text = np.isnan(read_numbers(texts, ".")).mean() > 0.5
        return "every row has another text" if is_text else None
    numbers = [int(text) for text in texts]
    if max(map(abs, numbers)) > EXACT:
        return "its numbers are too long to be anything but identifiers"
    is_unnamed = name in ("", "None") or name.startswith("Unnamed:")
    counts_rows = sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    if IDENTIFIER.search(name) or (is_unnamed and counts_rows):
        return "it numbers the rows"
    return None


def _check_categories(name: str, texts: Series, count: int) -> None:
    """Raises ValueError if texts are too many to be categories, or numbers but for a few."""
    bad = np.isnan(read_numbers(texts, "."))
    advice = "mend it, or leave the column out by naming the inputs"
    if count > MOST_CODES and bad.mean() < 0.5:
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"column '{name}' holds numbers, but data row {row + 1} has '{texts.iloc[row]}': {advice}")
    if count > MOST_CATEGORIES:
        raise ValueError(f"column '{name}' has {count} different texts, more than {MOST_CATEGORIES}: {advice}")
