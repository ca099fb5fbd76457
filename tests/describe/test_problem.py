"""Bad input is named at construction: the argument, what is required, what came."""

import numpy as np
import pytest

import kernelfield as kf

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0, NAN]], [1.0], r"X must be finite, got 1 NaN or infinite"),
        ([[1.0, INF], [INF, NAN]], [1.0, 1.0], r"X must be finite, got 3 NaN or infinite"),
        ([[1.0, 2.0]], [NAN], r"y must be finite, got 1"),
        (np.eye(3), [1.0, 1.0], r"X and y must have the same length, got 3 and 2"),
        (np.zeros((0, 3)), [], r"X must not be empty, got shape \(0, 3\)"),
        (np.zeros((3, 0)), [1, 1, 1], r"X must not be empty, got shape \(3, 0\)"),
        ([1.0, 2.0], [1.0, 2.0], r"X must have 2 or 3 or 4 dimension\(s\), got shape \(2,\)"),
        (np.eye(2), [[[1.0]], [[2.0]]], r"y must have 1 or 2 dimension\(s\), got shape \(2, 1, 1\)"),
        ("text", [1.0], r"X must be an array of real numbers, got str"),
        ([[1.0, 2.0], [3.0]], [1.0, 1.0], r"X must be an array of real numbers, got list"),
        (np.eye(2), None, r"y must "),
        (np.eye(2) + 1j, [1.0, 1.0], r"X must be an array of real numbers, got ndarray of complex128"),
        (np.ma.masked_equal(np.eye(2), 1), [1.0, 1.0], r"X must not be masked: fill in what is missing, or leave out"),
        (np.array([["a"], ["b"]]), [1.0, 1.0], r"X must be an array of real numbers, got ndarray of <U1"),
    ],
)
def test_bad_data_are_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        kf.Problem(X, y)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"weights must have one entry for each of 2 points, got 1"),
        ([1.0, -1.0], r"weights must not be negative, nor all zero, got -1 to 1"),
        ([0.0, 0.0], r"weights must not be negative, nor all zero, got 0 to 0"),
        ([1.0, NAN], r"weights must be finite, got 1"),
        ([[1.0, 2.0]], r"weights must have 1 dimension\(s\)"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        kf.Problem(np.eye(2), [1.0, -1.0], weights)


def test_test_points_follow_with_weight_zero():
    given = kf.Problem(np.eye(3), [0, 1, 2], [1, 1, 2], "cross_entropy", X_test=np.ones((2, 3)), y_test=[3, 0])
    assert given.X.shape == (5, 3) and given.y.shape == (5, 4) and given.weights.tolist() == [0.25, 0.25, 0.5, 0, 0]
    with pytest.raises(ValueError, match=r"X_test must be shaped as X, \(3, 3\) but for the number of points"):
        kf.Problem(np.eye(3), np.ones(3), X_test=np.ones((2, 2)), y_test=[1, 1])
    with pytest.raises(ValueError, match="X_test and y_test must have the same length, got 2 and 1"):
        kf.Problem(np.eye(3), np.ones(3), X_test=np.ones((2, 3)), y_test=[1])
    with pytest.raises(ValueError, match="y_test must"):
        kf.Problem(np.eye(3), np.ones(3), X_test=np.ones((2, 3)))


def test_arrays_that_are_masked_nowhere_or_hold_truth_values_are_taken():
    problem = kf.Problem(np.ma.masked_equal(np.eye(2), 7), np.array([True, False]))
    assert problem.X.tolist() == [[1, 0], [0, 1]] and problem.y.tolist() == [1, 0]
    with pytest.raises(ValueError, match="weights must not be masked"):
        kf.Problem(np.eye(2), [1, 1], weights=np.ma.masked_equal([1.0, 2.0], 2))
    with pytest.raises(ValueError, match="X_test must be an array of real numbers"):
        kf.Problem(np.eye(2), [1, 1], X_test=1j * np.eye(2), y_test=[1, 1])


def test_weights_sum_to_one_and_stay_as_they_are():
    weights = kf.Problem(np.eye(3), np.ones(3), [1, 1, 5]).weights
    assert weights.sum() == pytest.approx(1) and weights[2] == pytest.approx(5 / 7)
    assert kf.Problem(np.eye(3), np.ones(3), weights).weights.tolist() == weights.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.MLP(depth=0), "MLP: depth must be greater than or equal to 1, got 0"),
        (lambda: kf.MLP(depth=1.5), r"MLP: depth must be a valid integer.*, got 1\.5"),
        (lambda: kf.MLP(), "MLP: depth is required"),
        (lambda: kf.MLP(depht=2), r"MLP: unknown argument 'depht' \(did you mean 'depth'\?\)"),
        (lambda: kf.MLP(depth=1, gamma0=0), "MLP: gamma0 must be greater than 0, got 0"),
        (lambda: kf.MLP(depth=1, gamma0=-1), "MLP: gamma0 must be greater than 0, got -1"),
        (lambda: kf.MLP(depth=1, gamma0=NAN), "MLP: gamma0 must be .*, got nan"),
        (lambda: kf.MLP(depth=1, gamma0=INF), "MLP: gamma0 must be .*, got inf"),
        (lambda: kf.MLP(depth=1, activation="tahn"), r"'tahn' is unknown \(did you mean 'tanh'\?\)"),
        (lambda: kf.MLP(depth=1, activation="xyz"), r"'xyz' is unknown \(known: linear, tanh"),
        (lambda: kf.MLP(depth=1, activation=3), "MLP: activation"),
        (lambda: kf.GradientDescent(learning_rate=0, steps=1), "learning_rate must be greater than 0, got 0"),
        (lambda: kf.GradientDescent(learning_rate=-0.1, steps=1), "learning_rate must be greater than 0"),
        (lambda: kf.GradientDescent(learning_rate=NAN, steps=1), "learning_rate must be .*, got nan"),
        (lambda: kf.GradientDescent(learning_rate=0.1, steps=0), "steps must be greater than or equal to 1"),
        (lambda: kf.GradientDescent(learning_rate=0.1), "GradientDescent: steps is required"),
        (lambda: kf.March(particles=15), "March: particles must be greater than or equal to 16, got 15"),
        (lambda: kf.March(replicates=0), "March: replicates must be greater than or equal to 1, got 0"),
        (lambda: kf.March(seed=-1), "March: seed must be greater than or equal to 0, got -1"),
        (lambda: kf.March(tol=0), "March: tol must be greater than 0, got 0"),
        (lambda: kf.March(tol=1), "March: tol must be less than 1, got 1"),
        (
            lambda: kf.March(particles=96),
            r"particles must be a power of two \(Sobol points, .*, got 96",
        ),
        (lambda: kf.March(directions=0), "March: directions must be .* 1, got 0"),
        (lambda: kf.March(kernels="some"), "March: kernels must be .*, got 'some'"),
        (lambda: kf.FiniteWidth(width=0), "FiniteWidth: width must be .* 1, got 0"),
        (lambda: kf.FiniteWidth(width=4, seeds=0), "FiniteWidth: seeds must be .* 1, got 0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def solved(particles=64, fields_at=(0, -1)):
    problem = kf.Problem(np.eye(5), np.ones(5))
    training = kf.GradientDescent(learning_rate=0.1, steps=2)
    method = kf.March(particles=particles, replicates=1)
    return kf.solve(kf.MLP(depth=1), problem, training, method, fields_at=fields_at, progress=False)


def test_steps_of_fields_outside_training_are_named():
    with pytest.raises(ValueError, match=r"fields_at must be steps in 0\.\.2 .*, got 3"):
        solved(fields_at=(3,))


def test_what_a_solution_does_not_hold_is_named(small_solution):
    cases = (
        (lambda: small_solution.feature_kernel(3), r"layer of feature kernels must be in 0\.\.2, got 3"),
        (lambda: small_solution.gradient_kernel(0), r"layer of gradient kernels must be in 1\.\.3, got 0"),
        (lambda: small_solution.feature_kernel(1, 9), r"time must be a step in 0\.\.5 .*, got 9"),
        (lambda: small_solution.estimate("lose"), r"quantity must be one of predictions.*, got 'lose'"),
        (lambda: small_solution.fields(1, 2), r"fields were recorded at layers \[1, 2\] and steps \[0, 5\]"),
    )
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_data_cannot_be_changed_behind_a_problem():
    X = np.eye(2)
    problem = kf.Problem(X, [1, 2])
    X[0, 0] = 7
    assert problem.X[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        problem.X[0, 0] = 3


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 1), (1, 1)])
def test_coordinates_reproduce_the_input_kernel(shape):
    problem = kf.Problem(np.random.default_rng(0).standard_normal(shape), np.ones(shape[0]))
    F = problem.input_coordinates
    assert F.shape[1] <= min(shape)
    assert np.allclose(F @ F.T, problem.input_kernel, rtol=0, atol=1e-14)


def test_inputs_that_are_zero_have_a_kernel_of_zero():
    problem = kf.Problem(np.zeros((2, 3)), [1, 1])
    assert problem.input_coordinates.shape == (2, 1) and not problem.input_coordinates.any()
