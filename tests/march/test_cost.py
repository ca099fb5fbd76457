"""Time and memory of a solve, before it runs."""

import jax
import numpy as np
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield.datasets import gaussian
from kernelfield.describe.run import Run
from kernelfield.march.cost import bytes_of, count
from kernelfield.march.layout import Layout
from kernelfield.march.replicate import Replicate

TRAINING = kf.GradientDescent(learning_rate=0.2, steps=4)
METHOD = kf.March(particles=1024, replicates=2)
NETWORKS = {
    "deep": (kf.MLP(depth=3, bias_scale=0.1), gaussian(6, 8)),
    "convolution": (
        kf.CNN(depth=2, pool=2),
        kf.Problem(np.random.default_rng(0).standard_normal((3, 4, 2)), np.ones(3)),
    ),
    "residual": (kf.ResNet(depth=2), gaussian(6, 8)),
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_state_is_as_large_as_it_is_said_to_be(name, momentum):
    network, problem = NETWORKS[name]
    run = Layout(Run(network, problem, kf.GradientDescent(learning_rate=0.2, steps=4, momentum=momentum), METHOD))
    layers = Replicate(run, 0).state.layers
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(layers))
    assert count(run).state * run.particles * 4 == pytest.approx(held, rel=0.06)  # biases, tails


def test_products_are_those_of_the_compiled_step():
    """Oracle: what XLA counts, for many points, where all else is little."""
    network, problem = kf.MLP(depth=2), gaussian(128, 40)
    run = Layout(Run(network, problem, TRAINING, kf.March(particles=1024, kernels="none")))
    with jax.enable_x64(True):
        replicate = Replicate(run, 0)
        layers, constants = replicate.state.layers, replicate.constants

        def learns(layers, data, y):
            layers, passed = run.step.forward(layers, data, None)
            layers, passed = run.step.backward(layers, passed, y, None)
            return run.step.update(layers, passed, constants.weights.astype(data.dtype))

        compiled = jax.jit(learns).lower(layers, constants.data, constants.y).compile()
    counted = 2 * count(run).products * run.particles
    assert counted == pytest.approx(compiled.cost_analysis()["flops"], rel=0.2)


def test_time_grows_with_points_and_steps_and_not_with_the_data_of_batches():
    def seconds(points, steps=10, **settings):
        problem = gaussian(points, 20)
        training = (
            kf.SGD(batch_size=16, epochs=1, learning_rate=0.1)
            if settings
            else TRAINING.model_copy(update={"steps": steps})
        )
        return count(Layout(Run(kf.MLP(depth=2), problem, training, METHOD))).products

    assert seconds(200) == 2 * seconds(100)
    assert seconds(200, batches=True) == seconds(100, batches=True)
    cost, longer = (
        kf.estimate(kf.MLP(depth=2), gaussian(40, 20), TRAINING.model_copy(update={"steps": steps}), METHOD)
        for steps in (10, 1000)
    )
    assert longer.seconds > 20 * cost.seconds > 0 and cost.fits and cost.advice is None


def test_a_run_that_does_not_fit_is_refused_before_it_starts_and_the_estimate_says_what_would_fit(monkeypatch):
    problem, network = gaussian(8, 10), kf.MLP(depth=2)
    needed = bytes_of(Layout(Run(network, problem, TRAINING, METHOD, fields_at=(0, 4))))
    monkeypatch.setattr("kernelfield.march.cost.available", lambda: needed // 2)
    with pytest.raises(ValueError, match=r"particles=1024 and replicates=2 need about .*: particles=512 would fit"):
        kf.solve(network, problem, TRAINING, METHOD)
    cost = kf.estimate(network, problem, TRAINING, METHOD)
    assert not cost.fits and cost.advice


def test_what_cannot_be_estimated_is_named():
    problem = gaussian(4, 6)
    with pytest.raises(ValueError, match="estimate is for methods on particles, March for instance, not StaticNTK"):
        kf.estimate(kf.MLP(depth=1), problem, TRAINING, kf.StaticNTK())
    with pytest.raises(ValueError, match="not GradientFlow, which chooses its steps"):
        kf.estimate(kf.MLP(depth=1), problem, kf.GradientFlow(time=1.0))


def test_the_command_prints_an_estimate(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text(
        "[data]\nsource = 'gaussian'\npoints = 4\ndimensions = 6\n"
        "[network]\ndepth = 2\n[training]\nlearning_rate = 0.2\nsteps = 4\n[march]\nparticles = 64\n"
    )
    assert exit_code("estimate", str(config)) == 0
    out = capsys.readouterr().out
    assert "to run" in out and "GiB of memory" in out and "GFLOP/s" in out
