"""The static NTK against sampled and finite networks at initialization, and exact training in both kinds of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import kernelfield as kf
from kernelfield.activations.functions import ACTIVATIONS
from kernelfield.activations.gaussian_averages import NotConverged, hermite_averages, kernel_map
from suites import thorough

X, Y = np.random.default_rng(3).standard_normal((5, 8)), np.array([1.0, -0.6, 0.8, -1.2, 0.4])
PROBLEM = kf.Problem(X, Y)
DESCENT = kf.GradientDescent(learning_rate=0.4, steps=15)


def lazy(activation="tanh", depth=2, training=DESCENT, problem=PROBLEM, **settings):
    network = kf.MLP(depth=depth, activation=activation, **settings)
    return kf.solve(network, problem, training, kf.StaticNTK(), progress=False)


@pytest.mark.parametrize(
    ("name", "scale"),
    [*((name, scale) for name in ("erf", "gelu", "linear") for scale in (0.1, 1.0)), thorough("erf", 20.0)],
)
def test_series_and_quadrature_give_the_closed_forms_to_ten_digits(name, scale):
    phi, kernel = ACTIVATIONS[name], scale**2 * X @ X.T / 8
    for function, closed in ((phi.phi, phi.feature_map), (phi.dphi, phi.derivative_map)):
        truth = kernel_map(kernel, function, closed)
        np.testing.assert_allclose(kernel_map(kernel, function, None), truth, rtol=1e-10, atol=1e-10 * truth.max())
        assert (hermite_averages(kernel, function) is None) == (scale > 1 and name != "linear")  # those by quadrature


def test_the_series_of_tanh_against_many_nodes():
    """Oracle: Gauss-Hermite quadrature of <tanh(a) tanh(b)> with 150 nodes on each axis."""
    x, weight = np.polynomial.hermite_e.hermegauss(150)
    weight /= weight.sum()
    kernel = np.array([[0.5, 0.2], [0.2, 0.4]])
    a = np.sqrt(0.5) * x[:, None]
    b = 0.2 / np.sqrt(0.5) * x[:, None] + np.sqrt(0.4 - 0.08) * x
    truth = weight @ (np.tanh(a) * np.tanh(b)) @ weight
    assert kernel_map(kernel, jnp.tanh, None)[0, 1] == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("kinked", [jnp.abs, lambda h: jnp.where(h > 0, h, 0.1 * h)])
def test_quadrature_of_a_kink_is_refused(kinked):
    with pytest.raises(NotConverged, match="quadrature changed by"):
        kernel_map(X @ X.T / 8, kinked, None)
    if kinked is jnp.abs:
        with pytest.raises(kf.SolveError, match=r"not_converged.*give its Activation a feature_map"):
            lazy(kinked)


def test_degenerate_kernels_are_averaged_too():
    """A point at the origin and a repeated point."""
    points = np.array([[0.0, 0.0], [1.0, 0.5], [1.0, 0.5]])
    kernel = kernel_map(points @ points.T, jnp.tanh, None)
    np.testing.assert_allclose(kernel[0], 0, atol=1e-15)
    np.testing.assert_allclose(kernel[1, 1], kernel[1, 2], rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 10, 50])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e5])
def test_the_tangent_kernel_of_relu_is_exact_at_equal_points(depth, scale):
    """Oracle: K(x, x) = (L + 1) |x|^2 / D / 2^L, for a point and its copy; twice that for twice the point."""
    points = scale * np.random.default_rng(0).standard_normal((3, 8))
    problem = kf.Problem(np.concatenate([points, points, 2 * points]), np.ones(9))
    ntk = lazy("relu", depth, kf.GradientDescent(learning_rate=0.1, steps=1), problem).ntk(0)
    truth = (depth + 1) * np.mean(points**2, axis=1) / 2**depth
    for factor, place in ((1, 0), (1, 3), (2, 6)):  # the point, its copy, and twice the point
        np.testing.assert_allclose(np.diagonal(ntk[:3, place : place + 3]), factor * truth, rtol=1e-13)


def test_gradient_descent_and_gradient_flow_are_exact():
    """Oracles: the update itself, and a stiff integrator."""
    found = lazy("erf")
    ntk, errors = found.ntk(0), [Y]
    for _ in range(DESCENT.steps):
        errors.append(errors[-1] - 0.4 / 5 * ntk @ errors[-1])
    np.testing.assert_allclose(found.errors, errors, atol=1e-12)

    flow = lazy("erf", training=kf.GradientFlow(time=6.0, steps=10))
    truth = solve_ivp(lambda _, e: -ntk @ e / 5, (0, 6), Y, "DOP853", flow.times, rtol=1e-11, atol=1e-12).y.T
    np.testing.assert_allclose(flow.errors, truth, atol=1e-9)
    many = lazy("erf", training=kf.GradientDescent(learning_rate=6 / 20000, steps=20000))
    np.testing.assert_allclose(many.errors[-1], flow.errors[-1], atol=1e-4)


@pytest.mark.parametrize(("activation", "depth"), [("softplus", 1), thorough("relu", 2), thorough("tanh", 2)])
def test_kernels_are_those_of_wide_networks_at_initialization(activation, depth):
    """Oracle: the tangent kernel of one wide network by automatic differentiation."""
    found, width = lazy(activation, depth, gamma0=0.7), 2048
    layers = found.network.layers
    params, _ = layers.finite_init(jax.random.key(0), (8,), width)
    inputs = jnp.asarray(X)
    jacobian = jax.jacrev(lambda values: width * layers.finite_apply(values, inputs, lambda kind, x: x))(
        params
    )  # of gamma0 N f
    flat = np.concatenate([np.asarray(each).reshape(5, -1) for each in jax.tree.leaves(jacobian)], axis=1)
    np.testing.assert_allclose(flat @ flat.T / width, found.ntk(0), rtol=0.1, atol=0.1 * found.ntk(0).max())


def test_kernels_do_not_move_and_gamma0_does_not_matter():
    one, other = lazy(gamma0=0.1), lazy(gamma0=3.0)
    np.testing.assert_array_equal(one.predictions, other.predictions)
    np.testing.assert_array_equal(one.feature_kernel(2, 0), one.feature_kernel(2, -1))
    assert not one.predictions_se.any()


@pytest.mark.parametrize("method", [kf.DeepLinear(), kf.Perturbation(), kf.GradientIndependence()])
def test_methods_in_discrete_time_refuse_gradient_flow(method):
    with pytest.raises(ValueError, match=rf"{type(method).__name__} solves GradientDescent.*, not GradientFlow"):
        kf.solve(kf.MLP(depth=1), PROBLEM, kf.GradientFlow(time=1.0), method)


# --- other losses, several outputs, schedules

SIGNS = np.sign(Y)
WEIGHTS = [1, 2, 0, 1, 1]


def stepped(ntk: np.ndarray, problem: kf.Problem, rates: np.ndarray) -> np.ndarray:
    """f of every row, update by update."""
    f = [np.zeros(problem.y.shape)]
    for rate in rates:
        pull = (problem.loss.measured_signal(f[-1], problem.y).T * problem.weights).T
        f.append(f[-1] + rate * ntk @ pull)
    return np.array(f)


@pytest.mark.parametrize(
    ("loss", "y", "schedule"),
    [
        ("mse", np.stack([Y, Y[::-1]], axis=1), "constant"),
        ("logistic", SIGNS, "cosine"),
        ("logistic", np.stack([SIGNS, -SIGNS[::-1]], axis=1), "constant"),
        ("hinge", SIGNS, "constant"),
        ("cross_entropy", [0, 1, 2, 1, 0], [1.0, 0.5, 2.0] * 5),
        (lambda f, y: jnp.sum((f - y) ** 4), Y, "constant"),
    ],
)
def test_updates_of_any_loss_and_schedule_are_exact(loss, y, schedule):
    """Oracle: the update itself, in NumPy."""
    problem = kf.Problem(X, y, WEIGHTS, loss=loss)
    training = kf.GradientDescent(learning_rate=0.2, steps=15, schedule=schedule)
    found, ntk = lazy("erf", training=training, problem=problem), lazy("erf").ntk(0)
    with jax.enable_x64(True):
        rates = training.rates(problem)
    np.testing.assert_allclose(found.predictions, stepped(ntk, problem, rates), atol=1e-12)
    assert found.loss[-1] < found.loss[0]


@pytest.mark.parametrize("training", [DESCENT, kf.GradientFlow(time=6.0, steps=10)])
def test_outputs_of_the_squared_error_learn_by_themselves(training):
    columns = [Y, Y[::-1] ** 2, np.zeros(5)]
    together = lazy(training=training, problem=kf.Problem(X, np.stack(columns, axis=1), WEIGHTS))
    for output, y in enumerate(columns):
        alone = lazy(training=training, problem=kf.Problem(X, y, WEIGHTS))
        np.testing.assert_array_equal(together.predictions[..., output], alone.predictions)


@pytest.mark.thorough
def test_flow_of_any_loss_is_the_limit_of_small_steps():
    """Richardson: the error of descent is linear in its rate, so that twice the finer less the coarser is near."""
    problem, time = kf.Problem(X, [0, 1, 2, 1, 0], WEIGHTS, loss="cross_entropy"), 6.0
    flow = lazy("erf", training=kf.GradientFlow(time=time, steps=4), problem=problem)
    ntk = lazy("erf").ntk(0)
    ends = [stepped(ntk, problem, np.full(steps, time / steps))[-1] for steps in (500, 1000)]
    gaps = [np.abs(each - flow.predictions[-1]).max() for each in ends]
    assert gaps[1] < 0.01 and gaps[0] / gaps[1] == pytest.approx(2, rel=0.02)
    np.testing.assert_allclose(2 * ends[1] - ends[0], flow.predictions[-1], atol=1e-5)
    assert flow.predictions.shape == (5, *problem.y.shape)


def test_flow_of_the_squared_error_is_integrated_to_ten_digits():
    """Oracle: its closed form, of the same loss under another name."""
    training = kf.GradientFlow(time=6.0, steps=10)
    integrated = lazy("erf", training=training, problem=kf.Problem(X, Y, loss=lambda f, y: (f - y) ** 2 / 2))
    np.testing.assert_allclose(integrated.predictions, lazy("erf", training=training).predictions, atol=1e-8)


def test_a_flow_that_blows_up_says_so(monkeypatch):
    monkeypatch.setattr("kernelfield.theories.static_ntk.EVALUATIONS", 3000)
    problem = kf.Problem(X, Y, loss=lambda f, y: -((1 + f**2) ** 2) - f)
    with pytest.raises(kf.SolveError, match=r"not_converged: gradient flow could not be integrated .*try a shorter"):
        lazy("erf", training=kf.GradientFlow(time=100.0), problem=problem)


def test_several_outputs_leave_out_gradient_kernels_and_have_fields_of_the_error_signal():
    """Oracle: with independent outputs <z z> = G^2 |Delta|^2 on the diagonal, to sampling noise."""
    problem = kf.Problem(X, np.stack([Y, Y[::-1]], axis=1))
    found, one = lazy("erf", problem=problem), lazy("erf")
    np.testing.assert_array_equal(found.feature_kernel(2), one.feature_kernel(2))
    assert not found.keeps("G") and not found.keeps("NTK")
    for t in (0, -1):
        z, Delta = found.fields(1, t)["z"], found.errors[t]
        exact = np.diag(one.gradient_kernel(2)) * (Delta**2).sum(axis=1)
        np.testing.assert_allclose((z**2).mean(axis=1), exact, rtol=5 * np.sqrt(2 / 4096))


def test_decay_is_refused():
    with pytest.raises(ValueError, match="StaticNTK does not solve gradient descent with weight decay"):
        lazy(training=kf.GradientDescent(learning_rate=0.1, steps=3, weight_decay=0.1))


@pytest.mark.thorough
def test_momentum_is_that_of_a_march_that_hardly_learns_features():
    training = kf.GradientDescent(learning_rate=0.3, steps=8, momentum=0.7)
    network, problem = kf.MLP(depth=2, activation="linear", gamma0=1e-4), kf.Problem(np.eye(3), [1.0, -1.0, 0.5])
    expected = kf.solve(network, problem, training, progress=False)
    found = kf.solve(network, problem, training, kf.StaticNTK())
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-6)
    np.testing.assert_allclose(found.predict(np.eye(3)).mean, found.predictions[-1], atol=1e-12)
