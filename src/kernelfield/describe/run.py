"""A run: the one description of what is solved, which all other code takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernelfield.common.settings import Spec
from kernelfield.describe.fingerprint import fingerprint
from kernelfield.describe.networks import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training

EXTRAS = {
    "losses": "other losses than the mean squared error",
    "outputs": "networks of several outputs",
    "momentum": "gradient descent with momentum",
    "weight_decay": "gradient descent with weight decay",
    "schedule": "gradient descent with a schedule of learning rates",
}


@dataclass(frozen=True)
class Run:
    """A network that learns a problem by a training rule, the method that solves it, and the steps that are kept.

    Args:
        network: the network that learns.
        problem: the problem that it learns.
        training: the training rule.
        method: the method that solves the run.
        save_at: steps whose kernels are kept, in order; all if None.
        fields_at: steps whose activation distributions and states to predict from are kept, in order.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.describe.run import Run
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> run = Run(kf.MLP(depth=1), problem, training, kf.March(), fields_at=(0, 4))
        >>> run.steps, run.outputs, run.replace(method=kf.StaticNTK()).fields_at
        (4, 1, (0, 4))
    """

    network: Architecture
    problem: Problem
    training: Training
    method: Spec
    save_at: tuple[int, ...] | None = None
    fields_at: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """The number of steps; a Solution has one row more."""
        return self.training.steps

    @property
    def outputs(self) -> int:
        """The number of outputs C of the network."""
        return self.problem.outputs or 1

    @property
    def kernel_steps(self) -> tuple[int, ...]:
        """The steps whose kernels are kept."""
        return tuple(range(self.steps + 1)) if self.save_at is None else self.save_at

    @property
    def extras(self) -> tuple[str, ...]:
        """Names in `EXTRAS`: needs beyond plain gradient descent on the mean squared error of one output."""
        needs = {
            "losses": self.problem.loss.name != "mse",
            "outputs": self.problem.outputs is not None,
            "momentum": getattr(self.training, "momentum", 0) > 0,
            "weight_decay": getattr(self.training, "weight_decay", 0) > 0,
            "schedule": getattr(self.training, "schedule", "constant") != "constant",
        }
        return tuple(name for name, is_needed in needs.items() if is_needed)

    def replace(self, **parts: Any) -> Run:
        """Returns the run with other parts."""
        return dataclasses.replace(self, **parts)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the parts of the run as JSON can hold them; runs are the same if these are."""
        return {part.name: fingerprint(getattr(self, part.name)) for part in dataclasses.fields(self)}


def steps_from(name: str, chosen: Sequence[int], last: int) -> tuple[int, ...]:
    """Returns the chosen steps of 0..last in order, each once; negative ones count from the end.

    Raises:
        ValueError: a step is outside; the message has the `name` of the argument.
    """
    outside = [step for step in chosen if not -last - 1 <= step <= last]
    if outside:
        raise ValueError(f"{name} must be steps in 0..{last} (or negative, from the end), got {outside[0]}")
    return tuple(sorted({int(step) % (last + 1) for step in chosen}))
