"""The Bayesian posterior against Gaussian processes, quadrature for one point, and algebra for linear networks."""

import numpy as np
import pytest
from scipy.optimize import root

import kernelfield as kf
from kernelfield.theories.bayesian_posterior import BayesianPosterior
from kernelfield.theories.posterior_iteration import extrapolate, find_signal, invert, sample_layer

X = np.random.default_rng(1).standard_normal((4, 8))
Y = np.array([1.0, 1.0, -1.0, -1.0])
DECAY = 0.3
METHOD = BayesianPosterior(samples=2048)


def solve(
    depth=1, gamma0=1.0, activation="tanh", X=X, y=Y, weights=None, decay=DECAY, method=METHOD, throw=True, **problem
):
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    training = kf.Langevin(learning_rate=0.1, steps=2, weight_decay=decay, temperature=decay)
    return kf.solve(
        network, kf.Problem(X, y, weights, **problem), training, method, throw=throw, fields_at=(0, -1), progress=False
    )


def lazy_posterior(depth, activation, X=X, y=Y, ridge=4 * DECAY):
    """Returns f of the Gaussian process whose covariance is the last kernel at initialization."""
    network, training = kf.MLP(depth=depth, activation=activation), kf.GradientDescent(learning_rate=0.1, steps=1)
    Phi = kf.solve(network, kf.Problem(X, y), training, kf.StaticNTK(), progress=False).feature_kernel(depth)
    trains = np.arange(len(y)) < 4
    return Phi[:, trains] @ np.linalg.solve(Phi[np.ix_(trains, trains)] + np.eye(4) * ridge, y[trains])


def check(estimate, truth, rest=1e-6):
    """Assert that an estimate is the truth within five standard errors of all entries, and is not trivially so."""
    noise = np.linalg.norm(estimate.se)
    assert noise < 0.02 * np.linalg.norm(truth)
    assert np.linalg.norm(estimate.mean - truth) <= 5 * noise + rest * np.linalg.norm(truth)


# --- closed forms


