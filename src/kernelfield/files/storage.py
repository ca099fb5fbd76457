"""Solution <-> xarray.Dataset <-> NetCDF: everything needed to look at a run again, bit for bit.

Kernels stay factorised: `Phi_factor_l` is F (replicate, time, sample, feature_rank_l) and
Phi^l[t, mu; s, nu] = sum_k F[t, mu, k] F[s, nu, k]; `G_factor_l` likewise. An axis of length one where
nothing depends on replicate or time is named `any_replicate` or `any_time`. Kernels that are power series in
gamma0 also have `Phi_weight_l` (order, feature_rank_l), see `FactorKernel`; files of schema 1 have none.
Factors of long runs are kept as modes in time, see `TimeModes`: then `Phi_factor_l` is B (replicate, feature_mode_l,
sample, feature_rank_l), and `Phi_time_l` is C. Files of schemas 1 and 2 have no modes, and no weights
of samples: all are equal. `NTK` (replicate, time, sample, sample_prime) is there where the factors do not give it,
from schema 4 on.

With several outputs, from schema 5 on, targets and predictions have a last dimension `output`, and gradients of every
output have `sample_output` in place of `sample`, rows (sample, output) with the outputs of a sample side by side. The
attribute `loss` names the loss; files of schemas 1 to 4 have none: it is "mse". The stream of a problem, where there is
one, is in `X_stream` and `y_stream`, from schema 6 on. What predicts at new points, if it was saved, is in the group
`predictor`: arrays of the method, as it left them. Kernels that were kept at some steps alone have `kernel_step` in
place of `time`, from schema 7 on. Gradient fields of every output, in files of schema 5 and 6, are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Hashable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.common.atomic_files import reason, whole_file
from kernelfield.common.settings import Spec, spec_class
from kernelfield.describe.losses import LOSSES
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.layers import Sequential
from kernelfield.solution.kernel import FactorKernel, Kernel, Key, RecordedKernel, Symbol
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.solution.time_modes import Factor, TimeModes

if TYPE_CHECKING:
    import xarray

FORMAT, SCHEMA = "kernelfield.Solution", 7
RETIRED = ("feature_tol", "gradient_tol", "save_at")  # settings of methods on particles, before `tol`
PREDICTOR = "predictor"  # group of what is left to predict with, which readers may ignore
HEADERS = 2**20  # bytes of a file beside its arrays, at most
NAMES = {"Phi": "feature", "G": "gradient"}
FIELDS = {"h": "preactivation", "z": "pregradient", "g": "gradient phi'(h) z"}
INPUT_DIMS = {
    2: ("sample", "dimension"),
    3: ("sample", "position", "channel"),
    4: ("sample", "row", "column", "channel"),
}
OUTPUT_DIMS = {1: (), 2: ("output",)}  # of targets
_FACTOR_NAME = re.compile(r"(Phi|G)_factor_(\d+)")
_FIELD_NAME = re.compile(r"([a-z]+)_layer(\d+)_step(\d+)")


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
    path = Path(path)
    data = to_dataset(solution)
    check_folder(path)
    encoding = {str(name): {"_FillValue": None} for name in data.variables}
    arrays = solution.kept_predictor.arrays() if predictor else {}
    size = data.nbytes + sum(each.nbytes for each in arrays.values()) + HEADERS
    with whole_file(path, size) as beside:  # HDF5 does not get over a disk that is full
        data.to_netcdf(beside, engine="h5netcdf", encoding=encoding)
        if arrays:
            _append(beside, arrays)


def load(path: str | os.PathLike[str]) -> Solution:
    """Read the Solution that `save` wrote.

    Args:
        path: of the file.

    Returns:
        The Solution, its arrays, settings, status and info as they were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another format or of another schema.
    """
    import xarray

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        data = xarray.load_dataset(path, engine="h5netcdf", decode_cf=False)
    except Exception:  # every reader below has its own exceptions for a file it cannot read
        raise ValueError(f"{path} is not a NetCDF file, or is damaged") from None
    if data.attrs.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by kernelfield")
    if data.attrs.get("schema") not in range(1, SCHEMA + 1):
        raise ValueError(f"{path} has schema {data.attrs.get('schema')}; this version reads schemas 1 to {SCHEMA}")
    try:
        solution, arrays = from_dataset(data), _appended(path)
        if not arrays:
            return solution
        method: Any = solution.method
        return replace(solution, predictor=method.restored_predictor(solution.run, solution.info, arrays))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error} is missing or of the wrong kind") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be restored: {error}") from None


def _append(netcdf: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any type into a group of the file."""
    import h5py

    with h5py.File(netcdf, "a") as file:
        group = file.create_group(PREDICTOR)
        for name, values in arrays.items():
            group.create_dataset(name, data=values.astype(np.int8) if values.dtype == bool else values)


