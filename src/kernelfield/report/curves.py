"""Curves over training: loss, alignment with the targets, movement of kernels, spectrum of the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bokeh.palettes import Viridis256

from kernelfield import observables
from kernelfield.report.result import Result
from kernelfield.report.style import INK, LAYERS, Chart, Key, curve, fit, plot, symbol
from kernelfield.solution.estimate import Estimate

MOST_EIGENVALUES = 8
SMALLEST_EIGENVALUE = 1e-6  # relative to the largest
DECADES = 12  # of a loss


def loss_chart(results: Sequence[Result]) -> Chart:
    """Training loss of every result, and the loss on test points if there are any.

    Args:
        results: the main one first.

    Returns:
        Chart with a logarithmic axis.
    """
    axes, keys, shown = plot(_last(results), "loss", log=True, height=340, unit=results[0].unit), [], []
    tests = bool((results[0].solution.problem.weights == 0).any())
    for result in results:
        steps = result.steps
        for points in ("train", "test") if tests else ("train",):
            estimate = _part(observables.loss(result.solution, points), steps)
            name = f"{result.name}, test" if points == "test" else result.name
            dash = "2 3" if points == "test" else None
            style = "dashes" if points == "test" else result.style
            curve(axes, steps, estimate, result.colour, style, name, dash=dash)
            keys.append(Key(name, None, result.colour, "dotted" if points == "test" else style))
            shown.append(estimate)
    top = max(float(np.nanmax(each.mean, initial=0)) for each in shown)
    visible = [np.where(each.mean > top * 10.0**-DECADES, each.mean, np.nan)[None] for each in shown]
    fit(axes, [Estimate(each) for each in visible], log=True)
    return Chart("Loss", axes, tuple(keys))


def alignment_charts(results: Sequence[Result]) -> list[Chart]:
    """Alignment with the targets of every kernel: one chart of feature kernels, one of G and the NTK.

    Args:
        results: the main one first.

    Returns:
        Charts; none if the main result tracked no kernels.
    """
    titles = {"Phi": "Alignment of feature kernels with the targets", "G": "Alignment of G and the tangent kernel"}
    return _kernel_charts(results, observables.kernel_alignment, titles, "alignment A(K, y yᵀ)")


def movement_charts(results: Sequence[Result]) -> list[Chart]:
    """How far training moved every kernel: one chart of feature kernels, one of G and the NTK.

    Args:
        results: the main one first.

    Returns:
        Charts; none if the main result tracked no kernels.
    """
    titles = {"Phi": "Movement of feature kernels", "G": "Movement of G and the tangent kernel"}
    return _kernel_charts(results, observables.kernel_movement, titles, "|K(t) − K(0)| / |K(0)|")


def spectrum_chart(results: Sequence[Result]) -> Chart | None:
    """The largest eigenvalues of the tangent kernel over training.

    Args:
        results: the main one first.

    Returns:
        Chart with a logarithmic axis; None if the main result has no tangent kernel.
    """
    if ("NTK", None) not in results[0].kernels:
        return None
    axes, shown, keys = plot(_last(results), "eigenvalue", log=True, unit=results[0].unit), [], []
    count = _eigenvalues_to_show(results[0])
    problem = results[0].solution.problem
    trained = int((problem.weights > 0).sum()) * (problem.outputs or 1)
    shades = [Viridis256[int(place)] for place in np.linspace(20, 205, count)]
    for result in results:
        if ("NTK", None) not in result.kernels:
            continue
        steps = result.kernel_steps
        spectrum = observables.ntk_spectrum(result.solution, t=steps)
        for place, shade in enumerate(shades):
            values = Estimate(spectrum.replicates[..., place], spectrum.exact)
            name = f"{result.name}: eigenvalue {place + 1}"
            curve(axes, steps, values, shade, result.style, name, many=True)
            shown.append(values)
        keys.append(Key(result.name, None, INK, result.style))
    fit(axes, shown, log=True)
    note = f"The {count} largest of {trained}, divided by the number of training points."
    return Chart("Spectrum of the tangent kernel", axes, tuple(keys) if len(keys) > 1 else (), note)


def _eigenvalues_to_show(main: Result) -> int:
    ends = [observables.ntk_spectrum(main.solution, t=step).mean for step in (0, main.solution.steps_done)]
    largest = np.maximum(*ends)[:MOST_EIGENVALUES]
    return max(1, int((largest > SMALLEST_EIGENVALUE * largest[0]).sum()))


def _kernel_charts(
    results: Sequence[Result], measure: Callable[..., Estimate], titles: dict[str, str], ylabel: str
) -> list[Chart]:
    """A measure of kernels over time, coloured by layer; results differ in style."""
    charts = []
    for first, title in titles.items():
        kinds = ("Phi",) if first == "Phi" else ("G", "NTK")
        kernels = [kernel for kernel in results[0].kernels if kernel[0] in kinds]
        if not kernels:
            continue
        axes, shown = plot(_last(results), ylabel, unit=results[0].unit), []
        for result in results:
            steps = result.kernel_steps
            for kernel, layer in (each for each in kernels if each in result.kernels):
                estimate = measure(result.solution, kernel, layer, t=steps)
                name = f"{symbol(kernel, layer)}, {result.name}" if len(results) > 1 else symbol(kernel, layer)
                curve(axes, steps, estimate, layer_colour(layer), result.style, name)
                shown.append(estimate)
        fit(axes, [*shown, Estimate(np.zeros((1, 1)))])
        charts.append(Chart(title, axes, tuple(_layer_keys(kernels, results))))
    return charts


def _layer_keys(kernels: Sequence[Any], results: Sequence[Result]) -> list[Key]:
    keys = [Key(kernel, layer, layer_colour(layer), "patch") for kernel, layer in kernels]
    return keys + [Key(result.name, None, INK, result.style) for result in results if len(results) > 1]


def layer_colour(layer: int | None) -> str:
    """Colour of a layer; the tangent kernel, which has none, is the colour of text."""
    return INK if layer is None else LAYERS[(layer - 1) % len(LAYERS)]


def _last(results: Sequence[Result]) -> int:
    return max(result.solution.steps_done for result in results)


def _part(estimate: Estimate, steps: np.ndarray) -> Estimate:
    return Estimate(estimate.replicates[:, steps], estimate.exact)
