"""Learning rules, Adam and Langevin dynamics at infinite width: identities of every replicate, and finite networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from ensembles import check_approach
from kernelfield import observables
from kernelfield.describe.run import Run
from kernelfield.engine.infinite_matrix import Feedback, InfiniteMatrix, collect, replace_feedback
from kernelfield.engine.noise import fade, stir
from kernelfield.layers import FieldTrace, WeightTrace
from kernelfield.march.particle_run import ParticleRun
from suites import keep_fast

RNG = np.random.default_rng(4)
X, Y = RNG.standard_normal((5, 6)), np.array([1.0, -0.7, 0.9, -1.1, 0.4])
IMAGES = RNG.standard_normal((5, 4, 1))
PROBLEM, MLP = kf.Problem(X, Y), kf.MLP(depth=2, activation="tanh", gamma0=1.5)
RULES = {
    "feedback": kf.FeedbackAlignment(),
    "partial feedback": kf.FeedbackAlignment(alignment=0.6),
    "direct": kf.DirectFeedbackAlignment(),
    "Hebb": kf.Hebbian(),
}
NETWORKS = {
    "MLP": (MLP, PROBLEM),
    "biased, of several widths": (MLP.model_copy(update={"bias_scale": 0.4, "widths": (2.0, 0.5)}), PROBLEM),
    "CNN": (kf.CNN(depth=2, activation="tanh", gamma0=1.5), kf.Problem(IMAGES, Y)),
    "residual": (kf.ResNet(depth=2, activation="tanh", gamma0=1.5), PROBLEM),
    "two outputs": (MLP, kf.Problem(X, np.stack([Y, -Y[::-1]], axis=1))),
}


def descent(rule, steps=4, rate=0.3, **settings):
    return kf.GradientDescent(learning_rate=rate, steps=steps, rule=rule, **settings)


def solved(training, network=MLP, problem=PROBLEM, save_at=None, **march):
    method = kf.March(**{"particles": 256, "replicates": 2, **march})
    return kf.solve(network, problem, training, method, save_at=save_at, progress=False)


@functools.cache
def taught(name):
    return solved(descent(RULES[name]))


# --- learning rules


@pytest.mark.parametrize("name", keep_fast(["partial feedback", "Hebb"], "partial feedback"))
def test_observed_gradients_are_those_of_the_network(name):
    """<z, phi> = <g, W phi> for z = W^T g, to rounding, whatever sends gradients down in training."""
    predictor = taught(name).predictor
    step, layers = predictor.step, jax.tree.map(jnp.asarray, predictor.states[4][0])
    matrices = collect(layers, InfiniteMatrix)
    assert matrices and all(matrix.feedback != Feedback() for matrix in matrices)
    data = jnp.asarray(X @ predictor.axes.T / np.sqrt(X.shape[1]), matrices[0].up.K.dtype)

    def gap(observed):
        passed = step.every_output(observed, step.forward(layers, data, None)[1])[1]
        (below, above), weights = collect(passed.body, FieldTrace), collect(passed.body, WeightTrace)
        down, up = jnp.mean(below.z * below.phi, axis=-1), jnp.mean(weights[1].g * above.h, axis=-1)
        return float(jnp.abs(down - up).max() / jnp.abs(up).max())

    assert gap(replace_feedback(layers)) < 1e-4 < 1e-2 < gap(layers)


@pytest.mark.parametrize("name", keep_fast(["Hebb", "direct"], "Hebb"))
def test_the_effective_tangent_kernel_moves_predictions(name):
    """f after one small step is eta K Delta / P with the effective tangent kernel, of every replicate."""
    solution = solved(descent(RULES[name], steps=1, rate=1e-3), particles=1024, precision="double")
    K, moved = solution.kernel_estimate("eNTK", None, 0).replicates, solution.replicate_predictions[:, 1]
    np.testing.assert_allclose(moved, 1e-3 * K @ Y / len(Y), rtol=0.02, atol=0.02 * np.abs(moved).max())
    true = solution.ntk(0)
    assert np.linalg.norm(true - K.mean(axis=0)) > 0.1 * np.linalg.norm(true)


@pytest.mark.thorough
def test_feedback_along_the_initial_weights_begins_as_gradient_descent():
    aligned = solved(descent(kf.FeedbackAlignment(alignment=1.0)), particles=1024)
    cosines = observables.gradient_alignment(aligned, 1).mean
    assert cosines[0] == pytest.approx(1, abs=1e-3) and cosines[-1] < 0.999
    assert abs(observables.gradient_alignment(taught("partial feedback"), 2, 0).mean - 0.6) < 0.1
    with pytest.raises(ValueError, match="cosines between gradients and what stands for them were not tracked"):
        observables.gradient_alignment(solved(descent(None)), 1)


@pytest.mark.thorough
def test_what_learns_by_a_rule_is_stored(tmp_path):
    solution = taught("partial feedback")
    solution.save(tmp_path / "run.nc", predictor=True)
    again = kf.load(tmp_path / "run.nc")
    assert again.training.rule == RULES["partial feedback"]
    for key in (("eNTK", None), ("cosine", 2)):
        np.testing.assert_array_equal(again.kernel(*key).values, solution.kernel(*key).values)
    np.testing.assert_allclose(again.predict(X + 0.1).mean, solution.predict(X + 0.1).mean)


def test_rules_are_refused_where_they_are_not_known():
    with pytest.raises(ValueError, match="rule kind 'hebbia' is unknown"):
        kf.GradientDescent(learning_rate=0.1, steps=2, rule={"kind": "hebbia"})
    for method in (kf.StaticNTK(), kf.DeepLinear(), kf.GradientIndependence(), kf.Perturbation()):
        with pytest.raises(ValueError, match="does not solve learning by Hebbian"):
            kf.solve(kf.MLP(depth=1, activation="linear"), PROBLEM, descent(kf.Hebbian()), method)
    with pytest.raises(ValueError, match="take 'explicit'"):
        kf.solve(MLP, PROBLEM, descent(kf.Hebbian()), kf.FiniteWidth(width=64, algorithm="conditioned"))


def ensemble_case(training, network, problem=PROBLEM, layers=(1, 2), **march):
    def solve(method):
        return kf.solve(network, problem, training, method, save_at=[-1], fields_at=(), progress=False)

    truth = solve(kf.March(particles=1024, replicates=4, kernels="features", **march))
    check_approach(truth, solve, layers)


@pytest.mark.thorough
@pytest.mark.parametrize("name, network", [("direct", "CNN"), ("Hebb", "two outputs")])
def test_rules_against_finite_networks(name, network):
    ensemble_case(descent(RULES[name], steps=8), *NETWORKS[network])


# --- Adam


@pytest.mark.thorough
def test_a_skeleton_of_all_pairs_is_the_matrix_of_signs(width=0.5):
    """After one step along signs, W has moved by eta gamma0 sign(G) for all pairs of particles."""
    network = MLP.model_copy(update={"widths": (width, 1.0)})
    training = kf.SignDescent(learning_rate=0.1, steps=1)
    solution = solved(training, network, particles=32, replicates=1, skeleton=(32, 32), precision="double")
    predictor = solution.predictor
    with jax.enable_x64(True):
        start, end = (jax.tree.map(jnp.asarray, predictor.states[t][0]) for t in (0, 1))
        data = jnp.asarray(X / np.sqrt(X.shape[1]))
        step = predictor.step
        up = step.forward(start, data, None)[1]
        passed = step.backward(start, up, jnp.asarray(Y[:, None]), None)[1]
        weights = collect(passed.body, WeightTrace)[1]
        G = np.asarray(weights.g.T @ weights.phi)
        learned = collect(end, InfiniteMatrix)[0].learned
        np.testing.assert_allclose(learned.U @ learned.V[0], 0.1 * 1.5 * np.sign(G), atol=1e-6)
        sent = learned.send_up(weights.phi, np.array([[0]]))
        np.testing.assert_allclose(sent, weights.phi @ (0.15 * np.sign(G)).T / 32, atol=1e-6)
        down = learned.send_down(weights.g, np.array([[0]]), 1 / width)
        np.testing.assert_allclose(down, weights.g @ (0.15 * np.sign(G)) / 32 / width, atol=1e-6)


@pytest.mark.thorough
def test_a_skeleton_stands_for_all_pairs():
    few, all_pairs = (
        solved(kf.Adam(learning_rate=0.05, steps=8), particles=256, replicates=1, skeleton=skeleton, kernels="none")
        for skeleton in ((64, 20), (256, 200))
    )
    f, truth = few.predictions, all_pairs.predictions
    assert 1e-5 < np.linalg.norm(f - truth) / np.linalg.norm(truth) < 0.03
    assert kf.solve(MLP, PROBLEM, few.training, kf.March(particles=256, replicates=1), progress=False).predict(
        X
    ).mean == pytest.approx(few.predictions[-1], rel=0.05, abs=0.02)


ADAM = {
    "biased, of several widths": kf.AdamW(learning_rate=0.05, epochs=3, batch_size=2, eps=0.01, weight_decay=0.5),
    "CNN": kf.Adam(learning_rate=0.05, steps=6),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ADAM)
def test_adam_against_finite_networks(name):
    network, problem = NETWORKS[name]
    ensemble_case(ADAM[name], network, problem, (network.hidden_layers,))


# --- Langevin dynamics


def langevin(steps=10, temperature=0.3, **settings):
    return kf.Langevin(
        **{"learning_rate": 0.2, "steps": steps, "weight_decay": 0.5, "temperature": temperature, **settings}
    )


def noisy_layers():
    method = kf.March(particles=256, replicates=1, precision="double", kernels="none")
    run = ParticleRun(Run(MLP, PROBLEM, langevin(), method))
    run.march(lambda done, total: None)
    return run.replicates[0].state.layers


def test_noise_moves_both_sides_of_a_matrix_alike():
    with jax.enable_x64(True):
        layers = noisy_layers()
        kept = jnp.asarray(0.9)
        moved = stir(layers, kept, jnp.sqrt(1 - kept**2), jax.random.key(0))
        faded = fade(moved, jnp.asarray(1e-3), jax.random.key(1))
        for before, after in zip(collect(layers, InfiniteMatrix), collect(moved, InfiniteMatrix), strict=True):
            up = after.above.average(after.up.K, after.above.q)[0]
            down = after.below.average(after.down.K, after.below.q)[0]
            known = np.s_[: int(after.below.size), : int(after.above.size)]
            np.testing.assert_allclose(np.asarray(up)[known], np.asarray(down).T[known], atol=1e-8)
            old, new = (np.asarray(matrix.up.K[0, :5]) for matrix in (before, after))
            expected = 0.9 * float(before.up.decay / after.up.decay)
            assert np.mean(old * new) / np.mean(old**2) == pytest.approx(expected, abs=0.1)
            assert float(jnp.mean(after.up.K[0] ** 2)) == pytest.approx(1, abs=0.1)
        for matrix in collect(faded, InfiniteMatrix):
            q = matrix.below.q[: int(matrix.below.size)]
            np.testing.assert_allclose(np.asarray(q @ q.T) / q.shape[1], np.eye(len(q)), atol=1e-8)


@pytest.mark.thorough
def test_without_temperature_it_is_descent_with_decay():
    cold = solved(langevin(temperature=0.0), particles=1024, replicates=4, kernels="features")
    plain = solved(
        kf.GradientDescent(learning_rate=0.2, steps=10, weight_decay=0.5),
        particles=1024,
        replicates=4,
        kernels="features",
    )
    row = kf.compare(cold, plain).row("predictions", times="all")
    assert row.error < max(2 * row.noise, 0.02)


@pytest.mark.thorough
def test_averages_over_time_count_replicates():
    solution = solved(langevin(), kernels="features")
    average = observables.time_average(solution, "predictions", 5)
    np.testing.assert_allclose(average.mean, solution.replicate_predictions[:, 5:].mean(axis=(0, 1)), rtol=1e-5)
    assert average.se.shape == Y.shape and observables.time_average(solution, "loss", 5).mean > 0
    Phi = np.mean([solution.feature_kernel(2, t) for t in range(5, 11)], axis=0)
    np.testing.assert_allclose(observables.time_average(solution, "Phi", 5, layer=2).mean, Phi, rtol=1e-5)
    with pytest.raises(ValueError, match="needs two replicates"):
        observables.time_average(solution.restricted(None, [0]), "loss", 5)
    with pytest.raises(ValueError, match="left no state to predict from"):
        solution.predict(X)


@pytest.mark.thorough
def test_langevin_against_finite_networks():
    network, problem = NETWORKS["biased, of several widths"]

    def solve(method):
        return kf.solve(network, problem, langevin(8), method, save_at=[-1], fields_at=(), progress=False)

    truth = solve(kf.March(particles=2048, replicates=4, kernels="features"))
    found = solve(kf.FiniteWidth(width=128, seeds=48, kernels="features"))
    for quantity in (("predictions",), ("Phi", network.hidden_layers)):
        row = kf.compare(found, truth).row(*quantity, times="final")
        assert row.error < 2 * row.noise


@pytest.mark.thorough
def test_langevin_samples_the_posterior():
    """Long averages at T = lambda come to those of the posterior as the learning rate falls, in proportion to it."""
    decay, network, found = 1.0, kf.MLP(depth=1, activation="tanh", gamma0=3.0), []
    for rate, steps in ((0.2, 80), (0.1, 160)):
        cold = decay * (1 - rate * decay / 2)
        training = kf.Langevin(learning_rate=rate, steps=steps, weight_decay=decay, temperature=cold)
        method = kf.March(particles=1024, replicates=4, kernels="none")
        march = kf.solve(network, PROBLEM, training, method, progress=False)
        found.append(observables.time_average(march, "predictions", steps // 4))
    rule = kf.Langevin(learning_rate=0.1, steps=1, weight_decay=decay, temperature=decay)
    posterior = kf.solve(network, PROBLEM, rule, kf.BayesianPosterior(), progress=False).predictions[-1]
    lazy = kf.solve(
        kf.MLP(depth=1, activation="tanh", gamma0=1e-2), PROBLEM, rule, kf.BayesianPosterior(), progress=False
    ).predictions[-1]
    size = np.linalg.norm(posterior)
    coarse, fine, limit = (
        np.linalg.norm(mean - posterior) / size
        for mean in (found[0].mean, found[1].mean, 2 * found[1].mean - found[0].mean)
    )
    noise = np.linalg.norm(np.hypot(2 * found[1].se, found[0].se)) / size
    assert limit < 2 * noise + 0.01 and fine < 0.7 * coarse
    assert np.linalg.norm(lazy - posterior) > 0.2 * size
