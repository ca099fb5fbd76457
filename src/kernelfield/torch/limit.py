"""The infinite-width limit of a network in PyTorch, as a Run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run, steps_from
from kernelfield.describe.training import SGD, Adam, GradientDescent, Schedule, Training
from kernelfield.march.method import March
from kernelfield.parameterization import MeanField, Numbers, from_numbers
from kernelfield.torch.graph import Graph, trace
from kernelfield.torch.inputs import as_array, as_input, outputs_of, read_inputs
from kernelfield.torch.layers import Builder, clean, name_network
from kernelfield.torch.loss import read_loss
from kernelfield.torch.optimizer import Rule, read_optimizer
from kernelfield.torch.pieces import end_in_readout
from kernelfield.torch.tensors import Rows, check_scaling

LARGE_START = 0.1  # rms of outputs at initialization, relative to targets, which is worth a word
Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from a network in PyTorch.

    Attributes:
        run: the run of its infinite-width limit.
        numbers: initialization, multiplier and learning rate of every tensor; print it for a table.
        notes: sentences about what the limit leaves out, or takes to be so.
        graph: the traced network.
    """

    run: Run
    numbers: Numbers
    notes: tuple[str, ...]
    graph: Graph

    def __str__(self) -> str:
        network, training = self.run.network, self.run.training
        lines = [
            str(self.numbers),
            "",
            f"gamma0 = {network.gamma0:.4g}, learning rate eta = {training.learning_rate:.4g}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def read(
    model: Any,
    optimizer: Any,
    X: Any,
    y: Any,
    loss: Any = "mse",
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    schedule: Schedule = "constant",
    weights: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    centred: bool = True,
    parameterization: Literal["auto", "muP"] = "auto",
    method: Any = None,
    save_at: Sequence[int] | None = None,
) -> Reading:
    """Returns the Run with the table of numbers, and notes; arguments and errors are those of `describe`."""
    if parameterization not in ("auto", "muP"):
        raise ValueError(f"parameterization must be 'auto' or 'muP', got {parameterization!r}")
    X = as_array(X)
    graph = trace(model, as_input(model, X[:2]))
    path, rule, outputs = end_in_readout(graph.path), read_optimizer(optimizer), as_array(outputs_of(model, X))
    name, factor, targets = read_loss(loss, as_array(y), outputs)
    rows = Rows(path.pieces, rule, factor if rule.betas is None else 1.0)
    if parameterization == "auto":
        check_scaling(rows)
    mean_field = from_numbers(rows.numbers, own_rates=True)
    builder = Builder(rows, mean_field)
    network = name_network(builder.build(path.pieces), clean(mean_field.gamma0))
    inputs, tests = read_inputs(X, graph.path), {}
    if X_test is not None:
        X_test = as_array(X_test)
        y_test = read_loss(loss, as_array(y_test), as_array(outputs_of(model, X_test)))[2]
        tests = {"X_test": read_inputs(X_test, graph.path), "y_test": y_test}
    problem = Problem(inputs, targets, weights, loss=name, **tests)
    training = make_training(rule, mean_field, steps, epochs, batch_size, seed, schedule)
    saved = None if save_at is None else steps_from("save_at", save_at, training.steps)
    run = Run(network, problem, training, method or March(), saved)
    notes = *rows.notes, *builder.notes, *([] if centred else note_start(outputs, targets))
    return Reading(run, rows.numbers, notes, graph)


def take_arguments_of(
    other: Callable[Arguments, Any],
) -> Callable[[Callable[..., Value]], Callable[Arguments, Value]]:
    """Returns a decorator that gives a function the arguments of another one, for readers and for type checkers."""

    def decorate(function: Callable[..., Value]) -> Callable[Arguments, Value]:
        returned = inspect.signature(function).return_annotation
        function.__signature__ = inspect.signature(other).replace(return_annotation=returned)  # type: ignore[attr-defined]
        return function

    return decorate


@take_arguments_of(read)
def describe(*arguments: Any, **options: Any) -> Run:
    """Returns the Run of the infinite-width limit of a network in PyTorch; `kernelfield.solve` takes its parts.

    The limit is that of muP from this width on: initial variances, multipliers and learning rates are as they are, and
    change with the width as muP has it. Call it before training: weights are measured as they are. It warns of what the
    limit leaves out; `read` has the same as notes, and the table of numbers.

    Args:
        model: torch.nn.Module that maps a batch X to outputs (P,), (P, 1) or (P, C).
        optimizer: torch.optim.SGD, Adam or AdamW of its parameters, or what MuSGD and MuAdam of the package mup make.
        X: inputs as the model takes them, array or tensor (P, ...); images have their channels first, tokens are ids.
        y: targets (P,), (P, 1) or (P, C), or labels (P,) for cross-entropy.
        loss: that of training: a name as for `kernelfield.Problem`, where "mse" is (f - y)^2 / 2; or nn.MSELoss(),
            nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss() or nn.SoftMarginLoss(), with their own factors.
        steps: number of updates on all points; either this or `epochs` and `batch_size`.
        epochs, batch_size, seed: of mini-batches; `run.training.batches(run.problem)` has their rows.
        schedule: factors of all learning rates, as for `kernelfield.GradientDescent`.
        weights: weights of the points in the loss (P,).
        X_test, y_test: points that do not train.
        centred: whether training is on output minus output at initialization, or on a readout that starts at zero, as
            this library has it. If it is not, and outputs do not start near zero, a warning says how large they are.
        parameterization: "muP" takes plain layers at one learning rate for what muP is at this width; "auto" refuses
            them, as they have no limit.
        method: of the run, March() by default.
        save_at: steps whose kernels the run keeps; all by default.

    Returns:
        Run, with the network, problem and training of the limit.

    Raises:
        ValueError: one sentence about what could not be read, or has no limit.
    """
    reading = read(*arguments, **options)
    for note in reading.notes:
        warnings.warn(note, stacklevel=2)
    return reading.run


def note_start(outputs: np.ndarray, targets: np.ndarray) -> list[str]:
    """Returns a sentence about outputs that do not start near zero; none if they do."""
    start, size = (float(np.sqrt(np.mean(np.square(values)))) for values in (outputs, targets))
    if start <= LARGE_START * size:
        return []
    return [
        f"outputs start at a root mean square of {start:.2g}, which the limit leaves out: train on output minus "
        "output at initialization, or let the readout start at zero"
    ]


def make_training(
    rule: Rule,
    mean_field: MeanField,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int,
    schedule: Schedule,
) -> Training:
    """Returns the training rule of the limit."""
    if (steps is None) == (epochs is None) or (epochs is None) != (batch_size is None):
        raise ValueError("give steps, or epochs and batch_size")
    common: dict[str, Any] = {"learning_rate": clean(mean_field.learning_rate), "schedule": schedule}
    common["weight_decay"] = clean(mean_field.weight_decay)
    batches: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    if rule.betas is not None:
        length: dict[str, Any] = {"steps": steps} if epochs is None else batches
        return Adam(betas=rule.betas, eps=clean(mean_field.eps or 0.0), **common, **length)
    if epochs is None:
        common["steps"] = steps
        return GradientDescent(momentum=rule.momentum, **common)
    return SGD(momentum=rule.momentum, **common, **batches)
