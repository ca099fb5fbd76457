"""The labelled Dataset. Oracle: the public methods of the Solution it was made from."""

from dataclasses import replace

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.files.labelled import LazyKernel
from solutions import without

EVERY = slice(None)


@pytest.fixture(scope="module")
def data(small_solution):
    return small_solution.to_xarray()


def test_everything_is_named(data):
    assert data.Phi.dims == ("replicate", "layer", "time", "sample", "time_prime", "sample_prime")
    assert dict(data.sizes) == {
        "replicate": 2, "layer": 2, "time": 6, "sample": 4, "time_prime": 6, "sample_prime": 4, "dimension": 6,
        "recorded_step": 2, "neuron": 128,
    }  # fmt: skip
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in data.variables.values())
    assert data.layer.values.tolist() == [1, 2] and data.recorded_step.values.tolist() == [0, 5]
    assert data.attrs["status"] == "ok" and "format" not in data.attrs


def test_values_are_those_of_the_solution(data, small_solution):
    for layer in (1, 2):
        mean = data.sel(layer=layer).mean("replicate")
        np.testing.assert_allclose(mean.Phi, small_solution.feature_kernel(layer, EVERY), rtol=1e-12)
        np.testing.assert_allclose(mean.G, small_solution.gradient_kernel(layer, EVERY), rtol=1e-12)
        h = data.h.sel(layer=layer, recorded_step=5).values
        np.testing.assert_array_equal(np.concatenate(list(h), axis=-1), small_solution.fields(layer)["h"])
    np.testing.assert_allclose(data.NTK.mean("replicate"), small_solution.ntk(EVERY), rtol=1e-12)
    np.testing.assert_allclose(data.predictions.mean("replicate"), small_solution.predictions)
    np.testing.assert_allclose(data.loss.mean("replicate"), small_solution.loss)
    np.testing.assert_allclose(data.K_x, small_solution.problem.input_kernel)


@pytest.mark.parametrize(
    "chosen",
    [
        {"sample": [3, 0, 0], "sample_prime": 1, "time": slice(1, 5, 2), "time_prime": -1},
        {"replicate": 1, "sample": 2, "time": [5], "time_prime": slice(None, None, -1)},
        {"time": 0, "time_prime": 0, "sample": 0, "sample_prime": 0, "replicate": 0},
        {"sample": [], "time": [2, 2]},
    ],
)
def test_a_selection_is_that_of_the_whole(data, chosen):
    whole = {name: data[name].copy(deep=True).load() for name in ("Phi", "NTK")}
    for name, values in whole.items():
        np.testing.assert_allclose(data[name].isel(chosen), values.isel(chosen), rtol=1e-12)


def test_only_what_is_chosen_is_computed(small_solution, monkeypatch):
    asked = []
    outer = LazyKernel._outer
    monkeypatch.setattr(LazyKernel, "_outer", lambda self, key: asked.append(outer(self, key)) or asked[-1])
    data = small_solution.to_xarray()
    assert not asked and "Phi" in repr(data) and not asked
    chosen = data.Phi.sel(layer=2).isel(time=-1, time_prime=-1, replicate=0)
    assert not asked
    chosen.load()
    assert [each.size for each in asked] == [16]


def test_what_was_not_tracked_is_left_out(small_solution):
    features = replace(without(small_solution, "G"), field_samples={}).to_xarray()
    assert "Phi" in features and not {"G", "NTK", "h", "recorded_step"} & set(features.variables)
    bare = without(small_solution, "Phi", "G").to_xarray()
    assert not {"Phi", "G", "NTK"} & set(bare.variables)


def test_power_series_and_static_kernels_are_expanded():
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 0.5]), kf.GradientDescent(learning_rate=0.2, steps=4)
    for method in (kf.Perturbation(), kf.StaticNTK()):
        solution = kf.solve(kf.MLP(depth=2, activation="linear"), problem, training, method, progress=False)
        data = solution.to_xarray().isel(replicate=0)
        np.testing.assert_allclose(data.NTK, solution.ntk(EVERY), atol=1e-14)
        np.testing.assert_allclose(data.G.sel(layer=1), solution.gradient_kernel(1, EVERY), atol=1e-14)


def test_kernels_between_outputs_have_named_outputs(several_outputs):
    data, shape = several_outputs.to_xarray(), (4, 5, 3, 4, 5, 3)
    assert data.y.dims == ("sample", "output") and data.predictions.dims == ("replicate", "time", "sample", "output")
    assert data.G.dims[2:] == ("time", "sample", "output", "time_prime", "sample_prime", "output_prime")
    assert data.Phi.shape == (2, 2, 4, 5, 4, 5) and data.G.shape == (2, 2, *shape) and data.NTK.shape == (2, *shape)
    np.testing.assert_allclose(data.NTK.mean("replicate"), several_outputs.ntk(EVERY).reshape(shape), rtol=1e-10)
    whole = several_outputs.gradient_kernel(2, EVERY).reshape(shape)
    chosen = {
        "sample": [3, 0],
        "output": 2,
        "time": -1,
        "time_prime": [1, 2],
        "sample_prime": 4,
        "output_prime": [2, 0],
    }
    found = data.G.sel(layer=2).mean("replicate").isel(chosen)
    expected = whole[-1][[3, 0], 2][:, 1:3, 4][..., [2, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.thorough
def test_recorded_kernels_between_outputs_have_named_outputs():
    problem = kf.Problem(np.eye(3), [0, 1, 1], loss="cross_entropy")
    method, training = kf.FiniteWidth(width=8, kernels="per_output"), kf.GradientDescent(learning_rate=0.1, steps=2)
    solution = kf.solve(kf.MLP(depth=1, bias_scale=0.1), problem, training, method, progress=False)
    data = solution.to_xarray()
    assert data.NTK.dims == ("replicate", "time", "sample", "output", "sample_prime", "output_prime")
    np.testing.assert_allclose(data.NTK.isel(time=1).mean("replicate"), solution.ntk(1).reshape(3, 2, 3, 2))


def test_kernels_of_some_steps_have_times_of_their_own(small_problem):
    training, method = kf.GradientDescent(learning_rate=0.2, steps=4), kf.March(particles=64, replicates=2)
    solution = kf.solve(kf.MLP(depth=1), small_problem, training, method, save_at=[1, -1], progress=False)
    data = solution.to_xarray()
    assert data.Phi.dims == ("replicate", "layer", "kernel_time", "sample", "kernel_time_prime", "sample_prime")
    np.testing.assert_allclose(data.kernel_time, solution.times[[1, 4]])
    found = data.Phi.sel(layer=1).isel(kernel_time=1, kernel_time_prime=0).mean("replicate")
    np.testing.assert_allclose(found, solution.feature_kernel(1, 4, 1))
