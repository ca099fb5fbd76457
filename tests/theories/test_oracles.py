"""Exact statements about the theory, over every method that they apply to."""

import numpy as np
import pytest
from methods import CLAIMS, X, Y, all_kernels, distance, pairs, run, solved

from kernelfield.solution.estimate import Estimate
from suites import keep_fast, thorough

VALUES, VECTORS = np.linalg.eigh(X @ X.T / X.shape[1])
STRENGTH, DIRECTION = VALUES[-1], VECTORS[:, -1]


def exact(claim, activation):
    return activation in claim.exact


def full(claim, activation):
    return claim.full


# --- closed forms


@pytest.mark.parametrize("name", ["March", "GradientIndependence", "DeepLinear"])
def test_two_layer_linear_networks_follow_the_exact_recursion(name):
    rate, gamma0, steps = 0.2, 1.5, 30
    solution = solved(name, "linear", 1, gamma0, y=1.3 * DIRECTION, rate=rate, steps=steps)
    a, b = np.ones(steps + 1), np.ones(steps + 1)
    step = gamma0 * rate / len(Y) * np.sqrt(STRENGTH)
    for t in range(steps):
        Delta = 1.3 - np.sqrt(STRENGTH) * (a[t] ** 2 - b[t] ** 2) / (2 * gamma0)
        a[t + 1], b[t + 1] = a[t] * (1 + step * Delta), b[t] * (1 - step * Delta)
    f, kernel = np.sqrt(STRENGTH) * (a**2 - b**2) / (2 * gamma0), (np.outer(a, a) + np.outer(b, b)) / 2
    np.testing.assert_allclose(solution.predictions, np.outer(f, DIRECTION), atol=1e-12)
    np.testing.assert_allclose(solution.gradient_kernel(1, slice(None))[:, 0, :, 0], kernel, atol=1e-12)
    Phi = np.einsum("m,tmsn,n->ts", DIRECTION, solution.feature_kernel(1, slice(None)), DIRECTION)
    np.testing.assert_allclose(Phi / STRENGTH, kernel, atol=1e-12)


@pytest.mark.parametrize("name", ["March", "DeepLinear"])
def test_two_layer_networks_on_whitened_data_follow_the_closed_form_of_gradient_flow(name):
    """K = 1: Delta' = -2 sqrt(1 + gamma0^2 (Y - Delta)^2) Delta and H = 1 + (sqrt(1 + gamma0^2 f^2) - 1) y y^T / Y^2;
    a quarter of the learning rate leaves a quarter of the distance."""
    gamma0, size, time = 2.0, np.linalg.norm(Y), 6.0
    gaps = []
    for steps in (60, 240):
        solution = solved(name, "linear", 1, gamma0, X=2 * np.eye(4), rate=time / steps, steps=steps)
        f, fine = 0.0, 2000
        for _ in range(fine):  # midpoint rule
            half = f + time / 4 / fine * np.sqrt(1 + (gamma0 * f) ** 2) * (size - f)
            f += 2 * time / 4 / fine * np.sqrt(1 + (gamma0 * half) ** 2) * (size - half)
        truth = np.eye(4) + (np.sqrt(1 + (gamma0 * f) ** 2) - 1) * np.outer(Y, Y) / size**2
        gaps.append(distance(solution.feature_kernel(1), truth))
    assert gaps[1] < 0.01
    assert 3 < gaps[0] / gaps[1] < 5


@pytest.mark.parametrize(
    "name",
    [
        "StaticNTK",
        "GradientIndependence",
        "Perturbation",
        "DeepLinear",
        thorough("March"),
    ],
)
def test_layers_of_linear_networks_are_reflected(name, depth=3):
    """v^T Phi^l v = strength G^{L+1-l} for a target along an eigenvector v; approximations keep it too."""
    solution = run(name, "linear", depth, 1.2, y=tuple(DIRECTION), steps=8)
    for layer in range(1, depth + 1):
        Phi = solution.feature_kernel(layer, slice(None))
        reflected = np.einsum("m,tmsn,n->ts", DIRECTION, Phi, DIRECTION)
        G = solution.gradient_kernel(depth + 1 - layer, slice(None))[:, 0, :, 0]
        np.testing.assert_allclose(reflected, STRENGTH * G, rtol=1e-9)


