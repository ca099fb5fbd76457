import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.basis import any_full, completed, empty_basis, repeated, represent

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


def test_a_basis_without_room_says_so_and_can_be_restored():
    x = fields(4)
    basis, _ = represent(empty_basis(4, 512, 1e-6, np.float64), x)
    assert basis.size == 4 and not basis.full
    kept = completed(basis, np.array(True))
    full, _ = represent(kept, fields(4, seed=7))
    assert full.full and any_full({"any": [kept, full]}) and not any_full([kept])
    again = repeated(completed(full, np.array(False)))
    assert again.size == 4 and not again.full
    np.testing.assert_array_equal(again.q, basis.q)


def test_a_step_that_is_repeated_loses_what_it_found():
    basis = completed(represent(empty_basis(8, 512, 1e-6, np.float64), fields(3))[0], np.array(True))
    more, _ = represent(basis, fields(4, seed=7))
    assert more.size > 3
    again = repeated(more)
    assert again.size == 3 and not again.q[3:].any()


@pytest.mark.parametrize("rows", [40, 200, 400])
def test_more_rows_than_one_extension_finds_directions_for(rows):
    """200 and 400 rows take several extensions, of leading axes by eigenvectors and by subspace iteration."""
    x = fields(rows, particles=1024)
    basis, F = represent(empty_basis(528, 1024, 1e-3, np.float64), x)
    assert basis.size <= rows and not basis.full
    assert np.mean((x - F @ basis.q) ** 2, axis=1).max() <= 1e-3 * basis.scale
    q = basis.q[: int(basis.size)]
    np.testing.assert_allclose(q @ q.T / 1024, np.eye(len(q)), atol=1e-10)


def test_few_directions_suffice_for_many_rows():
    """Rank 30 among 400 rows: the subspace iteration finds the few, not one for each row."""
    x = np.random.default_rng(1).standard_normal((400, 30)) @ np.asarray(fields(30, particles=1024))
    basis, _ = represent(empty_basis(416, 1024, 1e-8, np.float64), jnp.asarray(x))
    assert basis.size == 30


def test_sites_are_rows():
    x = fields(6)
    flat, F = represent(empty_basis(8, 512, 1e-6, np.float64), x)
    sites, by_site = represent(empty_basis(8, 512, 1e-6, np.float64), x.reshape(2, 3, 512))
    np.testing.assert_array_equal(flat.q, sites.q)
    np.testing.assert_array_equal(by_site.reshape(6, 8), F)
