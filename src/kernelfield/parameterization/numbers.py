"""One network at one width in each parameterization: initialization, multiplier and learning rate of every tensor.

All forms are the same function at every step. With multiplier m and learning rate l, SGD on a weight W knows only the
product m W, which starts with standard deviation m std and learns at rate m^2 l; so m is free, and

    std = (m std) / m      learning rate = (m^2 l) / m^2      weight decay = eta lambda / learning rate

where m std and m^2 l are those of the mean-field form, in which l = eta gamma0^2 N for all tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax

from kernelfield.describe.networks import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Descent
from kernelfield.layers.base import Layer, Stateless, uses
from kernelfield.layers.bias import Bias
from kernelfield.layers.readout import Readout
from kernelfield.layers.scaled import Scaled
from kernelfield.layers.weights import Weights

Kind = Literal["input", "hidden", "output", "bias"]
COLUMNS = ("tensor", "kind", "fan_in", "fan_out", "init std", "multiplier", "learning rate")


@dataclass(frozen=True)
class Row:
    """A tensor that starts as N(0, std^2), is multiplied by `multiplier` in use, and learns at `learning_rate`.

    Args:
        name: "W0", "W1", ... of what makes hidden layer 1, 2, ...; "b1", "b2", ... of their biases; "w" of the readout.
        kind: "input", "hidden", "output" or "bias".
        fan_in: numbers that enter each sum: of a convolution, channels times places of its window; 1 of a bias.
        fan_out: neurons, or outputs, that the tensor makes.
        std: at initialization.
        multiplier: in use.
        learning_rate: of SGD on the mean loss; a schedule multiplies it.
        weight_decay: of a decoupled optimizer, W <- (1 - learning_rate weight_decay) W; a schedule multiplies both.
    """

    name: str
    kind: Kind
    fan_in: int
    fan_out: int
    std: float
    multiplier: float
    learning_rate: float
    weight_decay: float = 0.0

    def multiplied_by(self, multiplier: float) -> Row:
        """The same function with another multiplier.

        Args:
            multiplier: above 0.
        """
        ratio = self.multiplier / multiplier
        return replace(
            self,
            multiplier=multiplier,
            std=self.std * ratio,
            learning_rate=self.learning_rate * ratio**2,
            weight_decay=self.weight_decay / ratio**2,
        )


@dataclass(frozen=True)
class Numbers:
    """A network of one width in one form; iterate over it for its rows, print it for a table.

    The network makes f = output - output at initialization, and learns from the mean loss of these f by
    v <- momentum v + gradient, W <- (1 - learning_rate weight_decay) W - learning_rate v, of each tensor its own.

    Args:
        form: what the form is called.
        width: N, neurons of the last hidden layer.
        rows: of all tensors, in the order in which they act.
        momentum: of SGD.
    """

    form: str
    width: int
    rows: tuple[Row, ...]
    momentum: float = 0.0

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        return {row.name: row for row in self.rows}[name]

    def __str__(self) -> str:
        decays = any(row.weight_decay for row in self.rows)
        cells = [[*COLUMNS, "weight decay"]]
        for row in self.rows:
            shape = [row.name, row.kind, str(row.fan_in), str(row.fan_out)]
            cells.append([*shape, *(f"{value:.6g}" for value in _values(row))])
        cells = [row[: len(COLUMNS) + decays] for row in cells]
        sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, sizes)).rstrip() for row in cells]
        momentum = f", momentum {self.momentum:g}" if self.momentum else ""
        return "\n".join([f"{self.form}, width {self.width}{momentum}", *lines])


def to_mean_field(network: Architecture, problem: Problem, training: Any, width: int) -> Numbers:
    """The form in which this library trains networks: std sigma_w, one learning rate eta gamma0^2 N for all tensors.

    Multipliers are 1 / sqrt(fan_in), and 1 / (gamma0 N) of the readout; they, not std, have the factor sigma_w where
    scales multiply weights in use.

    Args:
        network: what learns, MLP, CNN, ResNet or Network.
        problem: for the shape of its inputs and the number of its outputs.
        training: GradientDescent or SGD.
        width: N >= 1.

    Raises:
        ValueError: `training` has no learning rate, `width` is below one, or a layer is not known here.
    """
    return Numbers("mean-field", width, tuple(_native(network, problem, training, width)), training.momentum)


def to_mup(network: Architecture, problem: Problem, training: Any, width: int, table: Literal[3, 8, 9] = 3) -> Numbers:
    """muP, in one of the three forms of its tables: only 1 / gamma0 is left over, as a multiplier of the output.

    With sigma_w of each layer, r = eta gamma0^2 and D inputs, layers of one width N have (std, multiplier, rate)

        input    sigma / sqrt(D)   1   r N / D       of tables 3 and 8; 9: sigma / sqrt(N), sqrt(N / D), r
        bias     sigma             1   r N           of tables 3 and 8; 9: sigma / sqrt(N), sqrt(N), r
        hidden   sigma / sqrt(N)   1   r
        output   sigma / N         1 / gamma0             r / N      of table 3
                 sigma             1 / (gamma0 N)         r N        of table 8
                 sigma / sqrt(N)   1 / (gamma0 sqrt(N))   r          of table 9

    Scales that multiply weights in use are a factor sigma^2 of the rates of tables 3 and 8, and of table 9 a factor
    sigma of multipliers in place of std.

    Args:
        network, problem, training, width: see `to_mean_field`.
        table: 3, no multipliers but 1 / gamma0; 8, that of the package mup; 9, one learning rate for all tensors.

    Raises:
        ValueError: see `to_mean_field`; or there is no such table.

    Source: arXiv:2203.03466, tables 3, 8 and 9, columns of SGD.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(4), [1.0, -1.0, 1.0, -1.0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=10)
        >>> print(to_mup(kf.MLP(depth=2, gamma0=2.0), problem, training, width=100))
        muP (table 3), width 100
        tensor  kind    fan_in  fan_out  init std  multiplier  learning rate
        W0      input   4       100      0.5       1           50
        W1      hidden  100     100      0.1       1           2
        w       output  100     1        0.01      0.5         0.02
    """
    if table not in (3, 8, 9):
        raise ValueError(f"table must be 3, 8 or 9, got {table!r}")
    common = training_rate(training) * network.gamma0**2

    def multiplier(row: Row) -> float:
        if table == 9:
            return row.multiplier * math.sqrt(row.learning_rate / common)
        output = 1 / network.gamma0 if table == 3 else 1 / (network.gamma0 * row.fan_in)
        return output if row.kind == "output" else 1.0

    return _rewritten(to_mean_field(network, problem, training, width), f"muP (table {table})", multiplier)


def to_ntk(network: Architecture, problem: Problem, training: Any, width: int) -> Numbers:
    """The NTK form: std sigma_w, multipliers 1 / sqrt(fan_in), the output times alpha = 1 / (gamma0 sqrt(N)).

    The learning rate is eta / alpha^2 for all tensors. These are the numbers of `to_mean_field`: the two forms are one
    at any width, and differ in what is held fixed as N grows, gamma0 or alpha. The NTK limit is alpha = 1, which is
    gamma0 = 1 / sqrt(N).

    Args:
        network, problem, training, width: see `to_mean_field`.

    Raises:
        ValueError: see `to_mean_field`.

    Source: arXiv:1806.07572; of alpha, arXiv:1812.07956.
    """
    return replace(to_mean_field(network, problem, training, width), form="NTK")


def to_standard(network: Architecture, problem: Problem, training: Any, width: int) -> Numbers:
    """No multipliers: what plain layers need at this one width.

    Standard parameterization holds learning rates and sqrt(fan_in) std fixed as N grows; the same network at another
    width has other numbers, readouts of std sigma / (gamma0 N) and rates as N for the input and biases and as 1 / N for
    the readout. Its readout of std sigma / sqrt(N) is gamma0 = 1 / sqrt(N).

    Args:
        network, problem, training, width: see `to_mean_field`.

    Raises:
        ValueError: see `to_mean_field`.
    """
    return _rewritten(to_mean_field(network, problem, training, width), "standard", lambda row: 1.0)


def training_rate(training: Any) -> float:
    """eta of gradient descent in discrete time.

    Args:
        training: GradientDescent or SGD.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(training, Descent):
        raise ValueError(f"{type(training).__name__} has no learning rate of single steps: give GradientDescent or SGD")
    return training.learning_rate


