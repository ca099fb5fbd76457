"""The charts: curves over training, and distributions of activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.palettes import Viridis256
from scipy.stats import norm

from kernelfield import observables
from kernelfield.observables import Field
from kernelfield.report import style
from kernelfield.report.result import Result
from kernelfield.report.style import Chart, Key, draw_curve, fit_range
from kernelfield.report.words import format_symbol
from kernelfield.solution.estimate import Estimate

MOST_EIGENVALUES = 8
SMALLEST_EIGENVALUE = 1e-6  # relative to the largest
BINS = 44
TAIL = 1e-3  # of samples that lie beyond either end of the axis, at most
MOST_STEPS = 24
NORMAL = "gaussian"  # in the name of the source of normal densities, where those of results have their number
FIELDS: dict[Field, str] = {"h": "preactivation h", "z": "pregradient z", "g": "gradient g = φ′(h) z"}
COLUMNS = ("x", "left", "right", "y")


def chart_loss(results: Sequence[Result]) -> Chart:
    """Returns a chart of the training loss of every result, and of the loss on test points if there are any."""
    plot, keys, losses = style.create_time_plot(results, "loss", log=True, height=340), [], []
    tests = bool((results[0].solution.problem.weights == 0).any())
    for result in results:
        for points in ("train", "test") if tests else ("train",):
            loss = observables.loss(result.solution, points)
            loss = Estimate(loss.replicates[:, result.steps], loss.exact)
            name, line = (f"{result.name}, test", "dotted") if points == "test" else (result.name, result.style)
            draw_curve(plot, result.steps, loss, result.colour, line, name)
            keys.append(Key(name, result.colour, line))
            losses.append(loss)
    fit_range(plot, losses, log=True)
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
    plot, spectra, keys = style.create_time_plot(results, "eigenvalue", log=True), [], []
    ends = [0, results[0].solution.steps_done]
    largest = observables.ntk_spectrum(results[0].solution, t=ends).mean.max(axis=0)[:MOST_EIGENVALUES]
    count = max(1, int((largest > SMALLEST_EIGENVALUE * largest[0]).sum()))
    shades = [Viridis256[int(place)] for place in np.linspace(20, 205, count)]
    for result in (result for result in results if ("NTK", None) in result.kernels):
        spectrum = observables.ntk_spectrum(result.solution, t=result.kernel_steps)
        for place, shade in enumerate(shades):
            eigenvalue = Estimate(spectrum.replicates[..., place], spectrum.exact)
            name = f"{result.name}: eigenvalue {place + 1}"
            draw_curve(plot, result.kernel_steps, eigenvalue, shade, result.style, name, many=True)
            spectra.append(eigenvalue)
        keys.append(Key(result.name, style.INK, result.style))
    fit_range(plot, spectra, log=True)
    problem = results[0].solution.problem
    trained = int((problem.weights > 0).sum()) * problem.outputs
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
        plot, estimates = style.create_time_plot(results, ylabel), [Estimate(np.zeros((1, 1)))]
        for result in results:
            steps = result.kernel_steps
            for kind, layer in (kernel for kernel in kernels if kernel in result.kernels):
                estimate = measure(result.solution, kind, layer, t=steps)
                name = format_symbol(kind, layer) + (f", {result.name}" if len(results) > 1 else "")
                draw_curve(plot, steps, estimate, _layer_colour(layer), result.style, name)
                estimates.append(estimate)
        fit_range(plot, estimates)
        keys = [Key(format_symbol(kind, layer), _layer_colour(layer), "patch") for kind, layer in kernels]
        keys += [Key(result.name, style.INK, result.style) for result in results if len(results) > 1]
        charts.append(Chart(title, plot, keys))
    return charts


def _layer_colour(layer: int | None) -> str:
    """Returns the colour of a layer; that of text for the tangent kernel, which has none."""
    return style.INK if layer is None else style.LAYERS[(layer - 1) % len(style.LAYERS)]


# --- distributions over neurons: infinite width as a line, finite width as a histogram


def chart_densities(results: Sequence[Result]) -> tuple[list[Chart], dict[str, Any] | None]:
    """Returns a chart of the last recorded step for each hidden layer, and JSON values for their controls.

    The values are "steps", "fields" (name -> what it is), "layers", and "curves" (field -> layer -> "range", "top" and
    step -> columns of every source). They are None if the main result recorded no fields.
    """
    recorded = results[0].solution.field_samples
    if not recorded:
        return [], None
    layers = sorted({layer for layer, _ in recorded})
    steps = sorted({step for _, step in recorded})[-MOST_STEPS:]
    fields: list[Field] = [name for name in FIELDS if all(name in recorded[layer, steps[-1]] for layer in layers)]
    curves = {field: {layer: _measure_curves(results, field, layer, steps) for layer in layers} for field in fields}
    charts = [_draw_chart(results, layer, curves[fields[0]][layer], steps[-1]) for layer in layers]
    titles = {name: FIELDS[name] for name in fields}
    return charts, {"steps": steps, "fields": titles, "layers": layers, "curves": curves}


def _measure_curves(results: Sequence[Result], field: Field, layer: int, steps: Sequence[int]) -> dict[str, Any]:
    """Returns the densities of one field and layer at every step, on the same bins."""
    samples = {
        (result, step): result.solution.field_samples[layer, step][field]
        for step in steps
        for result in results
        if field in result.solution.field_samples.get((layer, step), {})
    }
    ends = np.array([np.quantile(values, [TAIL, 1 - TAIL]) for values in samples.values()])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    room = 0.05 * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, BINS + 1)
    curves: dict[int, dict[str, dict[str, list[float]]]] = {step: {} for step in steps}
    for (result, step), values in samples.items():
        density = observables.activation_density(result.solution, layer, field, t=step, edges=edges)
        curves[step][f"density-{layer}-{result.number}"] = _round_columns(edges, density.density.mean)
        if field in ("h", "z") and result.number == 0:
            curves[step][f"density-{layer}-{NORMAL}"] = _round_columns(edges, _normal(values, density.centres))
    top = _choose_top([columns["y"] for sources in curves.values() for columns in sources.values()])
    return {"range": [edges[0], edges[-1]], "top": top, "at": curves}


def _round_columns(edges: np.ndarray, density: np.ndarray) -> dict[str, list[float]]:
    columns = (edges[1:] + edges[:-1]) / 2, edges[:-1], edges[1:], density
    rounded = ([float(f"{value:.4g}") for value in column] for column in columns)
    return dict(zip(COLUMNS, rounded, strict=True))


def _normal(samples: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the mean over points of normal densities at x, of mean and variance of their samples (R, P, neurons)."""
    values = samples.astype(np.float64)
    mean, deviation = values.mean(axis=(0, 2)), values.std(axis=(0, 2))
    varies = deviation > 0
    return norm.pdf(x, mean[varies, None], deviation[varies, None]).sum(axis=0) / len(mean)


