"""Figure 1 of the paper: a tanh network of three hidden layers, trained lazily and richly on ten images.

Loss, distributions, kernels between samples and between times at infinite width and in wide networks; then how
networks approach infinite width as they grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield import observables
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import (
    HEADING,
    Say,
    Settings,
    caption,
    heading,
    losses,
    new_figure,
    sample_rows,
    say_kernels,
    say_loss,
    symbols,
    time_rows,
    timed,
)
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.solution import Solution

DEPTH, POINTS = 3, 10
LAZY, RICH = 0.2, 1.0  # gamma0
RATE = 0.1  # of the mean loss, which shows all of training in 100 steps; the paper's 0.1 is of the sum, ten times that
INFINITE = "infinite width"


@dataclass(frozen=True)
class Plan:
    """What is run.

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


FULL = Plan()
QUICK = Plan(steps=30, particles=512, width=256, smaller=(4, 32), seeds=4)


@dataclass(frozen=True)
class Runs:
    """Everything the figure shows.

    Args:
        plan: what was run.
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


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: quick or not, and which images.
        say: called with a line about each run and about how well they agree.

    Yields:
        A file name and a matplotlib Figure.
    """
    plan = QUICK if settings.quick else FULL
    problem, names, data = settings.images(POINTS)
    yield "figure1", drawn(run(plan, problem, names, data, say), say)


def run(plan: Plan, problem: Problem, names: tuple[str, str], data: str, say: Say) -> Runs:
    """Solve everything.

    Args:
        plan: what to run.
        problem: images of two classes.
        names: of the classes.
        data: what the images are.
        say: called with a line about each run.

    Returns:
        Runs.
    """
    training = GradientDescent(learning_rate=RATE, steps=plan.steps)

    def solved(gamma0: float, method: March | FiniteWidth) -> Solution:
        many = f"{method.seeds} networks, N = {method.width}" if isinstance(method, FiniteWidth) else INFINITE
        network = MLP(depth=DEPTH, activation="tanh", gamma0=gamma0)
        return timed(f"gamma0 = {gamma0:g}, {many}", say, network, problem, training, method)

    march = March(particles=plan.particles)
    lazy, rich = solved(LAZY, march), solved(RICH, march)
    lazy_finite = solved(LAZY, FiniteWidth(width=plan.width, seeds=plan.lazy_seeds, kernels="none"))
    rich_finite = solved(RICH, FiniteWidth(width=plan.width, seeds=plan.seeds))
    growing = {width: solved(RICH, FiniteWidth(width=width, seeds=plan.seeds)) for width in plan.smaller}
    return Runs(plan, names, data, lazy, rich, lazy_finite, rich_finite, {**growing, plan.width: rich_finite})


def drawn(runs: Runs, say: Say) -> Any:
    """The figure.

    Args:
        runs: from `run`.
        say: called with lines about how well infinite and finite width agree.

    Returns:
        matplotlib Figure.
    """
    say_loss("lazy", runs.lazy_finite, runs.lazy, say)
    say_loss("rich", runs.rich_finite, runs.rich, say)
    say_kernels("rich", runs.rich_finite, runs.rich, say)
    figure = new_figure(17.5, 12.0)
    above, *below = figure.subfigures(3, 1, height_ratios=[3.6, 4.1, 4.1])
    loss, *densities = above.subplots(1, 1 + DEPTH, width_ratios=[1.35, *[1] * DEPTH])
    _draw_loss(loss, runs)
    _draw_densities(densities, runs)
    for part, kernel, letters in zip(below, ("Phi", "G"), ("egi", "fhi"), strict=True):
        samples, times, growing = part.subfigures(1, 3, width_ratios=[1.05, 1.15, 0.8])
        _draw_final(samples, runs, kernel, letters[0])
        _draw_times(times, runs, kernel, letters[1])
        _draw_growing(growing.subplots(), runs, kernel, letters[2])
    figure.suptitle(
        f"A tanh network with {DEPTH} hidden layers learns {runs.data}: infinite width beside "
        f"networks of width {runs.plan.width}",
        fontsize=14,
    )
    caption(
        figure,
        f"tanh, L = {DEPTH}, P = {POINTS}, D = {runs.rich.problem.dimensions}, $\\gamma_0$ = {RICH:g} "
        f"(lazy: {LAZY:g}), $\\eta$ = {RATE:g}, {runs.plan.steps} steps; b to i: $\\gamma_0$ = {RICH:g}",
    )
    return figure


