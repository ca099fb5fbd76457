"""Whether two Solutions can be compared: they answer the same question."""

from __future__ import annotations

import numpy as np

from kernelfield.describe.training import SGD, Descent, OnlineSGD
from kernelfield.solution.solution import Solution


def check_comparable(solution: Solution, reference: Solution) -> None:
    """Raise a ValueError that names what differs, unless the two share inputs, targets, loss, depth and training.

    Of their training, what the rows that both have depend on must agree.
    """
    sides = solution, reference
    for name in ("X", "y", "weights"):
        one, other = (getattr(side.problem, name) for side in sides)
        if one.shape != other.shape:
            raise ValueError(f"{name} must be the same in both solutions, got shapes {one.shape} and {other.shape}")
        if not np.array_equal(one, other):
            apart = np.abs(one - other).max()
            raise ValueError(f"{name} must be the same in both solutions, got values up to {apart:.3g} apart")
    streams = [side.problem.stream for side in sides]
    arrays = [[] if stream is None else [stream.X, stream.y] for stream in streams]
    if len(arrays[0]) != len(arrays[1]) or not all(map(np.array_equal, *arrays)):
        raise ValueError("stream must be the same in both solutions")
    one, other = (side.problem.loss for side in sides)
    if one != other:
        raise ValueError(f"loss must be the same in both solutions, got {one.name} and {other.name}")
    for name, (one, other) in {
        "depth": [side.network.hidden_layers for side in sides],
        "learning_rate": [side.training.learning_rate for side in sides],
        "momentum": [getattr(side.training, "momentum", 0.0) for side in sides],
        "weight_decay": [getattr(side.training, "weight_decay", 0.0) for side in sides],
        "batches": [_batches(side) for side in sides],
    }.items():
        if one != other:
            raise ValueError(f"{name} must be the same in both solutions, got {one} and {other}")
    rates = [_rates(side) for side in sides]
    common = min(map(len, rates))
    if not np.allclose(rates[0][:common], rates[1][:common], rtol=1e-12, atol=0):
        raise ValueError("schedule must be the same in both solutions, got {} and {}".format(*map(_schedule, sides)))


def _batches(solution: Solution) -> str:
    """Returns how the points of an update are chosen, in words that are equal where the choice is."""
    training = solution.training
    if isinstance(training, OnlineSGD):
        return f"fresh points, {training.batch_size} in an update and {training.every} updates in a row"
    if not isinstance(training, SGD) or training.batches(solution.problem) is None:
        return "all points"
    replacement = " with replacement" if training.replacement else ""
    return f"batches of {training.batch_size}{replacement} of seed {training.seed}"


def _rates(solution: Solution) -> np.ndarray:
    """Returns the learning rates of the updates that the rows cover."""
    training = solution.training
    if not isinstance(training, Descent):
        return np.full(solution.steps_done, training.learning_rate)
    return training.rates(solution.problem)[: solution.steps_done * training.updates_per_step(solution.problem)]


def _schedule(solution: Solution) -> str:
    """Returns the schedule and the length of training in words."""
    training = solution.training
    schedule = getattr(training, "schedule", "constant")
    name = f"'{schedule}'" if isinstance(schedule, str) else "another one"
    return f"{name} over {training.steps} {training.unit}s"
