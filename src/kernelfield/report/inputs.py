"""The chart of the inputs that a network has learned to use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Whisker
from bokeh.plotting import figure
from bokeh.transform import dodge

from kernelfield import observables
from kernelfield.report import style
from kernelfield.report.result import Result
from kernelfield.report.style import Chart, Key
from kernelfield.solution.estimate import Estimate

MOST_INPUTS = 20
ROW = 26  # CSS pixels of an input
NOTE = "The share of each input in the squared gradients of the outputs, averaged over training points (AGOP)"


def chart_inputs(results: Sequence[Result]) -> list[Chart]:
    """Returns a chart of the shares of inputs, of all results that kept a state to predict from; none if main did not.

    The inputs are those that the main result uses most; a table's have the names of its columns.
    """
    main = results[0].solution
    results = [result for result in results if _can_differentiate(result)]
    if not results or results[0].solution is not main:
        return []
    shares = [observables.input_shares(result.solution) for result in results]
    names = _list_inputs(results[0])
    chosen = np.argsort(-shares[0].mean, kind="stable")[:MOST_INPUTS]
    height = ROW * len(chosen) * (1 + (len(results) > 1)) + 60
    labels = [names[number] for number in chosen]
    ends = [np.nan_to_num(np.maximum(share.mean, share.interval(0.95)[1])[chosen], nan=0.0) for share in shares]
    longest = float(np.clip(ends, 0.0, 1.0).max())
    options: dict[str, Any] = {"sizing_mode": "stretch_width", "tools": "", "toolbar_location": None}
    options |= {"x_range": (0.0, 1.05 * longest or 1.0), "y_range": FactorRange(*reversed(labels))}
    plot = figure(height=height, **options)
    plot.xaxis.axis_label = "share"
    plot.ygrid.visible = False
    thickness = 0.8 / len(results)
    for place, (result, share) in enumerate(zip(results, shares, strict=True)):
        _draw_bars(plot, labels, share, chosen, result.colour, (len(results) - 1) / 2 - place, thickness)
    keys = [Key(result.name, result.colour, "bars") for result in results]
    left = f"; the {len(chosen)} largest of {len(names)}" if len(chosen) < len(names) else ""
    return [
        Chart(
            "Share in the gradients of the outputs",
            plot,
            keys if len(keys) > 1 else (),
            f"{NOTE}{left}. Lines are 95 % intervals.",
        )
    ]


def _can_differentiate(result: Result) -> bool:
    predictor = result.solution.predictor
    return predictor is not None and result.solution.steps_done in predictor.steps


def _list_inputs(result: Result) -> list[str]:
    """Returns the names of the inputs (D,): those of a table's columns, or numbers."""
    table = result.solution.info.get("table")
    count = result.solution.problem.dimensions
    names = None if table is None else table.get("names")
    return list(names) if names and len(names) == count else [f"input {number}" for number in range(1, count + 1)]


def _draw_bars(
    plot: Any, labels: list[str], share: Estimate, chosen: np.ndarray, colour: str, place: float, thickness: float
) -> None:
    """Draws a bar with its error bar for every input."""
    low, high = (np.nan_to_num(end, nan=0.0) for end in share.interval(0.95))
    mean = share.mean[chosen]
    columns = {"name": labels, "share": mean, "low": np.maximum(low[chosen], 0), "high": high[chosen]}
    source = ColumnDataSource(columns)
    where = dodge("name", place * thickness, range=plot.y_range)
    bars = plot.hbar(where, 0.9 * thickness, "share", source=source, fill_color=colour, fill_alpha=0.75, line_width=0)
    look: dict[str, Any] = {"line_color": style.INK, "line_width": 1.4, "upper_head": None, "lower_head": None}
    if (high[chosen] > low[chosen]).any():
        plot.add_layout(Whisker(base=where, lower="low", upper="high", dimension="width", source=source, **look))
    plot.add_tools(HoverTool(renderers=[bars], tooltips="@name: @share{0.000}", visible=False))
