"""The demonstration: two classes of digits, learned lazily and richly, at infinite and at finite width."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.datasets import digits
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

CLASSES = (0, 1)
LAZY, RICH = 0.1, 2.0  # gamma0
HEADING: dict[str, Any] = {"loc": "left", "fontsize": 12, "fontweight": "bold"}


@dataclass(frozen=True)
class Plan:
    """What the demonstration runs.

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
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    lazy_width: int = 512
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
        plan: what was run.
        lazy, rich: infinite width.
        lazy_finite: finite networks of one width.
        rich_finite: finite networks, by width.
    """

    plan: Plan
    lazy: Solution
    rich: Solution
    lazy_finite: Solution
    rich_finite: dict[int, Solution]


def run(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Results:
    """Solve everything.

    Args:
        plan: what to run.
        say: called with a line about each run when it is done.

    Returns:
        Results.
    """
    problem = digits(CLASSES, plan.points, seed=0)
    training = GradientDescent(learning_rate=plan.learning_rate, steps=plan.steps)

    def solved(gamma0: float, method: Any, name: str) -> Solution:
        network = MLP(depth=plan.depth, activation="tanh", gamma0=gamma0)
        began = time.perf_counter()
        solution = solve(network, problem, training, method)
        spent = {"seconds_total": time.perf_counter() - began}
        solution = replace(solution, info={**solution.info, **spent})
        compiling, running = seconds(solution)
        say(f"{name:<34} compiled in {compiling:4.1f} s, ran in {running:4.1f} s")
        return solution

    def infinite(gamma0: float, name: str) -> Solution:
        method = March(particles=plan.particles, kernels="features")
        return solved(gamma0, method, f"infinite width, gamma0 = {gamma0:g} ({name})")

    def networks(gamma0: float, width: int) -> Solution:
        name = f"{plan.seeds} networks of width {width}, gamma0 = {gamma0:g}"
        return solved(gamma0, FiniteWidth(width=width, seeds=plan.seeds, kernels="none"), name)

    lazy = infinite(LAZY, "lazy")
    rich = infinite(RICH, "rich")
    lazy_finite = networks(LAZY, plan.lazy_width)
    return Results(plan, lazy, rich, lazy_finite, {width: networks(RICH, width) for width in plan.widths})


def seconds(solution: Solution) -> tuple[float, float]:
    """Seconds that a run of the demonstration took to compile, and all the rest."""
    compiling = solution.info["seconds_compile"]
    return compiling, solution.info["seconds_total"] - compiling


def last_kernels(solution: Solution, t: int = -1) -> np.ndarray:
    """Feature kernel of the last hidden layer of every replicate, (R, P, P).

    Finite networks give it as the average over their neurons, phi(h) phi(h)^T / N.
    """
    network: Any = solution.network
    depth = network.depth
    if solution.hidden("Phi"):
        return solution.estimate("feature_kernel", depth, t).replicates
    h = solution.field_samples[depth, t % (solution.steps_done + 1)]["h"]
    phi = np.asarray(network.nonlinearity.phi(h), dtype=np.float64)
    return np.einsum("rmn,rkn->rmk", phi, phi) / phi.shape[-1]


def distance(values: np.ndarray, reference: np.ndarray) -> Distance:
    """Root mean square distance of replicates from a reference, over the reference's root mean square.

    Args:
        values: (R, ...), of R networks.
        reference: (...), at infinite width.

    Returns:
        Distance.
    """
    size = np.linalg.norm(reference)
    each = np.linalg.norm((values - reference).reshape(len(values), -1), axis=1) / size
    return Distance(Estimate(each), float(np.linalg.norm(values.mean(axis=0) - reference) / size))


def distances(finite: Solution, infinite: Solution) -> dict[str, Distance]:
    """Distance of finite networks from infinite width, of predictions (all steps) and of the final kernel."""
    return {
        "predictions": distance(finite.replicate_predictions, infinite.predictions),
        "kernel": distance(last_kernels(finite), last_kernels(infinite).mean(axis=0)),
    }


def uncertainty(infinite: Solution) -> float:
    """Standard error of predictions at infinite width, relative to their size."""
    return float(np.linalg.norm(infinite.predictions_se) / np.linalg.norm(infinite.predictions))


def table(results: Results) -> Table:
    """What was computed, in numbers."""
    seeds = results.plan.seeds
    about = (
        f"%: relative distance from infinite width, of one network / of the mean of {seeds} "
        "(of infinite width: its standard error)"
    )
    out = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, caption=about, caption_justify="left")
    out.add_column("", no_wrap=True)
    for name in ("final loss", "predictions\n%", "final kernel\n%", "seconds:\ncompile, run"):  # fmt: skip
        out.add_column(name, justify="right", no_wrap=True)

    def add(name: str, solution: Solution, reference: Solution | None = None) -> None:
        loss = f"{solution.loss[-1]:.2g} ± {solution.loss_se[-1]:.0e}"
        off = [f"± {100 * uncertainty(solution):.2f}", ""]
        if reference:
            found = distances(solution, reference)
            off = [f"{100 * each.single.mean:.1f} / {100 * each.ensemble:.1f}" for each in found.values()]
        out.add_row(name, loss, *off, "{:.1f}, {:.1f}".format(*seconds(solution)))

    add("lazy, infinite", results.lazy)
    add(f"  {seeds} of width {results.plan.lazy_width}", results.lazy_finite, results.lazy)
    out.add_section()
    add("rich, infinite", results.rich)
    for width, finite in results.rich_finite.items():
        add(f"  {seeds} of width {width}", finite, results.rich)
    return out


def records(results: Results) -> list[dict[str, Any]]:
    """What `table` shows, as values that JSON can hold.

    Args:
        results: of the demonstration.

    Returns:
        A dictionary for each run; distances are relative, of one network and of the mean of all.
    """
    plan = results.plan
    runs: list[tuple[str, int | None, Solution]] = [("lazy", None, results.lazy), ("rich", None, results.rich)]
    runs.insert(1, ("lazy", plan.lazy_width, results.lazy_finite))
    runs += [("rich", width, finite) for width, finite in results.rich_finite.items()]
    found = []
    for name, width, solution in runs:
        compiling, running = seconds(solution)
        line = {"gamma0": LAZY if name == "lazy" else RICH, "width": width, "loss": float(solution.loss[-1])}
        line |= {"loss_se": float(solution.loss_se[-1]), "seconds_compile": compiling, "seconds_run": running}
        if width is not None:
            for key, each in distances(solution, getattr(results, name)).items():
                line[f"{key}_distance"] = {"single": float(each.single.mean), "mean": each.ensemble}
        found.append(line)
    return found


def draw(results: Results) -> Any:
    """The figure, a matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 8.4), dpi=130, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr]
    above, below = cast(Any, figure.subfigures)(2, 1, height_ratios=[1.1, 1.0])
    loss_axes, distance_axes = above.subplots(1, 2, width_ratios=[1.2, 1.0])
    _draw_loss(loss_axes, results)
    _draw_distances(distance_axes, results)
    for axes in (loss_axes, distance_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.6)
    _draw_kernels(below, results)
    plan = results.plan
    figure.suptitle(
        f"A tanh network with {plan.depth} hidden layers learns handwritten digits "
        f"({CLASSES[0]} against {CLASSES[1]}, {plan.points} images), solved at infinite width",
        fontsize=14,
    )
    return figure


