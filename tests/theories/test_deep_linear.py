"""The algebraic equations of deep linear networks against closed forms, invariants and the march, strongest first."""

import ast
import dataclasses
import inspect

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientFlow
from kernelfield.theories import deep_linear
from kernelfield.theories.deep_linear import DeepLinear
from solutions import changed, factors
from suites import thorough

X = np.random.default_rng(11).standard_normal((5, 8))
VALUES, VECTORS = np.linalg.eigh(X @ X.T / 8)
TARGETS = {"random": np.array([1.0, -0.6, 0.8, -1.2, 0.4]), "eigenvector": 1.3 * VECTORS[:, -1]}
EVERY = slice(None)


def solve(depth, gamma0, y="random", X=X, rate=0.12, steps=16, method=None, throw=True, fields_at=(0, -1), **settings):
    network = kf.MLP(depth=depth, activation="linear", gamma0=gamma0)
    problem = kf.Problem(X, TARGETS[y] if isinstance(y, str) else y)
    training = kf.GradientDescent(learning_rate=rate, steps=steps)
    method = method or DeepLinear(**settings)
    return kf.solve(network, problem, training, method, throw=throw, fields_at=fields_at, progress=False)


def distance(found, truth):
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


def all_kernels(solution):
    """Phi and G of every hidden layer at all pairs of times."""
    layers = range(1, solution.network.depth + 1)
    Phi = [solution.feature_kernel(layer, EVERY) for layer in layers]
    return Phi + [solution.gradient_kernel(layer, EVERY) for layer in layers]


def assert_same(found, truth, accuracy):
    assert distance(found.predictions, truth.predictions) < accuracy
    for one, other in zip(all_kernels(found), all_kernels(truth), strict=True):
        assert distance(one, other) < accuracy


def first_rows(solution, rows):
    shorter = dataclasses.replace(solution, replicate_predictions=solution.replicate_predictions[:, :rows])
    return changed(shorter, lambda factor: factor[:, :rows])


# --- closed forms and exact limits


def test_two_layer_network_follows_the_exact_recursion():
    """Oracle: the recursion of a(t), b(t) for a target along an eigenvector of the input kernel."""
    gamma0, rate, steps, strength = 1.5, 0.2, 60, VALUES[-1]
    solution = solve(1, gamma0, "eigenvector", rate=rate, steps=steps)
    a, b = np.ones(steps + 1), np.ones(steps + 1)
    step = gamma0 * rate / len(X) * np.sqrt(strength)
    for t in range(steps):
        Delta = 1.3 - np.sqrt(strength) * (a[t] ** 2 - b[t] ** 2) / (2 * gamma0)
        a[t + 1], b[t + 1] = a[t] * (1 + step * Delta), b[t] * (1 - step * Delta)
    f = np.sqrt(strength) * (a**2 - b**2) / (2 * gamma0)
    np.testing.assert_allclose(solution.predictions, np.outer(f, VECTORS[:, -1]), atol=1e-12)
    kernel = (np.outer(a, a) + np.outer(b, b)) / 2
    np.testing.assert_allclose(solution.gradient_kernel(1, EVERY)[:, 0, :, 0], kernel, atol=1e-12)
    Phi = np.einsum("m,tmsn,n->ts", VECTORS[:, -1], solution.feature_kernel(1, EVERY), VECTORS[:, -1])
    np.testing.assert_allclose(Phi / strength, kernel, atol=1e-12)
    assert not solution.predictions_se.any()


@pytest.mark.parametrize("depth", [2, 5])
def test_reflection_of_layers(depth):
    """v^T Phi^l v = strength G^{L+1-l} for a target along an eigenvector v."""
    solution = solve(depth, 1.5, "eigenvector")
    for layer in range(1, depth + 1):
        Phi = solution.feature_kernel(layer, EVERY)
        reflected = np.einsum("m,tmsn,n->ts", VECTORS[:, -1], Phi, VECTORS[:, -1])
        G = solution.gradient_kernel(depth + 1 - layer, EVERY)[:, 0, :, 0]
        np.testing.assert_allclose(reflected, VALUES[-1] * G, rtol=1e-10)


@pytest.mark.parametrize("gamma0", [1e-2, 1e-4])
def test_lazy_limit_is_the_static_ntk_up_to_order_gamma0_squared(gamma0):
    solution = solve(3, gamma0)
    step = np.eye(5) - 0.12 / 5 * 4 * X @ X.T / 8
    errors = [np.linalg.matrix_power(step, t) @ TARGETS["random"] for t in range(17)]
    assert 0 < distance(solution.errors, errors) < 20 * gamma0**2


@pytest.mark.parametrize("y", [np.zeros(5), VECTORS[:, 0]])
def test_nothing_moves_without_an_error_signal_that_data_can_fit(y):
    """Targets of zero, and targets orthogonal to all inputs, whose error signal is rounding."""
    flat = X - np.outer(VECTORS[:, 0], VECTORS[:, 0] @ X)
    solution = solve(3, 1.0, y, X=flat)
    np.testing.assert_allclose(solution.predictions, 0, atol=1e-14)
    np.testing.assert_allclose(solution.feature_kernel(3, EVERY, 0)[-1], flat @ flat.T / 8, atol=1e-14)


