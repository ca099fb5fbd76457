"""A grid on disk: one labelled dataset in zarr format, a chunk of every variable for every point.

Only the process that runs the sweep writes. Every file appears whole or not at all, and the status of a point after
everything else of it: a point without a status is not there. While a sweep runs its folder is locked, by a lock that
ends with the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.common.progress import bar
from kernelfield.files.storage import settings_json
from kernelfield.sweeps.axes import Grid, Index
from kernelfield.sweeps.variables import DIMENSIONS, VARIABLES, Record, padded, sizes_of

if TYPE_CHECKING:
    import xarray

FORMAT, SCHEMA = "kernelfield.Grid", 1


def needs(library: str) -> Any:
    """A module of the extra "cluster".

    Args:
        library: "zarr" or "distributed".

    Raises:
        ImportError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError:
        raise ImportError(f'a sweep needs {library}: pip install "kernelfield[cluster]"') from None


class SweepError(RuntimeError):
    """A sweep that cannot go on. The points that were written are kept, and the same call does the others."""


class Store:
    """The dataset of a sweep, open for writing.

    Args:
        path: of the folder, which `create` made.
    """

    def __init__(self, path: Path) -> None:
        group = needs("zarr").open_group(path, mode="r+")
        self.path, self.arrays = path, {name: group[name] for name in VARIABLES if name in group}

    @property
    def status(self) -> np.ndarray:
        """Status of every point, an empty text where it is not done."""
        return np.asarray(self.arrays["status"][...])

    def write(self, index: Index, record: Record) -> None:
        """Write a point, its status last.

        Args:
            index: of the point.
            record: its values; what is missing is NaN.

        Raises:
            SweepError: the disk is full, or cannot be written to.
        """
        names = [*(name for name in self.arrays if name != "status"), "status"]
        try:
            self.arrays["status"][index] = ""
            for name in names:
                self._write(name, index, record.get(name))
        except OSError as error:
            raise SweepError(f"{self.path} cannot be written to: {error.strerror}") from None

    def _write(self, name: str, index: Index, values: Any) -> None:
        array = self.arrays[name]
        if VARIABLES[name].text:
            array[index] = values or ""
        else:
            array[index] = padded(np.nan if values is None else values, array.shape[len(index) :])


def create(path: Path, grid: Grid) -> None:
    """Make the folder of a sweep, without any point; the whole of it or nothing.

    Args:
        path: of the folder, which does not exist.
        grid: what it is for.

    Raises:
        OSError: it cannot be written.
    """
    zarr, sizes = needs("zarr"), sizes_of(grid.runs.values())
    names = tuple(axis.name for axis in grid.axes)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        group = zarr.create_group(beside, attributes=_attributes(grid))
        for axis in grid.axes:
            about = {"long_name": f"{axis.key} of [{axis.section}]", "units": "1"}
            group.create_array(axis.name, data=axis.coordinate, dimension_names=(axis.name,), attributes=about)
        for name, length in sizes.items():
            first = np.arange(length) + (name == "layer")
            about = {"long_name": DIMENSIONS[name], "units": "1"}
            group.create_array(name, data=first, dimension_names=(name,), attributes=about)
        for name, variable in VARIABLES.items():
            dims = tuple(dim for dim in variable.dims if dim in sizes)
            lengths = tuple(sizes[dim] for dim in dims)
            group.create_array(
                name,
                shape=(*grid.shape, *lengths),
                chunks=(*(1 for _ in grid.shape), *lengths),
                dtype="str" if variable.text else "float64",
                fill_value="" if variable.text else np.nan,
                compressors=None,  # chunks are small
                dimension_names=(*names, *dims),
                attributes={"long_name": variable.about} | ({} if variable.text else {"units": variable.units}),
            )
        os.rename(beside, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written to: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _attributes(grid: Grid) -> dict[str, Any]:
    config = next(iter(grid.configs.values()))
    for spec in (config.network, config.training):
        settings_json(spec)  # which raises an error for what no text can describe
    libraries = {f"{name}_version": version(name) for name in ("kernelfield", "jax", "numpy", "zarr")}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "method": grid.method,
        "grid": json.dumps(grid.values),
        "config": config.to_toml(),
        "data_sha256": grid.data_sha256,
        **libraries,
    }


