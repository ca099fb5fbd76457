"""The static neural tangent kernel: infinite width in the lazy limit, gamma0 -> 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from kernelfield.gaussian_averages import NotConverged
from kernelfield.layers.base import traces as traces_of
from kernelfield.layers.lazy import LazyField, LazyWeights, over_sites, sites_of
from kernelfield.problem import Problem
from kernelfield.solution import Solution, Status
from kernelfield.training import GradientDescent, GradientFlow, Training
from kernelfield.validation import Spec

NEURONS = 4096  # samples of the fields
SLOWEST = 1e-12  # modes that decay so much slower than the fastest do not decay


class StaticNTK(Spec):
    """Kernels frozen at initialization, predictions exact for the training rule; gamma0 does not matter.

    Phi^l = <phi phi> and Phidot^l = <phi' phi'> under the Gaussian with covariance Phi^{l-1}, G^l = G^{l+1} Phidot^l,
    NTK = sum_l G^{l+1} Phi^l (all elementwise); every layer brings its own recursion, see `kernelfield.layers`, and
    weights that are used more than once have none here. Gaussian averages in closed form where it is known, otherwise
    by quadrature to 1e-10.

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
            initial = initial_kernels(network, problem)
        except NotConverged as error:
            names = ", ".join(dict.fromkeys(f"'{each.name}'" for each in network.nonlinearities))
            return Status(
                "not_converged",
                f"averages of the activation {names} came to {error.change:.0e} only, as they do "
                "for a function with a kink: give its Activation a feature_map and a derivative_map",
            )
        return Solution(
            network=network,
            problem=problem,
            training=training,
            method=self,
            replicate_predictions=(problem.y - errors(initial.ntk, problem, training))[None],
            feature_factors=tuple(factor(kernel)[None, None] for kernel in initial.Phi),
            gradient_factors=tuple(factor(kernel)[None, None] for kernel in initial.G),
            tangent_kernels=None if network.factorizes else initial.ntk[None, None],
            field_samples=self._fields(network, initial.fields, fields_at),
            exact=True,
        )

    def _fields(
        self, network: Any, fields: Sequence[LazyField], fields_at: Sequence[int]
    ) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Gaussian h and z, independent of each other, at every step the same; sites of a neuron as neurons."""
        rng, samples = np.random.default_rng(self.seed), {}
        for layer, (each, phi) in enumerate(zip(fields, network.nonlinearities, strict=True), start=1):
            count = max(1, NEURONS // int(np.prod(sites_of(each.h))))
            roots = (factor(kernel.reshape(int(np.sqrt(kernel.size)), -1)) for kernel in (each.h, each.z))
            h, z = ((root @ rng.standard_normal((root.shape[1], count))).reshape(len(each.h), -1) for root in roots)
            g = np.asarray(phi.dphi(h)) * z
            samples.update({(layer, step): {"h": h[None], "z": z[None], "g": g[None]} for step in fields_at})
        return samples


class Initial(NamedTuple):
    """Kernels at initialization: Phi^0..Phi^L and G^1..G^{L+1}, (P, P) each, the NTK, and those of fields."""

    Phi: list[np.ndarray]
    G: list[np.ndarray]
    ntk: np.ndarray
    fields: list[LazyField]


def initial_kernels(network: Any, problem: Problem) -> Initial:
    """Every layer maps the kernel of what comes in: up to the output, and down again.

    Args:
        network: what learns.
        problem: its data.

    Returns:
        Initial; with sites, Phi is the mean over them and G the sum.

    Raises:
        NotConverged: an average is not known in closed form, and not smooth.
        ValueError: the lazy limit of a layer is not known.
    """
    x = network.coordinates(problem)
    K = np.tensordot(x, x, axes=(-1, -1))
    _, traces = network.layers.lazy_forward(K)
    _, ntk, traces = network.layers.lazy_backward(np.ones((problem.points, problem.points)), traces)
    weights = traces_of(traces, LazyWeights)
    Phi = [over_sites(each.phi) / np.prod(sites_of(each.phi)) for each in weights]
    return Initial(Phi, [over_sites(each.g) for each in weights], ntk, traces_of(traces, LazyField))


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
