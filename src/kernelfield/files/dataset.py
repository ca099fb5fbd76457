"""Solution <-> xarray.Dataset, as files hold it: everything needed to look at a run again, bit for bit.

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

import json
import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.files.attributes import about_steps, attributes, restore_settings
from kernelfield.solution.kernel import FactorKernel, Kernel, Key, RecordedKernel, Symbol
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.solution.time_modes import Factor, TimeModes

if TYPE_CHECKING:
    import xarray

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


def to_dataset(solution: Solution) -> xarray.Dataset:
    """Returns a Solution as an xarray.Dataset with named dimensions, units and the settings in its attributes.

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
    variables = problem_variables(solution)
    if (stream := solution.problem.stream) is not None:
        dims = ("stream_sample", *INPUT_DIMS[stream.X.ndim][1:])
        variables["X_stream"] = variable(dims, stream.X, "inputs of the stream")
        variables["y_stream"] = variable(("stream_sample", *outputs), stream.y, "targets of the stream")
    variables |= _kernel_variables(solution) | _field_variables(solution)
    times = {
        "time": variable(("time",), solution.times, "training time, the sum of learning rates so far"),
        **_kept_steps(solution),
        "step": variable(("time",), np.arange(solution.steps_done + 1), about_steps(solution), "steps"),
    }
    return xarray.Dataset(variables, times, attributes(solution))


def _kept_steps(solution: Solution) -> dict[str, Any]:
    """The steps whose kernels were kept, if not all were."""
    steps = next((kernel.steps for kernel in solution.kernels.values() if kernel.steps is not None), None)
    if steps is None:
        return {}
    return {"kernel_step": variable(("kernel_step",), np.array(steps), "steps of kernels", "steps")}


def _kernel_variables(solution: Solution) -> dict[str, Any]:
    """Factors of kernels, their modes in time and weights, and recorded kernels."""
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
            variables[symbol] = variable(dims, kernel.values, "neural tangent kernel at equal times")
            continue
        assert isinstance(kernel, FactorKernel)
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
    """Samples of the activation distributions."""
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
    network, training, method = (restore_settings(settings[part]) for part in ("network", "training", "method"))
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
    """Kernels by symbol and layer; those of input and output are exact."""
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
