"""The Bayesian posterior: the equilibrium of Langevin dynamics at infinite width, as a fixed point without time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import jax
import numpy as np
from pydantic import Field, field_validator

from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.describe.training import Langevin
from kernelfield.solution.factors import stacked
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, interrupted
from kernelfield.theories.posterior_iteration import (
    Iteration,
    State,
    invert,
    layer_points,
    sample_layer,
    symmetric_root,
)
from kernelfield.theories.static_ntk import difference_gradients, factor

POINTS_AT_ONCE = 256  # new points that are predicted at once
NEURONS = 4096  # samples of a field, of all replicates


class BayesianPosterior(Method):
    """Infinite width, trained by `Langevin` with temperature = weight_decay until it rests: the Bayesian posterior.

    The prior is the initialization, and the likelihood has the mean squared error and weight_decay lambda. The neurons
    of a layer are then independent Gaussian variables whose density is tilted, with kernels that fit together:

        p^l(h) ~ N(h; 0, Phi^{l-1}) exp(-phi(h)^T T^l phi(h) / 2),   Phi^l = <phi(h) phi(h)^T>,   Phi^0 = K_x
        T^L = -a a^T,   a = gamma0 (Phi^L + lambda / w)^{-1} y,   f = Phi^L a / gamma0
        T^l = (Phi^l)^{-1} - (Phi^l)^{-1} <h h^T>_{l+1} (Phi^l)^{-1},   l < L

    over the points that train, with their weights w (1/P unless the problem has weights). Given these, h at any other
    point is Gaussian: points of weight zero and new points follow layer by layer.

    Averages are over Sobol points, weighted by the tilt. These are spread out to where the tilt puts the neurons, for
    weights that differ little. A sweep goes through the layers from below. It finds the signal a by Newton's method,
    which is a convex problem, and new tilts T^l, whose fixed point Anderson's extrapolation finds. It starts from
    T^l = 0; where there are several fixed points, it finds the one that it reaches from there.

    It is for tens of points. The noise of the averages enters the tilts T^l with the square of the number of points:
    with more, the iteration ends as "not_converged" unless samples are many or features are learned weakly.

    Equilibrium does not move: all rows of the Solution are the same, whatever the number of steps. The learning rate
    does not matter either; it is that of Langevin dynamics with small steps. Gradient kernels are left out.

    `info` of the Solution reports sweeps (the most of a replicate), residual (the last change of tilts and f, relative
    to their size), effective_samples (the fewest of a layer, sum(w)^2 / sum(w^2) of the weights w of samples; runs with
    fewer than 100 end as "not_converged") and seconds_run.

    Args:
        samples: of the neurons of each layer, of every replicate; a power of two, many times the number of points.
        replicates: independent scrambles of the samples; they give the error bars.
        seed: of the samples.
        tolerance: residual at which the iteration ends.
        max_iterations: the most sweeps of a replicate.

    Source: equilibrium of noisy gradient descent, arXiv:2502.07998, derived anew in the conventions of
    arXiv:2205.09653: f is w . phi / (gamma0 N).

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> training = kf.Langevin(learning_rate=0.1, steps=1, weight_decay=0.5, temperature=0.5)
        >>> problem, method = kf.Problem(np.eye(2), [1.0, -1.0]), kf.BayesianPosterior(samples=1024)
        >>> solution = kf.solve(kf.MLP(depth=2, activation="tanh", gamma0=2.0), problem, training, method)
        >>> solution.predict([[1.0, 0.0]]).mean.shape, solution.info["effective_samples"] > 100
        ((1,), True)
    """

    samples: int = Field(default=2**14, ge=2**8)
    replicates: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    tolerance: float = Field(default=1e-5, gt=0, lt=1)
    max_iterations: int = Field(default=100, ge=1)

    rules: ClassVar[tuple[type, ...]] = (Langevin,)
    networks: ClassVar[tuple[str, ...]] = ("MLP",)
    takes: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    @field_validator("samples")
    @classmethod
    def _check_samples(cls, samples: int) -> int:
        if samples & (samples - 1):
            raise ValueError(f"samples must be a power of two (Sobol points), got {samples}")
        return samples

    def supports(self, run: Run) -> None:
        """Raises ValueError for a run that it cannot solve: also where temperature and weight_decay differ."""
        super().supports(run)
        training = cast(Langevin, run.training)
        decay, temperature = training.weight_decay, training.temperature
        if temperature != decay:
            need = "temperature = weight_decay, where the prior is the initialization"
            raise ValueError(f"BayesianPosterior needs {need}, got {temperature:g} and {decay:g}")

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        began, found = time.perf_counter(), list[Iteration]()
        try:
            for number in range(self.replicates):
                found.append(iteration := Iteration(run, self, number))
                if failure := iteration.run_to_the_end():
                    return failure
                progress(run.steps * (number + 1) // self.replicates, run.steps)
        except KeyboardInterrupt:
            return interrupted(max(0, len(found) - 1), self.replicates, "replicates")
        states = [iteration.state for iteration in found]
        predictor = PosteriorPredictor(run, *(np.stack(values) for values in zip(*states, strict=True)))
        every = [predictor.replicate_at(number, predictor.inputs) for number in range(self.replicates)]
        f = np.stack([layers[-1].across @ state.signal for layers, state in zip(every, states, strict=True)])
        f = f[:, None, :, None] / run.network.gamma0
        features = [stacked([factor(at.kernel)[None, None] for at in layer]) for layer in zip(*every, strict=True)]
        return Solution(
            run,
            np.repeat(f, run.steps + 1, axis=1),
            network_kernels(run.problem, features, None),
            field_samples=self._sample(run, every),
            predictor=predictor,
            info={
                "sweeps": max(iteration.sweeps for iteration in found),
                "residual": max(iteration.residual for iteration in found),
                "effective_samples": min(iteration.effective_samples for iteration in found),
                "seconds_run": time.perf_counter() - began,
            },
        )

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> PosteriorPredictor:
        """Returns the predictor that a stored run kept."""
        return PosteriorPredictor(run, **arrays)

    def _sample(self, run: Run, every: list[list[NewPoints]]) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Returns h (R, P, neurons) of every layer, drawn by their weights, the same at every step."""
        rng, count, samples = np.random.default_rng(self.seed), max(1, NEURONS // len(every)), {}
        for number, layer in enumerate(zip(*every, strict=True), start=1):
            drawn = [at.h[:, rng.choice(self.samples, count, p=at.shares)] for at in layer]
            samples.update({(number, step): {"h": np.stack(drawn)} for step in run.fields_at})
        return samples


class NewPoints(NamedTuple):
    """Samples of one layer at any n points, and its kernels there."""

    h: np.ndarray  # (n, S)
    shares: np.ndarray  # (S,)
    across: np.ndarray  # Phi (n, P) with the points that train
    kernel: np.ndarray  # Phi (n, n)


@dataclass(frozen=True)
class PosteriorPredictor:
    """The predictor of the posterior: fields at new points are Gaussian, given those at the points that train.

    Arrays are those of `State`, with an axis of replicates first.
    """

    run: Run
    number: np.ndarray
    signal: np.ndarray
    tilts: np.ndarray
    roots: np.ndarray
    spreads: np.ndarray

    @property
    def steps(self) -> range:
        """All steps."""
        return range(self.run.steps + 1)

    @property
    def inputs(self) -> np.ndarray:
        """The inputs of all points of the problem."""
        return self.run.network.inputs(self.run.problem)

    def of_replicates(self, chosen: Any) -> PosteriorPredictor:
        """Returns the predictor of some replicates."""
        return PosteriorPredictor(self.run, **{name: values[chosen] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the fixed points."""
        return {name: getattr(self, name) for name in State._fields}

    def replicate_at(self, place: int, inputs: np.ndarray) -> list[NewPoints]:
        """Returns the layers of a replicate at inputs (n, D).

        Given h = F x at the points that train, new ones have mean C x and covariance Phi - C C^T, with
        C = Phi(new, train) F^{-T}.
        """
        method, phi = cast(BayesianPosterior, self.run.method), cast(MLP, self.run.network).nonlinearity
        train, found = self.inputs[self.run.problem.weights > 0], list[NewPoints]()
        across, kernel = (inputs @ other.T / inputs.shape[1] for other in (train, inputs))
        count, total = len(train), len(train) + len(inputs)
        parts = zip(self.roots[place], self.spreads[place], self.tilts[place], strict=True)
        for at, (root, spread, tilt) in enumerate(parts):
            seen, new = (
                layer_points(method, int(self.number[place]), at, first, last)
                for first, last in ((0, count), (count, total))
            )
            layer, C = sample_layer(phi, seen, root, spread, tilt), across @ invert(root).T
            h = C @ layer.x + symmetric_root(kernel - C @ C.T)[0] @ new
            with jax.enable_x64(True):
                features = np.asarray(phi.phi(h))
            across, kernel = ((features * layer.shares) @ other.T for other in (layer.features, features))
            found.append(NewPoints(h, layer.shares, across, kernel))
        return found

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns f (R, n, 1), the same at all steps."""
        blocks = [
            [self.replicate_at(place, rows)[-1].across @ self.signal[place] for place in range(len(self.signal))]
            for rows in np.array_split(inputs, range(POINTS_AT_ONCE, len(inputs), POINTS_AT_ONCE))
        ]
        return np.concatenate(blocks, axis=1)[..., None] / self.run.network.gamma0

    def gradients(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns the gradients of outputs in the inputs (R, n, 1, D), by central differences."""
        return difference_gradients(lambda moved: self.predictions(moved, t), inputs)

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns the feature kernel (R, n, m); raises ValueError for the tangent kernel, which is not known."""
        if layer is None:
            raise ValueError("BayesianPosterior has no tangent kernel: use March")
        blocks = []
        for rows in np.array_split(a, range(POINTS_AT_ONCE, len(a), POINTS_AT_ONCE)):
            points = np.concatenate([rows, b])
            every = [self.replicate_at(place, points)[layer - 1].kernel for place in range(len(self.signal))]
            blocks.append(np.stack(every)[:, : len(rows), len(rows) :])
        return np.concatenate(blocks, axis=1)
