"""Grids: keys of a configuration, their values, and every point of the product of these values."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield.common.settings import Spec, suggestion
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import Descent
from kernelfield.files.config import METHODS, Config
from kernelfield.sweeps.variables import RESERVED

EXACT = 12  # digits that tell the values of an axis apart
Index = tuple[int, ...]  # the place of a point on every axis


@dataclass(frozen=True)
class Axis:
    """One key of a grid."""

    section: str  # of the configuration, which has the key
    key: str
    values: tuple[Any, ...]  # as the section holds them
    name: str  # of the dimension: the key, with its section in front where the key alone is not unique

    @property
    def coordinate(self) -> np.ndarray:
        """The values as truth values or numbers, if all of them are, or as texts."""
        kinds = {type(value) for value in self.values}
        if kinds == {bool} or kinds <= {int, float}:
            return np.array(self.values)
        return np.array([format_value(value, EXACT) for value in self.values], np.dtypes.StringDType())


@dataclass(frozen=True)
class Grid:
    """The product of several values of several keys of a configuration; `make_grid` makes it."""

    axes: tuple[Axis, ...]  # the first one varies slowest
    method: str  # the name of its section in a configuration
    configs: Mapping[Index, Config]
    runs: Mapping[Index, Run]

    @property
    def shape(self) -> Index:
        """The number of values of every axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def label(self, index: Index) -> str:
        """Returns the keys of a point with their values, as "gamma0 = 0.1, depth = 2"."""
        places = zip(self.axes, index, strict=True)
        return ", ".join(f"{axis.name} = {format_value(axis.values[place])}" for axis, place in places)

    @functools.cached_property
    def data_sha256(self) -> str:
        """The fingerprint of the data of all points."""
        problems = {id(run.problem): run.problem for run in self.runs.values()}
        digest = hashlib.sha256()
        for problem in problems.values():
            for data in (problem, problem.stream):
                for array in () if data is None else (data.X, data.y, data.weights):
                    digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()


def make_grid(config: Config, values: Mapping[str, Sequence[Any]], method: str = "march") -> Grid:
    """Returns the grid of several values of several keys, after checking every point.

    A key is "section.key", or "key" where exactly one section in use has it; `method` is the name of its section.
    Raises ValueError, which names the key or the point that is wrong, or FileNotFoundError for a data file.

    Example:
        >>> from kernelfield.files.config import parse
        >>> from kernelfield.sweeps import make_grid
        >>> config = parse('''
        ... data = {source = "digits"}
        ... network = {depth = 2}
        ... training = {learning_rate = 0.3, steps = 50}
        ... ''')
        >>> grid = make_grid(config, {"gamma0": [0.1, 1], "network.depth": [2, 3]})
        >>> grid.shape, grid.label((0, 1))
        ((2, 2), 'gamma0 = 0.1, depth = 3')
    """
    places = _places(values, config, method)
    if not places:
        raise ValueError("a grid needs at least one key with its values, as in gamma0=0.1,1")
    keys, axes = [key for _, key in places], []
    for (section, key), choices in zip(places, values.values(), strict=True):
        if places.count((section, key)) > 1:
            raise ValueError(f"grid key '{section}.{key}' must be given once")
        if not choices:
            raise ValueError(f"grid key '{key}' must have at least one value")
        if any(callable(value) for value in choices):
            raise ValueError(f"grid key '{key}' must have numbers, texts or lists as values, got a function")
        is_unique = key not in RESERVED and keys.count(key) == 1
        axes.append(Axis(section, key, tuple(choices), key if is_unique else f"{section}_{key}"))
    configs, runs, problems = {}, {}, {}
    grid = Grid(tuple(axes), method, configs, runs)
    for index in np.ndindex(grid.shape):
        try:
            configs[index] = _config_at(config, method, axes, index)
            runs[index] = _checked_run(configs[index], method, problems)
        except ValueError as error:
            raise ValueError(f"grid point {grid.label(index)}: {error}") from None
    return dataclasses.replace(grid, axes=tuple(_axes_as_held(grid)))


