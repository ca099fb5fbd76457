"""Particles with components and functions of them: attention, norms, gates, and the transformers made of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
import plain_transformers as plain
from kernelfield.describe.problem import encode_tokens
from kernelfield.layers import (
    Activation,
    Bias,
    Conv,
    Dense,
    Gain,
    GlobalAveragePool,
    LayerNorm,
    MaxPool,
    MeanAttention,
    MultiHeadAttention,
    Particlewise,
    Readout,
    Residual,
    RMSNorm,
    Sequential,
    SwiGLU,
    TokenPool,
)
from kernelfield.layers.base import Signal
from kernelfield.theories.static_ntk import initial_kernels
from transformers import CASES, WithoutResponses, data, distance, infinite, network

TOKENS = data(points=4, positions=3)
VECTORS = kf.Problem(np.random.default_rng(0).standard_normal((3, 5)), [1.0, -0.7, 0.9])
TRAINING = kf.GradientDescent(learning_rate=0.2, steps=4)
TANH = Activation("tanh")
HEADS = [Conv(1, components=6, width=3.0), MultiHeadAttention(2), Conv(1)]
POOLED = [GlobalAveragePool(), Readout()]


def solved(layers, problem=TOKENS, method=None, gamma0=1.0, training=TRAINING, **settings):
    made = layers if isinstance(layers, kf.Transformer) else kf.Network(layers=layers, gamma0=gamma0)
    method = method or kf.March(particles=256, replicates=2)
    return kf.solve(made, problem, training, method, progress=False, **settings)


# --- highest rung: networks that are others in disguise


@pytest.mark.thorough
def test_components_are_neurons_to_weights():
    """Exact: linear layers of three components and thrice the width, as an MLP of these widths."""
    layers = [Dense(components=3, width=3.0), Dense(components=2), Readout()]
    other = kf.MLP(depth=2, activation="linear", widths=[3, 1])
    one, two = solved(layers, VECTORS), kf.solve(other, VECTORS, TRAINING, progress=False)
    assert one.exact
    np.testing.assert_allclose(one.predictions, two.predictions, atol=1e-12)
    for layer in (1, 2):
        np.testing.assert_allclose(one.feature_kernel(layer), two.feature_kernel(layer), atol=1e-12)
        np.testing.assert_allclose(one.gradient_kernel(layer), two.gradient_kernel(layer), atol=1e-12)


@pytest.mark.thorough
def test_sampled_components_are_neurons_to_weights():
    """Tails and responses know the numbers of neurons, which do not follow the components here."""
    method = kf.March(particles=1024, replicates=8, kernels="features")
    training = kf.GradientDescent(learning_rate=0.5, steps=10)
    layers = [Dense(components=2, width=1.0), TANH, Dense(components=3), TANH, Readout()]
    one = solved(layers, VECTORS, method, 1.5, training)
    two = kf.solve(kf.MLP(depth=2, gamma0=1.5), VECTORS, training, method, progress=False)
    for name, arguments in (("predictions", ()), ("feature_kernel", (2,))):
        a, b = one.estimate(name, *arguments), two.estimate(name, *arguments)
        assert np.linalg.norm(a.mean - b.mean) < 2 * np.sqrt(np.sum(a.se**2) + np.sum(b.se**2)), name
        assert np.linalg.norm(a.se) < 0.02 * np.linalg.norm(a.mean)


@pytest.mark.thorough
def test_a_function_of_every_particle_is_an_activation():
    one, two = (solved([Dense(), phi, Dense(), phi, Readout()], VECTORS) for phi in (TANH, Particlewise(jnp.tanh)))
    np.testing.assert_allclose(one.predictions, two.predictions, atol=2e-6)
    np.testing.assert_allclose(one.ntk(), two.ntk(), atol=2e-5)


@pytest.mark.thorough
def test_attention_to_one_position_is_its_value():
    alone = kf.Problem(TOKENS.X[:, :1], TOKENS.y)
    value = Particlewise(lambda h: h[:, :, 4:], components=6)
    bare = kf.March(particles=256, replicates=2, kernels="none")
    one, two = (
        solved([Conv(1), Residual(Sequential(branch)), *POOLED], alone, bare, fields_at=())
        for branch in (HEADS, [HEADS[0], value, Conv(1)])
    )
    np.testing.assert_allclose(one.predictions, two.predictions, atol=2e-6)


@pytest.mark.parametrize(
    ("layer", "components", "sites"),
    [
        (MultiHeadAttention(2), 6, (3,)),
        (MultiHeadAttention(1, causal=True), 3, (3,)),
        (MeanAttention(2.0, causal=True), 3, (3,)),
        (LayerNorm(), 1, (3,)),
        (RMSNorm(), 2, ()),
        (SwiGLU(), 2, ()),
        (MaxPool(2), 1, (4,)),
    ],
)
def test_the_layers_are_their_definitions(layer, components, sites, x64):
    """Against NumPy, particle by particle; and what goes down is the derivative of what goes up."""
    rng = np.random.default_rng(1)
    h = rng.standard_normal((2, *sites, components, 4))
    flat = jnp.asarray(h.reshape(2, *sites, -1))
    _, found, trace = layer.forward(None, flat, None)
    chi = jnp.asarray(rng.standard_normal(found.shape))
    _, down, _ = layer.backward(None, chi, trace, None, Signal(None))
    step = 1e-6 * rng.standard_normal(flat.shape)
    change = layer.forward(None, flat + step, None)[1] - layer.forward(None, flat - step, None)[1]
    np.testing.assert_allclose(np.sum(down * step), np.sum(chi * change) / 2, rtol=1e-6)

    def softmax(logits):
        sees = np.tri(len(logits), dtype=bool) if getattr(layer, "causal", False) else np.ones((3, 3), bool)
        weights = np.exp(logits) * sees
        return weights / weights.sum(axis=1, keepdims=True)

    match layer:
        case MultiHeadAttention(head_dim=d):
            expected = np.empty((2, 3, d, 4))
            for sample, head in np.ndindex(2, 4):
                q, k, v = np.split(h[sample, :, :, head], 3, axis=1)
                expected[sample, :, :, head] = softmax(q @ k.T / np.sqrt(d)) @ v
        case MeanAttention(scale=scale):
            q, k, v = np.moveaxis(h, 2, 0)
            expected = np.stack([softmax(scale * a @ b.T / 4) @ c for a, b, c in zip(q, k, v, strict=True)])
        case RMSNorm():
            x = h - h.mean(axis=(-2, -1), keepdims=True) if isinstance(layer, LayerNorm) else h
            expected = x / np.sqrt(np.mean(x**2, axis=(-2, -1), keepdims=True) + 1e-5)
        case SwiGLU():
            expected = h[:, 0] / (1 + np.exp(-h[:, 0])) * h[:, 1]
        case MaxPool():
            expected = np.maximum(h[:, ::2], h[:, 1::2])
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["two blocks, last, gamma0 = 2", "SwiGLU"])
def test_the_finite_network_is_the_plain_one_with_the_same_weights(name):
    blocks, readout, gamma0, _ = CASES[name]
    layers, N = network(blocks, readout, gamma0).layers, 8
    params = layers.finite_init(jax.random.key(0), TOKENS.X.shape[1:], N)[0]
    params = jax.tree.map(lambda each: each if each.any() else 0.1 * jnp.arange(each.size), params)
    leaves = iter(jax.tree.leaves(params))
    plainly = []
    for block, own in zip(blocks, plain.init(blocks, TOKENS.X.shape[-1], N, jax.random.key(1))[0], strict=True):
        own = dict(own)
        if block[-1] == "layer":
            own["gain"], own["bias"] = 1 + next(leaves), next(leaves)
        match block:
            case ("embed",):
                own["W"] = next(leaves).T
            case ("heads", d, *_):
                below = next(leaves).T.reshape(3, d, N // d, N)  # component by component
                own |= dict(zip("QKV", below.swapaxes(1, 2), strict=True))
                own["O"] = next(leaves).T.reshape(N, d, N // d).swapaxes(1, 2)
            case ("hidden", *_):
                own |= {"W1": next(leaves).T, "W2": next(leaves).T}
            case ("gate", *_):
                own["W1"], own["W3"] = next(leaves).T.reshape(2, N, N)
                own["W2"] = next(leaves).T
        plainly.append(own)
    expected, _ = plain.output(blocks, readout, (plainly, next(leaves)[0]), jnp.asarray(TOKENS.X, jnp.float32))
    found = layers.finite_apply(params, jnp.asarray(TOKENS.X, jnp.float32), lambda kind, x: x)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-6)


# --- the lazy limit

LAZY = {
    "heads": [Conv(1), Residual(Sequential(HEADS)), *POOLED],
    "mean attention": [
        Conv(1),
        Residual(Sequential([Conv(1, components=3, width=3.0), MeanAttention(), Conv(1)])),
        *POOLED,
    ],
    "norms": [Conv(1), LayerNorm(), Gain(), Bias(), Conv(1), TANH, Conv(1), RMSNorm(), Gain(), *POOLED],
    "gate": [Conv(1, components=2, width=2.0), SwiGLU(), Conv(1), TokenPool(last=True), Readout()],
    "gain on values": [Conv(1, components=6, width=3.0), MultiHeadAttention(2), Gain(), Conv(1), *POOLED],
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["norms", "gain on values"])
def test_the_march_begins_with_the_static_kernel(name):
    made = kf.Network(layers=LAZY[name])
    initial = initial_kernels(made, TOKENS)
    method = kf.March(particles=2048, replicates=4)
    march = kf.solve(made, TOKENS, TRAINING, method, save_at=[0], fields_at=(), progress=False)
    found = [march.ntk(0), *(march.feature_kernel(1 + n, 0) for n in range(len(initial.Phi) - 1))]
    found += [march.gradient_kernel(1 + n, 0) for n in range(len(initial.G) - 1)]
    for kernel, truth in zip(found, [initial.ntk, *initial.Phi[1:], *initial.G[:-1]], strict=True):
        assert np.linalg.norm(kernel - truth) < 0.02 * np.linalg.norm(truth)


@pytest.mark.thorough
def test_sampled_static_kernels_have_replicates_and_others_are_exact():
    lazy = solved(LAZY["heads"], method=kf.StaticNTK())
    assert not lazy.exact and lazy.replicate_predictions.shape[0] == 4
    assert solved(LAZY["norms"], method=kf.StaticNTK()).exact


def test_lazy_limits_that_are_not_known_are_refused():
    for layers in ([Dense(), TANH, TANH, Readout()], [Conv(1), *HEADS[:2], TANH, *POOLED]):
        with pytest.raises(ValueError, match="the lazy limit of Activation is known for Gaussian fields"):
            solved(layers, VECTORS if isinstance(layers[0], Dense) else TOKENS, kf.StaticNTK())
    with pytest.raises(ValueError, match="the lazy limit of a Gain directly below Activation is not known"):
        solved([Dense(), Gain(), Bias(), TANH, Readout()], VECTORS, kf.StaticNTK())
    with pytest.raises(ValueError, match="the lazy limit of a Gain directly below Activation is not known"):
        solved([Dense(), Gain(), Residual(Dense()), TANH, Readout()], VECTORS, kf.StaticNTK())


# --- learning, against plain finite networks


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["heads of d = 2, causal"])
def test_plain_networks_of_growing_width_approach_the_march(name):
    def numbers(one, other):
        return [float(part.strip(" ()%")) for cell in distance(one, other).split("|") for part in cell.split("(")]

    problem, (blocks, readout, gamma0, eta) = data(), CASES[name]
    truth, _ = infinite(name, problem, 10, kf.March(particles=1024, replicates=4, kernels="features"))
    rule = {"eta": eta, "steps": 10, "gamma0": gamma0, "readout": readout}
    narrow, wide = (plain.train(blocks, problem.X, problem.y, N, 24, **rule) for N in (8, 64))
    f, f_noise, kernels, kernel_noise = numbers(wide, truth)
    assert f < 2 * f_noise and kernels < 2 * kernel_noise
    assert f < numbers(narrow, truth)[0]
    control, _ = infinite(name, problem, 10, WithoutResponses(particles=1024, replicates=4, kernels="features"))
    f, f_noise, *_ = numbers(control, truth)
    assert f > 4 * f_noise


# --- use


@pytest.mark.thorough
def test_a_transformer_predicts_new_sequences_and_is_stored(tmp_path):
    rng = np.random.default_rng(2)
    ids, new = rng.integers(0, 3, (4, 3)), rng.integers(0, 3, (2, 3))
    problem = kf.Problem(ids, [1.0, -1.0, 1.0, -1.0], vocabulary=3, X_test=new, y_test=[0.0, 0.0])
    made = kf.Transformer(depth=1, head_dim=2, mlp_width=1.0, causal=True, readout="last", activation="tanh")
    solution = solved(made, problem, kf.March(particles=64, replicates=2, kernels="none"))
    np.testing.assert_allclose(solution.predict(new).mean, solution.predictions[-1, 4:], atol=2e-3)
    solution.save(tmp_path / "run.nc", predictor=True)
    again = kf.load(tmp_path / "run.nc")
    assert again.network == made and again.problem.vocabulary == 3
    np.testing.assert_array_equal(again.predict(new).mean, solution.predict(new).mean)


@pytest.mark.thorough
def test_padding_changes_nothing():
    """A sequence in front of padding is the sequence alone, at finite width to rounding."""
    ids = np.array([[0, 2, 1], [1, 1, 0], [2, 0, 1]])
    long = np.concatenate([ids, np.full((3, 2), -1)], axis=1)
    made = kf.Transformer(depth=1, head_dim=2, mlp_width=1.0, readout="last", causal=True, activation="tanh")
    short, padded = encode_tokens(ids, 3), encode_tokens(long, 3) * np.sqrt(6 / 8)  # one size of tokens
    padded = np.delete(padded, [6, 7], axis=-1)
    finite = kf.FiniteWidth(width=16, seeds=2, precision="float64", kernels="none")
    one, other = (solved(made, kf.Problem(X, VECTORS.y), finite, fields_at=()) for X in (short, padded))
    assert np.abs(one.predictions - other.predictions).max() < 1e-12 * np.abs(one.predictions).max()
    with pytest.raises(ValueError, match="padding needs an activation with phi"):
        solved(made.model_copy(update={"activation": "softplus"}), kf.Problem(padded, VECTORS.y))
    with pytest.raises(ValueError, match="sequence 0 has no tokens"):
        solved(made, kf.Problem(0 * padded, VECTORS.y))


def test_token_ids_are_rows_of_tokens_and_positions():
    rows = encode_tokens([[1, 0, -1]], 2)
    assert rows.shape == (1, 3, 5)
    np.testing.assert_allclose((rows**2).sum(axis=-1), [[5, 5, 0]])
    np.testing.assert_array_equal(rows[0].argmax(axis=-1)[:2], [1, 0])
    np.testing.assert_array_equal(rows[0, :, 2:] > 0, np.diag([True, True, False]))
    for wrong in ([[0, 2]], [[0.5, 1]], [[-2, 0]], [0, 1]):
        with pytest.raises(ValueError, match=r"token ids must be whole numbers in 0\.\.1"):
            kf.Problem(wrong, [1.0], vocabulary=2) if np.ndim(wrong) == 2 else encode_tokens(wrong, 2)


def test_what_does_not_fit_is_said_in_one_sentence():
    for layers, problem, message in (
        (
            [Conv(1, components=4), MultiHeadAttention(2), *POOLED],
            TOKENS,
            "needs Dense or Conv with components=6 below",
        ),
        ([Dense(components=6), MultiHeadAttention(2), Readout()], VECTORS, "MultiHeadAttention needs a sequence"),
        ([Dense(), Particlewise(lambda h: h.sum(-1)), Readout()], VECTORS, "must return"),
        ([Conv(1), Residual(Sequential([Conv(1, components=2)])), *POOLED], TOKENS, "must end in as many components"),
        ([Dense(), TokenPool(last=True), Readout()], VECTORS, "TokenPool needs a sequence"),
    ):
        with pytest.raises(ValueError, match=message):
            solved(layers, problem)
    with pytest.raises(ValueError, match="a number of neurons that 6 divides"):
        solved([Conv(1, width=3.0), MultiHeadAttention(2), Conv(1), *POOLED], method=kf.FiniteWidth(width=7))
    for method in (kf.Perturbation(), kf.GradientIndependence()):
        with pytest.raises(ValueError, match="does not solve networks with LayerNorm layers: use March or FiniteWidth"):
            solved(LAZY["norms"], method=method)
    with pytest.raises(ValueError, match="components must be at least 1"):
        Dense(components=0)


@pytest.mark.parametrize("layer", [*HEADS[1:2], LayerNorm(), Gain(), SwiGLU(), Particlewise(jnp.tanh)])
def test_what_is_not_linear_says_so(layer):
    """A network of them without an activation is sampled, not solved as if it were linear."""
    assert not layer.is_linear
    assert dataclasses.is_dataclass(layer) and hash(layer) == hash(dataclasses.replace(layer))
    assert not kf.Network(layers=[Conv(1), layer, Conv(1), *POOLED]).is_linear
