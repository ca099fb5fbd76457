"""Generalization against width, lazy and rich: one network, the mean of several, infinite width, and the order 1 / N.

A wide network differs from infinite width by noise, which averaging over networks takes away, and by a bias, which it
does not. Where the noise is most of the loss that a network has too much, it is limited by variance; the mean of many
networks is limited by bias (arXiv:2212.12147, arXiv:2304.03408).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import plotting
from kernelfield.datasets import digits
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, new_figure, solve_and_say, write_caption, write_heading
from kernelfield.finite.corrections import Corrections, finite_width_corrections
from kernelfield.finite.method import FiniteWidth
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMAS = {"lazy": 0.1, "rich": 3.0}
COLOURS = {1: "#b3364a", 8: "#1f6f8b"}  # by the number of networks whose predictions are averaged


@dataclass(frozen=True)
class Plan:
    """What is trained."""

    points: int = 24
    tests: int = 32
    rate: float = 0.3
    steps: int = 40
    pairs: int = 32
    seeds: tuple[tuple[int, int], ...] = ((32, 512), (64, 512), (128, 512), (256, 256), (512, 128), (1024, 64))

    def problem(self) -> Problem:
        """Returns images of handwritten threes and eights to learn, followed by those to test on."""
        images = digits(classes=(3, 8), points=self.points + self.tests, seed=0)
        of_class = len(images.y) // 2
        order = np.argsort(np.arange(len(images.y)) % of_class >= self.points // 2, kind="stable")
        return Problem(images.X[order], images.y[order], weights=np.arange(len(order)) < self.points)


QUICK = Plan(points=8, tests=8, steps=12, pairs=8, seeds=((32, 32), (128, 16)))
Runs = dict[str, tuple[Corrections, dict[int, Solution]]]


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and what it shows."""
    plan = QUICK if settings.quick else Plan()
    yield "width", draw_figure(plan, run(plan, say), say)


def run(plan: Plan, say: Say) -> Runs:
    """Returns the coefficients of 1 / N and the networks of all widths, by regime."""
    problem, training, runs = plan.problem(), GradientDescent(learning_rate=plan.rate, steps=plan.steps), {}
    for regime, gamma0 in GAMMAS.items():
        network = MLP(depth=2, activation="tanh", gamma0=gamma0)
        networks = {
            width: solve_and_say(
                f"{regime}, {seeds} networks of N = {width}",
                say,
                network,
                problem,
                training,
                FiniteWidth(width=width, seeds=seeds, kernels="none", algorithm="explicit"),
                fields_at=(),
            )
            for width, seeds in plan.seeds
        }
        corrections = finite_width_corrections(network, problem, training, pairs=plan.pairs)
        say(f"{regime}: {corrections.summary(plan.seeds[-1][0]).splitlines()[0]}")
        runs[regime] = corrections, networks
    return runs


def measure_loss(solution: Solution, tests: slice, together: int) -> Estimate:
    """Returns the loss at test points of the mean of so many networks, one value for every group of them."""
    f = solution.replicate_predictions[:, -1, tests]
    groups = f[: len(f) // together * together].reshape(-1, together, *f.shape[1:]).mean(axis=1)
    return Estimate(solution.problem.loss.measured(groups, solution.problem.y[tests]).mean(axis=1))


def draw_figure(plan: Plan, runs: Runs, say: Say) -> Figure:
    """Returns the test loss against width for both regimes, and how much of it is more than at infinite width."""
    figure = new_figure(13.5, 4.5)
    panels, tests = figure.subplots(1, 3), slice(plan.points, None)
    for axes, letter, (regime, (corrections, networks)) in zip(panels, "ab", runs.items(), strict=False):
        widths = np.geomspace(min(networks), max(networks), 60)
        limit = corrections.loss(rows=tests)
        axes.axhline(float(limit.mean), color=plotting.NEUTRAL, label="infinite width")
        for together, colour in COLOURS.items():
            label = "one network" if together == 1 else f"mean of {together} networks"
            _draw_dots(axes, networks, tests, together, colour, label)
            lines = [float(corrections.loss(int(width), together, tests).mean) for width in widths]
            axes.plot(widths, lines, color=colour, label="to order $1/N$" if together == 1 else None)
        axes.set(xscale="log", xlabel="width $N$", ylabel="loss at test points")
        axes.legend(fontsize=9, frameon=False)
        write_heading(axes, letter, f"{regime}, $\\gamma_0$ = {GAMMAS[regime]:g}")
        plotting.plain(axes)
        widest = max(networks)
        distance, loss = corrections.distance(widest), measure_loss(networks[widest], tests, 1)
        say(
            f"{regime}: test loss {float(limit.mean):.4g} at infinite width, {float(loss.mean):.4g} at N = {widest}, "
            f"where f is off by {100 * distance.noise:.2g} % (noise) and {100 * distance.bias:.2g} % (bias)"
        )
    _draw_distances(panels[2], runs)
    about = f"tanh, $L$ = 2, $P$ = {plan.points}, {plan.tests} test points, handwritten digits 3 and 8"
    write_caption(figure, about)
    return figure


def _draw_dots(axes: Axes, networks: dict[int, Solution], tests: slice, together: int, colour: str, label: str) -> None:
    losses = {N: measure_loss(solution, tests, together) for N, solution in networks.items()}
    kept = {N: loss for N, loss in losses.items() if len(loss.replicates) > 1}
    means, errors = (np.array([float(getattr(loss, part)) for loss in kept.values()]) for part in ("mean", "se"))
    axes.errorbar(list(kept), means, 2 * errors, fmt="o", color=colour, capsize=3, label=label, markersize=5)


def _draw_distances(axes: Axes, runs: Runs) -> None:
    """Draw how far predictions of rich networks are from infinite width, of one and of the mean of several."""
    corrections, networks = runs["rich"]
    limit, widths = corrections.predictions.infinite.mean, np.geomspace(min(networks), max(networks), 60)
    for together, colour in {**COLOURS, 64: plotting.NEUTRAL}.items():
        label = "one network" if together == 1 else f"mean of {together}"
        for width, solution in networks.items():
            f = solution.replicate_predictions[:, -1]
            groups = f[: len(f) // together * together].reshape(-1, together, f.shape[1]).mean(axis=1)
            square = Estimate(np.mean((groups - limit) ** 2, axis=1) / np.mean(limit**2))
            distance, error = float(np.sqrt(square.mean)), float(square.se / np.sqrt(square.mean))
            name = label if width == min(networks) else None
            axes.errorbar(width, distance, error, fmt="o", color=colour, capsize=3, markersize=5, label=name)
        axes.plot(widths, [corrections.distance(int(width), together).total for width in widths], color=colour)
    bias = [corrections.distance(int(width)).bias for width in widths]
    axes.plot(widths, bias, ":", color=plotting.NEUTRAL, label="bias")
    axes.set(xscale="log", yscale="log", xlabel="width $N$", ylabel="distance of $f$ from infinite width")
    axes.legend(fontsize=9, frameon=False)
    write_heading(axes, "c", "rich: noise averages out")
    plotting.plain(axes)
