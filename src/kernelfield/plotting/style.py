"""Colours, and figures as files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kernelfield.common.atomic_files import whole_file

Axes = Any
LAZY, RICH, NEUTRAL = "#2a78b5", "#d1495b", "#5c6670"
SERIES = (RICH, LAZY, "#e0a030", "#2f8f6b", "#6a4c93", NEUTRAL)
KERNEL_COLOURS, TIME_COLOURS = "RdBu_r", "magma"


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
    with whole_file(path) as beside:
        figure.savefig(beside)


def plain(axes: Axes) -> None:
    """A light grid, and no frame above and to the right.

    Args:
        axes: matplotlib axes.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
