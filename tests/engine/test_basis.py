import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.basis import empty_basis, represent, room

pytestmark = pytest.mark.usefixtures("x64")


def fields(rows, particles=512, seed=0, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((rows, particles)), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_are_orthonormal_and_carry_the_kernel(dtype):
    basis = empty_basis(32, 512, 1e-5, dtype)
    first, second = fields(5, dtype=dtype), fields(7, seed=1, dtype=dtype)
    basis, _ = represent(basis, first)
    basis, F = represent(basis, second)
    k = int(basis.size)
    accuracy = 1e-5 if dtype == np.float32 else 1e-12
    assert k == 12
    np.testing.assert_allclose(basis.q[:k] @ basis.q[:k].T / 512, np.eye(k), atol=accuracy)
    np.testing.assert_allclose(F @ F.T, second @ second.T / 512, atol=10 * accuracy)
    assert not np.any(basis.q[k:])


def test_what_is_known_adds_no_direction():
    basis, _ = represent(empty_basis(16, 512, 1e-6, np.float64), fields(4))
    again, F = represent(basis, 2.0 * fields(4)[::-1])
    assert again.size == basis.size == 4
    np.testing.assert_allclose(F @ basis.q, 2.0 * fields(4)[::-1], atol=1e-12)


def test_no_row_keeps_more_than_the_tolerance_outside():
    rng = np.random.default_rng(1)
    x = jnp.asarray(np.diag(10.0 ** -np.arange(6)) @ rng.standard_normal((6, 512)))
    x = jnp.asarray(rng.standard_normal((9, 6))) @ x
    basis, F = represent(empty_basis(32, 512, 1e-4, np.float64), x)
    left = jnp.mean((x - F @ basis.q) ** 2, axis=1)
    assert left.max() <= 1e-4 * basis.scale
    assert basis.size < 6


def test_double_precision_resolves_directions_far_below_rounding_of_squares():
    x = fields(2)
    near = jnp.stack([x[0], x[0] + 1e-10 * x[1]])
    basis, F = represent(empty_basis(8, 512, 1e-26, np.float64), near)
    assert basis.size == 2
    np.testing.assert_allclose(basis.q[:2] @ basis.q[:2].T / 512, np.eye(2), atol=1e-5)
    assert abs(F[1, 1] - F[0, 1]) == pytest.approx(1e-10, rel=0.1)


def test_room_is_counted_before_a_step():
    single, _ = represent(empty_basis(8, 512, 1e-4, np.float32), fields(4, dtype=np.float32))
    assert room({"any": [single]}, 4)
    assert not room({"any": [single]}, 5)
    double, _ = represent(empty_basis(16, 512, 1e-6, np.float64), fields(4))
    assert room([double], 4)  # three blocks of rows, one for each pass
    assert not room([double], 5)
