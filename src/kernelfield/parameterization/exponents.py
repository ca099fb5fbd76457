"""How parameterizations scale with width: exponents a, b, c for each kind of layer, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Regime = Literal["feature learning", "kernel", "trivial", "unstable"]
ROUNDING = 1e-9  # of an exponent


@dataclass(frozen=True)
class Exponents:
    """A tensor multiplied by N^-a in use, that starts as N(0, N^-2b) and learns by SGD at rate N^-c.

    Args:
        a: of the multiplier.
        b: of the standard deviation at initialization.
        c: of the learning rate, on the loss as a function of f.
    """

    a: float
    b: float
    c: float

    @property
    def size(self) -> float:
        """a + b: the product of multiplier and weight starts as N^-(a + b)."""
        return self.a + self.b

    @property
    def speed(self) -> float:
        """2 a + c: the product of multiplier and weight learns at rate N^-(2a + c)."""
        return 2 * self.a + self.c

    def shifted(self, theta: float) -> Exponents:
        """The same function at every step of SGD: a + theta, b - theta, c - 2 theta.

        Args:
            theta: the weight becomes N^theta times as large.
        """
        return Exponents(self.a + theta, self.b - theta, self.c - 2 * theta)


@dataclass(frozen=True)
class Parameterization:
    """Exponents for each kind of layer of a network that has all of them.

    Args:
        input: weights from the data, whose number does not grow, to N neurons.
        hidden: weights from N to N neurons.
        output: weights from N neurons to outputs, whose number does not grow.
        bias: of hidden layers, N numbers.
    """

    input: Exponents
    hidden: Exponents
    output: Exponents
    bias: Exponents

    @property
    def kinds(self) -> tuple[Exponents, Exponents, Exponents, Exponents]:
        """Input, hidden, output, bias."""
        return self.input, self.hidden, self.output, self.bias

    def slowed(self, exponent: float) -> Parameterization:
        """All learning rates times N^-exponent.

        Args:
            exponent: what is added to every c.
        """
        return Parameterization(*(replace(each, c=each.c + exponent) for each in self.kinds))


def mean_field(gamma0: float = 0.0) -> Parameterization:
    """The form of this library: N(0, 1), multipliers 1, N^-1/2 and 1 / (gamma0 N), learning rate gamma0^2 N.

    Args:
        gamma0: exponent s of gamma0 = N^-s: 0 for the theory of infinite width that learns features, 1/2 for the NTK.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> regime(mean_field()), regime(mean_field(0.25)), equivalent(mean_field(0.5), NTK)
        ('feature learning', 'kernel', True)
    """
    rate = 2 * gamma0 - 1
    return Parameterization(
        input=Exponents(0, 0, rate),
        hidden=Exponents(0.5, 0, rate),
        output=Exponents(1 - gamma0, 0, rate),
        bias=Exponents(0, 0, rate),
    )


def equivalent(one: Parameterization, other: Parameterization) -> bool:
    """Whether SGD makes the same functions at every width: `shifted` takes each kind of layer of one into the other's.

    Args:
        one, other: what is compared; input dimension and all other constants count as one.

    Source: arXiv:2011.14522, its symmetry of a, b and c; here every kind of layer has a rate and a theta of its own.

    Example:
        >>> equivalent(MEAN_FIELD, MUP), equivalent(MEAN_FIELD, NTK)
        (True, False)
    """
    pairs = zip(one.kinds, other.kinds, strict=True)
    return all(_same(a.size, b.size) and _same(a.speed, b.speed) for a, b in pairs)


def growth(parameterization: Parameterization) -> float:
    """r: a step of SGD moves every feature by N^-r, that of the layer that moves most.

    r = min(a + b, 2a + c of the output) + min(2a + c of input and bias, 2a + c - 1 of hidden weights)

    Args:
        parameterization: of a network with hidden weights and biases.

    Source: arXiv:2011.14522, its r; there c is common to all layers, which `Exponents.shifted` can always make it.
    """
    moved = min(
        parameterization.input.speed,
        parameterization.bias.speed,
        parameterization.hidden.speed - 1,
    )
    return min(parameterization.output.size, parameterization.output.speed) + moved


def regime(parameterization: Parameterization) -> Regime:
    """What becomes of a network as N grows.

    Stable: preactivations start of order one, f at most so, and neither explodes: r >= 0, output 2a + c >= 1 and
    a + b + r >= 1. A stable network learns features if r = 0. If r > 0 it is in the kernel regime, or, where f does not
    move either, trivial.

    Args:
        parameterization: of a network with hidden weights and biases.

    Returns:
        "feature learning", "kernel", "trivial" or "unstable".

    Source: arXiv:2011.14522, its conditions of stability and of nontriviality, and its dynamical dichotomy.

    Example:
        >>> regime(MUP), regime(NTK), regime(STANDARD), regime(STANDARD.slowed(1))
        ('feature learning', 'kernel', 'unstable', 'kernel')
    """
    first, hidden, output, bias = parameterization.kinds
    r = growth(parameterization)
    starts = _same(first.size, 0) and _same(hidden.size, 0.5) and _least(bias.size, 0) and _least(output.size, 0.5)
    if not (starts and _least(r, 0) and _least(output.speed, 1) and _least(output.size + r, 1)):
        return "unstable"
    if not (_same(output.speed, 1) or _same(output.size + r, 1)):
        return "trivial"
    return "feature learning" if _same(r, 0) else "kernel"


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=ROUNDING)


def _least(value: float, bound: float) -> bool:
    return value >= bound - ROUNDING


MEAN_FIELD = mean_field()
MUP = Parameterization(  # table 3 of arXiv:2203.03466
    input=Exponents(0, 0, -1),
    hidden=Exponents(0, 0.5, 0),
    output=Exponents(0, 1, 1),
    bias=Exponents(0, 0, -1),
)
MUP_TABLE_8 = replace(MUP, output=Exponents(1, 0, -1))  # of the package mup
MUP_TABLE_9 = Parameterization(  # one learning rate; that of arXiv:2011.14522
    input=Exponents(-0.5, 0.5, 0),
    hidden=Exponents(0, 0.5, 0),
    output=Exponents(0.5, 0.5, 0),
    bias=Exponents(-0.5, 0.5, 0),
)
NTK = Parameterization(
    input=Exponents(0, 0, 0),
    hidden=Exponents(0.5, 0, 0),
    output=Exponents(0.5, 0, 0),
    bias=Exponents(0, 0, 0),
)
STANDARD = Parameterization(  # one learning rate for all widths
    input=Exponents(0, 0, 0),
    hidden=Exponents(0, 0.5, 0),
    output=Exponents(0, 0.5, 0),
    bias=Exponents(0, 0, 0),
)
