"""The infinite matrix against a real Gaussian matrix used in both directions, and as one linear operator."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelfield.engine import infinite_matrix
from kernelfield.engine.directions import make_empty_basis
from kernelfield.engine.infinite_matrix import Feedback, Images, InfiniteMatrix, add_directions, learn
from kernelfield.engine.points import padded_sobol
from kernelfield.engine.tail import make_tail
from suites import thorough

pytestmark = pytest.mark.usefixtures("x64")
PARTICLES, POINTS, RATE = 2048, 3, 0.5
ITSELF = Feedback()  # W^T sends gradients down


def nonlinear(x):
    return np.tanh(1.5 * x) + 0.3 * x


def fresh(feedback=ITSELF, scale=1.0, tol=1e-2, capacity=8, ratio=1.0, particles=PARTICLES, seed=0):
    """A matrix that has met nothing, and Gaussian fields on the particles below."""

    def images(number, sigma, gain):
        z = padded_sobol(capacity + POINTS, particles, np.random.SeedSequence([seed, number])).astype(float)
        numbers = (np.asarray(each) for each in (sigma, 1.0, gain))
        return Images(z[None, POINTS:], np.zeros((1, capacity, particles)), *numbers), z[:POINTS]

    down, u = images(1, scale * ratio**0.5, ratio)
    up, _ = images(2, scale, 1.0)
    bases = (make_empty_basis(capacity, particles, np.float64) for _ in range(2))
    tail = make_tail(1, particles, (1, 1), 64, np.random.SeedSequence(seed), np.float64)
    return jax.tree.map(jnp.asarray, InfiniteMatrix(*bases, up, down, tail, tol, feedback, ratio)), u


def send(matrix, x, upward, mass=None):
    x = jnp.asarray(x)
    sent, F = add_directions(matrix if upward else matrix.T, x, mass)
    return sent if upward else sent.T, F, infinite_matrix.send(sent, x, F, np.array([[0]]))


@functools.cache
def infinite(**settings):
    """Two steps of forward, backward, update on particles: fields above and below."""
    matrix, u = fresh(**settings)
    mass = jnp.ones(POINTS)
    for _ in range(2):  # the first fields choose the directions that have Gaussian coordinates
        matrix, _, h = send(matrix, nonlinear(u), True, mass)
        matrix, _, _ = send(matrix, np.tanh(h), False, mass)
    phi, passed = nonlinear(u), []
    for _ in range(2):
        matrix, F, h = send(matrix, phi, True, mass)
        g = np.tanh(h)
        matrix, G, z = send(matrix, g, False, mass)
        passed.append((h, g, z, phi))
        rate = jnp.full(POINTS, RATE)
        up, down = learn(matrix.up, rate, F, jnp.asarray(g)), learn(matrix.down, rate, G, jnp.asarray(phi))
        matrix, phi = replace(matrix, up=up, down=down), nonlinear(u + np.asarray(z))
    return passed, matrix


def finite(width, seed, scale=1.0, ratio=1.0):
    """`width` neurons below."""
    rng = np.random.default_rng(seed)
    above = round(width * ratio)
    W, u = scale * rng.standard_normal((above, width)), rng.standard_normal((POINTS, width))
    phi, passed = nonlinear(u), []
    for _ in range(2):
        h = phi @ W.T / np.sqrt(width)
        g = np.tanh(h)
        z = g @ W / np.sqrt(width)
        passed.append((h, g, z, phi))
        W = W + RATE * g.T @ phi / np.sqrt(width)
        phi = nonlinear(u + z)
    return passed


def moments(passed):
    """Kernels of h, g, z, phi within and between the two steps."""
    return np.stack([
        np.asarray(one) @ np.asarray(two).T / one.shape[1]
        for kind in zip(*passed, strict=True)
        for one in kind
        for two in kind
    ])  # fmt: skip


def distance(one, two):
    return np.linalg.norm(one - two) / np.linalg.norm(two)


@functools.cache
def wide(scale=1.0, ratio=1.0):
    """Moments of the mean of six matrices, and of one more."""
    *several, one = (moments(finite(2048, seed, scale, ratio)) for seed in range(7))
    return np.mean(several, axis=0), one


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scale", "ratio", "tol"),
    [(1.0, 1.0, 1e-26), (1.7, 2.0, 0.3)],
)
def test_it_acts_as_a_real_matrix_does(scale, ratio, tol):
    """Oracle: matrices of growing width, whatever part of the fields is left to the tail."""
    truth, one = wide(scale, ratio)
    found = np.mean([moments(infinite(tol=tol, scale=scale, ratio=ratio, seed=seed)[0]) for seed in range(3)], axis=0)
    assert distance(found, truth) < 0.05
    assert distance(found, truth) < distance(one, truth)


@pytest.mark.thorough
def test_without_responses_it_does_not():
    truth, _ = wide()
    found = np.mean([moments(infinite(feedback=Feedback(0.0), seed=seed)[0]) for seed in range(3)], axis=0)
    assert distance(found, truth) > 0.1


@pytest.mark.parametrize("tol", [1e-2, thorough(0.3)])
def test_both_directions_are_one_operator(tol):
    """<g W phi> = <phi W^T g> for any fields, learned parts included, but for tails of both."""
    _, matrix = infinite(tol=tol, scale=1.0, ratio=1.0, seed=0)
    rng = np.random.default_rng(3)
    phi, g = rng.standard_normal((2, 5, PARTICLES))
    q_a, q_b = matrix.below.q, matrix.above.q
    *_, h = send(matrix, phi, True)
    *_, z = send(matrix, g, False)
    np.testing.assert_allclose(g @ h.T, z @ phi.T, atol=1e-9 * PARTICLES)
    *_, h = send(matrix, q_a, True)
    *_, z = send(matrix, q_b, False)
    np.testing.assert_allclose(q_b @ h.T, z @ q_a.T, atol=1e-9 * PARTICLES)


@pytest.mark.parametrize(("upward", "ratio"), [thorough(True, 1.0), thorough(False, 2.0)])
def test_a_new_direction_leaves_the_operator_as_it_is(upward, ratio):
    _, matrix = infinite(tol=0.3, capacity=16, ratio=ratio)
    x, y = np.random.default_rng(4).standard_normal((2, 2, PARTICLES))
    x = 3 * x  # more than a third of what was there
    before = [send(matrix, y, way)[2] for way in (True, False)]
    later, *_ = send(matrix, x, upward, jnp.ones(2))
    side = "below" if upward else "above"
    assert getattr(later, side).size == getattr(matrix, side).size + 2
    for old, way_up in zip(before, (True, False), strict=True):
        if ratio == 1 or way_up == upward:
            np.testing.assert_allclose(send(later, y, way_up)[2], old, atol=1e-9)


def test_what_is_learned_moves_all_fields_but_between_tails():
    """M and its transpose are c (Delta g) phi^T on everything that one leading direction has a part in."""
    matrix, u = fresh(tol=1e-26)
    mass = jnp.ones(POINTS)
    matrix, F, h = send(matrix, u, True, mass)
    g = np.tanh(h)
    matrix, G, _ = send(matrix, g, False, mass)
    x = np.random.default_rng(5).standard_normal((2, PARTICLES))
    before = [send(matrix, x, way)[2] for way in (True, False)]
    rate = jnp.full(POINTS, RATE)
    matrix = replace(
        matrix, up=learn(matrix.up, rate, F, jnp.asarray(g)), down=learn(matrix.down, rate, G, jnp.asarray(u))
    )
    for old, upward, (seen, moved) in zip(before, (True, False), ((u, g), (g, u)), strict=True):
        expected = RATE * (x @ np.asarray(seen).T / PARTICLES) @ np.asarray(moved)
        np.testing.assert_allclose(send(matrix, x, upward)[2] - old, expected, atol=1e-10)
