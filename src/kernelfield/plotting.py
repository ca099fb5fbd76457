"""Drawing on axes that the caller made. Nothing is computed here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelfield.solution import Estimate, Solution

Axes = Any
LAZY, RICH, NEUTRAL = "#2a78b5", "#d1495b", "#5c6670"
SERIES = (RICH, LAZY, "#e0a030", "#2f8f6b", "#6a4c93", NEUTRAL)
KERNEL_COLOURS, TIME_COLOURS = "RdBu_r", "magma"
NEAREST = 1e-8  # what is left to an alignment of one, at the end of its axis


def loss_curve(axes: Axes, solution: Solution, colour: str, label: str, level: float = 0.95) -> None:
    """Loss against step, with the confidence interval of its mean as a band.

    Args:
        axes: matplotlib axes.
        solution: whose loss.
        colour: of line and band.
        label: for the legend.
        level: of the interval (Student's t over replicates).
    """
    loss = solution.estimate("loss")
    steps = np.arange(len(loss.mean))
    axes.plot(steps, loss.mean, color=colour, lw=2.2, label=label, solid_capstyle="round", zorder=3)
    axes.fill_between(steps, *loss.interval(level), color=colour, alpha=0.25, lw=0, zorder=2)
    axes.set(xlabel="gradient-descent step", ylabel="training loss", yscale="log", xlim=(0, steps[-1]))


def loss_dots(axes: Axes, solution: Solution, colour: str, label: str, count: int = 11, level: float = 0.95) -> None:
    """Loss at a few steps as dots, with the confidence interval of its mean as error bars.

    Args:
        axes: matplotlib axes.
        solution: whose loss.
        colour: of the dots.
        label: for the legend.
        count: how many dots.
        level: of the interval (Student's t over replicates).
    """
    loss = solution.estimate("loss")
    low, high = loss.interval(level)
    at = np.unique(np.linspace(0, len(loss.mean) - 1, count).round().astype(int))
    axes.errorbar(
        at,
        loss.mean[at],
        yerr=(loss.mean[at] - low[at], high[at] - loss.mean[at]),
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


def kernel_matrix(axes: Axes, kernel: np.ndarray, limit: float, title: str, groups: Sequence[int]) -> Any:
    """A kernel as an image, on a colour scale from -limit to limit that several panels can share.

    Args:
        axes: matplotlib axes.
        kernel: (P, P).
        limit: of the colour scale.
        title: above the panel.
        groups: how many samples each class has, in order; lines are drawn between classes.

    Returns:
        The image, for a colour bar.
    """
    image = axes.imshow(kernel, cmap=KERNEL_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest")
    for edge in np.cumsum(groups)[:-1]:
        axes.axhline(edge - 0.5, color="black", lw=0.8, alpha=0.6)
        axes.axvline(edge - 0.5, color="black", lw=0.8, alpha=0.6)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    return image


def two_time_matrix(axes: Axes, kernel: np.ndarray, bounds: tuple[float, float], title: str) -> Any:
    """A kernel between all pairs of times as an image, time running up and to the right.

    Args:
        axes: matplotlib axes.
        kernel: (T, T).
        bounds: of the colour scale, which several panels can share.
        title: above the panel.

    Returns:
        The image, for a colour bar.
    """
    low, high = bounds
    image = axes.imshow(kernel, cmap=TIME_COLOURS, vmin=low, vmax=high, origin="lower", interpolation="nearest")
    ends = [0, len(kernel) // 2, len(kernel) - 1]
    axes.set_title(title, fontsize=11)
    axes.set(xticks=ends, yticks=ends, xlabel="step $s$")
    return image


def alignments(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    colour: str,
    label: str | None = None,
    style: str = "none",
) -> None:
    """Alignments near one, as dots with error bars on an axis that spreads out 0.9, 0.99, 0.999, ...

    Args:
        axes: matplotlib axes.
        places: x of every dot.
        values: alignments, at most 1.
        errors: their standard errors; no bar where NaN.
        colour: of the dots.
        label: for the legend.
        style: of a line through the dots; none by default.
    """
    apart = np.maximum(1 - values, NEAREST)
    bars = np.nan_to_num([np.minimum(errors, apart - 0.5 * NEAREST), errors])
    axes.errorbar(
        places, apart, yerr=bars, marker="o", ms=6, color=colour, mfc="white", mew=1.8, elinewidth=1.2, capsize=2.5,
        label=label, ls=style, zorder=3,
    )  # fmt: skip
    axes.set(yscale="log")


def alignment_scale(axes: Axes, lowest: float, highest: float) -> None:
    """Ticks of the axis that `alignments` draws on, best at the top.

    Args:
        axes: matplotlib axes.
        lowest: alignment at the bottom.
        highest: alignment at the top, below 1.
    """
    ticks = [1.0, *(10.0**-power for power in range(1, 13))]
    names = ["0", *(f"{1 - tick:.{power}f}" for power, tick in enumerate(ticks[1:], start=1))]
    axes.set_ylim(1 - lowest, 1 - highest)
    shown = [(tick, name) for tick, name in zip(ticks, names, strict=True) if 1 - highest <= tick <= 1 - lowest]
    axes.set_yticks(*zip(*shown, strict=True))
    axes.set_yticks([], minor=True)


def class_labels(axes: Axes, names: Sequence[str], groups: Sequence[int]) -> None:
    """Names of the classes along the left side of a kernel matrix.

    Args:
        axes: matplotlib axes.
        names: of the classes, in order.
        groups: how many samples each class has.
    """
    ends = np.cumsum(groups)
    axes.set_yticks(ends - np.asarray(groups) / 2 - 0.5, names)
    axes.tick_params(axis="y", length=0)


def distance_against_width(
    axes: Axes,
    widths: Sequence[int],
    distance: Estimate,
    colour: str,
    marker: str,
    label: str,
    style: str = "-",
) -> None:
    """A distance from infinite width against width, on logarithmic axes.

    Args:
        axes: matplotlib axes.
        widths: N.
        distance: of every width, with its error.
        colour: of the line.
        marker: matplotlib marker.
        label: for the legend.
        style: of the line.
    """
    low, high = distance.interval()
    axes.errorbar(
        widths,
        distance.mean,
        yerr=np.nan_to_num([np.minimum(distance.mean - low, 0.9 * distance.mean), high - distance.mean]),
        color=colour,
        marker=marker,
        ms=7,
        mfc="white",
        mew=1.8,
        ls=style,
        lw=1.8,
        capsize=2.5,
        label=label,
        zorder=3,
    )
    axes.set(xscale="log", yscale="log", xlabel="width N of the finite network")
    axes.set_xticks(list(widths), [str(width) for width in widths])
    axes.set_xticks([], minor=True)


def width_guide(axes: Axes, widths: Sequence[int], start: float, power: float, label: str, style: str = "--") -> None:
    """A straight guide proportional to width^power.

    Args:
        axes: matplotlib axes.
        widths: N; the guide runs from the first to the last.
        start: its value at the first width.
        power: -0.5 or -1.
        label: written at its end.
        style: of the line.
    """
    ends = np.array([widths[0], widths[-1]], dtype=float)
    values = start * (ends / ends[0]) ** power
    axes.plot(ends, values, style, color=NEUTRAL, lw=1.2, alpha=0.8, zorder=1)
    axes.annotate(label, (ends[-1], values[-1]), (6, 0), textcoords="offset points", va="center", color=NEUTRAL)


def floor(axes: Axes, level: float, label: str) -> None:
    """A grey band below a level: what cannot be resolved.

    Args:
        axes: matplotlib axes, with a logarithmic y axis.
        level: top of the band.
        label: written in it.
    """
    bottom = level / 2.5
    axes.axhspan(bottom, level, color=NEUTRAL, alpha=0.15, lw=0, zorder=0)
    axes.annotate(
        label,
        (0.02, level),
        (0, -3),
        ("axes fraction", "data"),
        "offset points",
        va="top",
        color=NEUTRAL,
        size=9,
    )
    axes.set_ylim(bottom=bottom)


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


def shades(count: int) -> list[Any]:
    """Colours for a quantity that grows, from cold to warm.

    Args:
        count: how many.

    Returns:
        matplotlib colours.
    """
    from matplotlib import colormaps

    return [colormaps["plasma"](0.05 + 0.8 * place) for place in np.linspace(0, 1, count)]


def write_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a matplotlib Figure: the whole file or nothing.

    Args:
        figure: the Figure.
        path: ending in .png, .pdf or .svg.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        figure.savefig(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
