"""How the numbers of a network in PyTorch change with its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kernelfield.parameterization import Drift, Numbers, drift
from kernelfield.torch.graph import trace
from kernelfield.torch.inputs import as_input
from kernelfield.torch.optimizer import read_optimizer
from kernelfield.torch.pieces import end_in_readout
from kernelfield.torch.tensors import Rows

WIDTHS = (128, 512)


def describe_scaling(make_model: Callable[[int], Any], example: Any, widths: Sequence[int] = WIDTHS) -> Drift:
    """Returns the powers of N with which every tensor starts and learns, and which of them are off muP.

    Args:
        make_model: width -> (model, optimizer), as for training.
        example: a few inputs as the model takes them.
        widths: two or more, at which models are made and their tensors measured.

    Returns:
        Drift: print it for a table; its `sentence` says what departs.

    Raises:
        ValueError: for a model that cannot be read, or models of different tensors.
    """
    numbers = []
    for width in widths:
        model, optimizer = make_model(width)
        numbers.append(read_numbers(model, optimizer, example))
    return drift(numbers)


def read_numbers(model: Any, optimizer: Any, example: Any) -> Numbers:
    """Returns the initialization, multiplier and learning rate of every tensor of a model, as they are."""
    path = end_in_readout(trace(model, as_input(model, example[:2])).path)
    return Rows(path.pieces, read_optimizer(optimizer), 1.0).numbers
