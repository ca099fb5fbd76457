"""How to run it again: configuration files that `kernelfield solve` and `kernelfield train` read, and the commands."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.datasets.images import pooled
from kernelfield.describe.losses import LOSSES
from kernelfield.describe.problem import Problem
from kernelfield.files.config import METHODS, Config, Data, DigitsData, GaussianData, TableData
from kernelfield.report.result import Result

SEEDS = 100  # of generators of data that are tried
MOST_TRIED = 2_000_000  # numbers drawn while trying them
SAME_IMAGE = 1e-6  # difference of pixels, in standard deviations of an image
DATA_FILE, STREAM_FILE = "data.npz", "stream.npz"


@dataclass
class Recipe:
    """One configuration file and what to do with it.

    Args:
        name: of the file.
        toml: its text, or None if no file can describe the network.
        commands: shell commands, one for each result.
        notes: what the file leaves out.
    """

    name: str
    toml: str | None
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where the data come from.

    Args:
        data: section of a configuration file that makes the same inputs and targets, or that reads `DATA_FILE`.
        sentence: how that is known, or what to do.
        known: whether the section makes the data by itself.
        stream: the section [stream], if the problem has one.
    """

    data: Data
    sentence: str
    known: bool
    stream: Data | None = None


def data_source(problem: Problem) -> Source:
    """Which configuration makes the data of a problem.

    Solutions hold inputs and targets, not where they came from: the built-in data sets are made again and compared,
    bit for bit; other data are read from a file that has to be written first.

    Args:
        problem: with inputs and targets.

    Returns:
        Source.

    Example:
        >>> from kernelfield.datasets import digits
        >>> from kernelfield.report.reproduce import data_source
        >>> source = data_source(digits(classes=(3, 8), points=6, seed=7))
        >>> source.data.classes, source.data.points, source.data.seed
        ((3, 8), 6, 7)
    """
    sizes = (" x ".join(map(str, array.shape)) for array in (problem.X, problem.y))
    shape = "inputs X {} and targets y {}".format(*sizes)
    equal, loss, streams = len(np.unique(problem.weights)) == 1, problem.loss.name, problem.stream is not None
    known = LOSSES.get(loss) == problem.loss
    found = (_digits(problem) or _gaussian(problem)) if equal and known and not streams else None
    if found is not None:
        name = "scikit-learn's digits" if isinstance(found, DigitsData) else "the built-in Gaussian data"
        sentence = f"The data were recognized as {name}: made again from the section [data], they agree in every bit."
        return Source(found, sentence, True)
    files = " and ".join([DATA_FILE, STREAM_FILE][: 1 + streams])
    sentence = (
        f"Where the data came from is not recorded in the result; it holds the arrays themselves ({shape}). "
        f"The Python lines below write them to {files}, which the configuration reads."
    )
    if not equal:
        sentence += " Weights of the points (zero for test points) are in the result too, but not in this file."
    if not known:
        sentence += f" No configuration file can hold the loss {loss}, which is a custom function."
    data, stream = (TableData(path=path, loss=loss if known else "mse") for path in (DATA_FILE, STREAM_FILE))
    return Source(data, sentence, False, stream if streams else None)


def recipes(results: Sequence[Result], source: Source, files: Mapping[str, str]) -> list[Recipe]:
    """Configuration files for all results: one, unless their networks, training or methods' settings differ.

    Args:
        results: the main one first.
        source: of the data.
        files: result file of every result, by name.

    Returns:
        Recipes.
    """
    configs: list[tuple[Config, list[tuple[Result, str]]]] = []
    for result in results:
        solution, section = result.solution, method_section(result.solution.method)
        for config, members in configs:
            same = (config.network, config.training) == (solution.network, solution.training)
            if same and config.methods.get(section, solution.method) == solution.method:
                config.methods[section] = solution.method  # type: ignore[index]
                members.append((result, section))
                break
        else:
            methods = {section: solution.method} if section in METHODS else {}
            config = Config(source.data, solution.network, solution.training, methods, stream=source.stream)
            configs.append((config, [(result, section)]))
    names = ["run.toml"] if len(configs) == 1 else [f"run{number}.toml" for number in range(1, len(configs) + 1)]
    return [_recipe(name, *each, files) for name, each in zip(names, configs, strict=True)]


