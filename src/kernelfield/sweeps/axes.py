"""What a grid is: keys of a configuration, their values, and every point of their product."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
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
from kernelfield.march.schedule import Schedule
from kernelfield.sweeps.variables import RESERVED

Index = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One key of a grid.

    Args:
        section: of the configuration that has the key.
        key: an argument of the section.
        values: that it takes, as the section holds them.
        name: of the dimension: the key, with its section in front where that would not be unique.
    """

    section: str
    key: str
    values: tuple[Any, ...]
    name: str

    @property
    def coordinate(self) -> np.ndarray:
        """The values as numbers, if they are, or as texts."""
        if all(isinstance(value, bool) for value in self.values):
            return np.array(self.values)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values):
            return np.array(self.values, np.int64 if all(isinstance(value, int) for value in self.values) else float)
        return np.array([_label(value) for value in self.values], np.dtypes.StringDType())

    def label(self, place: int) -> str:
        """The key and one of its values, as "gamma0 = 0.1"."""
        return f"{self.name} = {_label(self.values[place])}"


@dataclass(frozen=True)
class Grid:
    """The product of several values of several keys of a configuration; made by `grid_of`.

    Args:
        axes: the keys, the first one varying slowest.
        method: name of its section in a configuration.
        configs: of every point, by its place on each axis.
        runs: the same, as `kernelfield.solve` takes it.
    """

    axes: tuple[Axis, ...]
    method: str
    configs: Mapping[Index, Config]
    runs: Mapping[Index, Run]

    @property
    def shape(self) -> Index:
        """Number of values of every axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def values(self) -> dict[str, list[Any]]:
        """Values by section and key, as JSON can hold them."""
        return {f"{axis.section}.{axis.key}": json.loads(json.dumps(axis.values)) for axis in self.axes}

    def label(self, index: Index) -> str:
        """Where a point is, as "gamma0 = 0.1, depth = 2"."""
        return ", ".join(axis.label(place) for axis, place in zip(self.axes, index, strict=True))

    @functools.cached_property
    def data_sha256(self) -> str:
        """Fingerprint of the data of all points."""
        seen: dict[int, Problem] = {id(run.problem): run.problem for run in self.runs.values()}
        digest = hashlib.sha256()
        for problem in seen.values():
            for part in (problem, problem.stream):
                for values in () if part is None else (part.X, part.y, part.weights):
                    digest.update(repr(values.shape).encode() + values.tobytes())
        return digest.hexdigest()


def grid_of(config: Config, values: Mapping[str, Sequence[Any]], method: str = "march") -> Grid:
    """The grid of several values of several keys, with every point checked.

    Args:
        config: of what is not on the grid.
        values: by key: "section.key", or "key" where exactly one section in use has it.
        method: that solves, by the name of its section.

    Returns:
        Grid.

    Raises:
        ValueError: naming the key or point, and what is wrong with it.
        FileNotFoundError: a data file does not exist.

    Example:
        >>> from kernelfield.files.config import parse
        >>> from kernelfield.sweeps import grid_of
        >>> config = parse('''
        ... data = {source = "digits"}
        ... network = {depth = 2}
        ... training = {learning_rate = 0.3, steps = 50}
        ... ''')
        >>> grid = grid_of(config, {"gamma0": [0.1, 1], "network.depth": [2, 3]})
        >>> grid.shape, grid.label((0, 1))
        ((2, 2), 'gamma0 = 0.1, depth = 3')
    """
    places = [_place(key, _sections(config, method)) for key in values]
    axes = [Axis(*place, tuple(each), place[1]) for place, each in zip(places, values.values(), strict=True)]
    if not axes:
        raise ValueError("a grid needs at least one key with its values, as in gamma0=0.1,1")
    for number, axis in enumerate(axes):
        if places.index(places[number]) < number:
            raise ValueError(f"grid key '{axis.section}.{axis.key}' must be given once")
        if not axis.values:
            raise ValueError(f"grid key '{axis.key}' must have at least one value")
        if any(callable(value) for value in axis.values):
            raise ValueError(f"grid key '{axis.key}' must have numbers, texts or lists as values, got a function")
        if axis.key in RESERVED or [key for _, key in places].count(axis.key) > 1:
            axes[number] = dataclasses.replace(axis, name=f"{axis.section}_{axis.key}")
    configs, runs, problems = {}, {}, {}
    for index in itertools.product(*(range(len(axis.values)) for axis in axes)):
        try:
            configs[index] = at = _replaced(config, method, axes, index)
            runs[index] = _run(at, method, problems)
        except ValueError as error:
            where = ", ".join(axis.label(place) for axis, place in zip(axes, index, strict=True))
            raise ValueError(f"grid point {where}: {error}") from None
    return Grid(tuple(_as_held(axes, configs)), method, configs, runs)


def parsed(options: Iterable[str]) -> dict[str, list[Any]]:
    """Keys and values from texts like "gamma0=0.1,1,3": TOML, where texts need no quotes.

    Args:
        options: one for each key.

    Returns:
        Values by key.

    Raises:
        ValueError: for a text without a key or values, or a key that comes twice.

    Example:
        >>> from kernelfield.sweeps import parsed
        >>> parsed(["gamma0=0.1,1", "activation=tanh,relu", "data.classes=[0, 1],[2, 3]"])
        {'gamma0': [0.1, 1], 'activation': ['tanh', 'relu'], 'data.classes': [[0, 1], [2, 3]]}
    """
    found: dict[str, list[Any]] = {}
    for option in options:
        key, _, text = (part.strip() for part in option.partition("="))
        values = _values(text)
        if not key or not values:
            raise ValueError(f"--grid must be KEY=VALUE,VALUE,..., got '{option}'")
        if key in found:
            raise ValueError(f"grid key '{key}' must be given once")
        found[key] = values
    return found


def _values(text: str) -> list[Any]:
    try:
        return tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [_value(word.strip()) for word in text.split(",") if word.strip()]


def _value(word: str) -> Any:
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return word


def _label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _sections(config: Config, method: str) -> dict[str, list[str]]:
    """Keys of the sections in use."""
    if method not in METHODS:
        raise ValueError(f"method '{method}' is unknown{suggestion(method, list(METHODS))}")
    used = {name: getattr(config, name) for name in ("data", "stream", "network", "training")}
    keys = {name: list(type(spec).model_fields) for name, spec in used.items() if spec is not None}
    return {**keys, method: list(METHODS[method].model_fields)}


def _place(name: str, sections: Mapping[str, list[str]]) -> tuple[str, str]:
    """Section and key that a name means."""
    section, _, key = name.rpartition(".")
    if section:
        if key not in sections.get(section, []):
            known = [f"{each}.{key}" for each, keys in sections.items() for key in keys]
            raise ValueError(f"grid key '{name}' is unknown{suggestion(name, known)}")
        return section, key
    having = [each for each, keys in sections.items() if key in keys]
    if not having:
        known = sorted({key for keys in sections.values() for key in keys})
        raise ValueError(f"grid key '{name}' is unknown{suggestion(name, known)}")
    if len(having) > 1:
        raise ValueError(
            f"grid key '{name}' is in several sections: write {' or '.join(f'{each}.{key}' for each in having)}"
        )
    return having[0], key


def _replaced(config: Config, method: str, axes: Sequence[Axis], index: Index) -> Config:
    """The configuration of a point, with the section of its method alone."""
    given: dict[str, dict[str, Any]] = {}
    for axis, place in zip(axes, index, strict=True):
        given.setdefault(axis.section, {})[axis.key] = axis.values[place]
    own, parts = given.pop(method, {}), {}
    for section, values in given.items():
        try:
            spec = getattr(config, section)
            parts[section] = type(spec)(**{**dict(spec), **values})
        except ValueError as error:
            raise ValueError(f"[{section}] {error}") from None
    try:
        return dataclasses.replace(config, **parts, methods={method: config.method(method, **own)})
    except ValueError as error:
        raise ValueError(f"[{method}] {error}") from None


def _run(config: Config, method: str, problems: dict[str, Problem]) -> Run:
    """What a configuration describes, checked; points of the same data share a Problem."""
    described = repr((config.data, config.stream))
    if described not in problems:
        problems[described] = config.problem()
    solver = config.methods[method]
    run = Run(config.network, problems[described], config.training, solver)
    solver.supports(run)
    run.network.every_input(run.problem)
    if isinstance(run.training, Descent):
        Schedule.of(run.training, run.problem)
    return run


def _as_held(axes: Sequence[Axis], configs: Mapping[Index, Config]) -> Iterator[Axis]:
    """Axes with values as the sections hold them: 1 is 1.0 where a key is not a whole number."""
    for number, axis in enumerate(axes):
        values = []
        for place in range(len(axis.values)):
            config = configs[tuple(place if each == number else 0 for each in range(len(axes)))]
            spec: Spec = getattr(config, axis.section, None) or config.methods[axis.section]
            values.append(getattr(spec, axis.key))
        labels = [_label(value) for value in values]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"grid key '{axis.key}' must have different values, got {label} twice")
        yield dataclasses.replace(axis, values=tuple(values))
