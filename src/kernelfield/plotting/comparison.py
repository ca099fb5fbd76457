"""Solutions side by side in one figure: losses, final kernels, kernels in time, alignment with a reference."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import plotting
from kernelfield.finite.method import FiniteWidth
from kernelfield.observables import two_time_kernel
from kernelfield.observables.comparable import check_comparable
from kernelfield.observables.compare import Comparison, Row, compare_all
from kernelfield.observables.groups import by_target
from kernelfield.plotting.matrices import MOST_CLASSES
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

MOST_BEYOND = 1.5  # colour scales end at so many times the largest entry of the reference
MOST_LETTERS = 40  # of a name


def draw(
    solutions: Mapping[str, Solution], reference: str | None = None, comparisons: Mapping[str, Comparison] | None = None
) -> Figure:
    """Returns a figure of losses, alignments with a reference, and kernels of the last layer.

    Finite networks are dots and all other methods lines, with 95 % intervals. Kernels are means over replicates,
    between samples and between times.

    Args:
        solutions: by name, about six at most, of one problem, depth and training.
        reference: name of the solution that the others are compared with; no alignments if None.
        comparisons: of the others with the reference, by name; computed if None.

    Raises:
        ValueError: the solutions differ in problem, depth or training, or `reference` is none of them.
    """
    if not solutions:
        raise ValueError("at least one solution is needed to draw")
    if reference is not None and reference not in solutions:
        raise ValueError(f"reference must be one of {', '.join(solutions)}, got {reference}")
    first = next(iter(solutions.values()))
    for solution in solutions.values():
        check_comparable(solution, first)
    if reference is not None and comparisons is None:
        others = {name: solution for name, solution in solutions.items() if name != reference}
        comparisons = compare_all(others, solutions[reference])
    kernels = {name: solution for name, solution in solutions.items() if solution.with_both_ends().hidden("Phi")}
    colours = dict(zip(solutions, cycle(plotting.SERIES), strict=False))

    figure, (above, *below) = _divide_figure(len(kernels))
    places = above.subplots(1, 2 if comparisons else 1, squeeze=False)[0]
    _draw_losses(places[0], solutions, colours)
    if comparisons:
        _draw_alignments(places[1], comparisons, colours, str(reference))
    columns = 3 if sum(map(len, solutions)) > 90 else 6
    above.legend(*places[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)
    if kernels:
        _draw_final_kernels(below[0], kernels, colours, reference)
        _draw_two_time_kernels(below[1], kernels, colours, reference)
    return figure


def _divide_figure(panels: int) -> tuple[Figure, list[SubFigure]]:
    """Returns a figure and its parts: one for curves, and two for so many kernels each, beside each other if few."""
    width = max(12.0, 2.2 * panels + 1.5)
    beside = panels <= 2
    across = width - 3.4 if beside else width - 1.7  # inches left for panels by what is written around them
    side = min(2.8, across / max(1, 2 * panels if beside else panels))
    heights = [4.4] if panels == 0 else [4.4, side + 1.2] if beside else [4.4, side + 0.9, side + 1.2]
    figure = plotting.new_figure(width, sum(heights), h_pad=0.08, w_pad=0.1)
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    return figure, [parts[0], *parts[1].subfigures(1, 2)] if panels and beside else parts


def _draw_losses(axes: Axes, solutions: Mapping[str, Solution], colours: Mapping[str, str]) -> None:
    for name, solution in solutions.items():
        curve = plotting.loss_dots if isinstance(solution.method, FiniteWidth) else plotting.loss_curve
        curve(axes, solution, colours[name], _shorten(name))
    steps = max(solution.steps_done for solution in solutions.values())
    axes.set(xlabel=_unit(solutions), ylabel="training loss", yscale="log", xlim=(-0.015 * steps, 1.015 * steps))
    plotting.heading(axes, "Loss, with 95 % intervals")
    plotting.plain(axes)


def _draw_alignments(
    axes: Axes, comparisons: Mapping[str, Comparison], colours: Mapping[str, str], reference: str
) -> None:
    tables = {name: [row for row in comparison.rows if row.times == "all"] for name, comparison in comparisons.items()}
    labels = list(dict.fromkeys(_symbol(row) for rows in tables.values() for row in rows))
    offsets = min(0.16, 0.75 / len(tables)) * (np.arange(len(tables)) - (len(tables) - 1) / 2)
    apart = np.array([1 - row.alignment for rows in tables.values() for row in rows])
    for offset, (name, rows) in zip(offsets, tables.items(), strict=True):
        places = np.array([labels.index(_symbol(row)) for row in rows]) + offset
        values, errors = np.array([(row.alignment, row.alignment_se) for row in rows]).T
        plotting.alignments(axes, places, values, errors, colours[name])
    axes.set_xticks(range(len(labels)), labels)
    apart = np.clip(apart[np.isfinite(apart)], plotting.NEAREST, 2)
    if apart.size:
        plotting.alignment_scale(axes, 1 - max(1.2, 2 * apart.max()), 1 - min(0.05, apart.min() / 2))
    axes.set_ylabel("alignment, with standard errors")
    plotting.heading(axes, f"Alignment with {_shorten(reference)}")
    plotting.plain(axes)


def _draw_final_kernels(
    figure: SubFigure, solutions: Mapping[str, Solution], colours: Mapping[str, str], reference: str | None
) -> None:
    first = next(iter(solutions.values()))
    layer, groups = first.hidden("Phi")[-1], by_target(first.problem)
    kernels = {name: solution.feature_kernel(layer) for name, solution in solutions.items()}
    sizes = {name: float(np.abs(kernel).max()) for name, kernel in kernels.items()}
    limit = min(max(sizes.values()), MOST_BEYOND * sizes.get(reference or "", np.inf))
    plotting.heading(figure, f"Kernel of layer {layer} after training, samples ordered by target")
    draw = partial(plotting.kernel_matrix_by_target, limit=limit, problem=first.problem)
    places = _draw_row(figure, kernels, colours, draw, f"$\\Phi^{{{layer}}}$")
    if len(groups.names) <= MOST_CLASSES:
        plotting.class_labels(places[0], groups.names, groups.counts)


def _draw_two_time_kernels(
    figure: SubFigure, solutions: Mapping[str, Solution], colours: Mapping[str, str], reference: str | None
) -> None:
    layer, unit = next(iter(solutions.values())).hidden("Phi")[-1], _unit(solutions)
    kernels = {name: two_time_kernel(solution, "Phi", layer, "all").mean for name, solution in solutions.items()}
    highest = max(kernel.max() for kernel in kernels.values())
    if reference in kernels:
        highest = min(highest, MOST_BEYOND * kernels[reference].max())
    bounds = min(kernel.min() for kernel in kernels.values()), highest
    plotting.heading(figure, f"Kernel of layer {layer} between {unit}s, mean over samples")
    draw = partial(plotting.two_time_matrix, bounds=bounds)
    places = _draw_row(figure, kernels, colours, draw, f"mean of $\\Phi^{{{layer}}}_{{\\mu\\mu}}(t, s)$")
    places[0].set_ylabel(f"{unit} $t$")
    for axes in places:
        axes.set_xlabel(f"{unit} $s$")
        axes.tick_params(labelleft=axes is places[0])


def _draw_row(
    figure: SubFigure,
    kernels: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    draw: Callable[..., AxesImage],
    label: str,
) -> Sequence[Axes]:
    """Draws kernels side by side, with titles in the colours of the curves and one colour bar; returns their axes."""
    places = figure.subplots(1, len(kernels), squeeze=False)[0]
    images = []
    for axes, (name, kernel) in zip(places, kernels.items(), strict=True):
        title = "\n".join(textwrap.wrap(_shorten(name), 20))
        images.append(draw(axes, kernel, title=title))
        axes.title.set_color(colours[name])
    figure.colorbar(images[0], ax=places, label=label, shrink=0.85, aspect=14, pad=0.015)
    return places


def _unit(solutions: Mapping[str, Solution]) -> str:
    return "epoch" if any(solution.training.unit == "epoch" for solution in solutions.values()) else "step"


def _symbol(row: Row) -> str:
    names = {"predictions": "$f$", "NTK": "NTK", "Phi": f"$\\Phi^{{{row.layer}}}$", "G": f"$G^{{{row.layer}}}$"}
    return names[row.quantity]


def _shorten(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
