"""Solution <-> NetCDF files: the whole file or nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from kernelfield.common.atomic_files import check_file, check_folder, whole_file
from kernelfield.files.dataset import FORMAT, SCHEMA, from_dataset, to_dataset
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution

PREDICTOR = "predictor"  # the group of a file that predicts, which readers may ignore
HEADERS = 2**20  # bytes of a file beside its arrays, at most


def save(solution: Solution, path: str | os.PathLike[str], predictor: bool = False) -> None:
    """Write a Solution to a NetCDF file: the whole file or nothing.

    Args:
        solution: what to write.
        path: of the file; an existing one is replaced.
        predictor: also what `Solution.predict` needs, which may be hundreds of megabytes.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored, or a method that does not
            predict; nothing was written.
        FileNotFoundError: the folder does not exist.
        CannotWrite: the disk is full, or the folder cannot be written to; an existing file is as it was.

    Example:
        >>> import tempfile, numpy as np, kernelfield as kf
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0]),
        ...                     kf.GradientDescent(learning_rate=0.1, steps=3), progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     solution.save(folder + "/run.nc")
        ...     kf.load(folder + "/run.nc").loss.tolist() == solution.loss.tolist()
        True
    """
    import h5py

    path = Path(path)
    data = to_dataset(solution)
    check_folder(path)
    encoding = {str(name): {"_FillValue": None} for name in data.variables}
    arrays = solution.kept_predictor.arrays() if predictor else {}
    size = data.nbytes + sum(array.nbytes for array in arrays.values()) + HEADERS
    with whole_file(path, size) as beside:  # HDF5 does not get over a disk that is full
        data.to_netcdf(beside, engine="h5netcdf", encoding=encoding)
        if arrays:
            with h5py.File(beside, "a") as file:
                group = file.create_group(PREDICTOR)
                for name, values in arrays.items():
                    group.create_dataset(name, data=values.astype(np.int8) if values.dtype == bool else values)


def load(path: str | os.PathLike[str]) -> Solution:
    """Returns the Solution that `save` wrote, its arrays, settings, status and info as they were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another format or of another schema.
    """
    import h5py
    import xarray

    path = Path(path)
    check_file(path)
    try:
        data = xarray.load_dataset(path, engine="h5netcdf", decode_cf=False)
    except Exception:  # every reader below has its own exceptions for a file it cannot read
        raise ValueError(f"{path} is not a NetCDF file, or is damaged") from None
    if data.attrs.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by kernelfield")
    if data.attrs.get("schema") not in range(1, SCHEMA + 1):
        raise ValueError(f"{path} has schema {data.attrs.get('schema')}; this version reads schemas 1 to {SCHEMA}")
    try:
        solution = from_dataset(data)
        with h5py.File(path, "r") as file:
            group: Any = file.get(PREDICTOR, {})
            arrays = {name: values[()] for name, values in group.items()}
        if not arrays:
            return solution
        method = cast(Method, solution.method)
        return replace(solution, predictor=method.restored_predictor(solution.run, solution.info, arrays))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error} is missing or of the wrong kind") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be restored: {error}") from None
