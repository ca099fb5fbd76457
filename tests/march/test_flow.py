"""Gradient flow by the march: the whitened closed form, order in time, stiff problems, and small steps of descent."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import kernelfield as kf

GAMMA0, Y = 2.0, np.array([1.0, -1.0, 1.0])
SIZE = np.linalg.norm(Y)
WHITENED = kf.Problem(np.eye(3) * np.sqrt(3), Y)
NETWORK = kf.MLP(depth=1, activation="linear", gamma0=GAMMA0)


def flow(rtol, steps=4, time=6.0, network=NETWORK, problem=WHITENED, **march):
    training = kf.GradientFlow(time=time, steps=steps, rtol=rtol)
    return kf.solve(network, problem, training, kf.March(**march, kernels="none"), fields_at=(), progress=False)


def closed_form(times):
    """f along y / |y|: Delta' = -2 sqrt(1 + gamma0^2 f^2) Delta in time / P (one hidden layer, K = 1)."""

    def slope(_, Delta):
        return -2 * np.sqrt(1 + GAMMA0**2 * (SIZE - Delta) ** 2) * Delta

    solved = solve_ivp(slope, (0, times[-1] / 3), [SIZE], t_eval=times / 3, rtol=1e-12, atol=1e-13)
    return SIZE - solved.y[0]


def error(solution):
    return np.abs(solution.predictions @ Y / SIZE - closed_form(solution.times)).max() / SIZE


@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-6])
def test_the_whitened_closed_form_is_met_to_rtol(rtol):
    assert error(flow(rtol)) < rtol


def test_order_in_time():
    """With any error allowed, steps are as long as those between rows."""
    errors = [error(flow(0.9, steps=steps)) for steps in (128, 256, 512)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders.min() > 1.95, orders


@pytest.mark.thorough
def test_steps_follow_the_accuracy_and_not_the_largest_eigenvalue():
    """Eigenvalues of the tangent kernel a thousand times apart."""
    problem = kf.Problem(np.diag(np.sqrt([4000.0, 400.0, 40.0, 4.0])), [1.0, -1.0, 1.0, 0.5])
    network = kf.MLP(depth=2, activation="linear", gamma0=1.0)
    solutions = [flow(rtol, time=8.0, network=network, problem=problem) for rtol in (1e-3, 1e-5)]
    steps = [each.info["steps_taken"][0] for each in solutions]
    assert steps[0] < 40 and steps[1] < 400
    assert np.abs(solutions[0].predictions - solutions[1].predictions).max() < 1e-3
    with pytest.raises(kf.SolveError, match="diverged"):  # as plain descent does with ten times as many
        kf.solve(network, problem, kf.GradientDescent(learning_rate=0.02, steps=400), progress=False)


@pytest.mark.thorough
def test_flow_is_the_limit_of_small_steps():
    problem = kf.Problem(np.random.default_rng(0).standard_normal((4, 6)), [1.0, -0.5, 0.8, -1.2])
    network, method = kf.MLP(depth=2), kf.March(particles=1024, kernels="none")
    continuous = flow(1e-3, time=4.0, network=network, problem=problem, particles=1024)
    errors = []
    for rate in (0.1, 0.025):
        training = kf.GradientDescent(learning_rate=rate, steps=round(4.0 / rate))
        rows = kf.solve(network, problem, training, method, progress=False).predictions[:: round(1.0 / rate) or 1]
        errors.append(np.abs(rows - continuous.predictions).max())
    noise = 4 * continuous.predictions_se.max()
    assert errors[1] < errors[0] + noise and errors[1] < 0.02 + noise


@pytest.mark.thorough
def test_flow_of_another_loss():
    problem = kf.Problem(np.random.default_rng(1).standard_normal((4, 5)), [0, 1, 2, 1], loss="cross_entropy")
    network = kf.MLP(depth=2, activation="linear")
    continuous = flow(1e-4, time=4.0, network=network, problem=problem)
    small = kf.GradientDescent(learning_rate=0.005, steps=800)
    steps = kf.solve(network, problem, small, kf.March(kernels="none"), fields_at=(), progress=False)
    np.testing.assert_allclose(continuous.predictions, steps.predictions[::200], atol=5e-3)


def test_lazy_flow_is_that_of_the_static_ntk():
    network = kf.MLP(depth=1, activation="linear", gamma0=1e-3)
    training = kf.GradientFlow(time=3.0, steps=5, rtol=1e-6)
    march, lazy = (kf.solve(network, WHITENED, training, method) for method in (kf.March(), kf.StaticNTK()))
    np.testing.assert_allclose(march.predictions, lazy.predictions, atol=1e-5)
