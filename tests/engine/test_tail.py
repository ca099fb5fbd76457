"""The tail: a fast matrix that looks like a Gaussian one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.tail import Tail, decorrelate, make_tail

pytestmark = pytest.mark.usefixtures("x64")
PARTICLES, BLOCK = 512, 64


def matrix(tail):
    return np.asarray(tail @ jnp.eye(PARTICLES)).T


def at_place(tail, place):
    return Tail(*(values[place] for values in tail))


def tails(places=1, seed=0, components=(1, 1)):
    made = make_tail(places, PARTICLES, components, BLOCK, np.random.SeedSequence(seed), np.float64)
    return jax.tree.map(jnp.asarray, made)


def test_down_is_the_transpose_of_up():
    tail = at_place(tails(), 0)
    np.testing.assert_allclose(matrix(tail.T), matrix(tail).T, atol=1e-14)


def test_rows_and_columns_have_unit_length_and_moments_are_those_of_a_gaussian_matrix():
    """<s^2> = 1, <s^4> = 2, <s^6> = 5 for its singular values s."""
    J = matrix(at_place(tails(), 0))
    for axis in (0, 1):
        np.testing.assert_allclose(np.linalg.norm(J, axis=axis), 1, atol=1e-2)
    singular = np.linalg.svd(J, compute_uv=False)
    moments = [np.mean(singular**n) for n in (2, 4, 6)]
    np.testing.assert_allclose(moments, [1, 2, 5], rtol=0.01)


def test_blocks_do_not_mix_and_have_signs_of_their_own():
    J = matrix(at_place(tails(), 0)).reshape(PARTICLES // BLOCK, BLOCK, PARTICLES // BLOCK, BLOCK)
    for a in range(len(J)):
        assert not J[a][:, np.arange(len(J)) != a].any()
    assert abs(np.sum(J[0, :, 0] * J[1, :, 1]) / np.sum(J[0, :, 0] ** 2)) < 0.1
    np.testing.assert_allclose(np.abs(J[0, :, 0]), np.abs(J[1, :, 1]))


@pytest.mark.parametrize("which", ["place", "seed", "unrelated"])
def test_other_matrices_are_uncorrelated(which):
    one = at_place(tails(2), 0)
    other = {"place": at_place(tails(2), 1), "seed": at_place(tails(seed=1), 0), "unrelated": decorrelate(one)}[which]
    J, K = matrix(one), matrix(other)
    for again in (K, K.T):
        assert abs(np.sum(J * again)) / PARTICLES < 0.05


def test_components_are_blocks_of_one_matrix():
    """Both directions keep the mean square, and are adjoint but for the numbers of neurons."""
    tail = at_place(tails(components=(2, 3)), 0)
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((5, 2 * PARTICLES)), rng.standard_normal((5, 3 * PARTICLES))
    up, down = tail @ x, tail.T @ g
    assert up.shape == g.shape and down.shape == x.shape
    np.testing.assert_allclose([np.mean(up**2), np.mean(down**2)], 1, atol=0.05)
    np.testing.assert_allclose(np.mean(g * up, axis=1), np.sqrt(2 / 3) * np.mean(down * x, axis=1), rtol=1e-9)
