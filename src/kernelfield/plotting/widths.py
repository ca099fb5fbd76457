"""Finite beside infinite width: distributions over neurons, alignments near one, and distances against width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kernelfield.plotting.style import NEUTRAL, OPEN_MARKS
from kernelfield.solution.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAREST = 1e-8  # the distance from an alignment of one at the end of its axis


def density_line(
    axes: Axes, edges: np.ndarray, density: Estimate, colour: str, label: str | None = None, style: str = "-"
) -> None:
    """Draws a density as a line through the middles of its bins, with its 95 % interval as a band.

    Args:
        edges: of the bins (bins + 1,).
        density: (bins,), from `kernelfield.observables.activation_density`.
        axes, colour, label, style: as for `curve`.
    """
    middles = (edges[1:] + edges[:-1]) / 2
    low, high = density.interval()
    axes.plot(middles, density.mean, style, color=colour, lw=2, label=label, zorder=3)
    axes.fill_between(middles, np.maximum(low, 0), high, color=colour, alpha=0.25, lw=0, zorder=2)
    _fit_limits(axes, edges)


def density_bars(axes: Axes, edges: np.ndarray, density: Estimate, colour: str, label: str | None = None) -> None:
    """Draws a density as a histogram, pale enough for a line on top of it; arguments as `density_line`."""
    axes.stairs(density.mean, edges, fill=True, color=colour, alpha=0.35, lw=0, label=label, zorder=1)
    _fit_limits(axes, edges)


def _fit_limits(axes: Axes, edges: np.ndarray) -> None:
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0, auto=True)  # the top follows what is drawn next


def alignments(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    colour: str,
    label: str | None = None,
    style: str = "none",
) -> None:
    """Draws alignments near one, as dots with error bars on an axis that spreads out 0.9, 0.99, 0.999, ...

    Args:
        places: x of every dot.
        values: alignments, at most 1.
        errors: their standard errors; no bar where NaN.
        style: of a line through the dots; none by default.
        axes, colour, label: as for `curve`.
    """
    apart = np.maximum(1 - values, NEAREST)
    bars = np.nan_to_num([np.minimum(errors, apart - 0.5 * NEAREST), errors])
    look = {**OPEN_MARKS, "marker": "o", "ls": style, "elinewidth": 1.2}
    axes.errorbar(places, apart, yerr=bars, color=colour, label=label, **look)
    axes.set(yscale="log")


def alignment_scale(axes: Axes, lowest: float, highest: float) -> None:
    """Sets the axis that `alignments` draws on, from the lowest alignment up to the highest, which is below 1."""
    ticks = {1.0: "0", **{10.0**-power: f"{1 - 10.0**-power:.{power}f}" for power in range(1, 13)}}
    visible = {tick: name for tick, name in ticks.items() if 1 - highest <= tick <= 1 - lowest}
    axes.set_ylim(1 - lowest, 1 - highest)
    axes.set_yticks(list(visible), list(visible.values()))
    axes.set_yticks([], minor=True)


def distance_against_width(
    axes: Axes, widths: Sequence[int], distance: Estimate, colour: str, marker: str, label: str, style: str = "-"
) -> None:
    """Draws a distance from infinite width against width, on logarithmic axes.

    Args:
        widths: N.
        distance: of every width, with its error.
        marker: matplotlib marker.
        axes, colour, label, style: as for `curve`.
    """
    mean, (low, high) = distance.mean, distance.interval()
    bars = np.nan_to_num([np.minimum(mean - low, 0.9 * mean), high - mean])
    look = {**OPEN_MARKS, "marker": marker, "ms": 7, "ls": style, "lw": 1.8}
    axes.errorbar(widths, mean, yerr=bars, color=colour, label=label, **look)
    axes.set_yscale("log")
    width_axis(axes, widths)


def width_axis(axes: Axes, widths: Sequence[int]) -> None:
    """Sets a logarithmic x axis with a tick at each width N."""
    axes.set(xscale="log", xlabel="width N of the finite network")
    axes.set_xticks(list(widths), [str(width) for width in widths])
    axes.set_xticks([], minor=True)


def width_guide(axes: Axes, widths: Sequence[int], start: float, power: float, label: str, style: str = "--") -> None:
    """Draws a straight guide proportional to width^power.

    Args:
        widths: N; the guide runs from the first to the last.
        start: its value at the first width.
        power: -0.5 or -1.
        label: written at its end.
        axes, style: as for `curve`.
    """
    ends = np.array([widths[0], widths[-1]], dtype=float)
    values = start * (ends / ends[0]) ** power
    axes.plot(ends, values, style, color=NEUTRAL, lw=1.2, alpha=0.8, zorder=1)
    axes.annotate(label, (ends[-1], values[-1]), (6, 0), textcoords="offset points", va="center", color=NEUTRAL)


def floor(axes: Axes, level: float, label: str) -> None:
    """Draws a labelled grey band on a logarithmic y axis, below the smallest difference that can be resolved."""
    bottom, place = level / 2.5, ("axes fraction", "data")
    axes.axhspan(bottom, level, color=NEUTRAL, alpha=0.15, lw=0, zorder=0)
    axes.annotate(label, (0.02, level), (0, -3), place, "offset points", va="top", color=NEUTRAL, size=9)
    axes.set_ylim(bottom=bottom)
