"""What every method must do alike: the same Solution, the same shapes, the same kernels at initialization."""

import numpy as np
import pytest
from methods import CLAIMS, X, Y, all_kernels, distance, pairs, run, solved

import kernelfield as kf
from suites import thorough

ROWS, POINTS, DEPTH = 7, 4, 2


@pytest.mark.parametrize(("name", "activation"), pairs())
def test_shapes_and_statuses_are_the_same(name, activation):
    solution = run(name, activation)
    assert isinstance(solution, kf.Solution) and solution.status.code == "ok"
    assert solution.method == CLAIMS[name].method
    assert solution.predictions.shape == solution.predictions_se.shape == (ROWS, POINTS)
    assert solution.loss.shape == solution.loss_se.shape == solution.times.shape == (ROWS,)
    for layer in range(DEPTH + 1):
        assert solution.feature_kernel(layer).shape == solution.feature_kernel_se(layer).shape == (POINTS, POINTS)
        assert solution.gradient_kernel(layer + 1, slice(None), [0]).shape == (ROWS, POINTS, 1, POINTS)
    assert solution.ntk(slice(None)).shape == (ROWS, POINTS, ROWS, POINTS)
    assert np.isfinite(solution.ntk(slice(None))).all()


@pytest.mark.parametrize(("name", "activation"), pairs())
def test_error_bars_are_zero_just_where_it_is_exact(name, activation):
    solution = run(name, activation)
    assert solution.exact == (activation in CLAIMS[name].exact)
    moving = solution.predictions_se[1:]
    assert not moving.any() if solution.exact else (moving > 0).all()


@pytest.mark.parametrize(("name", "activation"), pairs())
def test_the_ends_do_not_move(name, activation):
    solution = run(name, activation)
    np.testing.assert_allclose(solution.feature_kernel(0), solution.problem.input_kernel, atol=1e-12)
    np.testing.assert_allclose(solution.gradient_kernel(DEPTH + 1), 1, atol=1e-12)
    np.testing.assert_allclose(solution.predictions[0], 0, atol=1e-6)
    assert solution.loss[-1] < solution.loss[0] == pytest.approx(np.mean(Y**2) / 2, rel=1e-6)


@pytest.mark.parametrize(("name", "activation"), pairs())
def test_kernels_are_symmetric(name, activation):
    for kernel in [*all_kernels(run(name, activation)), run(name, activation).ntk(slice(None))]:
        matrix = kernel.reshape(ROWS * POINTS, -1)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-10 * np.abs(matrix).max())


@pytest.mark.parametrize(("name", "activation"), pairs(lambda claim, _: claim.positive))
def test_kernels_are_positive(name, activation):
    for kernel in all_kernels(run(name, activation)):
        matrix = kernel.reshape(ROWS * POINTS, -1)
        assert np.linalg.eigvalsh(matrix).min() > -1e-6 * np.abs(matrix).max()


@pytest.mark.parametrize(("name", "activation"), pairs())
def test_kernels_at_initialization_are_those_of_the_static_ntk(name, activation):
    """Oracle: closed forms and quadrature; within the error bars (of all entries together)."""
    solution, truth = run(name, activation), run("StaticNTK", activation)
    for layer in range(1, DEPTH + 1):
        for kind in ("feature_kernel", "gradient_kernel"):
            found, exact = (each.estimate(kind, layer, 0) for each in (solution, truth))
            allowed = 1e-10 * np.linalg.norm(exact.mean) + 5 * np.linalg.norm(found.se)
            assert np.linalg.norm(found.mean - exact.mean) <= allowed


@pytest.mark.parametrize(
    ("name", "activation"),
    [("FiniteWidth", "tanh"), ("AlternatingMonteCarlo", "tanh")],
)
def test_full_theories_agree(name, activation):
    """Oracle: the march, within both standard errors."""
    solution, truth = run(name, activation), run("March", activation)
    noise = np.hypot(np.linalg.norm(solution.predictions_se), np.linalg.norm(truth.predictions_se))
    assert np.linalg.norm(solution.predictions - truth.predictions) < 5 * noise
    assert np.linalg.norm(solution.predictions - truth.predictions) < 0.1 * np.linalg.norm(truth.predictions)


