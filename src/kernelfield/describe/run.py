"""A run: the one description of what is solved, which all other code takes, and what makes two runs the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield.common.settings import Spec
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Adam, Training
from kernelfield.layers.base import uses
from kernelfield.layers.particlewise import ParticleFunction
from kernelfield.layers.vectors import Gain


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
        >>> run.steps, run.kernel_steps
        (4, (0, 1, 2, 3, 4))
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
    def kernel_steps(self) -> tuple[int, ...]:
        """The steps whose kernels are kept."""
        return tuple(range(self.steps + 1)) if self.save_at is None else self.save_at

    @property
    def extras(self) -> dict[str, str]:
        """The needs beyond plain gradient descent on the mean squared error of one output, in words, by their names."""
        problem, training = self.problem, self.training
        schedule, rule = getattr(training, "schedule", "constant"), getattr(training, "rule", None)
        mixing = [
            type(layer).__name__ for layer in uses(self.network.layers) if isinstance(layer, (ParticleFunction, Gain))
        ]
        needs = [
            ("losses", "other losses than the mean squared error", problem.loss.name != "mse"),
            ("outputs", "networks of several outputs", problem.outputs > 1),
            ("momentum", "gradient descent with momentum", getattr(training, "momentum", 0) > 0),
            ("weight_decay", "gradient descent with weight decay", getattr(training, "weight_decay", 0) > 0),
            ("schedule", "gradient descent with a schedule of learning rates", schedule != "constant"),
            ("rule", f"learning by {type(rule).__name__}", rule is not None),
            ("mixing", f"networks with {mixing[0] if mixing else 'no'} layers", bool(mixing)),
        ]
        return {name: words for name, words, is_needed in needs if is_needed}

    @property
    def input_square(self) -> float:
        """The mean square K of the inputs, infinite where it overflows."""
        X = self.problem.X
        largest = float(np.abs(X).max()) or 1.0
        return float(np.square(X / largest).mean() * largest * largest)

    @property
    def movement(self) -> float:
        """About how far preactivations move, relative to their size sqrt(K), for a choice of precision.

        They move by gamma0 Delta times the smaller of training time times K, and of what learning the targets takes, 1.
        Adam moves them by gamma0 times the sum of its rates, whatever the size of its gradients.
        """
        if isinstance(self.training, Adam):
            return self.network.gamma0 * float(self.training.times(self.problem)[-1])
        problem, root = self.problem, np.sqrt(self.input_square) or 1.0
        start = problem.loss.measured_signal(np.zeros(problem.y.shape), problem.y)
        reach = min(float(self.training.times(problem)[-1]) * root, 1 / root)
        return float(np.sqrt(np.mean(start**2))) * self.network.gamma0 * reach

    def check_scale(self, largest: float, advice: str) -> None:
        """Raises ValueError, which ends with advice, if the mean square of the inputs is above the largest."""
        if not self.input_square <= largest:
            raise ValueError(
                f"X must be smaller: its mean square is {self.input_square:.0e}, which overflows: {advice}"
            )

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


def fingerprint(value: Any) -> Any:
    """Returns a value as JSON can hold it: settings by their values, arrays by a digest, functions by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return f"an array {array.shape} with digest {hashlib.sha256(array.data).hexdigest()[:16]}"
    if isinstance(value, Sequence):
        return [fingerprint(item) for item in value]
    if dataclasses.is_dataclass(value):
        values: Any = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Spec | Mapping):
        values = dict(value)
    elif callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    else:
        values = getattr(value, "__dict__", {})
    return {"kind": type(value).__name__} | {str(name): fingerprint(item) for name, item in values.items()}


def differences(there: Any, here: Any, *place: str) -> Iterator[str]:
    """Yields a sentence for every difference between two fingerprints, which lie at `place` in larger ones.

    Example:
        >>> list(differences({"network": {"gamma0": 1.0}}, {"network": {"gamma0": 2.0}}))
        ['network gamma0 is 1.0 there, 2.0 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for name in {**there, **here}:
            yield from differences(there.get(name), here.get(name), *place, name)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from differences(*pair, *place, str(number))
    elif there != here:
        yield f"{' '.join(place)} is {there} there, {here} here"
