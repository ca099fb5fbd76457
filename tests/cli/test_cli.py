"""The command line as a user meets it: what it prints, its exit codes, and what it leaves on disk."""

import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield.cli import app, main
from kernelfield.figures import figure3
from kernelfield.observables import kernel_alignment
from kernelfield.observables.compare import compare
from suites import thorough

CONFIG = """
[data]
source = "gaussian"
points = 4
dimensions = 3
[network]
depth = 1
activation = "tanh"
[training]
learning_rate = {rate}
steps = 3
[march]
particles = 64
replicates = 2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with a configuration, and no compilation cache switched on for later tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    (tmp_path / "run.toml").write_text(CONFIG.format(rate=0.2))
    (tmp_path / "bad.toml").write_text(CONFIG.format(rate=0.2).replace("depth", "depht"))
    (tmp_path / "few.toml").write_text(CONFIG.format(rate=0.2).replace("64", "17"))
    (tmp_path / "wild.toml").write_text(CONFIG.format(rate=1e9))
    (tmp_path / "broken.nc").write_text("not netcdf")
    return tmp_path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with a march a.nc, and networks b.nc and c.nc of widths 8 and 32."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "run.toml").write_text(CONFIG.format(rate=0.2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(app, "_cache_compilations", lambda: None)
        assert exit_code("solve", "run.toml", "-o", "a.nc", "--quiet") == 0
        for name, width in (("b", "8"), ("c", "32")):
            assert exit_code("train", "run.toml", "-o", f"{name}.nc", "--width", width, "--seeds", "3", "--quiet") == 0
    return folder


@pytest.fixture
def solved(folder, results):
    """The empty folder with these results in it."""
    for path in results.glob("*.nc"):
        shutil.copy(path, folder)
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "none.toml", "-o", "a.nc"], "none.toml does not exist"),
        (["solve", "bad.toml", "-o", "a.nc"], "unknown argument 'depht' (did you mean 'depth'?)"),
        (
            ["solve", "few.toml", "-o", "a.nc"],
            "particles must be a power of two (Sobol points",
        ),
        (["solve", "broken.nc", "-o", "a.nc"], "not valid TOML"),
        (["solve", "run.toml"], "Missing option '--output'"),
        (["solve", "-o", "a.nc"], "Missing argument 'CONFIG.toml'"),
        (["solve", "run.toml", "-o", "none/a.nc"], "the folder none for a.nc does not exist"),
        (["solve", "run.toml", "-o", "."], "is a folder"),
        (["solve", "run.toml", "-o", "run.toml"], "would replace the configuration"),
        (["train", "run.toml", "-o", "a.nc"], "give --width"),
        (
            ["train", "run.toml", "-o", "a.nc", "--width", "0"],
            "width must be greater than or equal to 1, got 0",
        ),
        (["train", "run.toml", "-o", "a.nc", "--width", "x"], "Invalid value for '--width'"),
        (["train", "run.toml", "-o", "a.nc", "--width", "4", "--seeds", "0"], "seeds must be"),
        (["show", "none.nc"], "none.nc does not exist"),
        (["show", "broken.nc"], "broken.nc is not a NetCDF file, or is damaged"),
        (["show", "broken.nc", "-o", "a.txt"], "must end in .png, .pdf, .svg, got a.txt"),
        (["demo", "--out", "none/a.png"], "the folder none for a.png does not exist"),
        (["demo", "--out", "a.txt"], "must end in .png"),
        (["compare", "none.nc", "broken.nc"], "none.nc does not exist"),
        (["compare", "broken.nc"], "give two different results or more, the reference last; got broken.nc"),
        (["compare", "broken.nc", "broken.nc"], "got broken.nc, broken.nc"),
        (["compare", "broken.nc", "none.nc", "-o", "a.txt"], "must end in .png, .pdf, .svg, got a.txt"),
        (["solve", "run.toml", "-o", "a.nc", "--method", "perturbations"], "(did you mean 'perturbation'?)"),
        (["solve", "run.toml", "-o", "a.nc", "--method", "deep_linear"], "needs a network with activation='linear'"),
        (["sweep-gamma", "run.toml", "-o", "a.png"], "Missing option '--gamma0'"),
        (["sweep-gamma", "run.toml", "-o", "a.png", "--gamma0", "0.1,x"], "must be positive numbers separated by"),
        (["sweep-gamma", "run.toml", "-o", "a.png", "--gamma0", "-1"], "must be positive numbers separated by commas"),
        (["sweep-gamma", "run.toml", "-o", "a.txt", "--gamma0", "1"], "must end in .png, .pdf, .svg, got a.txt"),
        (["sweep-gamma", "run.toml", "-o", "a.png", "--gamma0", "1", "--methods", "finite"], "give --width"),
        (["sweep-gamma", "run.toml", "-o", "a.png", "--gamma0", "1", "--methods", "ntk"], "method 'ntk' is unknown"),
        (["figures", "4000"], "figure '4000' is unknown"),
        (["figures", "3", "--out", "run.toml"], "run.toml is not a folder"),
        (["demos"], "No such command 'demos'"),
        (["solve", "--wdith", "3"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_writes_nothing(folder, capsys, arguments, message):
    before = files(folder)
    assert exit_code(*arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert files(folder) == before


def test_solve_train_and_show(folder, capsys):
    assert exit_code("solve", "run.toml", "-o", "infinite.nc") == 0
    assert exit_code("train", "run.toml", "-o", "finite.nc", "--width", "16", "--seeds", "3") == 0
    finite, infinite = kf.load("finite.nc"), kf.load("infinite.nc")
    assert finite.method == kf.FiniteWidth(width=16, seeds=3) and finite.replicate_predictions.shape == (
        3,
        4,
        4,
    )
    assert infinite.method == kf.March(particles=64, replicates=2)
    printed = capsys.readouterr()
    assert "wrote infinite.nc: loss 0.5 ->" in printed.out and not printed.err
    for name in ("infinite", "finite"):
        assert exit_code("show", f"{name}.nc", "-o", f"{name}.png") == 0
        shown = capsys.readouterr().out
        assert "ok: all steps done" in shown and "95 % interval" in shown
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_show_says_is_what_the_solution_holds(folder, capsys):
    exit_code("train", "run.toml", "-o", "one.nc", "--width", "16", "--seeds", "1")
    capsys.readouterr()
    assert exit_code("show", "one.nc") == 0
    shown = capsys.readouterr().out
    assert f"{kf.load('one.nc').loss[-1]:.4g}" in shown and "one replicate" in shown


def test_compare_prints_a_table_for_every_file_but_the_last(solved, capsys):
    assert exit_code("compare", "b.nc", "c.nc", "a.nc", "-o", "all.png") == 0
    shown = capsys.readouterr().out
    assert shown.count("compared with a: March(particles=64") == 2 and "wrote all.png" in shown
    assert shown.index("b: FiniteWidth(width=8") < shown.index("c: FiniteWidth(width=32")
    error = compare(kf.load("b.nc"), kf.load("a.nc")).row("Phi", 1).error
    found = re.search(r"Phi 1 +all +([0-9.]+) ± [0-9.]+ ", shown)
    assert found and float(found.group(1)) == pytest.approx(100 * error, abs=0.6)
    assert (solved / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_compare_prints_one_json_document_of_all_that_it_found(solved, capsys):
    (solved / "runs").mkdir()
    (solved / "b.nc").rename(solved / "runs" / "a.nc")
    assert exit_code("compare", "runs/a.nc", "a.nc", "--json", "-o", "all.svg") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["reference"]["name"] == "a.nc" and printed["reference"]["method"].startswith("March(")
    (compared,) = printed["comparisons"]
    assert compared["name"] == compared["file"] == "runs/a.nc"  # both stems are the same
    assert compared["rows"] == compare(kf.load("runs/a.nc"), kf.load("a.nc")).to_records()
    assert (solved / "all.svg").exists()


def test_every_command_speaks_json(folder, capsys):
    def found(*arguments):
        assert exit_code(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    solved = found("solve", "run.toml", "-o", "a.nc")
    solution = kf.load("a.nc")
    assert solved["wrote"] == "a.nc" and solved["status"] == "ok" and solved["seconds"] > 0
    assert solved["loss"] == {"mean": solution.loss.tolist(), "se": solution.loss_se.tolist()}
    trained = found("train", "run.toml", "-o", "b.nc", "--width", "8", "--seeds", "1")
    assert trained["loss"]["se"] is None and trained["method"].startswith("FiniteWidth(width=8")
    shown = found("show", "a.nc", "-o", "a.png")
    assert shown["file"] == "a.nc" and shown["wrote"] == "a.png" and shown["kernels"] == solved["kernels"]
    aligned = kernel_alignment(solution, "Phi", 1, [0, -1])
    assert shown["kernels"][0]["alignment"]["mean"] == aligned.mean.tolist()


@pytest.mark.parametrize(
    "command",
    [
        ["solve", "run.toml", "-o", "new.nc"],
        ["train", "run.toml", "-o", "new.nc", "--width", "8"],
        ["show", "a.nc", "-o", "new.png"],
        thorough(["compare", "c.nc", "a.nc", "-o", "new.png"]),
        thorough(["sweep-gamma", "run.toml", "-o", "new.png", "--gamma0", "1"]),
        thorough(["figures", "whitened", "--quick", "--out", "new"]),
        thorough(["report", "a.nc", "-o", "new.html"]),
    ],
)
def test_quiet_commands_print_nothing_and_show_no_progress(solved, capsys, monkeypatch, command):
    monkeypatch.setattr("kernelfield.common.progress.SHOW_AFTER", -1.0)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)  # where bars are shown
    assert exit_code(*command, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert any(each.name.startswith("new") for each in solved.iterdir())


def test_bars_are_shown_on_terminals_alone(folder, capsys, monkeypatch):
    monkeypatch.setattr("kernelfield.common.progress.SHOW_AFTER", -1.0)
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 0
    assert not capsys.readouterr().err
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 0
    assert "March" in capsys.readouterr().err
    exit_code("solve", "run.toml", "-o", "b.nc", "--method", "static_ntk")
    capsys.readouterr()
    assert exit_code("compare", "b.nc", "a.nc") == 0
    assert "comparing NTK" in capsys.readouterr().err


def test_results_that_cannot_be_compared_are_bad_input(folder, capsys):
    exit_code("solve", "run.toml", "-o", "a.nc")
    (folder / "run.toml").write_text(CONFIG.format(rate=0.1))
    exit_code("solve", "run.toml", "-o", "b.nc")
    capsys.readouterr()
    assert exit_code("compare", "a.nc", "b.nc", "-o", "a.png") == 2
    error = "kernelfield: a.nc and b.nc cannot be compared: learning_rate must be the same in both solutions"
    printed = capsys.readouterr()
    assert printed.err == f"{error}, got 0.2 and 0.1\n" and not printed.out and not (folder / "a.png").exists()


def test_solve_takes_any_method(folder, capsys):
    for method, name in (("gradient_independence", "GradientIndependence"), ("static_ntk", "StaticNTK")):
        assert exit_code("solve", "run.toml", "-o", "a.nc", "--method", method) == 0
        assert type(kf.load("a.nc").method).__name__ == name
    assert kf.load("a.nc").exact


@pytest.mark.thorough
def test_sweep_gamma_compares_every_method_with_the_theory_and_with_networks(folder, capsys):
    arguments = ("sweep-gamma", "run.toml", "--gamma0", "0.5,2", "-o", "a.png", "--width", "16", "--seeds", "3")
    assert exit_code(*arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"finite +perturbation +[01]\.\d{5} +[01]\.\d{5}", shown) and "wrote a.png" in shown
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    assert exit_code(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["reference"] for each in found} == {"march", "finite"}
    assert {each["gamma0"] for each in found} == {0.5, 2.0}
    lazy = {
        each["gamma0"]: each["error"]
        for each in found
        if (each["method"], each["reference"], each["quantity"]) == ("static_ntk", "march", "NTK")
    }
    assert lazy[0.5] < lazy[2.0]


def test_a_sweep_that_is_stopped_draws_what_it_has(folder, capsys, monkeypatch):
    real, calls = kf.solve, []

    def stopping(network, *rest, **settings):
        calls.append(network.gamma0)
        if network.gamma0 == 2.0:
            raise KeyboardInterrupt
        return real(network, *rest, **settings)

    monkeypatch.setattr("kernelfield.sweeps.gammas.solve", stopping)
    assert exit_code("sweep-gamma", "run.toml", "--gamma0", "0.5,2", "-o", "a.png") == 130
    assert "shows 1 of 2 values of gamma0" in capsys.readouterr().err and (folder / "a.png").exists()
    assert exit_code("sweep-gamma", "run.toml", "--gamma0", "2", "-o", "b.png") == 130
    assert not (folder / "b.png").exists()


@pytest.mark.thorough
def test_figures_are_made_from_their_own_settings(folder, capsys, monkeypatch):
    monkeypatch.setattr(figure3, "DEPTH", 2)
    monkeypatch.setattr(figure3, "GAMMAS", (0.25, 0.5, 0.75, 1.0))
    assert exit_code("figures", "3", "--out", "made", "--quick") == 0
    made = sorted((folder / "made").iterdir())
    assert len(made) == 2 and all(each.read_bytes().startswith(b"\x89PNG") for each in made)
    assert capsys.readouterr().out.count("wrote made") == 2


@pytest.mark.thorough
def test_figures_speak_json(folder, capsys):
    assert exit_code("figures", "whitened", "--out", "made", "--quick", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"wrote": ["made/whitened.png"]}
    assert (folder / "made" / "whitened.png").read_bytes().startswith(b"\x89PNG")


def test_a_diverged_run_writes_its_steps_says_so_and_exits_1(folder, capsys):
    assert exit_code("solve", "wild.toml", "-o", "a.nc") == 1
    error = capsys.readouterr().err
    assert "diverged: the loss exceeded" in error and error.count("\n") == 1
    solution = kf.load("a.nc")
    assert solution.status.code == "diverged" and np.isfinite(solution.predictions).all()
    assert exit_code("show", "a.nc") == 0


def test_an_interrupted_run_writes_its_steps_and_exits_130(folder, capsys, monkeypatch):
    @contextlib.contextmanager
    def pressed(title, wanted):
        def report(done, total):
            raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(importlib.import_module("kernelfield.solve"), "bar", pressed)
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 130
    error = capsys.readouterr().err
    assert "interrupted: stopped by the user" in error and error.count("\n") == 1
    assert kf.load("a.nc").status.code == "interrupted"


def test_interrupted_before_the_first_step_writes_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(kf.March, "solve", lambda *arguments: kf.Status("interrupted", "stopped by the user"))
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 130
    assert "nothing was written" in capsys.readouterr().err and not (folder / "a.nc").exists()


def test_an_unexpected_failure_is_one_line_and_debug_shows_it_all(folder, capsys, monkeypatch):
    def fails(path, data=None):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("kernelfield.cli.runs.read", fails)
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 1
    assert capsys.readouterr().err == ("kernelfield: unexpected RuntimeError: first second (--debug shows where)\n")
    with pytest.raises(RuntimeError, match="first"):
        main(["--debug", "solve", "run.toml", "-o", "a.nc"])


def test_help_and_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("kernelfield 0.")
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("demo", "solve", "train", "show", "compare"))
    assert exit_code() == 2
    assert "Usage" in "".join(capsys.readouterr())


@pytest.mark.thorough
def test_the_compilation_cache_is_used(folder, tmp_path):
    """Compiled programs are kept in XDG_CACHE_HOME, by the command line alone."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, "-m", "kernelfield.cli", "solve", "run.toml", "-o", "a.nc"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and not done.stderr
    assert any((tmp_path / "cache" / "kernelfield").iterdir())
