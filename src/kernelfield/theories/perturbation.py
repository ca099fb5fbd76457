"""Perturbation theory: infinite width to leading order in the feature-learning strength, O(gamma0^2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import jax.numpy as jnp
import numpy as np

from kernelfield.common.progress import Report
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.engine.series import Series as FieldSeries
from kernelfield.engine.series import Variable, coefficients
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.method import OnParticles
from kernelfield.march.step import Constants, Step
from kernelfield.solution.kernel import Series, network_kernels
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status

ORDERS = 4  # gamma0^0 to gamma0^3: f = <z phi(h)> / gamma0 needs one order more than it gives


class Perturbation(OnParticles):
    """Kernels, tangent kernel and predictions to order gamma0^2; odd orders vanish at infinite width.

    Linear networks have a closed form. For smooth activations the march is run with gamma0 as a formal
    variable: every field is a power series in gamma0, and one run gives all orders.

    Args:
        particles, replicates, seed, tol, directions, precision: as in `March`; all orders share their directions.

    Source: arXiv:2205.09653, appendix on perturbation theory. Its eq. 13 prints, for more than one hidden layer,
    the coefficients of gradient independence; the coefficients here are those of the full theory.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, network = kf.Problem(np.eye(2), [1.0, -1.0]), kf.MLP(depth=2, activation="linear", gamma0=0.1)
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> leading, full = (kf.solve(network, problem, training, method) for method in (kf.Perturbation(), kf.March()))
        >>> bool(abs(leading.predictions - full.predictions).max() < 1e-4)
        True
    """

    def supports(self, run: Run) -> None:
        """Raise ValueError if an activation is not smooth."""
        super().supports(run)
        kinked = [phi.name for phi in run.network.nonlinearities if not phi.smooth]
        if kinked:
            raise ValueError(f"Perturbation needs a smooth activation, got {kinked[0]}, whose slope jumps")

    def solve(self, run: Run, progress: Report, checkpoint: Checkpoint | None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        network = run.network
        if not (network.is_linear and isinstance(network, MLP) and network.is_plain):
            return super().solve(run, progress, checkpoint)
        f, features, gradients = solve_linear(network, run.problem, cast(GradientDescent, run.training))
        return Solution(run, f, network_kernels(run.problem, features, gradients), exact=True)

    def step(self, run: Run) -> Step:
        """Returns a step on power series."""
        return SeriesStep(run.network.layers)

    def gamma0(self, network: Architecture) -> Variable:
        """Returns the formal variable."""
        return Variable()

    def values(self, network: Architecture, field: Any) -> np.ndarray:
        """Returns h, z or g to second order."""
        orders = np.asarray(coefficients(field)[:3], np.float64)
        return np.asarray(np.polynomial.polynomial.polyval(network.gamma0, orders))

    def recorded(
        self, run: Run, predictions: np.ndarray, features: list, gradients: list
    ) -> tuple[np.ndarray, Sequence[Any], Sequence[Any]]:
        """Returns orders 0 and 2 of f and of the kernels; the arrays have the order as their third axis."""
        gamma0 = run.network.gamma0
        f = predictions[:, :, 0] + gamma0**2 * predictions[:, :, 2]
        Phi, G = (
            [expand_kernel(*(factor[:, :, order] for order in (0, 1, 2)), gamma0=gamma0) for factor in factors]
            for factors in (features, gradients)
        )
        return f, Phi, G


@dataclasses.dataclass(frozen=True)
class SeriesStep(Step):
    """A step on power series in gamma0."""

    orders: ClassVar[int] = ORDERS

    def paced(self, constants: Constants, rate: Any) -> FieldSeries:
        """Returns gamma0 times the rates, a series of first order."""
        rate = rate.astype(constants.data.dtype)
        return FieldSeries(jnp.zeros((ORDERS, *rate.shape), rate.dtype).at[1].set(rate))


def expand_kernel(F0: np.ndarray, F1: np.ndarray, F2: np.ndarray, gamma0: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel of F0 + gamma0 F1 + gamma0^2 F2 at orders 0 and 2, as a factor and weights.

    The orders are F0 F0^T and gamma0^2 [ F1 F1^T + F0 F2^T + F2 F0^T ], with the last two terms half of
    (F0 + F2)(F0 + F2)^T - (F0 - F2)(F0 - F2)^T.
    """
    blocks = (F0, F1, F0 + F2, F0 - F2)
    orders = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.5, -0.5]]) * [[1.0], [gamma0**2]]
    return np.concatenate(blocks, axis=-1), np.repeat(orders, [block.shape[-1] for block in blocks], axis=1)


