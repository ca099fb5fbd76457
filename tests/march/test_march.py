"""The march against closed forms, exact limits, invariants and finite networks, strongest first."""

import time

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.activations.functions import ACTIVATIONS
from kernelfield.datasets import digits
from kernelfield.describe.run import Run
from kernelfield.march.replicate import Replicate
from kernelfield.solution.status import Status
from kernelfield.solve import solve_run
from suites import thorough

X, Y = np.random.default_rng(7).standard_normal((5, 8)), np.array([1.0, -0.6, 0.8, -1.2, 0.4])
QUICK = {"particles": 512, "replicates": 4}
PREDICTIONS = {"kernels": "none", "fields_at": ()}


def march(
    activation="tanh", depth=2, gamma0=1.0, X=X, y=Y, rate=0.2, steps=12, save_at=None, fields_at=None, **settings
):
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    training = kf.GradientDescent(learning_rate=rate, steps=steps)
    method = kf.March(**(QUICK | settings))
    return kf.solve(network, kf.Problem(X, y), training, method, save_at=save_at, fields_at=fields_at, progress=False)


def distance(found, truth):
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


def all_kernels(solution):
    depth, every = solution.network.depth, slice(None)
    features = [solution.feature_kernel(layer, every) for layer in range(1, depth + 1)]
    return features + [solution.gradient_kernel(layer, every) for layer in range(1, depth + 1)]


def assert_agree(found, truth, *noises, multiple=4.0):
    """`found` is `truth` within a multiple of the standard errors, in the norm over all entries."""
    noise = np.sqrt(sum(np.linalg.norm(each) ** 2 for each in noises))
    assert np.linalg.norm(found - truth) <= multiple * noise


# --- closed forms, linear networks


@pytest.mark.parametrize("depth", [2, thorough(4)])
def test_two_cubatures_of_a_linear_network_agree(depth):
    one, other = (march("linear", depth, 1.3, steps=8, seed=seed) for seed in (0, 1))
    assert distance(one.predictions, other.predictions) < 1e-10
    for found, truth in zip(all_kernels(one), all_kernels(other), strict=True):
        assert distance(found, truth) < 1e-10


def test_a_dense_cubature_gives_the_same_linear_network(monkeypatch):
    def rotated(dimensions, particles, seed, first=0):
        gaussian = np.random.default_rng(seed).standard_normal((particles, particles))
        return np.sqrt(particles) * np.linalg.qr(gaussian)[0][first:dimensions]

    sparse = march("linear", 2, 1.0, steps=8)
    monkeypatch.setattr("kernelfield.march.layout.cubature", rotated)
    dense = march("linear", 2, 1.0, steps=8)
    assert distance(dense.predictions, sparse.predictions) < 1e-10


# --- exact limits


@pytest.mark.parametrize(("activation", "depth"), [("relu", 2), ("linear", 2)])
def test_lazy_limit_is_the_static_ntk(activation, depth):
    phi, rate, steps = ACTIVATIONS[activation], 0.2, 12
    Phi, kernels, slopes = X @ X.T / X.shape[1], [], []
    for _ in range(depth):
        kernels.append(Phi)
        diagonal = np.diag(Phi)
        arguments = np.broadcast_arrays(diagonal[:, None], Phi, diagonal[None])
        Phi, slope = phi.feature_map(*arguments), phi.derivative_map(*arguments)
        slopes.append(slope)
    kernels.append(Phi)
    ntk = sum(Phi * np.prod([np.ones_like(Phi), *slopes[layer:]], axis=0) for layer, Phi in enumerate(kernels))
    errors = [Y]
    for _ in range(steps):
        errors.append(errors[-1] - rate / len(X) * ntk @ errors[-1])
    solution = march(activation, depth, gamma0=1e-3, rate=rate, steps=steps, particles=2048)
    low, high = solution.estimate("ntk", 0).interval(0.99999)
    assert np.all((low - 1e-10 <= ntk) & (ntk <= high + 1e-10))
    assert distance(solution.ntk(0), ntk) < 0.02
    if activation == "linear":
        assert distance(solution.errors, errors) < 1e-5
    else:
        assert_agree(solution.errors, np.array(errors), solution.errors_se)


# --- invariants


@pytest.mark.thorough
def test_the_past_does_not_know_the_future():
    """More steps change no earlier row, and at t = 0 nothing depends on the targets."""
    short, long, other = march(steps=6), march(), march(y=-2 * Y[::-1])
    np.testing.assert_array_equal(short.predictions, long.predictions[:7])
    np.testing.assert_allclose(short.feature_kernel(2, 6), long.feature_kernel(2, 6), rtol=1e-12)
    assert_agree(short.ntk(0), other.ntk(0), short.ntk_se(0), other.ntk_se(0))
    assert not np.allclose(long.ntk(-1), other.ntk(-1))


