"""How the interactive plots look, and the few kinds of curves that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CrosshairTool, HoverTool, LogAxis, Span, TeeHead, Whisker
from bokeh.plotting import figure
from bokeh.themes import Theme

from kernelfield.report.result import Result, Style
from kernelfield.report.words import format_interval, format_number
from kernelfield.solution.estimate import Estimate

FONT = 'Inter, "Segoe UI", "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif'
INK, MUTED, LINE, PALE = "#1d2329", "#5c6670", "#c9cfd5", "#eef0f2"
LAYERS = ("#3b4cc0", "#1f968b", "#d08b00", "#c2417c", "#7d5ba6", "#4f772d", "#8c564b", "#17202a")
DASHES = {"line": "solid", "dashes": "6 4", "dotted": "2 3"}
DECADES = 12  # of a logarithmic axis, at most
ROOM_FOR_BARS = 0.15  # of the range of means: how far error bars may widen it
TOOLTIP = f"<div style='font: 13px sans-serif; color: {INK}'><b>@label</b><br>@unit @step: @text</div>"

MARGINS = {"min_border_left": 56, "min_border_right": 14, "min_border_top": 12}
FRAME = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}
TICKS = {"axis_line_color": LINE, "major_tick_line_color": LINE, "minor_tick_line_color": None}
LETTERS = {"text_font": FONT, "text_font_style": "normal", "text_color": MUTED}
LABELS = {f"{part}_{name}": value for part in ("major_label", "axis_label") for name, value in LETTERS.items()}
SIZES = {"major_label_text_font_size": "12px", "axis_label_text_font_size": "13px"}
LOOKS = {"Plot": MARGINS | FRAME, "Axis": TICKS | LABELS | SIZES, "Grid": {"grid_line_color": PALE}}
THEME = Theme(json={"attrs": LOOKS})


@dataclass(frozen=True)
class Key:
    """An entry of a legend: its label, and colour and style of its mark."""

    label: str
    colour: str
    style: str


@dataclass(frozen=True)
class Chart:
    """An interactive plot, with the title above it, the entries of its legend and the note below it."""

    title: str
    plot: figure
    keys: Sequence[Key] = ()
    note: str = ""


def create_time_plot(results: Sequence[Result], ylabel: str, height: int = 300, log: bool = False) -> Any:
    """Returns an empty Bokeh figure over the steps of training, with the line that moves with the slider."""
    last, unit = max(result.solution.steps_done for result in results), results[0].solution.training.unit
    room = 0.02 * max(1, last)
    plot = create_plot(ylabel, height, (-room, max(1, last) + room), log)
    plot.xaxis.axis_label = "gradient-descent step" if unit == "step" else unit
    look: dict[str, Any] = {"line_color": "#b6bec6", "line_width": 1.5, "level": "underlay"}
    plot.add_layout(Span(name="now", location=last, dimension="height", **look))
    plot.add_tools(CrosshairTool(dimensions="height", line_color=LINE, line_alpha=0.8))
    return plot


def create_plot(ylabel: str, height: int, x_range: tuple[float, float], log: bool = False, x_log: bool = False) -> Any:
    """Returns an empty Bokeh figure of a height in CSS pixels, without tools: dragging on it scrolls the page."""
    kinds = {True: "log", False: "linear"}
    axes: dict[str, Any] = {"x_axis_type": kinds[x_log], "y_axis_type": kinds[log]}
    axes |= {"x_range": x_range, "y_range": (0.1, 1.0)}
    plot = figure(height=height, sizing_mode="stretch_width", tools="", toolbar_location=None, **axes)
    plot.yaxis.axis_label = ylabel
    return plot


def draw_curve(
    plot: Any, steps: np.ndarray, estimate: Estimate, colour: str, style: Style, label: str, many: bool = False
) -> None:
    """Draws an estimate (n,) over steps (n,) with its 95 % interval: a line with a band, or dots with error bars.

    It leaves out values that are not finite, or not positive on a logarithmic axis. The tooltip shows `label`. Where
    there are `many` curves, only the curve under the pointer has a tooltip.
    """
    bounds = estimate.mean, *estimate.interval(0.95)
    mean, low, high = (np.where(np.isfinite(values), values, np.nan) for values in bounds)
    bars = np.isfinite(low) & (high > low)
    texts = [_describe(*numbers) for numbers in zip(mean, low, high, strict=True)]
    if isinstance(plot.yaxis[0], LogAxis):
        mean, high = (np.where(values > 0, values, np.nan) for values in (mean, high))
        low = np.where(low > 0, low, np.minimum(mean, high) * 1e-3)  # down to the end of the axis
    unit = plot.xaxis[0].axis_label.rpartition(" ")[2]
    labels, units = ([text] * len(steps) for text in (label, unit))
    source = ColumnDataSource({"step": steps, "mean": mean, "text": texts, "label": labels, "unit": units})
    if bars.any():
        _draw_interval(plot, steps[bars], low[bars], high[bars], colour, style)
    if style == "dots":
        look = {"size": 7, "line_color": colour, "fill_color": "white", "line_width": 1.6}
        mark = plot.scatter("step", "mean", source=source, **look)
    else:
        look = {"line_color": colour, "line_width": 2.2, "line_dash": DASHES[style]}
        mark = plot.line("step", "mean", source=source, **look)
    mode = "mouse" if many or style == "dots" else "vline"
    plot.add_tools(HoverTool(renderers=[mark], tooltips=TOOLTIP, mode=mode, line_policy="nearest", visible=False))


def _draw_interval(plot: Any, steps: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, style: Style) -> None:
    """Draws a band, or error bars for dots."""
    source = ColumnDataSource({"step": steps, "low": low, "high": high})
    if style != "dots":
        plot.varea("step", "low", "high", source=source, fill_color=colour, fill_alpha=0.2)
        return
    head = TeeHead(size=6, line_color=colour)
    look: dict[str, Any] = {"level": "underlay", "line_color": colour, "line_width": 1.4}
    look |= {"lower_head": head, "upper_head": head}
    plot.add_layout(Whisker(base="step", lower="low", upper="high", source=source, **look))


def fit_range(plot: Any, estimates: Sequence[Estimate], log: bool = False) -> None:
    """Sets the vertical range so that it shows all means, and as much of their intervals as does not dwarf them.

    It leaves out values that are not finite. A logarithmic axis has `DECADES` at most, and leaves out intervals.
    """
    values = np.concatenate([np.ravel(estimate.mean) for estimate in estimates])
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 10.0**-DECADES * values.max(initial=0.0)]
    elif values.size:
        room = ROOM_FOR_BARS * np.ptp(values)
        ends = np.concatenate([np.ravel(end) for estimate in estimates for end in estimate.interval(0.95)])
        values = np.append(values, np.clip(ends[np.isfinite(ends)], values.min() - room, values.max() + room))
    if not values.size:
        values = np.array([0.1, 1.0])
    low, high = float(values.min()), float(values.max())
    if log:
        room = max((high / low) ** 0.06, 1.15)
        plot.y_range.update(start=low / room, end=high * room)
    else:
        room = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
        plot.y_range.update(start=low - room, end=high + room)


def _describe(mean: float, low: float, high: float) -> str:
    interval = f" (95 %: {format_interval(low, high)})" if np.isfinite(low) and high > low else ""
    return format_number(mean, 4) + interval