def method_section(method: Any) -> str:
    """Name of the section of a configuration file that describes a method, or its class name if there is none."""
    return next((name for name, cls in METHODS.items() if type(method) is cls), type(method).__name__)


def extraction(results: Sequence[Result], files: Mapping[str, str]) -> str:
    """Python lines that write the data of the first result to `DATA_FILE`, and its stream to `STREAM_FILE`."""
    stream = results[0].solution.problem.stream
    path = files.get(results[0].name, "result.nc")
    return (
        "import numpy as np, kernelfield as kf\n"
        f"problem = kf.load({json.dumps(path)}).problem\n"
        f'np.savez("{DATA_FILE}", X=problem.X, y=problem.y)'
        + ("" if stream is None else f'\nnp.savez("{STREAM_FILE}", X=problem.stream.X, y=problem.stream.y)')
    )


def file_versions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Versions of the libraries that wrote a result file.

    Args:
        path: of a NetCDF file that `kernelfield.load` reads.

    Returns:
        {library: version}.
    """
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf", decode_cf=False) as data:
        attributes = dict(data.attrs)
    ending = "_version"
    return {str(key).removesuffix(ending): str(value) for key, value in attributes.items() if str(key).endswith(ending)}


def _recipe(name: str, config: Config, members: Sequence[tuple[Result, str]], files: Mapping[str, str]) -> Recipe:
    if any(callable(value) for _, value in config.network):
        return Recipe(name, None, [], ["The activation is a custom function, which no configuration file can hold."])
    if callable(getattr(config.training, "schedule", None)):
        return Recipe(name, None, [], ["The schedule is a custom function, which no configuration file can hold."])
    out = Recipe(name, config.to_toml().strip() + "\n")
    for result, section in members:
        if section not in METHODS:
            out.notes.append(f"{section} has no section in configuration files.")
            continue
        target = shlex.quote(Path(files.get(result.name, f"{section}.nc")).name)
        how = "train" if section == "finite" else "solve"
        chosen = "" if section in ("finite", "march") else f" --method {section}"
        out.commands.append(f"kernelfield {how} {name} -o {target}{chosen}")
    return out


def _digits(problem: Problem) -> DigitsData | None:
    """The settings that make these data, if they are digits: the images are looked up, and the seed is tried."""
    sizes = [(pool, 8 // pool) for pool in (1, 2, 4)]
    shapes = {shape: pool for pool, side in sizes for shape in ((side * side,), (side, side, 1))}
    pool, classes = shapes.get(problem.X.shape[1:]), problem.outputs or 2
    if pool is None or problem.points % classes:
        return None
    from sklearn.datasets import load_digits  # lazy: takes a second to import

    table: Any = load_digits()
    known = _without_scale(pooled(table.images[:, None], pool))
    firsts = problem.X[:: problem.points // classes]
    apart = [np.abs(known - row).max(axis=1) for row in _without_scale(firsts)]
    found = tuple(int(table.target[each.argmin()]) for each in apart)
    if max(each.min() for each in apart) > SAME_IMAGE or len(set(found)) < len(found):
        return None
    shape = {"points": problem.points, "images": problem.X.ndim > 2, "pool": pool, "loss": problem.loss.name}
    for seed in (None, *range(SEEDS)):
        settings = DigitsData(classes=found, seed=seed, **shape)
        if _same(settings, problem):
            return settings
    return None


def _without_scale(pictures: np.ndarray) -> np.ndarray:
    """A row for each picture, of mean 0 and standard deviation 1: the same for all that differ in offset and scale."""
    rows = pictures.reshape(len(pictures), -1)
    scale = rows.std(axis=1, keepdims=True)
    return (rows - rows.mean(axis=1, keepdims=True)) / np.where(scale > 0, scale, 1.0)


def _gaussian(problem: Problem) -> GaussianData | None:
    if problem.X.ndim > 2 or problem.outputs is not None:
        return None
    for seed in range(max(1, min(SEEDS, MOST_TRIED // problem.X.size))):
        shape = {"points": problem.points, "dimensions": problem.dimensions, "loss": problem.loss.name}
        settings = GaussianData(source="gaussian", seed=seed, **shape)
        if _same(settings, problem):
            return settings
    return None


def _same(settings: Data, problem: Problem) -> bool:
    try:
        made = settings.problem(Path())
    except ValueError:
        return False
    return np.array_equal(made.X, problem.X) and np.array_equal(made.y, problem.y)
