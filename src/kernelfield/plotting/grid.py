"""A grid as a figure: the loss over time, and what is left of it, in the colours of the first key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.sweeps.look import keys_of, last_layer, points_of, shown

if TYPE_CHECKING:
    import xarray

    from kernelfield.plotting import Axes

MOST_COLUMNS = 4  # panels side by side
MOST_TICKS = 6  # values that are all written below their axis
SYMBOLS = {"gamma0": "$\\gamma_0$", "learning_rate": "learning rate", "depth": "hidden layers"}
MARKERS = "osD^vP"


def draw(data: xarray.Dataset) -> Any:
    """Loss over steps, a line for each value of the first key, and a panel for each combination of the others.

    Two more panels have the final loss, and the alignment of the last feature kernel, against the first key. Bands and
    bars are standard errors.

    Args:
        data: of a sweep, also of one that is not done.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: no point is done.
    """
    from matplotlib.figure import Figure

    if not points_of(data):
        raise ValueError("no point of the sweep is done yet: there is nothing to draw")
    first, *others = keys_of(data)
    places = list(itertools.product(*(range(data.sizes[key]) for key in others)))
    panels = [data.isel(dict(zip(others, place, strict=True))) for place in places]
    titles = [", ".join(f"{symbol(key)} = {shown(panel[key].values)}" for key in others) for panel in panels]
    against = ["final_loss", *(["Phi_alignment"] if bool(np.isfinite(data["Phi_alignment"]).any()) else [])]
    count = len(panels) + len(against)
    columns = count if count <= 3 else min(math.ceil(math.sqrt(count)), MOST_COLUMNS)
    rows = -(-count // columns)
    figure: Any = Figure(figsize=(4.2 * columns + 0.4, 3.4 * rows + 0.6), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel, title in zip(grid, panels, titles, strict=False):
        _over_steps(axes, panel, first)
        axes.set_title(title, fontsize=11)
    _same_scale(grid[: len(panels)])
    for axes, name in zip(grid[len(panels) :], against, strict=False):
        _against_key(axes, panels, titles, first, name)
    if len(panels) > 1:
        grid[len(panels)].legend(frameon=False, fontsize=9)
    for axes in grid[count:]:
        axes.set_axis_off()
    _legend(figure, grid[: len(panels)], data[first])
    return figure


def symbol(key: str) -> str:
    """A key as a label of an axis.

    Args:
        key: of a grid.
    """
    return SYMBOLS.get(key, key.replace("_", " "))


def _colours(values: np.ndarray) -> Sequence[Any]:
    """Of the first key: from cold to warm, or those of a series for a few texts."""
    from kernelfield import plotting

    few = values.dtype.kind not in "iuf" and len(values) <= len(plotting.SERIES)
    return plotting.SERIES if few else plotting.shades(len(values))


def _over_steps(axes: Axes, panel: xarray.Dataset, first: str) -> None:
    """Loss over steps for every value of the first key; dashed for test points."""
    from kernelfield import plotting

    steps = panel["step"].values
    for place, colour in enumerate(_colours(panel[first].values)[: panel.sizes[first]]):
        point = panel.isel({first: place})
        mean, se = point["loss"].values, point["loss_se"].values
        if not np.isfinite(mean).any():
            continue
        axes.plot(steps, mean, color=colour, lw=2.2, label=shown(point[first].values), zorder=3)
        axes.fill_between(steps, mean - se, mean + se, color=colour, alpha=0.25, lw=0, zorder=2)
        axes.plot(steps, point["test_loss"].values, "--", color=colour, lw=1.6, zorder=3)
    tests = bool(np.isfinite(panel["test_loss"]).any())
    axes.set(xlabel="step", ylabel="loss (dashed: test points)" if tests else "training loss", yscale="log")
    axes.set_xlim(0, max(1, steps[-1]))
    plotting.plain(axes)


def _same_scale(panels: Sequence[Axes]) -> None:
    """The same limits of the loss in all panels that have any."""
    limits = [axes.get_ylim() for axes in panels if axes.lines]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits)) if limits else None


def _against_key(axes: Axes, panels: Sequence[xarray.Dataset], titles: Sequence[str], first: str, name: str) -> None:
    """Final loss, or alignment of the last layer, against the first key: a line for each panel."""
    from kernelfield import plotting

    values = panels[0][first].values
    numbers = values.dtype.kind in "iuf"
    x = values if numbers else np.arange(len(values))
    few = len(panels) <= len(plotting.SERIES)
    colours = (plotting.NEUTRAL, *plotting.SERIES[:-1]) if few else plotting.shades(len(panels))
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        y, se = (last_layer(panel[each]) for each in (name, f"{name}_se"))
        style = {"marker": MARKERS[number % len(MARKERS)], "ms": 6, "mfc": "white", "mew": 1.8, "capsize": 2.5}
        axes.errorbar(x, y, yerr=np.nan_to_num(se), color=colours[number], lw=1.8, label=title, zorder=3, **style)
    if numbers and x.min() > 0 and x.max() >= 10 * x.min():
        axes.set_xscale("log")
    if not numbers or len(values) <= MOST_TICKS:
        axes.set_xticks(x, [shown(value) for value in values])
        axes.set_xticks([], minor=True)
    loss = name == "final_loss"
    axes.set(xlabel=symbol(first), ylabel="final training loss" if loss else "final alignment of $\\Phi$ with $y y^T$")
    axes.set_yscale("log" if loss else "linear")
    plotting.plain(axes)


def _legend(figure: Any, panels: Sequence[Axes], coordinate: xarray.DataArray) -> None:
    """The values of the first key that any panel has, above all panels."""
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    ordered = [label for label in map(shown, coordinate.values) if label in handles]
    lines = [handles[label] for label in ordered]
    name = symbol(str(coordinate.name))
    labels = [f"{name} = {label}" for label in ordered]
    if lines:
        figure.legend(lines, labels, loc="outside upper center", ncols=min(len(lines), 6), frameon=False)
