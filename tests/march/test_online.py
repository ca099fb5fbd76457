"""One pass over a stream of fresh points."""

import numpy as np
import pytest

import kernelfield as kf
from ensembles import check_approach
from kernelfield.files import config
from kernelfield.report import reproduce

X, STREAM = np.split(np.random.default_rng(6).standard_normal((44, 5)), [4])
TARGETS = [1.0, -0.5, 0.8, -1.2]


def target(X):
    return np.tanh(X[:, 0] + X[:, 1]) + 0.3 * X[:, 2]


PROBLEM = kf.Problem(X, target(X), stream=(STREAM, target(STREAM)))
RULE = kf.OnlineSGD(learning_rate=0.3, batch_size=5, steps=4, every=2)
LINEAR, FINITE = kf.MLP(depth=2, activation="linear"), kf.FiniteWidth(width=16, seeds=3, kernels="features")


def solved(network, problem=PROBLEM, rule=RULE, method=None):
    return kf.solve(network, problem, rule, method or kf.March(particles=1024), progress=False)


@pytest.fixture(scope="module")
def plain():
    """The linear network on the stream."""
    return solved(LINEAR)


def test_updates_take_the_stream_in_order_each_point_once():
    batches = RULE.batches(PROBLEM)
    assert batches.rows.shape == (8, 5) and batches.rows.ravel().tolist() == list(range(40))
    assert (batches.weights == 0.2).all() and RULE.times(PROBLEM) == pytest.approx([0, 0.6, 1.2, 1.8, 2.4])


@pytest.mark.thorough
def test_two_cubatures_agree():
    settings = {"momentum": 0.6, "weight_decay": 0.2, "schedule": "cosine"}
    rule = kf.OnlineSGD(learning_rate=0.1, batch_size=4, steps=5, every=2, **settings)
    one, other = (solved(LINEAR, rule=rule, method=kf.March(seed=seed)) for seed in (0, 1))
    assert one.exact and one.predictions.shape == (6, 4)
    np.testing.assert_allclose(one.predictions, other.predictions, atol=1e-10)
    np.testing.assert_allclose(one.feature_kernel(2), other.feature_kernel(2), atol=1e-10)


@pytest.mark.thorough
def test_a_stream_of_the_batches_of_an_epoch_is_that_epoch(method=FINITE):
    """The two know nothing of each other's points but what they have in common."""
    known = kf.Problem(STREAM[:12], target(STREAM[:12]))
    epochs = kf.SGD(learning_rate=0.3, batch_size=4, epochs=3, momentum=0.5)
    order = epochs.batches(known).rows.ravel()
    stream = known.X[order], known.y[order]
    online = kf.OnlineSGD(learning_rate=0.3, batch_size=4, steps=3, every=3, momentum=0.5)
    expected = solved(LINEAR, known, epochs, method)
    found = solved(LINEAR, kf.Problem(known.X, known.y, stream=stream), online, method)
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-4)
    np.testing.assert_allclose(found.feature_kernel(2), expected.feature_kernel(2), atol=1e-4)


LABELS = {"loss": "cross_entropy", "stream": (STREAM, np.digitize(STREAM[:, 0], [-0.4, 0.4]))}
ENSEMBLES = {
    "classes": (kf.MLP(depth=2), kf.Problem(X, [0, 1, 2, 1], **LABELS)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ENSEMBLES)
def test_networks_of_growing_width_on_the_same_stream_approach_the_march(name):
    network, problem = ENSEMBLES[name]
    check_approach(
        solved(network, problem), lambda method: solved(network, problem, method=method), [network.hidden_layers]
    )


def test_what_comes_later_in_the_stream_changes_nothing_before(plain):
    changed = np.where(np.arange(40) < 20, target(STREAM), 7.0)
    other = solved(LINEAR, kf.Problem(X, target(X), stream=(STREAM, changed)))
    np.testing.assert_allclose(plain.predictions[:3], other.predictions[:3], atol=1e-12)
    assert np.abs(plain.predictions[3:] - other.predictions[3:]).min() > 1e-3


def test_classes_of_both_are_counted():
    problem = kf.Problem(X, [0, 1, 0, 1], loss="cross_entropy", stream=(STREAM, np.arange(40) % 3))
    assert problem.y.shape == (4, 3) and problem.stream.y.shape == (40, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.Problem(X, TARGETS, stream=3), r"stream must be a pair \(X, y\), got int"),
        (lambda: kf.Problem(X, TARGETS, stream=(STREAM[:, :3], np.ones(40))), r"X of the stream must be shaped as X"),
        (lambda: kf.Problem(X, TARGETS, stream=(STREAM, np.ones((40, 2)))), r"y of the stream must be shaped as y"),
        (
            lambda: kf.Problem(X, TARGETS, stream=(STREAM, np.ones(3))),
            "of the stream must have the same length, got 40 and 3",
        ),
        (
            lambda: solved(LINEAR, rule=kf.OnlineSGD(learning_rate=0.1, batch_size=5, steps=9)),
            r"the stream must have at least steps \* every \* batch_size = 45 points, got 40",
        ),
        (
            lambda: solved(LINEAR, rule=kf.GradientDescent(learning_rate=0.1, steps=9)),
            "OnlineSGD trains on the stream of a Problem, and no other rule does",
        ),
        (lambda: solved(LINEAR, kf.Problem(X, TARGETS)), r"no other rule does: give it Problem\(X, y, stream="),
        (lambda: solved(LINEAR, method=kf.StaticNTK()), "StaticNTK solves GradientDescent.*, not OnlineSGD"),
        (
            lambda: solved(LINEAR, rule=RULE.model_copy(update={"weight_decay": 0.1})).fixed_point(),
            "needs the same points in every update, not a stream",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_solutions_of_other_streams_are_not_compared(plain):
    other = solved(LINEAR, kf.Problem(X, target(X), stream=(STREAM[::-1], target(STREAM)[::-1])))
    with pytest.raises(ValueError, match="stream must be the same in both solutions"):
        kf.compare(plain, other)


def test_a_stream_is_stored_and_looked_at_on_some_points(plain, tmp_path):
    solution = plain
    solution.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    for each in (back.problem, solution.restricted([1, 2]).problem):
        np.testing.assert_array_equal(each.stream.X, STREAM)
        np.testing.assert_array_equal(each.stream.y, target(STREAM))
    assert back.training == RULE and solution.restricted([1, 2]).predictions.shape == (5, 2)
    np.testing.assert_array_equal(back.predictions, solution.predictions)


def test_a_configuration_file_has_a_stream(plain, tmp_path):
    np.savez(tmp_path / "data.npz", X=X, y=target(X))
    np.savez(tmp_path / "stream.npz", X=STREAM, y=target(STREAM))
    source = reproduce.find_source(PROBLEM)
    described = config.Config(source.data, LINEAR, RULE, {}, stream=source.stream)
    (tmp_path / "run.toml").write_text(described.to_toml())
    read = config.read(tmp_path / "run.toml")
    np.testing.assert_array_equal(solved(read.network, read.problem(), read.training).predictions, plain.predictions)
    with pytest.raises(ValueError, match=r"\[stream\] source must be one of"):
        config.parse(described.to_toml().replace('[stream]\nsource = "table"', '[stream]\nsource = "tabel"'))
    (tmp_path / "stream.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"\[stream\] .*stream\.npz does not exist"):
        read.problem()
