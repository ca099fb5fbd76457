"""What the figures share: settings, runs with a line about each, how well two solutions agree, and captions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from kernelfield.datasets import cifar, digits
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training
from kernelfield.observables import Symbol
from kernelfield.observables.compare import compare
from kernelfield.observables.groups import by_target
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

Say = Callable[[str], None]
ROUND = [figure * 10.0**power for power in range(-4, 5) for figure in (1, 2, 5)]  # ticks of logarithmic colour bars
HEADING: dict[str, Any] = {"loc": "left", "fontsize": 12, "fontweight": "bold"}


@dataclass(frozen=True)
class Settings:
    """What the user chose for all figures.

    Args:
        quick: fewer and smaller runs.
        cifar: folder with CIFAR-10, for figures of images; scikit-learn's digits if None.
    """

    quick: bool = False
    cifar: Path | None = None

    def images(self, points: int) -> tuple[Problem, tuple[str, str], str]:
        """Images of two classes, half of each.

        Args:
            points: P, even.

        Returns:
            Problem, the names of the classes, and what the data are.

        Raises:
            ValueError: from `kernelfield.datasets.cifar`.
        """
        if self.cifar is None:
            return digits(points=points), ("0", "1"), "handwritten digits 0 and 1"
        return cifar(self.cifar, points=points), ("plane", "car"), "CIFAR-10 airplanes and automobiles"


def timed(
    name: str,
    say: Say,
    network: Any,
    problem: Problem,
    training: Training,
    method: Method,
    fields_at: Sequence[int] = (0, -1),
) -> Solution:
    """`kernelfield.solve`, and a line that says how long it took.

    Args:
        name: what the line begins with.
        say: called with the line.
        network: what learns.
        problem: what it learns.
        training: how.
        method: which solves it.
        fields_at: steps at which fields are recorded.

    Returns:
        Solution.
    """
    began = time.perf_counter()
    solution = solve(network, problem, training, method, fields_at=fields_at)
    say(f"{name}: {time.perf_counter() - began:.1f} s")
    return solution


def share_inside(finite: Solution, infinite: Solution, level: float = 0.95) -> float:
    """Share of steps at which the mean losses agree within a confidence interval of their difference.

    The interval is Welch's: standard errors of both sides, Student's t. Step 0 has no error and is left out. Steps are
    not independent of each other: two solutions that agree may well be outside for a quarter of them.

    Args:
        finite, infinite: of the same problem, in any order.
        level: of the interval.

    Returns:
        Share of steps, 0 to 1.
    """
    one, other = (solution.estimate("loss") for solution in (finite, infinite))
    rows = slice(1, 1 + min(finite.steps_done, infinite.steps_done))
    variances = np.nan_to_num(np.stack([one.se[rows], other.se[rows]])) ** 2
    counts = np.array([[max(1, len(each.replicates) - 1)] for each in (one, other)])
    freedom = variances.sum(axis=0) ** 2 / np.maximum((variances**2 / counts).sum(axis=0), 1e-300)
    reach = student_t.ppf((1 + level) / 2, np.maximum(freedom, 1)) * np.sqrt(variances.sum(axis=0))
    return float(np.mean(np.abs(one.mean[rows] - other.mean[rows]) <= reach))


def say_loss(name: str, finite: Solution, infinite: Solution, say: Say) -> None:
    """A line that says how well the losses agree.

    Args:
        name: what the line begins with.
        finite: networks of finite width.
        infinite: infinite width.
        say: called with the line.
    """
    rows = min(finite.steps_done, infinite.steps_done) + 1
    apart = np.linalg.norm(finite.loss[:rows] - infinite.loss[:rows]) / np.linalg.norm(infinite.loss[:rows])
    say(
        f"{name}: losses differ by {100 * apart:.2g} % (rms over steps), within the 95 % interval at "
        f"{100 * share_inside(finite, infinite):.0f} % of steps"
    )


def say_kernels(name: str, finite: Solution, infinite: Solution, say: Say) -> None:
    """A line with the relative errors of all kernels over all times, and what to expect from the error bars.

    Args:
        name: what the line begins with.
        finite: networks of finite width.
        infinite: infinite width.
        say: called with the line.
    """
    rows = [row for row in compare(finite, infinite).rows if row.times == "all" and row.quantity != "predictions"]
    found = ", ".join(f"{row.name} {100 * row.error:.2g} ({100 * row.noise:.2g})" for row in rows)
    say(f"{name}: kernels differ by, in % (to expect from the error bars): {found}")


def losses(axes: Any, infinite: Solution, finite: Solution, colour: str, label: str, finite_label: str = "") -> None:
    """Two losses: infinite width as a line, finite width as dots, which no edge cuts in half.

    Args:
        axes: matplotlib axes.
        infinite: infinite width.
        finite: networks of finite width.
        colour: of both.
        label, finite_label: for the legend.
    """
    from kernelfield import plotting

    plotting.loss_curve(axes, infinite, colour, label)
    plotting.loss_dots(axes, finite, colour, finite_label)
    axes.set_xlim(-0.015 * infinite.steps_done, 1.015 * infinite.steps_done)


def symbols(kernel: Symbol, depth: int) -> list[str]:
    """Phi^1 ... Phi^L or G^1 ... G^L, as mathematics.

    Args:
        kernel: "Phi" or "G".
        depth: L.

    Returns:
        A label for each layer.
    """
    letter = {"Phi": r"\Phi", "G": "G"}[kernel]
    return [f"${letter}^{layer}$" for layer in range(1, depth + 1)]


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure.

    Args:
        width, height: in inches.

    Returns:
        matplotlib Figure.
    """
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.07, w_pad=0.07)
    return figure


