"""The variables of a sweep's dataset, and how they are measured at every point of its grid."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernelfield.describe.run import Run
from kernelfield.observables import kernel_alignment, kernel_movement, loss
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import SolveError
from kernelfield.solve import solve_run

Record = dict[str, Any]  # the values of one point, by the name of their variable
Measure = Callable[[Solution], Estimate]

DIMENSIONS = {"step": "rows of a solution", "layer": "hidden layer", "sample": "sample", "output": "output"}


@dataclass(frozen=True)
class Variable:
    """One variable of the dataset of a sweep."""

    about: str  # its long name
    dims: tuple[str, ...] = ()  # its dimensions beside those of the grid
    units: str = "1"
    text: bool = False  # whether its values are texts


def _last(measure: Callable[..., Estimate], solution: Solution) -> Estimate:
    """Returns the last time of a measure over time."""
    estimate = measure(solution)
    return Estimate(estimate.replicates[:, -1], estimate.exact)


def _by_layer(measure: Callable[..., Estimate], kernel: str, solution: Solution) -> Estimate:
    """Returns a measure of the kernels of all hidden layers after training."""
    layers = range(1, solution.network.hidden_layers + 1)
    estimates = [measure(solution, kernel, layer, -1) for layer in layers]
    return Estimate(np.stack([layer.replicates for layer in estimates], axis=-1), estimates[0].exact)


_test_loss = partial(loss, points="test")
_ALIGNED, _MOVED = "alignment with the targets after training, A(K, y y^T)", "|K(T) - K(0)| / |K(0)|"
ESTIMATES: dict[str, tuple[Variable, Measure]] = {
    "loss": (Variable("training loss", ("step",)), loss),
    "test_loss": (Variable("loss of the points of weight zero", ("step",)), _test_loss),
    "final_loss": (Variable("training loss at the last step done"), partial(_last, loss)),
    "final_test_loss": (
        Variable("loss of the points of weight zero at the last step done"),
        partial(_last, _test_loss),
    ),
    "prediction": (
        Variable("network output f after training", ("sample", "output")),
        partial(_last, partial(Solution.estimate, quantity="predictions")),
    ),
    "Phi_alignment": (Variable(f"feature kernel: {_ALIGNED}", ("layer",)), partial(_by_layer, kernel_alignment, "Phi")),
    "Phi_movement": (Variable(f"feature kernel: {_MOVED}", ("layer",)), partial(_by_layer, kernel_movement, "Phi")),
    "G_movement": (Variable(f"gradient kernel: {_MOVED}", ("layer",)), partial(_by_layer, kernel_movement, "G")),
    "NTK_alignment": (Variable(f"tangent kernel: {_ALIGNED}"), partial(kernel_alignment, kernel="NTK", t=-1)),
    "NTK_movement": (Variable(f"tangent kernel: {_MOVED}"), partial(kernel_movement, kernel="NTK", t=-1)),
}
VARIABLES: dict[str, Variable] = {}
for _name, (_variable, _) in ESTIMATES.items():
    VARIABLES[_name] = _variable
    VARIABLES[f"{_name}_se"] = Variable(f"standard error of: {_variable.about}", _variable.dims)
VARIABLES |= {
    "time": Variable("training time, the sum of learning rates so far", ("step",)),
    "target": Variable("targets y", ("sample", "output")),
    "weight": Variable("weights of samples in the loss, their sum is one", ("sample",)),
    "steps_done": Variable("steps that were done", (), "steps"),
    "seconds_run": Variable("time to run, on the worker, without compiling", (), "s"),
    "seconds_compile": Variable("time to compile", (), "s"),
    "finished": Variable("when the point was done", (), "seconds since 1970-01-01"),
    "worker": Variable("host and process that solved it", (), text=True),
    "message": Variable("what happened, and what to try next", (), text=True),
    "status": Variable("ok, why the point failed, or nothing where it is not done", (), text=True),
}
RESERVED = frozenset({*VARIABLES, *DIMENSIONS})


def dimension_sizes(runs: Collection[Run]) -> dict[str, int]:
    """Returns the lengths of the dimensions that hold all points; "output" only if a point has several outputs."""
    sizes = {
        "step": 1 + max(run.training.steps for run in runs),
        "layer": max(run.network.hidden_layers for run in runs),
        "sample": max(run.problem.points for run in runs),
    }
    outputs = [run.problem.outputs for run in runs if run.problem.y.ndim == 2]
    return {**sizes, "output": max(outputs)} if outputs else sizes


def solve_point(run: Run) -> Record:
    """Returns the values of a point after solving it; an error becomes its "status" and "message"."""
    began = time.perf_counter()
    record: Record
    try:
        record = measure(solve_run(run, progress=False, throw=False))
    except SolveError as error:  # before there was anything to keep
        code, _, message = str(error).partition(": ")
        record = {"status": code, "message": message}
    except Exception as error:
        record = failure(error)
    return {
        "seconds_run": time.perf_counter() - began - record.get("seconds_compile", 0.0),
        "finished": time.time(),
        "worker": f"{platform.node()} {os.getpid()}",
        **record,
    }


def failure(error: BaseException) -> Record:
    """Returns the status and message of a point that an error ended."""
    return {"status": "error", "message": " ".join(f"{type(error).__name__}: {error}".split())}


def measure(solution: Solution) -> Record:
    """Returns the values of all variables that a Solution has."""
    record: Record = {
        "time": solution.times,
        "target": solution.problem.y,
        "weight": solution.problem.weights,
        "steps_done": float(solution.steps_done),
        **{key: solution.info[key] for key in ("seconds_run", "seconds_compile") if key in solution.info},
        "status": solution.status.code,
        "message": solution.status.message,
    }
    for name, (_, measure_variable) in ESTIMATES.items():
        with contextlib.suppress(ValueError):  # not tracked, or there are no such points
            estimate = measure_variable(solution)
            record |= {name: estimate.mean, f"{name}_se": estimate.se}
    return record


def pad(values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Returns values, with at most as many axes as `shape`, in the corner of an array of NaN of that shape."""
    values, padded = np.asarray(values, float), np.full(shape, math.nan)
    values = values.reshape((*values.shape, *(1 for _ in shape[values.ndim :])))
    padded[tuple(slice(length) for length in values.shape)] = values
    return padded