def check_same(path: Path, grid: Grid) -> None:
    """Raise if the folder of a sweep is of another grid or configuration.

    Args:
        path: of the folder.
        grid: that is to go on in it.

    Raises:
        ValueError: naming what differs.
    """
    there, here = _read_attributes(path), _attributes(grid)
    for name in ("method", "grid"):
        if there[name] != here[name]:
            raise ValueError(_differs(path, name, _shown(there[name]), _shown(here[name])))
    theirs, ours = (tomllib.loads(each["config"]) for each in (there, here))
    for section in dict.fromkeys((*theirs, *ours)):
        first, second = theirs.get(section, {}), ours.get(section, {})
        for key in dict.fromkeys((*first, *second)):
            if first.get(key) != second.get(key):
                raise ValueError(_differs(path, f"[{section}] {key}", first.get(key), second.get(key)))
    if there["data_sha256"] != here["data_sha256"]:
        raise ValueError(f"{path} holds a sweep of other data: give another folder")


def _differs(path: Path, name: str, there: Any, here: Any) -> str:
    return f"{path} holds another sweep, whose {name} is {there}, not {here}: give another folder"


def _shown(text: str) -> str:
    """A grid as it would be typed."""
    try:
        keys = json.loads(text)
    except json.JSONDecodeError:
        return text
    return " ".join(f"{key}={','.join(map(str, values))}" for key, values in keys.items())


def points_done(path: Path) -> int:
    """How many points of a sweep have a status.

    Args:
        path: of the folder.
    """
    return int((needs("zarr").open_array(path / "status", mode="r")[...] != "").sum())


def _read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the dataset of a sweep."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        attributes = dict(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a folder that kernelfield sweep wrote, or is damaged") from None
    if attributes.get("format") != FORMAT or attributes.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a sweep of this version of kernelfield")
    return attributes


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The right to write into the folder of a sweep, which one process has at a time.

    Args:
        path: of the folder.

    Raises:
        ValueError: another process has it, or the folder cannot be written to.
    """
    import fcntl

    if not os.access(path, os.W_OK):
        raise ValueError(f"the folder {path} cannot be written to")
    with open(path / "status" / ".lock", "w") as file:  # in the folder of an array, whose files no reader lists
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another sweep is running in {path}: wait for it, or give another folder") from None
        for left_over in path.rglob("*.partial"):  # of a process that was killed while it wrote
            left_over.unlink(missing_ok=True)
        yield


def read(path: str | os.PathLike[str]) -> xarray.Dataset:
    """The dataset of a sweep, of the points that are done; at any time, also while the sweep runs.

    Args:
        path: of the folder that `kernelfield sweep` or `kernelfield.sweep_grid` wrote.

    Returns:
        xarray.Dataset: a dimension for each key of the grid, with its values as coordinate, and step, layer, sample
        and, of several outputs, output. Numbers are NaN, and texts empty, where a point is not done or has no value.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not of a sweep.
    """
    import xarray

    path, status = Path(path), "status"
    needs("zarr")
    _read_attributes(path)

    def opened() -> xarray.Dataset:
        return xarray.open_dataset(path, engine="zarr", consolidated=False, chunks=None, cache=False)

    before, data = opened()[status].load(), opened()
    with bar("reading the sweep") as report:
        for number, variable in enumerate(data.variables.values(), start=1):
            variable.load()
            report(number, len(data.variables))
    whole = (before != "") & (before == data[status])
    texts = {name: data[name].astype(object).where(whole, "") for name in VARIABLES if VARIABLES[name].text}
    return data.drop_vars(texts).where(whole).assign(texts)