def _appended(path: Path) -> dict[str, np.ndarray]:
    """What `_append` wrote; nothing if it did not."""
    import h5py

    with h5py.File(path, "r") as file:
        group: Any = file.get(PREDICTOR, {})
        return {name: values[()] for name, values in group.items()}


def to_dataset(solution: Solution) -> xarray.Dataset:
    """The Solution as an xarray.Dataset with named dimensions, units and the settings in its attributes.

    Args:
        solution: what to convert.

    Returns:
        xarray.Dataset, with dimensions replicate, time, sample, dimension, feature_rank_l, gradient_rank_l
        and neuron_l; of several outputs also output and sample_output.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored.
    """
    import xarray

    outputs = OUTPUT_DIMS[solution.problem.y.ndim]
    variables: dict[str, Any] = {
        "X": _variable(INPUT_DIMS[solution.problem.X.ndim], solution.problem.X, "inputs"),
        "y": _variable(("sample", *outputs), solution.problem.y, "targets"),
        "weights": _variable(("sample",), solution.problem.weights, "weights of samples in the loss, their sum is one"),
        "predictions": _variable(
            ("replicate", "time", "sample", *outputs),
            solution.replicate_predictions,
            "network output f, of replicates",
        ),
    }
    if (stream := solution.problem.stream) is not None:
        each = ("stream_sample", *INPUT_DIMS[stream.X.ndim][1:])
        variables["X_stream"] = _variable(each, stream.X, "inputs of the stream")
        variables["y_stream"] = _variable(("stream_sample", *outputs), stream.y, "targets of the stream")
    variables |= _kernel_variables(solution) | _field_variables(solution)
    times = {
        "time": _variable(("time",), solution.times, "training time, the sum of learning rates so far"),
        **_kept_steps(solution),
        "step": _variable(("time",), np.arange(solution.steps_done + 1), about_steps(solution), "steps"),
    }
    return xarray.Dataset(variables, times, attributes(solution))


def _kept_steps(solution: Solution) -> dict[str, Any]:
    """The steps that kernels were kept at, if not at all."""
    steps = next((kernel.steps for kernel in solution.kernels.values() if kernel.steps is not None), None)
    return {} if steps is None else {"kernel_step": _variable(("kernel_step",), steps, "steps of kernels", "steps")}


