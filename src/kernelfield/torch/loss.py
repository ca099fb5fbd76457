"""The loss of training in PyTorch, as a loss of this library and a factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernelfield.torch.words import Unreadable

MSE, CROSS_ENTROPY = ("MSELoss", "mse_loss"), ("CrossEntropyLoss", "cross_entropy")
BINARY = ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits")
MARGIN = ("SoftMarginLoss", "soft_margin_loss")


def read_loss(loss: Any, y: np.ndarray, outputs: np.ndarray) -> tuple[Any, float, np.ndarray]:
    """Returns the loss as a Problem takes it, the factor by which that of training is larger, and the targets.

    Args:
        loss: a name or a function as `kernelfield.Problem` takes it, or a loss of PyTorch.
        y: targets or labels.
        outputs: of the network (P, C).

    Raises:
        Unreadable: for options of the loss that have no counterpart here, or another number of targets.
    """
    P, C = outputs.shape
    kind = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if getattr(loss, "reduction", "mean") != "mean":
        raise Unreadable(f"{kind} must have reduction='mean'")
    if kind in (*CROSS_ENTROPY,) and C > 1:
        if getattr(loss, "label_smoothing", 0.0) or getattr(loss, "weight", None) is not None:
            raise Unreadable(f"{kind} with label_smoothing or weights has no counterpart here")
        targets = np.eye(C)[y.astype(int)] if y.ndim == 1 else y
        return "cross_entropy", 1.0, targets
    if y.size != P * C:
        raise Unreadable(f"targets must be as many as outputs, {P} times {C}, got shape {y.shape}")
    targets = y.reshape(P) if C == 1 else y.reshape(P, C)
    if kind in MSE:
        return "mse", 2.0 / C, targets
    if kind in BINARY and C == 1:
        return "logistic", 1.0, 2.0 * targets - 1
    if kind in MARGIN and C == 1:
        return "logistic", 1.0, targets
    if kind in (*MSE, *CROSS_ENTROPY, *BINARY, *MARGIN) and not isinstance(loss, str):
        raise Unreadable(f"{kind} of {C} outputs has no counterpart here")
    return loss, 1.0, targets
