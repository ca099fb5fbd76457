"""The fixed point of the Bayesian posterior: samples of the layers, and tilts that fit together.

The equations are in `kernelfield.theories.bayesian_posterior`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import numpy as np

from kernelfield.activations.functions import Activation
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.describe.training import Langevin
from kernelfield.engine.points import child_seed, padded_sobol
from kernelfield.solution.status import Status

if TYPE_CHECKING:
    from kernelfield.theories.bayesian_posterior import BayesianPosterior

TRUSTED = 100  # effective samples of a layer, below which averages are not
ADAPTED = 10  # sweeps in which samples are spread out to where the posterior is; afterwards they stay
MEMORY = 5  # sweeps from which the next tilts are extrapolated
MIXED = 0.5  # part of the change of a sweep that the next one takes over
NEGLIGIBLE = 1e-12  # variance of a direction that a root leaves out, relative to the largest
NEWTON_STEPS, NEWTON_END = 100, 1e-20  # the most steps for the signal, and the decrease at which they end


class State(NamedTuple):
    """The fixed point of one replicate over the P points that train, of layers 1..L."""

    number: np.ndarray  # of the replicate, ()
    signal: np.ndarray  # a (P,)
    tilts: np.ndarray  # T (L, P, P)
    roots: np.ndarray  # F (L, P, P), F F^T = Phi^{l-1}
    spreads: np.ndarray  # B (L, P, P) of the samples h = F B z, where z are standard normal


class Layer(NamedTuple):
    """Weighted samples of the neurons of one layer."""

    x: np.ndarray  # (P, S), h = F x
    features: np.ndarray  # phi(h) (P, S)
    logs: np.ndarray  # (S,) of the weights that make the samples x standard normal
    shares: np.ndarray  # (S,) weights with the tilt, with sum one

    @property
    def kernel(self) -> np.ndarray:
        """Phi (P, P)."""
        return (self.features * self.shares) @ self.features.T

    @property
    def excess(self) -> np.ndarray:
        """<x x^T> with the tilt, minus that without it (P, P), on the same samples: zero without a tilt."""
        return (self.x * (self.shares - normalize(self.logs))) @ self.x.T

    @property
    def effective_samples(self) -> float:
        """How many samples of equal weights would do as well."""
        return float(1 / np.sum(self.shares**2))


class Iteration:
    """The iteration of one replicate: its state, and how far it came."""

    def __init__(self, run: Run, method: BayesianPosterior, number: int) -> None:
        problem, network, trains = run.problem, cast(MLP, run.network), run.problem.weights > 0
        X = network.inputs(problem)[trains]
        self.kernel, self.y = X @ X.T / X.shape[1], problem.targets[trains, 0]
        self.ridge = cast(Langevin, run.training).weight_decay / problem.weights[trains]
        self.phi, self.gamma0, self.method = network.nonlinearity, network.gamma0, method
        shape = (network.depth, len(self.y), len(self.y))
        layers = [layer_points(method, number, layer, 0, len(self.y)) for layer in range(network.depth)]
        self.z, self.axes = layers, dict[int, np.ndarray]()
        self.past = list[tuple[np.ndarray, np.ndarray]]()  # tilts of the last sweeps and their changes
        ones = np.broadcast_to(np.eye(len(self.y)), shape).copy()
        self.state = State(np.array(number), np.zeros(len(self.y)), np.zeros(shape), np.zeros(shape), ones)
        self.sweeps, self.residual, self.effective_samples, self.f = 0, np.inf, 0.0, np.zeros(len(self.y))

    def run_to_the_end(self) -> Status | None:
        """Sweep until nothing changes; returns the status of a failure, if there is one."""
        method = self.method
        try:
            with np.errstate(all="ignore"):  # what is not finite is looked for
                excesses = self.sweep()
                while self.residual > method.tolerance and self.sweeps < method.max_iterations:
                    self.move(excesses)
                    excesses = self.sweep()
        except np.linalg.LinAlgError:
            self.residual = np.inf
        advice = "raise samples, or lower gamma0 or the number of points"
        if not self.residual <= method.tolerance:
            event = f"{self.sweeps} sweeps ended with changes of {self.residual:.0e}"
            return Status("not_converged", f"{event}: raise max_iterations, or {advice}")
        if self.effective_samples < TRUSTED:
            event = f"averages are over {self.effective_samples:.0f} effective samples of {method.samples}"
            return Status("not_converged", f"{event}, below {TRUSTED}: {advice}")

    def sweep(self) -> list[np.ndarray]:
        """Go once through the layers, and set what is measured; returns `Layer.excess` of every layer."""
        state, kernel, layers = self.state, self.kernel, list[Layer]()
        for at, z in enumerate(self.z):
            state.roots[at] = self.root(kernel, at)
            layer = sample_layer(self.phi, z, state.roots[at], state.spreads[at], state.tilts[at])
            if at == len(self.z) - 1:
                state.signal[:] = find_signal(layer, self.y, self.gamma0, self.ridge, state.signal)
                state.tilts[at] = -np.outer(state.signal, state.signal)
                layer = tilt_layer(layer, state.tilts[at])
            layers.append(layer)
            kernel = layer.kernel
        excesses = [layer.excess for layer in layers]
        self.measure(layers, excesses)
        self.sweeps += 1
        return excesses

    def change(self, excesses: list[np.ndarray]) -> np.ndarray:
        """Returns how far the tilts of the layers below the last are from those of the equations, (L-1, P, P)."""
        roots, tilts = self.state.roots[1:], self.state.tilts[:-1]
        inverses = [invert(root) for root in roots]
        return np.stack([-F.T @ excess @ F for F, excess in zip(inverses, excesses[1:], strict=True)]) - tilts

    def move(self, excesses: list[np.ndarray]) -> None:
        """Set the tilts of the next sweep, and spread out the samples."""
        if self.sweeps <= ADAPTED:
            self.state.spreads[:] = [spread(excess) for excess in excesses]
            self.past = self.past if self.sweeps < ADAPTED else []  # it was of other samples
        if len(excesses) > 1:
            self.past = [*self.past[-MEMORY:], (self.state.tilts[:-1].copy(), self.change(excesses))]
            self.state.tilts[:-1] = extrapolate(self.past)

    def measure(self, layers: list[Layer], excesses: list[np.ndarray]) -> None:
        """Set the effective samples, and the residual: changes of f, relative to the targets, and of the tilts."""
        f = layers[-1].kernel @ self.state.signal / self.gamma0
        residuals = [np.abs(f - self.f).max() / (np.abs(self.y).max() or 1.0) if self.sweeps else np.inf]
        if len(layers) > 1:
            scaled = np.swapaxes(self.state.roots[1:], 1, 2) @ self.change(excesses) @ self.state.roots[1:]
            residuals += [np.abs(scaled).max() / (1 + np.abs(excesses).max())]
        self.residual, self.f = float(max(residuals)), f
        if not np.isfinite(f).all() or np.isnan(self.residual):
            raise np.linalg.LinAlgError
        self.effective_samples = min(layer.effective_samples for layer in layers)

    def root(self, kernel: np.ndarray, layer: int) -> np.ndarray:
        """Returns F (P, P), a smooth function of the kernel, with its leading directions first.

        It is the symmetric root times the principal axes of the first kernel: those of each kernel jump.
        """
        half, axes = symmetric_root(kernel)
        return half @ self.axes.setdefault(layer, axes)


def layer_points(method: BayesianPosterior, replicate: int, layer: int, first: int, last: int) -> np.ndarray:
    """Returns the standard normal coordinates first..last - 1 of the samples of a layer, (last - first, S)."""
    seed = child_seed(np.random.SeedSequence(method.seed), replicate, layer)
    return padded_sobol(last, method.samples, seed, first).astype(float)


def sample_layer(phi: Activation, z: np.ndarray, root: np.ndarray, spread: np.ndarray, tilt: np.ndarray) -> Layer:
    """Returns the samples h = F B z of a layer, with the weights that make up for the spread B, and for the tilt."""
    x = spread @ z
    with jax.enable_x64(True):
        features = np.asarray(phi.phi(root @ x))
    logs = (np.sum(z**2, axis=0) - np.sum(x**2, axis=0)) / 2
    return tilt_layer(Layer(x, features, logs, logs), tilt)


def tilt_layer(layer: Layer, tilt: np.ndarray) -> Layer:
    """Returns the layer with the weights of another tilt (P, P)."""
    exponents = layer.logs - np.sum(layer.features * (tilt @ layer.features), axis=0) / 2
    return layer._replace(shares=normalize(exponents))


def normalize(logs: np.ndarray) -> np.ndarray:
    """Returns weights with sum one, given their logarithms but for a constant."""
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def find_signal(layer: Layer, y: np.ndarray, gamma0: float, ridge: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns the a (P,) with (<phi phi^T> + ridge) a = gamma0 y, where a a^T / 2 tilts the average itself.

    It is the minimum of log <exp((a . phi)^2 / 2)> + a . ridge a / 2 - gamma0 y . a, which is convex in a: Newton's
    method, with steps halved until the function falls.
    """

    def evaluate(a: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = layer.logs + (a @ layer.features) ** 2 / 2
        largest = exponents.max()
        weights = np.exp(exponents - largest)
        total = weights.sum()
        return float(largest + np.log(total) + a @ (ridge * a) / 2 - gamma0 * y @ a), weights / total

    a = start.copy()
    value, shares = evaluate(a)
    for _ in range(NEWTON_STEPS):
        along = a @ layer.features
        mean = layer.features @ (shares * along)
        slope = mean + ridge * a - gamma0 * y
        curvature = (layer.features * (shares * (1 + along**2))) @ layer.features.T - np.outer(mean, mean)
        step = -np.linalg.solve(curvature + np.diag(ridge), slope)
        if not (decrease := -float(slope @ step)) > NEWTON_END:
            break
        size, (new, weights) = 1.0, evaluate(a + step)
        while not new <= value - 1e-4 * size * decrease and size > 1e-9:
            size /= 2
            new, weights = evaluate(a + size * step)
        a, value, shares = a + size * step, new, weights
    return a


def extrapolate(past: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the next argument of a fixed point by Anderson's method, given the last arguments and their changes."""
    arguments, changes = (np.stack([pair[part].ravel() for pair in past]) for part in (0, 1))
    last, shape = changes[-1], past[-1][0].shape
    if len(past) == 1:
        return (arguments[-1] + MIXED * last).reshape(shape)
    differences, further = np.diff(changes, axis=0), np.diff(arguments, axis=0)
    c = np.linalg.lstsq(differences.T, last, rcond=1e-8)[0]
    return (arguments[-1] + MIXED * last - c @ (further + MIXED * differences)).reshape(shape)


def spread(excess: np.ndarray) -> np.ndarray:
    """Returns B (P, P) with B B^T = 1 + excess, no narrower than one in any direction, so that weights are bounded."""
    variances, axes = np.linalg.eigh(excess)
    return axes * np.sqrt(1 + np.maximum(variances, 0)) @ axes.T


def symmetric_root(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the symmetric root of a kernel without directions that are negligible, and its axes, leading ones first.

    Raises LinAlgError if the kernel is not finite.
    """
    variances, axes = np.linalg.eigh(kernel)
    scales = np.sqrt(np.where(variances > NEGLIGIBLE * variances[-1], np.maximum(variances, 0), 0))
    return axes * scales @ axes.T, axes[:, ::-1]


def invert(root: np.ndarray) -> np.ndarray:
    """Returns the pseudo-inverse of a root, without the directions that it leaves out."""
    return np.linalg.pinv(root, rcond=np.sqrt(NEGLIGIBLE) / 10)
