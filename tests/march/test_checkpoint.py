"""A run that was stopped, in whatever way, goes on bit for bit, or one sentence says why not."""

import contextlib
import errno
import importlib
import itertools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield.common.atomic_files import CannotWrite
from kernelfield.describe.run import Run
from kernelfield.layers import Activation, Dense, Readout
from kernelfield.march.array_folders import ArrayFolders
from kernelfield.march.replicate import Replicate
from killed import FORKED, SETTINGS, go_on, with_a_full_disk
from suites import keep_fast, thorough

MLP, PROBLEM = SETTINGS["network"], SETTINGS["problem"]
RULE = kf.GradientDescent(learning_rate=0.2, steps=8)
SOLVE = importlib.import_module("kernelfield.solve")
SMALL = {"particles": 64, "replicates": 2}
MARCH = kf.March(**SMALL)


def solve(network=MLP, problem=PROBLEM, training=RULE, method=MARCH, folder=None, **kept):
    kept = {"checkpoint": folder, "resume": True} | kept if folder else kept
    return kf.solve(network, problem, training, method, progress=False, **kept)


@contextlib.contextmanager
def after_step(step, happens):
    """Something happens once the progress bar is at a step, or further."""

    @contextlib.contextmanager
    def watched(title, wanted):
        yield lambda done, total: happens() if done >= step else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SOLVE, "bar", watched)
        patch.setattr("kernelfield.march.particle_run.SECONDS_BETWEEN_REPORTS", 0.0)
        yield


def press():
    raise KeyboardInterrupt


def interrupted(step, *arguments, **settings):
    with after_step(step, press), pytest.raises(kf.Interrupted) as stopped:
        solve(*arguments, **settings)
    return stopped.value.solution


def arrays(solution):
    """All that a run leaves."""
    kept = solution.predictor.arrays() if solution.predictor else {}
    kernels = [getattr(kernel, "factor", None) for kernel in solution.kernels.values()]
    kernels += [getattr(kernel, "values", None) for kernel in solution.kernels.values()]
    return jax.tree.leaves([solution.replicate_predictions, kernels, solution.field_samples]) + list(kept.values())


def assert_same(one, other):
    pairs = list(zip(arrays(one), arrays(other), strict=True))
    assert len(pairs) > 5 and one.status == other.status and one.steps_done == other.steps_done
    infos = ({name: each for name, each in run.info.items() if "seconds" not in name} for run in (one, other))
    assert next(infos) == next(infos)
    assert all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def parts(folder):
    return sorted(each.name for each in Path(folder).glob("part??????"))


@pytest.fixture(scope="module")
def whole():
    """The run that is not stopped."""
    return solve()


@pytest.fixture(scope="module")
def whole_of_forty_steps():
    return solve(**SETTINGS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, whole):
    """The checkpoint of a run that is done."""
    folder = tmp_path_factory.mktemp("finished") / "ck"
    assert_same(solve(folder=folder), whole)
    return folder


@pytest.fixture
def kept(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "ck")


# --- bit for bit


@pytest.mark.thorough
def test_a_run_that_is_killed_six_times_is_as_if_it_had_not_been(tmp_path, whole_of_forty_steps):
    """At random moments: of the first two, in whatever a process does first, of the others, after its first write."""
    folder, cache = tmp_path / "ck", tmp_path / "cache"
    rng, done = np.random.default_rng(0), [0]
    for kill in range(6):
        child = FORKED.Process(target=go_on, args=(str(folder), str(cache)))
        child.start()
        while kill > 1 and len(parts(folder)) <= done[-1]:
            assert child.is_alive()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1 if kill > 1 else 0.3))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        done.append(len(parts(folder)))
    assert done == sorted(done) and 4 <= done[-1] <= 40
    assert_same(solve(**SETTINGS, folder=folder), whole_of_forty_steps)
    assert not any(folder.glob("*tmp*"))


@pytest.mark.parametrize(
    "training, method",
    [
        (kf.SGD(learning_rate=0.2, batch_size=2, epochs=4, momentum=0.5), MARCH),
        (kf.GradientFlow(time=2.0, steps=4, rtol=1e-5), MARCH),
        thorough(RULE, kf.Perturbation(**SMALL)),
    ],
    ids=["mini-batches", "flow", "perturbation"],
)
def test_an_interrupted_run_goes_on_bit_for_bit(training, method, tmp_path):
    run = {"training": training, "method": method}
    assert interrupted(3, **run, folder=tmp_path / "ck").steps_done == 2
    assert_same(solve(**run, folder=tmp_path / "ck"), solve(**run))


