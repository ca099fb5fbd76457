"""How parameterizations scale with width: exponents a, b, c for each kind of layer, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Regime = Literal["feature learning", "kernel", "trivial", "unstable"]
ROUNDING = 1e-9  # error of an exponent


@dataclass(frozen=True)
class Exponents:
    """A tensor multiplied by N^-a in use, that starts as N(0, N^-2b) and learns by SGD at rate N^-c.

    Args:
        a: exponent of the multiplier.
        b: exponent of the standard deviation at initialization.
        c: exponent of the learning rate, on the loss as a function of f.
    """

    a: float
    b: float
    c: float

    @property
    def size(self) -> float:
        """The exponent a + b: the product of multiplier and weight starts as N^-(a + b)."""
        return self.a + self.b

    @property
    def speed(self) -> float:
        """The exponent 2a + c: the product of multiplier and weight learns at rate N^-(2a + c)."""
        return 2 * self.a + self.c

    def shifted(self, theta: float) -> Exponents:
        """Returns a + theta, b - theta, c - 2 theta: SGD makes the same function from weights N^theta times larger."""
        return Exponents(self.a + theta, self.b - theta, self.c - 2 * theta)


@dataclass(frozen=True)
class Parameterization:
    """Exponents for each kind of layer of a network that has all of them.

    Args:
        input: weights from the data, whose number does not grow, to N neurons.
        hidden: weights from N to N neurons.
        output: weights from N neurons to outputs, whose number does not grow.
        bias: biases of hidden layers, N numbers.
    """

    input: Exponents
    hidden: Exponents
    output: Exponents
    bias: Exponents

    @property
    def kinds(self) -> tuple[Exponents, Exponents, Exponents, Exponents]:
        """The exponents of input, hidden, output and bias."""
        return self.input, self.hidden, self.output, self.bias

    def slowed(self, exponent: float) -> Parameterization:
        """Returns the parameterization with all learning rates times N^-exponent, which is added to every c."""
        return Parameterization(*(replace(kind, c=kind.c + exponent) for kind in self.kinds))


def mean_field(gamma0: float = 0.0) -> Parameterization:
    """Returns the form of this library: N(0, 1), multipliers 1, N^-1/2, 1 / (gamma0 N), learning rate gamma0^2 N.

    Args:
        gamma0: exponent s of gamma0 = N^-s: 0 for the theory of infinite width that learns features, 1/2 for the NTK.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> regime(mean_field()), regime(mean_field(0.25)), equivalent(mean_field(0.5), NTK)
        ('feature learning', 'kernel', True)
    """
    rate = 2 * gamma0 - 1
    return _table((0, 0, rate), (0.5, 0, rate), (1 - gamma0, 0, rate), (0, 0, rate))


def _table(*kinds: tuple[float, float, float]) -> Parameterization:
    """Returns the parameterization with (a, b, c) of input, hidden, output and bias."""
    return Parameterization(*(Exponents(*kind) for kind in kinds))


def equivalent(one: Parameterization, other: Parameterization) -> bool:
    """Returns whether SGD makes the same functions at every width: `shifted` turns each kind of layer into the other's.

    Args:
        one, other: parameterizations to compare; input dimension and all other constants count as one.

    Source: arXiv:2011.14522, its symmetry of a, b and c; here every kind of layer has a rate and a theta of its own.

    Example:
        >>> equivalent(MEAN_FIELD, MUP), equivalent(MEAN_FIELD, NTK)
        (True, False)
    """
    pairs = zip(one.kinds, other.kinds, strict=True)
    return all(_same(a.size, b.size) and _same(a.speed, b.speed) for a, b in pairs)


def growth(parameterization: Parameterization) -> float:
    """Returns r: a step of SGD moves the features of the layer that moves most by N^-r.

    r = min(a + b, 2a + c of the output) + min(2a + c of input and bias, 2a + c - 1 of hidden weights)

    Args:
        parameterization: exponents of a network with hidden weights and biases.

    Source: arXiv:2011.14522, its r; there c is common to all layers, which `Exponents.shifted` can always make it.
    """
    first, hidden, output, bias = parameterization.kinds
    return min(output.size, output.speed) + min(first.speed, bias.speed, hidden.speed - 1)


def regime(parameterization: Parameterization) -> Regime:
    """Returns the regime that a network approaches as N grows.

    A network is stable if preactivations start of order one, f at most so, and neither explodes: r >= 0, and the output
    has 2a + c >= 1 and a + b + r >= 1. A stable network learns features if r = 0. If r > 0 it is in the kernel regime,
    or, if f does not move either, trivial.

    Args:
        parameterization: exponents of a network with hidden weights and biases.

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
    """Returns whether two exponents are equal up to rounding."""
    return math.isclose(one, other, abs_tol=ROUNDING)


def _least(value: float, bound: float) -> bool:
    """Returns whether an exponent is at least a bound, up to rounding."""
    return value >= bound - ROUNDING


# (a, b, c) of input, hidden, output, bias
MEAN_FIELD = mean_field()
MUP = _table((0, 0, -1), (0, 0.5, 0), (0, 1, 1), (0, 0, -1))  # table 3 of arXiv:2203.03466
MUP_TABLE_8 = _table((0, 0, -1), (0, 0.5, 0), (1, 0, -1), (0, 0, -1))  # of the package mup
MUP_TABLE_9 = _table((-0.5, 0.5, 0), (0, 0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0))  # one rate; that of arXiv:2011.14522
NTK = _table((0, 0, 0), (0.5, 0, 0), (0.5, 0, 0), (0, 0, 0))
STANDARD = _table((0, 0, 0), (0, 0.5, 0), (0, 0.5, 0), (0, 0, 0))  # one learning rate for all widths
