"""Architectures on the highest rungs: exact linear networks, lazy limits, and networks that are others in disguise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from kernelfield.layers import Activation, Bias, Conv, Dense, GlobalAveragePool, Readout, Residual, Sequential
from kernelfield.layers.base import Stateless
from kernelfield.theories.static_ntk import initial_kernels
from suites import keep_fast

RNG = np.random.default_rng(0)  # of the data below alone
Y = np.array([1.0, -0.7, 0.9])
SEQUENCES, IMAGES = kf.Problem(RNG.standard_normal((3, 4, 2)), Y), kf.Problem(RNG.standard_normal((3, 4, 4, 2)), Y)
VECTORS = kf.Problem(SEQUENCES.X[:, 0], Y)
TRAINING = kf.GradientDescent(learning_rate=0.4, steps=6)
PHI = Activation("erf")


def solved(network, problem, method=None, training=TRAINING, save_at=(-1,)):
    settings = {"save_at": save_at, "fields_at": (), "progress": False}
    return kf.solve(network, problem, training, method or kf.March(), **settings)


def everything(solution):
    layers = range(1, solution.network.hidden_layers + 1)
    kernels = [each for layer in layers for each in (solution.feature_kernel(layer), solution.gradient_kernel(layer))]
    return [solution.predictions, solution.ntk(), *kernels]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (kf.CNN(depth=2, activation="linear", padding="circular", stride=2, readout="flatten"), SEQUENCES),
        (kf.ResNet(depth=2, activation="linear"), VECTORS),
    ],
)
def test_linear_networks_are_exact(network, problem):
    """Two cubatures, from different signed unit vectors, agree to rounding."""
    one, other = (solved(network, problem, kf.March(seed=seed)) for seed in (0, 1))
    assert one.exact and not one.predictions_se.any()
    for here, there in zip(everything(one), everything(other), strict=True):
        np.testing.assert_allclose(here, there, atol=1e-10)
    wide = solved(network, problem, kf.FiniteWidth(width=256, seeds=16, kernels="none"))
    noise = np.linalg.norm(wide.predictions_se)
    assert np.linalg.norm(wide.predictions - one.predictions) < 2 * noise < 0.2 * np.linalg.norm(one.predictions)


LAZY = {
    "zero, flatten": (kf.CNN(depth=2, activation="erf", readout="flatten"), SEQUENCES),
    "circular, stride 2": (kf.CNN(depth=2, activation="erf", padding="circular", stride=2), IMAGES),
    "pooled": (kf.CNN(depth=2, activation="relu", pool=2), IMAGES),
    "residual": (kf.ResNet(depth=3, activation="relu"), VECTORS),
    "bias": (
        kf.Network(layers=[Conv(2), Bias(0.5), PHI, GlobalAveragePool(), Dense(), Bias(), PHI, Readout()]),
        SEQUENCES,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", keep_fast(LAZY, "bias", "residual"))
def test_the_lazy_recursion_is_the_kernel_of_wide_networks(name):
    """Oracle: the tangent kernel of networks at initialization by automatic differentiation, the mean over seeds."""
    network, problem = LAZY[name]
    X, width = jnp.asarray(network.inputs(problem)), 256

    def kernel(key):
        params, _ = network.layers.finite_init(key, X.shape[1:], width)
        outputs = jax.jacrev(lambda values: network.layers.finite_apply(values, X, lambda kind, x: x))(params)
        rows = jnp.concatenate([each.reshape(len(X), -1) for each in jax.tree.leaves(outputs)], axis=1)
        return width * rows @ rows.T

    found = np.asarray(jax.lax.map(kernel, jax.random.split(jax.random.key(0), 16)))
    truth, noise = initial_kernels(network, problem).ntk, found.std(axis=0, ddof=1) / 4
    assert np.linalg.norm(found.mean(axis=0) - truth) < 2 * np.linalg.norm(noise) + 0.01 * np.linalg.norm(truth)


@pytest.mark.thorough
def test_the_lazy_limit_of_the_march_is_the_static_kernel():
    network, problem = LAZY["residual"]
    small = network.model_copy(update={"gamma0": 1e-2})
    found, truth = (solved(small, problem, method) for method in (kf.March(particles=1024), kf.StaticNTK()))
    assert np.linalg.norm(found.predictions - truth.predictions) < 4 * np.linalg.norm(found.predictions_se)
    assert np.linalg.norm(found.ntk() - truth.ntk()) < 0.03 * np.linalg.norm(truth.ntk())


@pytest.mark.thorough
def test_a_convolution_of_one_pixel_is_fully_connected():
    few, pixels = kf.March(particles=128, replicates=2), kf.Problem(SEQUENCES.X[:, :1], Y)
    one, other = solved(kf.CNN(depth=2, kernel=1), pixels, few), solved(kf.MLP(depth=2), VECTORS, few)
    np.testing.assert_allclose(one.predictions, other.predictions, atol=1e-6)
    np.testing.assert_allclose(one.ntk(), other.ntk(), atol=1e-5)


@pytest.mark.thorough
def test_residual_branches_of_scale_zero_leave_one_layer():
    networks = kf.ResNet(depth=2, branch_scale=0.0), kf.MLP(depth=1)
    one, other = (solved(network, VECTORS, kf.March(kernels="none")) for network in networks)
    noise = np.hypot(np.linalg.norm(one.predictions_se), np.linalg.norm(other.predictions_se))
    assert np.linalg.norm(one.predictions - other.predictions) < 4 * noise + 1e-12


def test_what_cannot_be_a_network_is_said_in_one_sentence():
    dense, phi = Dense(), Activation("tanh")
    for layers, message in (
        ([phi, Dense(), Readout()], "the first layer of a network must be Dense or Conv"),
        ([Dense(), phi], "the last layer of a network, and no other, must be Readout"),
        (
            [Dense(), Residual(Sequential([phi, dense])), Residual(Sequential([phi, dense])), Readout()],
            "weights can be shared",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            kf.Network(layers=layers)
    for network, problem, message in (
        (kf.CNN(depth=1), VECTORS, "CNN needs X of shape"),
        (kf.CNN(depth=2, pool=3), SEQUENCES, "needs sites that its size divides"),
        (kf.Network(layers=[dense, phi, dense, Readout()]), VECTORS, "must act on a hidden layer"),
        (kf.Network(layers=[Conv(), Residual(Conv(stride=2)), Readout()]), SEQUENCES, "must keep its sites"),
    ):
        with pytest.raises(ValueError, match=message):
            solved(network, problem)
    with pytest.raises(ValueError, match="DeepLinear solves MLP, not ResNet: use March"):
        solved(kf.ResNet(depth=1, activation="linear"), VECTORS, kf.DeepLinear())


def test_recorded_tangent_kernels_are_kept(tmp_path):
    few = kf.March(particles=64, replicates=2)
    solution = solved(kf.CNN(depth=1), SEQUENCES, few, save_at=None)
    solution.save(tmp_path / "run.nc")
    again = kf.load(tmp_path / "run.nc")
    np.testing.assert_array_equal(again.kernel("NTK").values, solution.kernel("NTK").values)
    np.testing.assert_array_equal(again.ntk(2), solution.ntk(2))
    np.testing.assert_array_equal(solution.restricted([0, 2]).ntk(), solution.ntk()[np.ix_([0, 2], [0, 2])])
    np.testing.assert_allclose(solution.to_xarray().NTK.mean("replicate")[-1], solution.ntk())
    assert kf.compare(solution, again).row("NTK").error == 0
    with pytest.raises(ValueError, match="recorded at equal times"):
        solution.ntk(1, 2)


class Square(Stateless):
    """A layer of a user's own, which says nothing about itself."""


def test_a_network_is_linear_only_if_all_its_layers_say_so():
    assert kf.Network(layers=[Dense(), Bias(), Residual(Dense()), Readout()]).is_linear
    assert kf.Network(layers=[Conv(2), Activation("linear"), GlobalAveragePool(), Readout()]).is_linear
    for layer in (Square(), Residual(Square()), PHI):
        assert not kf.Network(layers=[Dense(), layer, Dense(), Readout()]).is_linear
