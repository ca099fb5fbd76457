"""How the interactive plots look, and the few kinds of curves that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CrosshairTool, HoverTool, LogAxis, Range1d, Span, Whisker
from bokeh.plotting import figure
from bokeh.themes import Theme

from kernelfield.report.result import Style, between, plain
from kernelfield.solution.estimate import Estimate

FONT = 'Inter, "Segoe UI", "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif'
INK, MUTED, LINE, PALE = "#1d2329", "#5c6670", "#c9cfd5", "#eef0f2"
LAYERS = ("#3b4cc0", "#1f968b", "#d08b00", "#c2417c", "#7d5ba6", "#4f772d", "#8c564b", "#17202a")
DASHES = {"line": "solid", "dots": "solid", "dashes": "6 4"}
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ROOM_FOR_BARS = 0.15  # of the range of means: how far error bars may widen it
TOOLTIP = f"<div style='font: 13px sans-serif; color: {INK}'><b>@label</b><br>@unit @step: @text</div>"
NOW = "now"  # name of the line in every plot over time that moves with the slider

THEME = Theme(
    json={
        "attrs": {
            "Plot": {
                "background_fill_color": None,
                "border_fill_color": None,
                "outline_line_color": None,
                "min_border_left": 56,
                "min_border_right": 14,
                "min_border_top": 12,
            },
            "Axis": {
                "axis_line_color": LINE,
                "major_tick_line_color": LINE,
                "minor_tick_line_color": None,
                "major_label_text_font": FONT,
                "major_label_text_font_size": "12px",
                "major_label_text_color": MUTED,
                "axis_label_text_font": FONT,
                "axis_label_text_font_size": "13px",
                "axis_label_text_font_style": "normal",
                "axis_label_text_color": MUTED,
            },
            "Grid": {"grid_line_color": PALE},
        }
    }
)


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Args:
        label: HTML of the label's symbol is made by the template: "Phi", "G", "NTK" or a name as it is.
        layer: written as a superscript, or None.
        colour: of the mark.
        style: of the mark.
    """

    label: str
    layer: int | None
    colour: str
    style: str


@dataclass(frozen=True)
class Chart:
    """An interactive plot with what is written around it.

    Args:
        title: above it.
        plot: the Bokeh figure.
        keys: its legend.
        note: below it.
    """

    title: str
    plot: Any
    keys: tuple[Key, ...] = ()
    note: str = ""


def plot(last_step: int, ylabel: str, height: int = 300, log: bool = False, unit: str = "step") -> Any:
    """An empty plot over the steps of training, with the line that moves with the slider.

    Args:
        last_step: end of the horizontal axis.
        ylabel: of the vertical axis.
        height: in CSS pixels; the width is that of the page.
        log: a logarithmic vertical axis.
        unit: "step" or "epoch".

    Returns:
        Bokeh figure.
    """
    room = 0.02 * max(1, last_step)
    out = bare(ylabel, height, (-room, max(1, last_step) + room), log)
    out.xaxis.axis_label = "gradient-descent step" if unit == "step" else unit
    out.add_layout(
        Span(name=NOW, location=last_step, dimension="height", line_color="#b6bec6", line_width=1.5, level="underlay")
    )
    out.add_tools(CrosshairTool(dimensions="height", line_color=LINE, line_alpha=0.8))
    return out


def bare(ylabel: str, height: int, x_range: tuple[float, float], log: bool = False) -> Any:
    """An empty plot; it has no tools but hovering, so that dragging on it scrolls the page."""
    out = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=Range1d(start=x_range[0], end=x_range[1]),
        y_range=Range1d(start=0.1, end=1.0),
        y_axis_type="log" if log else "linear",
        tools="",
        toolbar_location=None,
    )
    out.yaxis.axis_label = ylabel
    return out


