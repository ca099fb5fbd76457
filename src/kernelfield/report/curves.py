"""Curves over training: loss, alignment with the targets, movement of kernels, spectrum of the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from bokeh.palettes import Viridis256

from kernelfield import observables
from kernelfield.report.result import Result
from kernelfield.report.style import INK, LAYERS, Chart, Key, create_time_plot, draw_curve, fit_range, format_symbol
from kernelfield.solution.estimate import Estimate

MOST_EIGENVALUES = 8
SMALLEST_EIGENVALUE = 1e-6  # relative to the largest
DECADES = 12  # of a loss


def chart_loss(results: Sequence[Result]) -> Chart:
    """Returns a chart of the training loss of every result, and of the loss on test points if there are any."""
    plot, keys, losses = create_time_plot(results, "loss", log=True, height=340), [], []
    tests = bool((results[0].solution.problem.weights == 0).any())
    for result in results:
        for points in ("train", "test") if tests else ("train",):
            loss = observables.loss(result.solution, points)
            loss = Estimate(loss.replicates[:, result.steps], loss.exact)
            name, style = (f"{result.name}, test", "dotted") if points == "test" else (result.name, result.style)
            draw_curve(plot, result.steps, loss, result.colour, style, name)
            keys.append(Key(name, None, result.colour, style))
            losses.append(loss)
    top = max(float(np.nanmax(loss.mean, initial=0)) for loss in losses)
    visible = [np.where(loss.mean > top * 10.0**-DECADES, loss.mean, np.nan)[None] for loss in losses]
    fit_range(plot, [Estimate(means) for means in visible], log=True)
    return Chart("Loss", plot, keys)


def chart_alignments(results: Sequence[Result]) -> list[Chart]:
    """Returns charts of the alignment of kernels with the targets: one of Phi, one of G and the NTK."""
    titles = {"Phi": "Alignment of feature kernels with the targets", "G": "Alignment of G and the tangent kernel"}
    return _chart_kernels(results, observables.kernel_alignment, titles, "alignment A(K, y yᵀ)")


def chart_movements(results: Sequence[Result]) -> list[Chart]:
    """Returns charts of how far training moved kernels: one of Phi, one of G and the NTK."""
    titles = {"Phi": "Movement of feature kernels", "G": "Movement of G and the tangent kernel"}
    return _chart_kernels(results, observables.kernel_movement, titles, "|K(t) − K(0)| / |K(0)|")


def chart_spectrum(results: Sequence[Result]) -> list[Chart]:
    """Returns a chart of the largest eigenvalues of the tangent kernel; none if the main result has no such kernel."""
    if ("NTK", None) not in results[0].kernels:
        return []
    plot, spectra, keys = create_time_plot(results, "eigenvalue", log=True), [], []
    ends = [0, results[0].solution.steps_done]
    largest = observables.ntk_spectrum(results[0].solution, t=ends).mean.max(axis=0)[:MOST_EIGENVALUES]
    count = max(1, int((largest > SMALLEST_EIGENVALUE * largest[0]).sum()))
    shades = [Viridis256[int(place)] for place in np.linspace(20, 205, count)]
    for result in results:
        if ("NTK", None) not in result.kernels:
            continue
        spectrum = observables.ntk_spectrum(result.solution, t=result.kernel_steps)
        for place, shade in enumerate(shades):
            eigenvalue = Estimate(spectrum.replicates[..., place], spectrum.exact)
            name = f"{result.name}: eigenvalue {place + 1}"
            draw_curve(plot, result.kernel_steps, eigenvalue, shade, result.style, name, many=True)
            spectra.append(eigenvalue)
        keys.append(Key(result.name, None, INK, result.style))
    fit_range(plot, spectra, log=True)
    problem = results[0].solution.problem
    trained = int((problem.weights > 0).sum()) * (problem.outputs or 1)
    note = f"The {count} largest of {trained}, divided by the number of training points."
    return [Chart("Spectrum of the tangent kernel", plot, keys if len(keys) > 1 else (), note)]


def _chart_kernels(
    results: Sequence[Result], measure: Callable[..., Estimate], titles: dict[str, str], ylabel: str
) -> list[Chart]:
    """Returns charts of a measure of kernels over time, coloured by layer; results differ in style."""
    charts = []
    for first, title in titles.items():
        kinds = ("Phi",) if first == "Phi" else ("G", "NTK")
        kernels = [kernel for kernel in results[0].kernels if kernel[0] in kinds]
        if not kernels:
            continue
        plot, estimates = create_time_plot(results, ylabel), [Estimate(np.zeros((1, 1)))]
        for result in results:
            steps = result.kernel_steps
            for kind, layer in (kernel for kernel in kernels if kernel in result.kernels):
                estimate = measure(result.solution, kind, layer, t=steps)
                name = format_symbol(kind, layer) + (f", {result.name}" if len(results) > 1 else "")
                draw_curve(plot, steps, estimate, _layer_colour(layer), result.style, name)
                estimates.append(estimate)
        fit_range(plot, estimates)
        keys = [Key(kind, layer, _layer_colour(layer), "patch") for kind, layer in kernels]
        keys += [Key(result.name, None, INK, result.style) for result in results if len(results) > 1]
        charts.append(Chart(title, plot, keys))
    return charts


def _layer_colour(layer: int | None) -> str:
    """Returns the colour of a layer; that of text for the tangent kernel, which has none."""
    return INK if layer is None else LAYERS[(layer - 1) % len(LAYERS)]
