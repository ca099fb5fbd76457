"""Time and memory of a solve, before it runs."""

import math

import jax
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield import march, memory
from kernelfield.cost import Look, Pilot, _extrapolated, _pilot
from kernelfield.datasets import gaussian
from kernelfield.march import MarchRun
from kernelfield.replicate import bases
from kernelfield.room import rooms

NETWORK, TRAINING = kf.MLP(depth=2, activation="tanh"), kf.GradientDescent(learning_rate=0.2, steps=4)
METHOD = kf.March(particles=128, replicates=2)


def test_the_state_is_as_large_as_it_is_said_to_be():
    run = MarchRun(METHOD, kf.MLP(depth=2, bias_scale=0.1), gaussian(4, 6), TRAINING, [0])
    run.march(lambda done, total: None)
    state = run.replicates[0].state
    assert run.state_bytes([len(basis.q) for basis in bases(state)]) == sum(x.nbytes for x in jax.tree.leaves(state))


def test_pilots_of_all_points_say_what_the_solve_finds(monkeypatch):
    problem = gaussian(16, 20)
    monkeypatch.setattr(march, "SECONDS_BETWEEN_REPORTS", 0.0)
    found = kf.estimate(NETWORK, problem, TRAINING, METHOD, seconds=1000, progress=False)
    solution = kf.solve(NETWORK, problem, TRAINING, METHOD, progress=False)
    assert [pilot.points for pilot in found.pilots] == [8, 16]
    assert all([look.step for look in pilot.looks] == [1, 2, 3, 4] for pilot in found.pilots)
    ranks = [*solution.info["feature_ranks"], *solution.info["gradient_ranks"]]
    assert sorted(found.directions) == pytest.approx(sorted(ranks), abs=3)  # in another order of points
    assert found.fits and found.advice is None and found.seconds == found.pilots[-1].seconds


def pilot(points, particles, steps, growth, after=0.0):
    """A run that obeys the law of `cost`: directions grow in proportion, and seconds are products."""
    seconds, looks, counts = 3.0, [], None
    for step in steps:
        now = tuple(round(points * growth(step) * part) for part in (10, 20))
        if counts is not None:
            moved = points * (step - looks[-1].step) * (points + sum(now))
            met = sum(new * (new - old) for new, old in zip(now, counts, strict=True))
            seconds += particles * (2e-7 * moved + 3e-7 * met)
        looks.append(Look(step, seconds, now))
        counts = now
    return Pilot(points, particles, steps[-1], seconds + after, 0.0, tuple(looks))


def test_a_run_goes_on_as_a_smaller_one_did():
    """Exact if it does: directions and seconds from the first steps of one and all steps of the other."""

    def growth(step):
        return 1 + step / 10

    problem, training = gaussian(32, 20), kf.GradientDescent(learning_rate=0.2, steps=40)
    run = MarchRun(kf.March(particles=4096, replicates=2), NETWORK, problem, training, [0])
    steps = range(1, 41)
    whole, small = pilot(32, 4096, steps, growth, after=8.0), pilot(16, 2048, steps, growth, after=2.0)
    begun = pilot(32, 4096, steps[:5], growth)
    directions, seconds = _extrapolated([small, begun], run)
    assert directions == whole.directions and seconds == pytest.approx(whole.seconds)
    directions, seconds = _extrapolated([small], run)  # where the whole does not fit: as many times as there are points
    assert directions == whole.directions
    assert seconds == pytest.approx(whole.seconds - 3, rel=0.05)  # without what it takes to begin
    directions, _ = _extrapolated([begun], run)
    assert directions == begun.directions  # nothing is known of how it goes on


def test_a_run_without_directions_takes_time_too():
    """One hidden layer whose kernels nobody asks for."""
    network, training = kf.MLP(depth=1), kf.GradientDescent(learning_rate=0.2, steps=40)
    run = MarchRun(kf.March(kernels="none"), network, gaussian(32, 20), training, [0])
    small, begun = (pilot(32, 4096, range(1, last + 1), lambda step: 0) for last in (40, 5))
    assert _extrapolated([begun], run) == ((0, 0), pytest.approx(small.seconds))


def test_first_steps_and_a_smaller_run_say_how_many_directions_there_will_be():
    problem, training = gaussian(64, 20), kf.GradientDescent(learning_rate=0.2, steps=30)
    run = MarchRun(kf.March(particles=512, replicates=1), NETWORK, problem, training, [0])
    small = _pilot(run, gaussian(32, 20), 256, math.inf)
    begun = _pilot(run, problem, 512, 0.0)  # no seconds: as few steps as say anything
    assert small.steps == 30 and begun.steps < 30
    found, _ = _extrapolated([small, begun], run)
    solution = kf.solve(NETWORK, problem, training, run.settings, progress=False)
    ranks = [*solution.info["feature_ranks"], *solution.info["gradient_ranks"]]
    assert sum(begun.directions) < sum(found) == pytest.approx(sum(ranks), rel=0.3)


def test_memory_that_is_not_there_is_refused_before_the_start(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 300_000)
    with pytest.raises(ValueError, match=r"need at least .* GiB of memory, of which .*: particles=32 would fit"):
        kf.solve(NETWORK, gaussian(4, 6), TRAINING, METHOD, progress=False)
    found = kf.estimate(kf.MLP(depth=1, activation="linear"), gaussian(4, 6), TRAINING, METHOD, progress=False)
    assert not found.fits


def test_rooms_are_those_that_bases_have():
    assert rooms(40, [100, 10], 20, 256) == [(64, 64), (96, 64), (160, 64)]
    assert rooms(40, [250, 230], 20, 256)[-1] == (256, 256)
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
    assert "to run" in said and "GiB of memory" in said and "from 4 steps of 4 points" in said


def test_linear_networks_that_need_more_particles_are_estimated_too(monkeypatch):
    """Their first cubature is made too small here."""
    monkeypatch.setattr(march, "multiple", lambda particles: 16)
    found = kf.estimate(kf.MLP(depth=2, activation="linear"), gaussian(4, 6), TRAINING, METHOD, progress=False)
    assert found.pilots[-1].particles > 16
