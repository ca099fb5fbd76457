"""Data sets as settings, which configuration files hold: where inputs and targets come from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field

from kernelfield.common.settings import Spec, suggestion
from kernelfield.datasets import cifar, digits, gaussian, mnist, standardized
from kernelfield.datasets.columns import Column, Columns, complete_column, read_inputs
from kernelfield.datasets.tables import read_table
from kernelfield.describe import losses
from kernelfield.describe.problem import Problem

LossName = Annotated[str, AfterValidator(lambda name: losses.loss(name).name)]


class ImageData(Spec):
    """Images of two or more classes.

    Args:
        source: names the data set.
        classes: two or more labels.
        points: number of images, equally many of each class.
        images: whether X has axes for rows, columns and channels, as networks of images need.
        pool: n x n pixels become one, their mean.
        loss: "mse", "logistic", "hinge" or "cross_entropy".
    """

    source: Any
    classes: tuple[int, ...] = (0, 1)
    points: int = 20
    images: bool = False
    pool: int = Field(default=1, ge=1)
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """Returns the Problem; the folder of its files is relative to `folder`."""
        arguments = dict(self)
        make_problem = {"digits": digits, "cifar": cifar, "mnist": mnist}[arguments.pop("source")]
        if "folder" in arguments:
            arguments["folder"] = folder / arguments["folder"]
        return make_problem(**arguments)


class DigitsData(ImageData):
    """Handwritten digits; see `kernelfield.datasets.digits`.

    Args:
        source: "digits".
        classes, points, images, pool, loss: as for `ImageData`.
        seed: of the choice of images; the first ones of each class if left out.
    """

    source: Literal["digits"] = "digits"
    seed: int | None = None


class CifarData(ImageData):
    """CIFAR-10, from its own files; see `kernelfield.datasets.cifar`.

    Args:
        source: "cifar".
        classes, points, images, pool, loss: as for `ImageData`.
        folder: of the files, relative to the configuration file.
        grey: whether the colours become one channel, their mean.
    """

    source: Literal["cifar"] = "cifar"
    folder: str
    grey: bool = False


class MnistData(ImageData):
    """MNIST or Fashion-MNIST, from its own files; see `kernelfield.datasets.mnist`.

    Args:
        source: "mnist".
        classes, points, images, pool, loss: as for `ImageData`.
        folder: of the files, relative to the configuration file.
    """

    source: Literal["mnist"] = "mnist"
    folder: str


class GaussianData(Spec):
    """Standard normal inputs with random signs as targets; see `kernelfield.datasets.gaussian`.

    Args:
        source: "gaussian".
        points: P.
        dimensions: D.
        seed: of inputs and targets.
        loss: "mse", "logistic" or "hinge".
    """

    source: Literal["gaussian"] = "gaussian"
    points: int
    dimensions: int
    seed: int = 0
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """Returns the Problem; `folder` is not used."""
        made = gaussian(self.points, self.dimensions, self.seed)
        return Problem(made.X, made.y, loss=self.loss)


class TableData(Spec):
    """A .csv file with a header, or a .npz file.

    Args:
        source: "table".
        path: of the file, relative to the configuration file.
        inputs: csv: names of the input columns (all but the target if left out); npz: name of the array
            (P, D), (P, positions, C) or (P, rows, columns, C), "X" if left out.
        target: csv: name of the target column, or a list of them, one for each output; npz: name of the array (P,) or
            (P, C).
        standardize: subtract from the inputs their mean and divide by their standard deviation, two numbers.
        loss: "mse", "logistic", "hinge", or "cross_entropy" of labels or of rows of probabilities.
        separator, encoding, keep_na: csv: as for `kernelfield.datasets.tables.read_table`.
    """

    source: Literal["table"] = "table"
    path: str
    inputs: list[str] | str | None = None
    target: str | list[str] = "y"
    standardize: bool = False
    loss: LossName = "mse"
    separator: str | None = None
    encoding: str | None = None
    keep_na: bool = False

    def problem(self, folder: Path) -> Problem:
        """Returns the Problem; `path` is relative to `folder`."""
        path = folder / self.path
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        if path.suffix not in (".csv", ".npz"):
            raise ValueError(f"path must end in .csv or .npz, got {self.path}")
        X, y = self._from_csv(path) if path.suffix == ".csv" else self._from_npz(path)
        return Problem(standardized(X) if self.standardize else X, y, loss=self.loss)

    def _from_csv(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        table = read_table(path, separator=self.separator, encoding=self.encoding, keep_na=self.keep_na)
        targets = [self.target] if isinstance(self.target, str) else self.target
        if not targets:
            raise ValueError("target must name at least one column")
        names = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        try:
            targeted = [complete_column(table, name) for name in targets]
            inputs, cautions = read_inputs(table, targets, names)
            outputs = [Column.of(values)[0] for values in targeted]
            texts = [column.name for column in inputs + outputs * (self.loss != "cross_entropy") if column.categories]
            if texts:
                raise ValueError(f"column '{texts[0]}' must hold numbers (kernelfield fit takes texts as categories)")
            X = np.concatenate([column.encode(table) for column in inputs], axis=1)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        for caution in cautions:
            warnings.warn(f"{path}: {caution}", stacklevel=2)
        if isinstance(self.target, str) and self.loss == "cross_entropy":
            return X, Columns(inputs=inputs, target=self.target, classes=[]).targets(table)
        y = np.concatenate([column.encode(table) for column in outputs], axis=1)
        return X, y[:, 0] if isinstance(self.target, str) else y

    def _from_npz(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        name = "X" if self.inputs is None else self.inputs
        if not isinstance(name, str):
            raise ValueError("inputs must be the name of one array in a .npz file")
        if not isinstance(self.target, str):
            raise ValueError("target must be the name of one array in a .npz file")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                kept = {key: arrays[key] for key in arrays.files}
        except Exception:
            raise ValueError(f"{path} is not a .npz file of numeric arrays, or is damaged") from None
        for key in (name, self.target):
            _place(path, list(kept), key)
        return kept[name], kept[self.target]


def _place(path: Path, known: list[str], name: str) -> int:
    if name not in known:
        raise ValueError(f"{path} has no column '{name}'{suggestion(name, known)}")
    return known.index(name)


Data = DigitsData | CifarData | MnistData | GaussianData | TableData
SOURCES: dict[str, type[Data]] = {kind.model_fields["source"].default: kind for kind in get_args(Data)}
