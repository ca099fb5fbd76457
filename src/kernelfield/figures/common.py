"""What the figures share: settings, runs with a line about each, how well two solutions agree, and parts of figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student_t

from kernelfield import plotting
from kernelfield.datasets import cifar, digits
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training
from kernelfield.observables import Field, Symbol, activation_density
from kernelfield.observables.compare import compare
from kernelfield.observables.groups import by_target
from kernelfield.plotting.style import BOLD
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

Say = Callable[[str], None]
ROUND = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]  # ticks of logarithmic colour bars
INFINITE = "infinite width"
KERNELS: dict[Symbol, str] = {"Phi": "Feature kernels", "G": "Gradient kernels"}
SIGNS = ("+", "\N{MINUS SIGN}")


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
        """Returns a Problem of images of two classes, half of `points` each, the classes' names, and that of the data.

        Raises:
            ValueError: from `kernelfield.datasets.cifar`.
        """
        if self.cifar is None:
            return digits(points=points), ("0", "1"), "handwritten digits 0 and 1"
        return cifar(self.cifar, points=points), ("plane", "car"), "CIFAR-10 airplanes and automobiles"


def teacher(points: int, dimensions: int) -> Problem:
    """Returns a Problem of Gaussian inputs, with labels +-1 by a random hyperplane."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((points, dimensions))
    return Problem(X, np.sign(X @ rng.standard_normal(dimensions)))


def solve_and_say(
    name: str,
    say: Say,
    network: Architecture,
    problem: Problem,
    training: Training,
    method: Method,
    fields_at: Sequence[int] = (0, -1),
    save_at: Sequence[int] | None = None,
) -> Solution:
    """Returns the Solution of `kernelfield.solve`, and says in a line, which begins with a name, how long it took."""
    start = time.perf_counter()
    solution = solve(network, problem, training, method, fields_at=fields_at, save_at=save_at)
    say(f"{name}: {time.perf_counter() - start:.1f} s")
    return solution


def share_inside(finite: Solution, infinite: Solution, level: float = 0.95) -> float:
    """Returns the share of steps at which the mean losses agree within a confidence interval of their difference.

    The interval is Welch's: standard errors of both sides, Student's t. Step 0 has no error and is left out. Steps are
    not independent of each other: two solutions that agree may well be outside for a quarter of them.
    """
    one, other = (solution.estimate("loss") for solution in (finite, infinite))
    rows = slice(1, 1 + min(finite.steps_done, infinite.steps_done))
    variances = np.nan_to_num(np.stack([one.se[rows], other.se[rows]])) ** 2
    counts = np.array([[max(1, len(estimate.replicates) - 1)] for estimate in (one, other)])
    freedom = variances.sum(axis=0) ** 2 / np.maximum((variances**2 / counts).sum(axis=0), 1e-300)
    reach = student_t.ppf((1 + level) / 2, np.maximum(freedom, 1)) * np.sqrt(variances.sum(axis=0))
    return float(np.mean(np.abs(one.mean[rows] - other.mean[rows]) <= reach))


def say_loss(name: str, finite: Solution, infinite: Solution, say: Say) -> None:
    """Say how well the losses of finite networks and of infinite width agree."""
    rows = min(finite.steps_done, infinite.steps_done) + 1
    distance = np.linalg.norm(finite.loss[:rows] - infinite.loss[:rows]) / np.linalg.norm(infinite.loss[:rows])
    say(
        f"{name}: losses differ by {100 * distance:.2g} % (rms over steps), within the 95 % interval at "
        f"{100 * share_inside(finite, infinite):.0f} % of steps"
    )


def say_kernels(name: str, finite: Solution, infinite: Solution, say: Say) -> None:
    """Say the relative errors of all kernels over all times, and what to expect from the error bars."""
    rows = [row for row in compare(finite, infinite).rows if row.times == "all" and row.quantity != "predictions"]
    errors = ", ".join(f"{row.name} {100 * row.error:.2g} ({100 * row.noise:.2g})" for row in rows)
    say(f"{name}: kernels differ by, in % (to expect from the error bars): {errors}")


def draw_losses(axes: Axes, infinite: Solution, finite: Solution, colour: str, label: str, dots: str = "") -> None:
    """Draw two losses: infinite width as a line, finite width as dots (with a label), which no edge cuts in half."""
    plotting.loss_curve(axes, infinite, colour, label)
    plotting.loss_dots(axes, finite, colour, dots)
    axes.set_xlim(-0.015 * infinite.steps_done, 1.015 * infinite.steps_done)