def _rewritten(numbers: Numbers, form: str, multiplier: Callable[[Row], float]) -> Numbers:
    return replace(numbers, form=form, rows=tuple(row.multiplied_by(multiplier(row)) for row in numbers))


def _values(row: Row) -> tuple[float, ...]:
    return row.std, row.multiplier, row.learning_rate, row.weight_decay


def _native(network: Architecture, problem: Problem, training: Any, width: int) -> Iterator[Row]:
    """Rows in mean-field form, of layers in the order in which they act; weights used again have one row."""
    rate = training_rate(training) * network.gamma0**2 * width
    if not width >= 1:
        raise ValueError(f"width must be at least 1, got {width}")
    decay = training.weight_decay * training.learning_rate / rate
    shape, made, seen = network.inputs(problem).shape[1:], 0, set()
    for layer in uses(network.layers):
        below, shape = shape, _above(layer, shape, width)
        made += isinstance(layer, Weights)
        if isinstance(layer, Stateless) or id(layer) in seen:
            continue
        seen.add(id(layer))
        name, kind, fans, multiplier = _described(layer, below, shape, made)
        std, in_use = 1.0, 1.0
        if isinstance(layer, Scaled):
            std, in_use = (1.0, layer.scale) if layer.multiplies == "weight" else (layer.scale, 1.0)
        elif isinstance(layer, Bias):
            std = layer.scale
        if isinstance(layer, Readout):
            fans, multiplier = (fans[0], problem.outputs or 1), multiplier / network.gamma0
        yield Row(name, kind, *fans, std, multiplier * in_use, rate, decay)


def _described(
    layer: Layer, below: tuple[int, ...], above: tuple[int, ...], made: int
) -> tuple[str, Kind, tuple[int, int], float]:
    """Name, kind, (fan_in, fan_out) and multiplier of a tensor with scale one (of a readout times gamma0)."""
    if isinstance(layer, Bias):
        return f"b{made}", "bias", (1, above[-1]), 1.0
    if isinstance(layer, Readout):
        inputs = math.prod(below)
        return "w", "output", (inputs, 1), 1 / math.sqrt(inputs * below[-1])
    if isinstance(layer, Weights):
        inputs = layer.wiring(below[:-1]).places * below[-1]
        return f"W{made - 1}", "input" if made == 1 else "hidden", (inputs, above[-1]), 1 / math.sqrt(inputs)
    raise ValueError(f"numbers are known for Dense, Conv, Bias and Readout, got {type(layer).__name__}")


def _above(layer: Any, below: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Shape (*sites, channels) of what a layer makes, without drawing its weights."""
    found: list[tuple[int, ...]] = []

    def drawn(key: Any) -> Any:
        params, shape = layer.finite_init(key, below, width)
        found.append(shape)
        return params

    jax.eval_shape(drawn, jax.random.key(0))
    return found[0]
