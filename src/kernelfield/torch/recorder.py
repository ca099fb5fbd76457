"""What a network in PyTorch makes while it trains, recorded from the training loop that it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelfield.describe.run import Run
from kernelfield.recording import Recording
from kernelfield.solution.solution import Solution
from kernelfield.torch.graph import trace
from kernelfield.torch.inputs import as_input
from kernelfield.torch.modules import HEADS
from kernelfield.torch.pieces import Piece, end_in_readout, flat, width_below


class Recorder:
    """Records predictions and features of a network at the steps of its training loop.

        recorder = Recorder(model, X)
        for step in range(steps):
            recorder.record(step)
            ...                                                # the update
        recorder.record(steps)
        own = recorder.solution(run)                           # a Solution, as `kernelfield.solve` returns

    Args:
        model: torch.nn.Module that `describe` can read.
        X: inputs of all points of the problem, those that train first and then those that do not, as the model takes
            them.
        centred: whether outputs are reported minus those at initialization, as in this library. Training on raw
            outputs that do not start at zero is not what the limit describes; see `describe`.
        gradients: whether gradient kernels are recorded too, of networks of one output.
    """

    def __init__(self, model: Any, X: Any, centred: bool = True, gradients: bool = False) -> None:
        self.model, self.X = model, as_input(model, X)
        graph = trace(model, self.X[:2])
        path = end_in_readout(graph.path)
        self.module = graph.module
        self.weights = [piece for piece in flat(path.pieces) if piece.kind in ("dense", "conv", "tokens")]
        self.gradients = gradients
        self.recording = Recording(width_below(path.pieces), centred)

    def record(self, step: int, features: bool = True) -> None:
        """Records the network before an update.

        Args:
            step: number of updates, or of epochs, before it: 0, 1, 2, ... without a gap.
            features: whether features are recorded, beside predictions.
        """
        import torch  # pyright: ignore[reportMissingImports]

        was_training = self.model.training
        try:
            with torch.enable_grad() if self.gradients else torch.no_grad():
                outputs, inputs, made = run_graph(self.module, self.X, self.weights)
                slopes = self._slopes(outputs, made) if self.gradients and features else None
        finally:
            self.model.train(was_training)
        fields = None
        if features:
            fields = [to_numpy(inputs[piece.name]) / piece.below for piece in self.weights[1:]]
        self.recording.add(step, to_numpy(outputs), fields, slopes)

    def solution(self, run: Run) -> Solution:
        """Returns the Solution of this network; `join` of several seeds."""
        return self.recording.solution(run)

    @staticmethod
    def join(recorders: Sequence[Recorder], run: Run) -> Solution:
        """Returns the Solution whose replicates are the networks of several recorders, one for each seed."""
        return Recording.join([recorder.recording for recorder in recorders], run)

    def _slopes(self, outputs: Any, made: dict[str, Any]) -> list[np.ndarray]:
        """Returns df / dh of the outputs of all weights below the readout, up to the factor N gamma0."""
        import torch  # pyright: ignore[reportMissingImports]

        if outputs.reshape(len(outputs), -1).shape[1] > 1:
            raise ValueError("gradients are recorded of networks of one output: leave gradients=False")
        hidden = self.weights[:-1]
        slopes = torch.autograd.grad(outputs.sum(), [made[piece.name] for piece in hidden])
        return [to_numpy(slope) / piece.above for slope, piece in zip(slopes, hidden, strict=True)]


def run_graph(module: Any, X: Any, weights: Sequence[Piece]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Returns the outputs of a traced network, and by the names of its weights what went in and what came out."""
    import torch  # pyright: ignore[reportMissingImports]

    names = {piece.name for piece in weights}
    inputs: dict[str, Any] = {}
    made: dict[str, Any] = {}

    class Listener(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            value = super().run_node(n)
            if n.name in names:
                inputs[n.name] = self.env[n.args[0]]
                made[n.name] = value
                if n.name + HEADS in names:
                    inputs[n.name + HEADS] = attend(self.fetch_attr(n.target), self.env[n.args[0]])
                    made[n.name + HEADS] = value[0]
            return value

    return Listener(module).run(X), inputs, made


def attend(attention: Any, x: Any) -> Any:
    """Returns what the heads of a torch.nn.MultiheadAttention make of x (P, positions, N), before its last weights."""
    import torch  # pyright: ignore[reportMissingImports]

    q, k, v = torch.nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    heads = [
        each.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2) for each in (q, k, v)
    ]  # (P, heads, positions, d)
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1]), dim=-1)
    return (weights @ heads[2]).transpose(1, 2).reshape(x.shape)


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor as an array in double precision."""
    return tensor.detach().cpu().double().numpy()
