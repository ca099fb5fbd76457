"""Sweeps over grids: what is refused, what is written, and what is left when something is killed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kernelfield as kf
from commands import CONFIG, exit_code
from kernelfield.cli import app
from kernelfield.files.config import parse
from kernelfield.march import programs
from kernelfield.plotting import grid as figure
from kernelfield.sweeps import SweepError, driver, make_grid, parse_grid, read, store, variables

SWEEP = ("sweep", "run.toml", "-o", "sweep.zarr")
QUICK = ("--method", "static_ntk")
FOUR = (*QUICK, "--grid", "gamma0=0.5,1", "--grid", "learning_rate=0.1,0.2")
HERE = ("--workers", "0")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with a configuration, and no compilation cache switched on for later tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def scheduler():
    """Address of a Dask scheduler with two workers, which start anew when they are killed."""
    from distributed import LocalCluster

    quiet = {"dashboard_address": ":0", "silence_logs": 60, "threads_per_worker": 1, "memory_limit": 0}
    with LocalCluster(n_workers=2, **quiet) as cluster:
        yield cluster.scheduler_address


def logged(log, real=variables.solve_point, then=None):
    """A function for workers that writes to a file which point it is about to solve."""

    def solving(run):
        with open(log, "a") as file:
            file.write(f"{run.network.gamma0:g} {run.training.learning_rate:g}\n")
        if then is not None:
            then(log)
        return real(run)

    return solving


def counts(log):
    """How many times every point was begun."""
    return Counter(Path(log).read_text().splitlines()) if Path(log).exists() else Counter()


# --- what a grid is


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "gama0=1"], "grid key 'gama0' is unknown (did you mean 'gamma0'?)"),
        (["--grid", "network.dept=1"], "grid key 'network.dept' is unknown (did you mean 'network.depth'?)"),
        (["--grid", "seed=0,1"], "grid key 'seed' is in several sections: write data.seed or march.seed"),
        (["--grid", "gamma0"], "--grid must be KEY=VALUE,VALUE,..., got 'gamma0'"),
        (["--grid", "gamma0="], "--grid must be KEY=VALUE,VALUE,..., got 'gamma0='"),
        (["--grid", "gamma0=1", "--grid", "gamma0=2"], "grid key 'gamma0' must be given once"),
        (["--grid", "gamma0=1", "--grid", "network.gamma0=2"], "grid key 'network.gamma0' must be given once"),
        (["--grid", "gamma0=1,1.0"], "grid key 'gamma0' must have different values, got 1 twice"),
        (["--grid", "gamma0=1,-1"], "grid point gamma0 = -1: [network] MLP: gamma0 must be greater than"),
        (["--grid", "points=3,x"], "grid point points = x: [data] GaussianData: points must be a valid integer"),
        (
            ["--grid", "activation=tanh,sine"],
            "grid point activation = sine: [network] MLP: activation 'sine' is unknow",
        ),
        (["--grid", "march.particles=65"], "grid point particles = 65: [march] March: particles must be a power of"),
        (["--grid", "steps=3,9999", "--method", "alternating"], "AlternatingMonteCarlo keeps ((steps + 1) P)^2"),
        (["--grid", "depth=1", "--method", "deep_linear"], "DeepLinear needs a network with activation='linear'"),
        (["--grid", "activation=relu", "--method", "perturbation"], "Perturbation needs a smooth activation"),
        (["--grid", "depth=1", "--method", "marsh"], "method 'marsh' is unknown (did you mean 'march'?)"),
        (["--grid", "depth=1", "--workers", "-1"], "workers must not be negative, got -1"),
        (["--grid", "depth=1", "--workers", "1", "--scheduler", "a:1"], "give workers or a scheduler, not both"),
        (["--grid", "depth=1", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (["--grid", "depth=1", "-o", "none/a.zarr"], "the folder none for a.zarr does not exist"),
        (["--grid", "depth=1", "-o", "empty"], "empty is not a folder that kernelfield sweep wrote, or is damaged"),
        ([], "Missing option '--grid'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_writes_nothing(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(driver, "SECONDS_TO_CONNECT", 0.5)
    (folder / "empty").mkdir()
    before = sorted(folder.rglob("*"))
    assert exit_code(*SWEEP, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert sorted(folder.rglob("*")) == before


def test_a_grid_needs_a_key_with_values():
    with pytest.raises(ValueError, match=r"a grid needs at least one key with its values"):
        make_grid(parse(CONFIG), {})
    with pytest.raises(ValueError, match=r"grid key 'depth' must have at least one value"):
        make_grid(parse(CONFIG), {"depth": []})
    with pytest.raises(ValueError, match=r"'activation' must have numbers, texts or lists as values, got a function"):
        make_grid(parse(CONFIG), {"activation": [np.tanh]})


def test_values_are_toml_and_texts_need_no_quotes():
    found = parse_grid(["a=1,0.5", "b=tanh,relu", 'c="x,y",z w', "d=true,false", "e=[0, 1],[2]", "f = 1 , x"])
    assert found["a"] == [1, 0.5] and found["b"] == ["tanh", "relu"] and found["d"] == [True, False]
    assert found["e"] == [[0, 1], [2]] and found["f"] == [1, "x"]


def test_dimensions_have_the_names_of_keys_and_of_sections_where_these_are_not_unique():
    keys = {"data.seed": [0, 1], "march.seed": [0], "loss": ["mse", "logistic"], "gamma0": [1, 2]}
    grid = make_grid(parse(CONFIG), keys)
    assert [axis.name for axis in grid.axes] == ["data_seed", "march_seed", "data_loss", "gamma0"]
    assert grid.shape == (2, 1, 2, 2) and grid.axes[3].coordinate.tolist() == [1.0, 2.0]
    assert grid.runs[1, 0, 1, 0].problem is grid.runs[1, 0, 1, 1].problem
    assert grid.label((1, 0, 1, 0)) == "data_seed = 1, march_seed = 0, data_loss = logistic, gamma0 = 1"


def test_a_method_without_a_section_takes_its_keys_from_the_grid():
    grid = make_grid(parse(CONFIG), {"width": [8, 16], "finite.seeds": [2]}, "finite")
    assert grid.runs[1, 0].method == kf.FiniteWidth(width=16, seeds=2)


# --- what is written


def test_a_point_is_what_solve_finds_and_points_share_a_compilation(folder, capsys):
    programs.compiled.cache_clear()
    assert exit_code(*SWEEP, *HERE, "--grid", "gamma0=0.5,1", "--grid", "steps=2,3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    data, config = read("sweep.zarr"), parse(CONFIG)
    network = kf.MLP(depth=1, activation="tanh", gamma0=0.5)
    training = kf.GradientDescent(learning_rate=0.2, steps=2)
    solution = kf.solve(network, config.problem(), training, kf.March(particles=64, replicates=2))
    point = data.sel(gamma0=0.5, steps=2)
    for name, expected in (("loss", solution.loss), ("loss_se", solution.loss_se), ("time", solution.times)):
        np.testing.assert_allclose(point[name], [*expected, np.nan], rtol=1e-6)
    np.testing.assert_allclose(point.prediction, solution.predictions[-1], rtol=1e-6)
    aligned = kf.observables.kernel_alignment(solution, "Phi", 1, -1)
    np.testing.assert_allclose(point.Phi_alignment.sel(layer=1), aligned.mean, rtol=1e-6)
    np.testing.assert_allclose(point.NTK_movement, kf.observables.kernel_movement(solution, "NTK", t=-1).mean)
    assert programs.compiled.cache_info().misses == 2  # steps and looks, of four points and two replicates
    assert (data.status == "ok").all() and (data.steps_done == data.steps).all() and data.test_loss.isnull().all()
    assert data.loss.attrs == {"long_name": "training loss", "units": "1"} and data.attrs["method"] == "march"
    assert parse(data.attrs["config"]).method("march") == solution.method
    assert [each["gamma0"] for each in printed["points"]] == [0.5, 0.5, 1.0, 1.0] and printed["points_in_all"] == 4
    assert printed["points"][0]["final_loss"] == float(point.final_loss) and printed["points"][0]["status"] == "ok"


def test_test_points_and_several_outputs_are_kept(folder):
    X = np.random.default_rng(0).standard_normal((5, 3))
    problem = kf.Problem(X, [0, 1, 2, 0, 1], [1, 1, 1, 0, 0], loss="cross_entropy")
    training, method = kf.GradientDescent(learning_rate=0.2, steps=2), kf.FiniteWidth(width=8, seeds=2)
    data = kf.sweep_grid(kf.MLP(depth=1), problem, training, {"width": [8]}, "a.zarr", method, workers=0)
    assert data.prediction.dims == ("width", "sample", "output") and data.prediction.shape == (1, 5, 3)
    assert data.test_loss.notnull().all() and np.isfinite(data.final_test_loss_se).all()
    with pytest.raises(ValueError, match=r"another sweep \(digest of the data is \w+ there, \w+ here\)"):
        moved = kf.Problem(X + 1, problem.y, problem.weights, loss="cross_entropy")
        kf.sweep_grid(kf.MLP(depth=1), moved, training, {"width": [8]}, "a.zarr", method, workers=0)


def test_a_method_of_ones_own_is_refused():
    problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.2, steps=3)
    with pytest.raises(ValueError, match=r"method must be one of march, .*, got SimpleNamespace"):
        kf.sweep_grid(kf.MLP(depth=1), problem, training, {"depth": [1]}, "a.zarr", SimpleNamespace())


# --- points that fail


def test_points_that_fail_are_recorded_and_the_others_go_on(folder, capsys, monkeypatch):
    real = variables.solve_run

    def failing(run, **how):
        if run.network.gamma0 == 2:
            raise RuntimeError("first\nsecond")
        return real(run, **how)

    monkeypatch.setattr(variables, "solve_run", failing)
    arguments = (*SWEEP, *HERE, "--grid", "gamma0=1,2", "--grid", "learning_rate=0.2,1e9")
    assert exit_code(*arguments) == 1
    printed, data = capsys.readouterr(), read("sweep.zarr")
    assert printed.err == "kernelfield: 3 of 4 points failed: --retry-failed does them again\n"
    assert "gamma0 = 1, learning_rate = 1e+09: diverged: the loss exceeded" in printed.out
    assert "gamma0 = 2, learning_rate = 0.2: error: RuntimeError: first second" in printed.out
    assert data.status.values.tolist() == [["ok", "diverged"], ["error", "error"]]
    assert data.steps_done.values[0, 1] < 3 and np.isnan(data.final_loss.values[1]).all()
    monkeypatch.setattr(variables, "solve_run", real)
    assert exit_code(*arguments) == 1 and read("sweep.zarr").identical(data)
    assert exit_code(*arguments, "--retry-failed") == 1
    again = read("sweep.zarr")
    assert again.status.values.tolist() == [["ok", "diverged"], ["ok", "diverged"]]
    assert again.finished[0, 0] == data.finished[0, 0] and again.finished[0, 1] > data.finished[0, 1]


def test_a_run_without_anything_to_keep_has_its_own_status(monkeypatch):
    def failing(*run, **how):
        raise kf.SolveError("out_of_particles: more directions than 64 particles")

    monkeypatch.setattr(variables, "solve_run", failing)
    (run,) = make_grid(parse(CONFIG), {"depth": [1]}).runs.values()
    record = variables.solve_point(run)
    assert (record["status"], record["message"]) == ("out_of_particles", "more directions than 64 particles")


def test_what_the_scheduler_gives_up_is_an_error_of_the_point():
    class KilledWorker(Exception):
        pass

    for error, message in ((KilledWorker(), "every worker that took it died"), (OSError("a\nb"), "OSError: a b")):
        record = driver._record(SimpleNamespace(status="error", exception=lambda error=error: error))
        assert record["status"] == "error" and message in record["message"]
    with pytest.raises(SweepError, match=r"the connection to the Dask scheduler was lost"):
        driver._record(SimpleNamespace(status="cancelled"))


# --- one folder, one sweep


@pytest.mark.parametrize(
    ("old", "new", "grid", "message"),
    [
        ("", "", "gamma0=0.5,2", "grid network.gamma0 is 0.5,1.0 there, 0.5,2.0 here"),
        ("depth = 1", "depth = 2", "gamma0=0.5,1", "network depth is 1 there, 2 here"),
        ("replicates = 2", "replicates = 3", "gamma0=0.5,1", "march replicates is 2 there, 3 here"),
        ("", "--method=perturbation", "gamma0=0.5,1", "method is march there, perturbation here"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(folder, capsys, old, new, grid, message):
    store.create(folder / "sweep.zarr", make_grid(parse(CONFIG), {"gamma0": [0.5, 1]}))
    method = (new,) if new.startswith("--") else ()
    (folder / "run.toml").write_text(CONFIG.replace(old, new) if old else CONFIG)
    assert exit_code(*SWEEP, "--grid", grid, *method) == 2
    expected = f"kernelfield: sweep.zarr holds another sweep ({message}): give another folder\n"
    assert capsys.readouterr() == ("", expected)


def test_two_sweeps_at_once_in_a_folder_are_refused(folder, capsys):
    grid = {"gamma0": [0.5, 1], "learning_rate": [0.1, 0.2]}
    store.create(folder / "sweep.zarr", make_grid(parse(CONFIG), grid, "static_ntk"))
    with store.lock(folder / "sweep.zarr"):
        assert exit_code(*SWEEP, *HERE, *FOUR) == 2
    assert "another sweep is running in sweep.zarr: wait for it" in capsys.readouterr().err
    assert exit_code(*SWEEP, *HERE, *FOUR) == 0


def test_folders_that_cannot_be_written_to_are_bad_input(folder, capsys, monkeypatch):
    store.create(folder / "sweep.zarr", make_grid(parse(CONFIG), {"depth": [1]}))

    def read_only(**how):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    for name, message in (("sweep.zarr", "the folder sweep.zarr cannot"), ("new.zarr", "the folder . cannot")):
        assert exit_code("sweep", "run.toml", "-o", name, *HERE, "--grid", "depth=1") == 2
        assert message in capsys.readouterr().err
    monkeypatch.undo()

    def full(*arguments, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zarr.create_group", full)
    with pytest.raises(OSError, match=r"b.zarr could not be written: no space left on device"):
        store.create(folder / "b.zarr", make_grid(parse(CONFIG), {"depth": [1]}))


def test_a_full_disk_ends_a_sweep_and_keeps_its_points(folder, capsys, monkeypatch):
    real, written = store.Store._write, []

    def filling(self, name, index, values):
        written.append(name)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, name, index, values)

    monkeypatch.setattr(store.Store, "_write", filling)
    assert exit_code(*SWEEP, *HERE, *FOUR) == 1
    told = "sweep.zarr cannot be written to: No space left on device (1 of 4 points are done: the same command goes on)"
    assert capsys.readouterr().err == f"kernelfield: {told}\n"


@pytest.mark.parametrize("library", ["zarr", "distributed"])
def test_a_missing_library_is_one_line(folder, capsys, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert exit_code(*SWEEP, *FOUR) == 2
    told = f'kernelfield: a sweep needs {library}: pip install "kernelfield[cluster]"\n'
    assert capsys.readouterr() == ("", told)


# --- killed


@pytest.mark.thorough
def test_a_killed_sweep_goes_on_with_what_is_missing(folder, capsys, monkeypatch, scheduler):
    """The program kills itself while it writes the third point: almost everything but its status is on disk."""
    program = """
