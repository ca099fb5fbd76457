"""The paper's two-layer ReLU networks: from lazy to rich.

Loss, kernels after training, and the distributions of preactivations and pregradients before and after it, at infinite
width and in wide networks. With one hidden layer no random matrix is used in both directions, so that infinite width
needs no bases: kernels are averages over the sampled neurons, as they are in networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kernelfield import observables
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import (
    Say,
    Settings,
    caption,
    heading,
    losses,
    new_figure,
    sample_rows,
    say_loss,
    timed,
)
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

GAMMAS = (0.2, 1.0, 2.0, 3.0)
RATE = 0.2  # of the mean loss; the paper's 0.075 is of the sum, 25 times that, and learns all in a few steps
INFINITE = "infinite width"
BINS = 64
FINAL: tuple[tuple[observables.Symbol, str, str], ...] = (("Phi", r"$\Phi^1$", "#d1495b"), ("G", "$G^1$", "#2a78b5"))


@dataclass(frozen=True)
class Plan:
    """What is run.

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


FULL = Plan()
QUICK = Plan(points=12, dimensions=20, steps=60, gammas=GAMMAS[::2], particles=1024, width=512, seeds=4)


def teacher(points: int, dimensions: int) -> Problem:
    """Gaussian inputs, labels +-1 by a random hyperplane.

    Args:
        points: P.
        dimensions: D.

    Returns:
        Problem.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((points, dimensions))
    return Problem(X, np.sign(X @ rng.standard_normal(dimensions)))


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: quick or not.
        say: called with a line about each run and about how well they agree.

    Yields:
        A file name and a matplotlib Figure.
    """
    plan = QUICK if settings.quick else FULL
    yield "two_layer_relu", drawn(plan, run(plan, say), say)


def run(plan: Plan, say: Say) -> dict[float, dict[str, Solution]]:
    """Solve everything.

    Args:
        plan: what to run.
        say: called with a line about each run.

    Returns:
        By gamma0 and name: infinite width, and networks.
    """
    training, data = GradientDescent(learning_rate=RATE, steps=plan.steps), teacher(plan.points, plan.dimensions)
    methods = {
        INFINITE: March(particles=plan.particles, kernels="none"),
        f"N = {plan.width}": FiniteWidth(width=plan.width, seeds=plan.seeds, kernels="none"),
    }
    return {
        gamma0: {
            name: timed(
                f"gamma0 = {gamma0:g}, {name}",
                say,
                MLP(depth=1, activation="relu", gamma0=gamma0),
                data,
                training,
                method,
            )
            for name, method in methods.items()
        }
        for gamma0 in plan.gammas
    }


def sampled_kernel(solution: Solution, kernel: observables.Symbol) -> Estimate:
    """The final Phi^1 or G^1 as averages over recorded neurons, <phi(h) phi(h)> or <g g>.

    Args:
        solution: of a two-layer ReLU network, with fields of the last step.
        kernel: "Phi" or "G".

    Returns:
        Estimate (P, P).
    """
    h, g = (observables.field_samples(solution, 1, field).astype(np.float64) for field in ("h", "g"))
    field = np.maximum(h, 0) if kernel == "Phi" else g
    return Estimate(field @ field.swapaxes(1, 2) / field.shape[2])


def drawn(plan: Plan, runs: dict[float, dict[str, Solution]], say: Say) -> Any:
    """The figure.

    Args:
        plan: what was run.
        runs: from `run`.
        say: called with lines about how well infinite and finite width agree.

    Returns:
        matplotlib Figure.
    """
    _say_agreement(runs, say)
    figure = new_figure(17.5, 15)
    above, middle, h_part, z_part = figure.subfigures(4, 1, height_ratios=[3.8, 4.6, 3.2, 3.2])
    loss, alignment = above.subplots(1, 2)
    _draw_losses(loss, plan, runs)
    _draw_alignment(alignment, runs)
    for part, kernel, letter in zip(middle.subfigures(1, 2), ("Phi", "G"), "cd", strict=True):
        _draw_kernels(part, runs, kernel, letter)
    _draw_densities(h_part, plan, runs, "h", "e")
    _draw_densities(z_part, plan, runs, "z", "f")
    figure.suptitle(
        f"Two-layer ReLU networks, lazy to rich: infinite width beside {plan.seeds} networks of width {plan.width}",
        fontsize=14,
    )
    caption(
        figure,
        f"ReLU, L = 1, P = {plan.points}, D = {plan.dimensions}, $\\eta$ = {RATE:g}, {plan.steps} steps",
    )
    return figure


