"""New points: as points of weight zero that ride in the march, and as networks of growing width see them."""

import pickle

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.layers import Activation, Conv, Dense, GlobalAveragePool, Readout
from suites import thorough

X, NEW = np.split(np.random.default_rng(8).standard_normal((9, 6)), [5])
Y, TANH, LINEAR = np.array([1.0, -0.7, 0.9, -1.1, 0.4]), Activation("tanh"), Activation("linear")
RULES = {
    "descent": kf.GradientDescent(learning_rate=0.3, steps=8, momentum=0.5, weight_decay=0.1),
    "batches": kf.SGD(learning_rate=0.3, batch_size=2, epochs=2),
    "flow": kf.GradientFlow(time=1.5, steps=3, rtol=1e-2),
}
SHARED = Dense()


def images(X):
    return X.reshape(len(X), 3, 2)


def solved(
    network,
    training=RULES["descent"],
    method=None,
    inputs=X,
    y=Y,
    riding=None,
    fields_at=(0, -1),
    save_at=None,
    **problem,
):
    """With `riding` points of weight zero."""
    weights = None
    if riding is not None:
        inputs, weights = np.concatenate([inputs, riding]), [1] * len(inputs) + [0] * len(riding)
        y = np.concatenate([y, np.zeros((len(riding), *np.shape(y)[1:]))])
    described = kf.Problem(inputs, y, weights, **problem)
    method = method or kf.March(particles=1024)
    settings = {"fields_at": fields_at, "save_at": save_at, "progress": False}
    return kf.solve(network, described, training, method, **settings)


@pytest.fixture(scope="module")
def trained():
    """A march that several tests look at."""
    return solved(kf.MLP(depth=2))


EXACT = {
    "deep": (kf.MLP(depth=2, activation="linear", bias_scale=0.3), X, NEW),
    "convolution": (
        kf.Network(layers=[Conv(2), LINEAR, Conv(2), GlobalAveragePool(), Readout()]),
        images(X),
        images(NEW),
    ),
}