# --- the equations as matrices


def dense(K, y, depth, gamma0, rate, steps, sweeps):
    """Eqs. 11-12 with every kernel a matrix (time, sample) x (time, sample): f, H^l and G^l after Jacobi sweeps."""
    P, T, layers = len(y), steps + 1, range(1, depth + 1)
    c = rate * gamma0 / P
    K = np.kron(np.ones((T, T)), K)
    one = np.ones((T, T))
    H, G = [K] * (depth + 1), [one] * (depth + 2)
    A, B = [np.zeros((T * P, T))] * (depth + 1), [np.zeros((T, T * P))] * (depth + 1)
    earlier, f = np.tri(T, k=-1), np.zeros((T, P))
    for _ in range(sweeps):
        Delta = y - f
        signal = np.zeros((T * P, T))  # Delta(s) in column s
        for t in range(T):
            signal[t * P : (t + 1) * P, t] = Delta[t]
        H_new, G_new, A_new, B_new = list(H), list(G), list(A), list(B)
        for layer in layers:
            C = A[layer - 1] + c * np.kron(earlier, np.ones((P, 1))) * (H[layer - 1] @ signal)
            D = B[layer] + c * (earlier * G[layer + 1]) @ signal.T
            R, Q = np.linalg.inv(np.eye(T * P) - C @ D), np.linalg.inv(np.eye(T) - D @ C)
            A_new[layer], B_new[layer - 1] = R @ C, Q @ D
            H_new[layer] = R @ (H[layer - 1] + C @ G[layer + 1] @ C.T) @ R.T
            G_new[layer] = Q @ (G[layer + 1] + D @ H[layer - 1] @ D.T) @ Q.T
        A_new[depth], B_new[0] = np.zeros((T * P, T)), np.zeros((T, T * P))
        readout = R @ (C @ one + H[depth - 1] @ D.T) @ Q.T / gamma0  # <h^L z^L>, of the top layer
        f = np.array([readout[t * P : (t + 1) * P, t] for t in range(T)])
        H, G, A, B = H_new, G_new, A_new, B_new
    return f, [H[layer].reshape(T, P, T, P) for layer in layers], [G[layer] for layer in layers]


@pytest.mark.parametrize("depth", [1, 3])
def test_factors_solve_the_dense_equations(depth):
    y, steps = TARGETS["random"][:3], 9
    solution = solve(depth, 1.2, y, X=X[:3], rate=0.1, steps=steps)
    f, H, G = dense(X[:3] @ X[:3].T / 8, y, depth, 1.2, 0.1, steps, sweeps=60)
    np.testing.assert_allclose(solution.predictions, f, atol=1e-12)
    for layer in range(1, depth + 1):
        np.testing.assert_allclose(solution.feature_kernel(layer, EVERY), H[layer - 1], atol=1e-12)
        np.testing.assert_allclose(solution.gradient_kernel(layer, EVERY)[:, 0, :, 2], G[layer - 1], atol=1e-12)


# --- the march


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("depth", "gamma0", "y"),
    [(2, 1.0, "random"), (1, 2.0, "eigenvector"), thorough(4, 2.0, "random"), thorough(4, 0.3, "eigenvector")],
)
def test_fixed_point_is_the_march(depth, gamma0, y):
    solution, march = (solve(depth, gamma0, y, steps=10, method=method) for method in (None, kf.March()))
    assert_same(solution, march, 1e-8)
    assert solution.info["readout_gap"] < 1e-9
    assert solution.info["residual"] <= 1e-12
    assert solution.exact


@pytest.mark.thorough
def test_continuation_solves_what_iterating_the_whole_horizon_does_not():
    case = {"depth": 3, "gamma0": 2.0, "rate": 0.3}
    solution = solve(**case)
    assert solution.info["restarts"] > 0
    assert solution.info["horizons"][-1] == 17
    assert solution.info["readout_gap"] < 1e-9
    assert_same(solution, solve(**case, method=kf.March()), 1e-8)
    whole = deep_linear.LinearRun(solution.run, DeepLinear())
    rows = whole.rows.resized(17)
    with threadpool_limits(1), np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="overflowed"):
        for _ in range(30):
            rows = whole.sweep(rows, settled=1)


def test_oscillating_training_does_not_amplify_rounding():
    """At the edge of stability; sweeps over settled rows would multiply rounding errors by ten each."""
    solution = solve(4, 2.0, rate=0.25, steps=40)
    assert np.any(np.diff(solution.loss) > 0.01)
    assert solution.info["residual"] <= 1e-12
    assert solution.info["readout_gap"] < 1e-11


def test_it_shares_nothing_with_the_march():
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(deep_linear))) if isinstance(node, ast.ImportFrom)]
    modules = [str(node.module).split(".") for node in imports if str(node.module).startswith("kernelfield.")]
    assert {room for _, room, *_ in modules} == {"common", "describe", "solution"}


