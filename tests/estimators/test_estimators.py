"""Infinitely wide networks behave as scikit-learn estimators, and predict what their Solution does."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import kernelfield as kf
from kernelfield.estimators import trainer
from kernelfield.estimators.trainer import Trainer, in_parts
from suites import thorough

X, NEW = np.split(np.random.default_rng(2).standard_normal((33, 4)), [24])
Y, CLASSES = np.tanh(X[:, 0]) + 0.2 * X[:, 1], np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.5, 0.5])]
SMALL = {"depth": 1, "particles": 256, "replicates": 2, "random_state": 0}


def regressor(**settings):
    return kf.InfiniteWidthRegressor(**{**SMALL, "steps": 15, **settings})


def classifier(**settings):
    return kf.InfiniteWidthClassifier(**{**SMALL, "steps": 15, **settings})


@pytest.mark.thorough
@pytest.mark.parametrize("make", [regressor, classifier])
def test_scikit_learn_checks_pass(make):
    """With the static kernel, which is fast; `benchmarks/estimator_checks.py` has those of feature learning."""
    from sklearn.utils.estimator_checks import check_estimator  # takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(make(gamma0=0.0, activation="erf"), on_skip=None)


def test_a_regressor_predicts_what_its_solution_does_in_units_of_the_targets():
    model = regressor(steps=30).fit(X, 7 + 100 * Y)
    f = model.solution_.predict(NEW)
    mean, error = model.predict(NEW, return_std=True)
    np.testing.assert_allclose(mean, f.mean * model.target_scale_ + model.target_mean_)
    np.testing.assert_allclose(error, f.se * model.target_scale_)
    assert (error > 0).all() and model.score(X, 7 + 100 * Y) > 0.9
    scaled = regressor(steps=30).fit(X, Y)
    np.testing.assert_allclose(mean, 7 + 100 * scaled.predict(NEW), rtol=1e-6)


def test_several_targets_and_constant_ones():
    Z = np.stack([Y, -Y, np.ones(24)], axis=1)
    found = regressor(activation="linear", steps=10).fit(X, Z).predict(NEW)
    assert found.shape == (9, 3)
    np.testing.assert_allclose(found[:, 0], -found[:, 1], atol=1e-10)
    np.testing.assert_allclose(found[:, 2], 1, atol=1e-10)


@pytest.mark.parametrize("labels", [CLASSES, thorough(CLASSES == "a")])
def test_a_classifier_gives_probabilities_of_its_classes(labels):
    model = classifier(steps=30).fit(X, labels)
    chances = model.predict_proba(NEW)
    assert chances.shape == (9, len(model.classes_)) and chances.min() > 0
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict(NEW), model.classes_[chances.argmax(axis=1)])
    assert model.score(X, labels) > 0.9
    f, error = model.decision_function(NEW, return_std=True)
    assert f.shape == error.shape == ((9,) if len(model.classes_) == 2 else (9, 3))


def test_the_same_seed_predicts_the_same_and_no_feature_learning_is_the_static_kernel():
    one, again, other = (regressor(random_state=seed).fit(X, Y).predict(NEW) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-6
    lazy = regressor(gamma0=0.0).fit(X, Y)
    assert isinstance(lazy.solution_.method, kf.StaticNTK)
    settings = {"learning_rate": lazy.learning_rate_, "particles": 1024}
    nearly = regressor(gamma0=0.02, **settings).fit(X, Y)
    np.testing.assert_allclose(nearly.predict(NEW), lazy.predict(NEW), atol=0.08)
    assert np.abs(nearly.predict(NEW) - lazy.predict(NEW)).max() < np.abs(one - lazy.predict(NEW)).max() / 2


def test_training_ends_where_it_has_converged_or_says_that_it_has_not():
    model = regressor(steps="converged", activation="linear", gamma0=0.0).fit(X, Y)
    late = model.solution_.loss[model.n_iter_ // 2 :]
    assert np.ptp(late) < 0.01 * late.max() or late[-1] < 1e-3 * model.solution_.loss[0]
    with pytest.warns(ConvergenceWarning, match="not converged after max_steps = 5 steps: raise max_steps"):
        regressor(steps="converged", max_steps=5).fit(X, Y)


def test_early_stopping_trains_all_points_until_the_validation_loss_was_least():
    noisy = Y + np.random.default_rng(0).standard_normal(24)
    model = regressor(early_stopping=True, gamma0=0.0, steps="converged").fit(X, noisy)
    losses = model.validation_losses_[0.0]
    assert model.n_iter_ == max(1, losses.argmin()) < len(losses) - 1
    assert (model.solution_.problem.weights > 0).all()
    assert classifier(early_stopping=True, steps=10).fit(X, CLASSES).n_iter_ <= 10


def test_a_learning_rate_that_diverges_is_halved_if_it_may_be_chosen(monkeypatch):
    monkeypatch.setattr(Trainer, "_find_lazy_rate", lambda _: 600.0)
    assert regressor(momentum=0.0).fit(X, Y).learning_rate_ < 300
    with pytest.raises(kf.SolveError, match="diverged"):
        regressor(learning_rate=300.0, momentum=0.0).fit(X, Y)


def test_the_least_validation_loss_chooses_among_strengths_of_feature_learning():
    model = regressor(gamma0=(0.0, 1.0), early_stopping=True, activation="erf").fit(X, Y)
    least = {gamma0: losses.min() for gamma0, losses in model.validation_losses_.items()}
    assert list(least) == [0.0, 1.0] and model.gamma0_ == min(least, key=least.get)
    assert model.n_iter_ == model.validation_losses_[model.gamma0_].argmin()
    with pytest.raises(ValueError, match="among several gamma0 a validation split chooses: set early_stopping=True"):
        regressor(gamma0=(0.0, 1.0)).fit(X, Y)


@pytest.mark.thorough
def test_they_clone_pickle_and_run_in_pipelines_and_searches():
    model = make_pipeline(StandardScaler(), regressor(steps=5, gamma0=0.0))
    search = GridSearchCV(model, {"infinitewidthregressor__depth": [1, 2]}, cv=2).fit(X, Y)
    assert search.best_params_["infinitewidthregressor__depth"] in (1, 2)
    fitted = regressor(activation="linear").fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(NEW), fitted.predict(NEW))
    assert clone(fitted).get_params() == fitted.get_params() and not hasattr(clone(fitted), "solution_")


@pytest.mark.thorough
def test_searches_run_in_several_processes():
    """joblib's workers start anew, so that JAX works in each; they predict what one process does."""
    grid = {"gamma0": [0.0, 1.0]}
    one, two = (
        GridSearchCV(regressor(steps=5, activation="erf"), grid, cv=2, n_jobs=jobs).fit(X, Y) for jobs in (1, 2)
    )
    np.testing.assert_allclose(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], rtol=1e-5)
    np.testing.assert_allclose(two.predict(NEW), one.predict(NEW), rtol=1e-5)