def test_more_points_than_dimensions():
    wide = np.random.default_rng(0).standard_normal((12, 3))
    exact = march("linear", 1, X=wide, y=np.sign(wide[:, 0]), steps=6)
    assert np.linalg.matrix_rank(exact.feature_kernel(0)) == 3
    assert exact.loss[-1] < exact.loss[0]


# --- other ways to the same answer


@pytest.mark.thorough
def test_finite_networks_approach_the_march():
    truth = march("relu", gamma0=1.5, particles=2048, **PREDICTIONS)
    network, training, problem = truth.network, truth.training, truth.problem
    gaps = []
    for width in (32, 512):
        method = kf.FiniteWidth(width=width, seeds=32, kernels="none")
        finite = kf.solve(network, problem, training, method, fields_at=(), progress=False)
        gaps.append(distance(finite.predictions, truth.predictions))
    assert gaps[1] < 0.3 * gaps[0]
    assert_agree(finite.predictions, truth.predictions, finite.predictions_se, truth.predictions_se)


@pytest.mark.thorough
def test_linear_ensembles_approach_the_exact_solution_as_one_over_width():
    truth = march("linear", 3, 1.5, rate=0.1, steps=20, **PREDICTIONS)
    biases = []
    for width, seeds in ((16, 2048), (64, 512)):
        method = kf.FiniteWidth(width=width, seeds=seeds, kernels="none")
        finite = kf.solve(truth.network, truth.problem, truth.training, method, fields_at=(), progress=False)
        biases.append(finite.predictions[-1] - truth.predictions[-1])
    ratio = biases[0] @ biases[1] / (biases[0] @ biases[0])
    assert 0.25 * 0.5 < ratio < 0.25 * 1.7


@pytest.mark.thorough
def test_error_signal_mode_gives_the_same_predictions():
    plain, aggregated = march(), march(kernels="features", seed=3)
    noises = plain.predictions_se, aggregated.predictions_se
    assert_agree(plain.predictions, aggregated.predictions, *noises)
    assert max(aggregated.info["feature_ranks"]) > 0
    with pytest.raises(ValueError, match="gradient kernels were not tracked"):
        aggregated.gradient_kernel(1)
    bare = march(kernels="none", seed=3)
    assert np.array_equal(bare.replicate_predictions, aggregated.replicate_predictions)
    with pytest.raises(ValueError, match="feature kernels were not tracked"):
        bare.feature_kernel(1)


@pytest.mark.thorough
def test_directions_and_tolerance_change_the_answer_by_no_more_than_noise():
    """No accuracy is lost by them: what is not treated exactly is left to the tail."""
    usual = march(steps=30, particles=2048, **PREDICTIONS)
    for settings in ({"directions": 6}, {"tol": 1e-3, "directions": 64}, {"tol": 0.05}):
        other = march(steps=30, particles=2048, seed=1, **PREDICTIONS, **settings)
        assert_agree(other.predictions, usual.predictions, usual.predictions_se, other.predictions_se)
    assert max(other.info["feature_ranks"]) < max(usual.info["feature_ranks"]) <= 24


@pytest.mark.thorough
def test_batches_of_several_classes_have_enough_directions_and_too_few_are_reported():
    problem = digits(classes=tuple(range(10)), points=200, loss="cross_entropy")
    training = kf.SGD(learning_rate=2.0, batch_size=50, epochs=5)

    def loss(**settings):
        method = kf.March(particles=1024, replicates=2, kernels="none", **settings)
        return kf.solve(kf.MLP(depth=2, activation="tanh"), problem, training, method, progress=False).loss[-1]

    truth = loss(directions=160, tol=4e-3)
    assert abs(loss() / truth - 1) < 0.002
    with pytest.warns(UserWarning, match="% of what the last step learned is left out, .* more than directions=32"):
        few = loss(directions=32, tol=2e-3)
    assert few / truth - 1 > 0.005


@pytest.mark.thorough
def test_a_linear_network_with_more_directions_than_room_begins_again_with_more():
    usual, little = (march("linear", steps=6, **PREDICTIONS, **few) for few in ({}, {"directions": 8}))
    assert little.info["directions"] > max(little.info["feature_ranks"]) > 8
    assert distance(little.predictions, usual.predictions) < 1e-12


def test_kernels_are_recorded_where_asked():
    some = march(save_at=[2, -1])
    every = march()
    np.testing.assert_array_equal(some.predictions, every.predictions)
    np.testing.assert_allclose(some.feature_kernel(1, 2), every.feature_kernel(1, 2), atol=1e-4)
    np.testing.assert_allclose(some.ntk([2, 12]), every.ntk([2, 12]), atol=1e-3)
    with pytest.raises(ValueError, match=r"kernels of step 3 were not kept, only those of steps 2, 12: see save_at"):
        some.gradient_kernel(1, 3)
    with pytest.raises(ValueError, match=r"save_at must be steps in 0\.\.12"):
        march(save_at=[13])


# --- nothing is dropped, however little moves


