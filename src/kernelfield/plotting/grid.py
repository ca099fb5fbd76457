"""A sweep over a grid as a figure: losses over time, and final losses and alignments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import plotting
from kernelfield.plotting.style import OPEN_MARKS
from kernelfield.sweeps.axes import format_value
from kernelfield.sweeps.look import grid_keys, select_points, take_last_layer

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 4  # panels side by side
MOST_TICKS = 6  # values that are all written below their axis
SYMBOLS = {"gamma0": "$\\gamma_0$", "learning_rate": "learning rate", "depth": "hidden layers"}
MARKERS = "osD^vP"


def draw(data: xarray.Dataset) -> Figure:
    """Returns a figure of the loss over steps, and of two measures against the first key of the grid of a sweep.

    Losses have a line for each value of the first key, and a panel for each combination of the others. The measures are
    the final loss and the alignment of the last feature kernel. Bands and bars are standard errors.

    Raises:
        ValueError: no point of the sweep is done.
    """
    if not select_points(data):
        raise ValueError("no point of the sweep is done yet: there is nothing to draw")
    first, *others = grid_keys(data)
    places = itertools.product(*(range(data.sizes[key]) for key in others))
    panels = [data.isel(dict(zip(others, place, strict=True))) for place in places]
    titles = [", ".join(f"{_label(key)} = {format_value(panel[key].values)}" for key in others) for panel in panels]
    measures = ["final_loss", *(["Phi_alignment"] if bool(np.isfinite(data["Phi_alignment"]).any()) else [])]
    count = len(panels) + len(measures)
    columns = count if count <= 3 else min(math.ceil(math.sqrt(count)), MOST_COLUMNS)
    rows = math.ceil(count / columns)
    figure = plotting.new_figure(4.2 * columns + 0.4, 3.4 * rows + 0.6, dpi=150, w_pad=0.12, h_pad=0.1)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    over_steps, against_key = grid[: len(panels)], grid[len(panels) : count]
    for axes, panel, title in zip(over_steps, panels, titles, strict=True):
        _draw_over_steps(axes, panel, first)
        axes.set_title(title, fontsize=11)
    for axes in over_steps[1:]:
        axes.sharey(over_steps[0])
    for axes, name in zip(against_key, measures, strict=True):
        _draw_against_key(axes, panels, titles, first, name)
    if len(panels) > 1:
        against_key[0].legend(frameon=False, fontsize=9)
    for axes in grid[count:]:
        axes.set_axis_off()
    plotting.legend_above(
        figure, over_steps, [f"{_label(first)} = {format_value(value)}" for value in data[first].values]
    )
    return figure


def _label(key: str) -> str:
    return SYMBOLS.get(key, key.replace("_", " "))


def _draw_over_steps(axes: Axes, panel: xarray.Dataset, first: str) -> None:
    """Draws the loss over steps for every value of the first key that has one; dashed for test points."""
    steps, values = panel["step"].values, panel[first].values
    few_texts = values.dtype.kind not in "iuf" and len(values) <= len(plotting.SERIES)
    colours = plotting.SERIES if few_texts else plotting.shades(len(values))
    for place, (value, colour) in enumerate(zip(values, colours, strict=False)):
        point = panel.isel({first: place})
        mean, se = point["loss"].values, point["loss_se"].values
        if not np.isfinite(mean).any():
            continue
        axes.plot(steps, mean, color=colour, lw=2.2, label=f"{_label(first)} = {format_value(value)}", zorder=3)
        axes.fill_between(steps, mean - se, mean + se, color=colour, alpha=0.25, lw=0, zorder=2)
        axes.plot(steps, point["test_loss"].values, "--", color=colour, lw=1.6, zorder=3)
    tests = bool(np.isfinite(panel["test_loss"]).any())
    axes.set(xlabel="step", ylabel="loss (dashed: test points)" if tests else "training loss", yscale="log")
    axes.set_xlim(0, max(1, steps[-1]))
    plotting.plain(axes)


def _draw_against_key(
    axes: Axes, panels: Sequence[xarray.Dataset], titles: Sequence[str], first: str, measure: str
) -> None:
    """Draws the final loss, or the alignment of the last layer, against the first key: a line for each panel."""
    values = panels[0][first].values
    numbers = values.dtype.kind in "iuf"
    x = values if numbers else np.arange(len(values))
    few = len(panels) <= len(plotting.SERIES)
    colours = (plotting.NEUTRAL, *plotting.SERIES[:-1]) if few else plotting.shades(len(panels))
    for panel, title, colour, marker in zip(panels, titles, colours, itertools.cycle(MARKERS), strict=False):
        y, se = take_last_layer(panel[measure]), np.nan_to_num(take_last_layer(panel[f"{measure}_se"]))
        axes.errorbar(x, y, yerr=se, color=colour, marker=marker, lw=1.8, label=title, **OPEN_MARKS)
    if numbers and x.min() > 0 and x.max() >= 10 * x.min():
        axes.set_xscale("log")
    if not numbers or len(values) <= MOST_TICKS:
        axes.set_xticks(x, [format_value(value) for value in values])
        axes.set_xticks([], minor=True)
    loss = measure == "final_loss"
    axes.set(xlabel=_label(first), ylabel="final training loss" if loss else "final alignment of $\\Phi$ with $y y^T$")
    axes.set_yscale("log" if loss else "linear")
    plotting.plain(axes)