@pytest.mark.thorough
def test_kernels_of_new_points_do_not_need_those_of_training():
    network, inputs, new = EXACT["deep"]
    every, bare = (solved(network, method=kf.March(kernels=kernels)) for kernels in ("all", "none"))
    for found in (
        lambda solution: solution.predict(new),
        lambda solution: solution.feature_kernel_between(2, -1, new, inputs),
        lambda solution: solution.ntk_between(-1, new, inputs),
    ):
        np.testing.assert_allclose(found(bare).mean, found(every).mean, atol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("name, rule", [("convolution", "batches"), ("deep", "flow")])
def test_linear_networks_predict_what_points_that_ride_along_show(name, rule):
    network, inputs, new = EXACT[name]
    alone = solved(network, RULES[rule], kf.March(kernels="none"), inputs)
    along = solved(network, RULES[rule], inputs=inputs, riding=new, save_at=[-1])
    found = alone.predict(new)
    np.testing.assert_allclose(found.mean, along.predictions[-1, 5:], atol=1e-10 if rule != "flow" else 1e-2)
    assert not found.se.any()
    if rule != "flow":  # whose steps depend on the points that are there
        last = network.hidden_layers
        kernel = alone.feature_kernel_between(last, -1, new, np.concatenate([inputs, new]))
        np.testing.assert_allclose(kernel.mean, along.feature_kernel(last)[5:], atol=1e-10)
        tangents = alone.ntk_between(-1, new, np.concatenate([inputs, new]))
        np.testing.assert_allclose(tangents.mean, along.ntk()[5:], atol=1e-10)


SAMPLED = {
    "classes": (kf.MLP(depth=1), X, NEW, {"y": np.eye(3)[[0, 1, 2, 1, 0]], "loss": "cross_entropy"}),
    "convolution": (
        kf.Network(layers=[Conv(2), TANH, Conv(2), TANH, GlobalAveragePool(), Readout()]),
        images(X),
        images(NEW),
        {},
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SAMPLED)
def test_samples_predict_what_points_that_ride_along_and_wide_networks_show(name):
    network, inputs, new, problem = SAMPLED[name]
    if "y" in problem:
        riding = {**problem, "y": np.concatenate([problem["y"], np.eye(3)[[0, 0, 0, 0]]])}
        described = kf.Problem(np.concatenate([inputs, new]), riding.pop("y"), [1] * 5 + [0] * 4, **riding)
        sampled, last = kf.March(particles=1024), {"save_at": [-1], "progress": False}
        along = kf.solve(network, described, RULES["descent"], sampled, **last)
    else:
        along = solved(network, inputs=inputs, riding=new, save_at=[-1])
    alone = solved(network, method=kf.March(particles=1024, kernels="none"), inputs=inputs, **problem)
    finite = solved(network, inputs=inputs, method=kf.FiniteWidth(width=256, seeds=12, kernels="none"), **problem)
    f, ridden = alone.predict(new), along.estimate("predictions")
    size = np.linalg.norm(f.mean)
    for mean, se in ((ridden.mean[-1, 5:], ridden.se[-1, 5:]), (finite.predict(new).mean, finite.predict(new).se)):
        noise = np.sqrt(np.sum(f.se**2 + se**2))
        assert np.linalg.norm(f.mean - mean) < 2 * noise + 1e-3 * size, (np.linalg.norm(f.mean - mean), noise, size)
    last = network.hidden_layers
    kernel, truth = alone.feature_kernel_between(last, -1, new, inputs), along.estimate("feature_kernel", last)
    noise = np.sqrt(np.sum(kernel.se**2 + truth.se[5:, :5] ** 2))
    assert np.linalg.norm(kernel.mean - truth.mean[5:, :5]) < 2 * noise
    assert noise < 0.1 * np.linalg.norm(kernel.mean)
    kernel, truth = alone.ntk_between(-1, new, inputs), finite.ntk_between(-1, new, inputs)
    size, noise = np.linalg.norm(kernel.mean), np.sqrt(np.sum(kernel.se**2 + truth.se**2))
    assert np.linalg.norm(kernel.mean - truth.mean) < 2 * noise + 1e-3 * size
    assert noise < 0.1 * size


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", [None, kf.FiniteWidth(width=16, seeds=3), kf.StaticNTK()], ids=lambda each: str(each)[:5]
)
def test_points_that_were_learned_are_predicted_as_they_were(method):
    network, training = kf.MLP(depth=2), kf.GradientDescent(learning_rate=0.3, steps=8)
    solution = kf.solve(network, kf.Problem(X, Y), training, method, progress=False, fields_at=(3, -1))
    for step in (3, -1):
        np.testing.assert_allclose(solution.predict(X, step).mean, solution.predictions[step], atol=1e-3)
        kernel = solution.feature_kernel_between(2, step, X, X[:2])
        np.testing.assert_allclose(kernel.mean, solution.feature_kernel(2, step)[:, :2], atol=1e-3)
        np.testing.assert_allclose(solution.feature_kernel_between(0, step, X, NEW).mean, X @ NEW.T / 6)
        np.testing.assert_allclose(solution.ntk_between(step, X, X[:2]).mean, solution.ntk(step)[:, :2], atol=5e-3)


@pytest.mark.parametrize(
    "problem, training",
    [
        ({}, kf.GradientDescent(learning_rate=0.3, steps=8, schedule="cosine")),
        ({}, kf.GradientFlow(time=2.0, steps=2)),
        ({"y": np.sign(Y), "loss": "logistic"}, kf.GradientDescent(learning_rate=0.3, steps=8)),
        ({"y": np.stack([Y, Y**2], axis=1)}, kf.GradientFlow(time=2.0, steps=2)),
    ],
)
def test_the_static_kernel_predicts_what_points_that_ride_along_show(problem, training):
    given = {"y": Y, **problem}
    riding = {**given, "y": np.concatenate([given["y"], given["y"][:4]])}
    alone = solved(kf.MLP(depth=2, activation="relu"), training, kf.StaticNTK(), **given)
    described = kf.Problem(np.concatenate([X, NEW]), riding.pop("y"), [1] * 5 + [0] * 4, **riding)
    along = kf.solve(kf.MLP(depth=2, activation="relu"), described, training, kf.StaticNTK(), progress=False)
    np.testing.assert_allclose(alone.predict(NEW).mean, along.predictions[-1, 5:], atol=1e-9)


def test_points_are_predicted_each_by_itself(trained, monkeypatch):
    rng = np.random.default_rng(0)
    many, order = rng.standard_normal((11, 6)), rng.permutation(11)
    whole = trained.predict(many).replicates
    np.testing.assert_allclose(trained.predict(many[order]).replicates, whole[:, order], atol=1e-6)
    monkeypatch.setattr("kernelfield.march.replicate.PASS_ROWS", 4)
    np.testing.assert_allclose(trained.predict(many).replicates, whole, atol=1e-6)


EVERYWHERE = {
    "tanh": (kf.MLP(depth=2), RULES["descent"]),
    "relu": (kf.MLP(depth=2, activation="relu", bias_scale=0.3), RULES["batches"]),
    "convolution": (SAMPLED["convolution"][0], RULES["descent"]),
    "shared": (kf.Network(layers=[Dense(), TANH, SHARED, TANH, SHARED, TANH, Readout()]), RULES["descent"]),
    "widths": (kf.MLP(depth=2, widths=[2.0, 1.0], weight_scales=[1.0, 1.3, 1.0]), RULES["descent"]),
}


@pytest.mark.parametrize(
    ("name", "gamma0", "accuracy"),
    [
        ("tanh", 1e-6, 1e-9),
        *(thorough(name, 1e-6, 1e-9) for name in EVERYWHERE if name != "tanh"),
    ],
)
def test_new_points_are_points_that_ride_along_to_rounding(name, gamma0, accuracy):
    """Inside the span of the training inputs and outside; in single precision, and in double at the smaller gamma0."""
    network, rule = EVERYWHERE[name]
    network = network.model_copy(update={"gamma0": gamma0})
    shaped = images if name == "convolution" else np.asarray
    new = shaped(np.concatenate([NEW, np.random.default_rng(0).standard_normal((2, 5)) @ X]))
    method = kf.March(particles=1024, replicates=2, kernels="none")
    alone, along = (solved(network, rule, method, shaped(X), riding=riding, fields_at=()) for riding in (None, new))
    found, ridden = alone.predict(new).replicates, along.replicate_predictions[:, -1, 5:]
    assert np.abs(found - ridden).max() < accuracy * np.abs(ridden).max()


def test_some_replicates_and_a_pickled_solution_predict_alike(trained):
    f = trained.predict(NEW).replicates
    np.testing.assert_array_equal(trained.restricted(replicates=[2, 0]).predict(NEW).replicates, f[[2, 0]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(trained)).predict(NEW).replicates, f)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda solution: solution.predict(NEW[:, :3]), r"X must be shaped as the inputs of the problem, \(5, 6\)"),
        (lambda solution: solution.predict(np.full((2, 6), np.nan)), "X must be finite"),
        (lambda solution: solution.predict(NEW, 3), r"the state was kept at steps \[0, 8\], not at 3: name it in"),
        (lambda solution: solution.predict(NEW, 9), r"time must be a step in 0\.\.8"),
        (lambda solution: solution.feature_kernel_between(3, -1, X, NEW), r"layer must be in 0\.\.2, got 3"),
    ],
)
def test_bad_requests_are_named(ask, message, trained):
    with pytest.raises(ValueError, match=message):
        ask(trained)


def test_methods_that_keep_no_state_say_so():
    solution = kf.solve(kf.MLP(depth=1), kf.Problem(X, Y), kf.GradientDescent(learning_rate=0.1, steps=2),
                        kf.GradientIndependence(particles=64), progress=False)  # fmt: skip
    with pytest.raises(ValueError, match="GradientIndependence left no state to predict from: use March, StaticNTK"):
        solution.predict(NEW)