# --- identities of the fields


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("March", "tanh"),
        ("DeepLinear", "linear"),
    ],
)
def test_a_weight_matrix_sees_the_same_product_from_both_sides(name, activation):
    """<z^l phi(h^l)> = <g^{l+1} h^{l+1}> for l < L, and <z^L phi(h^L)> = gamma0 f."""
    solution = run(name, activation, 3, 1.5, steps=10)
    phi = solution.network.nonlinearity.phi
    fields = {layer: solution.fields(layer) for layer in (1, 2, 3)}
    below = [each["z"] * np.asarray(phi(each["h"])) for each in fields.values()]
    above = [fields[layer]["g"] * fields[layer]["h"] for layer in (2, 3)]
    for found, truth in zip(below, [*above, 1.5 * solution.predictions[-1][:, None]], strict=True):
        noise = np.hypot(*(each.std(axis=1) / np.sqrt(each.shape[1]) for each in (found, truth)))
        assert np.all(np.abs(found.mean(axis=1) - truth.mean(axis=1)) < 5 * noise)


@pytest.mark.parametrize(("name", "activation"), [("DeepLinear", "linear")])
def test_homogeneous_networks_share_one_contraction(name, activation):
    """<g^l h^l> = gamma0 f for every l; gradient independence violates it, as a control."""
    control = run("GradientIndependence", activation, 3, 1.5, steps=10)
    solution = run(name, activation, 3, 1.5, steps=10)
    gaps = [
        distance(np.mean(each.fields(1)["g"] * each.fields(1)["h"], axis=1), 1.5 * each.predictions[-1])
        for each in (solution, control)
    ]
    assert gaps[0] < 0.25 < gaps[1]


@pytest.mark.parametrize(("name", "activation"), [("DeepLinear", "linear")])
def test_every_layer_grows_by_the_same_amount(name, activation):
    """Gradient flow, homogeneous: tr[K^-1 (<h^1 h^1> - K)] = <(z^L)^2> - 1 = 2 gamma0^2 c sum_{s<t} Delta . f,
    up to the learning rate."""
    gaps = []
    for steps in (20, 80):
        rate = 4.0 / steps
        solution = solved(name, activation, 2, 1.0, rate=rate, steps=steps)
        first, last = solution.fields(1)["h"], solution.fields(2)["z"]
        kernel = X @ X.T / X.shape[1]
        h_growth = np.trace(np.linalg.solve(kernel, first @ first.T / first.shape[1] - kernel))
        z_growth = np.mean(last[0] ** 2) - 1
        work = 2 * rate / len(Y) * np.sum(solution.errors[:-1] * solution.predictions[:-1])
        if activation == "linear":  # exact kernels instead of samples
            h_growth = np.trace(np.linalg.solve(kernel, solution.feature_kernel(1) - kernel))
            z_growth = solution.gradient_kernel(2)[0, 0] - 1
        gaps.append([abs(h_growth - work) / work, abs(z_growth - work) / work])
    assert max(gaps[1]) < 0.1
    if activation == "linear":
        assert np.all((np.array(gaps[0]) / gaps[1] > 3) & (np.array(gaps[0]) / gaps[1] < 5))


# --- symmetries


def assert_same(name, activation, found, truth):
    """Exact methods to rounding, sampled ones within their error bars."""
    if exact(CLAIMS[name], activation):
        assert distance(found.mean, truth.mean) < 1e-9
    else:
        noise = np.hypot(np.linalg.norm(found.se), np.linalg.norm(truth.se))
        assert np.linalg.norm(found.mean - truth.mean) < 5 * noise
        assert np.linalg.norm(found.mean - truth.mean) < 0.1 * np.linalg.norm(truth.mean)