def _choose_top(curves: Sequence[Sequence[float]]) -> float:
    """Returns the end of the density axis, which cuts off a single bin far above all others, as of many zeros."""
    highest = max(max(curve) for curve in curves)
    second = max(sorted(curve)[-2] for curve in curves)
    return 1.08 * (highest if highest < 2.5 * second else 1.3 * second) or 1.0


def _draw_chart(results: Sequence[Result], layer: int, curves: dict[str, Any], step: int) -> Chart:
    plot = style.create_plot("density", 250, tuple(curves["range"]))
    plot.update(name=f"density-{layer}")
    plot.y_range.update(start=0, end=curves["top"])
    plot.ygrid.visible = False

    def source(curve: int | str) -> ColumnDataSource:
        name = f"density-{layer}-{curve}"
        return ColumnDataSource(curves["at"][step].get(name, {column: [] for column in COLUMNS}), name=name)

    keys = []
    for result in sorted(results, key=lambda result: not result.finite):  # lines above histograms
        look: dict[str, Any] = {"source": source(result.number)}
        if result.finite:
            look |= {"fill_color": result.colour, "fill_alpha": 0.28, "line_color": "white", "line_width": 0.6}
            plot.quad("left", "right", "y", 0, **look)
        else:
            look |= {"line_color": result.colour, "line_width": 2.2, "line_dash": style.DASHES[result.style]}
            plot.line("x", "y", **look)
        keys.append(Key(result.name, result.colour, "bars" if result.finite else result.style))
    plot.line("x", "y", source=source(NORMAL), line_color=style.MUTED, line_width=1.4, line_dash=style.DASHES["dotted"])
    keys.append(Key("Gaussian, same mean and variance of every point", style.MUTED, "dotted"))
    return Chart(f"Layer {layer}", plot, keys)
