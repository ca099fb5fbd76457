"""Products of the rows in use against those of all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.series import Series
from kernelfield.engine.slabs import SHORT, SLAB, THIN, combination, coordinates, plus_products

pytestmark = pytest.mark.usefixtures("x64")
ROWS, PARTICLES = 5, 32
CAPACITIES = [20, SHORT, 3 * SLAB, 3 * SLAB + 4]  # taken whole, in part, in slabs, not a number of slabs


def arrays(many, capacity, size):
    rng = np.random.default_rng(0)
    used = np.arange(capacity) < size
    F = rng.standard_normal((ROWS, many, capacity)) * used
    q = rng.standard_normal((many, capacity, PARTICLES))
    return jnp.asarray(F.reshape(ROWS, -1)), jnp.asarray(q), jnp.asarray(rng.standard_normal((ROWS, PARTICLES))), used


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("many", [1, 3])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 1.0])
def test_products_are_those_of_all_rows(many, capacity, part):
    size = round(part * capacity)
    F, q, x, used = arrays(many, capacity, size)
    flat = q.reshape(-1, PARTICLES)
    expected = (x @ flat.T).reshape(ROWS, many, capacity) * used
    found = jax.jit(coordinates)(x, q, size)
    np.testing.assert_allclose(found, expected.reshape(ROWS, -1), atol=1e-12)
    np.testing.assert_allclose(jax.jit(combination)(F, q, size), F @ flat, atol=1e-12)
    np.testing.assert_allclose(jax.jit(plus_products)(q, F, x, size), q + (F.T @ x).reshape(q.shape), atol=1e-12)
    for plain in (combination(F, q, capacity), combination(F, q, jnp.asarray(size))):
        np.testing.assert_allclose(plain, F @ flat, atol=1e-12)


def test_rows_beyond_a_slab_in_use_are_left_out():
    """What stands there does not matter."""
    F, q, x, _ = arrays(2, 3 * SLAB, SLAB)
    wild = q.at[:, 2 * SLAB :].set(jnp.nan)
    size = jnp.asarray(SLAB)
    assert np.isfinite(coordinates(x, wild, size)).all() and np.isfinite(combination(F, wild, size)).all()


@pytest.mark.parametrize("capacity", [2 * THIN, SHORT, 3 * SLAB])
def test_rows_beyond_a_slab_in_use_learn_nothing(capacity):
    """Not even of coordinates that are not zero, nor in short arrays."""
    F, q, x, _ = arrays(2, capacity, capacity)
    learned = plus_products(q, F, x, jnp.asarray(THIN))
    np.testing.assert_array_equal(learned[:, THIN:], q[:, THIN:])
    assert (learned[:, :THIN] != q[:, :THIN]).all()


def test_series():
    F, q, x, _ = arrays(2, 3 * SLAB, 150)
    size = jnp.asarray(150)
    series = [Series(jnp.stack([each, 2 * each])) for each in (F, q, x)]
    image = combination(*series[:2], size).coefficients
    np.testing.assert_allclose(image, [F @ q.reshape(-1, PARTICLES), 4 * F @ q.reshape(-1, PARTICLES)], atol=1e-12)
    learned = plus_products(series[1], series[0], series[2], size).coefficients
    product = (F.T @ x).reshape(q.shape)
    np.testing.assert_allclose(learned, [q + product, 2 * q + 4 * product], atol=1e-12)