@pytest.mark.thorough
def test_the_adapted_kernel_is_that_of_the_trained_network():
    trained = regressor(particles=512)
    adapted = kf.AdaptedKernel(trained).fit(X, Y)
    solution = adapted.estimator_.solution_
    method = solution.method.model_copy(update={"kernels": "features"})
    recorded = kf.solve(solution.network, solution.problem, solution.training, method, progress=False)
    np.testing.assert_allclose(adapted.transform(X), recorded.feature_kernel(1), atol=0.02)
    tangent = kf.AdaptedKernel(regressor(particles=512, gamma0=0.0, activation="erf"), layer="ntk").fit(X, Y)
    lazy = tangent.estimator_.solution_
    np.testing.assert_allclose(tangent.transform(NEW) @ lazy.predictor.alpha[0, -1, :, 0], lazy.predict(NEW).mean)
    ridge = make_pipeline(kf.AdaptedKernel(trained), KernelRidge(alpha=1e-3, kernel="precomputed")).fit(X, Y)
    assert ridge.score(X, Y) > 0.95 and ridge.predict(NEW).shape == (9,)
    machine = make_pipeline(kf.AdaptedKernel(classifier(particles=512)), SVC(kernel="precomputed")).fit(X, CLASSES)
    assert machine.score(X, CLASSES) > 0.7
    with pytest.raises(ValueError, match=r"layer must be 'ntk' or in 0\.\.1"):
        kf.AdaptedKernel(regressor(gamma0=0.0), layer=4).fit(X, Y).transform(NEW)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: regressor().predict(NEW), NotFittedError, "not fitted yet"),
        (lambda: regressor(gamma0=0.0).fit(X, Y).predict(NEW[:, :2]), ValueError, "expecting 4 features"),
        (lambda: regressor().fit(X, np.where(Y > 0, Y, np.nan)), ValueError, "contains NaN"),
        (lambda: classifier().fit(X, np.zeros(24)), ValueError, "needs samples of 2 classes or more, got 1 class"),
        (lambda: classifier().fit(X, Y), ValueError, "Unknown label type: continuous"),
        (
            lambda: regressor(steps="all").fit(X, Y),
            ValueError,
            "steps must be a positive integer or 'converged', got 'all'",
        ),
        (
            lambda: regressor(learning_rate="Auto").fit(X, Y),
            ValueError,
            "learning_rate must be a positive number or 'auto'",
        ),
        (lambda: regressor(learning_rate=0).fit(X, Y), ValueError, "learning_rate must be a positive number or 'auto'"),
        (
            lambda: regressor(batch_size=0.5).fit(X, Y),
            ValueError,
            "batch_size must be a positive integer or 'auto', got 0.5",
        ),
        (
            lambda: regressor(gamma0="rich").fit(X, Y),
            ValueError,
            "gamma0 must be a number, several numbers or 'auto', got 'rich'",
        ),
        (
            lambda: regressor().fit(X, Y, np.zeros(24)),
            ValueError,
            "sample_weight must have 24 weights that are not negative, nor all zero",
        ),
        (lambda: regressor(depth=0).fit(X, Y), ValueError, "MLP: depth must be greater than or equal to 1, got 0"),
        (lambda: regressor(gamma0=-1.0).fit(X, Y), ValueError, "gamma0 must be greater than 0, got -1"),
    ],
)
def test_bad_input_is_what_users_of_scikit_learn_expect(ask, error, message):
    with pytest.raises(error, match=message):
        ask()


