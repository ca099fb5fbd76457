"""One network at one width in each parameterization: initialization, multiplier and learning rate of every tensor.

All forms are the same function at every step. With multiplier m and learning rate l, SGD on a weight W knows only the
product m W, which starts with standard deviation m std and learns at rate m^2 l; so m is free, and

    std = (m std) / m      learning rate = (m^2 l) / m^2      weight decay = eta lambda / learning rate

where m std and m^2 l are those of the mean-field form, in which l = eta gamma0^2 N for all tensors.

Adam divides gradients, which are proportional to m, by their size. It depends on m std, m l and eps / m, and

    std = (m std) / m      learning rate = (m l) / m          eps = m (eps / m)

where l = eta gamma0 / sqrt(n) in the mean-field form, and eps there is eps / (gamma0 N sqrt(n)), with n = fan_in for
input and hidden weights, and 1 for readout and biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Literal

from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Adam, Descent, Langevin, Training
from kernelfield.layers.base import Layer, Space, Stateless, uses
from kernelfield.layers.vectors import Bias, NeuronWeights, Readout
from kernelfield.layers.weights import Scaled, Weights

Kind = Literal["input", "hidden", "output", "bias"]
COLUMNS = ("tensor", "kind", "fan_in", "fan_out", "init std", "multiplier", "learning rate")


@dataclass(frozen=True)
class Row:
    """A tensor that starts as N(0, std^2), is multiplied by `multiplier` in use, and learns at `learning_rate`.

    Args:
        name: "W0", "W1", ... for weights of hidden layer 1, 2, ...; "b1", "b2", ... for biases; "w" for the readout.
        kind: "input", "hidden", "output" or "bias".
        fan_in: numbers that enter each sum: channels times places of the window of a convolution; 1 for a bias.
        fan_out: number of neurons, or outputs, that the tensor makes.
        std: standard deviation at initialization.
        multiplier: multiplier in use.
        learning_rate: learning rate of SGD, or of Adam, on the mean loss; a schedule multiplies it.
        weight_decay: decoupled weight decay, W <- (1 - learning_rate weight_decay) W; a schedule multiplies both.
        eps: eps of Adam, in units of the gradient of this tensor; None for SGD.
    """

    name: str
    kind: Kind
    fan_in: int
    fan_out: int
    std: float
    multiplier: float
    learning_rate: float
    weight_decay: float = 0.0
    eps: float | None = None

    def multiplied_by(self, multiplier: float) -> Row:
        """Returns a row of the same function with another multiplier > 0."""
        ratio = self.multiplier / multiplier
        speed = ratio**2 if self.eps is None else ratio
        return replace(
            self,
            multiplier=multiplier,
            std=self.std * ratio,
            learning_rate=self.learning_rate * speed,
            weight_decay=self.weight_decay / speed,
            eps=None if self.eps is None else self.eps / ratio,
        )


@dataclass(frozen=True)
class Numbers:
    """A network of one width in one form; iterate over it for its rows, print it for a table.

    The network makes f = output - output at initialization, and learns from the mean loss of these f by
    v <- momentum v + gradient, W <- (1 - learning_rate weight_decay) W - learning_rate v, by the row of each tensor. By
    Adam, v is mhat / (sqrt(vhat) + eps) of the gradient: a parameter group of `torch.optim.AdamW` has such a row.

    Args:
        form: name of the form.
        width: N, neurons of the last hidden layer.
        rows: rows of all tensors, in the order in which they act.
        momentum: momentum of SGD.
        betas: b1 and b2 of Adam; None for SGD.
    """

    form: str
    width: int
    rows: tuple[Row, ...]
    momentum: float = 0.0
    betas: tuple[float, float] | None = None

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        return {row.name: row for row in self.rows}[name]

    def __str__(self) -> str:
        more = {"weight decay": any(row.weight_decay for row in self.rows), "eps": self.betas is not None}
        cells = [[*COLUMNS, *(name for name, is_shown in more.items() if is_shown)]]
        for row in self.rows:
            values, shown = astuple(row), [True] * len(COLUMNS) + list(more.values())
            numbers = [f"{value:.6g}" for value, is_shown in zip(values[4:], shown[4:], strict=True) if is_shown]
            cells.append([*map(str, values[:4]), *numbers])
        sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, sizes)).rstrip() for line in cells]
        settings = f", momentum {self.momentum:g}" if self.momentum else ""
        if self.betas is not None:
            settings = ", Adam with betas {:g} and {:g}".format(*self.betas)
        return "\n".join([f"{self.form}, width {self.width}{settings}", *lines])


def to_mean_field(network: Architecture, problem: Problem, training: Training, width: int) -> Numbers:
    """Returns the form in which this library trains networks: std sigma_w, and a learning rate of all tensors.

    The learning rate is eta gamma0^2 N. Multipliers are 1 / sqrt(fan_in), and 1 / (gamma0 N) for the readout; they, not
    std, have the factor sigma_w where scales multiply weights in use. Adam has the learning rate eta gamma0 / sqrt(n)
    and eps / (gamma0 N sqrt(n)), with n = fan_in for input and hidden weights and 1 for readout and biases.

    Args:
        network: MLP, CNN, ResNet, Transformer or Network.
        problem: the problem, for the shape of its inputs and the number of its outputs.
        training: GradientDescent, SGD, Adam, AdamW or SignDescent.
        width: N >= 1.

    Raises:
        ValueError: `training` has no learning rate, noise, or a learning rule in place of gradients; `width` is below
            one; or a layer is not known here.
    """
    if not isinstance(training, Descent):
        raise ValueError(f"{type(training).__name__} has no learning rate of single steps: give GradientDescent or SGD")
    if isinstance(training, Langevin):
        raise ValueError(
            "Langevin adds noise to weights, which these numbers do not have: give GradientDescent or Adam"
        )
    if (rule := getattr(training, "rule", None)) is not None:
        raise ValueError(
            f"these numbers are for training along gradients, not by {type(rule).__name__}: give rule=None"
        )
    if not width >= 1:
        raise ValueError(f"width must be at least 1, got {width}")
    eta, gamma0 = training.learning_rate, network.gamma0
    *sites, channels = network.inputs(problem).shape[1:]
    space, number, rows = Space(None, tuple(sites), channels), 0, {}
    for layer in uses(network.layers):
        below, space = _shape(space, width), layer.space_above(space)
        shape = _shape(space, width)
        number += isinstance(layer, Weights)
        if isinstance(layer, Stateless) or id(layer) in rows:  # weights used again have one row
            continue
        name, kind, fans, multiplier = _describe(layer, below, shape, number)
        if isinstance(layer, Readout):
            fans, multiplier = (fans[0], problem.outputs), multiplier / network.gamma0
        std = 1.0
        if isinstance(layer, (Scaled, NeuronWeights)):
            multiplier, std = multiplier * layer.multiplier, layer.scale / layer.multiplier
        rate, eps = eta * gamma0**2 * width, None
        if isinstance(training, Adam):
            root = math.sqrt(fans[0]) if isinstance(layer, Weights) else 1.0
            rate, eps = eta * gamma0 / root, training.eps / (gamma0 * width * root)
        decay = eta * training.weight_decay / rate
        if not getattr(layer, "learns", True):
            if decay:
                raise ValueError("weights that do not learn have no learning rate here for weight decay: give none")
            rate = 0.0
        rows[id(layer)] = Row(name, kind, *fans, std, multiplier, rate, decay, eps)
    momentum, betas = getattr(training, "momentum", 0.0), getattr(training, "betas", None)
    return Numbers("mean-field", width, tuple(rows.values()), momentum, betas)


def to_mup(
    network: Architecture, problem: Problem, training: Training, width: int, table: Literal[3, 8, 9] = 3
) -> Numbers:
    """Returns muP, in one of the three forms of its tables; 1 / gamma0 multiplies the output.

    With sigma_w of each layer, r = eta gamma0^2 and D inputs, layers of one width N have (std, multiplier, rate)

        input    sigma / sqrt(D)   1   r N / D       of tables 3 and 8; 9: sigma / sqrt(N), sqrt(N / D), r
        bias     sigma             1   r N           of tables 3 and 8; 9: sigma / sqrt(N), sqrt(N), r
        hidden   sigma / sqrt(N)   1   r
        output   sigma / N         1 / gamma0             r / N      of table 3
                 sigma             1 / (gamma0 N)         r N        of table 8
                 sigma / sqrt(N)   1 / (gamma0 sqrt(N))   r          of table 9

    Scales that multiply weights in use are a factor sigma^2 of the rates of tables 3 and 8, and of table 9 a factor
    sigma of multipliers in place of std; of Adam the rates have a factor sigma, and eps a factor 1 / sigma.

    By Adam, std and multipliers are the same, and with r = eta gamma0 and e = eps / gamma0 (rate, eps) are

                 table 3                 table 8                 table 9
        input    r / D        e / N      r / D        e / N      r / sqrt(D N)   e / sqrt(D N)
        bias     r            e / N      r            e / N      r / sqrt(N)     e / sqrt(N)
        hidden   r / N        e / N      r / N        e / N      r / N           e / N
        output   r / N        e          r            e / N      r / sqrt(N)     e / sqrt(N)

    Args:
        network, problem, training, width: see `to_mean_field`.
        table: 3, no multipliers but 1 / gamma0; 8, the form of the package mup; 9, one learning rate of SGD for all
            tensors.

    Raises:
        ValueError: see `to_mean_field`; or there is no such table.

    Source: arXiv:2203.03466, tables 3, 8 and 9, columns of SGD and of Adam.

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
    numbers = to_mean_field(network, problem, training, width)

    def multiplier(row: Row) -> float:
        if table == 9:
            return row.multiplier * math.sqrt(width)
        output = 1 / network.gamma0 if table == 3 else 1 / (network.gamma0 * row.fan_in)
        return output if row.kind == "output" else 1.0

    return _rewrite(numbers, f"muP (table {table})", multiplier)


