"""How far networks of finite width are from infinite width: noise of order N^-1/2, and a bias of order 1/N.

A network of width N has predictions f_N = f + b / N + sqrt(C / N) noise, with coefficients b and C that do not depend
on N. So does every kernel.

The covariance C is that of independent neurons. A small change of one neuron's weight in all averages moves f by its
influence; the mean product of the influences of all neurons is C. They come from reverse passes through training, one
for each number. Of many numbers, and where an activation has a kink, whose jumps a derivative does not see, C is the
covariance of networks instead.

The bias b is the mean difference between networks of width N and one of width 2 N that is made of the neurons of two of
them. What they have in common cancels, so that its error does not grow with N. Coupled networks follow one plan of
directions, whose cost grows as the square of the points; of many points, ensembles of two small widths are faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.common.progress import Report, bar
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent, Training
from kernelfield.finite.conditioned import Conditioned
from kernelfield.finite.method import FiniteWidth
from kernelfield.finite.planned import PlannedNetworks
from kernelfield.layers.base import uses
from kernelfield.layers.weights import Weights
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import SolveError, Status

PLAN_TOL = 1e-4  # part of a field's mean square that a plan leaves out
MOST_ROWS, ENSEMBLE_WIDTH = 32, 128  # points times sites of coupled networks; the smaller width for more
PLANNING_WIDTH, LEAST_WIDTH = 1024, 512  # of the network that makes the plan, and of those that follow it
AT_ONCE = 8  # pairs, or reverse passes, of one compiled call
MOST_REVERSED = 16  # numbers whose influences are found: for more, networks are as fast


@dataclass(frozen=True, eq=False)
class Correction:
    """A quantity of a network of width N: the value at infinite width, plus bias / N, plus noise of variance / N.

    Attributes:
        infinite: at infinite width, any shape.
        bias: the coefficient b of 1 / N, with that shape.
        variance: the coefficient of the variance 1 / N, with that shape.
    """

    infinite: Estimate
    bias: Estimate
    variance: Estimate


class Distance(NamedTuple):
    """How far predictions are from infinite width, rms over points, relative to the rms of predictions there."""

    noise: float
    bias: float
    noise_se: float  # standard errors of both
    bias_se: float

    @property
    def total(self) -> float:
        """Of noise and bias together."""
        return math.hypot(self.noise, self.bias)


@dataclass(frozen=True, eq=False)
class Corrections:
    """Coefficients of 1 / N of a training run; `finite_width_corrections` finds them.

    Attributes:
        run: the run at infinite width.
        predictions: f after training, arrays (P,) or (P, C) as the targets.
        kernels: the alignments y K y / |y|^2 of kernels after training with the targets, by name: "Phi 1" to "Phi L"
            and, for one output, "G 1" to "G L" and "NTK". Numbers.
        covariance: N times the covariance of f, (P C, P C).
        found_by: "coupled networks and influences", "coupled networks" or "ensembles".
    """

    run: Run
    predictions: Correction
    kernels: Mapping[str, Correction]
    covariance: Estimate
    found_by: str

    def distance(self, width: int, networks: int = 1) -> Distance:
        """Returns how far the predictions of the mean of some networks of a width are from infinite width."""
        size, noise, bias = self._moments()
        of_noise, of_bias = math.sqrt(noise[0] / (width * networks)), math.sqrt(bias[0]) / width
        return Distance(
            of_noise / size,
            of_bias / size,
            of_noise / size * noise[1] / noise[0] / 2 if noise[0] > 0 else 0.0,
            of_bias / size * bias[1] / bias[0] / 2 if bias[0] > 0 else math.sqrt(bias[1]) / width / size,
        )

    def width_for(self, distance: float, networks: int = 1) -> int:
        """Returns the width from which on the mean of some networks is within a distance of infinite width.

        Raises:
            ValueError: the distance is not above zero.
        """
        if not 0 < distance < math.inf:
            raise ValueError(f"distance must be above 0, got {distance}")
        size, (noise, _), (bias, _) = self._moments()
        noise, most = noise / networks, (distance * size) ** 2
        return max(1, math.ceil((noise + math.sqrt(noise**2 + 4 * most * bias)) / (2 * most)))

    def loss(self, width: int | None = None, networks: int = 1, rows: Any = None) -> Estimate:
        """Returns the mean loss of networks of a width after training, to order 1 / N.

        Args:
            width: N; None for infinite width.
            networks: those whose predictions are averaged before the loss is taken.
            rows: points, equally weighted; by default those that train with their weights.
        """
        problem = self.run.problem
        weights = problem.weights if rows is None else np.zeros(problem.points)
        if rows is not None:
            weights[rows] = 1 / len(weights[rows])
        f, y, C = self.predictions.infinite.mean.reshape(problem.targets.shape), problem.targets, problem.outputs
        with jax.enable_x64(True):
            slopes = -problem.loss.measured_signal(f, y) * weights[:, None]
            curve = jax.vmap(jax.hessian(problem.loss.of_point))(jax.device_put(f), jax.device_put(y))
        infinite = problem.loss.measured(self.predictions.infinite.replicates.reshape(-1, *f.shape), y) @ weights
        first = Estimate(infinite, self.predictions.infinite.exact)
        if width is None:
            return first
        points = self.covariance.replicates.reshape(-1, len(f), C, len(f), C)
        spread = np.einsum("rpcpd,pcd,p->r", points, np.asarray(curve), weights) / (2 * networks)
        shift = np.einsum("rpc,pc->r", self.predictions.bias.replicates.reshape(-1, *f.shape), slopes)
        return _sum([first, Estimate(shift / width), Estimate(spread / width)])

    def summary(self, width: int) -> str:
        """Returns what a person with a network of that width wants to know, in a few lines."""
        here, halved = self.distance(width), self.width_for(self.distance(width).total / 2)
        loss, limit = self.loss(width), self.loss()
        lines = [
            f"A network of width {width:,} is off by {_percent(here.noise, here.noise_se)} (noise) and "
            f"{_percent(here.bias, here.bias_se)} (bias) in its predictions.",
            f"Its loss on the points that train is {loss.mean:.4g} ({float(loss.se):.1g}), "
            f"and {limit.mean:.4g} ({float(limit.se):.1g}) at infinite width.",
            f"Half as far off from N = {halved:,} on; within 1 % from N = {self.width_for(0.01):,} on, "
            f"within 0.5 % from N = {self.width_for(0.005):,} on.",
            f"The mean of 8 networks is off by {100 * self.distance(width, 8).total:.2g} %: "
            "averaging takes noise away, and leaves the bias.",
        ]
        return "\n".join(lines)

    def table(self, width: int) -> Table:
        """Returns a table of all quantities at a width: infinite width, noise and bias with their standard errors."""
        table = Table("after training", "infinite width", f"noise at N = {width:,}", "bias", box=SIMPLE)
        for name, each in {"f, rms over points": self.predictions, **self.kernels}.items():
            squares = [float(np.mean(np.square(value))) for value in (each.infinite.mean, each.bias.mean, each.bias.se)]
            variance = Estimate(each.variance.replicates.reshape(len(each.variance.replicates), -1).mean(axis=1))
            noise = math.sqrt(variance.mean / width)
            noise_se = noise * float(variance.se) / float(variance.mean) / 2 if noise else 0.0
            sign = "-" if np.ndim(each.bias.mean) == 0 and each.bias.mean < 0 else ""
            infinite, bias, bias_se = map(math.sqrt, squares)
            cells = (noise, noise_se), (bias / width, bias_se / width)
            (of_noise, of_bias) = (f"{value:.2g} ({se:.1g})" for value, se in cells)
            table.add_row(name, f"{infinite:.4g}", of_noise, sign + of_bias)
        return table

    def record(self, width: int) -> dict[str, Any]:
        """Returns what `summary` and `table` say, for scripts."""
        distance, loss, limit = self.distance(width), self.loss(width), self.loss()

        def numbers(each: Correction) -> dict[str, Any]:
            parts = {"infinite": each.infinite, "bias": each.bias, "variance": each.variance}
            return {
                name: {"value": part.mean.tolist(), "se": np.nan_to_num(part.se).tolist()}
                for name, part in parts.items()
            }

        return {
            "width": width,
            **{name: float(value) for name, value in distance._asdict().items()},
            "loss": float(loss.mean),
            "loss_se": float(loss.se),
            "infinite_loss": float(limit.mean),
            "widths": {f"{share:g}": self.width_for(share) for share in (0.1, 0.05, 0.02, 0.01, 0.005)},
            "found_by": self.found_by,
            "coefficients": {
                "f": numbers(self.predictions),
                **{name: numbers(each) for name, each in self.kernels.items()},
            },
        }

    def _moments(self) -> tuple[float, tuple[float, float], tuple[float, float]]:
        """The rms of f, and the means over points of variances and of squared biases, with standard errors."""
        predictions = self.predictions
        size = math.sqrt(float(np.mean(predictions.infinite.mean**2)))
        if not size > 0:
            raise ValueError("predictions are zero at infinite width: a distance relative to them is not defined")
        of_replicates = predictions.variance.replicates
        noise = Estimate(of_replicates.reshape(len(of_replicates), -1).mean(axis=1))
        bias, se = predictions.bias.mean, predictions.bias.se
        square = max(0.0, float(np.mean(bias**2 - se**2)))  # the square of an estimate has the square of its error
        error = math.sqrt(float(np.mean(4 * bias**2 * se**2 + 2 * se**4)) / max(1, bias.size))
        return size, (float(noise.mean), float(noise.se)), (square, error)


def finite_width_corrections(
    network: Architecture,
    problem: Problem,
    training: Training,
    *,
    pairs: int = 64,
    networks: int = 8,
    seed: int = 0,
    method: March | None = None,
    progress: bool | Report = True,
) -> Corrections:
    """Returns how predictions and kernels after training at width N differ from infinite width, to order 1 / N.

    Args:
        network, problem, training: as `kernelfield.solve` takes them.
        pairs: of coupled networks, whose differences are the bias; of ensembles 32 times as many networks.
        networks: whose influences give the covariance, where activations are smooth and predictions and kernels are few
            numbers (5 points of a network of three layers); elsewhere the networks of all pairs give it.
        seed: of the first network.
        method: March() by default.
        progress: show a progress bar; or a function that takes (done, total) instead.

    Returns:
        Corrections, each with error bars. Its `found_by` says how they were found. Coupled networks serve for gradient
        descent on up to 32 points (times sites). Of more, and by other rules, ensembles of widths 128 and 256 are
        faster: terms of the next order stay in their bias.

    Raises:
        ValueError: for a run that March or FiniteWidth does not solve, or too few pairs or networks.
        SolveError: training diverges.

    Source: arXiv:2304.03408 for the two orders of 1 / N; influence functions are the infinitesimal jackknife.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> found = kf.finite_width_corrections(kf.MLP(depth=1), problem, training, pairs=4, networks=2)
        >>> found.width_for(0.01) > found.width_for(0.02)
        True
    """
    if pairs < 2 or networks < 2:
        raise ValueError(f"pairs and networks must be at least 2, for error bars, got {pairs} and {networks}")
    solver = (method or March()).model_copy(update={"kernels": "all"})
    march = Run(network, problem, training, solver, save_at=(training.steps,))
    with bar("finite width", progress) as report, jax.enable_x64(True):
        solution = _solve(march)
        rows = problem.points * math.prod(network.inputs(problem).shape[1:-1])
        if isinstance(training, GradientDescent) and rows <= MOST_ROWS:
            bias, covariance, found_by = _by_planned_networks(march, pairs, networks, seed, report)
        else:
            bias, covariance = _by_ensembles(march, pairs, seed, report)
            found_by = "ensembles"
    return _put_together(solution, bias, covariance, found_by)


def _solve(run: Run) -> Solution:
    """Returns the solution of a run whose training ends well."""
    method = cast(Method, run.method)
    method.supports(run)
    solution = method.solve(run, lambda done, total: None)
    status = solution if isinstance(solution, Status) else solution.status
    if isinstance(solution, Status) or status.code != "ok":
        raise (KeyboardInterrupt if status.code == "interrupted" else SolveError)(str(status))
    return solution


def _by_planned_networks(
    run: Run, pairs: int, networks: int, seed: int, report: Report
) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns parts of the bias (R, Q) and of N times the covariance (R', Q, Q), and how they were found."""
    network, outputs = run.network, run.problem.outputs
    precision = "single" if cast(March, run.method).is_single(run) else "double"
    conditioned = Conditioned(particles=PLANNING_WIDTH, precision=precision, seed=seed)
    planned = PlannedNetworks.of(replace(run, method=conditioned), PLAN_TOL)
    narrowest = min(layer.width for layer in uses(network.layers) if isinstance(layer, Weights))
    needed = 2 * max(1, planned.capacity) / min(1.0, narrowest)  # halves have as many neurons as directions, and more
    width = max(LEAST_WIDTH, 2 ** math.ceil(math.log2(needed)))
    smooth = all(phi.smooth for phi in network.nonlinearities) and "mixing" not in run.extras
    numbers = run.problem.points * outputs + network.hidden_layers * (2 if outputs == 1 else 1)
    influences = smooth and numbers < MOST_REVERSED
    total = pairs + influences * networks
    halves, wholes = _train_pairs(planned, pairs, width, seed, lambda done: report(done, total))
    bias = width * (halves.mean(axis=1) - wholes)
    if not influences:
        return bias, _covariance_of(halves.reshape(-1, halves.shape[-1]), width // 2), "coupled networks"
    covariance = _covariance_by_influence(planned, networks, width, seed, lambda done: report(pairs + done, total))
    return bias, covariance, "coupled networks and influences"


def _by_ensembles(run: Run, pairs: int, seed: int, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Returns parts of the bias (R, Q), and of N times the covariance (R', Q, Q), from explicit networks."""
    precision = "float32" if cast(March, run.method).is_single(run) else "float64"
    width, results = ENSEMBLE_WIDTH, []
    for number, (of_width, seeds) in enumerate(((width, 32 * pairs), (2 * width, 16 * pairs))):
        settings = {"width": of_width, "seeds": seeds, "seed": seed, "precision": precision}
        ensemble = replace(run, method=FiniteWidth(**settings, kernels="all", algorithm="explicit"))
        f, kernels = _measure(_solve(ensemble))
        results.append(np.concatenate([f, *kernels.values()], axis=1))
        report(number + 1, 2)
    narrow, wide = (each.reshape(pairs, -1, each.shape[1]).mean(axis=1) for each in results)
    return 2 * width * (narrow - wide), _covariance_of(results[1], 2 * width)


def _measure(solution: Solution) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns f after training (R, P C), and alignments of kernels with the targets (R, 1) by name."""
    f, problem = solution.replicate_predictions[:, -1], solution.problem
    y = problem.targets * (problem.weights > 0)[:, None]
    names = [("Phi", layer) for layer in solution.hidden("Phi")]
    if problem.outputs == 1:
        names += [("G", layer) for layer in solution.hidden("G")] + [("NTK", None)]
    kernels = {}
    for symbol, layer in names:
        kernel = solution.kernel_estimate(cast(Any, symbol), layer).replicates
        aligned = np.einsum("pc,rpq,qc->r", y, kernel, y) / np.sum(y**2)
        kernels[symbol if layer is None else f"{symbol} {layer}"] = aligned[:, None]
    return f.reshape(len(f), -1).astype(float), kernels


def _put_together(solution: Solution, bias: np.ndarray, covariance: np.ndarray, found_by: str) -> Corrections:
    """Returns what was found beside the values at infinite width."""
    (f, kernels), variance = _measure(solution), np.einsum("rqq->rq", covariance)
    place, found = 0, {}
    for name, values in {"f": f, **kernels}.items():
        shape = (-1, *solution.problem.y.shape) if name == "f" else (-1,)
        parts = (each[:, place : place + values.shape[1]].reshape(shape) for each in (bias, variance))
        found[name] = Correction(Estimate(values.reshape(shape), solution.exact), *map(Estimate, parts))
        place += values.shape[1]
    whole = Estimate(covariance[:, : f.shape[1], : f.shape[1]])
    return Corrections(solution.run, found.pop("f"), found, whole, found_by)


def _train_pairs(
    planned: PlannedNetworks, pairs: int, width: int, seed: int, report: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the results of pairs of networks of half a width (pairs, 2, Q), and of whole ones (pairs, Q)."""
    train, halves, wholes = jax.jit(jax.vmap(planned.results)), [], []
    for start in range(0, pairs, AT_ONCE):
        several = range(seed + start, seed + min(start + AT_ONCE, pairs))
        of_whole = [planned.start(number, width) for number in several]
        of_halves = [planned.start(number, width // 2, part, 2) for number in several for part in (0, 1)]
        for found, layers in ((wholes, of_whole), (halves, of_halves)):
            found.append(np.asarray(train(jax.tree.map(lambda *leaves: np.stack(leaves), *layers))))
        report(start + len(several))
    results = np.concatenate(halves)
    return results.reshape(pairs, 2, -1), np.concatenate(wholes)


def _covariance_by_influence(
    planned: PlannedNetworks, networks: int, width: int, seed: int, report: Callable[[int], None]
) -> np.ndarray:
    """Returns N times the covariance of results by influences, (networks, Q, Q): one estimate of every network."""
    ones = [jnp.ones(each.particles, planned.layout().dtype) for each in planned.lay_out(width)[1]]

    @jax.jit
    def influences(layers: tuple) -> list[Array]:
        results, pull = jax.vjp(lambda weights: planned.results(layers, weights), ones)
        return lax.map(lambda unit: pull(unit)[0], jnp.eye(len(results)), batch_size=AT_ONCE)

    estimates = []
    for number in range(networks):
        slopes = influences(jax.device_put(planned.start(seed + number, width)))
        every = [np.asarray(slope) * len(slope[0]) for slope in slopes]  # of a weight 1 / S
        every = [each - each.mean(axis=1, keepdims=True) for each in every]
        estimates.append(sum(width / each.shape[1] * (each @ each.T) / each.shape[1] for each in every))
        report(number + 1)
    return np.stack(estimates)


def _covariance_of(results: np.ndarray, width: int) -> np.ndarray:
    """Returns N times the covariance of results (R, Q) of networks, as R parts (R, Q, Q) whose mean it is."""
    rest = results - results.mean(axis=0)
    return width * len(rest) / (len(rest) - 1) * rest[:, :, None] * rest[:, None, :]


def _sum(parts: list[Estimate]) -> Estimate:
    """Returns the sum of independent estimates, as two replicates with its mean and its standard error."""
    mean, se = sum(part.mean for part in parts), np.sqrt(sum(np.nan_to_num(part.se) ** 2 for part in parts))
    return Estimate(np.stack([mean - se, mean + se]))


def _percent(value: float, se: float) -> str:
    return f"{100 * value:.2g} % ({100 * se:.1g})"
