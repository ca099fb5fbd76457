"""What can be changed on the page, and what is solved for one setting of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kernelfield.datasets import digits, gaussian
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent, Training
from kernelfield.files.config import Config
from kernelfield.march.method import March

GAMMA0, RATE = (0.01, 10.0), (0.02, 2.0)  # ends of the sliders
DEPTHS, WIDTHS = (1, 2, 3), (32, 64, 128, 256, 512)
ACTIVATIONS = ("tanh", "relu", "erf", "gelu", "linear")
POINTS, NETWORKS = 12, 4
Described = TypeVar("Described", Architecture, Training)


@dataclass(frozen=True)
class Setting:
    """One position of all controls. A control that the page does not have is None, and leaves the run as it is."""

    data: str
    gamma0: float
    learning_rate: float | None
    depth: int | None
    activation: str | None
    width: int | None  # of the finite networks; None for none


@dataclass(frozen=True)
class Question:
    """A run whose network, data and learning rate can be changed.

    Args:
        problems: data sets by name.
        network, training: what is changed.
        method: of infinite width.
    """

    problems: Mapping[str, Problem]
    network: Architecture
    training: Training
    method: March = field(default=March(particles=512, replicates=2, kernels="features"))

    @property
    def start(self) -> Setting:
        """The setting that the page opens with: the run as it was described, without finite networks."""
        activation = getattr(self.network, "activation", None)
        return Setting(
            data=next(iter(self.problems)),
            gamma0=self.network.gamma0,
            learning_rate=getattr(self.training, "learning_rate", None),
            depth=self._depth,
            activation=activation if activation in ACTIVATIONS else None,
            width=None,
        )

    @property
    def _depth(self) -> int | None:
        """The number of hidden layers; None where other settings of the network depend on it."""
        lists = (getattr(self.network, name, None) for name in ("weight_scales", "widths"))
        return getattr(self.network, "depth", None) if all(values is None for values in lists) else None

    def parts(self, setting: Setting) -> tuple[Architecture, Problem, Training]:
        """Returns network, problem and training of a setting, as `kernelfield.solve` takes them."""
        return self.network_of(setting), self.problems[setting.data], self.training_of(setting)

    def network_of(self, setting: Setting) -> Architecture:
        """Returns the network of a setting."""
        return _change(self.network, gamma0=setting.gamma0, depth=setting.depth, activation=setting.activation)

    def training_of(self, setting: Setting) -> Training:
        """Returns the training rule of a setting."""
        return _change(self.training, learning_rate=setting.learning_rate)


def _change(spec: Described, **changes: Any) -> Described:
    """Returns a description with other values of its arguments, where they are not None."""
    values = {name: getattr(spec, name) for name in type(spec).model_fields}
    return type(spec)(**values | {name: value for name, value in changes.items() if value is not None})


def default_question() -> Question:
    """Returns the question of the page that nobody configured: digits, and random signs, learned by an MLP."""
    problems = {f"digits {a} and {b}": digits((a, b), POINTS, seed=0) for a, b in ((0, 1), (3, 8), (4, 9))}
    problems["random signs"] = gaussian(POINTS, 64)
    return Question(problems, MLP(depth=2, gamma0=1.0), GradientDescent(learning_rate=0.5, steps=20))


def question_of(config: Config) -> Question:
    """Returns the question of a configuration: its data, network and training, and [march] if it has that section."""
    problems = {f"{config.data.source} of the configuration": config.problem()}
    method = config.methods.get("march")
    question = Question(problems, config.network, config.training)
    return question if method is None else replace(question, method=method)
