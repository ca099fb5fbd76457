"""Factors as few modes in time. Oracle: the factors themselves."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield import observables
from kernelfield.march.particle_run import TIME_TOL
from kernelfield.observables.compare import compare
from kernelfield.solution.factors import TimeModes, at_times, restricted, slim
from solutions import changed, factors

EVERY = slice(None)


def smooth(times=60):
    """A factor (2, T, 4, 3) that moves along two directions, one of them faintly."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, times)[None, :, None, None]
    one, two, three = rng.standard_normal((3, 2, 1, 4, 3))
    return one + t * two + 1e-4 * t**2 * three


def test_modes_are_as_few_as_the_tolerance_allows():
    factor = smooth()
    for left_out, count in ((1e-4, 2), (1e-12, 3)):
        found = slim(factor, left_out, large=0)
        assert isinstance(found, TimeModes) and found.modes.shape == (2, count, 4, 3) and found.shape == factor.shape
        lost = np.sum((np.asarray(found) - factor) ** 2, axis=(2, 3)) / np.sum(factor**2, axis=(2, 3))
        assert lost.max() <= left_out
    assert np.abs(np.asarray(slim(factor, 1e-12, large=0)) - factor).max() < 1e-6


def test_small_factors_and_those_that_jump_stay_as_they_are():
    factor = smooth()
    assert slim(factor, 1e-4) is factor
    noise = np.random.default_rng(1).standard_normal((1, 20, 30, 4))
    assert slim(noise, 1e-6, large=0) is noise


@pytest.mark.parametrize("times", [np.array(3), np.array([5, 5, 0]), np.arange(0)])
def test_some_times_samples_and_replicates_are_those_of_the_whole(times):
    factor, found = smooth(), slim(smooth(), 1e-14, large=0)
    np.testing.assert_allclose(at_times(found, times), factor[:, times], atol=1e-7)
    some = restricted(found, np.array([2, 0]), np.array([1]))
    np.testing.assert_allclose(np.asarray(some), factor[[1]][:, :, [2, 0]], atol=1e-7)
    assert at_times(factor[:, :1], times).shape == (2, *times.shape, 4, 3)  # what does not depend on time


@pytest.fixture(scope="module")
def both():
    """A solution, and the same one with factors as modes."""
    rng = np.random.default_rng(0)
    problem = kf.Problem(rng.standard_normal((4, 6)), [1.0, -1.0, 1.0, -1.0])
    network, training = kf.MLP(depth=2, activation="tanh"), kf.GradientDescent(learning_rate=0.2, steps=80)
    whole = kf.solve(network, problem, training, kf.March(particles=256, replicates=2), progress=False)
    return whole, changed(whole, lambda factor: slim(factor, TIME_TOL, large=0) if factor.shape[1] > 1 else factor)


@pytest.mark.thorough
def test_kernels_of_modes_are_those_of_the_run_within_the_tolerance(both):
    whole, modes = both
    assert isinstance(modes.kernel("Phi", 2).factor, TimeModes) and isinstance(modes.kernel("G", 1).factor, TimeModes)
    for name, *layer in (("feature_kernel", 1), ("feature_kernel", 2), ("gradient_kernel", 1), ("ntk",)):
        found, truth = (each.estimate(name, *layer, t=EVERY).replicates for each in (modes, whole))
        assert 0 < np.linalg.norm(found - truth) < 1e-3 * np.linalg.norm(truth)
        assert np.linalg.norm((found - truth).mean(axis=0)) < np.linalg.norm(whole.estimate(name, *layer, t=EVERY).se)
    np.testing.assert_allclose(
        observables.kernel_movement(modes, "NTK").mean, observables.kernel_movement(whole, "NTK").mean, atol=1e-3
    )
    assert compare(modes, whole).row("G", 1).error < 1e-3
    data = modes.to_xarray()
    np.testing.assert_allclose(data.G.sel(layer=1).mean("replicate"), modes.gradient_kernel(1, EVERY), rtol=1e-10)


def test_a_file_gives_modes_back_bit_for_bit(both, tmp_path):
    _, modes = both
    modes.save(tmp_path / "modes.nc")
    again = kf.load(tmp_path / "modes.nc")
    for symbol in ("Phi", "G"):
        for found, truth in zip(factors(again, symbol), factors(modes, symbol), strict=True):
            assert type(found) is type(truth) and np.array_equal(np.asarray(found), np.asarray(truth))
    assert factors(again, "Phi")[1].modes.dtype == factors(modes, "Phi")[1].modes.dtype
    np.testing.assert_array_equal(again.ntk(), modes.ntk())


def test_long_marches_keep_modes_and_short_ones_do_not(both, monkeypatch):
    whole, modes = both
    monkeypatch.setattr("kernelfield.solution.factors.slim.__defaults__", (0,))
    found = kf.solve(whole.network, whole.problem, whole.training, whole.method, progress=False)
    assert [type(each) for each in factors(found, "Phi")] == [type(each) for each in factors(modes, "Phi")]
    np.testing.assert_array_equal(found.feature_kernel(2), modes.feature_kernel(2))