@pytest.mark.thorough
def test_a_linear_run_that_began_again_with_more_room_goes_on_with_that(tmp_path):
    network, folder = kf.MLP(depth=2, activation="linear"), tmp_path / "ck"
    method = kf.March(directions=3)
    stopped = interrupted(6, network, method=method, folder=folder)
    assert stopped.info["directions"] > 3
    assert_same(solve(network, method=method, folder=folder), solve(network, method=method))


def test_a_finished_run_is_returned_at_once(kept, whole, monkeypatch):
    monkeypatch.setattr(Replicate, "march", lambda *arguments: pytest.fail("it is done"))
    files = sorted(kept.rglob("*"))
    again = solve(folder=kept)
    assert_same(again, whole)
    assert again.info["seconds_run"] > whole.info["seconds_run"] / 10 and sorted(kept.rglob("*")) == files


def test_what_was_recorded_is_written_once(tmp_path):
    folder = tmp_path / "ck"
    interrupted(6, folder=folder, checkpoint_every=0.0)
    assert parts(folder) == [f"part{number:06d}" for number in range(1, 7)]
    assert [each.parent.name for each in folder.glob("part*/state")] == ["part000006"]
    sizes = [sum(file.stat().st_size for file in each.rglob("*")) for each in sorted(folder.glob("part*/rows"))]
    assert max(sizes[1:]) < sizes[0]  # which has the state of row 0


def test_a_checkpoint_that_is_removed_during_the_run_is_written_anew(tmp_path, whole):
    folder = tmp_path / "ck"
    with after_step(3, lambda: shutil.rmtree(folder, ignore_errors=True)):
        solve(folder=folder, checkpoint_every=0.0)
    assert_same(solve(folder=folder), whole)


# --- refusals


def refused(message, *arguments, **settings):
    with pytest.raises(ValueError, match=message):
        solve(*arguments, **settings)


def test_a_checkpoint_is_not_overwritten(kept):
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    refused(r"ck holds a checkpoint: resume from it, or remove it to start anew", checkpoint=kept)
    assert before == {path: path.stat().st_mtime_ns for path in kept.rglob("*")}


