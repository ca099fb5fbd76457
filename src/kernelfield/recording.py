"""Networks that were trained elsewhere, recorded step by step: any framework hands its arrays to a `Recording`.

    recording = Recording(width=512)
    recording.add(step, f, [phi_1, phi_2])  # before every update: f (P,), inputs of weights (P, ..., N)
    own = Recording.join([recording, ...], run) # one for each seed: a Solution like any other

`kernelfield.torch.Recorder` does this for networks in PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kernelfield.describe.run import Run
from kernelfield.finite.method import FiniteWidth
from kernelfield.layers.base import uses
from kernelfield.layers.weights import Weights
from kernelfield.solution.factors import Factor, compressed, slim, stacked
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.solution import Solution

LEFT_OUT = 1e-7  # variance, relative, that factors of kernels leave out


class Recording:
    """What one network of finite width made in training.

    Args:
        width: N, neurons of its last hidden layer.
        centred: whether outputs are reported minus those of the first step, as in this library.

    Example:
        >>> import numpy as np
        >>> recording = Recording(width=16)
        >>> recording.add(0, np.zeros(3), [np.ones((3, 16))])
        >>> recording.steps
        [0]
    """

    def __init__(self, width: int, centred: bool = True) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.width, self.centred = width, centred
        self.steps: list[int] = []
        self.kernel_steps: list[int] = []
        self._outputs: list[np.ndarray] = []
        self._features: list[list[np.ndarray]] = []
        self._gradients: list[list[np.ndarray]] = []

    def add(self, step: int, predictions: Any, features: Sequence[Any] | None = None, gradients: Any = None) -> None:
        """Adds what a network makes before an update.

        Args:
            step: number of updates (of epochs, where the rows of a Solution count epochs) before it: 0, 1, 2, ...
            predictions: outputs f of all points of the problem, (P,) or (P, C).
            features: inputs of all weights above the first, bottom to top, the readout's included: (P, ..., neurons)
                each, or (P, neurons, ...); None at steps whose kernels are not kept.
            gradients: df / dh of the outputs h of all weights below the readout, shaped as those, of one output f; None
                for none. The Solution has them times gamma0 N, as the theory does.

        Raises:
            ValueError: a step is missing, or shapes differ from those before.
        """
        if step != len(self.steps):
            raise ValueError(f"steps must follow each other from 0 on: {len(self.steps)} comes next, got {step}")
        f = np.array(predictions, np.float64)
        f = f.reshape(len(f), -1)
        if not np.isfinite(f).all():
            raise ValueError(f"predictions of step {step} are not finite: training diverged")
        if self._outputs and f.shape != self._outputs[0].shape:
            raise ValueError(f"predictions must be shaped as before, {self._outputs[0].shape}, got {f.shape}")
        if gradients is not None and features is None:
            raise ValueError("gradients are kept at steps with features: give both")
        if features is not None:
            rows = [_rows(field, len(f)) for field in features]
            self._check(rows, self._features, "features")
            self._features.append(rows)
            self.kernel_steps.append(step)
            if gradients is not None:
                rows = [_rows(field, len(f)) for field in gradients]
                self._check(rows, self._gradients, "gradients")
                self._gradients.append(rows)
        self.steps.append(step)
        self._outputs.append(f)

    @staticmethod
    def _check(rows: list[np.ndarray], before: list[list[np.ndarray]], name: str) -> None:
        shapes = [row.shape for row in rows]
        if before and shapes != (expected := [row.shape for row in before[0]]):
            raise ValueError(f"{name} must be shaped as before, {expected}, got {shapes}")

    def solution(self, run: Run) -> Solution:
        """Returns the Solution of this one network; see `join`."""
        return self.join([self], run)

    @staticmethod
    def join(recordings: Sequence[Recording], run: Run) -> Solution:
        """Returns the Solution whose replicates are networks of one width, each with its own random start.

        Args:
            recordings: one for each network.
            run: what they learned and how; its kernels are those of the steps that were recorded.

        Raises:
            ValueError: widths or recorded steps differ, or do not fit the run.
        """
        if not recordings:
            raise ValueError("recordings must be one or more, got none")
        first = recordings[0]
        for each in recordings:
            if (each.width, each.kernel_steps) != (first.width, first.kernel_steps):
                raise ValueError("recordings must be of one width, with features at the same steps")
        count = min(len(each.steps) for each in recordings)
        problem, layers = run.problem, run.network.hidden_layers
        shape = (problem.points, problem.outputs)
        if not count or first._outputs[0].shape != shape:
            got = first._outputs[0].shape if count else "no steps"
            raise ValueError(f"predictions must be of the points and outputs of the run, {shape}, got {got}")
        if count > run.steps + 1:
            raise ValueError(f"the run has {run.steps} {run.training.unit}s, recorded were {count - 1}")
        kept = tuple(step for step in first.kernel_steps if step < count)
        if kept and len(first._features[0]) != layers:
            raise ValueError(
                f"features must be those of {layers} hidden layers, the inputs of all weights above the first, "
                f"got {len(first._features[0])}"
            )
        f = np.stack([np.stack(each._outputs[:count]) for each in recordings])
        f = f - f[:, :1] if first.centred else f
        features = _factors([each._features[: len(kept)] for each in recordings]) if kept else None
        has_gradients = bool(kept) and all(len(each._gradients) == len(each._features) for each in recordings)
        unit, gradients = first.width * run.network.gamma0, None
        if has_gradients:
            slopes = [
                [[unit * slope for slope in step] for step in each._gradients[: len(kept)]] for each in recordings
            ]
            gradients = _factors(slopes, [round(first.width * width) for width in _widths(run)])
        kinds = "none" if features is None else "all" if gradients is not None else "features"
        method = FiniteWidth(width=first.width, seeds=len(recordings), kernels=kinds)
        steps = None if len(kept) == count else kept
        return Solution(
            replace(run, method=method, save_at=steps),
            f,
            network_kernels(problem, features, gradients, None, steps),
            info={"width": first.width, "seeds": len(recordings), "recorded": True},
        )


def _widths(run: Run) -> list[float]:
    """Returns the widths of the outputs of all weights below the readout, relative to the last layer's."""
    return [layer.width for layer in uses(run.network.layers) if isinstance(layer, Weights)]


def _rows(field: Any, points: int) -> np.ndarray:
    """Returns a field of one layer as an array; raises ValueError if it has other points, or is not finite."""
    values = np.array(field, np.float32)
    if values.ndim < 2 or len(values) != points:
        raise ValueError(f"features must be arrays (P, ..., neurons) of {points} points, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("features are not finite: training diverged")
    return values


def _factors(fields: list[list[list[np.ndarray]]], neurons: Sequence[int] = ()) -> list[Factor]:
    """Returns factors of kernels by layer, of fields by recording, step and layer.

    Kernels are means over sites and neurons; where numbers of neurons are given, sums over sites.
    """
    factors = []
    for layer in range(len(fields[0][0])):
        networks = [np.stack([step[layer] for step in network]) for network in fields]  # (t, P, ..., n) each
        rows = [network.reshape(1, *network.shape[:2], -1) for network in networks]
        sites = rows[0].shape[-1] / neurons[layer] if neurons else 1.0
        whole = stacked([compressed(each, LEFT_OUT) for each in rows]) * np.sqrt(np.float32(sites))
        factors.append(slim(whole, LEFT_OUT))
    return factors
