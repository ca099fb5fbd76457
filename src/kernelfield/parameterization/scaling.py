"""How far a parameterization is from muP: with which powers of the width its tensors start and learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernelfield.parameterization.numbers import Numbers, Row

TOLERANCE = 0.1  # of a power of N that is measured; standard deviations of weights are known to a few percent
NOISE = 3.0  # standard errors of a measured power that do not count
# powers of N of size (multiplier std) and speed (multiplier^2 rate by SGD, multiplier rate by Adam) of each kind
MUP_SGD = {"input": (0.0, 1.0), "hidden": (-0.5, 0.0), "output": (-1.0, -1.0), "bias": (0.0, 1.0)}
MUP_ADAM = {"input": (0.0, 0.0), "hidden": (-0.5, -1.0), "output": (-1.0, -1.0), "bias": (0.0, 0.0)}
STANDARD = {"input": (0.0, 0.0), "hidden": (-0.5, 0.0), "output": (-0.5, 0.0), "bias": (0.0, 0.0)}  # one rate


@dataclass(frozen=True)
class TensorDrift:
    """The powers of N with which a tensor starts and learns, and those that it has in muP.

    Args:
        name: of the tensor.
        kind: "input", "hidden", "output" or "bias".
        size: power of multiplier times std; None of a tensor that starts at zero.
        speed: power of its learning rate, times multiplier^2 by SGD and times the multiplier by Adam.
        mup_size, mup_speed: the same in muP.
    """

    name: str
    kind: str
    size: float | None
    speed: float
    mup_size: float
    mup_speed: float

    @property
    def faults(self) -> list[str]:
        """What departs from muP, in words; none if nothing does."""
        faults = []
        excess = 0.0 if self.size is None else self.size - self.mup_size
        # biases may shrink: they leave no trace in the limit
        if abs(excess) > TOLERANCE and not (self.kind == "bias" and excess < 0):
            faults.append(f"starts {_power(excess)} too {'large' if excess > 0 else 'small'}")
        if abs(excess := self.speed - self.mup_speed) > TOLERANCE:
            faults.append(f"learns {_power(excess)} too {'fast' if excess > 0 else 'slowly'}")
        return faults


@dataclass(frozen=True)
class Drift:
    """The drift of all tensors of a network as it grows wider. Print it for a table.

    Args:
        tensors: one for each tensor, in the order in which they act.
        widths: at which it was measured; none where it is that of standard parameterization.
    """

    tensors: tuple[TensorDrift, ...]
    widths: tuple[int, ...] = ()

    @property
    def departing(self) -> list[TensorDrift]:
        """The tensors that depart from muP."""
        return [tensor for tensor in self.tensors if tensor.faults]

    @property
    def sentence(self) -> str:
        """One sentence about what departs from muP, the readout first."""
        order = sorted(self.departing, key=lambda tensor: tensor.kind != "output")
        if not order:
            return "all tensors start and learn as in muP: the network has a limit in which it learns features"
        parts = [f"{tensor.name} {' and '.join(tensor.faults)}" for tensor in order]
        return f"as the width N grows, {', '.join(parts)}"

    def __str__(self) -> str:
        cells = [["tensor", "kind", "size", "in muP", "speed", "in muP", ""]]
        for tensor in self.tensors:
            size = "-" if tensor.size is None else _power(tensor.size)
            powers = size, _power(tensor.mup_size), _power(tensor.speed), _power(tensor.mup_speed)
            cells.append([tensor.name, tensor.kind, *powers, " and ".join(tensor.faults)])
        lengths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, lengths)).rstrip() for line in cells)


def drift(numbers: Numbers | Sequence[Numbers]) -> Drift:
    """Returns the powers of N of all tensors, and which depart from muP.

    Args:
        numbers: one network at several widths, whose powers are measured; or at a single width, whose powers are taken
            to be those of standard parameterization: sqrt(fan_in) std, multipliers and learning rates stay fixed.

    Returns:
        Drift; its `sentence` says what departs.

    Raises:
        ValueError: the widths are equal, or the networks have different tensors.

    Source: arXiv:2203.03466, tables 3 and 8; arXiv:2011.14522.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(4), [1.0, -1.0, 1.0, -1.0])
        >>> args = kf.MLP(depth=2), problem, kf.GradientDescent(learning_rate=0.5, steps=10)
        >>> from kernelfield.parameterization import to_mup
        >>> drift([to_mup(*args, width=width) for width in (64, 256)]).departing
        []
    """
    if isinstance(numbers, Numbers):
        mup = _mup(numbers)
        return Drift(tuple(_tensor(row, STANDARD[row.kind], mup) for row in numbers))
    widths = tuple(each.width for each in numbers)
    if len(set(widths)) < 2:
        raise ValueError(f"numbers must be of two different widths or more, got {widths}")
    names = [[row.name for row in each] for each in numbers]
    if any(each != names[0] for each in names):
        raise ValueError("numbers must be of the same tensors at all widths")
    tensors = []
    for rows in zip(*numbers, strict=True):
        sizes = [row.multiplier * row.std for row in rows]
        speeds = [row.learning_rate * row.multiplier ** (2 if row.eps is None else 1) for row in rows]
        size = _slope(widths, sizes) if min(sizes) > 0 else math.nan
        expected = _mup(numbers[0])[rows[0].kind][0]
        entries = min(row.fan_out * (1 if row.kind == "bias" else row.fan_in) for row in rows)
        noise = math.sqrt(1 / entries) / math.log(max(widths) / min(widths))  # of two measured standard deviations
        size = expected if abs(size - expected) < max(TOLERANCE, NOISE * noise) else size
        tensors.append(_tensor(rows[0], (size, _slope(widths, speeds)), _mup(numbers[0])))
    return Drift(tuple(tensors), widths)


def _mup(numbers: Numbers) -> dict[str, tuple[float, float]]:
    return MUP_SGD if numbers.betas is None else MUP_ADAM


def _tensor(row: Row, powers: tuple[float, float], mup: dict[str, tuple[float, float]]) -> TensorDrift:
    """Returns the drift of a tensor with powers of size, NaN if it starts at zero, and speed."""
    known = row.std > 0 and not math.isnan(powers[0])
    return TensorDrift(row.name, row.kind, powers[0] if known else None, powers[1], *mup[row.kind])


def _slope(widths: Sequence[int], values: Sequence[float]) -> float:
    """Returns the power of N with which values > 0 grow."""
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def _power(exponent: float) -> str:
    """Returns N to a power, to a tenth."""
    rounded = round(exponent, 1) or 0.0
    return "1" if rounded == 0 else "N" if rounded == 1 else f"N^{rounded:g}"
