"""Arrays of any framework become a Solution, the same as of networks that this library trains."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.recording import Recording

PROBLEM = kf.Problem(np.random.default_rng(3).standard_normal((4, 5)), [1.0, -1.0, 1.0, -1.0])
RUN = (kf.MLP(depth=2), PROBLEM, kf.GradientDescent(learning_rate=0.2, steps=3))


@pytest.fixture(scope="module")
def trained():
    method = kf.FiniteWidth(width=8, seeds=2, kernels="features")
    return kf.solve(*RUN, method, progress=False)


def record(trained, seed, features=True):
    """A recording of what a network made: factors of its kernels stand for its features."""
    recording = Recording(width=8)
    for step in range(4):
        fields = [trained.kernels["Phi", layer].at(np.array(step))[seed] for layer in (1, 2)]
        fields = [np.pad(F, ((0, 0), (0, 8 - F.shape[1]))) * np.sqrt(8) if F.shape[1] < 8 else F * np.sqrt(F.shape[1])
                  for F in fields]  # fmt: skip
        recording.add(step, trained.replicate_predictions[seed, step] + 5, fields if features else None)
    return recording


def test_recordings_are_the_solution_of_the_networks(trained):
    """Oracle: the solution of the same networks by FiniteWidth."""
    own = Recording.join([record(trained, seed) for seed in (0, 1)], trained.run)
    np.testing.assert_allclose(own.replicate_predictions, trained.replicate_predictions, atol=1e-6)
    for layer in (1, 2):
        np.testing.assert_allclose(
            own.feature_kernel(layer, -1), trained.feature_kernel(layer, -1), rtol=1e-4, atol=1e-6
        )
    assert own.method == kf.FiniteWidth(width=8, seeds=2, kernels="features") and own.info["recorded"]
    assert kf.compare(own, trained).row("Phi", 2).error < 1e-4


def test_a_recording_may_be_saved_and_may_lack_kernels(trained, tmp_path):
    own = record(trained, 0, features=False).solution(trained.run)
    assert not own.keeps("Phi")
    own.save(tmp_path / "own.nc")
    np.testing.assert_array_equal(kf.load(tmp_path / "own.nc").predictions, own.predictions)


def test_what_is_wrong_is_said(trained):
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        Recording(width=0)
    recording = Recording(width=8)
    for wrong, message in (
        ((1, np.zeros(4)), "steps must follow each other from 0 on: 0 comes next, got 1"),
        ((0, np.full(4, np.nan)), "predictions of step 0 are not finite: training diverged"),
        ((0, np.zeros(4), [np.zeros(4)]), r"features must be arrays \(P, ..., neurons\) of 4 points, got"),
        ((0, np.zeros(4), [np.full((4, 2), np.inf)]), "features are not finite"),
        ((0, np.zeros(4), None, [np.zeros((4, 2))]), "gradients are kept at steps with features: give both"),
    ):
        with pytest.raises(ValueError, match=message):
            recording.add(*wrong)
    with pytest.raises(ValueError, match="got no steps"):
        recording.solution(trained.run)
    recording.add(0, np.zeros(4), [np.zeros((4, 8))])
    with pytest.raises(ValueError, match=r"predictions must be shaped as before, \(4, 1\), got"):
        recording.add(1, np.zeros(3))
    with pytest.raises(ValueError, match="features must be shaped as before"):
        recording.add(1, np.zeros(4), [np.zeros((4, 7))])
    with pytest.raises(ValueError, match="features must be those of 2 hidden layers"):
        recording.solution(trained.run)
    with pytest.raises(ValueError, match="recordings must be one or more"):
        Recording.join([], trained.run)
    with pytest.raises(ValueError, match="recordings must be of one width"):
        Recording.join([recording, Recording(width=9)], trained.run)
    longer = Recording(width=8)
    for step in range(5):
        longer.add(step, np.zeros(4))
    with pytest.raises(ValueError, match="the run has 3 steps, recorded were 4"):
        longer.solution(trained.run)