@pytest.mark.parametrize(
    ("activation", "depth", "small", "what"),
    [
        ("tanh", 1, 1e-4, "targets"),
        ("relu", 1, 1e-8, "targets"),
        thorough("tanh", 3, 1e-8, "targets"),
        thorough("relu", 3, 1e-6, "gamma0"),
    ],
)
def test_small_targets_and_small_gamma0_are_the_lazy_limit(activation, depth, small, what):
    """f(c y) / c and f(gamma0) tend to the predictions of the static kernel."""
    settings = {"gamma0": small} if what == "gamma0" else {"y": small * Y}
    found = march(activation, depth, particles=1024, **PREDICTIONS, **settings)
    lazy = kf.solve(found.network, found.problem, found.training, kf.StaticNTK(), progress=False)
    assert found.status.code == "ok"
    assert_agree(found.predictions, lazy.predictions, found.predictions_se)
    assert np.linalg.norm(found.predictions_se) < 0.03 * np.linalg.norm(lazy.predictions)


def test_precision_follows_what_moves():
    def precision(**settings):
        return march(depth=1, steps=2, **PREDICTIONS, **settings).info["precision"]

    assert precision(gamma0=1e-2) == precision(gamma0=1e-5, precision="single") == "float32"
    assert precision(gamma0=1e-5) == precision(y=1e-6 * Y) == precision(precision="double") == "float64"


def test_replicates_are_reproducible_and_independent():
    one, same, other = (march(seed=seed, **PREDICTIONS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.replicate_predictions, same.replicate_predictions)
    assert not np.allclose(one.replicate_predictions[0], one.replicate_predictions[1], rtol=1e-6)
    assert not np.allclose(one.replicate_predictions, other.replicate_predictions, rtol=1e-6)


@pytest.mark.parametrize("cores", [1, 2])
def test_replicates_take_turns_on_one_core_and_on_two_none_waits_for_another(monkeypatch, cores):
    rows, apart = {}, []

    def watched(replicate, stop, *asked):
        number = replicate.setup.seed.spawn_key[0]
        if number == 0:
            time.sleep(0.05)
        advance(replicate, stop, *asked)
        rows[number] = replicate.t
        apart.append(rows.get(1, 0) - rows.get(0, 0))

    advance = Replicate.march
    monkeypatch.setattr(Replicate, "march", watched)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("kernelfield.march.particle_run.SECONDS_BETWEEN_REPORTS", 0.0)  # strides of one step
    together = march(steps=6, replicates=2, **PREDICTIONS)
    assert rows == {0: 7, 1: 7} and together.replicate_predictions.shape[:2] == (2, 7)
    assert max(map(abs, apart)) == 1 if cores == 1 else max(apart) > 1


# --- fields


def test_fields_are_recorded_where_asked():
    training = kf.GradientDescent(learning_rate=0.2, steps=6)
    problem = kf.Problem(X, Y)
    solution = kf.solve(kf.MLP(depth=1), problem, training, kf.March(**QUICK), fields_at=[2, -1], progress=False)
    assert solution.fields(1, 2)["h"].shape == (5, 4 * 512)
    with pytest.raises(ValueError, match=r"recorded at layers \[1\] and steps \[2, 6\], not at \(1, 3\)"):
        solution.fields(1, 3)
    with pytest.raises(ValueError, match=r"fields_at must be steps in 0\.\.6"):
        kf.solve(kf.MLP(depth=1), problem, training, fields_at=[7])


# --- runs that end early


def test_a_diverging_run_stops_and_keeps_the_steps_before():
    with pytest.raises(kf.SolveError, match=r"diverged.*at step \d+: try a learning_rate below 6") as caught:
        march("relu", rate=6.0, gamma0=2.0, steps=50, **PREDICTIONS)
    solution = caught.value.solution
    assert 0 < solution.steps_done < 50
    assert np.isfinite(solution.predictions).all()
    assert solution.loss.max() <= 1e3 * solution.loss[0]
    again = solve_run(solution.run, throw=False, progress=False)
    assert again.status.code == "diverged"
    np.testing.assert_array_equal(again.predictions, solution.predictions)  # whichever replicate was ahead


def test_interruption_keeps_what_was_computed():
    def stop_after_five(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    problem, training = kf.Problem(X, Y), kf.GradientDescent(learning_rate=0.2, steps=4000)
    solution = kf.March(**QUICK).solve(Run(kf.MLP(depth=1), problem, training, kf.March(**QUICK)), stop_after_five)
    assert solution.status.code == "interrupted"
    assert 4 <= solution.steps_done < 4000
    assert len(solution.predictions) == solution.steps_done + 1


def test_interruption_before_the_first_step_is_a_keyboard_interrupt(monkeypatch):
    stopped = Status("interrupted", "stopped")
    monkeypatch.setattr(kf.March, "solve", lambda *arguments: stopped)
    with pytest.raises(kf.Interrupted, match="stopped") as caught:
        march()
    assert caught.value.solution is None
