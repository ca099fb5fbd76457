"""Weight decay ends at a kernel predictor: its predictions, and how far training has stopped from it."""

import numpy as np
import pytest

import kernelfield as kf
from suites import thorough

X, Y = np.random.default_rng(0).standard_normal((5, 6)), np.array([1.0, -1.0, 0.5, 1.2, -0.3])
PROBLEM = kf.Problem(X, Y, weights=[1, 1, 2, 1, 0])
DECAY = 0.1


def trained(problem=PROBLEM, steps=400, activation="linear", method=None, **settings):
    training = kf.GradientDescent(learning_rate=0.3, steps=steps, **{"weight_decay": DECAY, **settings})
    method, network = method or kf.March(particles=512, replicates=2), kf.MLP(depth=2, activation=activation)
    return kf.solve(network, problem, training, method, save_at=[-1], fields_at=[-1], progress=False)


@pytest.mark.thorough
def test_exact_networks_meet_it_as_training_goes_on():
    residuals = [trained(steps=steps).fixed_point().residual for steps in (30, 120, 600)]
    assert residuals == sorted(residuals, reverse=True) and residuals[-1] < 1e-8


@pytest.mark.parametrize("settings", [{"momentum": 0.5}, thorough({"activation": "tanh"})])
def test_predictions_are_those_of_kernel_ridge_regression(settings):
    solution = trained(**settings)
    found = solution.fixed_point()
    decay, kernel = DECAY * (1 - settings.get("momentum", 0.0)), solution.feature_kernel(2)
    trains, weights = PROBLEM.weights > 0, PROBLEM.weights[PROBLEM.weights > 0]
    ridge = np.linalg.solve(kernel[trains][:, trains] + decay * np.diag(1 / weights), Y[trains])
    np.testing.assert_allclose(found.predictions, kernel[:, trains] @ ridge, atol=1e-12)
    assert found.residual < 2e-3 and found.coefficients[~trains] == 0
    np.testing.assert_allclose(solution.predictions[-1], found.predictions, atol=3e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["cross_entropy", "several outputs"])
def test_other_losses_end_at_their_own(kind):
    problems = {
        "cross_entropy": kf.Problem(X, [0, 1, 2, 0, 1], loss="cross_entropy"),
        "several outputs": kf.Problem(X, np.stack([Y, Y**2], axis=1)),
    }
    found = trained(problems[kind], steps=800, weight_decay=0.03, activation="tanh").fixed_point()
    assert found.predictions.shape == problems[kind].y.shape and found.residual < 5e-3


@pytest.mark.thorough
def test_finite_networks_end_there_too():
    solution = trained(method=kf.FiniteWidth(width=64, seeds=1, precision="float64"), activation="tanh")
    assert solution.fixed_point().residual < 0.3  # f is reported without its value at initialization, of order N^-1/2


def test_it_needs_decay():
    with pytest.raises(ValueError, match="needs training with weight_decay above 0"):
        trained(weight_decay=0.0, steps=2).fixed_point()
