"""Solution <-> xarray.Dataset, as files hold it: everything needed to look at a run again, bit for bit.

Kernels stay factorised: `Phi_factor_l` is F (replicate, time, sample, feature_rank_l) and
Phi^l[t, mu; s, nu] = sum_k F[t, mu, k] F[s, nu, k]; `G_factor_l` likewise. An axis of length one is named
`any_replicate` or `any_time` where nothing depends on it. Power series in gamma0 also have `Phi_weight_l` (order,
feature_rank_l), see `FactorKernel`. Factors of long runs are modes in time, see `TimeModes`: then `Phi_factor_l` is
B (replicate, feature_mode_l, sample, feature_rank_l), and `Phi_time_l` is C. With several outputs, targets and
predictions have a last dimension `output`, and gradients `sample_output` in place of `sample`: rows (sample, output)
with the outputs of a sample side by side. The group `predictor`, where there is one, holds the arrays of the method
that predict at new points.

What came with each schema: 2 `Phi_weight_l`; 3 modes, and `weights` of samples, which were equal before; 4 `NTK`
(replicate, time, sample, sample_prime) where the factors do not give it; 5 several outputs, and the name of the `loss`,
which was "mse"; 6 `X_stream` and `y_stream`; 7 `kernel_step` in place of `time` where kernels were kept at some steps
alone. Gradient fields of every output, in files of schemas 5 and 6, are left out.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.common.settings import Spec, spec_class
from kernelfield.describe.architecture import Network
from kernelfield.describe.losses import LOSSES
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.files.layers import layers_json, restore_layers
from kernelfield.layers import Sequential
from kernelfield.solution.factors import TimeModes
from kernelfield.solution.kernel import FactorKernel, KeptKernel, Key, RecordedKernel, Steps, Symbol
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status

if TYPE_CHECKING:
    import xarray

FORMAT, SCHEMA = "kernelfield.Solution", 7
RETIRED = ("feature_tol", "gradient_tol", "save_at")  # settings that methods on particles had once
NAMES = {"Phi": "feature", "G": "gradient"}
FIELDS = {"h": "preactivation", "z": "pregradient", "g": "gradient phi'(h) z"}
INPUT_DIMS = {
    2: ("sample", "dimension"),
    3: ("sample", "position", "channel"),
    4: ("sample", "row", "column", "channel"),
}
RECORDED = {
    "Phi": "feature kernel",
    "G": "gradient kernel",
    "NTK": "neural tangent kernel",
    "eNTK": "effective tangent kernel of a learning rule",
    "cosine": "cosines between gradients and what stands for them",
}
OUTPUT_DIMS = {1: (), 2: ("output",)}  # of targets
_FACTOR_NAME = re.compile(r"(Phi|G)_factor_(\d+)")
_RECORDED_NAME = re.compile(r"(Phi|G|NTK|eNTK|cosine)(?:_(\d+))?")
_FIELD_NAME = re.compile(r"([a-z]+)_layer(\d+)_step(\d+)")


def problem_variables(solution: Solution) -> dict[str, Any]:
    """Returns what was learned, and the predictions, as variables of a Dataset."""
    problem, outputs = solution.problem, OUTPUT_DIMS[solution.problem.y.ndim]
    predicted = ("replicate", "time", "sample", *outputs)
    return {
        "X": variable(INPUT_DIMS[problem.X.ndim], problem.X, "inputs"),
        "y": variable(("sample", *outputs), problem.y, "targets"),
        "weights": variable(("sample",), problem.weights, "weights of samples in the loss, their sum is one"),
        "predictions": variable(predicted, solution.replicate_predictions, "network output f, of replicates"),
    }


def variable(dims: tuple[str, ...], values: Any, long_name: str, units: str = "1") -> tuple:
    """Returns a variable of a Dataset with its long name and units."""
    return dims, values, {"long_name": long_name, "units": units}


def step_coordinates(solution: Solution) -> dict[str, Any]:
    """Returns the training time of every row, and the steps before it, as coordinates of a Dataset."""
    steps = f"number of {solution.training.unit}s before this row"
    return {
        "time": variable(("time",), solution.times, "training time, the sum of learning rates so far"),
        "step": variable(("time",), solution.steps(), steps, "steps"),
    }


def to_dataset(solution: Solution) -> xarray.Dataset:
    """Returns a Solution as an xarray.Dataset with named dimensions, units and the settings in its attributes.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored.
    """
    import xarray

    variables = problem_variables(solution)
    if (stream := solution.problem.stream) is not None:
        inputs, outputs = INPUT_DIMS[stream.X.ndim][1:], OUTPUT_DIMS[stream.y.ndim]
        variables["X_stream"] = variable(("stream_sample", *inputs), stream.X, "inputs of the stream")
        variables["y_stream"] = variable(("stream_sample", *outputs), stream.y, "targets of the stream")
    variables |= _kernel_variables(solution) | _field_variables(solution)
    coordinates = step_coordinates(solution)
    kept = next((kernel.steps for kernel in solution.kernels.values() if kernel.steps is not None), None)
    if kept is not None:
        coordinates["kernel_step"] = variable(("kernel_step",), np.array(kept), "steps of kernels", "steps")
    return xarray.Dataset(variables, coordinates, {"format": FORMAT, "schema": SCHEMA, **attributes(solution)})


def _kernel_variables(solution: Solution) -> dict[str, Any]:
    """Returns factors of kernels, their modes in time and weights, and recorded kernels."""
    variables: dict[str, Any] = {}
    for (symbol, layer), kernel in solution.kernels.items():
        rows = "sample" if symbol == "Phi" or solution.problem.outputs == 1 else "sample_output"
        time = "any_time" if kernel.rests else "time" if kernel.steps is None else "kernel_step"
        if isinstance(kernel, RecordedKernel):
            dims = (_replicates(solution, len(kernel.values)), time, rows, f"{rows}_prime")
            name = symbol if layer is None else f"{symbol}_{layer}"
            variables[name] = variable(dims, kernel.values, f"{RECORDED[symbol]} at equal times")
            continue
        kind, factor = NAMES[symbol], kernel.factor
        name = f"factor F of the {kind} kernel of layer {layer}, {symbol}(t, s) = F(t) F(s)^T"
        rank, leading = f"{kind}_rank_{layer}", (_replicates(solution, factor.shape[0]), time)
        if isinstance(factor, TimeModes):
            about, mode = f"C of modes B, F(t) = sum_m C[t, m] B[m], of {name}", f"{kind}_mode_{layer}"
            variables[f"{symbol}_time_{layer}"] = variable((*leading, mode), factor.in_time, about)
            factor, name, leading = factor.modes, f"modes B of {name}", (leading[0], mode)
        variables[f"{symbol}_factor_{layer}"] = variable((*leading, rows, rank), factor, name)
        if kernel.weights is not None:
            name = f"weights w_n of the terms F diag(w_n) F^T of the {kind} kernel of layer {layer}"
            variables[f"{symbol}_weight_{layer}"] = variable(("order", rank), kernel.weights, name)
    return variables


def _field_variables(solution: Solution) -> dict[str, Any]:
    """Returns samples of the activation distributions."""
    variables: dict[str, Any] = {}
    for (layer, step), recorded in solution.field_samples.items():
        for name, values in recorded.items():
            dims = (_replicates(solution, len(values)), "sample", f"neuron_{layer}")
            about = f"{FIELDS.get(name, name)} of layer {layer} at step {step}"
            variables[f"{name}_layer{layer}_step{step}"] = variable(dims, values, about)
    return variables


def _replicates(solution: Solution, count: int) -> str:
    return "replicate" if count == len(solution.replicate_predictions) else "any_replicate"


def from_dataset(data: xarray.Dataset) -> Solution:
    """Returns the Solution that `to_dataset` converted.

    Raises:
        ValueError: for settings of a kind that this version does not know.
        KeyError: for a variable or attribute that is missing.
    """
    fields: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for variable, array in data.data_vars.items():
        if (match := _FIELD_NAME.fullmatch(str(variable))) and "sample_output" not in array.dims:
            name, layer, step = match.groups()
            fields.setdefault((int(layer), int(step)), {})[name] = array.values
    problem = Problem(
        *(data[name].values for name in ("X", "y", "weights") if name in data),
        loss=data.attrs.get("loss", "mse"),
        classes=json.loads(data.attrs["classes"]) if "classes" in data.attrs else None,
        vocabulary=int(data.attrs["vocabulary"]) if "vocabulary" in data.attrs else None,
        stream=(data["X_stream"].values, data["y_stream"].values) if "X_stream" in data else None,
    )
    settings = json.loads(data.attrs["settings"])
    network, training, method = (restore_settings(settings[part]) for part in ("network", "training", "method"))
    kept = tuple(data["kernel_step"].values.tolist()) if "kernel_step" in data.variables else None
    return Solution(
        run=Run(network, problem, training, method, kept, tuple(sorted({step for _, step in fields}))),
        replicate_predictions=data["predictions"].values,
        kernels=_kernels(data, problem.outputs, kept),
        field_samples=fields,
        exact=json.loads(data.attrs["exact"]),
        status=Status(data.attrs["status"], data.attrs["status_message"]),
        info=json.loads(data.attrs["info"]),
    )


def _kernels(data: xarray.Dataset, outputs: int, kept: Steps | None) -> dict[Key, KeptKernel]:
    """Returns kernels by symbol and layer; those of input and output are exact."""
    kernels: dict[Key, KeptKernel] = {}
    for variable in map(str, data.data_vars):
        if match := _FACTOR_NAME.fullmatch(variable):
            symbol: Symbol = "Phi" if match[1] == "Phi" else "G"
            layer, factor, dims = int(match[2]), data[variable].values, data[variable].dims
            if (in_time := data.get(f"{symbol}_time_{layer}")) is not None:
                factor, dims = TimeModes(in_time.values, factor), in_time.dims
            weights = data.get(f"{symbol}_weight_{layer}")
            kernels[symbol, layer] = FactorKernel(
                factor,
                outputs=1 if symbol == "Phi" else outputs,
                steps=kept if "kernel_step" in dims else None,
                exact=layer == 0 or (symbol == "G" and f"G_factor_{layer + 1}" not in data),
                weights=None if weights is None else weights.values,
            )
        if match := _RECORDED_NAME.fullmatch(variable):
            steps = kept if "kernel_step" in data[variable].dims else None
            key: Any = match[1], int(match[2]) if match[2] else None
            kernels[key] = RecordedKernel(data[variable].values, 1 if match[1] == "Phi" else outputs, steps)
    return kernels


def attributes(solution: Solution) -> dict[str, Any]:
    """Returns settings, status and versions, as attributes of a file can hold them.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored.
    """
    loss, classes = solution.problem.loss, solution.problem.classes
    if LOSSES.get(loss.name) != loss:
        raise ValueError(_not_stored("loss", f"use one of {', '.join(LOSSES)}"))
    parts = {"network": solution.network, "training": solution.training, "method": solution.method}
    return {
        "settings": json.dumps({name: settings_json(spec) for name, spec in parts.items()}),
        "loss": loss.name,
        **({} if solution.problem.vocabulary is None else {"vocabulary": solution.problem.vocabulary}),
        **({} if classes is None else {"classes": json.dumps(classes.tolist(), default=str)}),
        "seed": getattr(solution.method, "seed", -1),
        "exact": json.dumps(bool(solution.exact)),
        "status": solution.status.code,
        "status_message": solution.status.message,
        "info": json.dumps(dict(solution.info), default=_to_list),
        **{f"{name}_version": version(name) for name in ("kernelfield", "jax", "numpy")},
    }


def settings_json(spec: Spec) -> dict[str, Any]:
    """Returns {"class": name, **values} of a network, training rule or method, as JSON can hold it.

    Raises:
        ValueError: a value is a custom function, or the network has custom layers.
    """
    for name, value in spec:
        if isinstance(value, Sequential):
            return {"class": type(spec).__name__, **dict(spec), name: layers_json(value)}
        if callable(value):
            known = "list its values" if name == "schedule" else "use an activation known by name"
            raise ValueError(_not_stored(name, known))
    return {"class": type(spec).__name__, **spec.model_dump(mode="json")}


def restore_settings(settings: dict[str, Any]) -> Any:
    """Returns the network, training rule or method that `settings_json` described."""
    values = dict(settings)
    cls: type[Spec] = spec_class(values.pop("class"))
    if cls is Network:
        values["layers"] = restore_layers(values["layers"])
    if cls is GradientDescent and values.pop("batch", None) is not None:  # of schemas 1 to 4
        raise ValueError("it was trained by GradientDescent(batch=...), which is SGD now: solve it again")
    retired = (*RETIRED, "seed") if cls is GradientDescent else RETIRED
    return cls(**{name: value for name, value in values.items() if name not in retired})


def _not_stored(name: str, otherwise: str) -> str:
    return f"{name} is a custom function, which cannot be stored: save the arrays you need, or {otherwise}"


def _to_list(value: Any) -> Any:
    """Returns a NumPy value as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"info holds a {type(value).__name__}, which cannot be stored")
