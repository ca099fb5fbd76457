"""The width report says what the solutions show."""

import json

import numpy as np
import pytest
from report_pages import solved

import kernelfield as kf
from commands import exit_code


@pytest.fixture(scope="module")
def own():
    return solved(kf.FiniteWidth(width=64, seeds=2, kernels="features"), activation="tanh")


@pytest.fixture(scope="module")
def infinite():
    return solved(kf.March(particles=256, kernels="features"), activation="tanh")


@pytest.fixture(scope="module")
def report(own, infinite):
    return kf.width_report(own, infinite, corrections=False, progress=False)


def test_distances_are_those_of_the_solutions(report, own, infinite):
    off = own.replicate_predictions[:, -1] - infinite.predictions[-1]
    expected = np.sqrt((off**2).mean(axis=1) / (infinite.predictions[-1] ** 2).mean())
    np.testing.assert_allclose(report.distance.replicates[:, -1], expected, rtol=1e-6)
    assert report.distance.replicates[:, 0] == pytest.approx(0)
    one, other = own.kernel_estimate("Phi", 2).replicates[0], infinite.feature_kernel(2)
    assert report.kernel_distances[2].replicates[0, -1] == pytest.approx(
        np.linalg.norm(one - other) / np.linalg.norm(other), rel=1e-5
    )
    assert report.layers == [1, 2] and report.regime in ("lazy", "between lazy and rich", "rich")


def test_sentences_say_how_far_and_what_is_not_known(report):
    far, why, layers, regime, wider = report.sentences
    assert far.startswith("Each of these 2 networks of width 64 ends ") and "Their mean ends" in far
    assert why.startswith("Noise and bias to order 1/N were not asked for. The spread between the networks")
    assert layers.startswith("Feature kernels end ") and regime.startswith("Learning is ")
    assert wider == "If it is noise, a width of 256 halves the distance, and so does the mean of four networks."
    json.dumps(report.numbers, allow_nan=False)


def test_a_page_has_the_sentences_and_the_charts(report, tmp_path):
    report.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "How far is width 64 from infinite width?" in text and "Distance in feature kernels" in text
    assert all(sentence.split(" (")[0] in text for sentence in report.sentences)


def test_what_cannot_be_reported_is_said(own, infinite):
    with pytest.raises(ValueError, match="own must be of networks of finite width, got March"):
        kf.width_report(infinite, own)


@pytest.mark.thorough
def test_corrections_tell_noise_from_bias_of_the_network_that_they_are_of():
    shallow = {"activation": "tanh", "depth": 1, "steps": 2}
    own = solved(kf.FiniteWidth(width=64, seeds=2, kernels="features"), **shallow)
    infinite = solved(kf.March(particles=256, kernels="features"), **shallow)
    found = kf.finite_width_corrections(own.network, own.problem, own.training, pairs=2, networks=2)
    report = kf.width_report(own, infinite, found, progress=False)
    assert "of noise, which differs between random starts" in report.sentences[1]
    assert report.numbers["corrections"]["widths"]["0.01"] == found.width_for(0.01)
    richer = solved(kf.FiniteWidth(width=64, seeds=2, kernels="features"), **{**shallow, "rate": 0.4})
    with pytest.raises(ValueError, match="corrections must be those of the network and the training of own"):
        kf.width_report(richer, infinite, found, progress=False)


@pytest.mark.thorough
def test_the_command_writes_the_page(own, infinite, tmp_path, capsys):
    own.save(tmp_path / "own.nc")
    infinite.save(tmp_path / "infinite.nc")
    files = [str(tmp_path / name) for name in ("own.nc", "infinite.nc", "page.html")]
    assert exit_code("width-report", files[0], "--infinite", files[1], "--no-corrections", "-o", files[2]) == 0
    assert f"wrote {files[2]}" in capsys.readouterr().out
