"""TOML <-> the objects that describe a run.

    [data]        source = "digits", "cifar", "mnist", "table" (a .csv or .npz file) or "gaussian", and its arguments
    [network]     kind = "MLP", and its arguments
    [training]    kind = "GradientDescent", "SGD", "OnlineSGD" or "GradientFlow", and its arguments
    [stream]      fresh points for OnlineSGD, as [data]; optional
    [march]       arguments of March       (`kernelfield solve`)
    [finite]      arguments of FiniteWidth (`kernelfield train`)

and, all optional, a section for every other method: [static_ntk], [gradient_independence], [perturbation],
[deep_linear] and [alternating] (`kernelfield solve --method`, `kernelfield sweep-gamma`).

examples/digits.toml is a commented example.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from kernelfield.common.settings import Spec, spec_class, suggestion
from kernelfield.datasets import cifar, digits, gaussian, mnist, standardized
from kernelfield.describe import losses
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Descent, GradientDescent
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March, OnParticles
from kernelfield.theories.alternating import AlternatingMonteCarlo
from kernelfield.theories.deep_linear import DeepLinear
from kernelfield.theories.gradient_independence import GradientIndependence
from kernelfield.theories.perturbation import Perturbation
from kernelfield.theories.static_ntk import StaticNTK

LossName = Annotated[str, AfterValidator(lambda name: losses.loss(name).name)]


class DigitsData(Spec):
    """Two or more classes of handwritten digits; see `kernelfield.datasets.digits`.

    Args:
        source: "digits".
        classes: two or more digits.
        points: number of images, equally many of each class.
        seed: of the choice of images; the first ones of each class if left out.
        images: whether X has axes for rows, columns and one channel, as networks of images need.
        pool: n x n pixels become one, their mean.
        loss: "mse", "logistic", "hinge" or "cross_entropy".
    """

    source: Literal["digits"] = "digits"
    classes: tuple[int, ...] = (0, 1)
    points: int = 20
    seed: int | None = None
    images: bool = False
    pool: int = Field(default=1, ge=1)
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """The Problem; `folder` is not used."""
        return digits(self.classes, self.points, self.seed, images=self.images, pool=self.pool, loss=self.loss)


class CifarData(Spec):
    """Two or more classes of CIFAR-10, from its own files; see `kernelfield.datasets.cifar`.

    Args:
        source: "cifar".
        folder: of the files, relative to the configuration file.
        classes: two or more of 0..9.
        points: number of images, equally many of each class.
        images: whether X has axes for rows, columns and colours, as networks of images need.
        grey: whether the colours become one channel, their mean.
        pool: n x n pixels become one, their mean.
        loss: "mse", "logistic", "hinge" or "cross_entropy".
    """

    source: Literal["cifar"] = "cifar"
    folder: str
    classes: tuple[int, ...] = (0, 1)
    points: int = 20
    images: bool = False
    grey: bool = False
    pool: int = Field(default=1, ge=1)
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """The Problem; its own folder is relative to `folder`."""
        place = folder / self.folder
        how: dict[str, Any] = {"images": self.images, "grey": self.grey, "pool": self.pool, "loss": self.loss}
        return cifar(place, self.classes, self.points, **how)


class MnistData(Spec):
    """Two or more classes of MNIST or Fashion-MNIST, from their own files; see `kernelfield.datasets.mnist`.

    Args:
        source: "mnist".
        folder: of the files, relative to the configuration file.
        classes: two or more of 0..9.
        points: number of images, equally many of each class.
        images: whether X has axes for rows, columns and one channel, as networks of images need.
        pool: n x n pixels become one, their mean.
        loss: "mse", "logistic", "hinge" or "cross_entropy".
    """

    source: Literal["mnist"] = "mnist"
    folder: str
    classes: tuple[int, ...] = (0, 1)
    points: int = 20
    images: bool = False
    pool: int = Field(default=1, ge=1)
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """The Problem; its own folder is relative to `folder`."""
        how: dict[str, Any] = {"images": self.images, "pool": self.pool, "loss": self.loss}
        return mnist(folder / self.folder, self.classes, self.points, **how)


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
        """The Problem; `folder` is not used."""
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
        loss: "mse", "logistic", "hinge", or "cross_entropy" of labels 0, 1, ... or of rows of probabilities.
    """

    source: Literal["table"] = "table"
    path: str
    inputs: list[str] | str | None = None
    target: str | list[str] = "y"
    standardize: bool = False
    loss: LossName = "mse"

    def problem(self, folder: Path) -> Problem:
        """The Problem; `path` is relative to `folder`."""
        path = folder / self.path
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        if path.suffix not in (".csv", ".npz"):
            raise ValueError(f"path must end in .csv or .npz, got {self.path}")
        X, y = self._from_csv(path) if path.suffix == ".csv" else self._from_npz(path)
        return Problem(standardized(X) if self.standardize else X, y, loss=self.loss)

    def _from_csv(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        with open(path, newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        header, rows = (rows[0], rows[1:]) if rows else ([], [])
        targets = [self.target] if isinstance(self.target, str) else self.target
        if not targets:
            raise ValueError("target must name at least one column")
        others = [name for name in header if name not in targets]
        inputs = [self.inputs] if isinstance(self.inputs, str) else self.inputs or others
        places = [_place(path, header, name) for name in (*inputs, *targets)]
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise ValueError(f"{path}: data row {number} has {len(row)} entries, the header has {len(header)}")
        try:
            table = np.array([[float(row[place]) for place in places] for row in rows])
        except ValueError as error:
            raise ValueError(f"{path}: every entry used must be a number: {error}") from None
        if not len(table):
            raise ValueError(f"{path} holds no rows of data")
        y = table[:, len(inputs) :]
        return table[:, : len(inputs)], y[:, 0] if isinstance(self.target, str) else y

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
_DATA: dict[str, type[Data]] = {
    "digits": DigitsData,
    "cifar": CifarData,
    "mnist": MnistData,
    "gaussian": GaussianData,
    "table": TableData,
}
METHODS: dict[str, type[Spec]] = {
    "march": March,
    "finite": FiniteWidth,
    "static_ntk": StaticNTK,
    "gradient_independence": GradientIndependence,
    "perturbation": Perturbation,
    "deep_linear": DeepLinear,
    "alternating": AlternatingMonteCarlo,
}
_REQUIRED = ("data", "network", "training")
_SHARED = ("particles", "replicates", "seed")  # settings of [march] that other theories on particles take over


@dataclass(frozen=True)
class Config:
    """A run as a file describes it.

    Args:
        data: where inputs and targets come from.
        network: what learns.
        training: how it learns.
        methods: the settings of every method that the file has a section for, by its name.
        folder: that of the file, which paths are relative to.
        stream: where the points that train come from, if not from `data`.
    """

    data: Data
    network: Any
    training: Any
    methods: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folder: Path = Path()
    stream: Data | None = None

    def problem(self) -> Problem:
        """Inputs and targets.

        Raises:
            ValueError: naming what is wrong with the data.
            FileNotFoundError: a data file does not exist.
        """
        observed = self._made("data")
        if self.stream is None:
            return observed
        return Problem(observed.X, observed.y, loss=observed.loss, stream=self._made("stream"))

    def _made(self, section: Literal["data", "stream"]) -> Problem:
        try:
            return getattr(self, section).problem(self.folder)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"[{section}] {error}") from None

    def method(self, name: str, **replaced: Any) -> Any:
        """The settings of a method: its section, or defaults (with particles, replicates and seed of [march]).

        Args:
            name: of its section.
            replaced: settings that take the place of those in the file.

        Returns:
            What `kernelfield.solve` takes as `method`.

        Raises:
            ValueError: for an unknown method, or settings that do not fit.
        """
        if name not in METHODS:
            raise ValueError(f"method '{name}' is unknown{suggestion(name, list(METHODS))}")
        values = self.methods[name].model_dump() if name in self.methods else {}
        if not values and issubclass(METHODS[name], OnParticles):
            values = {key: getattr(self.method("march"), key) for key in _SHARED} if name != "march" else {}
        return METHODS[name](**{**values, **replaced})

    def to_toml(self) -> str:
        """The file that `read` turns into this."""
        text = []
        streams = {} if self.stream is None else {"stream": self.stream}
        for name, spec in {**{name: getattr(self, name) for name in _REQUIRED}, **streams, **self.methods}.items():
            kind = {"kind": type(spec).__name__} if name in ("network", "training") else {}
            values = {**kind, **spec.model_dump(mode="json", exclude_none=True)}
            text += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        return "\n".join(text)


def read(path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Config:
    """Read a configuration file.

    Args:
        path: of a TOML file.
        data: takes the place of `folder` in [data], but is relative to the current folder: the option `--data`.

    Returns:
        Config, checked but for the data themselves.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, section and key, and the nearest known key for an unknown one; or there is no `folder`
            to replace.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        config = parse(path.read_text(encoding="utf-8"), path.parent)
        return config if data is None else _moved(config, data)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _moved(config: Config, data: str | os.PathLike[str]) -> Config:
    """The same run on data in another folder."""
    if not isinstance(config.data, CifarData | MnistData):
        raise ValueError(f"--data is for [data] with source cifar or mnist, got {config.data.source}")
    values = {**config.data.model_dump(), "folder": os.path.abspath(data)}
    return dataclasses.replace(config, data=type(config.data)(**values))


def parse(text: str, folder: Path | None = None) -> Config:
    """Read the text of a configuration file.

    Args:
        text: TOML.
        folder: which paths are relative to; the current one by default.

    Returns:
        Config, checked but for the data themselves.

    Raises:
        ValueError: naming section and key.

    Example:
        >>> from kernelfield.files.config import parse
        >>> config = parse('''
        ... [data]
        ... source = "digits"
        ... [network]
        ... depth = 2
        ... [training]
        ... learning_rate = 0.3
        ... steps = 50
        ... ''')
        >>> config.network.depth, config.problem().points
        (2, 20)
    """
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    known = [*_REQUIRED, "stream", *METHODS]
    for name, section in sections.items():
        if name not in known:
            raise ValueError(f"unknown section [{name}]{suggestion(name, known)}")
        if not isinstance(section, dict):
            raise ValueError(f"{name} must be a section [{name}], got {section!r}")
    for name in _REQUIRED:
        if name not in sections:
            raise ValueError(f"section [{name}] is required")
    return Config(
        data=_section("data", sections["data"]),
        network=_section("network", sections["network"]),
        training=_section("training", sections["training"]),
        methods={name: _section(name, sections[name]) for name in METHODS if name in sections},
        folder=folder or Path(),
        stream=_section("stream", sections["stream"]) if "stream" in sections else None,
    )


def _section(name: str, values: dict[str, Any]) -> Any:
    """The object that a section describes."""
    try:
        return _class_of(name, values)(**values)
    except ValueError as error:
        raise ValueError(f"[{name}] {error}") from None


def _class_of(section: str, values: dict[str, Any]) -> type[Spec]:
    """The class that a section names (and takes out of `values`, if it is not an argument)."""
    if section in ("data", "stream"):
        source = values.get("source")
        if source not in _DATA:
            raise ValueError(f"source must be one of {', '.join(_DATA)}, got {source!r}")
        return _DATA[source]
    if section in METHODS:
        return METHODS[section]
    default = "MLP" if section == "network" else GradientDescent.__name__
    kind = values.pop("kind", default)
    modules = {"network": "kernelfield.describe.networks", "training": "kernelfield.describe.training"}
    found = spec_class(str(kind))
    if found.__module__ != modules[section] or found is Descent:
        raise ValueError(f"kind '{kind}' is not a {section}")
    return found