def curve(
    axes: Any,
    steps: np.ndarray,
    estimate: Estimate,
    colour: str,
    style: Style,
    label: str,
    dash: str | None = None,
    many: bool = False,
) -> None:
    """An estimate over steps with its 95 % interval: a line with a band, or dots with error bars.

    Args:
        axes: Bokeh figure, on which values that are not finite (or positive, if it is logarithmic) are left out.
        steps: (n,).
        estimate: (n,).
        colour: CSS.
        style: "line", "dashes" or "dots".
        label: in the tooltip.
        dash: pattern of the line, instead of that of the style.
        many: among many curves, so that only the one pointed at tells its value.
    """
    mean, low, high = (np.where(np.isfinite(each), each, np.nan) for each in (estimate.mean, *estimate.interval(0.95)))
    bars = np.isfinite(low) & (high > low)
    texts = [_text(*numbers) for numbers in zip(mean, low, high, strict=True)]
    if isinstance(axes.yaxis[0], LogAxis):
        mean, high = (np.where(each > 0, each, np.nan) for each in (mean, high))
        low = np.where(low > 0, low, np.minimum(mean, high) * 1e-3)  # down to the end of the axis
    unit = axes.xaxis[0].axis_label.rpartition(" ")[2]
    labels, units = ([text] * len(steps) for text in (label, unit))
    columns = {"step": steps, "mean": mean, "text": texts, "label": labels, "unit": units}
    source = ColumnDataSource(columns)
    if bars.any():
        _interval(axes, steps[bars], low[bars], high[bars], colour, style)
    if style == "dots":
        look = {"size": 7, "line_color": colour, "fill_color": "white", "line_width": 1.6}
        mark = axes.scatter("step", "mean", source=source, **look)
    else:
        pattern = dash or DASHES[style]
        mark = axes.line("step", "mean", source=source, line_color=colour, line_width=2.2, line_dash=pattern)
    mode = "mouse" if many or style == "dots" else "vline"
    axes.add_tools(HoverTool(renderers=[mark], tooltips=TOOLTIP, mode=mode, line_policy="nearest", visible=False))


def _interval(axes: Any, steps: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, style: Style) -> None:
    """A band, or error bars for dots."""
    source = ColumnDataSource({"step": steps, "low": low, "high": high})
    if style != "dots":
        axes.varea("step", "low", "high", source=source, fill_color=colour, fill_alpha=0.2)
        return
    look: dict[str, Any] = {"level": "underlay", "line_color": colour, "line_width": 1.4}
    whisker: Any = Whisker(base="step", lower="low", upper="high", source=source, **look)
    for head in (whisker.lower_head, whisker.upper_head):
        head.update(size=6, line_color=colour)
    axes.add_layout(whisker)


def fit(axes: Any, estimates: Sequence[Estimate], log: bool = False) -> None:
    """Set the vertical range so that it shows all means, and of their intervals as much as does not dwarf them.

    Args:
        axes: Bokeh figure.
        estimates: of any shape; values that are not finite are left out.
        log: leave out what is not positive, and the intervals.
    """
    every = np.concatenate([np.ravel(each.mean) for each in estimates])
    every = every[np.isfinite(every) & ((every > 0) if log else True)]
    if every.size and not log:
        room = ROOM_FOR_BARS * np.ptp(every)
        ends = np.concatenate([np.ravel(end) for each in estimates for end in each.interval(0.95)])
        every = np.append(every, np.clip(ends[np.isfinite(ends)], every.min() - room, every.max() + room))
    if not every.size:
        every = np.array([0.1, 1.0])
    low, high = float(every.min()), float(every.max())
    if log:
        room = max((high / low) ** 0.06, 1.15)
        axes.y_range.update(start=low / room, end=high * room)
    else:
        room = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
        axes.y_range.update(start=low - room, end=high + room)


def symbol(kernel: str, layer: int | None) -> str:
    """Name of a kernel in plain text, with a superscript."""
    letter = {"Phi": "Φ", "G": "G"}.get(kernel, kernel)
    return letter if layer is None else letter + str(layer).translate(SUPERSCRIPTS)


def _text(mean: float, low: float, high: float) -> str:
    interval = f" (95 %: {between(low, high)})" if np.isfinite(low) and high > low else ""
    return plain(mean, 4) + interval
