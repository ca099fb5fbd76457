"""TOML <-> the objects that describe a run.

    [data]        source = "digits", "cifar", "mnist", "table" (a .csv or .npz file) or "gaussian", and its arguments
    [network]     kind = "MLP", and its arguments
    [training]    kind = "GradientDescent", "SGD", "OnlineSGD", "GradientFlow", "Adam" or "Langevin", and its arguments
    [stream]      fresh points for OnlineSGD, as [data]; optional
    [march]       arguments of March       (`kernelfield solve`)
    [finite]      arguments of FiniteWidth (`kernelfield train`)

and, all optional, a section for every other method: [static_ntk], [gradient_independence], [perturbation],
[deep_linear], [alternating] and [bayesian_posterior] (`kernelfield solve --method`, `kernelfield sweep-gamma`).

examples/digits.toml is a commented example.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kernelfield.common.atomic_files import check_file
from kernelfield.common.settings import Spec, spec_class, suggestion
from kernelfield.datasets.specs import SOURCES, CifarData, Data, MnistData
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March, OnParticles
from kernelfield.solution.method import Method
from kernelfield.theories.alternating import AlternatingMonteCarlo
from kernelfield.theories.bayesian_posterior import BayesianPosterior
from kernelfield.theories.deep_linear import DeepLinear
from kernelfield.theories.gradient_independence import GradientIndependence
from kernelfield.theories.perturbation import Perturbation
from kernelfield.theories.static_ntk import StaticNTK

METHODS: dict[str, type[Method]] = {
    "march": March,
    "finite": FiniteWidth,
    "static_ntk": StaticNTK,
    "gradient_independence": GradientIndependence,
    "perturbation": Perturbation,
    "deep_linear": DeepLinear,
    "alternating": AlternatingMonteCarlo,
    "bayesian_posterior": BayesianPosterior,
}
_REQUIRED = ("data", "network", "training")
_SHARED = {"particles", "replicates", "seed"}  # settings of [march] that other theories on particles take over


@dataclass(frozen=True)
class Config:
    """A run as a file describes it."""

    data: Data
    network: Architecture
    training: Training
    methods: Mapping[str, Method] = dataclasses.field(default_factory=dict)  # by the names of their sections
    folder: Path = Path()  # of the file, to which paths are relative
    stream: Data | None = None  # the source of the points that train, if they are not those of `data`

    def problem(self) -> Problem:
        """Returns inputs and targets; raises ValueError for wrong data, FileNotFoundError for a missing file."""
        observed = self._problem_of("data")
        if self.stream is None:
            return observed
        return Problem(observed.X, observed.labels, loss=observed.loss, stream=self._problem_of("stream"))

    def _problem_of(self, section: Literal["data", "stream"]) -> Problem:
        try:
            return getattr(self, section).problem(self.folder)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"[{section}] {error}") from None

    def method(self, name: str, **replaced: Any) -> Method:
        """Returns the settings of a method: its section, or defaults (some of which are those of [march]).

        Settings in `replaced` take the place of those in the file. Raises ValueError for an unknown method, or settings
        that do not fit.
        """
        if name not in METHODS:
            raise ValueError(f"method '{name}' is unknown{suggestion(name, list(METHODS))}")
        values = {}
        if name in self.methods:
            values = self.methods[name].model_dump()
        elif name != "march" and issubclass(METHODS[name], OnParticles):
            values = self.method("march").model_dump(include=_SHARED)
        return METHODS[name](**{**values, **replaced})

    def to_toml(self) -> str:
        """Returns the text of the file that `read` turns into this."""
        text = []
        streams = {} if self.stream is None else {"stream": self.stream}
        for name, spec in {**{name: getattr(self, name) for name in _REQUIRED}, **streams, **self.methods}.items():
            kind = {"kind": type(spec).__name__} if name in ("network", "training") else {}
            values = {**kind, **spec.model_dump(mode="json", exclude_none=True)}
            text += [f"[{name}]", *(f"{key} = {_write_value(value)}" for key, value in values.items()), ""]
        return "\n".join(text)


def _write_value(value: Any) -> str:
    """Returns a value as TOML; a mapping is an inline table."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{ " + ", ".join(f"{key} = {_write_value(part)}" for key, part in value.items()) + " }"


def read(path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Config:
    """Returns the run that a configuration file describes, checked but for the data themselves.

    Args:
        path: of a TOML file.
        data: takes the place of `folder` in [data], but is relative to the current folder: the option `--data`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, section and key, and the nearest known key for an unknown one; or there is no `folder`
            to replace.
    """
    path = Path(path)
    check_file(path)
    try:
        config = parse(path.read_text(encoding="utf-8"), path.parent)
        if data is None:
            return config
        if not isinstance(config.data, CifarData | MnistData):
            raise ValueError(f"--data is for [data] with source cifar or mnist, got {config.data.source}")
        moved = type(config.data)(**{**config.data.model_dump(), "folder": os.path.abspath(data)})
        return dataclasses.replace(config, data=moved)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(text: str, folder: Path | None = None) -> Config:
    """Returns the run that the text of a configuration file describes, checked but for the data themselves.

    Args:
        text: TOML.
        folder: which paths are relative to; the current one by default.

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
    specs = {name: _section(name, sections[name]) for name in known if name in sections}
    methods = {name: specs[name] for name in METHODS if name in specs}
    data, network, training = (specs[name] for name in _REQUIRED)
    return Config(data, network, training, methods, folder or Path(), specs.get("stream"))


def _section(name: str, values: dict[str, Any]) -> Any:
    """Returns the object that a section describes."""
    try:
        return _class_of(name, values)(**values)
    except ValueError as error:
        raise ValueError(f"[{name}] {error}") from None


def _class_of(section: str, values: dict[str, Any]) -> type[Spec]:
    """Returns the class that a section names, and takes the name out of `values` if it is not an argument."""
    if section in ("data", "stream"):
        source = values.get("source")
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
        return SOURCES[source]
    if section in METHODS:
        return METHODS[section]
    kind = str(values.pop("kind", "MLP" if section == "network" else "GradientDescent"))
    cls = spec_class(kind)
    if not issubclass(cls, Architecture if section == "network" else Training):
        raise ValueError(f"kind '{kind}' is not a {section}")
    return cls