def to_ntk(network: Architecture, problem: Problem, training: Training, width: int) -> Numbers:
    """Returns the NTK form: std sigma_w, multipliers 1 / sqrt(fan_in), the output times alpha = 1 / (gamma0 sqrt(N)).

    The learning rate of SGD is eta / alpha^2 for all tensors. These are the numbers of `to_mean_field`: the two forms
    are one at any width, and differ in the number that is held fixed as N grows, gamma0 or alpha. The NTK limit is
    alpha = 1, which is gamma0 = 1 / sqrt(N). Arguments and errors are those of `to_mean_field`.

    Source: arXiv:1806.07572, and arXiv:1812.07956 for alpha.
    """
    return replace(to_mean_field(network, problem, training, width), form="NTK")


def to_standard(network: Architecture, problem: Problem, training: Training, width: int) -> Numbers:
    """Returns the form without multipliers: the numbers that plain layers need at this one width.

    Standard parameterization holds learning rates and sqrt(fan_in) std fixed as N grows; the same network at another
    width has other numbers, readouts of std sigma / (gamma0 N) and rates as N for the input and biases and as 1 / N for
    the readout. Its readout of std sigma / sqrt(N) is gamma0 = 1 / sqrt(N). Arguments and errors are those of
    `to_mean_field`.
    """
    return _rewrite(to_mean_field(network, problem, training, width), "standard", lambda row: 1.0)


