"""Figure 1 of the paper: a tanh network of three hidden layers, trained lazily and richly on ten images.

Loss, distributions, kernels between samples and between times at infinite width and in wide networks; then how
networks approach infinite width as they grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import observables, plotting
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import (
    INFINITE,
    KERNELS,
    Say,
    Settings,
    draw_densities,
    draw_losses,
    draw_sample_kernels,
    draw_time_kernels,
    new_figure,
    say_kernels,
    say_loss,
    solve_and_say,
    symbols,
    write_caption,
    write_heading,
)
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables import Symbol
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

DEPTH, POINTS = 3, 10
LAZY, RICH = 0.2, 1.0  # gamma0
RATE = 0.1  # of the mean loss, which shows all of training in 100 steps; the paper's 0.1 is of the sum, ten times that


@dataclass(frozen=True)
class Plan:
    """The sizes of all runs.

    Args:
        steps: of gradient descent.
        particles: of each infinite-width replicate.
        width: N of the networks beside infinite width.
        smaller: N of the networks that approach infinite width, below `width`.
        seeds: how many of each width.
        lazy_seeds: how many of width `width`, trained lazily.
    """

    steps: int = 100
    particles: int = 2048
    width: int = 2000
    smaller: tuple[int, ...] = (2, 8, 32, 128, 512)
    seeds: int = 10
    lazy_seeds: int = 4


QUICK = Plan(steps=30, particles=512, width=256, smaller=(4, 32), seeds=4)


@dataclass(frozen=True)
class Runs:
    """Everything the figure shows.

    Args:
        plan: the sizes.
        names: of the two classes.
        data: what the images are.
        lazy, rich: infinite width.
        lazy_finite, rich_finite: networks of width `plan.width`.
        growing: networks by width, rich, up to `plan.width`.
    """

    plan: Plan
    names: tuple[str, str]
    data: str
    lazy: Solution
    rich: Solution
    lazy_finite: Solution
    rich_finite: Solution
    growing: dict[int, Solution]

    @property
    def rich_pair(self) -> dict[str, Solution]:
        """Infinite and finite width after rich training, by name."""
        return {INFINITE: self.rich, f"N = {self.plan.width}": self.rich_finite}


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and about how well they agree."""
    plan = QUICK if settings.quick else Plan()
    yield "figure1", draw_figure(run(plan, *settings.images(POINTS), say), say)


def run(plan: Plan, problem: Problem, names: tuple[str, str], data: str, say: Say) -> Runs:
    """Returns all Solutions, for images of two classes with their names and that of the data."""
    training = GradientDescent(learning_rate=RATE, steps=plan.steps)

    def solve(gamma0: float, method: March | FiniteWidth) -> Solution:
        name = f"{method.seeds} networks, N = {method.width}" if isinstance(method, FiniteWidth) else INFINITE
        network = MLP(depth=DEPTH, activation="tanh", gamma0=gamma0)
        return solve_and_say(f"gamma0 = {gamma0:g}, {name}", say, network, problem, training, method)

    march = March(particles=plan.particles)
    lazy, rich = solve(LAZY, march), solve(RICH, march)
    lazy_finite = solve(LAZY, FiniteWidth(width=plan.width, seeds=plan.lazy_seeds, kernels="none"))
    rich_finite = solve(RICH, FiniteWidth(width=plan.width, seeds=plan.seeds))
    growing = {width: solve(RICH, FiniteWidth(width=width, seeds=plan.seeds)) for width in plan.smaller}
    return Runs(plan, names, data, lazy, rich, lazy_finite, rich_finite, {**growing, plan.width: rich_finite})


