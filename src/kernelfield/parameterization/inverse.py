"""The gamma0 and eta of a network in muP."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernelfield.parameterization.numbers import Numbers, Row

AGREE = 1e-6  # relative difference between two tensors' values of the same number


@dataclass(frozen=True)
class MeanField:
    """A network in the terms of this library; scales multiply the initialization.

    Args:
        gamma0: feature-learning strength.
        learning_rate: eta, training time per step.
        weight_scales: sigma_w of all weights, bottom to top.
        bias_scales: sigma_b of all biases, bottom to top.
        weight_decay: lambda.
        input_scale: factor of X of the Problem.
    """

    gamma0: float
    learning_rate: float
    weight_scales: tuple[float, ...] = ()
    bias_scales: tuple[float, ...] = ()
    weight_decay: float = 0.0
    input_scale: float = 1.0


def from_mup(learning_rate: float, base_width: float = 1.0, output_multiplier: float = 1.0) -> MeanField:
    """Returns gamma0 and eta of a network in muP, from the numbers that do not change with its width.

        gamma0 = 1 / (output_multiplier sqrt(base_width))      eta = output_multiplier^2 base_width learning_rate

    Args:
        learning_rate: learning rate of SGD for hidden weights, at any width; `MuSGD` of the package mup takes it.
        base_width: the width at which the readout has this learning rate too and is multiplied by `output_multiplier`
            alone: in the package mup, that of the base shapes; 1 for the tables as they are printed.
        output_multiplier: multiplier of the output without the factors of the tables: `output_mult` of the package mup.

    Returns:
        MeanField without scales: sigma_w of the readout is the standard deviation that its weights have at the base
        width, times sqrt(base_width). Inputs and biases are not asked: see `from_numbers`.

    Raises:
        ValueError: an argument is not above 0.

    Source: arXiv:2203.03466, tables 3, 8 and 9, columns of SGD.

    Example:
        >>> from_mup(learning_rate=0.1, base_width=64).gamma0
        0.125
    """
    numbers = {"learning_rate": learning_rate, "base_width": base_width, "output_multiplier": output_multiplier}
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")
    strength = output_multiplier**2 * base_width
    return MeanField(gamma0=1 / math.sqrt(strength), learning_rate=strength * learning_rate)


def from_numbers(numbers: Numbers) -> MeanField:
    """Returns the network of this library that has these numbers, at their width and so at all widths.

    With S = multiplier std and R = multiplier^2 rate of each tensor and r = eta gamma0^2,

        output   eta = R fan_in                sigma = S gamma0 sqrt(N fan_in)
        hidden   r = R fan_in / N              sigma = S sqrt(fan_in)
        bias     r = R / N                     sigma = S
        input    input_scale^2 = R D / (N r)   sigma = S sqrt(D) / input_scale

    Without hidden weights r is that of a bias, or, with an input scale of one, of the input.

    Args:
        numbers: numbers of one readout, of one input and of any other tensors, in any form, that learn by SGD.

    Returns:
        MeanField with the scales of all weights and biases.

    Raises:
        ValueError: no gamma0 and eta give all learning rates (the message names a tensor and the rate that it needs),
            or the readout or the input is missing, or the numbers are those of Adam.
    """
    if numbers.betas is not None:
        raise ValueError("from_numbers takes learning rates of SGD, got those of Adam")
    rows = {kind: [row for row in numbers if row.kind == kind] for kind in ("input", "hidden", "output", "bias")}
    if len(rows["input"]) != 1 or len(rows["output"]) != 1:
        raise ValueError(f"numbers must have one input and one output, got {len(rows['input'])}, {len(rows['output'])}")
    (first,), (last,) = rows["input"], rows["output"]
    eta = last.multiplier**2 * last.learning_rate * last.fan_in
    moving = rows["hidden"] + rows["bias"]
    r = _strength(moving[0] if moving else first, numbers.width)
    for row in moving:
        need = row.learning_rate * r / _strength(row, numbers.width)
        if not math.isclose(row.learning_rate, need, rel_tol=AGREE):
            raise ValueError(
                f"the learning rate of {row.name} must be {need:.6g}, as that of {moving[0].name} has it, "
                f"got {row.learning_rate:.6g}: no gamma0 gives both"
            )
    decay = last.learning_rate * last.weight_decay
    for row in numbers:
        if not math.isclose(product := row.learning_rate * row.weight_decay, decay, rel_tol=AGREE):
            pair = f"{decay:.6g} for {last.name} and {product:.6g} for {row.name}"
            raise ValueError(f"learning rate times weight decay must be the same for all tensors, got {pair}")
    gamma0 = math.sqrt(r / eta)
    input_scale = math.sqrt(_strength(first, numbers.width) / r)
    return MeanField(
        gamma0=gamma0,
        learning_rate=eta,
        weight_scales=(
            first.multiplier * first.std * math.sqrt(first.fan_in) / input_scale,
            *(row.multiplier * row.std * math.sqrt(row.fan_in) for row in rows["hidden"]),
            last.multiplier * last.std * gamma0 * math.sqrt(numbers.width * last.fan_in),
        ),
        bias_scales=tuple(row.multiplier * row.std for row in rows["bias"]),
        weight_decay=decay / eta,
        input_scale=input_scale,
    )


def _strength(row: Row, width: int) -> float:
    """Returns eta gamma0^2 of a network whose hidden neurons have such a tensor."""
    return row.multiplier**2 * row.learning_rate * row.fan_in / width
