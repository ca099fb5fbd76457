"""Alternating Monte Carlo against the march, derivatives taken another way, and what it must do when it fails."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from kernelfield.activations.functions import activation
from kernelfield.describe.run import Run
from kernelfield.theories.alternating import AlternatingMonteCarlo, Iteration, _Iterations, _zetas
from suites import thorough

X, Y = np.random.default_rng(11).standard_normal((3, 5)), np.array([1.0, -0.7, 0.5])
ROWS, POINTS = 7, 3


def problem_of(name="tanh", depth=2, gamma0=1.0, y=Y, rate=0.3, steps=ROWS - 1):
    network = kf.MLP(depth=depth, activation=name, gamma0=gamma0)
    return network, kf.Problem(X, y), kf.GradientDescent(learning_rate=rate, steps=steps)


@functools.cache
def march(*described, particles=4096, **more):
    return kf.solve(*problem_of(*described, **more), kf.March(particles=particles), progress=False)


def alternate(*described, settings=(), throw=True, fields_at=(0, -1), **more):
    method = AlternatingMonteCarlo(**(dict(samples=512) | dict(settings)))
    return kf.solve(*problem_of(*described, **more), method, fields_at=fields_at, throw=throw, progress=False)


sampled = functools.cache(alternate)


def distance(found, truth):
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


def quantities(solution):
    """Predictions, and Phi and G of every hidden layer at the last step."""
    layers = range(1, solution.network.depth + 1)
    kernels = [solution.estimate(kind, layer) for kind in ("feature_kernel", "gradient_kernel") for layer in layers]
    return [solution.estimate("predictions"), *kernels]


def all_kernels(solution):
    layers, every = range(1, solution.network.depth + 1), slice(None)
    features = [solution.feature_kernel(layer, every) for layer in layers]
    return features + [solution.gradient_kernel(layer, every) for layer in layers]


# --- another method


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "depth", "responses"), [("tanh", 2, "stein"), ("relu", 2, None)])
def test_it_agrees_with_the_march_within_the_error_bars(name, depth, responses):
    solution, truth = sampled(name, depth, settings=(("responses", responses),)), march(name, depth)
    for found, known in zip(quantities(solution), quantities(truth), strict=True):
        noise = np.hypot(np.linalg.norm(found.se), np.linalg.norm(known.se))
        assert np.linalg.norm(found.mean - known.mean) <= 4 * noise
        assert distance(found.mean, known.mean) < (0.08 if name == "relu" else 0.03)


@pytest.mark.thorough
def test_linear_networks_are_exact(depth=2):
    """Oracle: the march, which is exact here; all kernels over all pairs of times."""
    solution, truth = sampled("linear", depth, 1.5), march("linear", depth, 1.5)
    assert solution.exact and len(solution.replicate_predictions) == 1
    assert distance(solution.predictions, truth.predictions) < 1e-9
    for found, known in zip(all_kernels(solution), all_kernels(truth), strict=True):
        assert distance(found, known) < 1e-9


@pytest.mark.thorough
def test_more_samples_shrink_the_error():
    truth, errors = march("tanh", 2), []
    for samples in (64, 512):
        solution = sampled("tanh", 2, settings=(("samples", samples), ("replicates", 8)))
        errors.append(np.mean([distance(each, truth.predictions) for each in solution.replicate_predictions]))
    assert errors[1] < 0.5 * errors[0]


# --- responses


@pytest.mark.thorough
@pytest.mark.parametrize("by_r", [True, thorough(False)])
def test_tangents_are_the_derivatives_of_the_fields(x64, by_r):
    """Oracle: automatic differentiation of the causal equations, written out once more."""
    phi, times, points, samples = activation("tanh"), 5, 2, 3
    iteration, n = Iteration(phi, 3, times, points, False, (), samples), times * points
    time, rng = np.repeat(np.arange(times), points), np.random.default_rng(0)
    C = np.where(time[:, None] > time, rng.standard_normal((n, n)), 0)
    D = np.where(time[:, None] >= time, rng.standard_normal((n, n)), 0)

    def fields(u, r):
        h, z = u, r
        for _ in range(2 * times):  # of a causal map, as many iterations as there are rows are exact
            h = u + C @ (phi.dphi(h) * z)
            z = r + D @ phi.phi(h)
        return h, z

    for u, r in rng.standard_normal((samples, 2, n)):
        wanted = jax.jacobian(lambda h, z: phi.phi(fields(h, z)[0]) if by_r else _g(phi, *fields(h, z)), int(by_r))
        h, z = (jnp.asarray(each)[:, None] for each in fields(u, r))
        bend = z * jax.vmap(jax.vmap(jax.grad(phi.dphi)))(h)
        found = iteration.tangents(jnp.asarray(C), jnp.asarray(D), phi.dphi(h), bend, by_r)[..., 0]
        np.testing.assert_allclose(found, wanted(u, r), atol=1e-10)


def _g(phi, h, z):
    return phi.dphi(h) * z


@pytest.mark.thorough
def test_the_lemma_of_stein_gives_the_derivatives_of_a_linear_network(x64):
    n, samples = ROWS * POINTS, 64
    run = _Iterations(Run(*problem_of("linear", 3), AlternatingMonteCarlo(samples=samples)))
    assert run.iterate(lambda *_: None).code == "ok"
    zetas = [jnp.asarray(zeta) for zeta in _zetas(n, n, samples, np.random.SeedSequence(1))]
    neurons = run.iteration.neurons(2, run.constants, zetas, run.states[0])
    stein = dataclasses.replace(run.iteration, stein=True)
    for by_r in (True, False):
        visited = neurons.roots[by_r].R  # a response has no meaning in other directions
        found, truth = (each.response(neurons, by_r) @ visited for each in (stein, run.iteration))
        np.testing.assert_allclose(found, truth, atol=1e-9)


@pytest.mark.parametrize("name", ["tanh", thorough("relu")])
def test_responses_are_causal(x64, name):
    """A(t, s) = 0 for s >= t; B(t, s) = 0 for s > t, B(0, 0) = 0 and B(t, t) != 0 later."""
    run = _Iterations(Run(*problem_of(name), AlternatingMonteCarlo(samples=512, replicates=1)))
    assert run.iterate(lambda *_: None).code == "ok"
    state, time = run.states[0], np.repeat(np.arange(ROWS), POINTS)
    A, B = np.asarray(state.A[1]), np.asarray(state.B[1])
    assert not A[time[:, None] <= time].any() and np.abs(A).max() > 0.01
    assert not B[time[:, None] < time].any()
    same_time = np.abs(B.reshape(ROWS, POINTS, ROWS, POINTS)[range(ROWS), :, range(ROWS)]).max(axis=(1, 2))
    assert same_time[0] == 0 and same_time[1:].min() > 0


# --- the iteration


def test_it_ends_below_its_tolerance():
    solution = sampled("tanh", 2)
    assert solution.status.code == "ok"
    assert solution.info["residual"] < solution.info["tolerance"] == 1e-5
    assert len(solution.info["iterations"]) == 4 and max(solution.info["iterations"]) < 20
    tight = alternate("tanh", 2, settings=(("tolerance", 1e-9),))
    assert distance(solution.predictions, tight.predictions) < 1e-5


def test_kinked_activations_end_by_causality():
    """Where the map does not contract, since g jumps with the sign of h, each iteration still settles rows."""
    solution = sampled("relu", 2, settings=(("tolerance", 1e-12),))
    assert max(solution.info["iterations"]) <= 2 * ROWS + 2


def test_damping_moves_no_fixed_point():
    one, damped = (alternate("tanh", 2, settings=(("damping", part), ("tolerance", 1e-7))) for part in (0.0, 0.3))
    assert max(damped.info["iterations"]) > max(one.info["iterations"])
    assert distance(damped.predictions, one.predictions) < 1e-5


def test_replicates_are_reproducible_and_independent():
    one, same = sampled("tanh", 2), alternate("tanh", 2)
    np.testing.assert_array_equal(one.replicate_predictions, same.replicate_predictions)
    other = alternate("tanh", 2, settings=(("seed", 1), ("replicates", 2)))
    assert distance(other.replicate_predictions[0], one.replicate_predictions[0]) > 1e-5
    assert distance(one.replicate_predictions[1], one.replicate_predictions[0]) > 1e-5


def test_coordinates_are_orthonormal(x64):
    zeta = np.concatenate(_zetas(40, 7, 64, np.random.SeedSequence(0)))
    np.testing.assert_allclose(zeta @ zeta.T / 64, np.eye(47), atol=1e-12)


def test_kernels_are_the_second_moments_of_the_final_fields():
    solution = sampled("tanh", 2)
    for layer in (1, 2):
        fields = solution.fields(layer)
        assert fields["h"].shape == (POINTS, 4 * 512)
        phi, g = np.tanh(fields["h"]), fields["g"]
        assert distance(phi @ phi.T / phi.shape[1], solution.feature_kernel(layer)) < 1e-4
        assert distance(g @ g.T / g.shape[1], solution.gradient_kernel(layer)) < 1e-4


# --- runs that fail


def test_too_few_iterations_say_so():
    short = (("max_iterations", 5),)
    solution = alternate("tanh", 2, settings=short, throw=False)
    assert solution.status.code == "not_converged"
    assert "raise max_iterations, or lower gamma0 or learning_rate" in solution.status.message
    assert solution.predictions.shape == (ROWS, POINTS)
    with pytest.raises(
        kf.SolveError, match=r"not_converged: kernels still change by .* in iteration 5 \(tolerance 1e-05"
    ):
        alternate("tanh", 2, settings=short)


def test_diverging_training_says_so():
    with pytest.raises(kf.SolveError, match=r"diverged: .* try a learning_rate below 30"):
        alternate("relu", 2, rate=30.0, gamma0=2.0, settings=(("samples", 256), ("replicates", 2)))


def test_interruption_keeps_the_last_iterates():
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    method = AlternatingMonteCarlo()
    solution = method.solve(Run(*problem_of("tanh", 2), method), stop)
    assert solution.status.code == "interrupted" and solution.info["iterations"] == [4] * 4
    assert np.isfinite(solution.predictions).all()


def test_histories_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match=r"\(steps \+ 1\) P up to 4096, got 6003: use March"):
        alternate("tanh", 2, steps=2000)
    with pytest.raises(ValueError, match="samples must be at least 42, the coordinates of a neuron, got 32"):
        alternate("tanh", 3, settings=(("samples", 32),))
    with pytest.raises(ValueError, match="samples must be a power of two"):
        AlternatingMonteCarlo(samples=1000)