@pytest.mark.parametrize(("name", "activation"), pairs(lambda _, activation: activation != "relu"))
def test_the_scale_of_the_targets_is_gamma0(name, activation):
    """(y, gamma0, f) -> (2 y, gamma0 / 2, 2 f) changes no kernel."""
    one, scaled = run(name, activation), run(name, activation, gamma0=0.5, y=tuple(2 * Y))
    accuracy = 1e-9 if one.exact else 1e-3
    assert distance(scaled.predictions / 2, one.predictions) < accuracy
    for found, truth in zip(all_kernels(scaled), all_kernels(one), strict=True):
        assert distance(found, truth) < accuracy


@pytest.mark.parametrize(
    ("name", "activation"), [("StaticNTK", "tanh"), ("March", "linear"), thorough("March", "tanh")]
)
def test_duplicated_points_change_nothing(name, activation):
    """The mean loss of a data set written twice is the same; K_x then has half its rank."""
    one = run(name, activation)
    twice = solved(name, activation, X=np.repeat(X, 2, axis=0), y=np.repeat(Y, 2), bare=True)
    np.testing.assert_allclose(twice.predictions[:, ::2], twice.predictions[:, 1::2], atol=1e-5)
    found = Estimate(twice.replicate_predictions[:, :, ::2], twice.exact)
    assert_same(name, activation, found, one.estimate("predictions"))


@pytest.mark.parametrize(("name", "activation"), pairs(lambda _, activation: activation != "relu"))
def test_order_and_rotation_of_the_data_do_not_matter(name, activation):
    order, rotation = [2, 0, 3, 1], np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    one, other = run(name, activation), solved(name, activation, X=X[order] @ rotation, y=Y[order])
    truth = Estimate(one.replicate_predictions[:, :, order], one.exact)
    assert_same(name, activation, other.estimate("predictions"), truth)


@pytest.mark.parametrize(("name", "activation"), pairs(lambda claim, activation: activation == "linear"))
def test_the_scale_of_the_inputs_of_a_homogeneous_network(name, activation):
    """K -> 4 K, eta -> eta / 4, gamma0 -> 2 gamma0 leaves predictions and G, and multiplies Phi by 4."""
    one, scaled = run(name, activation), solved(name, activation, X=2 * X, rate=0.05, gamma0=2.0)
    assert_same(name, activation, scaled.estimate("predictions"), one.estimate("predictions"))
    accuracy = 1e-9 if one.exact else 0.1
    assert distance(scaled.feature_kernel(2), 4 * one.feature_kernel(2)) < accuracy
    assert distance(scaled.gradient_kernel(1), one.gradient_kernel(1)) < accuracy


@pytest.mark.parametrize("name", keep_fast(CLAIMS, *({*CLAIMS} - {"March", "Perturbation", "GradientIndependence"})))
def test_nothing_moves_without_an_error_signal(name):
    double = {"precision": "double"} if hasattr(CLAIMS[name].method, "directions") else {}  # single: 1e-9
    solution = solved(name, "tanh" if "tanh" in CLAIMS[name].activations else "linear", y=np.zeros(4), **double)
    np.testing.assert_allclose(solution.predictions, 0, atol=1e-9)
    np.testing.assert_allclose(solution.feature_kernel(2, -1), solution.feature_kernel(2, 0), atol=1e-6)


@pytest.mark.parametrize(("name", "activation"), pairs(lambda _, activation: activation != "relu"))
def test_the_past_does_not_know_the_future(name, activation):
    short, long = solved(name, activation, steps=3), run(name, activation)
    assert distance(short.predictions, long.predictions[:4]) < (1e-9 if short.exact else 0.05)
