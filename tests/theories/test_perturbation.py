"""Perturbation theory against the full theory at small gamma0, and its closed form against the power-series march."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.engine.directions import Directions
from kernelfield.engine.infinite_matrix import Images, collect
from kernelfield.layers import WeightTrace
from kernelfield.march.method import OnParticles
from kernelfield.march.particle_run import ParticleRun
from kernelfield.march.step import Marched, Pace, Step
from suites import thorough

X, Y = np.random.default_rng(1).standard_normal((4, 20)), np.array([1.0, 0.7, -1.2, -0.9])
PROBLEM, TRAINING = kf.Problem(X, Y), kf.GradientDescent(learning_rate=0.3, steps=8)
UNIT = kf.Problem(X, Y / np.linalg.norm(Y))
GAMMAS = (0.05, 0.1, 0.2, 0.3)


def solved(method, depth, gamma0=1.0, activation="linear", problem=PROBLEM, **kept):
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    return kf.solve(network, problem, TRAINING, method, **kept, progress=False)


def distance(found, truth):
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


def quantities(solution):
    """Predictions, Phi and G of every hidden layer over all pairs of times, and the tangent kernel."""
    layers, every = range(1, solution.network.depth + 1), slice(None)
    kernels = [solution.feature_kernel(layer, every) for layer in layers]
    kernels += [solution.gradient_kernel(layer, every) for layer in layers]
    return [solution.predictions, *kernels, solution.ntk(every)]


def slopes(errors):
    """Of log error against log gamma0, one for each quantity."""
    return np.polyfit(np.log(GAMMAS), np.log(errors), 1)[0]


# --- linear networks


@pytest.mark.thorough
def test_the_error_of_linear_networks_falls_as_the_fourth_power(depth=2):
    """Oracle: the exact solution. With |y| = 1: what counts is gamma0 |y|, and all orders do when it is large."""
    errors = []
    for gamma0 in GAMMAS:
        leading, full = (solved(method, depth, gamma0, problem=UNIT) for method in (kf.Perturbation(), kf.March()))
        errors.append([distance(*pair) for pair in zip(quantities(leading), quantities(full), strict=True)])
    assert np.all((slopes(errors) > 3.8) & (slopes(errors) < 4.2))


@pytest.mark.parametrize("depth", [1, thorough(2)])
def test_the_closed_form_is_the_march_in_powers_of_gamma0(depth, monkeypatch):
    """Oracle: the power-series march on exact cubature, which knows no formula."""
    closed = solved(kf.Perturbation(), depth)
    monkeypatch.setattr(kf.Perturbation, "solve", OnParticles.solve)
    for found, truth in zip(quantities(solved(kf.Perturbation(), depth)), quantities(closed), strict=True):
        assert distance(found, truth) < 1e-12


def test_the_tangent_kernel_is_cut_at_its_order():
    """It is quadratic in gamma0, as are its parts."""
    at = {gamma0: solved(kf.Perturbation(), 3, gamma0).ntk() for gamma0 in (1e-3, 1.0, 2.0)}
    change = at[1.0] - at[1e-3]
    np.testing.assert_allclose(at[2.0] - at[1e-3], 4 * change, rtol=1e-5, atol=1e-5 * np.abs(change).max())


# --- nonlinear networks, on common random numbers


def marched(depth, particles=256):
    """A power-series march at one scramble."""
    method = kf.Perturbation(particles=particles, replicates=1, tol=1e-12, precision="double")
    network = kf.MLP(depth=depth, activation="tanh")
    run = ParticleRun(Run(network, PROBLEM, TRAINING, method))
    run.march(lambda done, total: None)
    return run


def at_gamma0(run, gamma0):
    """The perturbative Solution that the run gives at another gamma0."""
    run.run = dataclasses.replace(
        run.run, network=kf.MLP(depth=run.run.network.depth, activation="tanh", gamma0=gamma0)
    )
    return run.solution(kf.Status())


@functools.cache
def compiled(step):
    """A step of the full theory, and the fields phi and g that it began with: one program for every gamma0."""

    @jax.jit
    def march(constants, state, pace):
        _, passed = step.every_output(state.layers, step.forward(state.layers, constants.data, None)[1])
        traces = [*collect(passed.body, WeightTrace), passed.readout]
        fields = [each.phi for each in traces[1:]] + [each.g for each in traces[:-1]]
        return *step(constants, state, pace), fields

    return march


def full_theory(run, gamma0):
    """The full theory on the weights W(0) of the run: its bases and coordinates as they came out, frozen.

    Odd orders of kernels are zero at infinite width but not on so many particles: they cancel in the average over
    gamma0 and -gamma0, and so do those of predictions.
    """

    def frozen(leaf):
        return leaf._replace(M=jnp.zeros_like(leaf.K)) if isinstance(leaf, Images) else leaf

    def without_series(basis):
        return basis._replace(scale=jnp.asarray(1e30)) if isinstance(basis, Directions) else basis

    replicate, found, march = run.replicates[0], [], compiled(Step(run.run.network.layers))
    with jax.enable_x64(True):
        layers = jax.tree.map(frozen, replicate.state.layers, is_leaf=lambda leaf: isinstance(leaf, Images))
        layers = jax.tree.map(without_series, layers, is_leaf=lambda leaf: isinstance(leaf, Directions))
        for sign in (1, -1):
            constants = replicate.constants._replace(gamma0=jnp.asarray(sign * gamma0))
            state, f, kernels = Marched(layers, jnp.zeros_like(replicate.state.initial)), [], []
            for t in range(TRAINING.steps + 1):
                paces = (TRAINING.learning_rate, t < TRAINING.steps, t == 0)
                state, now, fields = march(constants, state, Pace(*map(jnp.asarray, paces)))
                kernels.append(fields)
                f.append(now)
            fields = [np.concatenate(each) for each in zip(*kernels, strict=True)]
            found.append([np.stack(f), *(each @ each.T / each.shape[1] for each in fields)])
    return [(plus + minus) / 2 for plus, minus in zip(*found, strict=True)]


@pytest.mark.parametrize("depth", [1, thorough(2)])
def test_the_error_of_tanh_networks_falls_as_the_fourth_power(depth):
    """Oracle: the full theory with the same weights at initialization."""
    run, errors = marched(depth), []
    for gamma0 in GAMMAS:
        *found, _ = quantities(at_gamma0(run, gamma0))
        truth = full_theory(run, gamma0)
        found = [each.reshape(each_truth.shape) for each, each_truth in zip(found, truth, strict=True)]
        errors.append([distance(*pair) for pair in zip(found, truth, strict=True)])
    assert np.all((slopes(errors) > 3.8) & (slopes(errors) < 4.2))


@pytest.mark.thorough
def test_second_derivatives_of_the_march_at_small_gamma0():
    """Oracle: (march at 0.5 - march at 0.25) / (0.5^2 - 0.25^2), within sampling noise and O(gamma0^2)."""
    last, method = {"save_at": [-1], "fields_at": ()}, kf.March(particles=4096, kernels="features")
    leading = solved(kf.Perturbation(particles=1024), 2, activation="tanh", **last)
    one, half = (solved(method, 2, gamma0, "tanh", **last) for gamma0 in (0.5, 0.25))
    second = leading.feature_kernel(2, -1) - solved(kf.StaticNTK(), 2, activation="tanh").feature_kernel(2, -1)
    measured = (one.feature_kernel(2, -1) - half.feature_kernel(2, -1)) / (0.5**2 - 0.25**2)
    assert distance(measured, second) < 0.2


def test_kinked_activations_are_refused():
    with pytest.raises(ValueError, match="Perturbation needs a smooth activation, got relu"):
        solved(kf.Perturbation(), 2, activation="relu")


def test_files_keep_the_orders(tmp_path):
    solution = solved(kf.Perturbation(), 2, 0.5)
    solution.save(tmp_path / "leading.nc")
    again = kf.load(tmp_path / "leading.nc")
    np.testing.assert_array_equal(again.ntk(slice(None)), solution.ntk(slice(None)))
    assert dataclasses.asdict(again.status) == dataclasses.asdict(solution.status)
