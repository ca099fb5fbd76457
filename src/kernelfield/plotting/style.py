"""Colours, empty figures, headings and legends, and figures as files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.common.atomic_files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LAZY, RICH, NEUTRAL = "#2a78b5", "#d1495b", "#5c6670"
SERIES = (RICH, LAZY, "#e0a030", "#2f8f6b", "#6a4c93", NEUTRAL)
KERNEL_COLOURS, TIME_COLOURS = "RdBu_r", "magma"
BOLD: dict[str, Any] = {"fontsize": 12, "fontweight": "bold"}
OPEN_MARKS: dict[str, Any] = {"ms": 6, "mfc": "white", "mew": 1.8, "capsize": 2.5, "zorder": 3}


def shades(count: int) -> list[Any]:
    """Returns `count` matplotlib colours for a quantity that grows, from cold to warm."""
    from matplotlib import colormaps

    return [colormaps["plasma"](0.05 + 0.8 * place) for place in np.linspace(0, 1, count)]


def thin(count: int, most: int) -> np.ndarray:
    """Returns integers in range(count), equally spaced with both ends: all of them, or `most`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def new_figure(
    width: float, height: float, dpi: int = 130, h_pad: float | None = None, w_pad: float | None = None
) -> Figure:
    """Returns an empty figure of a width and height in inches, with pads around its panels in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=h_pad, w_pad=w_pad)
    return Figure((width, height), dpi=dpi, layout=layout, facecolor="white")


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a path that ends in .png, .pdf or .svg: the whole file or nothing."""
    with whole_file(path) as beside:
        figure.savefig(beside)


def plain(axes: Axes) -> None:
    """Draws a light grid, and hides the frame above and to the right of matplotlib axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)


def heading(part: Axes | SubFigure, text: str) -> None:
    """Writes a bold heading at the upper left of matplotlib axes, or of a subfigure."""
    from matplotlib.figure import FigureBase

    if isinstance(part, FigureBase):
        part.suptitle(text, x=0.03, ha="left", **BOLD)
    else:
        part.set_title(text, loc="left", **BOLD)


def legend_above(figure: Figure, panels: Iterable[Axes], labels: Iterable[str] = ()) -> None:
    """Writes one legend above all panels, every label once; `labels` sets their order, and may hold other labels."""
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    known = [label for label in labels or handles if label in handles]
    if known:
        lines = [handles[label] for label in known]
        figure.legend(lines, known, loc="outside upper center", ncols=6, frameon=False)
