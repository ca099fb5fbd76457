"""The tensors of a network in PyTorch: how each starts, what multiplies it, and how fast it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kernelfield.parameterization import Numbers, Row, drift
from kernelfield.torch.inputs import token_channels
from kernelfield.torch.optimizer import Rule
from kernelfield.torch.pieces import Piece, Tensor, flat, width_below
from kernelfield.torch.words import Unreadable

KNOWN_SCALES = (1.0, math.sqrt(2.0), 1 / math.sqrt(3.0), 1 / math.sqrt(2.0))  # muP, He, PyTorch's Linear and attention
NEAR = 3.0  # standard errors of a measured standard deviation within which it is taken to be a known one
HEAVY = 4.0  # standard errors of the kurtosis by which weights are not Gaussian


@dataclass(frozen=True, eq=False)
class Use:
    """A tensor in use, with the kind and the numbers of its row."""

    tensor: Tensor
    kind: Literal["input", "hidden", "output", "bias"]
    fan_in: int
    neurons: int
    is_gain: bool = False
    sums: tuple[int, ...] = ()  # numbers n of which 1 / sqrt(n) may be the standard deviation


class Rows:
    """The rows of all tensors of a network."""

    def __init__(self, pieces: Sequence[Piece], rule: Rule, factor: float) -> None:
        self.width, self.rule, self.factor = width_below(pieces), rule, factor
        self.not_gaussian: list[str] = []
        self.tensors: dict[int, Use] = {}
        for use in self._uses(pieces):
            before = self.tensors.setdefault(id(use.tensor.parameter), use)
            same = before.kind == use.kind and math.isclose(before.tensor.multiplier, use.tensor.multiplier)
            if not same:
                raise Unreadable(
                    f"{use.tensor.name} is used twice, as {before.kind} and {use.kind} or times two factors"
                )
        rows = tuple(self._row(use) for use in self.tensors.values())
        self.numbers = Numbers("PyTorch", self.width, rows, rule.momentum, rule.betas)

    @property
    def notes(self) -> list[str]:
        """A sentence about tensors that are not Gaussian, whose distribution the limit keeps; none without any."""
        if not self.not_gaussian:
            return []
        names = ", ".join(self.not_gaussian)
        verb = "does" if len(self.not_gaussian) == 1 else "do"
        return [f"{names} {verb} not start Gaussian: the limit here has Gaussian weights of the same variance"]

    def _uses(self, pieces: Sequence[Piece]) -> Iterator[Use]:
        for place, piece in enumerate(flat(pieces)):
            last = piece is pieces[-1]
            if piece.weight is not None and piece.kind == "norm":
                yield Use(piece.weight, "bias", 1, piece.neurons, is_gain=True)
            elif piece.weight is not None and piece.kind == "tokens":
                yield from self._token_uses(piece)
                continue
            elif piece.weight is not None:
                kind = "output" if last else "hidden" if place else "input"
                yield Use(piece.weight, kind, piece.weight.slots, piece.neurons, sums=sums_of(piece.weight))
            if piece.bias is not None:
                if last:
                    raise Unreadable(
                        f"{piece.bias.name} is a bias of the readout, which networks here do not have: take bias=False"
                    )
                if self._rests(piece.bias) and not bool(piece.bias.parameter.any()):
                    continue  # zero, and stays so
                yield Use(piece.bias, "bias", 1, piece.neurons, sums=sums_of(piece.weight))

    def _token_uses(self, piece: Piece) -> Iterator[Use]:
        """Yields the embedding of tokens, in units in which tokens and positions together are an input of n numbers."""
        assert piece.weight is not None
        weight, positions = piece.weight, piece.bias
        n = token_channels(piece)
        yield Use(replace(weight, multiplier=weight.multiplier / math.sqrt(n)), "input", n, piece.neurons, sums=(1,))
        if positions is None:
            return
        one, other = self._numbers_of(weight), self._numbers_of(positions)
        stds = [float(tensor.parameter.detach().float().std()) for tensor in (weight, positions)]
        spread = stds[0] / math.sqrt(2 * positions.parameter.numel())
        if one != other or abs(stds[0] - stds[1]) > NEAR * 1.5 * spread:
            raise Unreadable(f"{positions.name} must start and learn as {weight.name}, the embedding of tokens, does")

    def _rests(self, tensor: Tensor) -> bool:
        return not tensor.parameter.requires_grad or id(tensor.parameter) not in self.rule.rates

    def _numbers_of(self, tensor: Tensor) -> tuple[float, float, float | None]:
        if self._rests(tensor) or self.rule.rates[id(tensor.parameter)][0] == 0:
            raise Unreadable(f"{tensor.name} does not train: every tensor must be among the optimizer's parameters")
        return self.rule.rates[id(tensor.parameter)]

    def _row(self, use: Use) -> Row:
        rate, decay, eps = self._numbers_of(use.tensor)
        rate, decay = rate * self.factor, decay / self.factor
        values = use.tensor.parameter.detach().double().cpu().numpy()
        if use.is_gain and decay:
            raise Unreadable(f"weight decay takes the gain {use.tensor.name} to zero, here it would take it to one")
        std = 0.0 if use.is_gain else float(np.sqrt(np.mean(values**2)))
        std = recognize(std, values.size, use.sums)
        if std > 0 and not use.is_gain and use.kind != "hidden":
            kurtosis = float(np.mean(values**4) / np.mean(values**2) ** 2)
            if values.size > 30 and abs(kurtosis - 3) > HEAVY * math.sqrt(24 / values.size):
                self.not_gaussian.append(use.tensor.name)
        name, multiplier = use.tensor.name, abs(use.tensor.multiplier)
        return Row(name, use.kind, use.fan_in, use.neurons, std, multiplier, rate, decay, eps)


def sums_of(weight: Tensor | None) -> tuple[int, ...]:
    """Returns the numbers n of which 1 / sqrt(n) may be a standard deviation: fan_in, and that of the base shape."""
    if weight is None:
        return ()
    infshape = getattr(weight.parameter, "infshape", None)  # of the package mup
    if infshape is None:
        return weight.slots, weight.slots**2, 1
    sizes = zip(infshape.base_shape(), weight.parameter.shape, strict=True)
    return math.prod([here if base is None else base for base, here in sizes][1:]), weight.slots, 1


def recognize(std: float, count: int, sums: Sequence[int]) -> float:
    """Returns the known standard deviation that a measured one of `count` numbers cannot be told from, or itself."""
    known = [scale / math.sqrt(n) for scale in KNOWN_SCALES for n in sums]
    near = min(known, key=lambda value: abs(value - std), default=math.inf)
    return near if abs(near - std) <= NEAR * std / math.sqrt(2 * count) else std


def check_scaling(rows: Rows) -> None:
    """Raises Unreadable if plain layers have one learning rate, which is standard parameterization and has no limit."""
    numbers, tensors = rows.numbers, [use.tensor for use in rows.tensors.values()]
    plain = all(tensor.multiplier == 1 and not hasattr(tensor.parameter, "infshape") for tensor in tensors)
    if plain and len({row.learning_rate for row in numbers}) == 1 and len(numbers.rows) > 1:
        raise Unreadable(
            "plain layers with one learning rate are standard parameterization, which has no limit that learns "
            f"features: {drift(numbers).sentence} (parameterization='muP' describes what muP makes of it from this "
            "width on)"
        )