@pytest.mark.parametrize(
    ("name", "activation"), pairs(lambda claim, activation: activation in claim.fields and claim.positive)
)
def test_fields_have_the_kernels_as_second_moments(name, activation):
    solution = run(name, activation)
    fields, kernel = solution.fields(DEPTH), solution.gradient_kernel(DEPTH)
    moments = fields["g"] @ fields["g"].T / fields["g"].shape[1]
    np.testing.assert_allclose(moments, kernel, atol=0.2 * np.abs(kernel).max())


@pytest.mark.parametrize(
    ("name", "activation"),
    [("March", "tanh"), ("StaticNTK", "tanh"), ("DeepLinear", "linear"), thorough("FiniteWidth", "tanh")],
)
def test_points_of_weight_zero_do_not_train(name, activation):
    """Oracle: the run without them; and their targets do not matter."""
    more = {"X": np.vstack([X, X[:2] + 1]), "weights": [1, 1, 1, 1, 0, 0]}
    targets = (np.r_[Y, ends] for ends in ([1.0, 2.0], [-3.0, 0.0]))
    with_them, other = (solved(name, activation, y=y, bare=True, **more) for y in targets)
    np.testing.assert_allclose(with_them.predictions, other.predictions, atol=1e-5)
    alone = run(name, activation)
    noise = 0 if name == "FiniteWidth" else np.linalg.norm(alone.predictions_se)  # the same networks
    off = np.linalg.norm(with_them.predictions[:, :4] - alone.predictions)
    assert off <= 4 * noise + 1e-5 * np.linalg.norm(alone.predictions)
    np.testing.assert_allclose(with_them.loss[-1], alone.loss[-1], rtol=0.1)
    assert np.abs(with_them.predictions[-1, 4:]).min() > 0.01  # they are predicted


@pytest.mark.parametrize(
    ("name", "activation"),
    pairs(
        lambda claim, activation: activation in claim.exact, {("March", "linear"), ("AlternatingMonteCarlo", "linear")}
    ),
)
def test_a_weight_of_two_is_a_point_twice(name, activation):
    weighted = solved(name, activation, weights=[2, 1, 0.5, 1])
    twice = solved(name, activation, X=np.vstack([X[:1], X]), y=np.r_[Y[:1], Y], weights=[1, 1, 1, 0.5, 1])
    assert distance(twice.predictions[:, 1:], weighted.predictions) < 1e-10
    assert distance(twice.loss, weighted.loss) < 1e-10
    for found, truth in zip(all_kernels(twice), all_kernels(weighted), strict=True):
        assert distance(found[:, 1:, :, 1:], truth) < 1e-10


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("FiniteWidth", "tanh"),
        ("AlternatingMonteCarlo", "tanh"),
        ("DeepLinear", "linear"),
        thorough("AlternatingMonteCarlo", "linear"),
    ],
)
def test_full_theories_agree_with_weights(name, activation):
    """Oracle: the march, within both standard errors, on points that train and on one that does not."""
    solution, truth = (run(each, activation, weights=(2, 1, 0, 1), bare=True) for each in (name, "March"))
    for points in (slice(None), slice(2, 3)):
        noise = np.hypot(*(np.linalg.norm(each.predictions_se[:, points]) for each in (solution, truth)))
        assert np.linalg.norm((solution.predictions - truth.predictions)[:, points]) < 5 * noise + 1e-10


@pytest.mark.parametrize(("name", "activation"), pairs(lambda _, activation: activation != "relu"))
def test_files_give_it_back(name, activation, tmp_path):
    solution = run(name, activation)
    solution.save(tmp_path / "run.nc")
    again = kf.load(tmp_path / "run.nc")
    assert (again.method, again.network, again.exact) == (solution.method, solution.network, solution.exact)
    np.testing.assert_array_equal(again.predictions, solution.predictions)
    for found, truth in zip(all_kernels(again), all_kernels(solution), strict=True):
        np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(("name", "activation"), pairs(lambda claim, activation: activation == claim.activations[0]))
def test_everything_can_be_compared(name, activation):
    comparison = kf.compare(run(name, activation), run("March", activation))
    assert comparison.row("predictions").alignment > 0.9
    assert comparison.row("NTK", times="final").error < 0.5


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if "tanh" not in claim.activations])
def test_what_cannot_be_solved_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=rf"^{name} [^\n.]*tanh"):
        solved(name, "tanh")