def parse_grid(options: Iterable[str]) -> dict[str, list[Any]]:
    """Returns the values by key from texts like "gamma0=0.1,1,3": TOML, where texts need no quotes.

    Example:
        >>> from kernelfield.sweeps import parse_grid
        >>> parse_grid(["gamma0=0.1,1", "activation=tanh,relu", "data.classes=[0, 1],[2, 3]"])
        {'gamma0': [0.1, 1], 'activation': ['tanh', 'relu'], 'data.classes': [[0, 1], [2, 3]]}
    """
    grid: dict[str, list[Any]] = {}
    for option in options:
        key, _, text = (part.strip() for part in option.partition("="))
        values = _parse_toml(f"[{text}]", None)
        if values is None:
            words = (word.strip() for word in text.split(","))
            values = [_parse_toml(word, word) for word in words if word]
        if not key or not values:
            raise ValueError(f"--grid must be KEY=VALUE,VALUE,..., got '{option}'")
        if key in grid:
            raise ValueError(f"grid key '{key}' must be given once")
        grid[key] = values
    return grid


def _parse_toml(text: str, default: Any) -> Any:
    """Returns the value that a text is in TOML, or the default if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return default


def format_value(value: Any, digits: int = 6) -> str:
    """Returns the value of a key, of Python or a scalar of numpy, as people write it."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        return f"{plain:.{digits}g}"
    return plain if isinstance(plain, str) else json.dumps(plain)


def _places(names: Iterable[str], config: Config, method: str) -> list[tuple[str, str]]:
    """Returns the section and the key that each name means, of the sections in use."""
    if method not in METHODS:
        raise ValueError(f"method '{method}' is unknown{suggestion(method, list(METHODS))}")
    specs = {name: getattr(config, name) for name in ("data", "stream", "network", "training")}
    kinds = {name: type(spec) for name, spec in specs.items() if spec is not None} | {method: METHODS[method]}
    places = [(section, key) for section, kind in kinds.items() for key in kind.model_fields]
    chosen = []
    for name in names:
        known = {place: ".".join(place) if "." in name else place[1] for place in places}
        fitting = [place for place in places if known[place] == name]
        if not fitting:
            raise ValueError(f"grid key '{name}' is unknown{suggestion(name, sorted(set(known.values())))}")
        if len(fitting) > 1:
            raise ValueError(f"grid key '{name}' is in several sections: write {' or '.join(map('.'.join, fitting))}")
        chosen += fitting
    return chosen


def _config_at(config: Config, method: str, axes: Sequence[Axis], index: Index) -> Config:
    """Returns the configuration of a point, with the section of its method alone."""
    parts: dict[str, Any] = {}
    changes: dict[str, dict[str, Any]] = {axis.section: {} for axis in axes} | {method: {}}
    for axis, place in zip(axes, index, strict=True):
        changes[axis.section][axis.key] = axis.values[place]
    for section, values in changes.items():
        try:
            if section == method:
                parts["methods"] = {method: config.method(method, **values)}
            else:
                spec = getattr(config, section)
                parts[section] = type(spec)(**{**dict(spec), **values})
        except ValueError as error:
            raise ValueError(f"[{section}] {error}") from None
    return dataclasses.replace(config, **parts)


def _checked_run(config: Config, method: str, problems: dict[str, Problem]) -> Run:
    """Returns the run that a configuration describes, after checking it; points of the same data share a Problem."""
    data = repr((config.data, config.stream))
    if data not in problems:
        problems[data] = config.problem()
    solver = config.methods[method]
    run = Run(config.network, problems[data], config.training, solver)
    solver.supports(run)
    run.network.every_input(run.problem)
    if isinstance(run.training, Descent):
        run.training.rates(run.problem)
        run.training.batches(run.problem)
    return run


def _axes_as_held(grid: Grid) -> Iterator[Axis]:
    """Yields the axes with the values that the sections hold: 1 is 1.0 where a key is not a whole number."""
    for number, axis in enumerate(grid.axes):
        values = []
        for place in range(len(axis.values)):
            config = grid.configs[tuple(place if other == number else 0 for other in range(len(grid.axes)))]
            spec: Spec = getattr(config, axis.section, None) or config.methods[axis.section]
            values.append(getattr(spec, axis.key))
        labels = [format_value(value, EXACT) for value in values]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"grid key '{axis.key}' must have different values, got {label} twice")
        yield dataclasses.replace(axis, values=tuple(values))
