"""What every method is: settings that solve a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kernelfield.common.progress import Report
from kernelfield.common.settings import Spec
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent, OnlineSGD
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.solution.trained_network import Predictor


class Method(Spec):
    """A way to solve: the march, another theory, or finite networks."""

    rules: ClassVar[tuple[type, ...]] = (GradientDescent,)  # the classes of training rules that it solves
    networks: ClassVar[tuple[str, ...]] = ()  # the names of the networks whose equations it has; all if empty
    takes: ClassVar[frozenset[str]] = frozenset()  # the names of the needs in `Run.extras` that it solves
    keeps_checkpoints: ClassVar[bool] = False  # whether `solve` takes a checkpoint

    def supports(self, run: Run) -> None:
        """Raise ValueError if this method cannot solve a run, as far as it can be told without running."""
        own, network, training = type(self).__name__, type(run.network).__name__, type(run.training).__name__
        if not isinstance(run.training, self.rules):
            raise ValueError(f"{own} solves {' and '.join(rule.__name__ for rule in self.rules)}, not {training}")
        if isinstance(run.training, OnlineSGD) != (run.problem.stream is not None):
            missing = "" if run.problem.stream is not None else ": give it Problem(X, y, stream=(X, y))"
            raise ValueError(f"OnlineSGD trains on the stream of a Problem, and no other rule does{missing}")
        for name, need in run.extras.items():
            if name not in self.takes:
                raise ValueError(f"{own} does not solve {need}: use March or FiniteWidth")
        if self.networks and network not in self.networks:
            raise ValueError(f"{own} solves {' and '.join(self.networks)}, not {network}: use March")
        if self.networks and not run.network.is_plain:  # type: ignore[attr-defined]
            raise ValueError(f"{own} solves {network} without biases, scales and widths: use March")

    @abstractmethod
    def solve(self, run: Run, progress: Report, checkpoint: Any = None) -> Solution | Status:
        """Returns the Solution, with the status of how the run ended; the status alone if there is nothing to keep.

        Args:
            run: that it supports.
            progress: to be called with (steps done, steps in all).
            checkpoint: where to keep what is done, of a method that does; None for nowhere.
        """

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Predictor | None:
        """Returns what a solved run had left to predict with, given the `info` of its Solution and its `arrays`.

        None if they are of an older version that this one cannot predict with.
        """
        raise ValueError(f"{type(self).__name__} does not predict at new points")
