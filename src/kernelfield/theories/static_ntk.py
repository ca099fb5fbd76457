"""The static neural tangent kernel: infinite width in the lazy limit, gamma0 -> 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from kernelfield.activations import Activation
from kernelfield.gaussian_averages import NotConverged, kernel_map
from kernelfield.problem import Problem
from kernelfield.solution import Solution, Status
from kernelfield.training import GradientDescent, GradientFlow, Training
from kernelfield.validation import Spec

NEURONS = 4096  # samples of the fields
SLOWEST = 1e-12  # modes that decay so much slower than the fastest do not decay


class StaticNTK(Spec):
    """Kernels frozen at initialization, predictions exact for the training rule; gamma0 does not matter.

    Phi^l = <phi phi> and Phidot^l = <phi' phi'> under the Gaussian with covariance Phi^{l-1}, G^l = G^{l+1} Phidot^l,
    NTK = sum_l G^{l+1} Phi^l (all elementwise). Gaussian averages in closed form where it is known, otherwise by
    quadrature to 1e-10.

    Args:
        seed: of the samples of the fields.

    Source: arXiv:2205.09653, section 4 and references there. Delta(t) = (1 - eta NTK / P)^t y for gradient
    descent, exp(-NTK time / P) y for gradient flow.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientFlow(time=3.0, steps=4)
        >>> lazy = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training, kf.StaticNTK())
        >>> bool(np.allclose(lazy.errors[:, 0], np.exp(-lazy.times / 2)))
        True
    """

    seed: int = Field(default=0, ge=0)

    rules: ClassVar[tuple[type, ...]] = (GradientDescent, GradientFlow)

    def run(
        self,
        network: Any,
        problem: Problem,
        training: Training,
        fields_at: Sequence[int],
        progress: Callable[[int, int], None],
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        try:
            Phi, G = initial_kernels(network.nonlinearity, network.depth, problem.input_kernel)
        except NotConverged as error:
            return Status(
                "not_converged",
                f"averages of the activation '{network.nonlinearity.name}' came to {error.change:.0e} only, as they do "
                "for a function with a kink: give its Activation a feature_map and a derivative_map",
            )
        ntk = np.sum([gradient * feature for gradient, feature in zip(G, Phi, strict=True)], axis=0)
        return Solution(
            network=network,
            problem=problem,
            training=training,
            method=self,
            replicate_predictions=(problem.y - errors(ntk, problem, training))[None],
            feature_factors=tuple(factor(kernel)[None, None] for kernel in Phi),
            gradient_factors=tuple(factor(kernel)[None, None] for kernel in G),
            field_samples=self._fields(network, Phi, G, fields_at),
            exact=True,
        )

    def _fields(
        self, network: Any, Phi: list[np.ndarray], G: list[np.ndarray], fields_at: Sequence[int]
    ) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Gaussian h with covariance Phi^{l-1}, independent z with covariance G^{l+1}, at every step the same."""
        rng, samples = np.random.default_rng(self.seed), {}
        for layer in range(1, network.depth + 1):
            roots = factor(Phi[layer - 1]), factor(G[layer])
            h, z = (root @ rng.standard_normal((root.shape[1], NEURONS)) for root in roots)
            g = np.asarray(network.nonlinearity.dphi(h)) * z
            samples.update({(layer, step): {"h": h[None], "z": z[None], "g": g[None]} for step in fields_at})
        return samples


def initial_kernels(phi: Activation, depth: int, K: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Phi^0..Phi^L and G^1..G^{L+1} at initialization, (P, P) each, for the input kernel K."""
    Phi, slopes = [K], []
    for _ in range(depth):
        slopes.append(kernel_map(Phi[-1], phi.dphi, phi.derivative_map))
        Phi.append(kernel_map(Phi[-1], phi.phi, phi.feature_map))
    G = [np.ones_like(K)]
    for slope in reversed(slopes):
        G.insert(0, G[0] * slope)
    return Phi, G


def errors(ntk: np.ndarray, problem: Problem, training: Training) -> np.ndarray:
    """Delta (steps + 1, P) under a tangent kernel that does not change.

    With weights w, e = w^1/2 Delta decays in the modes of w^1/2 NTK w^1/2, and f = eta sum_{s<t} NTK w^1/2 e(s).
    """
    root, eta, trains = np.sqrt(problem.weights), training.learning_rate, problem.weights > 0
    rates, modes = np.linalg.eigh(root[:, None] * ntk * root)
    times, start = np.arange(training.steps + 1)[:, None], modes.T @ (root * problem.y)
    left = (np.exp(-eta * rates) if isinstance(training, GradientFlow) else 1 - eta * rates) ** times
    moves = rates > SLOWEST * rates[-1]
    summed = np.where(moves, (1 - left) / np.where(moves, rates, 1), eta * times)
    Delta = problem.y - summed * start @ (ntk @ (root[:, None] * modes)).T
    Delta[:, trains] = left * start @ modes[trains].T / root[trains]  # without cancellation
    return Delta


def factor(kernel: np.ndarray) -> np.ndarray:
    """F (P, k) with F F^T = kernel."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > len(kernel) * np.finfo(float).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
