"""Every method, with settings small enough for tests, and what each of them promises."""

import functools
from dataclasses import dataclass

import numpy as np

import kernelfield as kf
from suites import keep_fast

X, Y = np.random.default_rng(5).standard_normal((4, 6)), np.array([1.0, -0.6, 0.8, -1.2])


@dataclass(frozen=True)
class Claim:
    """A method and what it promises.

    Args:
        method: for kernelfield.solve.
        activations: that it can solve.
        exact: the activations for which it says that it has no sampling error.
        full: it solves the theory without approximation (finite networks: up to their width).
        positive: its kernels are positive semidefinite.
        fields: the activations for which it gives samples of the fields.
    """

    method: object
    activations: tuple[str, ...] = ("linear", "tanh", "relu")
    exact: tuple[str, ...] = ()
    full: bool = True
    positive: bool = True
    fields: tuple[str, ...] = ("linear", "tanh", "relu")


CLAIMS = {
    "March": Claim(kf.March(particles=512), ("linear", "tanh"), ("linear",)),
    "FiniteWidth": Claim(kf.FiniteWidth(width=512, seeds=8), ("tanh",)),
    "StaticNTK": Claim(kf.StaticNTK(), exact=("linear", "tanh", "relu"), full=False),
    "GradientIndependence": Claim(
        kf.GradientIndependence(particles=512), ("linear", "tanh"), ("linear",), full=False, fields=("linear", "tanh")
    ),
    "Perturbation": Claim(
        kf.Perturbation(particles=512), ("linear", "tanh"), ("linear",), full=False, positive=False, fields=("tanh",)
    ),
    "DeepLinear": Claim(kf.DeepLinear(), ("linear",), ("linear",), fields=("linear",)),
    "AlternatingMonteCarlo": Claim(
        kf.AlternatingMonteCarlo(samples=512), ("linear", "tanh"), ("linear",), fields=("linear", "tanh")
    ),
}
SLOW = {("Perturbation", "tanh"), ("GradientIndependence", "tanh")}


def pairs(condition=lambda claim, activation: True, slow=SLOW):
    """(name of a method, activation) for all that it can solve, where a condition holds; slow ones are thorough."""
    found = [
        (name, activation)
        for name, claim in CLAIMS.items()
        for activation in claim.activations
        if condition(claim, activation)
    ]
    return keep_fast(found, *(pair for pair in found if pair not in slow))


def solved(name, activation, depth=2, gamma0=1.0, X=X, y=Y, weights=None, rate=0.2, steps=6, bare=False, **replaced):
    """A method on the small problem; predictions alone if `bare`."""
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    training = kf.GradientDescent(learning_rate=rate, steps=steps)
    method, fields_at = CLAIMS[name].method, () if bare else (0, -1)
    if bare and hasattr(method, "kernels"):
        replaced["kernels"] = "none"
    method, problem = method.model_copy(update=replaced), kf.Problem(X, y, weights)
    return kf.solve(network, problem, training, method, fields_at=fields_at, progress=False)


run = functools.cache(solved)


def distance(found, truth):
    """Relative, in the norm over all entries."""
    return np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth)


def all_kernels(solution):
    """Phi and G of every hidden layer over all pairs of times."""
    layers, every = range(1, solution.network.depth + 1), slice(None)
    features = [solution.feature_kernel(layer, every) for layer in layers]
    return features + [solution.gradient_kernel(layer, every) for layer in layers]
