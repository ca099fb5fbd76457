"""Hermite series of functions of Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

REACH = 13.0  # standard deviations; the root of the Gaussian weight beyond is below rounding
TERMS = (64, 128, 256, 512, 1024, 2048)  # of the series, until the rest is small
NODES = (512, 724, 1024, 1448, 2048, 2896)  # of the trapezoidal rule that gives as many terms


def averages(kernel: np.ndarray, function: Callable[[Any], Any], accuracy: float) -> np.ndarray | None:
    """Returns <f(h_mu) f(h_nu)> (P, P) for Gaussian fields h with covariance `kernel` (P, P), by Mehler's formula.

    With normalized Hermite polynomials he_n, f(s x) = sum_n c_n(s) he_n(x), and for unit Gaussians of correlation rho
    <he_n(x) he_m(y)> = rho^n if n = m, else 0: the average is sum_n c_n(s_mu) c_n(s_nu) rho^n. The accuracy is relative
    to the squares of f. Returns None if that takes too many terms: at large variances, and where f has a kink.

    Example:
        >>> import numpy as np
        >>> from kernelfield.activations.hermite import averages
        >>> K = np.array([[1.0, 0.5], [0.5, 2.0]])
        >>> bool(np.allclose(averages(K, lambda h: h**2, 1e-10), np.outer([1, 2], [1, 2]) + 2 * K**2))
        True
    """
    scales = np.sqrt(np.diag(kernel))
    c = _coefficients(function, scales, accuracy)
    if c is None:
        return None
    products = np.outer(scales, scales)
    rho = np.clip(np.divide(kernel, products, out=np.zeros_like(kernel), where=products > 0), -1, 1)
    np.fill_diagonal(rho, 1.0)
    out = np.zeros_like(kernel)
    for c_n in c[::-1]:  # Horner's rule
        out = out * rho + np.outer(c_n, c_n)
    return out


def _coefficients(function: Callable[[Any], Any], scales: np.ndarray, accuracy: float) -> np.ndarray | None:
    """Returns c_n(s) (terms, scales), enough of them for <f(s x)^2> = sum_n c_n(s)^2, the hardest average (rho = 1).

    The trapezoidal rule converges exponentially in the nodes for functions that are analytic in a strip around the
    real line.
    """
    before = np.full(len(scales), np.inf)
    for terms, nodes in zip(TERMS, NODES, strict=True):
        x = np.linspace(-REACH, REACH, nodes)
        root = np.exp(-(x**2) / 4)
        root /= np.sqrt(np.sum(root**2))
        with jax.enable_x64(True):
            weighted = root * np.asarray(function(scales[:, None] * x))
        c = _hermite_functions(x, root, terms) @ weighted.T
        squares = np.sum(weighted**2, axis=1)
        rest = np.maximum(np.abs(squares - before), np.abs(squares - np.sum(c**2, axis=0)))
        if rest.max() <= accuracy * squares.max():
            return c
        before = squares
    return None


def _hermite_functions(x: np.ndarray, first: np.ndarray, terms: int) -> np.ndarray:
    """Returns he_n(x) times `first` (terms, nodes), by their recurrence."""
    rows = [first, x * first]
    for n in range(1, terms - 1):
        rows.append((x * rows[n] - np.sqrt(n) * rows[n - 1]) / np.sqrt(n + 1))
    return np.stack(rows)
