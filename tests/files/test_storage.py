"""A stored Solution comes back bit for bit, or one sentence says why not."""

import dataclasses
import errno
import json
import os

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import kernelfield as kf
from kernelfield.files.dataset import from_dataset, settings_json, to_dataset
from solutions import with_parts
from suites import thorough


def same_array(first, second):
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def assert_same(first, second):
    for name in ("network", "training", "method", "status", "exact"):
        assert getattr(first, name) == getattr(second, name), name
    assert json.dumps(dict(first.info)) == json.dumps(dict(second.info))
    assert same_array(first.problem.X, second.problem.X)
    assert same_array(first.problem.y, second.problem.y)
    assert same_array(first.problem.weights, second.problem.weights)
    assert same_array(first.replicate_predictions, second.replicate_predictions)
    assert first.kernels.keys() == second.kernels.keys()
    for key, kernel in first.kernels.items():
        other = second.kernels[key]
        assert (kernel.outputs, kernel.steps, kernel.exact) == (other.outputs, other.steps, other.exact)
        parts = [[getattr(each, name, None) for name in ("factor", "values", "weights")] for each in (kernel, other)]
        assert all(a is b is None or same_array(a, b) for a, b in zip(*parts, strict=True)), key
    assert first.field_samples.keys() == second.field_samples.keys()
    for key, samples in first.field_samples.items():
        assert samples.keys() == second.field_samples[key].keys()
        assert all(same_array(samples[name], second.field_samples[key][name]) for name in samples)


def test_a_march_comes_back_bit_for_bit(small_solution, tmp_path):
    small_solution.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    assert_same(small_solution, back)
    assert np.array_equal(back.ntk(-1), small_solution.ntk(-1))
    assert np.array_equal(back.fields(2)["g"], small_solution.fields(2)["g"])


@pytest.mark.parametrize("kernels", ["all", "none"])
def test_finite_networks_come_back_bit_for_bit(small_problem, tmp_path, kernels):
    method = kf.FiniteWidth(width=16, seeds=3, kernels=kernels)
    training = kf.GradientDescent(learning_rate=0.1, steps=3)
    solution = kf.solve(kf.MLP(depth=1, gamma0=0.5), small_problem, training, method, progress=False)
    solution.save(tmp_path / "run.nc")
    assert_same(solution, kf.load(tmp_path / "run.nc"))


def test_an_exact_solution_comes_back_exact(small_problem, tmp_path):
    network = kf.MLP(depth=1, activation="linear")
    training = kf.GradientDescent(learning_rate=0.1, steps=3)
    solution = kf.solve(network, small_problem, training, progress=False)
    solution.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    assert_same(solution, back)
    assert back.exact and np.all(back.loss_se == 0)


def test_a_failed_run_keeps_its_status(small_solution, tmp_path):
    failed = dataclasses.replace(small_solution, status=kf.Status("diverged", "é: try less"), field_samples={})
    failed.save(tmp_path / "run.nc")
    assert kf.load(tmp_path / "run.nc").status == failed.status


def test_nan_and_infinity_survive(small_solution, tmp_path):
    values = small_solution.replicate_predictions.copy()
    values[0, -1] = [np.nan, np.inf, -np.inf, -0.0]
    odd = dataclasses.replace(
        small_solution, replicate_predictions=values, info={"a": np.float64(0.1), "b": float("nan")}
    )
    odd.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    assert same_array(back.replicate_predictions, values)
    assert back.info["a"] == 0.1 and np.isnan(back.info["b"])


def test_any_netcdf_reader_finds_names_units_and_settings(small_solution, tmp_path):
    small_solution.save(tmp_path / "run.nc")
    with xarray.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as data:
        assert data["predictions"].dims == ("replicate", "time", "sample")
        assert data["Phi_factor_2"].dims == ("replicate", "time", "sample", "feature_rank_2")
        assert data["Phi_factor_0"].dims == ("any_replicate", "any_time", "sample", "feature_rank_0")
        assert all({"units", "long_name"} <= data[name].attrs.keys() for name in data.variables)
        network = {"class": "MLP", "depth": 2, "activation": "tanh", "gamma0": 1.0, "widths": None}
        assert json.loads(data.attrs["settings"])["network"].items() >= network.items()
        assert data.attrs["loss"] == "mse"
        assert data.attrs["jax_version"] and data.attrs["seed"] == 0
        factor = data["Phi_factor_2"]
        kernel = xarray.dot(factor, factor.rename(sample="sample_prime"), dim="feature_rank_2")
        assert np.allclose(kernel.isel(time=-1).mean("replicate"), small_solution.feature_kernel(2), rtol=1e-5)