def _say_agreement(runs: dict[float, dict[str, Solution]], say: Say) -> None:
    kernels: tuple[Literal["Phi", "G"], ...] = ("Phi", "G")
    for gamma0, (infinite, finite) in _pairs(runs):
        say_loss(f"gamma0 = {gamma0:g}", finite, infinite, say)
        found = []
        for kernel in kernels:
            one, other = sampled_kernel(finite, kernel), sampled_kernel(infinite, kernel)
            size = np.linalg.norm(other.mean)
            error, noise = np.linalg.norm(one.mean - other.mean), np.sqrt((one.se**2 + other.se**2).sum())
            found.append(f"{kernel} {100 * error / size:.2g} ({100 * noise / size:.2g})")
        say(f"gamma0 = {gamma0:g}: final kernels differ by, in % (to expect from the error bars): {', '.join(found)}")


def _draw_losses(axes: Any, plan: Plan, runs: dict[float, dict[str, Solution]]) -> None:
    from kernelfield import plotting

    for (gamma0, (infinite, finite)), colour in zip(_pairs(runs), plotting.shades(len(runs)), strict=True):
        losses(axes, infinite, finite, colour, f"$\\gamma_0$ = {gamma0:g}")
    heading(axes, "a", f"Loss (lines: {INFINITE}; dots: N = {plan.width}, 95 % intervals)")
    axes.legend(frameon=False)
    plotting.plain(axes)


def _draw_alignment(axes: Any, runs: dict[float, dict[str, Solution]]) -> None:
    """Alignment y^T K y / (|K| |y|^2) of the final kernels against gamma0."""
    from kernelfield import plotting

    pairs = _pairs(runs)
    gammas, y = np.array(list(runs)), pairs[0][1][0].problem.y
    for kernel, label, colour in FINAL:
        for side, drawing in enumerate((plotting.curve, plotting.dots)):
            kernels = [sampled_kernel(each[side], kernel).replicates for _, each in pairs]
            found = [np.einsum("m,rmn,n->r", y, K, y) / np.linalg.norm(K, axis=(1, 2)) / (y @ y) for K in kernels]
            drawing(axes, gammas, Estimate(np.stack(found, axis=1)), colour, None if side else label)
    axes.set(xlabel=r"feature learning $\gamma_0$", ylabel=r"$A(K, y y^\top)$")
    heading(axes, "b", "Alignment of final kernels with the targets")
    axes.legend(frameon=False)
    plotting.plain(axes)


def _draw_kernels(part: Any, runs: dict[float, dict[str, Solution]], kernel: observables.Symbol, letter: str) -> None:
    from kernelfield import plotting

    names = list(next(iter(runs.values())))
    rows = {name: [sampled_kernel(each[name], kernel).mean for each in runs.values()] for name in names}
    data = next(iter(runs.values()))[INFINITE].problem
    titles = [f"$\\gamma_0$ = {gamma0:g}" for gamma0 in runs]
    label, text = (r"$\Phi^1$", "Feature kernels") if kernel == "Phi" else ("$G^1$", "Gradient kernels")
    axes = sample_rows(part, rows, titles, label, data)
    groups = np.unique(-data.y, return_counts=True)[1].tolist()
    for place in axes[:, 0]:
        plotting.class_labels(place, ["+", "\N{MINUS SIGN}"], groups)
    heading(part, letter, f"{text} after training, samples ordered by target")


def _draw_densities(
    part: Any, plan: Plan, runs: dict[float, dict[str, Solution]], field: observables.Field, letter: str
) -> None:
    from kernelfield import plotting

    text = {"h": "Preactivations $h$", "z": "Pregradients $z$"}[field]
    places = part.subplots(1, len(runs), sharey=True)
    edges = observables.activation_density(_pairs(runs)[-1][1][0], 1, field, edges=BINS).edges
    edges = edges - edges[np.abs(edges).argmin()]  # a bin ends at zero, where densities of h jump
    for (gamma0, (infinite, finite)), axes in zip(_pairs(runs), places, strict=True):
        for t, when, colour in ((0, "before", plotting.NEUTRAL), (-1, "after", plotting.RICH)):
            sides = [observables.activation_density(each, 1, field, t=t, edges=edges) for each in (finite, infinite)]
            plotting.density_bars(axes, edges, sides[0].density, colour, f"{when}, N = {plan.width}")
            plotting.density_line(axes, edges, sides[1].density, colour, f"{when}, {INFINITE}")
        axes.set_title(f"$\\gamma_0$ = {gamma0:g}", fontsize=11)
        axes.set_xlabel(f"${field}$")
        plotting.plain(axes)
    places[0].set_ylabel("density over neurons")
    places[-1].legend(frameon=False, fontsize=8.5)
    heading(part, letter, f"{text} of all samples, over neurons")


def _pairs(runs: dict[float, dict[str, Solution]]) -> list[tuple[float, tuple[Solution, Solution]]]:
    """gamma0, and the solutions at infinite and at finite width."""
    sides = {gamma0: tuple(each.values()) for gamma0, each in runs.items()}
    return [(gamma0, (infinite, finite)) for gamma0, (infinite, finite) in sides.items()]