@pytest.mark.thorough
def test_a_point_of_weight_two_is_two_points_and_one_of_weight_zero_is_none():
    weights = np.tile([1.0, 2.0, 0.0, 3.0], 6)
    repeated = np.repeat(np.arange(24), weights.astype(int))
    for model, y in ((regressor(steps=8), Y), (classifier(steps=8), CLASSES)):
        weighted = clone(model).fit(X, y, sample_weight=weights)
        again = clone(model).fit(X[repeated], y[repeated])
        ask = "predict" if y is Y else "decision_function"
        np.testing.assert_allclose(getattr(weighted, ask)(NEW), getattr(again, ask)(NEW), rtol=1e-6)
        assert not np.allclose(getattr(weighted, ask)(NEW), getattr(clone(model).fit(X, y), ask)(NEW), rtol=1e-3)


def test_many_points_train_in_batches_and_a_validation_split_chooses_gamma0_and_epochs():
    """The label is the sign of a product of two inputs of ten, which a network that learns features finds sooner."""
    many = np.random.default_rng(5).standard_normal((320, 10))
    labels = np.where(many[:, 0] * many[:, 1] > 0, "up", "down")
    settings = {"gamma0": (0.1, 2.0), "early_stopping": True, "activation": "erf", "particles": 64}
    model = classifier(steps="converged", max_epochs=10, **settings)
    model.fit(many, labels)
    rule = model.solution_.training
    assert isinstance(rule, kf.SGD) and rule.batch_size == 128 and rule.epochs == model.n_iter_ <= 10
    assert isinstance(model.solution_.method, kf.March) and list(model.validation_losses_) == [0.1, 2.0]
    least = {gamma0: losses.min() for gamma0, losses in model.validation_losses_.items()}
    assert model.gamma0_ == min(least, key=least.get) == 2.0
    assert model.score(many, labels) > 0.7