def solve_linear(
    network: MLP, problem: Problem, training: GradientDescent
) -> tuple[np.ndarray, Sequence[Series], Sequence[Series]]:
    """Returns f (1, rows, P), and the kernel series Phi and G of the hidden layers, of a linear network.

    With v(t) = sum_{s<t} c Delta0(s), V(t) = sum_{s<t} c Delta0(s) v(s)^T and c = eta w (w = 1/P without weights),

        H^l(t,s) = K + gamma0^2 { a_l K v(t) v(s)^T K + b_l [K V(t) K + (K V(s) K)^T] }
        G^l(t,s) = 1 + gamma0^2 { a_m v(t)^T K v(s) + b_m [tr K V(t) + tr K V(s)] },  m = L+1-l
        Delta2(t+1) = (1 - (L+1) K c) Delta2(t) - sum_l [H2^l(t+1,t) + G2^l(t,t) K] c Delta0(t)

    Here a_l = sum_{k<=l} k^2, b_l = sum_{k<=l} k (L+1-k), and Delta0 is that of the static tangent kernel.
    """
    L, gamma0, rows, points = network.depth, network.gamma0, training.steps + 1, problem.points
    K, x, c = problem.input_kernel, problem.input_coordinates, training.learning_rate * problem.weights
    k = np.arange(1, L + 1)
    a, b = np.cumsum(k**2), np.cumsum(k * (L + 1 - k))

    Delta0, Delta2, v = np.zeros((3, rows, points))
    Kv, KVx, vKv, trKV = np.zeros((rows, points)), np.zeros((rows, *x.shape)), np.zeros(rows), np.zeros(rows)
    Delta0[0] = y = problem.targets[:, 0]
    for t in range(training.steps):
        pull, s = c * Delta0[t], t + 1
        v[s], Kv[s] = v[t] + pull, Kv[t] + K @ pull
        KVx[s] = KVx[t] + np.outer(K @ pull, v[t] @ x)
        vKv[s], trKV[s] = v[s] @ Kv[s], trKV[t] + Kv[t] @ pull
        H2 = a.sum() * Kv[s] * (Kv[t] @ pull) + b.sum() * (KVx[s] @ (x.T @ pull) + x @ (KVx[t].T @ pull))
        G2 = a.sum() * vKv[t] + 2 * b.sum() * trKV[t]
        Delta0[s] = Delta0[t] - (L + 1) * K @ pull
        Delta2[s] = Delta2[t] - (L + 1) * K @ (c * Delta2[t]) - H2 - G2 * K @ pull

    X, one = np.broadcast_to(x, (1, rows, *x.shape)), np.ones((1, rows, points, 1))
    first, second = Kv[None, :, :, None], KVx[None]
    Phi = [expand_kernel(X, np.sqrt(a_l) * first, b_l * second, gamma0) for a_l, b_l in zip(a, b, strict=True)]
    first, second = one * (v @ x)[None, :, None, :], one * trKV[None, :, None, None]
    G = [expand_kernel(one, np.sqrt(a_m) * first, b_m * second, gamma0) for a_m, b_m in zip(a, b, strict=True)][::-1]
    return (y - Delta0 - gamma0**2 * Delta2)[None], Phi, G
