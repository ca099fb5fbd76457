"""Inputs and outputs of a network in PyTorch, as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernelfield.torch.pieces import Path, Piece


def read_inputs(X: np.ndarray, path: Path) -> np.ndarray:
    """Returns inputs as a Problem has them: channels last, and token ids as rows of numbers."""
    first = path.pieces[0]
    if first.kind == "tokens":
        return encode(X, first)
    if first.kind == "dense":
        return X.reshape(len(X), -1)
    is_image = first.settings is not None  # of a convolution, and not of weights at every position
    return np.moveaxis(X, 1, -1) if is_image else X


def token_channels(piece: Piece) -> int:
    """Returns the number n of channels of encoded tokens: the vocabulary, and positions if they have an embedding."""
    positions = 0 if piece.bias is None else piece.bias.parameter.numel() // piece.neurons
    return piece.settings + positions


def encode(ids: np.ndarray, piece: Piece) -> np.ndarray:
    """Returns rows (P, positions, n) of token ids (P, positions): sqrt(n) for the token, and for the position."""
    n = token_channels(piece)
    rows = np.eye(piece.settings)[ids.astype(int)]
    if n > piece.settings:
        places = np.broadcast_to(np.eye(n - piece.settings)[: ids.shape[1]], (*ids.shape, n - piece.settings))
        rows = np.concatenate([rows, places], axis=-1)
    return rows * math.sqrt(n)


def as_array(values: Any) -> np.ndarray:
    """Returns a tensor or an array as an array."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def as_input(model: Any, X: Any) -> Any:
    """Returns inputs as a tensor of the type and on the device of a model; token ids stay whole numbers."""
    import torch  # pyright: ignore[reportMissingImports]

    parameter, tensor = next(model.parameters()), torch.as_tensor(as_array(X).copy())
    return tensor.to(parameter.device) if tensor.dtype in (torch.int32, torch.int64) else tensor.to(parameter)


def outputs_of(model: Any, X: Any) -> Any:
    """Returns the outputs of a model (P, C), without gradients."""
    import torch  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        outputs = model(as_input(model, X))
    return outputs.reshape(len(outputs), -1)
