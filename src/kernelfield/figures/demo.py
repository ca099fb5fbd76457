"""The demonstration: two classes of digits, learned lazily and richly, at infinite and at finite width."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from kernelfield import plotting
from kernelfield.datasets import digits
from kernelfield.describe.networks import MLP
from kernelfield.describe.training import GradientDescent
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables.groups import by_target
from kernelfield.plotting.style import BOLD
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

CLASSES = (0, 1)
LAZY, RICH = 0.1, 2.0  # gamma0


@dataclass(frozen=True)
class Plan:
    """The sizes of all runs of the demonstration.

    Args:
        points: number of images.
        steps: of gradient descent.
        particles: of each infinite-width replicate.
        widths: of finite networks beside the rich solution, growing.
        lazy_width: of finite networks beside the lazy solution.
        seeds: networks of each width.
        depth: hidden layers.
        learning_rate: the same for all.
    """

    points: int = 20
    steps: int = 50
    particles: int = 2048
    widths: tuple[int, ...] = (64, 256, 1024)
    lazy_width: int = 256
    seeds: int = 8
    depth: int = 2
    learning_rate: float = 0.3


FULL = Plan()
QUICK = Plan(points=12, steps=40, particles=1024, widths=(64, 256), lazy_width=256, seeds=4)


@dataclass(frozen=True)
class Distance:
    """How far finite networks are from infinite width, relative to its size.

    Args:
        single: of every network by itself: replicates (R,).
        ensemble: of the mean over networks.
    """

    single: Estimate
    ensemble: float


@dataclass(frozen=True)
class Results:
    """Everything the table and the figure show.

    Args:
        plan: the sizes.
        lazy, rich: infinite width.
        lazy_finite: finite networks of one width.
        rich_finite: finite networks, by width.
    """

    plan: Plan
    lazy: Solution
    rich: Solution
    lazy_finite: Solution
    rich_finite: dict[int, Solution]

    @property
    def runs(self) -> list[tuple[str, int | None, Solution]]:
        """Regime ("lazy" or "rich"), width (None: infinite) and Solution of each run, in the order of the table."""
        rich = [("rich", width, finite) for width, finite in self.rich_finite.items()]
        lazy = ("lazy", None, self.lazy), ("lazy", self.plan.lazy_width, self.lazy_finite)
        return [*lazy, ("rich", None, self.rich), *rich]

    @property
    def widest(self) -> tuple[int, Solution]:
        """The largest width of rich networks, and their Solution."""
        return list(self.rich_finite.items())[-1]


def run(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Results:
    """Returns all Solutions, and says a line about each when it is done."""
    problem = digits(CLASSES, plan.points, seed=0)
    training = GradientDescent(learning_rate=plan.learning_rate, steps=plan.steps)

    def solve_and_say(gamma0: float, method: Method, name: str) -> Solution:
        network = MLP(depth=plan.depth, activation="tanh", gamma0=gamma0)
        start = time.perf_counter()
        solution = solve(network, problem, training, method, save_at=[0, -1])
        solution = replace(solution, info={**solution.info, "seconds_total": time.perf_counter() - start})
        compiling, running = seconds(solution)
        say(f"{name:<34} compiled in {compiling:4.1f} s, ran in {running:4.1f} s")
        return solution

    def solve_infinite(gamma0: float, name: str) -> Solution:
        method = March(particles=plan.particles, kernels="features")
        return solve_and_say(gamma0, method, f"infinite width, gamma0 = {gamma0:g} ({name})")

    def solve_finite(gamma0: float, width: int) -> Solution:
        name = f"{plan.seeds} networks of width {width}, gamma0 = {gamma0:g}"
        return solve_and_say(gamma0, FiniteWidth(width=width, seeds=plan.seeds, kernels="none"), name)

    lazy, rich = solve_infinite(LAZY, "lazy"), solve_infinite(RICH, "rich")
    lazy_finite = solve_finite(LAZY, plan.lazy_width)
    return Results(plan, lazy, rich, lazy_finite, {width: solve_finite(RICH, width) for width in plan.widths})


def seconds(solution: Solution) -> tuple[float, float]:
    """Returns the seconds that a run of the demonstration took to compile, and all the rest."""
    compiling = solution.info["seconds_compile"]
    return compiling, solution.info["seconds_total"] - compiling


def last_kernels(solution: Solution, t: int = -1) -> np.ndarray:
    """Returns the feature kernel of the last hidden layer of every replicate, (R, P, P).

    Finite networks give it as the average over their neurons, phi(h) phi(h)^T / N.
    """
    network: Any = solution.network
    if solution.hidden("Phi"):
        return solution.kernel_estimate("Phi", network.depth, t).replicates
    h = solution.field_samples[network.depth, t % (solution.steps_done + 1)]["h"]
    phi = np.asarray(network.nonlinearity.phi(h), dtype=np.float64)
    return np.einsum("rmn,rkn->rmk", phi, phi) / phi.shape[-1]


def distance(values: np.ndarray, reference: np.ndarray) -> Distance:
    """Returns the rms distance of networks (R, ...) from infinite width (...), over the rms of infinite width."""
    size = np.linalg.norm(reference)
    single = np.linalg.norm((values - reference).reshape(len(values), -1), axis=1) / size
    return Distance(Estimate(single), float(np.linalg.norm(values.mean(axis=0) - reference) / size))


def distances(finite: Solution, infinite: Solution) -> dict[str, Distance]:
    """Returns the distances of finite networks from infinite width: of predictions (all steps), of the final kernel."""
    return {
        "predictions": distance(finite.replicate_predictions, infinite.predictions),
        "kernel": distance(last_kernels(finite), last_kernels(infinite).mean(axis=0)),
    }


def uncertainty(infinite: Solution) -> float:
    """Returns the standard error of predictions at infinite width, relative to their size."""
    return float(np.linalg.norm(infinite.predictions_se) / np.linalg.norm(infinite.predictions))


def table(results: Results) -> Table:
    """Returns a table of what was computed."""
    seeds = results.plan.seeds
    about = (
        f"%: relative distance from infinite width, of one network / of the mean of {seeds} "
        "(of infinite width: its standard error)"
    )
    out = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, caption=about, caption_justify="left")
    out.add_column("", no_wrap=True)
    for name in ("final loss", "predictions\n%", "final kernel\n%", "seconds:\ncompile, run"):
        out.add_column(name, justify="right", no_wrap=True)
    for name, width, solution in results.runs:
        if width is None:
            out.add_section()
            title, cells = f"{name}, infinite", [f"± {100 * uncertainty(solution):.2f}", ""]
        else:
            pair = distances(solution, getattr(results, name)).values()
            title = f"  {seeds} of width {width}"
            cells = [f"{100 * value.single.mean:.1f} / {100 * value.ensemble:.1f}" for value in pair]
        loss = f"{solution.loss[-1]:.2g} ± {solution.loss_se[-1]:.0e}"
        out.add_row(title, loss, *cells, "{:.1f}, {:.1f}".format(*seconds(solution)))
    return out


def records(results: Results) -> list[dict[str, Any]]:
    """Returns the numbers of `table` as JSON can hold them, a dictionary for each run.

    Distances are relative, of one network and of the mean of all.
    """
    lines = []
    for name, width, solution in results.runs:
        compiling, running = seconds(solution)
        line = {"gamma0": LAZY if name == "lazy" else RICH, "width": width, "loss": float(solution.loss[-1])}
        line |= {"loss_se": float(solution.loss_se[-1]), "seconds_compile": compiling, "seconds_run": running}
        if width is not None:
            for key, value in distances(solution, getattr(results, name)).items():
                line[f"{key}_distance"] = {"single": float(value.single.mean), "mean": value.ensemble}
        lines.append(line)
    return lines


def draw(results: Results) -> Figure:
    """Returns the figure: losses, distances from infinite width, and kernels."""
    plan, figure = results.plan, plotting.new_figure(12.8, 8.4, h_pad=0.12, w_pad=0.08)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.1, 1.0])[:, 0]
    left, right = above.subplots(1, 2, width_ratios=[1.2, 1.0])
    _draw_loss(left, results)
    _draw_distances(right, results)
    _draw_kernels(below, results)
    figure.suptitle(
        f"A tanh network with {plan.depth} hidden layers learns handwritten digits "
        f"({CLASSES[0]} against {CLASSES[1]}, {plan.points} images), solved at infinite width",
        fontsize=14,
    )
    return figure


def _draw_loss(axes: Axes, results: Results) -> None:
    widest, finite = results.widest
    runs = (
        (results.lazy, results.lazy_finite, plotting.LAZY, "lazy", LAZY, results.plan.lazy_width),
        (results.rich, finite, plotting.RICH, "rich", RICH, widest),
    )
    for infinite, networks, colour, name, gamma0, width in runs:
        plotting.loss_curve(axes, infinite, colour, f"{name} ($\\gamma_0$ = {gamma0:g}), infinite width")
        label = f"{results.plan.seeds} trained networks, N = {width}, 95 % interval"
        plotting.loss_dots(axes, networks, colour, label)
    axes.legend(frameon=False, fontsize=9.5)
    plotting.heading(axes, "Training: finite networks follow the infinite-width solution")
    plotting.plain(axes)


def _draw_distances(axes: Axes, results: Results) -> None:
    widths = list(results.rich_finite)
    values = [distances(finite, results.rich) for finite in results.rich_finite.values()]
    for name, label, colour in (
        ("predictions", "predictions", plotting.RICH),
        ("kernel", "final kernel", "#6a4c93"),
    ):
        single = Estimate(np.stack([pair[name].single.replicates for pair in values], axis=1))
        mean = Estimate(np.array([[pair[name].ensemble for pair in values]]))
        plotting.distance_against_width(axes, widths, single, colour, "o", f"{label}, one network")
        text = f"{label}, mean of {results.plan.seeds}"
        plotting.distance_against_width(axes, widths, mean, colour, "s", text, style=":")
    top = float(values[0]["kernel"].single.mean)
    plotting.width_guide(axes, widths, 1.5 * top, -0.5, r"$N^{-1/2}$")
    plotting.floor(axes, uncertainty(results.rich), "standard error of the infinite-width predictions")
    axes.set_ylabel("relative distance")
    axes.legend(frameon=False, fontsize=9.5, ncols=2, loc="upper right")
    axes.set_ylim(top=6 * top)
    plotting.heading(axes, "Distance from infinite width, rich training")
    plotting.plain(axes)


def _draw_kernels(part: SubFigure, results: Results) -> None:
    width, finite = results.widest
    kernels = {
        "before training\ninfinite width": last_kernels(results.rich, 0).mean(axis=0),
        "after lazy training\ninfinite width": last_kernels(results.lazy).mean(axis=0),
        "after rich training\ninfinite width": last_kernels(results.rich).mean(axis=0),
        f"after rich training\none network, N = {width}": last_kernels(finite)[0],
    }
    limit, problem = max(float(np.abs(kernel).max()) for kernel in kernels.values()), results.rich.problem
    panels = part.subplots(1, len(kernels))
    images = [
        plotting.kernel_matrix_by_target(axes, kernel, limit, title, problem)
        for axes, (title, kernel) in zip(panels, kernels.items(), strict=True)
    ]
    plotting.class_labels(panels[0], [f'"{digit}"' for digit in CLASSES], by_target(problem).counts)
    text = "Similarity of images in the last hidden layer: only the rich network learns features"
    part.suptitle(text, x=0.04, ha="left", **BOLD)
    label = f"feature kernel $\\Phi^{results.plan.depth}$"
    part.colorbar(images[0], ax=panels, label=label, shrink=0.85, aspect=14, pad=0.015)
