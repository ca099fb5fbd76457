"""Conditioned networks are networks of finite width: explicit weights that agree with all they drew train the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from kernelfield.describe.problem import InputAxes
from kernelfield.describe.run import Run
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, collect
from kernelfield.finite.conditioned import ROUNDING, Conditioned
from kernelfield.finite.method import Ensemble
from kernelfield.layers import Activation, Bias, Conv, Dense, GlobalAveragePool, MultiHeadAttention, Readout, RMSNorm
from kernelfield.march.particle_run import ParticleRun
from kernelfield.march.recorder import learned_uses
from suites import thorough

SHARED, TANH = Dense(), Activation("tanh")
HEADS = Conv(kernel=1, components=6, width=3), MultiHeadAttention()
NETWORKS = {
    "tanh": kf.MLP(depth=3, activation="tanh", gamma0=1.5),
    "relu": kf.MLP(depth=2, activation="relu", gamma0=1.0),
    "linear": kf.MLP(depth=2, activation="linear", gamma0=1.0),
    "cnn": kf.Network(layers=[Conv(), TANH, Conv(scale=1.3), TANH, Dense(), Bias(), TANH, Readout()]),
    "residual": kf.ResNet(depth=3, activation="tanh", gamma0=1.0),
    "shared": kf.Network(layers=[Dense(), TANH, SHARED, TANH, SHARED, TANH, Readout()]),
    "widths": kf.Network(
        layers=[Dense(width=2), TANH, Dense(width=0.5, multiplies="weight", scale=1.4), TANH, Dense(), TANH, Readout()]
    ),
    "attention": kf.Network(
        layers=[Conv(kernel=1), RMSNorm(), *HEADS, Conv(kernel=1), TANH, GlobalAveragePool(), Readout()]
    ),
}
RULES = {
    "momentum and decay": kf.GradientDescent(learning_rate=0.1, steps=8, momentum=0.5, weight_decay=0.2),
    "batches": kf.SGD(learning_rate=0.2, epochs=3, batch_size=2, weight_decay=0.1),
}


def make_problem(name, outputs=None, weights=None):
    rng, points = np.random.default_rng(3), 4
    X = rng.standard_normal((points, 5, 6) if name in ("cnn", "attention") else (points, 8))
    return kf.Problem(X, rng.standard_normal((points, outputs) if outputs else points), weights=weights)


def conditioned_run(name, training, width, **more):
    method = Conditioned(particles=width, replicates=1, precision="double", tol=ROUNDING["double"], kernels="none")
    particles = ParticleRun(Run(NETWORKS[name], make_problem(name, **more), training, method))
    assert particles.march(lambda done, total: None).code == "ok"
    return particles


def consistent_weights(particles):
    """Returns the weights of an explicit network that agrees with everything a conditioned one drew.

    A matrix is W = Y E^T + D X^T - D D^T Y E^T + (1 - D D^T) W' (1 - E E^T), with the orthonormal directions E and D of
    both sides, the images Y = W E and X = W^T D, and a fresh Gaussian W'.
    """
    rng, run = np.random.default_rng(0), particles.run
    axes = InputAxes(particles.layout.axes).basis(run.network.inputs(run.problem))
    states, weights = collect(particles.replicates[0].state.layers, (InfiniteMatrix, Images)), {}
    for place, layer, _ in learned_uses(run.network.layers, None):
        state = states[place]
        if isinstance(state, InfiniteMatrix):
            sides = state.below, state.above
            E, D = (np.asarray(side.q)[: int(side.size)].T / np.sqrt(side.q.shape[1]) for side in sides)
            blocks = []
            for up, down in zip(np.asarray(state.up.K), np.asarray(state.down.K), strict=True):
                Y, X, W = up[: E.shape[1]].T, down[: D.shape[1]].T, rng.standard_normal((len(D), len(E)))
                W = W - D @ (D.T @ W)
                blocks.append(W - (W @ E) @ E.T + Y @ E.T + D @ X.T - D @ (D.T @ Y) @ E.T)
            W = np.concatenate(blocks, axis=1)
        elif place == 0:
            W = np.concatenate([rows.T @ axes for rows in np.asarray(state.K)], axis=1)
        else:
            W = np.asarray(state.K)
        scale = 1.0 if getattr(layer, "multiplies", "") == "weight" else layer.scale
        weights[place] = scale * (W.T if isinstance(layer, Conv) else W)
    return list(weights.values())


def explicit_outputs(particles, weights):
    """Returns f (T + 1, P, C) of the explicit network with these weights."""
    run = replace(particles.run, method=kf.FiniteWidth(width=particles.layout.particles, seeds=1, precision="float64"))
    with jax.enable_x64(True):
        ensemble = Ensemble(run)
        network, constants = ensemble.network, ensemble.constants
        state = network.start(constants, jnp.zeros(1, jnp.uint32))
        leaves, tree = jax.tree.flatten(state.params)
        params = [values.reshape(leaf.shape) for leaf, values in zip(leaves, weights, strict=True)]
        state, stop = state._replace(params=tree.unflatten(params)), jnp.asarray(run.steps + 1)
        now = network.advance(constants, state, jnp.asarray(0), stop, ensemble._next_updates())
        return np.asarray(now.records.f)[: run.steps + 1, 0]


def outputs(particles):
    return np.concatenate(particles.replicates[0].outputs)


@pytest.mark.parametrize(
    "name",
    ["tanh", "widths", *map(thorough, ("cnn", "attention"))],
)
def test_explicit_weights_that_agree_with_what_was_drawn_train_to_the_same_outputs(name):
    particles = conditioned_run(name, kf.GradientDescent(learning_rate=0.3, steps=8), width=48)
    f, weights = outputs(particles), consistent_weights(particles)
    assert np.abs(f).max() > 0.1
    np.testing.assert_allclose(f, explicit_outputs(particles, weights), atol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "weights"), [("momentum and decay", None), ("momentum and decay", [1.0, 1.0, 1.0, 0.0]), ("batches", None)]
)
def test_so_do_other_rules_several_outputs_and_points_that_only_ride_along(rule, weights):
    particles = conditioned_run("tanh", RULES[rule], width=64, outputs=2, weights=weights)
    f = outputs(particles)
    np.testing.assert_allclose(f, explicit_outputs(particles, consistent_weights(particles)), atol=1e-10)


def test_networks_that_leave_out_more_are_other_networks():
    """The control: what a looser tolerance leaves out is seen."""
    data, training = make_problem("tanh"), kf.GradientDescent(learning_rate=0.3, steps=8)
    method = Conditioned(particles=48, replicates=1, precision="double", tol=1e-3, kernels="none")
    particles = ParticleRun(Run(NETWORKS["tanh"], data, training, method))
    assert particles.march(lambda done, total: None).code == "ok"
    apart = np.abs(outputs(particles) - explicit_outputs(particles, consistent_weights(particles))).max()
    assert 1e-6 < apart < 0.1


@pytest.mark.thorough
def test_it_is_chosen_where_it_is_faster():
    def algorithm(points, training=None, **settings):
        X = np.random.default_rng(0).standard_normal((points, 6))
        rule = training or kf.GradientDescent(learning_rate=0.1, steps=1)
        method = kf.FiniteWidth(seeds=2, kernels="none", **settings)
        info = kf.solve(kf.MLP(depth=1), kf.Problem(X, X[:, 0]), rule, method, fields_at=(), progress=False).info
        return "conditioned" if "seconds_compress" not in info else "explicit"

    assert algorithm(2, width=4096) == "conditioned" and algorithm(2, width=2048) == "explicit"
    assert algorithm(200, width=4096) == "explicit"
    assert algorithm(2, width=4096, algorithm="explicit") == "explicit"
    assert algorithm(2, width=32, algorithm="conditioned") == "conditioned"
    assert algorithm(2, kf.GradientFlow(time=0.1, steps=1), width=4096) == "explicit"


@pytest.mark.parametrize(
    ("training", "message"),
    [(kf.GradientFlow(time=1.0, steps=2), "algorithm='conditioned' solves GradientDescent and SGD, not GradientFlow")],
)
def test_what_it_does_not_solve_is_said(training, message):
    method = kf.FiniteWidth(width=64, seeds=2, algorithm="conditioned")
    with pytest.raises(ValueError, match=message):
        kf.solve(NETWORKS["tanh"], make_problem("tanh"), training, method, progress=False)


def test_widths_must_make_whole_layers_and_new_points_are_refused():
    rule, method = (
        kf.GradientDescent(learning_rate=0.1, steps=1),
        kf.FiniteWidth(width=63, seeds=2, algorithm="conditioned"),
    )
    with pytest.raises(ValueError, match="width=63 must give all layers whole numbers of neurons"):
        kf.solve(NETWORKS["widths"], make_problem("widths"), rule, method, progress=False)
    solution = kf.solve(NETWORKS["tanh"], make_problem("tanh"), rule, method, progress=False)
    with pytest.raises(ValueError, match="FiniteWidth left no state to predict from"):
        solution.predict(np.zeros((1, 8)))