@pytest.mark.parametrize(
    ("points", "settings", "batch"),
    [
        (300, {}, None),
        (301, {}, 128),
        (301, {"batch_size": None}, None),
        (301, {"batch_size": 300}, None),  # more than train beside a validation split
        (301, {"gamma0": 0.0}, None),
        (1001, {"gamma0": 0.0}, 128),
        (301, {"gamma0": 0.0, "steps": 5}, 128),  # a step is an epoch, as for any gamma0
        (301, {"gamma0": 0.0, "batch_size": 64}, 64),
    ],
)
def test_the_number_of_points_chooses_the_batch(points, settings, batch):
    model = regressor(**{"steps": "converged", "activation": "erf", **settings})
    training = Trainer(model, kf.Problem(np.ones((points, 1)), np.ones(points)), 0)
    training.start_with(model.gamma0)
    assert training.batch == batch and training.unit == ("epoch" if batch else "step")
    assert training.most == {"converged": 20 if batch else 800, 5: 5}[model.steps]


def test_some_of_very_many_points_choose_gamma0_and_all_choose_the_epochs(monkeypatch):
    monkeypatch.setattr(trainer, "SOME", 20)
    settings = {"steps": "converged", "batch_size": 8, "max_epochs": 6, "early_stopping": True, "activation": "linear"}
    model = regressor(gamma0=(0.5, 1.0), **settings).fit(X, Y)
    assert list(model.validation_losses_) == [0.5, 1.0] and model.gamma0_ in (0.5, 1.0)
    alone = regressor(gamma0=model.gamma0_, **settings).fit(X, Y)  # all choose the epochs
    assert model.n_iter_ == alone.n_iter_ and model.solution_.problem.points == 24
    np.testing.assert_array_equal(model.predict(NEW), alone.predict(NEW))


def test_auto_chooses_from_lazy_to_rich():
    model = regressor(gamma0="auto", activation="erf", steps=10).fit(X, Y)
    assert list(model.validation_losses_) == [0.0, 0.3, 1.0, 3.0] and model.gamma0_ in model.validation_losses_


def test_one_bar_counts_all_runs_and_never_goes_back():
    reports = []
    next_part = in_parts(lambda done, total: reports.append((done, total)), 3)
    for fractions in ([0.2, 0.5], [0.1, 1.0], [0.3, 1.0], [1.0]):  # one more run than was foreseen
        report = next_part()
        for fraction in fractions:
            report(fraction, 1)
    done, total = zip(*reports, strict=True)
    assert list(done) == sorted(done) and set(total) == {3000} and done[-1] == 3000


def test_constant_inputs_and_targets_have_constant_predictions():
    for gamma0 in (0.0, 1.0):
        flat = regressor(gamma0=gamma0, activation="erf").fit(np.ones((8, 2)), Y[:8])
        assert np.ptp(flat.predict(np.ones((3, 2)))) < 1e-12
        sure = regressor(gamma0=gamma0, activation="erf", steps="converged").fit(X, np.full(24, 0.1))
        assert sure.n_iter_ == 1 and set(sure.predict(NEW)) == {0.1}


