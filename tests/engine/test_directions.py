"""Leading directions: orthonormal, chosen by energy, few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.directions import make_empty_basis, project, represent
from kernelfield.engine.series import Series

pytestmark = pytest.mark.usefixtures("x64")
PARTICLES = 1024


def fresh(capacity, dtype=np.float64, orders=1):
    return jax.tree.map(jnp.asarray, make_empty_basis(capacity, PARTICLES, dtype, orders))


def spectrum(rows, energies):
    """Rows whose second moments have these eigenvalues."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((PARTICLES, len(energies))))[0].T * np.sqrt(PARTICLES)
    mixing = np.linalg.qr(rng.standard_normal((rows, len(energies))))[0]
    return mixing * np.sqrt(rows * np.array(energies)) @ axes, axes


@pytest.mark.parametrize("rows", [40, 300])  # by the Gram matrix, and by iteration
def test_directions_are_the_principal_ones_above_the_tolerance(rows):
    x, axes = spectrum(rows, [0.5, 0.3, 0.15, 0.03, 0.004])
    found, F = represent(fresh(16), jnp.asarray(x), jnp.ones(rows), 0.01)
    assert int(found.size) == 4
    np.testing.assert_allclose(found.q[:4] @ found.q[:4].T / PARTICLES, np.eye(4), atol=1e-10)
    assert not np.asarray(found.q[4:]).any()
    overlap = np.linalg.svd(np.asarray(found.q[:4]) @ axes[:4].T / PARTICLES, compute_uv=False)
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    np.testing.assert_allclose(F, project(found, jnp.asarray(x)), atol=1e-10)
    assert float(found.residual) == pytest.approx(0.004 / 0.984, rel=0.05)


@pytest.mark.thorough
def test_exact_tolerances_leave_nothing_out_however_many_passes_that_takes():
    x, _ = spectrum(80, 10.0 ** -np.arange(0, 20, 0.25))
    found, F = represent(fresh(96), jnp.asarray(x), jnp.ones(80), 1e-26)
    np.testing.assert_allclose(F @ found.q, x, atol=1e-11)


def test_points_without_weight_choose_no_direction():
    x = np.random.default_rng(0).standard_normal((6, PARTICLES))
    found, F = represent(fresh(8), jnp.asarray(x), jnp.array([1.0, 1, 0, 0, 1, 0]), 0.01)
    np.testing.assert_allclose(F[jnp.array([0, 1, 4])] @ found.q, x[[0, 1, 4]], atol=1e-10)
    assert int(found.size) == 3
    only, _ = represent(fresh(8), jnp.asarray(x[[0, 1, 4]]), jnp.ones(3), 0.01)
    np.testing.assert_allclose(np.abs(np.sum(np.asarray(only.q * found.q), axis=1)[:3]) / PARTICLES, 1, atol=1e-10)


def test_a_full_basis_takes_no_more_and_says_what_is_left():
    x = np.random.default_rng(0).standard_normal((30, PARTICLES))
    found, F = represent(fresh(8, np.float32), jnp.asarray(x, jnp.float32), jnp.ones(30), 1e-3)
    assert int(found.size) == 8 and F.shape == (30, 8)
    assert float(found.residual) == pytest.approx(np.mean((x - np.asarray(F @ found.q)) ** 2) / np.mean(x**2), rel=1e-3)


def test_what_is_small_counts_as_what_is_large():
    x = np.random.default_rng(0).standard_normal((3, PARTICLES))
    large, small = (represent(fresh(8), jnp.asarray(c * x), jnp.ones(3), 0.01) for c in (1.0, 1e-9))
    np.testing.assert_allclose(np.abs(large[0].q), np.abs(small[0].q), atol=1e-7)
    assert float(represent(large[0], jnp.asarray(1e-9 * x[::-1] ** 2), jnp.ones(3), 0.01)[0].size) == 3


def test_coefficients_of_a_series_share_directions_each_in_its_own_scale():
    x = np.random.default_rng(0).standard_normal((2, 2, PARTICLES)) * np.array([1.0, 1e-6])[:, None, None]
    found, F = represent(fresh(8, orders=2), Series(jnp.asarray(x)), jnp.ones(2), 0.01)
    assert int(found.size) == 4
    np.testing.assert_allclose(F.coefficients @ found.q, x, atol=1e-15, rtol=1e-6)
