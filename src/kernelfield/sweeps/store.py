"""A grid on disk: one labelled dataset in zarr format, with a chunk of every variable for every point.

Only the process that runs the sweep writes. Every file appears whole or not at all, and the status of a point after
everything else of it: a point without a status is not there. While a sweep runs, a lock on its folder keeps others
out; it ends with the process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from kernelfield.common.atomic_files import whole_file
from kernelfield.common.progress import bar
from kernelfield.describe.run import differences
from kernelfield.files.dataset import settings_json
from kernelfield.sweeps.axes import Grid, Index
from kernelfield.sweeps.variables import DIMENSIONS, VARIABLES, Record, dimension_sizes, pad

FORMAT, SCHEMA = "kernelfield.Grid", 1


def import_extra(library: str) -> Any:
    """Returns a library of the extra "cluster"; raises ImportError with advice if it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise ImportError(f'a sweep needs {library}: pip install "kernelfield[cluster]"') from None


class SweepError(RuntimeError):
    """A sweep that cannot go on. The points that were written are kept, and the same call does the others."""


class Store:
    """The dataset of a sweep, which `create` made at a path, open for writing."""

    def __init__(self, path: Path) -> None:
        group = import_extra("zarr").open_group(path, mode="r+")
        self.path, self.arrays = path, {name: group[name] for name in VARIABLES if name in group}

    @property
    def status(self) -> np.ndarray:
        """The status of every point, an empty text where it is not done."""
        return np.asarray(self.arrays["status"][...])

    def write(self, index: Index, record: Record) -> None:
        """Writes the record of a point, its status last; raises SweepError if the disk is full or read-only."""
        try:
            self.arrays["status"][index] = ""
            for name in self.arrays:
                self._write(name, index, record.get(name))
        except OSError as error:
            raise SweepError(f"{self.path} cannot be written to: {error.strerror}") from None

    def _write(self, name: str, index: Index, values: Any) -> None:
        array = self.arrays[name]
        if VARIABLES[name].text:
            array[index] = values or ""
        else:
            array[index] = pad(np.nan if values is None else values, array.shape[len(index) :])


def create(path: Path, grid: Grid) -> None:
    """Makes the folder of a sweep without any point, the whole of it or nothing; raises CannotWrite if it cannot."""
    zarr, sizes = import_extra("zarr"), dimension_sizes(grid.runs.values())
    names = tuple(axis.name for axis in grid.axes)
    coordinates = {axis.name: (axis.coordinate, f"{axis.key} of [{axis.section}]") for axis in grid.axes}
    for name, size in sizes.items():
        coordinates[name] = np.arange(size) + (name == "layer"), DIMENSIONS[name]
    with whole_file(path) as temporary:
        group = zarr.create_group(temporary, attributes=_attributes(grid))
        for name, (values, about) in coordinates.items():
            attributes = {"long_name": about, "units": "1"}
            group.create_array(name, data=values, dimension_names=(name,), attributes=attributes)
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


def _attributes(grid: Grid) -> dict[str, Any]:
    """Returns the attributes of the dataset; raises ValueError for settings that no text can describe."""
    config = next(iter(grid.configs.values()))
    for spec in (config.network, config.training):
        settings_json(spec)
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "method": grid.method,
        "grid": json.dumps({f"{axis.section}.{axis.key}": axis.values for axis in grid.axes}),
        "config": config.to_toml(),
        "data_sha256": grid.data_sha256,
        **{f"{name}_version": version(name) for name in ("kernelfield", "jax", "numpy", "zarr")},
    }


def check_same(path: Path, grid: Grid) -> None:
    """Raises ValueError, which names what differs, if a folder holds a sweep of another grid or configuration."""
    for difference in differences(_settings(_read_attributes(path)), _settings(_attributes(grid))):
        raise ValueError(f"{path} holds another sweep ({difference}): give another folder")


def _settings(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns what two sweeps in the same folder must have in common, from their attributes."""
    grid = {key: ",".join(map(str, values)) for key, values in json.loads(attributes["grid"]).items()}
    sections, digest = tomllib.loads(attributes["config"]), attributes["data_sha256"][:16]
    return {"method": attributes["method"], "grid": grid, **sections, "digest of the data": digest}


def _read_attributes(path: Path) -> dict[str, Any]:
    """Returns the attributes of the dataset of a sweep; raises an error if the folder holds none."""
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
def lock(path: Path) -> Iterator[None]:
    """Locks the folder of a sweep, which one process at a time may write into; raises ValueError if it may not."""
    import fcntl

    if not os.access(path, os.W_OK):
        raise ValueError(f"the folder {path} cannot be written to")
    with open(path / "status" / ".lock", "w") as file:  # in the folder of an array, whose files no reader lists
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another sweep is running in {path}: wait for it, or give another folder") from None
        for partial in path.rglob("*.partial"):  # of a process that was killed while it wrote
            partial.unlink(missing_ok=True)
        yield


def read(path: str | os.PathLike[str]) -> xarray.Dataset:
    """Returns the dataset of a sweep with the points that are done; at any time, also while the sweep runs.

    Args:
        path: of the folder that `kernelfield sweep` or `kernelfield.sweep_grid` wrote.

    Returns:
        xarray.Dataset: a dimension for each key of the grid, with its values as coordinate, and step, layer, sample
        and, of several outputs, output. Numbers are NaN, and texts empty, where a point is not done or has no value.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not of a sweep.
    """
    path = Path(path)
    import_extra("zarr")
    _read_attributes(path)

    data = xarray.open_dataset(path, engine="zarr", consolidated=False, chunks=None, cache=False)
    before = data["status"].compute()  # reads, and leaves the status in the dataset to be read again
    with bar("reading the sweep") as report:
        for number, variable in enumerate(data.variables.values(), start=1):
            variable.load()
            report(number, len(data.variables))
    is_whole = (before != "") & (before == data["status"])
    texts = {name: data[name].astype(object).where(is_whole, "") for name in VARIABLES if VARIABLES[name].text}
    return data.drop_vars(texts).where(is_whole).assign(texts)
