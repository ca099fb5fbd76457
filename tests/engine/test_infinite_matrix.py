"""The infinite matrix against a real Gaussian matrix used in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine.basis import empty_basis
from kernelfield.engine.infinite_matrix import InfiniteMatrix, Side, backward, forward, in_use, learn
from kernelfield.engine.points import padded_sobol
from kernelfield.engine.slabs import combination

pytestmark = pytest.mark.usefixtures("x64")
PARTICLES, POINTS, RATE = 4096, 3, 0.5


def nonlinear(x):
    return np.tanh(1.5 * x) + 0.3 * x


def infinite(coupling, scale=1.0):
    """Two steps of forward, backward, update on particles: fields above and below."""

    def side(seed):
        z = jnp.asarray(padded_sobol(24 + POINTS, PARTICLES, np.random.SeedSequence(seed)), float)
        numbers = (jnp.asarray(each) for each in (scale, coupling, 1.0))
        Z, basis = z[None, POINTS:], empty_basis(24, PARTICLES, 1e-8, np.float64)
        return Side(basis, Z, scale * Z, *numbers), np.asarray(z[:POINTS])

    (below, u), (above, _) = side(1), side(2)
    matrix = InfiniteMatrix(below, above)
    phi, passed = nonlinear(u), []
    for _ in range(2):
        matrix, F = forward(matrix, jnp.asarray(phi))
        h = np.asarray(combination(F, matrix.above.W, matrix.features))
        g = np.tanh(h)
        matrix, G = backward(matrix, jnp.asarray(g))
        z = np.asarray(combination(G, matrix.below.W, matrix.gradients))
        passed.append((h, g, z, phi))
        rate = jnp.full((POINTS, 1), RATE)
        matrix = matrix._replace(
            above=learn(matrix.above, rate, F, jnp.asarray(g), matrix.features),
            below=learn(matrix.below, rate, G, jnp.asarray(phi), matrix.gradients),
        )
        phi = nonlinear(u + z)
    return passed


def finite(width, seed):
    rng = np.random.default_rng(seed)
    W, u = rng.standard_normal((width, width)), rng.standard_normal((POINTS, width))
    phi, passed = nonlinear(u), []
    for _ in range(2):
        h = phi @ W.T / np.sqrt(width)
        g = np.tanh(h)
        z = g @ W / np.sqrt(width)
        passed.append((h, g, z, phi))
        W = W + RATE * g.T @ phi / np.sqrt(width)
        phi = nonlinear(u + z)
    return passed


def kernels(passed):
    averaged = [
        a @ b.T / a.shape[1] for first in passed for second in passed for a, b in zip(first, second, strict=True)
    ]
    return np.stack([np.broadcast_to(kernel, (POINTS, POINTS)) for kernel in averaged])


def test_fields_have_the_kernels_of_a_wide_gaussian_matrix():
    samples = np.stack([kernels(finite(600, seed)) for seed in range(24)])
    truth, noise = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(24)
    measured = kernels(infinite(coupling=1.0))
    allowed = 4 * noise + 0.03 * np.abs(truth).max()
    assert np.all(np.abs(measured - truth) < allowed)


def test_without_coupling_the_two_directions_are_unrelated():
    samples = np.stack([kernels(finite(600, seed)) for seed in range(8)])
    truth = samples.mean(axis=0)
    right = np.linalg.norm(kernels(infinite(1.0)) - truth)
    wrong = np.linalg.norm(kernels(infinite(0.0)) - truth)
    assert wrong > 5 * right


def test_a_matrix_used_both_ways_is_one_matrix():
    """<z phi> = <g h> at equal times: g.(W phi) = (W^T g).phi."""
    for h, g, z, phi in infinite(1.0):
        left, right = (z * phi).mean(axis=1), (g * h).mean(axis=1)
        np.testing.assert_allclose(left, right, atol=0.02 * np.abs(right).max())
    h, g, z, phi = infinite(0.0)[0]
    assert np.abs((z * phi).mean(axis=1) - (g * h).mean(axis=1)).max() > 0.1


def test_what_is_in_use_is_all_that_a_matrix_needs():
    """On both sides the directions met, and images of those of the other side; of nothing met, one row of zeros."""

    def side(basis, images):
        z = jnp.ones((1, images, PARTICLES))
        return Side(basis, z, 2 * z, *map(jnp.asarray, (1.0, 1.0, 1.0)))

    phi = jnp.asarray(padded_sobol(3, PARTICLES, np.random.SeedSequence(0)), float)
    fresh = InfiniteMatrix(*(side(empty_basis(24, PARTICLES, 1e-8, np.float64), 24) for _ in range(2)))
    known = in_use(jax.device_get(forward(fresh, phi)[0]))
    assert known.below.basis.q.shape == (3, PARTICLES) and known.above.W.shape == (1, 3, PARTICLES)
    assert known.above.basis.q.shape == (1, PARTICLES) and known.below.Z.shape == (1, 1, PARTICLES)
    assert not known.above.basis.q.any()
