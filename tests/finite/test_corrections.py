"""The coefficients of 1 / N: against ensembles of explicit networks, closed forms, and what they must add up to."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.finite import corrections
from kernelfield.finite.corrections import finite_width_corrections
from kernelfield.solution.estimate import Estimate

TRAINING = kf.GradientDescent(learning_rate=0.6, steps=5)


def problem(points=4, **more):
    X = np.random.default_rng(1).standard_normal((points, 8))
    return kf.Problem(X, np.where(np.arange(points) % 2, 1.0, -1.0), **more)


def alignments(solution, symbol, layer):
    y = solution.problem.y
    return y @ solution.kernel_estimate(symbol, layer).replicates @ y / (y @ y)


@pytest.fixture(scope="module")
def tanh():
    return finite_width_corrections(kf.MLP(depth=1, activation="tanh"), problem(), TRAINING, pairs=8, networks=2)


@pytest.mark.thorough
def test_they_are_those_of_explicit_ensembles():
    network, data = kf.MLP(depth=2, activation="tanh"), problem()
    found = finite_width_corrections(network, data, TRAINING, pairs=24, networks=2)
    method = kf.FiniteWidth(width=64, seeds=384, algorithm="explicit")
    networks = kf.solve(network, data, TRAINING, method, save_at=(-1,), fields_at=())
    f, limit = networks.replicate_predictions[:, -1], found.predictions
    np.testing.assert_allclose(found.covariance.mean, 64 * np.cov(f.T), atol=0.2 * np.trace(found.covariance.mean))
    assert limit.variance.mean.mean() == pytest.approx(64 * f.var(axis=0).mean(), rel=0.15)
    error = np.hypot(limit.bias.se, 64 * np.hypot(f.std(axis=0) / np.sqrt(len(f)), limit.infinite.se))
    z = (64 * (f.mean(axis=0) - limit.infinite.mean) - limit.bias.mean) / error
    assert np.sqrt(np.mean(z**2)) < 2
    for symbol, layer in (("Phi", 1), ("Phi", 2), ("G", 1), ("NTK", None)):
        kernel = found.kernels[symbol if layer is None else f"{symbol} {layer}"]
        assert kernel.variance.mean == pytest.approx(64 * alignments(networks, symbol, layer).var(), rel=0.35)


def test_influences_and_networks_find_the_same_variances(tanh, monkeypatch):
    assert tanh.found_by == "coupled networks and influences"
    monkeypatch.setattr(corrections, "MOST_REVERSED", 0)
    other = finite_width_corrections(tanh.run.network, problem(), TRAINING, pairs=96, networks=2)
    assert other.found_by == "coupled networks"
    for one, two in ((tanh.predictions, other.predictions), (tanh.kernels["NTK"], other.kernels["NTK"])):
        a, b = (
            Estimate(each.variance.replicates.reshape(len(each.variance.replicates), -1).mean(1)) for each in (one, two)
        )
        assert abs(a.mean - b.mean) < 3.5 * np.hypot(a.se, b.se) and b.se < 0.2 * b.mean


@pytest.mark.thorough
def test_one_linear_layer_has_variances_in_closed_form():
    """After one step f = eta K_ntk y of the network: its variance over networks is that of the tangent kernel."""
    data, training = problem(points=2), kf.GradientDescent(learning_rate=0.1, steps=1)
    found = finite_width_corrections(
        kf.MLP(depth=1, activation="linear", gamma0=1e-3), data, training, pairs=128, networks=2
    )
    K = data.input_kernel
    y = data.y / 2
    # tangent kernel (w . w / N + Phi) with <w w> of variance 2 / N and Phi = K <u u>: Wishart of one degree a neuron
    expected = 0.1**2 * ((K @ y) ** 2 * 2 + ((K @ y) ** 2 + np.diag(K) * (y @ K @ y)))
    np.testing.assert_allclose(found.predictions.variance.mean, expected, rtol=0.25)


@pytest.mark.thorough
def test_ensembles_find_the_same_of_many_points_and_other_rules(tanh, monkeypatch):
    monkeypatch.setattr(corrections, "MOST_ROWS", 3)
    other = finite_width_corrections(tanh.run.network, problem(), TRAINING, pairs=32)
    assert other.found_by == "ensembles"
    assert other.predictions.variance.mean.mean() == pytest.approx(tanh.predictions.variance.mean.mean(), rel=0.2)
    error = np.hypot(other.predictions.bias.se, tanh.predictions.bias.se)
    assert np.abs(other.predictions.bias.mean - tanh.predictions.bias.mean).max() < 4 * error.max()
    batches = kf.SGD(learning_rate=0.3, epochs=5, batch_size=2)
    assert finite_width_corrections(tanh.run.network, problem(), batches, pairs=4).distance(1000).noise > 0


def test_losses_distances_and_widths_fit_together(tanh):
    near, far = tanh.distance(1000), tanh.distance(250)
    assert far.noise == pytest.approx(2 * near.noise) and far.bias == pytest.approx(4 * near.bias)
    assert tanh.distance(250, networks=4).noise == pytest.approx(near.noise)
    width = tanh.width_for(0.01)
    assert tanh.distance(width).total <= 0.01 < tanh.distance(width - 1).total
    limit, wide = tanh.loss(), tanh.loss(10**9)
    assert wide.mean == pytest.approx(limit.mean, rel=1e-5) and limit.mean == pytest.approx(
        float(tanh.run.problem.loss.measured(tanh.predictions.infinite.mean, tanh.run.problem.y).mean()), rel=0.01
    )
    assert tanh.loss(100).mean != tanh.loss(100, networks=8).mean
    assert np.isfinite(tanh.loss(100, rows=[0, 2]).mean)


def test_what_it_says_is_in_words_and_for_scripts(tanh):
    text, record = tanh.summary(512), tanh.record(512)
    assert "A network of width 512 is off by" in text and "(noise)" in text and "(bias)" in text
    assert record["widths"]["0.01"] == tanh.width_for(0.01) and record["coefficients"]["NTK"]["variance"]["value"] > 0
    assert tanh.table(512).row_count == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": 1}, "pairs and networks must be at least 2"),
    ],
)
def test_what_it_does_not_take_is_said(change, message):
    asked = {"network": kf.MLP(depth=1), "problem": problem(), "training": TRAINING} | change
    with pytest.raises(ValueError, match=message):
        finite_width_corrections(asked.pop("network"), asked.pop("problem"), asked.pop("training"), **asked)


def test_a_distance_must_be_positive(tanh):
    with pytest.raises(ValueError, match="distance must be above 0"):
        tanh.width_for(0.0)
