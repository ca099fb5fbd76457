"""Gradient independence: exact where the theory has no responses, wrong where it has them."""

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.march.method import OnParticles
from suites import thorough

X, Y = np.random.default_rng(7).standard_normal((5, 8)), np.array([1.0, -0.6, 0.8, -1.2, 0.4])
PROBLEM = kf.Problem(X, Y)


def solved(method, activation="tanh", depth=2, gamma0=1.0, rate=0.2, steps=12, save_at=None, problem=PROBLEM):
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    training = kf.GradientDescent(learning_rate=rate, steps=steps)
    return kf.solve(network, problem, training, method, save_at=save_at, fields_at=(), progress=False)


def both(*args, **kwargs):
    """Kernels at the last step; linear networks are solved exactly, whatever the particles."""
    methods = kf.GradientIndependence(particles=512), kf.March(particles=512)
    return [solved(method, *args, save_at=[-1], **kwargs) for method in methods]


def distance(found, truth):
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize(("activation", "accuracy"), [("linear", 1e-12), ("tanh", 1e-4)])
def test_one_hidden_layer_has_no_responses(activation, accuracy):
    """Exact: increments of f add up to its direct average, on the same particles."""
    approximate, full = both(activation, depth=1, gamma0=2.0)
    assert distance(approximate.predictions, full.predictions) < accuracy
    assert distance(approximate.feature_kernel(1), full.feature_kernel(1)) < accuracy
    assert distance(approximate.gradient_kernel(1), full.gradient_kernel(1)) < accuracy


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_the_lazy_limit_is_exact_and_the_rich_regime_is_not(activation):
    """At small gamma0 the distance falls as gamma0^2; at gamma0 = 1.5 it is visible."""
    gaps = []
    for gamma0 in (0.15, 0.3):
        approximate, full = both(activation, depth=3, gamma0=gamma0)
        gaps.append(distance(approximate.feature_kernel(3), full.feature_kernel(3)))
    assert gaps[0] < 0.02
    assert 3 < gaps[1] / gaps[0] < 5
    rich, full = both(activation, depth=3, gamma0=1.5)
    assert distance(rich.feature_kernel(3), full.feature_kernel(3)) > 0.1


def dense_equations(K, y, L, eta, gamma0, steps):
    """The equations of a linear network with A = B = 0, in (rows P)^2 matrices, row by row.

    Predictions by Delta(t+1) = Delta(t) - c sum_l G^{l+1}(t,t) H^l(t+1,t) Delta(t).
    """
    T, P, c = steps + 1, len(y), eta / len(y)
    H = [np.kron(np.ones((T, T)), K)] + [np.zeros((T * P, T * P)) for _ in range(L)]
    G = [np.zeros((T, T)) for _ in range(L + 1)] + [np.ones((T, T))]
    Delta = np.zeros((T, P))
    Delta[0] = y

    def solve_to(n):
        """All kernels on the first n rows, given Delta on them."""
        for layer in range(1, L + 1):
            C, D = np.zeros((n * P, n)), np.zeros((n, n * P))
            for t in range(n):
                for s in range(t):
                    C[t * P : t * P + P, s] = gamma0 * c * H[layer - 1][t * P : t * P + P, s * P : s * P + P] @ Delta[s]
                    D[t, s * P : s * P + P] = gamma0 * c * G[layer + 1][t, s] * Delta[s]
            R, Q = np.linalg.inv(np.eye(n * P) - C @ D), np.linalg.inv(np.eye(n) - D @ C)
            h, g = H[layer - 1][: n * P, : n * P], G[layer + 1][:n, :n]
            H[layer][: n * P, : n * P] = R @ (h + C @ g @ C.T) @ R.T
            G[layer][:n, :n] = Q @ (g + D @ h @ D.T) @ Q.T

    for t in range(steps):
        for _ in range(L):
            solve_to(t + 1)
        for _ in range(L):
            solve_to(t + 2)
        now, new = slice(t * P, t * P + P), slice(t * P + P, t * P + 2 * P)
        Delta[t + 1] = Delta[t] - c * sum(G[layer + 1][t, t] * H[layer][new, now] for layer in range(L + 1)) @ Delta[t]
    for _ in range(L):
        solve_to(T)
    return Delta, H, G


@pytest.mark.parametrize("marching", [False, thorough(True)])
def test_linear_networks_follow_the_matrix_equations_without_responses(marching, monkeypatch):
    """Oracle: the dense equations; the algebraic solver and the march on exact cubature both give them."""
    if marching:
        monkeypatch.setattr(kf.GradientIndependence, "solve", OnParticles.solve)
    found = solved(kf.GradientIndependence(), "linear", depth=3, gamma0=1.5, steps=7)
    Delta, H, G = dense_equations(X @ X.T / 8, Y, 3, 0.2, 1.5, 7)
    assert distance(found.errors, Delta) < 1e-10
    for layer in (1, 2, 3):
        assert distance(found.feature_kernel(layer, slice(None)).reshape(40, 40), H[layer]) < 1e-10
        assert distance(found.gradient_kernel(layer, slice(None))[:, 0, :, 0], G[layer]) < 1e-10
    assert not found.predictions_se.any()