import os, signal, sys
from kernelfield.cli import main
from kernelfield.sweeps import store
real, points = store.Store._write, set()
def killed(self, name, index, values):
    points.add(index)
    if len(points) == 3 and name == "message":
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, name, index, values)
store.Store._write = killed
main(sys.argv[1:])
"""
    arguments = (*SWEEP, *FOUR, "--scheduler", scheduler)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL and not done.stderr
    before = read("sweep.zarr")
    there = before.status == "ok"
    names = np.array([[f"{gamma0:g} {rate:g}" for rate in (0.1, 0.2)] for gamma0 in (0.5, 1)])
    assert there.sum() == 2 and before.loss.notnull().any("step").sum() == 2  # the third is not there in part
    assert exit_code("show", "sweep.zarr", "-o", "half.png") == 0
    shown = capsys.readouterr().out
    assert "2 of 4 points are done" in shown and shown.count(" ok ") == 2 and "wrote half.png" in shown
    assert (folder / "half.png").read_bytes().startswith(b"\x89PNG")
    (folder / "sweep.zarr" / "loss" / "left.partial").touch()  # as zarr leaves it where it is killed
    log = folder / "log"
    monkeypatch.setattr(driver, "solve_point", logged(str(log)))
    assert exit_code(*arguments) == 0
    after = read("sweep.zarr")
    assert counts(log) == Counter(names[~there].tolist())
    assert (after.status == "ok").all() and not list((folder / "sweep.zarr").rglob("*.partial"))
    assert after.finished.where(there).equals(before.finished.where(there))
    assert exit_code(*arguments) == 0 and read("sweep.zarr").identical(after)


@pytest.mark.thorough
def test_a_worker_that_is_killed_loses_nothing(folder, capsys, monkeypatch, scheduler):
    def once(log):
        try:
            open(f"{log}.killed", "x").close()
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    log = folder / "log"
    monkeypatch.setattr(driver, "solve_point", logged(str(log), then=once))
    assert exit_code(*SWEEP, *FOUR, "--scheduler", scheduler) == 0
    assert (read("sweep.zarr").status == "ok").all()
    assert sorted(counts(log).values()) == [1, 1, 1, 2]  # twice the one that was cut off


HEARS_CTRL_C = """
# Ctrl-C is ignored where tests run in the background
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from kernelfield.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.mark.thorough
def test_ctrl_c_keeps_the_points_and_the_same_command_goes_on(folder):
    """Worker processes of its own, and Ctrl-C as a terminal sends it: to all of them."""
    gammas = ",".join(map(str, range(1, 201)))
    arguments = (*SWEEP, *QUICK, "--grid", f"gamma0={gammas}", "--workers", "1")
    command = [sys.executable, "-c", HEARS_CTRL_C, *arguments]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (found := list((folder / "sweep.zarr" / "status" / "c").rglob("*"))) and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    printed, error = running.communicate(timeout=100)
    done = int((read("sweep.zarr").status == "ok").sum())
    assert running.returncode == 130 and found and not printed
    told = f"kernelfield: interrupted ({done} of 200 points are done: the same command goes on)\n"
    assert error == told and 0 < done < 200


