"""Branches that see one field, side by side and as a product; weights that do not learn, and gates made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from ensembles import check_approach
from kernelfield.files.layers import layers_json, restore_layers
from kernelfield.layers import (
    Activation,
    Bias,
    Concatenate,
    Conv,
    Dense,
    GlobalAveragePool,
    Multiply,
    Readout,
    Residual,
    Sequential,
    stack_gated_layers,
)
from kernelfield.layers.base import Signal
from kernelfield.parameterization import to_mean_field
from kernelfield.theories.static_ntk import initial_kernels

VECTORS = kf.Problem(np.random.default_rng(0).standard_normal((3, 5)), [1.0, -0.7, 0.9])
TRAINING = kf.GradientDescent(learning_rate=0.5, steps=8)
TANH, ERF = Activation("tanh"), Activation("erf")


def solved(layers, method, training=TRAINING, save_at=(0, -1)):
    network = kf.Network(layers=layers)
    return kf.solve(network, VECTORS, training, method, progress=False, save_at=save_at, fields_at=())


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


# --- highest rung: networks that are others in disguise, and definitions


def test_linear_layers_side_by_side_are_one_layer():
    """Exact: a quarter and three quarters of the neurons, those with three components, are all of them."""
    split = [Dense(width=0.25), Dense(width=0.75, components=3)]
    every = [Dense(), Concatenate(split), Readout()], [Dense(), Dense(), Readout()]
    one, other = (solved(layers, kf.March(kernels="none"), save_at=()) for layers in every)
    assert one.exact
    np.testing.assert_allclose(one.predictions, other.predictions, atol=1e-12)
    biased = [Dense(), Concatenate([split[0], Sequential([split[1], Bias()])]), Readout()]
    kernels = [initial_kernels(kf.Network(layers=layers), VECTORS).ntk for layers in (biased, every[1])]
    np.testing.assert_allclose(kernels[0] - kernels[1], 0.75, atol=1e-12)  # the share of neurons with a bias


@pytest.mark.parametrize("kind", [Multiply, Concatenate])
def test_fields_are_joined_and_gradients_are_those_of_the_joined_field(kind, x64):
    layer, rng = kind([TANH, Sequential([]), Sequential([ERF, TANH])]), np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, 3, 4)))
    _, found, trace = layer.forward((None, (), (None, None)), x, None)
    parts = [np.tanh(x), x, np.tanh(jax.scipy.special.erf(x))]
    expected = parts[0] * parts[1] * parts[2] if kind is Multiply else np.concatenate(parts, axis=-1)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(layer.finite_apply((None, (), (None, None)), x, lambda kind, x: x), expected)
    chi, step = rng.standard_normal(found.shape), 1e-6 * rng.standard_normal(x.shape)
    _, down, _ = layer.backward((None, (), (None, None)), jnp.asarray(chi), trace, None, Signal(None))
    there, here = (layer.forward((None, (), (None, None)), x + sign * step, None)[1] for sign in (1, -1))
    np.testing.assert_allclose(np.sum(down * step), np.sum(chi * (there - here)) / 2, rtol=1e-6)


# --- the lazy limit, and learning against finite networks


@pytest.mark.thorough
def test_branches_begin_with_the_static_kernel_and_finite_networks_approach_them():
    def layers(one, other):
        branches = [[Dense(width=one / 4, components=one), TANH], [Dense(width=other / 4, components=other), Bias(1.0)]]
        product = Multiply([Sequential([]), Sequential([Dense(), TANH])])
        return [Dense(), product, Concatenate(list(map(Sequential, branches))), Readout()]

    march = solved(layers(3, 1), kf.March(particles=512, replicates=4))
    initial, wrong = (initial_kernels(kf.Network(layers=layers(*shares)), VECTORS) for shares in ((3, 1), (1, 3)))

    def count_errors(truth, *quantity):
        found = march.estimate(*quantity)
        return np.linalg.norm(found.mean - truth) / np.linalg.norm(found.se)

    for layer in range(1, 5):
        assert count_errors(initial.Phi[layer], "feature_kernel", layer, 0) < 3
        assert count_errors(initial.G[layer - 1], "gradient_kernel", layer, 0) < 3
    assert count_errors(initial.ntk, "ntk", 0) < 3 < 6 < count_errors(wrong.ntk, "ntk", 0)
    check_approach(march, lambda method: solved(layers(3, 1), method), range(1, 5))


def train_gated(N, seeds, gates_learn=False):
    """f (seeds, steps + 1, P) of plain gated linear networks of two layers, with gates of the data."""
    X, y = jnp.asarray(VECTORS.X, jnp.float32), jnp.asarray(VECTORS.y, jnp.float32)

    def output(params, gates):
        M1, M2 = (jax.nn.sigmoid(X @ m.T / np.sqrt(X.shape[1])) for m in gates)
        W1, W2, w = params
        return (M2 * ((M1 * (X @ W1.T / np.sqrt(X.shape[1]))) @ W2.T / np.sqrt(N))) @ w / N

    def train(key):
        shapes = [(N, X.shape[1]), (N, N), (N,), (2, N, X.shape[1])]
        *params, gates = map(jax.random.normal, jax.random.split(key, 4), shapes)
        start = output(params, gates)

        def loss(weights):
            f = output(*weights) - start
            return jnp.mean((f - y) ** 2) / 2, f

        def step(weights, _):
            slopes, f = jax.grad(loss, has_aux=True)(weights)
            slopes = slopes if gates_learn else (slopes[0], jnp.zeros_like(gates))
            return jax.tree.map(lambda W, slope: W - 0.5 * N * slope, weights, slopes), f

        return jax.lax.scan(step, (params, gates), None, length=9)[1]

    return np.asarray(jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1), seeds)))


@pytest.mark.thorough
def test_plain_gated_linear_networks_of_growing_width_approach_the_march():
    layers = [Dense(learns=False), stack_gated_layers(2, jax.nn.sigmoid), Readout()]
    truth = solved(layers, kf.March(particles=1024, replicates=4, kernels="none")).estimate("predictions")

    def compare(f):
        noise = np.sqrt(np.sum(f.var(axis=0, ddof=1) / len(f) + truth.se**2)) / np.linalg.norm(truth.mean)
        return distance(f.mean(axis=0), truth.mean), noise

    narrow, wide = (compare(train_gated(N, 32)) for N in (8, 128))
    assert wide[0] < 2 * wide[1] and wide[0] < 0.5 * narrow[0]
    control = compare(train_gated(128, 32, gates_learn=True))
    assert control[0] > 4 * control[1]


def test_weights_that_do_not_learn_have_no_derivative_and_no_learning_rate():
    gate = Sequential([Dense(learns=False), ERF])
    network = kf.Network(layers=[Dense(), Multiply([Dense(), gate]), Readout()])
    layers, X = network.layers, jnp.asarray(VECTORS.X)
    params = layers.finite_init(jax.random.key(0), (5,), 8)[0]
    slopes = jax.grad(lambda params: layers.finite_apply(params, X, lambda kind, x: x).sum())(params)
    assert [bool(slope.any()) for slope in jax.tree.leaves(slopes)] == [True, True, False, True]
    rows = to_mean_field(network, VECTORS, TRAINING, 8)
    assert [row.learning_rate > 0 for row in rows] == [True, True, False, True]
    decay = kf.GradientDescent(learning_rate=0.5, steps=1, weight_decay=0.1)
    with pytest.raises(ValueError, match="no learning rate here for weight decay"):
        to_mean_field(network, VECTORS, decay, 8)


# --- use


def test_branches_are_stored():
    gated = stack_gated_layers(2, "softplus")
    halves = Concatenate([Dense(width=0.5), Sequential([Dense(width=0.5), TANH])])
    layers = Sequential([Dense(learns=False), gated, Residual(Sequential([TANH, Dense()])), halves, Readout()])
    assert restore_layers(layers_json(layers)) == layers


def test_what_does_not_fit_is_said_in_one_sentence():
    dense, sequences = Dense(), kf.Problem(np.ones((3, 4, 2)), VECTORS.y)
    for make, message in (
        (lambda: Multiply([dense]), "Multiply needs two branches at least"),
        (lambda: Concatenate([dense, Sequential([dense])]), "shared within one branch"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    few = kf.March(particles=64, replicates=2)
    for layers, problem, message in (
        ([Dense(), Multiply([Dense(), Dense(width=2.0)]), Readout()], VECTORS, "must make the same width"),
        ([Conv(1), Concatenate([Conv(1), GlobalAveragePool()]), Readout()], sequences, "must make the same sites"),
        ([Dense(), Concatenate([Dense(), Dense(width=2.0)]), Readout()], VECTORS, "widths as their components"),
    ):
        with pytest.raises(ValueError, match=message):
            kf.solve(kf.Network(layers=layers), problem, TRAINING, few, progress=False)
    with pytest.raises(ValueError, match="must make the same shape"):
        solved([Dense(), Multiply([Dense(), Dense(width=2.0)]), Readout()], kf.FiniteWidth(width=4, seeds=2))
    mixed = Sequential([Dense(), Concatenate([Dense(width=0.5), Sequential([Dense(width=0.5), TANH])])])
    for layer, message in (
        (Multiply([Sequential([]), TANH]), "at most one without"),
        (Multiply([mixed, Dense()]), "neurons of one law"),
        (Concatenate([Sequential([]), Dense()]), "which say how wide they are"),
    ):
        with pytest.raises(ValueError, match=message):
            initial_kernels(kf.Network(layers=[Dense(), layer, Readout()]), VECTORS)


def test_the_size_of_the_vocabulary_changes_no_kernel():
    """Ids that do not occur cost memory alone: the kernel of two places is (same token + same position) / 2."""
    ids, y = np.array([[3, 0, 3], [0, 3, -1]]), [1.0, -1.0]
    few, many = (kf.Problem(ids, y, vocabulary=V).X for V in (4, 40))
    kernels = [np.tensordot(X, X, axes=(-1, -1)) / X.shape[-1] for X in (few, many)]
    np.testing.assert_allclose(*kernels, atol=1e-14)
    same = (ids[..., None, None] == ids) + np.eye(3)[:, None]
    present = (ids >= 0)[..., None, None] & (ids >= 0)
    np.testing.assert_allclose(kernels[0], present * same / 2, atol=1e-14)
