"""The paper's two-layer ReLU networks: from lazy to rich.

Loss, kernels after training, and the distributions of preactivations and pregradients before and after it, at infinite
width and in wide networks. With one hidden layer no random matrix is used in both directions, so that infinite width
needs no bases: kernels are averages over the sampled neurons, as they are in networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield import observables, plotting
from kernelfield.describe.networks import MLP
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import (
    INFINITE,
    KERNELS,
    Say,
    Settings,
    draw_densities,
    draw_losses,
    draw_sample_kernels,
    new_figure,
    say_loss,
    solve_and_say,
    symbols,
    teacher,
    write_caption,
    write_heading,
)
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables import Field, Symbol
from kernelfield.observables.kernels import align
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

GAMMAS = (0.2, 1.0, 2.0, 3.0)
RATE = 0.2  # of the mean loss; the paper's 0.075 is of the sum, 25 times that, and learns all in a few steps
BINS = 64
COLOURS: dict[Symbol, str] = {"Phi": "#d1495b", "G": "#2a78b5"}
FIELDS: dict[Field, str] = {"h": "Preactivations $h$", "z": "Pregradients $z$"}
Runs = Mapping[float, Mapping[str, Solution]]  # by gamma0 and name: infinite width, and networks


@dataclass(frozen=True)
class Plan:
    """The sizes of all runs.

    Args:
        points: P.
        dimensions: D of the Gaussian inputs.
        steps: of gradient descent.
        gammas: values of gamma0.
        particles: of each infinite-width replicate.
        width: N of the networks.
        seeds: how many for each gamma0.
    """

    points: int = 25
    dimensions: int = 40
    steps: int = 200
    gammas: tuple[float, ...] = GAMMAS
    particles: int = 4096
    width: int = 3000
    seeds: int = 10


QUICK = Plan(points=12, dimensions=20, steps=60, gammas=GAMMAS[::2], particles=1024, width=512, seeds=4)


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and about how well they agree."""
    plan = QUICK if settings.quick else Plan()
    yield "two_layer_relu", draw_figure(plan, run(plan, say), say)


def run(plan: Plan, say: Say) -> Runs:
    """Returns all Solutions, and says a line about each."""
    training, problem = GradientDescent(learning_rate=RATE, steps=plan.steps), teacher(plan.points, plan.dimensions)
    methods = {
        INFINITE: March(particles=plan.particles, kernels="none"),
        f"N = {plan.width}": FiniteWidth(width=plan.width, seeds=plan.seeds, kernels="none"),
    }

    def solve(gamma0: float, name: str) -> Solution:
        network = MLP(depth=1, activation="relu", gamma0=gamma0)
        return solve_and_say(f"gamma0 = {gamma0:g}, {name}", say, network, problem, training, methods[name])

    return {gamma0: {name: solve(gamma0, name) for name in methods} for gamma0 in plan.gammas}


def sampled_kernel(solution: Solution, kernel: Symbol) -> Estimate:
    """Returns the final Phi^1 or G^1 (P, P) as averages over recorded neurons, <phi(h) phi(h)> or <g g>."""
    h, g = (observables.field_samples(solution, 1, field).astype(np.float64) for field in ("h", "g"))
    field = np.maximum(h, 0) if kernel == "Phi" else g
    return Estimate(field @ field.swapaxes(1, 2) / field.shape[2])


def draw_figure(plan: Plan, runs: Runs, say: Say) -> Figure:
    """Returns the figure, and says how well infinite and finite width agree."""
    _say_agreement(runs, say)
    figure = new_figure(17.5, 15)
    parts = figure.subfigures(4, 1, squeeze=False, height_ratios=[3.8, 4.6, 3.2, 3.2])
    above, middle, h_part, z_part = parts[:, 0]
    loss, alignment = above.subplots(1, 2)
    _draw_losses(loss, plan, runs)
    _draw_alignment(alignment, runs)
    halves: Any = middle.subfigures(1, 2)
    for part, kernel, letter in zip(halves, KERNELS, "cd", strict=True):
        _draw_kernels(part, runs, kernel, letter)
    _draw_densities(h_part, runs, "h", "e")
    _draw_densities(z_part, runs, "z", "f")
    figure.suptitle(
        f"Two-layer ReLU networks, lazy to rich: infinite width beside {plan.seeds} networks of width {plan.width}",
        fontsize=14,
    )
    settings = f"ReLU, L = 1, P = {plan.points}, D = {plan.dimensions}, $\\eta$ = {RATE:g}, {plan.steps} steps"
    write_caption(figure, settings)
    return figure