def _kernel_variables(solution: Solution) -> dict[str, Any]:
    """Factors, their modes in time and weights, and recorded kernels."""
    variables: dict[str, Any] = {}
    for (symbol, layer), kernel in solution.kernels.items():
        rows = (
            "sample"
            if (kernel.outputs == 1 and solution.problem.outputs is None) or symbol == "Phi"
            else "sample_output"
        )
        time = "any_time" if kernel.rests else "time" if kernel.steps is None else "kernel_step"
        if isinstance(kernel, RecordedKernel):
            dims = (_replicates(solution, len(kernel.values)), time, rows, f"{rows}_prime")
            variables[symbol] = _variable(dims, kernel.values, "neural tangent kernel at equal times")
            continue
        assert isinstance(kernel, FactorKernel)
        kind, factor = NAMES[symbol], kernel.factor
        name = f"factor F of the {kind} kernel of layer {layer}, {symbol}(t, s) = F(t) F(s)^T"
        rank, leading = f"{kind}_rank_{layer}", (_replicates(solution, factor.shape[0]), time)
        if isinstance(factor, TimeModes):
            about, mode = f"C of modes B, F(t) = sum_m C[t, m] B[m], of {name}", f"{kind}_mode_{layer}"
            variables[f"{symbol}_time_{layer}"] = _variable((*leading, mode), factor.in_time, about)
            factor, name, leading = factor.modes, f"modes B of {name}", (leading[0], mode)
        variables[f"{symbol}_factor_{layer}"] = _variable((*leading, rows, rank), factor, name)
        if kernel.weights is not None:
            name = f"weights w_n of the terms F diag(w_n) F^T of the {kind} kernel of layer {layer}"
            variables[f"{symbol}_weight_{layer}"] = _variable(("order", rank), kernel.weights, name)
    return variables


def _field_variables(solution: Solution) -> dict[str, Any]:
    """Samples of the activation distributions."""
    variables: dict[str, Any] = {}
    for (layer, step), recorded in solution.field_samples.items():
        for name, values in recorded.items():
            dims = (_replicates(solution, len(values)), "sample", f"neuron_{layer}")
            about = f"{FIELDS.get(name, name)} of layer {layer} at step {step}"
            variables[f"{name}_layer{layer}_step{step}"] = _variable(dims, values, about)
    return variables


def _replicates(solution: Solution, count: int) -> str:
    return "replicate" if count == len(solution.replicate_predictions) else "any_replicate"


def from_dataset(data: xarray.Dataset) -> Solution:
    """The Solution that `to_dataset` converted.

    Args:
        data: the Dataset.

    Returns:
        The Solution.

    Raises:
        ValueError: for settings of a kind that this version does not know.
        KeyError: for a variable or attribute that is missing.
    """
    fields: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for variable in data.data_vars:
        if match := _FIELD_NAME.fullmatch(str(variable)):
            name, layer, step = match.groups()
            if "sample_output" not in data[variable].dims:
                fields.setdefault((int(layer), int(step)), {})[name] = data[variable].values
    settings = json.loads(data.attrs["settings"])
    problem = Problem(
        *(data[name].values for name in ("X", "y", "weights") if name in data),
        loss=data.attrs.get("loss", "mse"),
        stream=(data["X_stream"].values, data["y_stream"].values) if "X_stream" in data else None,
    )
    network, training, method = (_restored(settings[part]) for part in ("network", "training", "method"))
    kept = tuple(data["kernel_step"].values.tolist()) if "kernel_step" in data.variables else None
    return Solution(
        run=Run(network, problem, training, method, kept, tuple(sorted({step for _, step in fields}))),
        replicate_predictions=data["predictions"].values,
        kernels=_kernels(data, problem),
        field_samples=fields,
        exact=json.loads(data.attrs["exact"]),
        status=Status(data.attrs["status"], data.attrs["status_message"]),
        info=json.loads(data.attrs["info"]),
    )


def _kernels(data: xarray.Dataset, problem: Problem) -> dict[Key, Kernel]:
    """Kernels by symbol and layer; those of input and output are known."""
    found: dict[Key, Kernel] = {}
    for variable in map(str, data.data_vars):
        match = _FACTOR_NAME.fullmatch(variable)
        if match is None and variable != "NTK":
            continue
        dims = data[variable].dims
        outputs = (problem.outputs or 1) if "sample_output" in dims else 1
        if match is None:
            steps = _steps(data, dims)
            found["NTK", None] = RecordedKernel(data["NTK"].values, outputs, steps)
            continue
        symbol: Symbol = "Phi" if match[1] == "Phi" else "G"
        layer = int(match[2])
        factor: Factor = data[variable].values
        if (times := f"{symbol}_time_{layer}") in data:
            factor, dims = TimeModes(data[times].values, data[variable].values), data[times].dims
        weights = data[name].values if (name := f"{symbol}_weight_{layer}") in data else None
        is_input_or_output = layer == 0 or (symbol == "G" and f"G_factor_{layer + 1}" not in data)
        found[symbol, layer] = FactorKernel(factor, outputs, _steps(data, dims), is_input_or_output, weights)
    return found


