"""Quantities against training step, or against each other."""

from __future__ import annotations

import numpy as np

from kernelfield.plotting.style import Axes, shades
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution


def curve(
    axes: Axes,
    x: np.ndarray,
    estimate: Estimate,
    colour: str,
    label: str | None = None,
    style: str = "-",
    level: float = 0.95,
) -> None:
    """An estimated quantity as a line, with the confidence interval of its mean as a band.

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
    """An estimated quantity at a few places as dots, with the confidence interval of its mean as error bars.

    Args:
        axes: matplotlib axes.
        x: (T,), steps for instance.
        estimate: (T,).
        colour: of the dots.
        label: for the legend.
        count: how many dots, equally spaced in x's order.
        level: of the interval (Student's t over replicates); no bars for a single replicate.
    """
    mean, (low, high) = estimate.mean, estimate.interval(level)
    at = np.unique(np.linspace(0, len(mean) - 1, count).round().astype(int))
    axes.errorbar(
        x[at],
        mean[at],
        yerr=np.nan_to_num((mean[at] - low[at], high[at] - mean[at])),
        fmt="o",
        ms=6,
        mfc="white",
        mec=colour,
        mew=1.6,
        ecolor=colour,
        elinewidth=1.4,
        capsize=2.5,
        label=label,
        zorder=4,
    )


def loss_curve(axes: Axes, solution: Solution, colour: str, label: str, level: float = 0.95) -> None:
    """Loss against step as a `curve`.

    Args:
        axes: matplotlib axes.
        solution: whose loss.
        colour: of line and band.
        label: for the legend.
        level: of the interval (Student's t over replicates).
    """
    steps = np.arange(solution.steps_done + 1)
    curve(axes, steps, solution.estimate("loss"), colour, label, level=level)
    axes.set(xlabel=solution.training.unit, ylabel="training loss", yscale="log", xlim=(0, steps[-1]))


def loss_dots(axes: Axes, solution: Solution, colour: str, label: str, count: int = 11, level: float = 0.95) -> None:
    """Loss at a few steps as `dots`.

    Args:
        axes: matplotlib axes.
        solution: whose loss.
        colour: of the dots.
        label: for the legend.
        count: how many dots.
        level: of the interval (Student's t over replicates).
    """
    dots(axes, np.arange(solution.steps_done + 1), solution.estimate("loss"), colour, label, count, level)


def spectrum(axes: Axes, x: np.ndarray, eigenvalues: Estimate, most: int = 10) -> None:
    """Eigenvalues against step on a logarithmic axis, the largest darkest, each a `curve`.

    Args:
        axes: matplotlib axes.
        x: (T,), steps for instance.
        eigenvalues: (T, P), largest first, as of `kernelfield.observables.ntk_spectrum`.
        most: how many are drawn, the largest ones.
    """
    drawn = min(most, eigenvalues.mean.shape[1])
    for number, colour in enumerate(shades(drawn)):
        curve(axes, x, Estimate(eigenvalues.replicates[:, :, number], eigenvalues.exact), colour)
    axes.set(yscale="log", xlim=(x[0], x[-1]))


def line_and_dots(
    axes: Axes, x: np.ndarray, line: np.ndarray, dots: np.ndarray, colour: str, label: str, count: int = 16
) -> None:
    """Two curves that should be one: the first as a line, the second as a few dots on it.

    Args:
        axes: matplotlib axes.
        x: (T,).
        line, dots: (T,).
        colour: of both.
        label: for the legend.
        count: how many dots.
    """
    at = np.unique(np.linspace(0, len(x) - 1, count).round().astype(int))
    axes.plot(x, line, color=colour, lw=2, zorder=2)
    axes.plot(x[at], dots[at], "o", color=colour, ms=5.5, mfc="white", mew=1.6, label=label, zorder=3)


def guide(axes: Axes, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """A dashed curve that others may approach.

    Args:
        axes: matplotlib axes.
        x, y: (T,).
        label: for the legend.
    """
    axes.plot(x, y, "--", color="black", lw=1.3, alpha=0.8, label=label, zorder=4)
