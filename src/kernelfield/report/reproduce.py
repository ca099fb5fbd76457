"""How to run it again: configuration files that `kernelfield solve` and `kernelfield train` read, and the commands."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray
from scipy.spatial.distance import cdist

from kernelfield.datasets.built_in import load_digits
from kernelfield.datasets.images import pool_pixels
from kernelfield.datasets.specs import Data, DigitsData, GaussianData, TableData
from kernelfield.describe.architecture import Network
from kernelfield.describe.losses import LOSSES
from kernelfield.describe.problem import Problem
from kernelfield.files.config import METHODS, Config
from kernelfield.report.result import Result

SEEDS = 100  # of generators of data that are tried
MOST_TRIED = 2_000_000  # numbers drawn while trying them
SAME_IMAGE = 1e-12  # one minus the correlation of pixels
DATA_FILE, STREAM_FILE = "data.npz", "stream.npz"
ENDING = "_version"  # of attributes of a result file
SECTIONS: dict[type, str] = {method: section for section, method in METHODS.items()}  # of configuration files


@dataclass
class Recipe:
    """A configuration file with its shell commands, one for each result, and notes on what it leaves out."""

    name: str
    toml: str | None  # None if no file can describe the run
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """The sections of a configuration file that make the data, and a sentence on how that is known, or what to do."""

    data: Data
    sentence: str
    known: bool  # the section makes the data by itself; otherwise it reads `DATA_FILE`
    stream: Data | None = None


def find_source(problem: Problem) -> Source:
    """Returns the configuration that makes the data of a problem.

    Solutions hold inputs and targets, not where they came from. The built-in data sets are made again and compared,
    bit for bit; other data are read from a file that has to be written first.
    """
    sizes = (" x ".join(map(str, array.shape)) for array in (problem.X, problem.y))
    shape = "inputs X {} and targets y {}".format(*sizes)
    equal, loss, streams = len(np.unique(problem.weights)) == 1, problem.loss.name, problem.stream is not None
    known = LOSSES.get(loss) == problem.loss
    section = (_find_digits(problem) or _find_gaussian(problem)) if equal and known and not streams else None
    if section is not None:
        name = "scikit-learn's digits" if isinstance(section, DigitsData) else "the built-in Gaussian data"
        sentence = f"The data were recognized as {name}: made again from the section [data], they agree in every bit."
        return Source(section, sentence, True)
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


def write_recipes(results: Sequence[Result], source: Source, files: Mapping[str, str]) -> list[Recipe]:
    """Returns configuration files for all results: one, unless their networks, training or methods' settings differ."""
    configs: list[tuple[Config, list[tuple[Result, str]]]] = []
    for result in results:
        if result.solution.info.get("recorded"):  # elsewhere, by another library
            continue
        solution, kind = result.solution, type(result.solution.method)
        section = SECTIONS.get(kind, kind.__name__)
        for config, members in configs:
            same = (config.network, config.training) == (solution.network, solution.training)
            if same and config.methods.get(section, solution.method) == solution.method:
                members.append((result, section))
                break
        else:
            config = Config(source.data, solution.network, solution.training, {}, stream=source.stream)
            configs.append((config, [(result, section)]))
        if section in METHODS:
            config.methods[section] = solution.method  # type: ignore[index]
    names = ["run.toml"] if len(configs) == 1 else [f"run{number}.toml" for number in range(1, len(configs) + 1)]
    return [_write_recipe(name, *config, files) for name, config in zip(names, configs, strict=True)]


def write_extraction(main: Result, files: Mapping[str, str]) -> str:
    """Returns Python lines that write the data of a result to `DATA_FILE`, and its stream to `STREAM_FILE`."""
    lines = [
        "import numpy as np, kernelfield as kf",
        f"problem = kf.load({json.dumps(files.get(main.name, 'result.nc'))}).problem",
        f'np.savez("{DATA_FILE}", X=problem.X, y=problem.y)',
    ]
    if main.solution.problem.stream is not None:
        lines.append(f'np.savez("{STREAM_FILE}", X=problem.stream.X, y=problem.stream.y)')
    return "\n".join(lines)


def file_versions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the versions of the libraries that wrote a result file, by their names."""
    with xarray.open_dataset(path, engine="h5netcdf", decode_cf=False) as data:
        attributes = {str(key): str(value) for key, value in data.attrs.items()}
    return {key.removesuffix(ENDING): value for key, value in attributes.items() if key.endswith(ENDING)}


def _write_recipe(name: str, config: Config, members: Sequence[tuple[Result, str]], files: Mapping[str, str]) -> Recipe:
    if isinstance(config.network, Network):
        return Recipe(name, None, [], ["The network is made of layers, which no configuration file can hold."])
    if any(callable(value) for _, value in config.network):
        return Recipe(name, None, [], ["The activation is a custom function, which no configuration file can hold."])
    if callable(getattr(config.training, "schedule", None)):
        return Recipe(name, None, [], ["The schedule is a custom function, which no configuration file can hold."])
    recipe = Recipe(name, config.to_toml().strip() + "\n")
    for result, section in members:
        if section not in METHODS:
            recipe.notes.append(f"{section} has no section in configuration files.")
            continue
        target = shlex.quote(Path(files.get(result.name, f"{section}.nc")).name)
        command = "train" if section == "finite" else "solve"
        option = "" if section in ("finite", "march") else f" --method {section}"
        recipe.commands.append(f"kernelfield {command} {name} -o {target}{option}")
    return recipe


def _find_digits(problem: Problem) -> Data | None:
    """Returns the settings that make these data, if they are digits: it looks the images up, and tries the seed."""
    pool, classes = {64: 1, 16: 2, 4: 4}.get(problem.dimensions), max(problem.outputs, 2)  # of 8 x 8 pixels
    if pool is None or problem.points % classes:
        return None
    pictures, digits = load_digits()
    images = pool_pixels(pictures[:, None], pool).reshape(len(pictures), -1)
    firsts = problem.X[:: problem.points // classes].reshape(classes, -1)
    distances = cdist(firsts, images, "correlation")  # it forgets offset and scale
    if not (distances.min(axis=1) < SAME_IMAGE).all():
        return None
    labels = tuple(digits[distances.argmin(axis=1)].tolist())
    shape = {"points": problem.points, "images": problem.X.ndim > 2, "pool": pool, "loss": problem.loss.name}
    return _find_match(problem, (DigitsData(classes=labels, seed=seed, **shape) for seed in (None, *range(SEEDS))))


def _find_gaussian(problem: Problem) -> Data | None:
    if problem.X.ndim > 2 or problem.outputs > 1:
        return None
    seeds = range(max(1, min(SEEDS, MOST_TRIED // problem.X.size)))
    shape = {"points": problem.points, "dimensions": problem.dimensions, "loss": problem.loss.name}
    return _find_match(problem, (GaussianData(source="gaussian", seed=seed, **shape) for seed in seeds))


def _find_match(problem: Problem, sections: Iterable[Data]) -> Data | None:
    """Returns the first section that makes the inputs and targets of a problem, bit for bit."""
    for section in sections:
        with suppress(ValueError):
            other = section.problem(Path())
            if np.array_equal(other.X, problem.X) and np.array_equal(other.y, problem.y):
                return section
    return None