@pytest.mark.parametrize(
    "what, settings",
    [
        ("network gamma0 is 3.0 there, 1.0 here", {"network": kf.MLP(depth=1, activation="tanh")}),
        ("network bias_scale is None there, 0.1 here", {"network": kf.MLP(depth=1, gamma0=3.0, bias_scale=0.1)}),
        ("method kind is March there, GradientIndependence here", {"method": kf.GradientIndependence(**SMALL)}),
        (r"problem X is an array \(3, 4\) with digest .* here", {"problem": kf.Problem(PROBLEM.X + 1, PROBLEM.y)}),
        ("training steps is 8 there, 9 here", {"training": kf.GradientDescent(learning_rate=0.2, steps=9)}),
        ("method seed is 0 there, 1 here", {"method": kf.March(**SMALL, seed=1)}),
        (r"fields_at is \[0, 8\] there, \[3\] here", {"fields_at": [3]}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(kept, what, settings):
    refused(f"the checkpoint in .*ck is of another run: {what}", folder=kept, **settings)


def test_weights_that_are_shared_make_another_run():
    def network(*dense):
        layers = [each for one in dense for each in (one, Activation("tanh"))]
        return Run(kf.Network(layers=[*layers, Readout()]), PROBLEM, RULE, MARCH).fingerprint()

    one, two, three = Dense(), Dense(), Dense()
    assert network(one, two, two) == network(two, one, one) != network(one, two, three)


def test_another_format_is_refused(kept):
    file = next(kept.glob("part*/document/metadata"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1}))
    refused("has format 1; this version reads 2", folder=kept)


def test_what_cannot_be_a_checkpoint_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused("checkpoint must be a folder, .*file is a file", folder=tmp_path / "file")
    refused(r"checkpoints cannot be written to .*file/ck: not a directory", folder=tmp_path / "file" / "ck")
    refused("StaticNTK keeps no checkpoints", method=kf.StaticNTK(), folder=tmp_path / "ck")
    refused("checkpoint_every must be a number of seconds >= 0, got -1", folder=tmp_path / "ck", checkpoint_every=-1)
    refused("resume needs checkpoint, the folder to go on from", resume=True)
    refused("save_at must be steps in 0..8", save_at=[9])
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'a checkpoint needs orbax: pip install "kernelfield\[checkpoint\]"'):
        solve(folder=tmp_path / "ck")
    assert not (tmp_path / "ck").exists()


# --- damage


@pytest.mark.parametrize(
    ("item", "damage"),
    keep_fast(
        itertools.product(["document", "rows", "state"], ["cut", "changed", "removed"]),
        ("document", "cut"),
        ("rows", "changed"),
        ("state", "removed"),
    ),
)
def test_a_damaged_checkpoint_is_one_sentence(kept, item, damage, capfd):
    for file in kept.glob(f"part*/{item}/metadata" if item == "document" else f"part*/{item}/**/d/*"):
        data = bytearray(file.read_bytes())  # of arrays all of it: some files may have been superseded at once
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
        if damage == "removed":
            file.unlink()
    refused("the checkpoint in .*ck is damaged: remove it to start anew$", folder=kept)
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_that_is_half_written_is_not_taken(kept, whole, tmp_path):
    (part,) = kept.iterdir()
    half = part.rename(kept / "part000001.orbax-checkpoint-tmp")
    shutil.rmtree(half / "state")
    assert_same(solve(folder=kept), whole)
    assert [each.name for each in kept.iterdir()] == ["part000001"]


# --- disks


def test_a_checkpoint_that_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path, whole, monkeypatch):
    folder, save = tmp_path / "ck", ArrayFolders.save

    def full_for_a_while(self, folder, document, **trees):
        if document["replicates"][0]["t"] < 5:
            raise CannotWrite("no space left on device")
        save(self, folder, document, **trees)

    monkeypatch.setattr(ArrayFolders, "save", full_for_a_while)
    with pytest.warns(RuntimeWarning) as said:
        interrupted(6, folder=folder, checkpoint_every=0.0)
    assert [str(each.message) for each in said] == [
        f"no checkpoint could be written to {folder}: no space left on device; the run goes on"
    ]
    assert_same(solve(folder=folder), whole)


LINE = ("solve", "run.toml", "-o", "a.nc", "--checkpoint", "ck")


@pytest.mark.thorough
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(folder):
    (folder / "a.nc").write_text("older")
    child = FORKED.Process(target=with_a_full_disk, args=(folder, LINE, 4096))
    child.start()
    child.join()
    warning, error = (folder / "printed").read_text().splitlines()
    assert warning.endswith("ck: file too large; the run goes on") and warning.startswith("kernelfield: no checkpoint")
    assert error == "kernelfield: a.nc could not be written: file too large" and child.exitcode == 1
    assert (folder / "a.nc").read_text() == "older" and not list((folder / "ck").iterdir())
    assert sorted(each.name for each in folder.iterdir()) == ["a.nc", "ck", "printed", "run.toml"]


def test_a_folder_that_is_gone_or_cannot_be_written_to_is_one_sentence(folder, capsys, monkeypatch):
    (folder / "out").mkdir()
    with after_step(1, lambda: shutil.rmtree("out", ignore_errors=True)):
        assert exit_code("solve", "run.toml", "-o", "out/a.nc") == 2
    assert capsys.readouterr().err == "kernelfield: the folder out for a.nc does not exist\n"

    def forbidden(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", forbidden)
    assert exit_code("solve", "run.toml", "-o", "a.nc") == 2
    assert capsys.readouterr().err == "kernelfield: the folder . cannot be written to: permission denied\n"


# --- the command line


def test_sigterm_stops_a_run_that_resume_finishes(folder, capsys):
    with after_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert exit_code(*LINE) == 130
    error = capsys.readouterr().err
    assert "after 1 of 3 steps (a.nc holds the steps that were computed; --resume goes on from ck)" in error
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert exit_code(*LINE) == 2 and "holds a checkpoint: resume from it" in capsys.readouterr().err
    assert exit_code(*LINE, "--resume", "--checkpoint-every", "60") == 0
    assert kf.load("a.nc").status.code == "ok"
    assert exit_code("solve", "run.toml", "-o", "b.nc", "--resume") == 2
    assert "resume needs checkpoint" in capsys.readouterr().err
