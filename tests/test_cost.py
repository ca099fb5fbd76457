"""Time and memory of a solve, before it runs."""

import jax
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield import march, memory
from kernelfield.cost import _at
from kernelfield.datasets import gaussian
from kernelfield.march import MarchRun
from kernelfield.replicate import bases

NETWORK, TRAINING = kf.MLP(depth=2, activation="tanh"), kf.GradientDescent(learning_rate=0.2, steps=4)
METHOD = kf.March(particles=128, replicates=2)


def test_the_state_is_as_large_as_it_is_said_to_be():
    run = MarchRun(METHOD, kf.MLP(depth=2, bias_scale=0.1), gaussian(4, 6), TRAINING, [0])
    run.march(lambda done, total: None)
    state = run.replicates[0].state
    assert run.state_bytes([len(basis.q) for basis in bases(state)]) == sum(x.nbytes for x in jax.tree.leaves(state))


def test_pilots_of_all_points_say_what_the_solve_finds():
    problem = gaussian(16, 20)
    found = kf.estimate(NETWORK, problem, TRAINING, METHOD, seconds=1000, progress=False)
    solution = kf.solve(NETWORK, problem, TRAINING, METHOD, progress=False)
    assert [pilot.points for pilot in found.pilots] == [8, 16]
    ranks = [*solution.info["feature_ranks"], *solution.info["gradient_ranks"]]
    assert sorted(found.directions) == pytest.approx(sorted(ranks), abs=3)  # in another order of points
    assert found.fits and found.advice is None and found.seconds == found.pilots[-1].seconds


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_power_laws_are_extrapolated_exactly(power):
    known = [2.0, 4.0, 8.0]
    assert _at(32.0, known, [x**power for x in known]) == pytest.approx(32.0**power)


def test_memory_that_is_not_there_is_refused_before_the_start(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 300_000)
    with pytest.raises(ValueError, match=r"need at least .* GiB of memory, of which .*: particles=32 would fit"):
        kf.solve(NETWORK, gaussian(4, 6), TRAINING, METHOD, progress=False)
    found = kf.estimate(kf.MLP(depth=1, activation="linear"), gaussian(4, 6), TRAINING, METHOD, progress=False)
    assert not found.fits


def test_rooms_are_those_that_bases_have():
    assert memory.rooms(40, [100, 10], 20, 256) == [(64, 64), (96, 64), (160, 64)]
    assert memory.rooms(40, [250, 230], 20, 256)[-1] == (256, 256)
    assert memory.smaller(1024, 4, 128, 0.3) == "particles=256"
    assert memory.smaller(1024, 4, 1024, 0.5) == "replicates=2"
    assert memory.smaller(1024, 4, 1024, 0.1) is None


def test_what_cannot_be_estimated_is_one_sentence():
    problem = gaussian(4, 6)
    with pytest.raises(ValueError, match="estimate is for methods on particles, March for instance, not StaticNTK"):
        kf.estimate(NETWORK, problem, TRAINING, kf.StaticNTK())
    with pytest.raises(ValueError, match="estimate knows what GradientDescent takes, not SGD"):
        kf.estimate(NETWORK, problem, kf.SGD(learning_rate=0.1, batch_size=2, epochs=2), METHOD)


def test_a_run_that_diverges_says_so():
    training = kf.GradientDescent(learning_rate=200.0, steps=30)
    with pytest.raises(kf.SolveError, match="diverged"):
        kf.estimate(kf.MLP(depth=2, activation="relu"), gaussian(4, 6), training, METHOD, progress=False)


def test_the_command_prints_time_and_memory(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text(
        '[data]\nsource = "gaussian"\npoints = 4\ndimensions = 6\n[network]\ndepth = 2\n'
        "[training]\nlearning_rate = 0.2\nsteps = 4\n[march]\nparticles = 128\nreplicates = 2\n"
    )
    assert exit_code("estimate", str(config)) == 0
    said = capsys.readouterr().out
    assert "to run" in said and "GiB of memory" in said and "from 4 points" in said


def test_linear_networks_that_need_more_particles_are_estimated_too(monkeypatch):
    """Their first cubature is made too small here."""
    monkeypatch.setattr(march, "multiple", lambda particles: 16)
    found = kf.estimate(kf.MLP(depth=2, activation="linear"), gaussian(4, 6), TRAINING, METHOD, progress=False)
    assert found.pilots[-1].particles > 16
