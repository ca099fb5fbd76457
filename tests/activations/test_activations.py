"""Derivatives against automatic differentiation; closed Gaussian averages against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import norm

from kernelfield.activations.functions import ACTIVATIONS, activation

FUNCTIONS = {  # phi, phi', written again in NumPy, independently of the library
    "linear": (lambda h: h, np.ones_like),
    "relu": (lambda h: np.maximum(h, 0.0), lambda h: (h > 0) * 1.0),
    "erf": (erf, lambda h: 2 / np.sqrt(np.pi) * np.exp(-(h**2))),
    "gelu": (lambda h: h * norm.cdf(h), lambda h: norm.cdf(h) + h * norm.pdf(h)),
}
COVARIANCES = [(1.0, 0.3, 0.7), (0.2, -0.15, 1.5), (2.0, 0.0, 0.5), (0.8, 0.6, 0.5)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_agree_with_autodiff(name, x64):
    h = jnp.linspace(-4, 4, 82)  # without zero, where relu has none
    chosen = ACTIVATIONS[name]
    truth = jax.vmap(jax.grad(lambda x: chosen.phi(x) * 1.0))(h)
    np.testing.assert_allclose(chosen.dphi(h), truth, rtol=1e-12, atol=1e-13)


def test_a_function_gets_its_derivative_by_autodiff(x64):
    h = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(activation(jnp.sin).dphi(h), jnp.cos(h), rtol=1e-12, atol=1e-15)


def test_an_activation_is_itself():
    assert activation(ACTIVATIONS["tanh"]) is ACTIVATIONS["tanh"]


def test_what_is_no_activation_is_named():
    with pytest.raises(ValueError, match=r"activation 'rleu' is unknown \(did you mean 'relu'\?\)"):
        activation("rleu")
    with pytest.raises(ValueError, match="activation must be a name or a function, got int"):
        activation(3)


def gauss_hermite(function, k11, k12, k22, count=200):
    """<function(a) function(b)> on a grid of Gauss-Hermite points, exact for smooth functions."""
    x, weight = np.polynomial.hermite_e.hermegauss(count)
    weight = weight / weight.sum()
    a = np.sqrt(k11) * x[:, None]
    b = k12 / np.sqrt(k11) * x[:, None] + np.sqrt(k22 - k12**2 / k11) * x[None, :]
    return np.einsum("i,j,ij,ij->", weight, weight, function(a) * np.ones_like(b), function(b))


@pytest.mark.parametrize("k", [1e-8, 1.0, 1e4, 1e10, 1e20, 1e100])
def test_averages_of_equal_and_opposite_fields_are_exact(k):
    """Oracle: <phi^2> and <phi'^2> in closed form, of variances that their squares outgrow by rounding."""
    angle, variance = np.arctan2(2 * k, np.sqrt(1 + 4 * k)), np.array([k, k])
    erf, gelu = ACTIVATIONS["erf"], ACTIVATIONS["gelu"]
    found = erf.feature_map(variance, variance * [1, -1], variance)
    np.testing.assert_allclose(found, 2 / np.pi * angle * np.array([1, -1]), rtol=1e-14)
    found = erf.derivative_map(variance, variance * [1, -1], variance)
    np.testing.assert_allclose(found, 4 / np.pi / np.sqrt(1 + 4 * k), rtol=1e-14)
    root = np.sqrt(1 + 2 * k)
    both = 0.25 + np.arctan2(k, root) / (2 * np.pi)
    square = k * both + (k * k / (1 + k) + k / (1 + k) * k) / (2 * np.pi * root)
    np.testing.assert_allclose(gelu.feature_map(*variance[:1], *variance[:1], *variance[:1]), square, rtol=1e-13)


def relu_average(k11, k12, k22, derivative):
    """<phi(a) phi(b)> for relu: over b given a in closed form, over a > 0 by adaptive quadrature."""
    spread = np.sqrt(k22 - k12**2 / k11)

    def given(a):
        mean = k12 / k11 * a
        z = mean / spread
        inner = norm.cdf(z) if derivative else mean * norm.cdf(z) + spread * norm.pdf(z)
        return (1.0 if derivative else a) * inner * norm.pdf(a, scale=np.sqrt(k11))

    return quad(given, 0, 12 * np.sqrt(k11), epsabs=1e-13, epsrel=1e-13)[0]


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("name", ["linear", "erf", "gelu"])
def test_smooth_closed_forms_agree_with_quadrature(name, covariance):
    arguments = tuple(np.array(each) for each in covariance)
    phi, dphi = FUNCTIONS[name]
    chosen = ACTIVATIONS[name]
    assert chosen.feature_map(*arguments) == pytest.approx(gauss_hermite(phi, *covariance), abs=1e-8)
    assert chosen.derivative_map(*arguments) == pytest.approx(gauss_hermite(dphi, *covariance), abs=1e-8)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_relu_closed_forms_agree_with_quadrature(covariance):
    arguments = tuple(np.array(each) for each in covariance)
    relu = ACTIVATIONS["relu"]
    assert relu.feature_map(*arguments) == pytest.approx(relu_average(*covariance, False), abs=1e-8)
    assert relu.derivative_map(*arguments) == pytest.approx(relu_average(*covariance, True), abs=1e-8)


def one_dimensional(function, scale):
    """<function(h)^2> for h of standard deviation `scale`."""
    integrand = lambda x: function(scale * x) ** 2 * norm.pdf(x)  # noqa: E731
    return quad(integrand, -12, 12, points=[0.0], epsabs=1e-13)[0]


CLOSED = [name for name, each in ACTIVATIONS.items() if each.feature_map is not None]


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("k11", [1e-12, 0.3, 1.0, 2.7, 1e6])
def test_coinciding_points_give_one_dimensional_averages(name, k11):
    """k11 = k12 = k22, where roundoff can leave the domain of arccos, arcsin and square roots."""
    k = np.array([k11])
    maps = ACTIVATIONS[name].feature_map(k, k, k), ACTIVATIONS[name].derivative_map(k, k, k)
    assert np.isfinite(maps).all()
    phi, dphi = FUNCTIONS[name]
    if k11 <= 3:
        for found, function in zip(maps, (phi, dphi), strict=True):
            assert found[0] == pytest.approx(one_dimensional(function, np.sqrt(k11)), abs=1e-8)


@pytest.mark.parametrize("name", CLOSED)
def test_zero_and_slightly_inconsistent_variances_give_finite_averages(name):
    """Zero inputs; and covariances beyond the Cauchy-Schwarz bound by roundoff."""
    zero, one, over = np.zeros(1), np.ones(1), np.array([1 + 4e-16])
    for arguments in ((zero, zero, zero), (one, zero, zero), (one, over, one), (one, -over, one)):
        assert np.isfinite(ACTIVATIONS[name].feature_map(*arguments)).all()
        assert np.isfinite(ACTIVATIONS[name].derivative_map(*arguments)).all()


@pytest.mark.parametrize("name", CLOSED)
def test_maps_are_symmetric_and_keep_shapes(name):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((6, 3))
    K = factor @ factor.T
    k11, k22 = np.diag(K)[:, None] + 0 * K, np.diag(K)[None, :] + 0 * K
    for each in (ACTIVATIONS[name].feature_map, ACTIVATIONS[name].derivative_map):
        values = each(k11, K, k22)
        assert values.shape == K.shape
        np.testing.assert_allclose(values, values.T, rtol=1e-12, atol=1e-14)
        assert np.linalg.eigvalsh(values).min() > -1e-7
