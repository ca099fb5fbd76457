"""A sweep over gamma0 as a figure: alignment of every method with the references."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import plotting
from kernelfield.sweeps.gammas import QUANTITIES, Point, worst_alignment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"predictions": "predictions $f$", "Phi": "$\\Phi$, worst layer", "G": "$G$, worst layer", "NTK": "NTK"}


def draw(points: Sequence[Point]) -> Figure:
    """Returns a figure of alignments against gamma0, with a row for each reference and a column for each quantity.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("no point of the sweep was done")
    colours = dict(zip(points[0].solutions, cycle(plotting.SERIES), strict=False))
    references = list(dict.fromkeys(reference for reference, _ in points[0].comparisons))
    figure = plotting.new_figure(13, 3.1 * len(references) + 0.9)
    grid = figure.subplots(len(references), len(QUANTITIES), sharex=True, sharey="row", squeeze=False)
    for row, reference in zip(grid, references, strict=True):
        lowest = 1.0
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            for name in (name for name in colours if name != reference):
                worst = ((point, worst_alignment(point.comparisons[reference, name], quantity)) for point in points)
                known = [(point.gamma0, *alignment) for point, alignment in worst if alignment is not None]
                if known:
                    gammas, values, errors = np.array(known).T
                    plotting.alignments(axes, gammas, values, errors, colours[name], name, "-")
                    lowest = min(lowest, float(np.nanmin(values)))
            axes.set_title(TITLES[quantity], fontsize=11)
            plotting.plain(axes)
        plotting.alignment_scale(row[0], min(lowest - 0.2, 0.8), 1 - 1e-5)
        row[0].set_ylabel(f"alignment with\n{reference}")
    for axes in grid[-1]:
        axes.set_xlabel("feature learning $\\gamma_0$")
    plotting.legend_above(figure, grid.flat)
    return figure
