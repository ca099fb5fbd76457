"""The gamma0 and eta of a network in muP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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
        eps: of Adam, in units of its gradients here; None for SGD.
        scales: sigma of every tensor, by its name.
        relative_rates: learning rate of every tensor relative to that of training, by its name: one for all, but where
            tensors have rates of their own.
    """

    gamma0: float
    learning_rate: float
    weight_scales: tuple[float, ...] = ()
    bias_scales: tuple[float, ...] = ()
    weight_decay: float = 0.0
    input_scale: float = 1.0
    eps: float | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    relative_rates: Mapping[str, float] = field(default_factory=dict)


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


def from_numbers(numbers: Numbers, own_rates: bool = False) -> MeanField:
    """Returns the network of this library that has these numbers, at their width and so at all widths.

    With S = multiplier std and R = multiplier^2 rate of each tensor and r = eta gamma0^2, by SGD

        output   eta = R fan_in                sigma = S gamma0 sqrt(N fan_in)
        hidden   r = R fan_in / N              sigma = S sqrt(fan_in)
        bias     r = R / N                     sigma = S
        input    input_scale^2 = R D / (N r)   sigma = S sqrt(D) / input_scale

    and by Adam, with R = multiplier rate and r = eta gamma0, eta = R sqrt(N fan_in) of the output, r = R fan_in of
    hidden weights, r = R of biases, and input_scale = R D / r.

    Without hidden weights r is that of a bias, or, with an input scale of one, of the input.

    Args:
        numbers: numbers of one readout, of one input and of any other tensors, in any form.
        own_rates: whether every tensor may have a learning rate of its own, the `relative_rate` of its layer. Then r is
            that of the first hidden weights, or else of the input, whose data are not scaled.

    Returns:
        MeanField with the scales of all weights and biases.

    Raises:
        ValueError: no gamma0 and eta give all learning rates (the message names a tensor and the rate that it needs),
            or the readout or the input is missing.
    """
    rows = {kind: [row for row in numbers if row.kind == kind] for kind in ("input", "hidden", "output", "bias")}
    if len(rows["input"]) != 1 or len(rows["output"]) != 1:
        raise ValueError(f"numbers must have one input and one output, got {len(rows['input'])}, {len(rows['output'])}")
    (first,), (last,) = rows["input"], rows["output"]
    width, by_adam = numbers.width, numbers.betas is not None
    eta = _speed(last) * (math.sqrt(width * last.fan_in) if by_adam else last.fan_in)
    moving = rows["hidden"] + rows["bias"]
    reference = rows["hidden"][0] if rows["hidden"] else first if own_rates or not moving else moving[0]
    r = _strength(reference, width)
    for row in moving if not own_rates else ():
        need = row.learning_rate * r / _strength(row, width)
        if not math.isclose(row.learning_rate, need, rel_tol=AGREE):
            raise ValueError(
                f"the learning rate of {row.name} must be {need:.6g}, as that of {reference.name} has it, "
                f"got {row.learning_rate:.6g}: no gamma0 gives both"
            )
    decay = last.learning_rate * last.weight_decay
    for row in numbers:
        if not math.isclose(product := row.learning_rate * row.weight_decay, decay, rel_tol=AGREE):
            pair = f"{decay:.6g} for {last.name} and {product:.6g} for {row.name}"
            raise ValueError(f"learning rate times weight decay must be the same for all tensors, got {pair}")
    power = 1.0 if by_adam else 0.5
    gamma0 = (r / eta) ** power
    input_scale = 1.0 if own_rates else (_strength(first, width) / r) ** power
    root = {row.name: 1.0 if row.kind == "bias" else math.sqrt(row.fan_in) for row in numbers}
    root[first.name] /= input_scale
    root[last.name] *= gamma0 * math.sqrt(width)
    scales = {row.name: row.multiplier * row.std * root[row.name] for row in numbers}
    rates = {row.name: 1.0 if row is last else (_strength(row, width) / r) ** (2 * power) for row in numbers}
    return MeanField(
        gamma0=gamma0,
        learning_rate=eta,
        weight_scales=tuple(scales[row.name] for row in (first, *rows["hidden"], last)),
        bias_scales=tuple(scales[row.name] for row in rows["bias"]),
        weight_decay=decay / eta,
        input_scale=input_scale,
        eps=_eps(reference, width, gamma0) if by_adam else None,
        scales=scales,
        relative_rates=rates if own_rates else dict.fromkeys(rates, 1.0),
    )


def _speed(row: Row) -> float:
    """Returns the rate R at which the product of multiplier and weight learns."""
    return row.learning_rate * row.multiplier ** (2 if row.eps is None else 1)


def _strength(row: Row, width: int) -> float:
    """Returns eta gamma0^2, by Adam eta gamma0, of a network whose hidden neurons have such a tensor."""
    return _speed(row) * row.fan_in / (width if row.eps is None else 1)


def _eps(row: Row, width: int, gamma0: float) -> float:
    """Returns the eps of Adam in units of G, of a tensor below the readout."""
    return (row.eps or 0.0) / row.multiplier * gamma0 * width