def draw_figure(runs: Runs, say: Say) -> Figure:
    """Returns the figure, and says how well infinite and finite width agree."""
    say_loss("lazy", runs.lazy_finite, runs.lazy, say)
    say_loss("rich", runs.rich_finite, runs.rich, say)
    say_kernels("rich", runs.rich_finite, runs.rich, say)
    figure = new_figure(17.5, 12.0)
    above, *below = figure.subfigures(3, 1, squeeze=False, height_ratios=[3.6, 4.1, 4.1])[:, 0]
    loss, *densities = above.subplots(1, 1 + DEPTH, width_ratios=[1.35, *[1] * DEPTH])
    _draw_loss(loss, runs)
    _draw_densities(densities, runs)
    for part, kernel, letters in zip(below, KERNELS, ("egi", "fhi"), strict=True):
        samples, times, growing = part.subfigures(1, 3, width_ratios=[1.05, 1.15, 0.8])
        _draw_final(samples, runs, kernel, letters[0])
        _draw_times(times, runs, kernel, letters[1])
        _draw_growing(growing.subplots(), runs, kernel, letters[2])
    figure.suptitle(
        f"A tanh network with {DEPTH} hidden layers learns {runs.data}: infinite width beside "
        f"networks of width {runs.plan.width}",
        fontsize=14,
    )
    write_caption(
        figure,
        f"tanh, L = {DEPTH}, P = {POINTS}, D = {runs.rich.problem.dimensions}, $\\gamma_0$ = {RICH:g} "
        f"(lazy: {LAZY:g}), $\\eta$ = {RATE:g}, {runs.plan.steps} steps; b to i: $\\gamma_0$ = {RICH:g}",
    )
    return figure


def _draw_loss(axes: Axes, runs: Runs) -> None:
    plan = runs.plan
    for name, gamma0, infinite, finite, seeds, colour in (
        ("lazy", LAZY, runs.lazy, runs.lazy_finite, plan.lazy_seeds, plotting.LAZY),
        ("rich", RICH, runs.rich, runs.rich_finite, plan.seeds, plotting.RICH),
    ):
        label = f"{name}, $\\gamma_0$ = {gamma0:g}: {INFINITE}"
        draw_losses(axes, infinite, finite, colour, label, f"{seeds} networks, N = {plan.width}, 95 % interval")
    write_heading(axes, "a", "Loss")
    axes.legend(frameon=False, fontsize=9)
    plotting.plain(axes)


def _draw_densities(panels: list[Axes], runs: Runs) -> None:
    for layer, (axes, letter) in enumerate(zip(panels, "bcd", strict=True), start=1):
        edges = observables.activation_density(runs.rich, layer, edges=40).edges
        draw_densities(axes, runs.rich_pair, layer, "h", edges)
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
        write_heading(axes, letter, f"Preactivations, layer {layer}")
        axes.set_xlabel(f"$h^{layer}$")
    panels[0].set_ylabel("density over neurons")
    panels[0].legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center")


def _draw_final(part: SubFigure, runs: Runs, kernel: Symbol, letter: str) -> None:
    rows = {
        name: [solution.kernel_estimate(kernel, layer).mean for layer in range(1, DEPTH + 1)]
        for name, solution in runs.rich_pair.items()
    }
    draw_sample_kernels(part, rows, symbols(kernel, DEPTH), "kernel entry", runs.rich.problem, runs.names)
    write_heading(part, letter, f"{KERNELS[kernel]} after training")


def _draw_times(part: SubFigure, runs: Runs, kernel: Symbol, letter: str) -> None:
    rows = {
        name: [observables.two_time_kernel(solution, kernel, layer).mean for layer in range(1, DEPTH + 1)]
        for name, solution in runs.rich_pair.items()
    }
    draw_time_kernels(part, rows, symbols(kernel, DEPTH), "mean over samples")
    write_heading(part, letter, f"{KERNELS[kernel]} between steps")


def _draw_growing(axes: Axes, runs: Runs, kernel: Symbol, letter: str) -> None:
    """Draws the alignment of networks of growing width with infinite width, a line for each layer."""
    widths, lowest, highest = list(runs.growing), 1.0, 1 - 1e-4
    for layer, colour in enumerate(plotting.shades(DEPTH), start=1):
        estimates = [
            observables.cosine_alignment(solution, runs.rich, kernel, layer, t=-1) for solution in runs.growing.values()
        ]
        means, errors = np.array([(estimate.mean, estimate.se) for estimate in estimates], dtype=float).T
        lowest, highest = min(lowest, means.min()), max(highest, (1 + means.max()) / 2)
        places = np.array(widths) * 1.07 ** (layer - 2)  # beside each other
        plotting.alignments(axes, places, means, errors, colour, symbols(kernel, DEPTH)[layer - 1], "-")
    plotting.width_axis(axes, widths)
    plotting.width_guide(axes, widths, 2 * (1 - lowest), -1.0, "$N^{-1}$")
    plotting.alignment_scale(axes, lowest - 0.3, highest)
    axes.set_ylabel(f"cosine with {INFINITE}, {runs.plan.seeds} networks")
    axes.legend(frameon=False, fontsize=10)
    write_heading(axes, letter, f"{KERNELS[kernel]} against width")
    plotting.plain(axes)
