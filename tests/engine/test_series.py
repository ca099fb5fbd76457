"""Power series against polynomials that are evaluated and differentiated by themselves."""

import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.activations.functions import ACTIVATIONS, elementwise_derivative
from kernelfield.engine.series import Series, Variable, lift

pytestmark = pytest.mark.usefixtures("x64")
ORDERS = 4


def series(seed, *shape):
    return Series(jnp.asarray(np.random.default_rng(seed).standard_normal((ORDERS, *shape))))


def taylor(function):
    """Coefficients of a function of a number at zero, by a fit at Chebyshev points."""
    x = 0.02 * np.cos(np.pi * (np.arange(9) + 0.5) / 9)
    values = np.stack([np.asarray(function(each)) for each in x]).reshape(9, -1)
    fitted = np.polynomial.polynomial.polyfit(x / 0.02, values, 8)[:ORDERS]
    return fitted / 0.02 ** np.arange(ORDERS)[:, None]


def at(x, gamma0):
    return np.polynomial.polynomial.polyval(gamma0, np.asarray(x.coefficients))


A, B, M = series(0, 3, 4), series(1, 3, 4), series(2, 4, 2)
C = jnp.asarray(np.random.default_rng(3).standard_normal((3, 4)))


@pytest.mark.parametrize(
    ("found", "function"),
    [
        (A + B, lambda x: at(A, x) + at(B, x)),
        (A - C, lambda x: at(A, x) - C),
        (C - A, lambda x: C - at(A, x)),
        (A * B, lambda x: at(A, x) * at(B, x)),
        (C * A, lambda x: C * at(A, x)),
        (A @ M, lambda x: at(A, x) @ at(M, x)),
        (C @ M, lambda x: np.asarray(C) @ at(M, x)),
        (A.T @ B, lambda x: at(A, x).T @ at(B, x)),
        (A * Variable(), lambda x: at(A, x) * x),
        ((A * Variable()) / Variable(), lambda x: at(A, x) - np.asarray(A.coefficients)[-1] * x**3),
        (
            lift(jnp.tanh, ACTIVATIONS["tanh"].dphi)(A),
            lambda x: np.tanh(at(A, x)),
        ),
        (
            lift(ACTIVATIONS["erf"].dphi, elementwise_derivative(ACTIVATIONS["erf"].dphi))(A),
            lambda x: 2 / np.sqrt(np.pi) * np.exp(-(at(A, x) ** 2)),
        ),
    ],
    ids=["+", "- array", "array -", "*", "array *", "@", "array @", ".T @", "* gamma0", "/ gamma0", "tanh", "erf'"],
)
def test_arithmetic_is_that_of_functions_of_gamma0(found, function):
    truth = taylor(function)
    np.testing.assert_allclose(np.asarray(found.coefficients).reshape(ORDERS, -1), truth, rtol=1e-5, atol=1e-6)


def test_functions_of_arrays_stay_as_they_are():
    np.testing.assert_array_equal(lift(jnp.tanh, ACTIVATIONS["tanh"].dphi)(C), jnp.tanh(C))
