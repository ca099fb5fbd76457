"""Gradients in the inputs agree with differences of predictions, and find the inputs that a task depends on."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.observables import gradient_outer_product, input_shares
from suites import thorough

TRAINING = kf.GradientDescent(learning_rate=0.3, steps=15)
METHODS = {
    "march": kf.March(particles=256, replicates=2, precision="double", kernels="none"),
    "finite": kf.FiniteWidth(width=24, seeds=2, precision="float64", kernels="none"),
    "static": kf.StaticNTK(),
}


def by_differences(solution, X, step=1e-4):
    shifts = step * np.eye(X[0].size).reshape(-1, *X.shape[1:])
    f = solution.predict(np.concatenate([X + sign * shift for sign in (1, -1) for shift in shifts])).replicates
    up, down = f.reshape(len(f), 2, len(shifts), len(X), *f.shape[2:]).swapaxes(0, 1)
    return np.moveaxis((up - down) / (2 * step), 1, -1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("network", "sites", "outputs"),
    [
        (kf.MLP(depth=2, activation="erf"), (5,), None),
        thorough(kf.MLP(depth=2, activation="erf", bias_scale=0.5), (5,), 2),
    ],
)
def test_gradients_are_differences_of_predictions(method, network, sites, outputs):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, *sites))
    y = np.sign(rng.standard_normal(8 if outputs is None else (8, outputs)))
    solution = kf.solve(network, kf.Problem(X, y), TRAINING, METHODS[method], progress=False)
    for points in (rng.standard_normal(X.shape),):
        gradients, expected = solution.input_gradients(points), by_differences(solution, points)
        flat = gradients.replicates.reshape(expected.shape)
        np.testing.assert_allclose(flat, expected, atol=1e-5 * np.abs(expected).max())
    rows = gradients.replicates.reshape(len(flat), -1, X[0].size)
    product = gradient_outer_product(solution, points)
    np.testing.assert_allclose(product.replicates, np.einsum("rni,rnj->rij", rows, rows) / 8, rtol=1e-12)
    np.testing.assert_allclose(input_shares(solution).mean.sum(), 1)


def test_inputs_outside_the_span_of_the_data_have_gradients():
    rng = np.random.default_rng(1)
    X, new = rng.standard_normal((3, 8)), rng.standard_normal((4, 8))
    problem = kf.Problem(X, [1.0, -1.0, 1.0])
    solution = kf.solve(kf.MLP(depth=1, activation="erf"), problem, TRAINING, METHODS["march"], progress=False)
    expected = by_differences(solution, new)
    np.testing.assert_allclose(solution.input_gradients(new).replicates, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.thorough
def test_feature_learning_finds_the_inputs_of_a_single_index_task_and_the_static_kernel_finds_less():
    """Infinite width and networks of finite width agree within their error bars."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 6))
    problem, network = kf.Problem(X, np.tanh(2 * X[:, 3])), kf.MLP(depth=2, activation="erf", gamma0=3.0)
    training = kf.GradientDescent(learning_rate=0.3, steps=60)
    march = kf.March(particles=256, replicates=4, kernels="none")
    rich, lazy = (kf.solve(network, problem, training, method, progress=False) for method in (march, kf.StaticNTK()))
    shares = input_shares(rich)
    assert 1 - shares.mean[3] < 0.01 < (1 - input_shares(lazy).mean[3]) / 5
    wide = kf.solve(network, problem, training, kf.FiniteWidth(width=256, seeds=4, kernels="none"), progress=False)
    errors = np.hypot(shares.se, input_shares(wide).se) + 2 / 256
    assert np.all(np.abs(shares.mean - input_shares(wide).mean) < 5 * errors)


@pytest.mark.thorough
def test_feature_learning_finds_the_inputs_of_a_sparse_parity():
    rng = np.random.default_rng(3)
    X = rng.choice([-1.0, 1.0], (128, 8))
    problem = kf.Problem(X, X[:, 1] * X[:, 6])
    network, training = (
        kf.MLP(depth=2, activation="tanh", gamma0=3.0, bias_scale=0.5),
        kf.GradientDescent(learning_rate=0.3, steps=100),
    )
    march = kf.March(particles=256, replicates=2, kernels="none")
    rich = input_shares(kf.solve(network, problem, training, march, progress=False))
    lazy = input_shares(kf.solve(network, problem, training, kf.StaticNTK(), progress=False))
    assert set(np.argsort(rich.mean)[-2:]) == {1, 6}
    assert rich.mean[[1, 6]].sum() > max(0.8, lazy.mean[[1, 6]].sum() + 0.1)


def test_outputs_that_depend_on_nothing_have_no_shares():
    problem = kf.Problem(np.zeros((3, 2)), np.ones(3))
    solution = kf.solve(kf.MLP(depth=1, activation="erf"), problem, TRAINING, kf.StaticNTK(), progress=False)
    assert not input_shares(solution).mean.any()
