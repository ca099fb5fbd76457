"""Losses against closed formulas and finite differences, and a network that learns by cross-entropy, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import kernelfield as kf
from explicit import DEEP, solved
from kernelfield.describe.losses import LOSSES, Loss, loss
from kernelfield.finite.network import FiniteNetwork
from kernelfield.observables.groups import by_target

RNG = np.random.default_rng(5)
F = RNG.standard_normal((5, 3))
SIGNS, ROWS = np.sign(RNG.standard_normal((5, 3))), softmax(RNG.standard_normal((5, 3)), axis=1)
CLOSED = {
    "mse": (SIGNS, lambda f, y: ((f - y) ** 2).sum(-1) / 2, lambda f, y: y - f),
    "logistic": (SIGNS, lambda f, y: np.log1p(np.exp(-y * f)).sum(-1), lambda f, y: y / (1 + np.exp(y * f))),
    "cross_entropy": (ROWS, lambda f, y: -(y * log_softmax(f, axis=-1)).sum(-1), lambda f, y: y - softmax(f, axis=-1)),
    "hinge": (SIGNS, lambda f, y: np.maximum(0, 1 - y * f).sum(-1), lambda f, y: y * (y * f < 1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_signals_are_the_closed_formulas(name):
    y, values, signal = CLOSED[name]
    np.testing.assert_allclose(loss(name).measured(F, y), values(F, y), rtol=1e-13)
    np.testing.assert_allclose(loss(name).measured_signal(F, y), signal(F, y), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_signals_are_slopes(name):
    """Oracle: central differences."""
    y, signal = CLOSED[name][0], np.zeros_like(F)
    for output in range(3):
        step = 1e-6 * np.eye(3)[output]
        signal[:, output] = (loss(name).measured(F - step, y) - loss(name).measured(F + step, y)) / 2e-6
    np.testing.assert_allclose(loss(name).measured_signal(F, y), signal, atol=1e-8)


@pytest.mark.parametrize("name", ["mse", "logistic", "hinge"])
def test_one_output_needs_no_axis(name):
    y, each = CLOSED[name][0], loss(name)
    np.testing.assert_allclose(each.measured(F[:, 0], y[:, 0]), each.measured(F[:, :1], y[:, :1]), rtol=1e-14)
    np.testing.assert_allclose(
        each.measured_signal(F[:, 0], y[:, 0]), each.measured_signal(F[:, :1], y[:, :1])[:, 0], rtol=1e-14
    )


@pytest.mark.parametrize("name", LOSSES)
def test_axes_before_the_points_belong_to_f_alone(name):
    y, each = CLOSED[name][0], loss(name)
    many = np.stack([F, 2 * F, -F])
    assert each.measured(many, y).shape == (3, 5)
    np.testing.assert_allclose(each.measured(many, y)[1], each.measured(2 * F, y), rtol=1e-14)
    np.testing.assert_allclose(each.measured_signal(many, y)[2], each.measured_signal(-F, y), rtol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_jax_and_numpy_agree(name, x64):
    y, each = CLOSED[name][0], loss(name)
    f, targeted = jnp.asarray(F), jnp.asarray(y)
    np.testing.assert_allclose(each.values(f, targeted), each.measured(F, y), rtol=1e-13)
    np.testing.assert_allclose(each.signal(f, targeted), each.measured_signal(F, y), rtol=1e-13, atol=1e-15)


def test_losses_of_large_outputs_are_finite():
    f, y = np.array([[1e4, -1e4]]), np.array([[-1.0, 1.0]])
    assert loss("logistic").measured(f, y) == pytest.approx(2e4)
    assert loss("cross_entropy").measured(f, np.array([[0.0, 1.0]])) == pytest.approx(2e4)
    np.testing.assert_allclose(loss("logistic").measured_signal(f, y), y)


def test_labels_become_rows_of_probabilities():
    problem = kf.Problem(np.eye(3), [0, 2, 1], loss="cross_entropy")
    np.testing.assert_array_equal(problem.y, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert problem.outputs == 3
    assert problem.initial_loss == pytest.approx(np.log(3))
    rows = kf.Problem(np.eye(3), problem.y, loss="cross_entropy")
    np.testing.assert_array_equal(rows.y, problem.y)
    assert rows.classes is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 2, 3, 4, 100000], [0, 1, 2, 3, 4, 100000]),
        ([1, 2, 3] * 2, [1, 2, 3]),
        ([-1.0, 1.0] * 3, [-1, 1]),
        (["b", "a"] * 3, ["a", "b"]),
        ([True, False] * 3, [False, True]),
        (np.array([3, 1, 2] * 2, dtype=object), [1, 2, 3]),
        (np.array([b"x", b"y"] * 3), [b"x", b"y"]),
    ],
)
def test_labels_of_any_kind_name_the_classes(labels, classes):
    problem = kf.Problem(np.eye(6), labels, loss="cross_entropy")
    assert problem.classes.tolist() == classes and problem.y.shape == (6, len(classes))
    assert problem.classes[problem.y.argmax(axis=1)].tolist() == np.asarray(labels).tolist()


def test_classes_are_those_of_all_points_or_in_the_order_given():
    X = np.eye(4)
    problem = kf.Problem(
        X, list("abab"), X_test=X[:2], y_test=["c", "a"], stream=(X, list("dabc")), loss="cross_entropy"
    )
    assert problem.classes.tolist() == list("abcd") and problem.y.shape == (6, 4)
    assert problem.stream.classes.tolist() == list("abcd") and problem.stream.y.argmax(axis=1).tolist() == [3, 0, 1, 2]
    named = kf.Problem(X, list("abab"), classes=list("zba"), loss="cross_entropy")
    assert named.classes.tolist() == list("zba") and named.y.argmax(axis=1).tolist() == [2, 1, 2, 1]
    assert kf.Problem(X, np.eye(4), classes=list("wxyz"), loss="cross_entropy").classes.tolist() == list("wxyz")


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [
        ("logistic", [0.0, 1.0], "the loss 'logistic' needs targets of -1 and 1"),
        ("hinge", [0.5, 1.0], "the loss 'hinge' needs targets of -1 and 1"),
        ("cross_entropy", [0.5, 1.0], "labels must be texts, whole numbers or truth values, got float64"),
        ("cross_entropy", [1j, 1], "labels must be texts, whole numbers or truth values, got complex128"),
        ("cross_entropy", ["a", "a"], "labels must be of two classes or more, got a alone"),
        ("cross_entropy", ["a", None], "labels must not be missing"),
        ("cross_entropy", [np.nan, 1.0], "labels must not be missing"),
        ("cross_entropy", np.ma.masked_equal([1, 2], 2), "labels must not be missing"),
        ("mse", np.ma.masked_equal([1, 2], 2), "y must not be masked: fill in what is missing"),
        ("mse", [1j, 1], "y must be an array of real numbers, got list"),
        ("cross_entropy", [[0.5, 0.6], [1, 0]], "needs labels, one for each point, or rows of probabilities"),
        ("cross_entropy", [[1.5, -0.5], [1, 0]], "needs labels, one for each point, or rows of probabilities"),
        ("cross_entropy", [[1.0], [1.0]], "needs labels, one for each point, or rows of probabilities"),
        ("entropy", [0.0, 1.0], "loss 'entropy' is unknown .did you mean 'cross_entropy'?"),
        (3, [0.0, 1.0], "loss must be a name or a function, got int"),
    ],
)
def test_targets_and_names_that_do_not_fit_are_refused(name, y, message):
    with pytest.raises(ValueError, match=message):
        kf.Problem(np.eye(2), y, loss=name)


def test_labels_that_nearly_all_differ_are_refused_before_anything_is_allocated():
    with pytest.raises(ValueError, match="labels must be of few classes, got 3000 different ones of 4000 points"):
        kf.Problem(np.ones((4000, 1)), np.arange(4000) % 3000, loss="cross_entropy")
    with pytest.raises(ValueError, match="label 1 is not one of the classes 2, 3"):
        kf.Problem(np.eye(2), [1, 2], classes=[2, 3], loss="cross_entropy")
    with pytest.raises(ValueError, match="classes must name 2 outputs, got 3 names"):
        kf.Problem(np.eye(2), np.eye(2), classes=[2, 3, 4], loss="cross_entropy")
    with pytest.raises(ValueError, match="classes must be different names in one row"):
        kf.Problem(np.eye(2), np.eye(2), classes=[2, 2], loss="cross_entropy")
    with pytest.raises(ValueError, match="classes are for the loss 'cross_entropy', not 'mse'"):
        kf.Problem(np.eye(2), np.ones(2), classes=[2, 3])


def quartic(f, y):
    return jnp.sum((f - y) ** 4) / 4


def test_any_function_of_one_point_is_a_loss():
    made = loss(quartic)
    assert made.name == "quartic" and loss(made) is made and isinstance(made, Loss)
    np.testing.assert_allclose(made.measured(F, SIGNS), ((F - SIGNS) ** 4).sum(-1) / 4, rtol=1e-13)
    np.testing.assert_allclose(made.measured_signal(F, SIGNS), (SIGNS - F) ** 3, rtol=1e-13)
    np.testing.assert_allclose(made.measured_signal(F[:, 0], SIGNS[:, 0]), (SIGNS - F)[:, 0] ** 3, rtol=1e-13)


def test_names_of_functions_do_not_make_them_built_in_losses():
    def mse(f, y):
        return jnp.sum((f - y) ** 2)

    np.testing.assert_allclose(loss(mse).measured(F, SIGNS), ((F - SIGNS) ** 2).sum(-1), rtol=1e-13)


# --- networks


@pytest.mark.thorough
def test_one_update_of_cross_entropy_written_out():
    X, labels, width, rate = np.random.default_rng(6).standard_normal((4, 3)), [0, 1, 2, 1], 6, 0.3
    problem = kf.Problem(X, labels, weights=[1, 2, 1, 1], loss="cross_entropy")
    training = kf.GradientDescent(learning_rate=rate, steps=2)
    settings = {"width": width, "seeds": 1, "seed": 4, "precision": "float64", "kernels": "none"}
    solution = solved(problem=problem, training=training, **settings)
    with jax.enable_x64(True):
        drawn = FiniteNetwork(DEEP.layers, (3,), width, problem.loss, 3).init(jnp.asarray(4, jnp.uint32))
    W0, W1, w = start = [np.asarray(values) for values in drawn if values is not None]
    assert w.shape == (3, width)

    def outputs(W0, W1, w):
        h1 = X @ W0.T / np.sqrt(3)
        h2 = np.tanh(h1) @ W1.T / np.sqrt(width)
        return h1, h2, np.tanh(h2) @ w.T / width

    h1, h2, first = outputs(*start)
    Delta = problem.weights[:, None] * (problem.y - 1 / 3)  # softmax of f = 0
    g2 = (1 - np.tanh(h2) ** 2) * (Delta @ w)
    g1 = (1 - np.tanh(h1) ** 2) * (g2 @ W1 / np.sqrt(width))
    step = rate * DEEP.gamma0
    moved = (
        W0 + step * g1.T @ X / np.sqrt(3),
        W1 + step * g2.T @ np.tanh(h1) / np.sqrt(width),
        w + step * Delta.T @ np.tanh(h2),
    )
    f = (outputs(*moved)[2] - first) / DEEP.gamma0
    assert solution.predictions.shape == (3, 4, 3)
    np.testing.assert_allclose(solution.predictions[:2], [np.zeros((4, 3)), f], atol=1e-12)


@pytest.mark.parametrize("name", ["hinge", quartic])
def test_networks_make_any_loss_smaller(name):
    X = np.random.default_rng(5).standard_normal((4, 3))
    problem = kf.Problem(X, [1, -1, 1, -1], loss=name)
    training = kf.GradientDescent(learning_rate=0.3, steps=60)
    found = solved(problem=problem, training=training, width=32, seeds=2, kernels="none")
    assert found.loss[0] == pytest.approx(problem.initial_loss)
    assert found.loss[-1] < found.loss[0] / 2


def test_a_loss_that_is_zero_at_the_start_never_diverges():
    problem = kf.Problem(np.eye(3), np.ones(3), loss=lambda f, y: f * y)  # of numbers; falls without end
    found = solved(problem=problem, width=8, seeds=1, kernels="none")
    assert found.status.code == "ok" and found.loss[-1] < 0


def test_classes_are_stored_and_name_the_groups_of_samples(tmp_path):
    X = np.random.default_rng(0).standard_normal((6, 3))
    problem = kf.Problem(X, ["cat", "dog", "emu"] * 2, loss="cross_entropy")
    solution = solved(problem=problem, width=8, seeds=1)
    solution.save(tmp_path / "a.nc")
    again = kf.load(tmp_path / "a.nc").problem
    assert again.classes.tolist() == ["cat", "dog", "emu"] and again.labels.tolist() == ["cat", "dog", "emu"] * 2
    assert solution.restricted([0, 1]).problem.labels.tolist() == ["cat", "dog"]
    assert by_target(problem).names == ("class cat", "class dog", "class emu")
    soft = kf.Problem(X[:2], [[0.5, 0.5], [0, 1]], classes=["a", "b"], loss="cross_entropy")
    np.testing.assert_array_equal(soft.labels, soft.y)