def _draw_loss(axes: Any, results: Results) -> None:
    from kernelfield import plotting

    widest, finite = list(results.rich_finite.items())[-1]
    runs = (
        (results.lazy, results.lazy_finite, plotting.LAZY, "lazy", LAZY, results.plan.lazy_width),
        (results.rich, finite, plotting.RICH, "rich", RICH, widest),
    )
    for infinite, networks, colour, name, gamma0, width in runs:
        plotting.loss_curve(axes, infinite, colour, f"{name} ($\\gamma_0$ = {gamma0:g}), infinite width")
        label = f"{results.plan.seeds} trained networks, N = {width}, 95 % interval"
        plotting.loss_dots(axes, networks, colour, label)
    axes.legend(frameon=False, fontsize=9.5)
    axes.set_title("Training: finite networks follow the infinite-width solution", **HEADING)


def _draw_distances(axes: Any, results: Results) -> None:
    from kernelfield import plotting

    widths = list(results.rich_finite)
    found = [distances(finite, results.rich) for finite in results.rich_finite.values()]
    for name, colour in (("predictions", plotting.RICH), ("kernel", "#6a4c93")):
        label = "predictions" if name == "predictions" else "final kernel"
        single = Estimate(np.stack([each[name].single.replicates for each in found], axis=1))
        mean = Estimate(np.array([[each[name].ensemble for each in found]]))
        plotting.distance_against_width(axes, widths, single, colour, "o", f"{label}, one network")
        plotting.distance_against_width(
            axes, widths, mean, colour, "s", f"{label}, mean of {results.plan.seeds}", style=":"
        )
    top = found[0]["kernel"].single.mean
    plotting.width_guide(axes, widths, 1.5 * float(top), -0.5, r"$N^{-1/2}$")
    plotting.floor(axes, uncertainty(results.rich), "standard error of the infinite-width predictions")
    axes.set_ylabel("relative distance")
    axes.legend(frameon=False, fontsize=9.5, ncols=2, loc="upper right")
    axes.set_ylim(top=6 * float(top))
    axes.set_title("Distance from infinite width, rich training", **HEADING)


def _draw_kernels(figure: Any, results: Results) -> None:
    from kernelfield import plotting

    width, finite = list(results.rich_finite.items())[-1]
    panels = {
        "before training\ninfinite width": last_kernels(results.rich, 0).mean(axis=0),
        "after lazy training\ninfinite width": last_kernels(results.lazy).mean(axis=0),
        "after rich training\ninfinite width": last_kernels(results.rich).mean(axis=0),
        f"after rich training\none network, N = {width}": last_kernels(finite)[0],
    }
    limit = max(float(np.abs(kernel).max()) for kernel in panels.values())
    groups = class_sizes(results.rich.problem)
    all_axes = figure.subplots(1, len(panels))
    images = [
        plotting.kernel_matrix(axes, kernel, limit, title, groups)
        for axes, (title, kernel) in zip(all_axes, panels.items(), strict=True)
    ]
    plotting.class_labels(all_axes[0], [f'"{digit}"' for digit in CLASSES], groups)
    figure.suptitle(
        "Similarity of images in the last hidden layer: only the rich network learns features",
        x=0.04, ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    label = f"feature kernel $\\Phi^{results.plan.depth}$"
    figure.colorbar(images[0], ax=all_axes, label=label, shrink=0.85, aspect=14, pad=0.015)


def class_sizes(problem: Problem) -> tuple[int, ...]:
    """Lengths of the runs of equal targets."""
    edges = np.flatnonzero(np.diff(problem.y)) + 1
    return tuple(int(size) for size in np.diff(np.concatenate([[0], edges, [problem.points]])))
