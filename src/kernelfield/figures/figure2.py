"""Figure 2 of the paper: deep linear networks of two to five hidden layers.

Loss, kernels between samples and between times, alignment with the targets and movement of the kernels, from the
algebraic equations of the theory and in wide networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield import observables
from kernelfield.describe.networks import MLP
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import (
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
from kernelfield.figures.figure3 import problem
from kernelfield.finite.method import FiniteWidth
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.theories.deep_linear import DeepLinear

GAMMA0 = 1.5
RATE = 0.1  # of the mean loss; the paper's 0.025 is of the sum, twenty times that, and unstable on these data
INFINITE = "infinite width"
SHOWN = 30  # steps between which kernels are shown: they hardly move later


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        points: P; inputs have twice as many dimensions.
        steps: of gradient descent.
        depths: L, growing; kernels are shown of the last.
        width: N of the networks.
        seeds: how many of each depth.
    """

    points: int = 20
    steps: int = 100
    depths: tuple[int, ...] = (2, 3, 4, 5)
    width: int = 1000
    seeds: int = 8


FULL = Plan()
QUICK = Plan(points=10, steps=30, depths=(2, 3), width=256, seeds=4)


@dataclass(frozen=True)
class Runs:
    """Everything the figure shows.

    Args:
        plan: what was run.
        infinite: by depth, exact.
        finite: by depth, networks of width `plan.width`.
    """

    plan: Plan
    infinite: dict[int, Solution]
    finite: dict[int, Solution]

    @property
    def deepest(self) -> dict[str, Solution]:
        """Infinite and finite width at the largest depth, by name."""
        return {
            INFINITE: self.infinite[self.plan.depths[-1]],
            f"N = {self.plan.width}": self.finite[self.plan.depths[-1]],
        }


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: quick or not.
        say: called with a line about each run and about how well they agree.

    Yields:
        A file name and a matplotlib Figure.
    """
    yield "figure2", drawn(run(QUICK if settings.quick else FULL, say), say)


def run(plan: Plan, say: Say) -> Runs:
    """Solve everything.

    Args:
        plan: what to run.
        say: called with a line about each run.

    Returns:
        Runs.
    """
    training, data = GradientDescent(learning_rate=RATE, steps=plan.steps), problem(plan.points)
    networks = {depth: MLP(depth=depth, activation="linear", gamma0=GAMMA0) for depth in plan.depths}
    method, many = FiniteWidth(width=plan.width, seeds=plan.seeds), f"{plan.seeds} networks, N = {plan.width}"
    return Runs(
        plan,
        {
            depth: timed(f"L = {depth}, {INFINITE}", say, network, data, training, DeepLinear())
            for depth, network in networks.items()
        },
        {
            depth: timed(f"L = {depth}, {many}", say, network, data, training, method)
            for depth, network in networks.items()
        },
    )


def growth(solution: Solution, kernel: observables.Symbol, layer: int, t: int) -> Estimate:
    """Size of a kernel along the targets over that of the inputs, y^T K y / (y^T K_x y).

    Linear in K: of networks of finite width, it is not raised by the noise of entries, as a norm |K - K_x| is.

    Args:
        solution: what to measure.
        kernel: "Phi" or "G".
        layer: of the kernel.
        t: step.

    Returns:
        Estimate of a number.
    """
    name, y = "feature_kernel" if kernel == "Phi" else "gradient_kernel", solution.problem.y
    found = solution.estimate(name, layer, t)
    return Estimate(y @ found.replicates @ y / (y @ solution.problem.input_kernel @ y), found.exact)


def drawn(runs: Runs, say: Say) -> Any:
    """The figure.

    Args:
        runs: from `run`.
        say: called with lines about how well infinite and finite width agree.

    Returns:
        matplotlib Figure.
    """
    plan = runs.plan
    for depth in plan.depths:
        say_loss(f"L = {depth}", runs.finite[depth], runs.infinite[depth], say)
    say_kernels(f"L = {plan.depths[-1]}", runs.finite[plan.depths[-1]], runs.infinite[plan.depths[-1]], say)
    figure = new_figure(17.5, 12.4)
    (loss, samples), (features, gradients), (alignment, movement) = figure.subfigures(3, 2, height_ratios=[4, 3.7, 3.8])
    _draw_loss(loss.subplots(), runs)
    _draw_samples(samples, runs)
    _draw_times(features, runs, "Phi", f"c   Feature kernels between the first {SHOWN} steps")
    _draw_times(gradients, runs, "G", f"c   Gradient kernels between the first {SHOWN} steps")
    _draw_over_layers(
        alignment.subplots(), runs, observables.kernel_alignment, "Alignment with the targets", r"$A(H^l, y y^\top)$"
    )
    _draw_over_layers(
        movement.subplots(), runs, growth, "Growth along the targets", r"$y^\top H^l y \, / \, y^\top K_x y$"
    )
    figure.suptitle(
        f"Deep linear networks: the algebraic theory beside {plan.seeds} networks of width {plan.width}", fontsize=14
    )
    caption(
        figure,
        f"linear, P = {plan.points}, D = {2 * plan.points}, $\\gamma_0$ = {GAMMA0:g}, $\\eta$ = {RATE:g}, "
        f"{plan.steps} steps; panels b and c: L = {plan.depths[-1]}",
    )
    return figure


def _draw_loss(axes: Any, runs: Runs) -> None:
    from kernelfield import plotting

    for depth, colour in zip(runs.plan.depths, plotting.shades(len(runs.plan.depths)), strict=True):
        losses(axes, runs.infinite[depth], runs.finite[depth], colour, f"L = {depth}")
    heading(axes, "a", f"Loss (lines: {INFINITE}; dots: N = {runs.plan.width}, 95 % intervals)")
    axes.legend(frameon=False)
    plotting.plain(axes)


def _draw_samples(part: Any, runs: Runs) -> None:
    from kernelfield import plotting

    depth = runs.plan.depths[-1]
    rows = {name: [each.feature_kernel(layer) for layer in range(1, depth + 1)] for name, each in runs.deepest.items()}
    data = runs.infinite[depth].problem
    axes = sample_rows(part, rows, symbols("Phi", depth), r"$H^l = \Phi^l$", data)
    groups = np.unique(-data.y, return_counts=True)[1].tolist()
    for place in axes[:, 0]:
        plotting.class_labels(place, ["+", "\N{MINUS SIGN}"], groups)
    heading(part, "b", "Kernels after training, samples ordered by target")


def _draw_times(part: Any, runs: Runs, kernel: observables.Symbol, text: str) -> None:
    depth = runs.plan.depths[-1]
    rows = {
        name: [
            observables.two_time_kernel(each, kernel, layer).mean[: SHOWN + 1, : SHOWN + 1]
            for layer in range(1, depth + 1)
        ]
        for name, each in runs.deepest.items()
    }
    time_rows(part, rows, symbols(kernel, depth), "mean over samples", logarithmic=kernel == "G")
    heading(part, *text.split("   "))


def _draw_over_layers(axes: Any, runs: Runs, measure: Callable[..., Estimate], text: str, label: str) -> None:
    """A property of the final kernels against layer, a line for each depth at infinite width and dots at finite."""
    from kernelfield import plotting

    for depth, colour in zip(runs.plan.depths, plotting.shades(len(runs.plan.depths)), strict=True):
        layers = np.arange(depth + 1)
        infinite, finite = (_of_layers(each[depth], measure) for each in (runs.infinite, runs.finite))
        plotting.curve(axes, layers, infinite, colour, f"L = {depth}")
        plotting.dots(axes, layers, finite, colour, count=depth + 1)
    axes.set(xlabel="layer $l$ (0: inputs)", ylabel=label, xticks=range(runs.plan.depths[-1] + 1))
    heading(axes, "d", text)
    axes.legend(frameon=False)
    plotting.plain(axes)


def _of_layers(solution: Solution, measure: Callable[..., Estimate]) -> Estimate:
    """A property of the final feature kernels of layers 0..L, (R, L + 1)."""
    found = [measure(solution, "Phi", layer, t=-1) for layer in solution.layers("Phi")]
    count = len(solution.replicate_predictions)
    return Estimate(np.stack([np.broadcast_to(each.replicates, count) for each in found], axis=1), solution.exact)