# --- invariants


def test_the_past_does_not_know_the_future():
    assert_same(solve(3, 1.5, steps=12), first_rows(solve(3, 1.5), 13), 1e-10)


def test_scale_of_the_targets_is_gamma0():
    """(y, gamma0, f) -> (c y, gamma0 / c, c f) changes no kernel."""
    one, scaled = solve(3, 1.5), solve(3, 0.5, 3 * TARGETS["random"])
    assert distance(scaled.predictions / 3, one.predictions) < 1e-12
    for found, truth in zip(all_kernels(scaled), all_kernels(one), strict=True):
        assert distance(found, truth) < 1e-12


def test_more_points_than_dimensions_and_no_inputs_at_all():
    wide = np.random.default_rng(0).standard_normal((12, 3))
    solution = solve(2, 1.0, np.sign(wide[:, 0]), X=wide)
    assert factors(solution, "Phi")[0].shape[-1] == 3
    assert solution.loss[-1] < solution.loss[0]
    assert not solve(2, 1.0, X=np.zeros((5, 2))).predictions.any()


# --- fields


def test_fields_have_the_kernels_as_second_moments_and_the_readout_as_their_product():
    solution = solve(3, 1.5, fields_at=(5, 16))

    def assert_moment(left, right, kernel, left_kernel, right_kernel):
        """Wick: the variance of a product x y of Gaussians is <x x> <y y> + <x y>^2."""
        variance = np.outer(np.diag(left_kernel), np.diag(right_kernel)) + kernel**2
        assert np.all(np.abs(left @ right.T / 4096 - kernel) < 5 * np.sqrt(variance / 4096))

    for layer in (1, 2, 3):
        early, late = (solution.fields(layer, t) for t in (5, 16))
        for name, kernel in (("h", solution.feature_kernel), ("g", solution.gradient_kernel)):
            both = kernel(layer, 5, 16), kernel(layer, 5), kernel(layer, 16)
            assert_moment(early[name], late[name], *both)
        Phi, G = solution.feature_kernel(layer), solution.gradient_kernel(layer)
        product = np.tile(1.5 * solution.predictions[-1][:, None], 5)  # <g^l h^l> = gamma0 f in every layer
        assert_moment(late["h"], late["z"], product, Phi, G)
        np.testing.assert_array_equal(late["z"], late["g"])


# --- refusals and runs that end early


def test_what_it_cannot_solve_is_refused():
    problem, training = kf.Problem(X, TARGETS["random"]), kf.GradientDescent(learning_rate=0.1, steps=3)
    with pytest.raises(ValueError, match="needs a network with activation='linear', got 'tanh'"):
        kf.solve(kf.MLP(depth=2, activation="tanh"), problem, training, DeepLinear())
    with pytest.raises(ValueError, match="not GradientFlow"):
        kf.solve(kf.MLP(depth=2, activation="linear"), problem, GradientFlow(time=1.0, steps=3), DeepLinear())
    with pytest.raises(ValueError, match="tolerance must be greater than 0"):
        DeepLinear(tolerance=0.0)


def test_too_few_sweeps_keep_the_rows_that_settled():
    with pytest.raises(kf.SolveError, match=r"not_converged: \d+ of 17 rows settled in 4 sweeps: raise max_iter") as no:
        solve(3, 1.5, max_iterations=4)
    partial = no.value.solution
    assert 0 < partial.steps_done < 16
    assert_same(partial, first_rows(solve(3, 1.5), partial.steps_done + 1), 1e-9)


def test_a_tolerance_below_rounding_says_so():
    with pytest.raises(kf.SolveError, match=r"not_converged: rounding errors change step \d+ by .*: raise tolerance"):
        solve(4, 1.5, rate=0.2, tolerance=1e-16)


@pytest.mark.parametrize(("depth", "gamma0", "rate"), [(2, 1.0, 3.0), (4, 2.0, 0.5), (4, 3.0, 1.0)])
def test_a_diverging_run_keeps_the_steps_before(depth, gamma0, rate):
    """Slowly, or so fast that the next row outgrows double precision before it settles."""
    solution = solve(depth, gamma0, rate=rate, steps=40, throw=False)
    assert solution.status.code == "diverged"
    assert f"try a learning_rate below {rate:g}" in solution.status.message
    assert 0 < solution.steps_done < 40
    assert solution.loss.max() <= 1e3 * solution.loss[0]


def test_interruption_keeps_what_settled():
    def stop_after_five(done, total):
        assert done <= total == 300
        if done >= 5:
            raise KeyboardInterrupt

    problem, training = kf.Problem(X, TARGETS["random"]), kf.GradientDescent(learning_rate=0.1, steps=300)
    network = kf.MLP(depth=2, activation="linear", gamma0=2.0)
    run = Run(network, problem, training, DeepLinear(), fields_at=(0, 300))
    solution = DeepLinear().solve(run, stop_after_five)
    assert solution.status.code == "interrupted"
    assert 5 <= solution.steps_done < 300
    assert set(solution.field_samples) == {(1, 0), (2, 0)}