def draw_densities(axes: Axes, pair: Mapping[str, Solution], layer: int, field: Field, edges: np.ndarray) -> None:
    """Draw the densities of a field before and after training: infinite width as a line, finite width as bars.

    Args:
        axes: matplotlib axes.
        pair: infinite and finite width, by name.
        layer: 1..L.
        field: "h", "z" or "g".
        edges: of the bins.
    """
    for t, time_name, colour in ((0, "before", plotting.NEUTRAL), (-1, "after", plotting.RICH)):
        line, bars = (
            activation_density(solution, layer, field, t=t, edges=edges).density for solution in pair.values()
        )
        line_name, bars_name = (f"{time_name}, {name}" for name in pair)
        plotting.density_bars(axes, edges, bars, colour, bars_name)
        plotting.density_line(axes, edges, line, colour, line_name)
    plotting.plain(axes)


def symbols(kernel: Symbol, depth: int) -> list[str]:
    """Returns the labels Phi^1 ... Phi^L or G^1 ... G^L of the layers, as mathematics."""
    letter = {"Phi": r"\Phi", "G": "G"}[kernel]
    return [f"${letter}^{layer}$" for layer in range(1, depth + 1)]


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty Figure of a width and height in inches."""
    return plotting.new_figure(width, height, h_pad=0.07, w_pad=0.07)


def write_caption(figure: Figure, text: str) -> None:
    """Write the settings at the bottom right, with mathematics between dollar signs."""
    figure.supxlabel(text, x=0.99, ha="right", fontsize=10, color="#5c6670")


def write_heading(part: Axes | SubFigure, letter: str, text: str) -> None:
    """Write at the upper left of a panel, or of a group of panels, its letter in the paper and what it shows."""
    from matplotlib.axes import Axes

    if isinstance(part, Axes):
        plotting.heading(part, f"{letter}   {text}")
    else:
        part.suptitle(f"{letter}   {text}", x=0.02, ha="left", **BOLD)


def draw_kernels(
    part: SubFigure | Figure,
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    label: str,
    draw: Callable[[Axes, np.ndarray, tuple[float, float], str], AxesImage],
) -> tuple[np.ndarray, Colorbar]:
    """Draw matrices as rows of panels on one colour scale; returns the Axes (rows, columns) and the colour bar.

    Args:
        part: of the figure, to fill.
        rows: by name, one matrix for each column.
        titles: of the columns.
        label: of the colour bar.
        draw: draws a matrix on axes: (axes, matrix, bounds of the colour scale, title) -> image.
    """
    entries = np.concatenate([matrix.ravel() for row in rows.values() for matrix in row])
    bounds = float(entries.min()), float(entries.max())
    panels = part.subplots(len(rows), len(titles), squeeze=False)
    image: Any = None
    for number, (name, matrices) in enumerate(rows.items()):
        for axes, matrix, title in zip(panels[number], matrices, titles, strict=True):
            image = draw(axes, matrix, bounds, title if number == 0 else "")
        panels[number, 0].set_ylabel(name, fontsize=10)
    return panels, part.colorbar(image, ax=panels, label=label, shrink=0.9, aspect=22, pad=0.015)


def draw_sample_kernels(
    part: SubFigure | Figure,
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    label: str,
    problem: Problem,
    classes: Sequence[str] = SIGNS,
) -> np.ndarray:
    """Draw kernels (P, P) between samples, ordered by target, with the names of both classes; as `draw_kernels`."""

    def draw(axes: Axes, kernel: np.ndarray, bounds: tuple[float, float], title: str) -> AxesImage:
        return plotting.kernel_matrix_by_target(axes, kernel, max(np.abs(bounds)), title, problem)

    panels, _ = draw_kernels(part, rows, titles, label, draw)
    for axes in panels[:, 0]:
        plotting.class_labels(axes, classes, by_target(problem).counts)
    return panels


def draw_time_kernels(
    part: SubFigure | Figure,
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    label: str,
    logarithmic: bool = False,
) -> None:
    """Draw kernels (T, T) between times, on a logarithmic colour scale if chosen; as `draw_kernels`."""
    draw = partial(plotting.two_time_matrix, logarithmic=logarithmic)
    panels, bar = draw_kernels(part, rows, titles, label, draw)
    if logarithmic:
        low, high = bar.mappable.get_clim()
        ticks = [tick for tick in ROUND if low <= tick <= high]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    for axes in panels.ravel():
        axes.label_outer()
        axes.set_xlabel(axes.get_xlabel() if axes in panels[-1] else "")
    for name, axes in zip(rows, panels[:, 0], strict=True):
        axes.set_ylabel(f"{name}\nstep $t$", fontsize=10)
