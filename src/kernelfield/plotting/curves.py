"""Quantities against training step, or against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernelfield.plotting.style import OPEN_MARKS, shades, thin
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curve(
    axes: Axes,
    x: np.ndarray,
    estimate: Estimate,
    colour: str,
    label: str | None = None,
    style: str = "-",
    level: float = 0.95,
) -> None:
    """Draws an estimated quantity as a line, with the confidence interval of its mean as a band.

    Args:
        axes: matplotlib axes.
        x: (T,), steps for instance.
        estimate: (T,).
        colour: of line and band.
        label: for the legend.
        style: of the line.
        level: of the interval (Student's t over replicates); no band for a single replicate.
    """
    axes.plot(x, estimate.mean, style, color=colour, lw=2.2, label=label, solid_capstyle="round", zorder=3)
    axes.fill_between(x, *estimate.interval(level), color=colour, alpha=0.25, lw=0, zorder=2)


def dots(
    axes: Axes,
    x: np.ndarray,
    estimate: Estimate,
    colour: str,
    label: str | None = None,
    count: int = 11,
    level: float = 0.95,
) -> None:
    """Draws an estimated quantity as `count` dots, equally spaced in the order of x; other arguments as `curve`.

    The confidence interval of its mean is drawn as error bars; a single replicate has none.
    """
    mean, (low, high) = estimate.mean, estimate.interval(level)
    places = thin(len(mean), count)
    bars = np.nan_to_num((mean - low, high - mean))[:, places]
    look = {**OPEN_MARKS, "mew": 1.6, "elinewidth": 1.4, "zorder": 4}
    axes.errorbar(x[places], mean[places], yerr=bars, fmt="o", color=colour, label=label, **look)


def loss_curve(axes: Axes, solution: Solution, colour: str, label: str, level: float = 0.95) -> None:
    """Draws the loss of a solution against step on a logarithmic axis; other arguments as `curve`."""
    steps = solution.steps()
    curve(axes, steps, solution.estimate("loss"), colour, label, level=level)
    axes.set(xlabel=solution.training.unit, ylabel="training loss", yscale="log", xlim=(0, steps[-1]))


def loss_dots(axes: Axes, solution: Solution, colour: str, label: str, count: int = 11, level: float = 0.95) -> None:
    """Draws the loss of a solution at `count` steps; other arguments as `dots`."""
    dots(axes, solution.steps(), solution.estimate("loss"), colour, label, count, level)


def spectrum(axes: Axes, x: np.ndarray, eigenvalues: Estimate, most: int = 10) -> None:
    """Draws eigenvalues against step on a logarithmic axis, the largest darkest, each as a `curve`.

    Args:
        axes, x: as for `curve`.
        eigenvalues: (T, P), largest first, from `kernelfield.observables.ntk_spectrum`.
        most: how many are drawn, the largest ones.
    """
    count = min(most, eigenvalues.mean.shape[1])
    for number, colour in enumerate(shades(count)):
        curve(axes, x, Estimate(eigenvalues.replicates[:, :, number], eigenvalues.exact), colour)
    axes.set(yscale="log", xlim=(x[0], x[-1]))


def line_and_dots(
    axes: Axes, x: np.ndarray, line: np.ndarray, dots: np.ndarray, colour: str, label: str, count: int = 16
) -> None:
    """Draws two curves (T,) that should be one: the first as a line, the second as `count` dots on it."""
    places = thin(len(x), count)
    axes.plot(x, line, color=colour, lw=2, zorder=2)
    axes.plot(x[places], dots[places], "o", color=colour, ms=5.5, mfc="white", mew=1.6, label=label, zorder=3)


def guide(axes: Axes, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """Draws a dashed curve (T,) that others may approach."""
    axes.plot(x, y, "--", color="black", lw=1.3, alpha=0.8, label=label, zorder=4)
