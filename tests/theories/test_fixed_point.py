"""Weight decay ends at a kernel predictor: its predictions, and how far training has stopped from it."""

import numpy as np
import pytest

import kernelfield as kf

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 6)), np.array([1.0, -1.0, 0.5, 1.2, -0.3])
PROBLEM = kf.Problem(X, Y, weights=[1, 1, 2, 1, 0])
MARCH = kf.March(particles=512, replicates=2)


def trained(problem=PROBLEM, steps=1200, activation="linear", method=MARCH, **settings):
    training = kf.GradientDescent(learning_rate=0.3, steps=steps, **{"weight_decay": 0.03, **settings})
    return kf.solve(kf.MLP(depth=2, activation=activation), problem, training, method, progress=False)


def test_exact_networks_meet_it_as_training_goes_on():
    residuals = [trained(steps=steps).fixed_point().residual for steps in (100, 400, 2000)]
    assert residuals == sorted(residuals, reverse=True) and residuals[-1] < 1e-8


@pytest.mark.parametrize("settings", [{"momentum": 0.5}, {"activation": "tanh"}])
def test_predictions_are_those_of_kernel_ridge_regression(settings):
    solution = trained(**settings)
    found = solution.fixed_point()
    decay, kernel = 0.03 * (1 - settings.get("momentum", 0.0)), solution.feature_kernel(2)
    trains, weights = PROBLEM.weights > 0, PROBLEM.weights[PROBLEM.weights > 0]
    ridge = np.linalg.solve(kernel[trains][:, trains] + decay * np.diag(1 / weights), Y[trains])
    np.testing.assert_allclose(found.predictions, kernel[:, trains] @ ridge, atol=1e-12)
    assert found.residual < 2e-3 and found.coefficients[~trains] == 0
    np.testing.assert_allclose(solution.predictions[-1], found.predictions, atol=3e-3)


@pytest.mark.parametrize("kind", ["logistic", "cross_entropy", "several outputs"])
def test_other_losses_end_at_their_own(kind):
    problems = {
        "logistic": kf.Problem(X, np.sign(Y), loss="logistic"),
        "cross_entropy": kf.Problem(X, [0, 1, 2, 0, 1], loss="cross_entropy"),
        "several outputs": kf.Problem(X, np.stack([Y, Y**2], axis=1)),
    }
    found = trained(problems[kind], weight_decay=0.01, activation="tanh").fixed_point()
    assert found.predictions.shape == problems[kind].y.shape and found.residual < 5e-3


def test_finite_networks_end_there_too():
    solution = trained(method=kf.FiniteWidth(width=64, seeds=1, precision="float64"), steps=3000, activation="tanh")
    assert solution.fixed_point().residual < 0.3  # f is reported without its value at initialization, of order N^-1/2


def test_it_needs_decay():
    with pytest.raises(ValueError, match="needs training with weight_decay above 0"):
        trained(weight_decay=0.0, steps=2).fixed_point()
