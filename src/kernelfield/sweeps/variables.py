"""What is kept of every point of a grid: the variables of its dataset, and their measurement."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield import observables
from kernelfield.describe.run import Run
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import SolveError
from kernelfield.solve import solve_run

Record = dict[str, Any]
DIMENSIONS = {"step": "rows of a solution", "layer": "hidden layer", "sample": "sample", "output": "output"}
_ALIGNED, _MOVED = "alignment with the targets after training, A(K, y y^T)", "|K(T) - K(0)| / |K(0)|"


@dataclass(frozen=True)
class Variable:
    """One variable of the dataset.

    Args:
        about: its long name.
        dims: beside those of the grid.
        units: of its values.
        text: whether the values are texts.
    """

    about: str
    dims: tuple[str, ...] = ()
    units: str = "1"
    text: bool = False


ESTIMATES = {
    "loss": Variable("training loss", ("step",)),
    "test_loss": Variable("loss of the points of weight zero", ("step",)),
    "final_loss": Variable("training loss at the last step done"),
    "final_test_loss": Variable("loss of the points of weight zero at the last step done"),
    "prediction": Variable("network output f after training", ("sample", "output")),
    "Phi_alignment": Variable(f"feature kernel: {_ALIGNED}", ("layer",)),
    "Phi_movement": Variable(f"feature kernel: {_MOVED}", ("layer",)),
    "G_movement": Variable(f"gradient kernel: {_MOVED}", ("layer",)),
    "NTK_alignment": Variable(f"tangent kernel: {_ALIGNED}"),
    "NTK_movement": Variable(f"tangent kernel: {_MOVED}"),
}
OTHERS = {
    "time": Variable("training time, the sum of learning rates so far", ("step",)),
    "target": Variable("targets y", ("sample", "output")),
    "weight": Variable("weights of samples in the loss, their sum is one", ("sample",)),
    "steps_done": Variable("steps that were done", (), "steps"),
    "seconds_run": Variable("time to run, on the worker, without compiling", (), "s"),
    "seconds_compile": Variable("time to compile, of all replicates", (), "s"),
    "finished": Variable("when the point was done", (), "seconds since 1970-01-01"),
    "worker": Variable("host and process that solved it", (), text=True),
    "message": Variable("what happened, and what to try next", (), text=True),
    "status": Variable("ok, why the point failed, or nothing where it is not done", (), text=True),
}
VARIABLES = {
    **{
        name: each
        for key, each in ESTIMATES.items()
        for name, each in (
            (key, each),
            (f"{key}_se", Variable(f"standard error of: {each.about}", each.dims, each.units)),
        )
    },
    **OTHERS,
}
RESERVED = frozenset({*VARIABLES, *DIMENSIONS})


def sizes_of(runs: Iterable[Run]) -> dict[str, int]:
    """Lengths of the dimensions that hold every point; without outputs where all points have one.

    Args:
        runs: all points of a grid.

    Returns:
        Lengths by dimension.
    """
    every = list(runs)
    sizes = {
        "step": 1 + max(run.training.steps for run in every),
        "layer": max(run.network.hidden_layers for run in every),
        "sample": max(run.problem.points for run in every),
    }
    outputs = [run.problem.outputs for run in every if run.problem.outputs is not None]
    return {**sizes, "output": max(outputs)} if outputs else sizes


def solved(run: Run) -> Record:
    """Solve one point, and measure it; whatever goes wrong is its status.

    Args:
        run: the point.

    Returns:
        Values of variables by name, of those that are there; "status" and "message" always.
    """
    began = time.perf_counter()
    try:
        solution = solve_run(run, progress=False, throw=False)
        record = measured(solution)
    except SolveError as error:  # before there was anything to keep
        code, _, message = str(error).partition(": ")
        record: Record = {"status": code, "message": message}
    except Exception as error:
        record = {"status": "error", "message": " ".join(f"{type(error).__name__}: {error}".split())}
    return {
        "seconds_run": time.perf_counter() - began - record.get("seconds_compile", 0.0),
        "finished": time.time(),
        "worker": f"{platform.node()} {os.getpid()}",
        **record,
    }


def measured(solution: Solution) -> Record:
    """Everything that is kept of a Solution.

    Args:
        solution: what to measure.

    Returns:
        Values of variables by name, without those that the run did not track.
    """
    problem, (code, message) = solution.problem, (solution.status.code, solution.status.message)
    info = {key: solution.info[key] for key in ("seconds_run", "seconds_compile") if key in solution.info}
    record: Record = {
        "time": solution.times,
        "target": problem.y,
        "weight": problem.weights,
        "steps_done": float(solution.steps_done),
        **info,
        "status": code,
        "message": message,
    }
    for name, measure in _MEASURES.items():
        with contextlib.suppress(ValueError):  # not tracked, or there are no such points
            estimate = measure(solution)
            record |= {name: estimate.mean, f"{name}_se": estimate.se}
    return record


def _last(estimate: Estimate) -> Estimate:
    return Estimate(estimate.replicates[:, -1], estimate.exact)


def _by_layer(measure: Callable[..., Estimate], kernel: str, *at: Any) -> Callable[[Solution], Estimate]:
    """A measure of the kernels of all hidden layers after training."""

    def measured(solution: Solution) -> Estimate:
        layers = range(1, solution.network.hidden_layers + 1)
        each = [measure(solution, kernel, layer, -1) for layer in layers]
        return Estimate(np.stack([one.replicates for one in each], axis=-1), each[0].exact)

    return measured


_MEASURES: dict[str, Callable[[Solution], Estimate]] = {
    "loss": observables.loss,
    "test_loss": lambda solution: observables.loss(solution, "test"),
    "final_loss": lambda solution: _last(observables.loss(solution)),
    "final_test_loss": lambda solution: _last(observables.loss(solution, "test")),
    "prediction": lambda solution: _last(solution.estimate("predictions")),
    "Phi_alignment": _by_layer(observables.kernel_alignment, "Phi"),
    "Phi_movement": _by_layer(observables.kernel_movement, "Phi"),
    "G_movement": _by_layer(observables.kernel_movement, "G"),
    "NTK_alignment": lambda solution: observables.kernel_alignment(solution, "NTK", t=-1),
    "NTK_movement": lambda solution: observables.kernel_movement(solution, "NTK", t=-1),
}


def padded(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Values in the corner of an array of NaN.

    Args:
        values: with at most as many axes as `shape`.
        shape: of the array.
    """
    values, whole = np.asarray(values, float), np.full(shape, math.nan)
    values = values.reshape((*values.shape, *(1 for _ in shape[values.ndim :])))
    whole[tuple(slice(length) for length in values.shape)] = values
    return whole