def test_an_interrupted_point_is_not_kept(folder, capsys, monkeypatch):
    monkeypatch.setattr(driver, "solve_point", lambda run: {"status": "interrupted", "message": ""})
    assert exit_code(*SWEEP, *HERE, *FOUR) == 130
    assert "0 of 4 points are done" in capsys.readouterr().err


# --- looking


def test_show_refuses_what_is_no_sweep(folder, capsys):
    (folder / "empty").mkdir()
    store.create(folder / "a.zarr", make_grid(parse(CONFIG), {"depth": [1]}))
    assert exit_code("show", "empty") == 2
    assert "empty is not a folder that kernelfield sweep wrote" in capsys.readouterr().err
    assert exit_code("show", "a.zarr", "-o", "a.png") == 2
    assert "no point of the sweep is done yet" in capsys.readouterr().err and not (folder / "a.png").exists()
    settings = json.loads((folder / "a.zarr" / "zarr.json").read_text())
    settings["attributes"]["schema"] = 99
    (folder / "a.zarr" / "zarr.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"a.zarr is not a sweep of this version of kernelfield"):
        read("a.zarr")
    with pytest.raises(FileNotFoundError, match=r"none.zarr does not exist"):
        read("none.zarr")


def test_the_figure_has_the_numbers_of_the_sweep(folder, capsys):
    grid = ("--grid", "activation=tanh,relu", "--grid", "gamma0=0.5,1", "--grid", "depth=1,2")
    assert exit_code(*SWEEP, *HERE, *QUICK, *grid) == 0
    data = read("sweep.zarr")
    drawn = figure.draw(data)
    lines, final = drawn.axes[:4], drawn.axes[4]
    assert [axes.get_title() for axes in lines][1] == r"$\gamma_0$ = 0.5, hidden layers = 2"
    np.testing.assert_array_equal(lines[1].lines[0].get_ydata(), data.loss[0, 0, 1])
    np.testing.assert_array_equal(final.lines[0].get_ydata(), data.final_loss[:, 0, 0])
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["activation = tanh", "activation = relu"]