def _draw_loss(axes: Any, runs: Runs) -> None:
    from kernelfield import plotting

    plan = runs.plan
    for name, gamma0, infinite, finite, seeds, colour in (
        ("lazy", LAZY, runs.lazy, runs.lazy_finite, plan.lazy_seeds, plotting.LAZY),
        ("rich", RICH, runs.rich, runs.rich_finite, plan.seeds, plotting.RICH),
    ):
        label = f"{name}, $\\gamma_0$ = {gamma0:g}: {INFINITE}"
        losses(axes, infinite, finite, colour, label, f"{seeds} networks, N = {plan.width}, 95 % interval")
    heading(axes, "a", "Loss")
    axes.legend(frameon=False, fontsize=9)
    plotting.plain(axes)


def _draw_densities(places: list[Any], runs: Runs) -> None:
    from kernelfield import plotting

    for layer, (axes, letter) in enumerate(zip(places, "bcd", strict=True), start=1):
        edges = observables.activation_density(runs.rich, layer, edges=40).edges
        for t, when, colour in ((0, "before", plotting.NEUTRAL), (-1, "after", plotting.RICH)):
            finite, infinite = (
                observables.activation_density(solution, layer, t=t, edges=edges).density
                for solution in (runs.rich_finite, runs.rich)
            )
            plotting.density_bars(axes, edges, finite, colour, f"{when}, N = {runs.plan.width}")
            plotting.density_line(axes, edges, infinite, colour, f"{when}, {INFINITE}")
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
        heading(axes, letter, f"Preactivations, layer {layer}")
        axes.set_xlabel(f"$h^{layer}$")
        plotting.plain(axes)
    places[0].set_ylabel("density over neurons")
    places[0].legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center")


def _draw_final(part: Any, runs: Runs, kernel: observables.Symbol, letter: str) -> None:
    from kernelfield import plotting

    name = "feature_kernel" if kernel == "Phi" else "gradient_kernel"
    rows = {
        row: [solution.estimate(name, layer).mean for layer in range(1, DEPTH + 1)]
        for row, solution in ((INFINITE, runs.rich), (f"N = {runs.plan.width}", runs.rich_finite))
    }
    axes = sample_rows(part, rows, symbols(kernel, DEPTH), "kernel entry", runs.rich.problem)
    for place in axes[:, 0]:
        plotting.class_labels(place, runs.names, [POINTS // 2, POINTS // 2])
    heading(part, letter, f"{'Feature' if kernel == 'Phi' else 'Gradient'} kernels after training")


def _draw_times(part: Any, runs: Runs, kernel: observables.Symbol, letter: str) -> None:
    rows = {
        row: [observables.two_time_kernel(solution, kernel, layer).mean for layer in range(1, DEPTH + 1)]
        for row, solution in ((INFINITE, runs.rich), (f"N = {runs.plan.width}", runs.rich_finite))
    }
    time_rows(part, rows, symbols(kernel, DEPTH), "mean over samples")
    heading(part, letter, f"{'Feature' if kernel == 'Phi' else 'Gradient'} kernels between steps")


def _draw_growing(axes: Any, runs: Runs, kernel: observables.Symbol, letter: str) -> None:
    from kernelfield import plotting

    widths, lowest, highest = list(runs.growing), 1.0, 1 - 1e-4
    for layer, colour in enumerate(plotting.shades(DEPTH), start=1):
        found = [observables.cosine_alignment(each, runs.rich, kernel, layer, t=-1) for each in runs.growing.values()]
        means = np.array([float(each.mean) for each in found])
        lowest, highest = min(lowest, means.min()), max(highest, (1 + means.max()) / 2)
        plotting.alignments(
            axes,
            np.array(widths) * 1.07 ** (layer - 2),
            means,
            np.array([float(each.se) for each in found]),
            colour,
            symbols(kernel, DEPTH)[layer - 1],
            "-",
        )
    plotting.width_axis(axes, widths)
    plotting.width_guide(axes, widths, 2 * (1 - lowest), -1.0, "$N^{-1}$")
    plotting.alignment_scale(axes, lowest - 0.3, highest)
    axes.set_ylabel(f"cosine with {INFINITE}, {runs.plan.seeds} networks")
    axes.legend(frameon=False, fontsize=10)
    axes.set_title(f"{letter}   {'Feature' if kernel == 'Phi' else 'Gradient'} kernels against width", **HEADING)
    plotting.plain(axes)
