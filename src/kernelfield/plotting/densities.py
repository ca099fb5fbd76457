"""Distributions of activations over neurons: infinite width as a line, finite width as a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernelfield.solution.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def density_line(
    axes: Axes, edges: np.ndarray, density: Estimate, colour: str, label: str | None = None, style: str = "-"
) -> None:
    """Draws a density as a line through the middles of its bins, with its 95 % interval as a band.

    Args:
        axes: matplotlib axes.
        edges: of the bins (bins + 1,).
        density: (bins,), from `kernelfield.observables.activation_density`.
        colour: of line and band.
        label: for the legend.
        style: of the line.
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