def caption(figure: Any, text: str) -> None:
    """The settings, at the bottom right.

    Args:
        figure: matplotlib Figure.
        text: with mathematics between dollar signs.
    """
    figure.supxlabel(text, x=0.99, ha="right", fontsize=10, color="#5c6670")


def heading(part: Any, letter: str, text: str) -> None:
    """A heading at the upper left of a group of panels.

    Args:
        part: matplotlib subfigure, or axes.
        letter: of the panel in the paper.
        text: what it shows.
    """
    if hasattr(part, "set_title"):
        part.set_title(f"{letter}   {text}", **HEADING)
    else:
        part.suptitle(f"{letter}   {text}", x=0.02, ha="left", fontsize=12, fontweight="bold")


def kernel_rows(
    part: Any,
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    label: str,
    draw: Callable[[Any, np.ndarray, tuple[float, float], str], Any],
) -> tuple[Any, Any]:
    """Matrices as rows of panels on one colour scale.

    Args:
        part: matplotlib subfigure to fill.
        rows: by name, one matrix for each column.
        titles: of the columns.
        label: of the colour bar.
        draw: draws a matrix on axes: (axes, matrix, bounds of the colour scale, title) -> image.

    Returns:
        Axes (rows, columns), and the colour bar.
    """
    bounds = (
        min(float(each.min()) for row in rows.values() for each in row),
        max(float(each.max()) for row in rows.values() for each in row),
    )
    axes, image = part.subplots(len(rows), len(titles), squeeze=False), None
    for number, (name, matrices) in enumerate(rows.items()):
        for place, matrix, title in zip(axes[number], matrices, titles, strict=True):
            image = draw(place, matrix, bounds, title if number == 0 else "")
        axes[number, 0].set_ylabel(name, fontsize=10)
    return axes, part.colorbar(image, ax=axes, label=label, shrink=0.9, aspect=22, pad=0.015)


def sample_rows(
    part: Any, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str], label: str, problem: Problem
) -> Any:
    """Kernels between samples, ordered by target, as rows of panels on one colour scale.

    Args:
        part: matplotlib subfigure to fill.
        rows: by name, one kernel (P, P) for each column.
        titles: of the columns.
        label: of the colour bar.
        problem: whose targets order the samples.

    Returns:
        Axes (rows, columns).
    """
    from kernelfield import plotting

    by_class = by_target(problem)
    order, groups = by_class.order, by_class.counts
    sorted_rows = {name: [kernel[np.ix_(order, order)] for kernel in row] for name, row in rows.items()}

    def draw(axes: Any, kernel: np.ndarray, bounds: tuple[float, float], title: str) -> Any:
        return plotting.kernel_matrix(axes, kernel, max(np.abs(bounds)), title, groups)

    return kernel_rows(part, sorted_rows, titles, label, draw)[0]


def time_rows(
    part: Any, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str], label: str, logarithmic: bool = False
) -> Any:
    """Kernels between times as rows of panels on one colour scale.

    Args:
        part: matplotlib subfigure to fill.
        rows: by name, one kernel (T, T) for each column.
        titles: of the columns.
        label: of the colour bar.
        logarithmic: whether the colour scale is.

    Returns:
        Axes (rows, columns).
    """
    from kernelfield import plotting

    axes, bar = kernel_rows(part, rows, titles, label, partial(plotting.two_time_matrix, logarithmic=logarithmic))
    if logarithmic:
        low, high = bar.mappable.get_clim()
        ticks = [tick for tick in ROUND if low <= tick <= high]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    for place in axes.ravel():
        place.label_outer()
        place.set_xlabel(place.get_xlabel() if place in axes[-1] else "")
    for name, place in zip(rows, axes[:, 0], strict=True):
        place.set_ylabel(f"{name}\nstep $t$", fontsize=10)
    return axes