def _steps(data: xarray.Dataset, dims: tuple[Hashable, ...]) -> tuple[int, ...] | None:
    return tuple(data["kernel_step"].values.tolist()) if "kernel_step" in dims else None


def settings_json(spec: Any) -> dict[str, Any]:
    """Class name and values of a settings object, as JSON can hold them.

    Args:
        spec: network, training or method.

    Returns:
        {"class": name, **values}.

    Raises:
        ValueError: if a value is a custom function, or the network one of custom layers.
    """
    for name, value in spec:
        if isinstance(value, Sequential):
            raise ValueError(
                "a Network of custom layers cannot be stored: save the arrays you need, or use MLP, CNN or ResNet"
            )
        if callable(value):
            known = "list its values" if name == "schedule" else "use an activation known by name"
            raise ValueError(_not_stored(name, known))
    return {"class": type(spec).__name__, **spec.model_dump(mode="json")}


def loss_name(problem: Problem) -> str:
    """Name of the loss of a problem.

    Args:
        problem: whose loss.

    Raises:
        ValueError: it is a custom function.
    """
    if LOSSES.get(problem.loss.name) != problem.loss:
        raise ValueError(_not_stored("loss", f"use one of {', '.join(LOSSES)}"))
    return problem.loss.name


def about_steps(solution: Solution) -> str:
    """What the steps of a Solution count."""
    return f"number of {solution.training.unit}s before this row"


def _not_stored(name: str, otherwise: str) -> str:
    return f"{name} is a custom function, which cannot be stored: save the arrays you need, or {otherwise}"


def check_folder(path: Path) -> None:
    """Raise FileNotFoundError or ValueError if no file can be written at `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for {path.name} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"the folder {path.parent} cannot be written to: {reason(error)}") from None


def _variable(dims: tuple[str, ...], values: Any, long_name: str, units: str = "1") -> tuple:
    return dims, np.asarray(values), {"long_name": long_name, "units": units}


def attributes(solution: Solution) -> dict[str, Any]:
    """Settings, status and versions, as attributes of a file can hold them.

    Args:
        solution: what is described.

    Returns:
        Texts and numbers by name.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored.
    """
    parts = {"network": solution.network, "training": solution.training, "method": solution.method}
    libraries = {f"{name}_version": _version(name) for name in ("kernelfield", "jax", "numpy")}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "settings": json.dumps({name: settings_json(spec) for name, spec in parts.items()}),
        "loss": loss_name(solution.problem),
        "seed": getattr(solution.method, "seed", -1),
        "exact": json.dumps(bool(solution.exact)),
        "status": solution.status.code,
        "status_message": solution.status.message,
        "info": json.dumps(dict(solution.info), default=_plain),
        **libraries,
    }


def _version(name: str) -> str:
    with contextlib.suppress(Exception):
        return version(name)
    return "unknown"


def _plain(value: Any) -> Any:
    """NumPy values and mappings as JSON can hold them."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"info holds a {type(value).__name__}, which cannot be stored")


def _restored(settings: dict[str, Any]) -> Any:
    values = dict(settings)
    cls: type[Spec] = spec_class(values.pop("class"))
    if cls is GradientDescent and values.pop("batch", None) is not None:  # of schemas 1 to 4
        raise ValueError("it was trained by GradientDescent(batch=...), which is SGD now: solve it again")
    if cls is GradientDescent:
        values.pop("seed", None)
    for setting in RETIRED:
        values.pop(setting, None)
    return cls(**values)