def _say_agreement(runs: Runs, say: Say) -> None:
    for gamma0, pair in runs.items():
        infinite, finite = pair.values()
        say_loss(f"gamma0 = {gamma0:g}", finite, infinite, say)
        errors = []
        for kernel in KERNELS:
            one, other = sampled_kernel(finite, kernel), sampled_kernel(infinite, kernel)
            size = np.linalg.norm(other.mean)
            error, noise = np.linalg.norm(one.mean - other.mean), np.sqrt((one.se**2 + other.se**2).sum())
            errors.append(f"{kernel} {100 * error / size:.2g} ({100 * noise / size:.2g})")
        say(f"gamma0 = {gamma0:g}: final kernels differ by, in % (to expect from the error bars): {', '.join(errors)}")


def _draw_losses(axes: Axes, plan: Plan, runs: Runs) -> None:
    for (gamma0, pair), colour in zip(runs.items(), plotting.shades(len(runs)), strict=True):
        infinite, finite = pair.values()
        draw_losses(axes, infinite, finite, colour, f"$\\gamma_0$ = {gamma0:g}")
    write_heading(axes, "a", f"Loss (lines: {INFINITE}; dots: N = {plan.width}, 95 % intervals)")
    axes.legend(frameon=False)
    plotting.plain(axes)


def _alignments(runs: Runs, name: str, kernel: Symbol) -> Estimate:
    """Returns the alignment y^T K y / (|K| |y|^2) of a final kernel at each gamma0."""
    solutions = [pair[name] for pair in runs.values()]
    values = [align(sampled_kernel(side, kernel).replicates, side.problem.y[:, None]) for side in solutions]
    return Estimate(np.stack(values, axis=1))


def _draw_alignment(axes: Axes, runs: Runs) -> None:
    gammas, (infinite, finite) = np.array(list(runs)), next(iter(runs.values()))
    for kernel, colour in COLOURS.items():
        plotting.curve(axes, gammas, _alignments(runs, infinite, kernel), colour, symbols(kernel, 1)[0])
        plotting.dots(axes, gammas, _alignments(runs, finite, kernel), colour)
    axes.set(xlabel=r"feature learning $\gamma_0$", ylabel=r"$A(K, y y^\top)$")
    write_heading(axes, "b", "Alignment of final kernels with the targets")
    axes.legend(frameon=False)
    plotting.plain(axes)


def _draw_kernels(part: SubFigure, runs: Runs, kernel: Symbol, letter: str) -> None:
    first = next(iter(runs.values()))
    rows = {name: [sampled_kernel(pair[name], kernel).mean for pair in runs.values()] for name in first}
    titles, problem = [f"$\\gamma_0$ = {gamma0:g}" for gamma0 in runs], first[INFINITE].problem
    draw_sample_kernels(part, rows, titles, symbols(kernel, 1)[0], problem)
    write_heading(part, letter, f"{KERNELS[kernel]} after training, samples ordered by target")


def _draw_densities(part: SubFigure, runs: Runs, field: Field, letter: str) -> None:
    panels, (*_, last) = part.subplots(1, len(runs), sharey=True), runs.values()
    edges = observables.activation_density(last[INFINITE], 1, field, edges=BINS).edges
    edges = edges - edges[np.abs(edges).argmin()]  # a bin ends at zero, where densities of h jump
    for (gamma0, pair), axes in zip(runs.items(), panels, strict=True):
        draw_densities(axes, pair, 1, field, edges)
        axes.set_title(f"$\\gamma_0$ = {gamma0:g}", fontsize=11)
        axes.set_xlabel(f"${field}$")
    panels[0].set_ylabel("density over neurons")
    panels[-1].legend(frameon=False, fontsize=8.5)
    write_heading(part, letter, f"{FIELDS[field]} of all samples, over neurons")
