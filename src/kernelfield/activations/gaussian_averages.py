"""Averages <f(a) f(b)> over zero-mean Gaussian pairs, numerically where no closed form is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kernelfield.activations.functions import KernelMap
from kernelfield.activations.hermite import averages

REACH = 8.5  # standard deviations; the Gaussian weight beyond is below rounding
NODES = (48, 72, 108, 162, 243, 365, 547, 820, 1230, 1845, 2768)  # of each axis, until averages of two rules agree
ACCURACY = 1e-11  # relative change at which they do
BLOCK = 2**22  # function values at a time


class NotConverged(ArithmeticError):
    """An error of a quadrature that did not reach its accuracy; `change` is the last relative change."""

    def __init__(self, change: float) -> None:
        super().__init__(f"quadrature changed by {change:.0e} at its finest")
        self.change = change


def kernel_map(kernel: np.ndarray, function: Callable[[Any], Any], closed_form: KernelMap | None) -> np.ndarray:
    """Returns <f(h_mu) f(h_nu)> (P, P) for Gaussian fields h with covariance `kernel` (P, P), to 1e-10.

    It is known in closed form, or summed as a Hermite series, or where that is too long integrated pair by pair.

    Raises:
        NotConverged: the quadrature did not reach its accuracy, as when f has a kink.

    Example:
        >>> import numpy as np
        >>> from kernelfield.activations.functions import activation
        >>> from kernelfield.activations.gaussian_averages import kernel_map
        >>> erf, K = activation("erf"), np.array([[1.0, 0.3], [0.3, 2.0]])
        >>> bool(np.allclose(kernel_map(K, erf.phi, None), kernel_map(K, erf.phi, erf.feature_map), rtol=1e-10))
        True
    """
    if closed_form is None and (series := averages(kernel, function, ACCURACY)) is not None:
        return series
    rows, columns = np.triu_indices(len(kernel))
    variances = np.diag(kernel)
    pairs = variances[rows], kernel[rows, columns], variances[columns]
    out = np.empty_like(kernel)
    values = _integrate(function, *pairs) if closed_form is None else closed_form(*pairs)
    out[rows, columns] = out[columns, rows] = values
    return out


def _integrate(function: Callable[[Any], Any], k11: np.ndarray, k12: np.ndarray, k22: np.ndarray) -> np.ndarray:
    """Returns <f(a) f(b)> by the trapezoidal rule on a square of independent x, y.

    a = s1 x and b = s2 (rho x + sqrt(1 - rho^2) y). The rule converges exponentially in the nodes for functions that
    are analytic in a strip around the real line.
    """
    s1, s2 = np.sqrt(k11), np.sqrt(k22)
    rho = np.clip(np.divide(k12, s1 * s2, out=np.zeros_like(k12), where=s1 * s2 > 0), -1, 1)
    out = np.empty_like(k12)
    with jax.enable_x64(True):
        evaluate = jax.jit(function)
        x, weight = _choose_rule(evaluate, np.unique(s1))
        size = max(1, BLOCK // len(x) ** 2)
        for start in range(0, len(out), size):
            at = slice(start, start + size)
            a, r = s1[at, None] * x, rho[at, None, None]
            b = s2[at, None, None] * (r * x[:, None] + np.sqrt(1 - r**2) * x)
            out[at] = np.sum(np.asarray(evaluate(a)) * (np.asarray(evaluate(b)) @ weight) * weight, axis=1)
    return out


def _choose_rule(evaluate: Callable[[Any], Any], scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes and weights of one axis that give <f(s x)^2> at every scale s, the hardest average (rho = 1).

    They give <(1 + x) f(s x)> too, since a kink may hide in the square.
    """
    before, change = np.full((2, len(scales)), np.inf), np.inf
    for nodes in NODES:
        x = np.linspace(-REACH, REACH, nodes)
        weight = np.exp(-(x**2) / 2)
        weight /= weight.sum()
        values = np.asarray(evaluate(scales[:, None] * x))
        now = np.stack([values**2, (1 + x) * values]) @ weight
        change = float(np.abs(now - before).max() / max(np.abs(now).max(), np.finfo(float).tiny))
        if change < ACCURACY:
            return x, weight
        before = now
    raise NotConverged(change)