def use_no_arrays():
    """Arrays that are no inputs of a fit, each with a word of the sentence that refuses it."""
    masked, objects = np.ma.masked_equal(np.round(X), 1), np.array([["a", None]] * 24, dtype=object)
    return {
        "masked": (masked, Y, "X must not be masked: fill in"),
        "texts as targets": (X, CLASSES, "y must hold real numbers, got <U1: InfiniteWidthClassifier takes labels"),
        "masked targets": (X, np.ma.masked_greater(Y, 1), "y must not be masked"),
        "complex": (X + 1j, Y, "Complex data not supported"),
        "objects": (objects, Y, "could not convert string|must be a string or a real number"),
        "infinite": (np.where(X > 1, np.inf, X), Y, "infinity"),
        "no rows": (X[:0], Y[:0], "0 sample"),
        "no columns": (X[:, :0], Y, "0 feature"),
        "one row": (X[:1], Y[:1], "minimum of 2 is required"),
        "one dimension": (X[:, 0], Y, "Expected 2D array"),
        "fewer targets": (X, Y[:5], "inconsistent numbers of samples"),
    }


@pytest.mark.parametrize("name", use_no_arrays())
def test_arrays_that_are_no_inputs_are_refused(name):
    inputs, targets, message = use_no_arrays()[name]
    with pytest.raises(ValueError, match=message):
        regressor(gamma0=0.0, activation="erf").fit(inputs, targets)


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, -1e10, 1e-8, np.nan, np.inf, 3.0, 2.5])


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(
    points=st.sampled_from([0, 1, 2, 6, 6]),
    dimensions=st.sampled_from([0, 1, 3, 3]),
    seed=st.integers(0, 2**31),
    odd=st.one_of(st.just([]), st.lists(NUMBERS, max_size=3)),
    kind=st.sampled_from([float, float, float, np.float32, int, bool, complex, object]),
    targets=st.sampled_from(["fitting", "fitting", "numbers", "signs", "labels", "constant", "odd"]),
    what=st.sampled_from(["March", "StaticNTK", "FiniteWidth", "regressor", "classifier"]),
    loss=st.sampled_from(["mse", "logistic", "cross_entropy"]),
)
def test_any_arrays_are_learned_or_refused_in_a_sentence(points, dimensions, seed, odd, kind, targets, what, loss):
    """All that may be raised is a ValueError of one sentence, or a SolveError that says what to try."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((points, dimensions)).round(2)
    if targets == "fitting":
        needs = {"regressor": "numbers", "classifier": "labels", "mse": "numbers", "logistic": "signs"}
        targets = needs.get(what) or needs.get(loss, "labels")
    y = {
        "numbers": rng.standard_normal(points),
        "signs": rng.choice([-1.0, 1.0], points),
        "labels": rng.choice(["a", "b"], points),
        "constant": np.full(points, 0.1),
        "odd": np.resize([*odd, 1.0], points),
    }[targets]
    for number in odd[: inputs.size]:
        inputs.flat[rng.integers(inputs.size)] = number
    methods = {
        "March": kf.March(particles=16, replicates=1, kernels="none"),
        "StaticNTK": kf.StaticNTK(),
        "FiniteWidth": kf.FiniteWidth(width=4, seeds=1, kernels="none"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = inputs.astype(kind)
        try:
            if what in methods:
                problem, rule = kf.Problem(inputs, y, loss=loss), kf.GradientDescent(learning_rate=0.1, steps=2)
                found = kf.solve(kf.MLP(depth=1, activation="erf"), problem, rule, methods[what], progress=False)
                outputs = found.predictions
            else:
                model = (regressor if what == "regressor" else classifier)(gamma0=0.0, steps=2, activation="erf")
                fitted = model.fit(inputs, y)
                outputs = fitted.predict(inputs) if what == "regressor" else fitted.decision_function(inputs)
            assert np.isfinite(outputs).all()
        except (ValueError, kf.SolveError) as error:
            assert 10 < len(str(error).splitlines()[0]) < 400  # scikit-learn adds advice in further lines
