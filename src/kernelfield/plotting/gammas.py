"""A sweep over gamma0 as a figure: alignment of every method with the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelfield.sweeps.gammas import QUANTITIES, Point, worst_alignment

TITLES = {"predictions": "predictions $f$", "Phi": "$\\Phi$, worst layer", "G": "$G$, worst layer", "NTK": "NTK"}


def draw(points: Sequence[Point]) -> Any:
    """Alignment over all of training against gamma0: a row for each reference, a column for each quantity.

    Args:
        points: of a sweep, at least one.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    from kernelfield import plotting

    if not points:
        raise ValueError("no point of the sweep was done")
    names = list(points[0].solutions)
    references = list(dict.fromkeys(reference for reference, _ in points[0].comparisons))
    figure: Any = Figure(figsize=(13, 3.1 * len(references) + 0.9), dpi=130, layout="constrained", facecolor="white")
    grid = figure.subplots(len(references), len(QUANTITIES), sharex=True, sharey="row", squeeze=False)
    gammas = np.array([point.gamma0 for point in points])
    for row, reference in zip(grid, references, strict=True):
        lowest = 1.0
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            for number, name in enumerate(names):
                found = [
                    worst_alignment(point.comparisons[reference, name], quantity) if name != reference else None
                    for point in points
                ]
                kept = np.array([each is not None for each in found])
                if kept.any():
                    values, errors = np.array([each for each in found if each is not None]).T
                    plotting.alignments(axes, gammas[kept], values, errors, plotting.SERIES[number], name, "-")
                    lowest = min(lowest, float(np.nanmin(values)))
            axes.set_title(TITLES[quantity], fontsize=11)
            axes.grid(alpha=0.25, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        plotting.alignment_scale(row[0], min(lowest - 0.2, 0.8), 1 - 1e-5)
        row[0].set_ylabel(f"alignment with\n{reference}")
    for axes in grid[-1]:
        axes.set_xlabel("feature learning $\\gamma_0$")
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure
