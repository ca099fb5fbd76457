"""Averages <f(a) f(b)> over zero-mean Gaussian pairs, numerically where no closed form is known.

Integrals are sums of the trapezoidal rule, which converges exponentially in the nodes for functions that are analytic
in a strip around the real line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kernelfield.activations.functions import KernelMap

REACH = 8.5  # standard deviations; the Gaussian weight beyond is below rounding
NODES = (48, 72, 108, 162, 243, 365, 547, 820, 1230, 1845, 2768)  # of each axis, until averages of two rules agree
ACCURACY = 1e-11  # relative change at which they do, and relative rest of a series
BLOCK = 2**22  # function values at a time
HERMITE_REACH = 13.0  # standard deviations; the root of the Gaussian weight beyond is below rounding
HERMITE_TERMS = (64, 128, 256, 512, 1024, 2048)  # of the series, until the rest is small
HERMITE_NODES = (512, 724, 1024, 1448, 2048, 2896)  # of the trapezoidal rule that gives as many terms


class NotConverged(ArithmeticError):
    """An error of a quadrature that did not reach its accuracy; `change` is the last relative change."""

    def __init__(self, change: float) -> None:
        super().__init__(f"quadrature changed by {change:.0e} at its finest")
        self.change = change


def kernel_map(kernel: np.ndarray, function: Callable[[Any], Any], closed_form: KernelMap | None) -> np.ndarray:
    """Returns <f(h_mu) f(h_nu)> for Gaussian fields h with covariance `kernel` (P, *sites, P, *sites), to 1e-10.

    It is known in closed form, or summed as a Hermite series, or where that is too long integrated pair by pair.

    Raises:
        NotConverged: the quadrature did not reach its accuracy, as when f has a kink.
    """
    shape, kernel = kernel.shape, kernel.reshape(math.isqrt(kernel.size), -1)
    if closed_form is None and (series := hermite_averages(kernel, function)) is not None:
        return series.reshape(shape)
    rows, columns = np.triu_indices(len(kernel))
    variances = np.diag(kernel)
    pairs = variances[rows], kernel[rows, columns], variances[columns]
    out = np.empty_like(kernel)
    values = _integrate(function, *pairs) if closed_form is None else closed_form(*pairs)
    out[rows, columns] = out[columns, rows] = values
    return out.reshape(shape)


def hermite_averages(kernel: np.ndarray, function: Callable[[Any], Any]) -> np.ndarray | None:
    """Returns <f(h_mu) f(h_nu)> (P, P) for Gaussian fields h with covariance `kernel` (P, P), by Mehler's formula.

    With normalized Hermite polynomials he_n, f(s x) = sum_n c_n(s) he_n(x), and for unit Gaussians of correlation rho
    <he_n(x) he_m(y)> = rho^n if n = m, else 0: the average is sum_n c_n(s_mu) c_n(s_nu) rho^n. Returns None if
    that takes too many terms: at large variances, and where f has a kink.
    """
    scales = np.sqrt(np.diag(kernel))
    c = _hermite_coefficients(function, scales)
    if c is None:
        return None
    products = np.outer(scales, scales)
    rho = np.clip(np.divide(kernel, products, out=np.zeros_like(kernel), where=products > 0), -1, 1)
    np.fill_diagonal(rho, 1.0)
    out = np.zeros_like(kernel)
    for c_n in c[::-1]:  # Horner's rule
        out = out * rho + np.outer(c_n, c_n)
    return out


def _hermite_coefficients(function: Callable[[Any], Any], scales: np.ndarray) -> np.ndarray | None:
    """Returns c_n(s) (terms, scales), enough of them for <f(s x)^2> = sum_n c_n(s)^2, the hardest average (rho = 1)."""
    before = np.full(len(scales), np.inf)
    for terms, nodes in zip(HERMITE_TERMS, HERMITE_NODES, strict=True):
        x = np.linspace(-HERMITE_REACH, HERMITE_REACH, nodes)
        root = np.exp(-(x**2) / 4)
        root /= np.sqrt(np.sum(root**2))
        with jax.enable_x64(True):
            weighted = root * np.asarray(function(scales[:, None] * x))
        c = _hermite_functions(x, root, terms) @ weighted.T
        squares = np.sum(weighted**2, axis=1)
        rest = np.maximum(np.abs(squares - before), np.abs(squares - np.sum(c**2, axis=0)))
        if rest.max() <= ACCURACY * squares.max():
            return c
        before = squares
    return None


def _hermite_functions(x: np.ndarray, first: np.ndarray, terms: int) -> np.ndarray:
    """Returns he_n(x) times `first` (terms, nodes), by their recurrence."""
    rows = [first, x * first]
    for n in range(1, terms - 1):
        rows.append((x * rows[n] - np.sqrt(n) * rows[n - 1]) / np.sqrt(n + 1))
    return np.stack(rows)


def _integrate(function: Callable[[Any], Any], k11: np.ndarray, k12: np.ndarray, k22: np.ndarray) -> np.ndarray:
    """Returns <f(a) f(b)> by the trapezoidal rule on a square of independent x, y.

    a = s1 x and b = s2 (rho x + sqrt(1 - rho^2) y).
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