def test_datasets_and_solutions_are_inverse(small_solution):
    assert_same(small_solution, from_dataset(to_dataset(small_solution)))


def test_several_outputs_come_back_bit_for_bit(several_outputs, tmp_path):
    several_outputs.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    assert_same(several_outputs, back)
    assert back.problem.loss == several_outputs.problem.loss and back.training.schedule == "cosine"
    assert np.array_equal(back.ntk(-1), several_outputs.ntk(-1)) and np.array_equal(back.loss, several_outputs.loss)
    with xarray.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as data:
        assert data["y"].dims == ("sample", "output") and data["predictions"].dims[2:] == ("sample", "output")
        assert data["Phi_factor_2"].dims[2] == "sample" and data["G_factor_2"].dims[2] == "sample_output"
        assert data.sizes["sample_output"] == 15 and data["step"].attrs["long_name"].startswith("number of epochs")


def test_options_of_network_and_training_come_back(small_problem, tmp_path):
    problem = kf.Problem(small_problem.X, small_problem.y, loss="hinge")
    network = kf.MLP(depth=1, bias_scale=0.1, weight_scales=[1.0, 0.5], scales_multiply="weight", widths=[2.0])
    training = kf.GradientDescent(
        learning_rate=0.1, steps=3, momentum=0.9, weight_decay=0.01, schedule=[1.0, 0.5, 1 / 3]
    )
    solution = kf.solve(network, problem, training, kf.FiniteWidth(width=8, seeds=2), progress=False)
    solution.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    assert_same(solution, back)
    assert back.problem.loss.name == "hinge" and np.array_equal(back.loss, solution.loss)
    assert ("NTK", None) in back.kernels


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_files_of_earlier_schemas_are_read(small_solution, tmp_path, schema):
    """They know no loss, and GradientDescent had mini-batches."""
    path = tmp_path / "run.nc"
    small_solution.save(path)
    settings = {"class": "GradientDescent", "learning_rate": 0.2, "steps": 5, "batch": None, "seed": 0}
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = schema
        del file.attrs["loss"]
        stored = {**json.loads(file.attrs["settings"]), "training": settings}
        stored["network"] = {"class": "MLP", "depth": 2, "activation": "tanh", "gamma0": 1.0}
        file.attrs["settings"] = json.dumps(stored)
    assert_same(small_solution, kf.load(path))
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = json.dumps({**stored, "training": {**settings, "batch": 2}})
    with pytest.raises(ValueError, match=r"trained by GradientDescent\(batch=...\), which is SGD now: solve it again"):
        kf.load(path)


def test_a_custom_loss_or_schedule_cannot_be_stored(small_solution, tmp_path):
    problem = small_solution.problem
    loss = with_parts(small_solution, problem=kf.Problem(problem.X, problem.y, loss=lambda f, y: (f - y) ** 4))
    training = kf.GradientDescent(learning_rate=0.2, steps=5, schedule=lambda t: 1.0)
    schedule = with_parts(small_solution, training=training)
    for solution, message in (
        (loss, "loss is a custom function, .* or use one of mse, logistic"),
        (schedule, "schedule is a custom function, .* or list its values"),
    ):
        with pytest.raises(ValueError, match=message):
            solution.save(tmp_path / "run.nc")
        with pytest.raises(ValueError, match=message):
            solution.to_xarray()
    assert not list(tmp_path.iterdir())


def test_a_custom_activation_cannot_be_stored(small_solution, tmp_path):
    custom = with_parts(small_solution, network=kf.MLP(depth=2, activation=lambda h: jnp.sin(h)))
    with pytest.raises(ValueError, match="activation is a custom function, which cannot be stored"):
        custom.save(tmp_path / "run.nc")
    with pytest.raises(ValueError, match="custom function"):
        settings_json(custom.network)
    assert not list(tmp_path.iterdir())


def test_info_that_json_cannot_hold_is_refused(small_solution, tmp_path):
    odd = dataclasses.replace(small_solution, info={"a": object()})
    with pytest.raises(ValueError, match="info holds a object, which cannot be stored"):
        odd.save(tmp_path / "run.nc")