def _rewrite(numbers: Numbers, form: str, multiplier: Callable[[Row], float]) -> Numbers:
    """Returns the numbers of the same network in another form, with a multiplier for every row."""
    return replace(numbers, form=form, rows=tuple(row.multiplied_by(multiplier(row)) for row in numbers))


def _describe(
    layer: Layer, below: tuple[int, ...], above: tuple[int, ...], number: int
) -> tuple[str, Kind, tuple[int, int], float]:
    """Returns name, kind, (fan_in, fan_out) and multiplier of a tensor of hidden layer `number` with scale one.

    The multiplier of a readout is times gamma0.
    """
    if isinstance(layer, NeuronWeights):
        return f"{'b' if isinstance(layer, Bias) else 'gain'}{number}", "bias", (1, above[-1]), 1.0
    if isinstance(layer, Readout):
        inputs = math.prod(below)
        return "w", "output", (inputs, 1), 1 / math.sqrt(inputs * below[-1])
    if isinstance(layer, Weights):
        inputs = layer.wiring(below[:-1]).places * below[-1]
        return f"W{number - 1}", "input" if number == 1 else "hidden", (inputs, above[-1]), 1 / math.sqrt(inputs)
    raise ValueError(f"numbers are known for Dense, Conv, Bias, Gain and Readout, got {type(layer).__name__}")


def _shape(space: Space, width: int) -> tuple[int, ...]:
    """Returns the shape (*sites, channels) of fields in a space, at finite width."""
    particles = round(space.width * width / space.components)
    return (*space.sites, space.channels or space.components * particles)
