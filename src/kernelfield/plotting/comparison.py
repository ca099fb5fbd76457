"""Solutions side by side in one figure: losses, final kernels, kernels in time, alignment with a reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from kernelfield.finite.method import FiniteWidth
from kernelfield.observables import two_time_kernel
from kernelfield.observables.compare import Comparison, Row, check_comparable, compare_all
from kernelfield.observables.groups import by_target
from kernelfield.solution.solution import Solution

HEADING: dict[str, Any] = {"fontsize": 12, "fontweight": "bold"}
MOST_BEYOND = 1.5  # colour scales end at so many times the largest entry of the reference
MOST_CLASSES = 10  # more different targets are no classes


def draw(
    solutions: Mapping[str, Solution],
    reference: str | None = None,
    comparisons: Mapping[str, Comparison] | None = None,
) -> Any:
    """Loss curves; alignment with a reference; kernels of the last layer between samples and between times.

    Finite networks are dots, all other methods lines, with 95 % intervals; kernels are means over replicates.

    Args:
        solutions: by name, about six at most, of one problem, depth and training.
        reference: name of the solution that the others are compared with; no alignments if None.
        comparisons: of the others with the reference, by name; computed if None.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: the solutions differ in problem, depth or training, or `reference` is none of them.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.plotting.comparison import draw
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> rich, lazy = (kf.solve(kf.MLP(depth=1, activation="linear", gamma0=gamma0), problem, training)
        ...               for gamma0 in (1.0, 0.1))
        >>> figure = draw({"lazy": lazy, "rich": rich}, reference="rich")
        >>> len(figure.axes)  # two of curves, two rows of two kernels with their colour bars
        8
    """
    if not solutions:
        raise ValueError("at least one solution is needed to draw")
    if reference is not None and reference not in solutions:
        raise ValueError(f"reference must be one of {', '.join(solutions)}, got {reference}")
    first = next(iter(solutions.values()))
    for solution in solutions.values():
        check_comparable(solution, first)
    found: dict[str, Comparison] = {}
    if reference is not None:
        others = {name: solution for name, solution in solutions.items() if name != reference}
        found = (
            {name: comparisons[name] for name in others} if comparisons else compare_all(others, solutions[reference])
        )
    kernels = {name: solution for name, solution in solutions.items() if solution.hidden("Phi")}

    above, *below = _parts(len(kernels))
    places = above.subplots(1, 2 if found else 1, squeeze=False)[0]
    _draw_losses(places[0], solutions)
    if found:
        _draw_alignments(places[1], found, list(solutions), cast(str, reference))
    columns = 3 if sum(map(len, solutions)) > 90 else 6
    above.legend(*places[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)
    if kernels:
        colours = {name: _colour(number) for number, name in enumerate(solutions)}
        _draw_final_kernels(below[0], kernels, colours, reference)
        _draw_two_time_kernels(below[1], kernels, colours, reference)
    return above.figure


def _parts(panels: int) -> list[Any]:
    """Subfigures of a new figure: for curves, and for two rows of so many panels (beside each other if few)."""
    from matplotlib.figure import Figure

    width = max(12.0, 2.2 * panels + 1.5)
    beside = panels <= 2
    across = width - 3.4 if beside else width - 1.7  # inches left for panels by what is written around them
    side = min(2.8, across / max(1, 2 * panels if beside else panels))
    heights = [4.4] if panels == 0 else [4.4, side + 1.2] if beside else [4.4, side + 0.9, side + 1.2]
    figure: Any = Figure(figsize=(width, sum(heights)), dpi=130, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.1)
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if panels and beside:
        parts[1:] = parts[1].subfigures(1, 2)
    return parts


def _draw_losses(axes: Any, solutions: Mapping[str, Solution]) -> None:
    from kernelfield import plotting

    for number, (name, solution) in enumerate(solutions.items()):
        curve = plotting.loss_dots if isinstance(solution.method, FiniteWidth) else plotting.loss_curve
        curve(axes, solution, _colour(number), _shortened(name))
    steps = max(solution.steps_done for solution in solutions.values())
    axes.set(xlabel=_unit(solutions), ylabel="training loss", yscale="log", xlim=(-0.015 * steps, 1.015 * steps))
    axes.set_title("Loss, with 95 % intervals", loc="left", **HEADING)
    _plain(axes)


def _draw_alignments(axes: Any, found: Mapping[str, Comparison], names: list[str], reference: str) -> None:
    from kernelfield import plotting

    labels = list(dict.fromkeys(_symbol(row) for each in found.values() for row in each.rows))
    offsets = min(0.16, 0.75 / len(found)) * (np.arange(len(found)) - (len(found) - 1) / 2)
    for offset, (name, each) in zip(offsets, found.items(), strict=True):
        rows = [row for row in each.rows if row.times == "all"]
        plotting.alignments(
            axes,
            np.array([labels.index(_symbol(row)) for row in rows]) + offset,
            np.array([row.alignment for row in rows]),
            np.array([row.alignment_se for row in rows]),
            _colour(names.index(name)),
        )
    axes.set_xticks(range(len(labels)), labels)
    apart = 1 - np.array([row.alignment for each in found.values() for row in each.rows if row.times == "all"])
    apart = np.clip(apart[np.isfinite(apart)], plotting.NEAREST, 2)
    if apart.size:
        plotting.alignment_scale(axes, 1 - max(1.2, 2 * apart.max()), 1 - min(0.05, apart.min() / 2))
    axes.set_ylabel("alignment, with standard errors")
    axes.set_title(f"Alignment with {_shortened(reference)}", loc="left", **HEADING)
    _plain(axes)


def _draw_final_kernels(
    figure: Any, solutions: Mapping[str, Solution], colours: Mapping[str, str], reference: str | None
) -> None:
    from kernelfield import plotting

    first = next(iter(solutions.values()))
    layer, by_class = first.hidden("Phi")[-1], by_target(first.problem)
    order, groups = by_class.order, by_class.most(MOST_CLASSES)
    panels = {name: solution.feature_kernel(layer)[np.ix_(order, order)] for name, solution in solutions.items()}
    sizes = {name: float(np.abs(panel).max()) for name, panel in panels.items()}
    limit = min(max(sizes.values()), MOST_BEYOND * sizes.get(reference or "", np.inf))
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    images = [
        plotting.kernel_matrix(axes, panel, limit, _wrapped(name), groups)
        for axes, (name, panel) in zip(places, panels.items(), strict=True)
    ]
    if len(by_class.names) <= MOST_CLASSES:
        plotting.class_labels(places[0], by_class.names, groups)
    _finish(figure, places, panels, colours, f"Kernel of layer {layer} after training, samples ordered by target")
    figure.colorbar(images[0], ax=places, label=f"$\\Phi^{{{layer}}}$", shrink=0.85, aspect=14, pad=0.015)


def _draw_two_time_kernels(
    figure: Any, solutions: Mapping[str, Solution], colours: Mapping[str, str], reference: str | None
) -> None:
    from kernelfield import plotting

    layer = next(iter(solutions.values())).hidden("Phi")[-1]
    panels = {name: two_time_kernel(solution, "Phi", layer, "all").mean for name, solution in solutions.items()}
    highest = MOST_BEYOND * panels[reference].max() if reference in panels else np.inf
    bounds = min(panel.min() for panel in panels.values()), min(highest, max(panel.max() for panel in panels.values()))
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    images = [
        plotting.two_time_matrix(axes, panel, bounds, _wrapped(name))
        for axes, (name, panel) in zip(places, panels.items(), strict=True)
    ]
    unit = _unit(solutions)
    places[0].set_ylabel(f"{unit} $t$")
    for axes in places:
        axes.set_xlabel(f"{unit} $s$")
        axes.tick_params(labelleft=axes is places[0])
    _finish(figure, places, panels, colours, f"Kernel of layer {layer} between {unit}s, mean over samples")
    label = f"mean of $\\Phi^{{{layer}}}_{{\\mu\\mu}}(t, s)$"
    figure.colorbar(images[0], ax=places, label=label, shrink=0.85, aspect=14, pad=0.015)


def _unit(solutions: Mapping[str, Solution]) -> str:
    return "epoch" if any(each.training.unit == "epoch" for each in solutions.values()) else "step"


def _finish(figure: Any, places: Any, names: Iterable[str], colours: Mapping[str, str], text: str) -> None:
    """A heading, and titles in the colours of the curves."""
    for axes, name in zip(places, names, strict=True):
        axes.title.set_color(colours[name])
    figure.suptitle(text, x=0.03, ha="left", **HEADING)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)


def _symbol(row: Row) -> str:
    names = {"predictions": "$f$", "NTK": "NTK", "Phi": f"$\\Phi^{{{row.layer}}}$", "G": f"$G^{{{row.layer}}}$"}
    return names[row.quantity]


def _colour(number: int) -> str:
    from kernelfield.plotting import SERIES

    return SERIES[number % len(SERIES)]


def _shortened(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(_shortened(name), 20))