def test_a_write_that_fails_leaves_the_old_file(small_solution, tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    small_solution.save(path)
    before = path.read_bytes()

    def fails(self, path, **_):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(xarray.Dataset, "to_netcdf", fails)
    with pytest.raises(OSError, match=r"run\.nc could not be written: no space left on device$"):
        small_solution.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_saving_needs_a_folder(small_solution, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing.* does not exist"):
        small_solution.save(tmp_path / "missing" / "run.nc")
    with pytest.raises(ValueError, match="is a folder"):
        small_solution.save(tmp_path)


def test_loading_names_the_file_and_what_is_wrong(small_solution, tmp_path):
    path = tmp_path / "run.nc"
    with pytest.raises(FileNotFoundError, match=r"run\.nc does not exist"):
        kf.load(path)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        kf.load(tmp_path)
    small_solution.save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"not netcdf", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run\.nc is not a NetCDF file, or is damaged"):
            kf.load(path)
    xarray.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"run\.nc was not written by kernelfield"):
        kf.load(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", 99, "has schema 99; this version reads schemas 1 to 7"),
        ("settings", "{}", "is damaged: 'network' is missing"),
        ("settings", "{", "cannot be restored"),
        ("settings", '{"network": {"class": "MLQ"}}', "'MLQ' is unknown"),
    ],
)
def test_foreign_contents_are_named(small_solution, tmp_path, name, value, message):
    path = tmp_path / "run.nc"
    small_solution.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(ValueError, match=message):
        kf.load(path)


@pytest.mark.parametrize(
    ("network", "method"),
    [
        (kf.MLP(depth=1, bias_scale=0.3), kf.March(particles=128, replicates=2)),
        thorough(kf.MLP(depth=1, activation="linear"), kf.March()),
        thorough(kf.MLP(depth=1), kf.FiniteWidth(width=8, seeds=2, kernels="none")),
        (kf.MLP(depth=1, activation="relu"), kf.StaticNTK()),
    ],
    ids=["march", "exact", "finite", "static"],
)
def test_what_predicts_is_stored_if_asked_for(small_problem, tmp_path, network, method):
    training = kf.GradientDescent(learning_rate=0.2, steps=3, momentum=0.5)
    solution = kf.solve(network, small_problem, training, method, progress=False)
    solution.save(tmp_path / "run.nc", predictor=True)
    back, new = kf.load(tmp_path / "run.nc"), np.random.default_rng(1).standard_normal((3, 6))
    assert_same(solution, back)
    for step in (0, -1):
        assert np.array_equal(back.predict(new, step).replicates, solution.predict(new, step).replicates)
    assert np.array_equal(back.ntk_between(-1, new, new).mean, solution.ntk_between(-1, new, new).mean)
    last = solution.restricted(replicates=[-1])
    last.save(tmp_path / "last.nc", predictor=True)
    assert np.array_equal(kf.load(tmp_path / "last.nc").predict(new).replicates, last.predict(new).replicates)


def test_a_file_without_what_predicts_says_so(small_solution, tmp_path):
    small_solution.save(tmp_path / "run.nc")
    back = kf.load(tmp_path / "run.nc")
    with pytest.raises(ValueError, match=r"March left no state to predict from: .* save\(\.\.\., predictor=True\)"):
        back.predict(small_solution.problem.X)
    with pytest.raises(ValueError, match="March left no state"):
        back.save(tmp_path / "again.nc", predictor=True)
    assert not (tmp_path / "again.nc").exists()


def test_settings_that_are_gone_do_not_keep_a_file_from_being_read(tmp_path):
    """Of a march with tolerances for features and gradients, whose states nobody can continue."""
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 1.0]), kf.GradientDescent(learning_rate=0.2, steps=2)
    solution = kf.solve(kf.MLP(depth=1), problem, training, kf.March(particles=64, replicates=2), progress=False)
    solution.save(tmp_path / "old.nc", predictor=True)
    with h5py.File(tmp_path / "old.nc", "r+") as file:
        settings = json.loads(file.attrs["settings"])
        settings["method"] = {"class": "March", "particles": 64, "feature_tol": 1e-5, "gradient_tol": None}
        file.attrs["settings"] = json.dumps(settings)
        file.attrs["info"] = json.dumps({"particles": 64})
    again = kf.load(tmp_path / "old.nc")
    np.testing.assert_array_equal(again.ntk(), solution.ntk())
    with pytest.raises(ValueError, match="left no state to predict from"):
        again.predict(np.eye(3))


@pytest.mark.thorough
@pytest.mark.parametrize("network", [kf.MLP(depth=2), kf.MLP(depth=1, bias_scale=0.5)])
def test_kernels_of_some_steps_come_back(tmp_path, network):
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 1.0]), kf.GradientDescent(learning_rate=0.2, steps=4)
    method = kf.March(particles=64, replicates=2)
    solution = kf.solve(network, problem, training, method, save_at=[1, -1], progress=False)
    solution.save(tmp_path / "some.nc")
    assert_same(solution, kf.load(tmp_path / "some.nc"))
    assert kf.load(tmp_path / "some.nc").kernel("Phi", 1).steps == (1, 4)