@pytest.mark.parametrize(("depth", "activation"), [(1, "tanh"), (2, "relu"), (3, "erf")])
def test_the_lazy_limit_is_a_gaussian_process(depth, activation):
    """Oracle: f = Phi (Phi + lambda P)^-1 y in closed form, with a point that does not train."""
    points, y = np.vstack([X, X[:1] - X[1:2]]), np.r_[Y, 0.0]
    solution = solve(depth, 1e-3, activation, X=points, y=y, weights=[1, 1, 1, 1, 0])
    truth = lazy_posterior(depth, activation, points, y)
    np.testing.assert_allclose(solution.predictions[-1], truth, atol=2e-3)
    check(solution.estimate("predictions"), np.tile(truth, (3, 1)), rest=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_lazy_posterior_is_far_where_features_are_learned(depth):
    """The control of the test above."""
    f, lazy = solve(depth, 3.0).predictions[-1], lazy_posterior(depth, "tanh")
    assert np.linalg.norm(f - lazy) > 0.4 * np.linalg.norm(f)


def test_one_hidden_layer_of_a_linear_network_has_a_gaussian_posterior():
    """Oracle: h ~ N(0, (K^-1 - a a^T)^-1), whose equation for a has P unknowns."""
    K, gamma0 = X @ X.T / 8, 2.0

    def Phi(a):
        return np.linalg.inv(np.linalg.inv(K) - np.outer(a, a))

    start = gamma0 * np.linalg.solve(K + 4 * DECAY * np.eye(4), Y) / 4
    found = root(lambda a: (Phi(a) + 4 * DECAY * np.eye(4)) @ a - gamma0 * Y, start, tol=1e-12)
    assert found.success
    solution = solve(1, gamma0, "linear")
    check(solution.estimate("feature_kernel", 1), Phi(found.x))
    check(solution.estimate("predictions"), np.tile(Phi(found.x) @ found.x / gamma0, (3, 1)))
    assert solution.info["effective_samples"] > 0.99 * 2048  # spread out, the samples are those of the posterior


@pytest.mark.parametrize("depth", [2, 3])
def test_deep_linear_networks_have_gaussian_layers(depth):
    """Oracle: Phi^l = ((Phi^{l-1})^-1 + T^l)^-1, equations of P^2 (L - 1) + P unknowns, by a general solver."""
    K, gamma0 = X @ X.T / 8, 1.2

    def kernels(values):
        a, found = values[:4], [K]
        for T in [*values[4:].reshape(depth - 1, 4, 4), -np.outer(a, a)]:
            found.append(np.linalg.inv(np.linalg.inv(found[-1]) + T))
        return a, found

    def equations(values):
        a, found = kernels(values)
        inverses = [np.linalg.inv(Phi) for Phi in found]
        tilts = [inverses[at] - inverses[at] @ found[at + 1] @ inverses[at] for at in range(1, depth)]
        first = (found[-1] + 4 * DECAY * np.eye(4)) @ a - gamma0 * Y
        return np.concatenate([first, np.ravel(tilts) - values[4:]])

    start = np.r_[gamma0 * np.linalg.solve(K + 4 * DECAY * np.eye(4), Y), np.zeros(16 * (depth - 1))]
    found = root(equations, start, tol=1e-12)
    assert np.abs(equations(found.x)).max() < 1e-9
    a, truth = kernels(found.x)
    solution = solve(depth, gamma0, "linear")
    check(solution.estimate("predictions"), np.tile(truth[-1] @ a / gamma0, (3, 1)))
    for layer in range(1, depth + 1):
        check(solution.estimate("feature_kernel", layer), truth[layer])
    assert np.linalg.norm(truth[-1] - K) > 0.1 * np.linalg.norm(K)


@pytest.mark.parametrize(("depth", "activation"), [(1, "relu"), (2, "tanh"), (2, "relu"), (3, "tanh")])
def test_one_point_is_solved_by_quadrature(depth, activation):
    """Oracle: the same equations for P = 1, with averages over one Gaussian variable on a fine grid."""
    phi = {"tanh": np.tanh, "relu": lambda h: np.maximum(h, 0)}[activation]
    z, gamma0, K = np.linspace(-12, 12, 20001), 2.0, np.mean(X[0] ** 2)

    def averages(values):
        Phi, every = K, []
        for T in [*values[1:], -(values[0] ** 2)]:
            h = np.sqrt(Phi) * z
            exponents = -(z**2) / 2 - T * phi(h) ** 2 / 2
            weights = np.exp(exponents - exponents.max())
            weights /= weights.sum()
            every.append((Phi, weights @ h**2, Phi := weights @ phi(h) ** 2))
        return every

    def equations(values):
        every = averages(values)
        tilts = [1 / before - square / before**2 for before, square, _ in every[1:]]
        return np.r_[(every[-1][2] + DECAY) * values[0] - gamma0, np.array(tilts) - values[1:]]

    found = root(equations, np.r_[0.3, np.zeros(depth - 1)], tol=1e-12)
    assert np.abs(equations(found.x)).max() < 1e-9
    solution = solve(depth, gamma0, activation, X=X[:1], y=[1.0])
    truth = [Phi for _, _, Phi in averages(found.x)]
    for layer in range(1, depth + 1):
        check(solution.estimate("feature_kernel", layer), truth[layer - 1][None, None], rest=1e-3)
    check(solution.estimate("predictions"), np.full((3, 1), truth[-1] * found.x[0] / gamma0), rest=1e-3)


# --- invariants


def test_the_equations_hold_on_other_samples():
    """Oracle: plain samples of the prior, weighted by the tilts; three points, two layers of tanh."""
    solution = solve(2, 2.0, X=X[1:], y=Y[1:])
    state = [np.mean(each, axis=0) for each in solution.predictor.arrays().values()]
    _, a, tilts, *_ = state
    K, rng, count = X[1:] @ X[1:].T / 8, np.random.default_rng(0), 400_000
    Phi = solution.feature_kernel(1)
    averages = []
    for kernel, T in ((K, tilts[0]), (Phi, tilts[1])):
        h = np.linalg.cholesky(kernel) @ rng.standard_normal((3, count))
        features = np.tanh(h)
        weights = np.exp(-np.sum(features * (T @ features), axis=0) / 2)
        weights /= weights.sum()
        averages.append(((h * weights) @ h.T, (features * weights) @ features.T))
    np.testing.assert_allclose(averages[0][1], Phi, atol=0.01 * np.abs(Phi).max())
    np.testing.assert_allclose(averages[1][1], solution.feature_kernel(2), atol=0.01 * np.abs(Phi).max())
    np.testing.assert_allclose((averages[1][1] + 3 * DECAY * np.eye(3)) @ a, 2.0 * Y[1:], atol=0.01)
    root_inverse = np.linalg.inv(np.linalg.cholesky(Phi))
    excess = root_inverse @ averages[1][0] @ root_inverse.T - np.eye(3)  # of the fields over their prior
    np.testing.assert_allclose(-root_inverse.T @ excess @ root_inverse, tilts[0], atol=0.05 * np.abs(tilts[0]).max())
    assert np.abs(excess).max() > 0.2


def test_a_weight_of_two_is_a_point_twice():
    twice = solve(2, 2.0, X=np.vstack([X[:1], X]), y=np.r_[Y[:1], Y])
    weighted = solve(2, 2.0, weights=[2, 1, 1, 1])
    gap = np.linalg.norm(twice.predictions[-1, 1:] - weighted.predictions[-1])
    noise = np.hypot(np.linalg.norm(twice.predictions_se[-1]), np.linalg.norm(weighted.predictions_se[-1]))
    assert gap < 5 * noise + 1e-6
    even = solve(2, 2.0)
    assert np.linalg.norm(even.predictions - weighted.predictions) > 20 * noise


def test_the_posterior_is_the_fixed_point_of_weight_decay():
    """Oracle: kernel ridge regression with the last kernel."""
    assert solve(2, 2.0).fixed_point().residual < 1e-4


def test_rows_are_equal_and_the_learning_rate_does_not_matter():
    solution = solve(2, 1.0)
    assert solution.predictions.shape == (3, 4) and not np.ptp(solution.predictions, axis=0).any()
    training = kf.Langevin(learning_rate=0.4, steps=5, weight_decay=DECAY, temperature=DECAY)
    other = kf.solve(solution.network, solution.problem, training, METHOD, progress=False)
    np.testing.assert_array_equal(other.predictions[0], solution.predictions[0])
    np.testing.assert_array_equal(other.feature_kernel(2, 0), solution.feature_kernel(2, -1))
    assert not solution.keeps("G") and not solution.keeps("NTK")


def test_fields_have_the_kernels_as_second_moments():
    solution = solve(2, 3.0)
    features = np.tanh(solution.fields(2)["h"])
    Phi = solution.feature_kernel(2)
    np.testing.assert_allclose(features @ features.T / features.shape[1], Phi, atol=0.1 * np.abs(Phi).max())


# --- new points


def test_new_points_and_points_of_weight_zero_are_one_thing():
    new = X[:2] + 0.5
    inside = solve(2, 2.0, X_test=new, y_test=[0.0, 0.0])
    alone = solve(2, 2.0)
    np.testing.assert_allclose(inside.predictions[:, :4], alone.predictions, atol=1e-6)
    found, Phi = alone.predict(new), alone.feature_kernel_between(2, -1, new, X)
    noise = 5 * np.hypot(np.linalg.norm(found.se), np.linalg.norm(inside.predictions_se[-1, 4:]))
    assert np.linalg.norm(found.mean - inside.predictions[-1, 4:]) < noise < 0.1
    np.testing.assert_allclose(Phi.mean, inside.feature_kernel(2)[4:, :4], atol=0.05 * np.abs(Phi.mean).max())
    np.testing.assert_allclose(alone.predict(X).mean, alone.predictions[-1], atol=1e-6)
    gradients = alone.input_gradients(new).mean
    steps = [alone.predict(new + 0.05 * unit).mean - alone.predict(new - 0.05 * unit).mean for unit in np.eye(8)]
    np.testing.assert_allclose(gradients, np.transpose(steps) / 0.1, atol=0.02 * np.abs(gradients).max())


def test_files_give_back_the_predictor(tmp_path):
    solution = solve(2, 2.0)
    solution.save(tmp_path / "run.nc", predictor=True)
    again = kf.load(tmp_path / "run.nc")
    np.testing.assert_array_equal(again.predict(X + 1).replicates, solution.predict(X + 1).replicates)
    np.testing.assert_array_equal(again.restricted(replicates=[2]).predict(X).mean, solution.predict(X).replicates[2])


# --- parts


def test_the_signal_is_found_where_the_average_is_steep():
    rng = np.random.default_rng(2)
    layer = sample_layer(kf.MLP(depth=1).nonlinearity, rng.standard_normal((3, 4096)), np.eye(3), np.eye(3), np.eye(3))
    y, ridge = np.array([1.0, -2.0, 0.5]), np.array([0.1, 0.2, 0.3])
    a = find_signal(layer, y, 20.0, ridge, np.zeros(3))
    weights = np.exp(layer.logs + (a @ layer.features) ** 2 / 2)
    Phi = (layer.features * weights) @ layer.features.T / weights.sum()
    np.testing.assert_allclose((Phi + np.diag(ridge)) @ a, 20.0 * y, rtol=1e-6, atol=1e-6)


def test_extrapolation_finds_a_fixed_point_that_plain_iteration_does_not():
    M = np.diag([-3.0, 0.5, 0.9])
    x, past = np.zeros(3), []
    for _ in range(6):
        past = [*past[-5:], (x, M @ x + 1 - x)]
        x = extrapolate(past)
    np.testing.assert_allclose(x, 1 / (1 - np.diag(M)), rtol=1e-6)


def test_the_inverse_of_a_root_leaves_out_what_the_root_leaves_out():
    np.testing.assert_allclose(invert(np.diag([2.0, 0.0])), np.diag([0.5, 0.0]))


# --- refusals


@pytest.mark.parametrize("activation", ["tanh", "linear"])
def test_a_wrong_answer_is_never_given_without_a_word(activation):
    """Features learned so strongly that few samples have weight, or that the iteration does not settle."""
    with pytest.raises(kf.SolveError, match=r"not_converged: .*(effective samples|sweeps ended).*raise samples"):
        solve(1 if activation == "tanh" else 3, 300.0, activation, method=BayesianPosterior(samples=256))


def test_too_few_sweeps_are_refused():
    with pytest.raises(kf.SolveError, match=r"2 sweeps ended with changes of .*: raise max_iterations"):
        solve(2, 3.0, method=METHOD.model_copy(update={"max_iterations": 2}))


def test_few_effective_samples_are_refused():
    with pytest.raises(
        kf.SolveError, match=r"averages are over \d+ effective samples of 256, below 100: raise samples"
    ):
        solve(1, 10.0, method=BayesianPosterior(samples=256))


def test_other_runs_are_refused_in_one_sentence():
    network, problem = kf.MLP(depth=1), kf.Problem(X, Y)
    rule = {"learning_rate": 0.1, "steps": 2, "weight_decay": DECAY}
    even = kf.Langevin(**rule, temperature=DECAY)
    for case, training, message in (
        ((network, problem), kf.GradientDescent(learning_rate=0.1, steps=2), "solves Langevin, not GradientDescent"),
        (
            (network, problem),
            kf.Langevin(**rule, temperature=0.2),
            "needs temperature = weight_decay.*, got 0.2 and 0.3",
        ),
        ((kf.ResNet(depth=1), problem), even, "solves MLP, not ResNet"),
        ((kf.MLP(depth=1, bias_scale=0.1), problem), even, "solves MLP without biases, scales and widths"),
        ((network, kf.Problem(X, Y[:, None] * [1, 2])), even, "does not solve networks of several outputs"),
        ((network, kf.Problem(X, Y, loss="logistic")), even, "does not solve other losses"),
    ):
        with pytest.raises(ValueError, match=f"^BayesianPosterior {message}"):
            kf.solve(*case, training, METHOD)
    with pytest.raises(ValueError, match="samples must be a power of two"):
        BayesianPosterior(samples=1000)
    with pytest.raises(ValueError, match="BayesianPosterior has no tangent kernel: use March"):
        solve(1, 1.0).ntk_between(0, X, X)
