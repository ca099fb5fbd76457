"""Distributions of activations at the recorded steps: infinite width as a line, finite width as a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from kernelfield import observables
from kernelfield.report.result import Result
from kernelfield.report.style import MUTED, Chart, Key, bare

BINS = 44
TAIL = 1e-3  # of samples that lie beyond either end of the axis, at most
MOST_STEPS = 24
NORMAL = "gaussian"  # name of the curve of normal densities
FIELDS = {"h": "preactivation h", "z": "pregradient z", "g": "gradient g = φ′(h) z"}


def densities(results: Sequence[Result]) -> tuple[list[Chart], dict[str, Any]] | None:
    """Charts, one for each hidden layer, and the data that their controls choose from.

    Args:
        results: the main one first.

    Returns:
        Charts of the last recorded step, and JSON values: "steps", "unit" of them, "fields" (name -> what it is),
        "layers", and "curves" (field -> layer -> "range", "top" and step -> columns of every source); None if the main
        result recorded no fields.
    """
    recorded = results[0].solution.field_samples
    if not recorded:
        return None
    layers = sorted({layer for layer, _ in recorded})
    steps = sorted({step for _, step in recorded})[-MOST_STEPS:]
    fields = [name for name in FIELDS if all(name in recorded[layer, steps[-1]] for layer in layers)]
    curves = {field: {layer: _curves(results, field, layer, steps) for layer in layers} for field in fields}
    charts = [_chart(results, layer, curves[fields[0]][layer], steps[-1]) for layer in layers]
    data = {
        "steps": steps,
        "unit": results[0].unit,
        "fields": {name: FIELDS[name] for name in fields},
        "layers": layers,
        "curves": curves,
    }
    return charts, data


def source_name(layer: int, which: int | str) -> str:
    """Name of the Bokeh source of a result, by its number, or of the normal densities."""
    return f"density-{layer}-{which}"


def _curves(results: Sequence[Result], field: Any, layer: int, steps: Sequence[int]) -> dict[str, Any]:
    """Densities of one field and layer at every step, on the same bins."""
    shown = [result for result in results if any(field in each for each in result.solution.field_samples.values())]
    values = [result.solution.field_samples[layer, step][field] for result in shown for step in steps
              if field in result.solution.field_samples.get((layer, step), {})]  # fmt: skip
    ends = np.array([np.quantile(each, [TAIL, 1 - TAIL]) for each in values])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    room = 0.05 * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, BINS + 1)
    at: dict[int, dict[str, Any]] = {}
    for step in steps:
        at[step] = {}
        for result in shown:
            if field in result.solution.field_samples.get((layer, step), {}):
                density = observables.activation_density(result.solution, layer, field, t=step, edges=edges)
                at[step][source_name(layer, result.number)] = _columns(edges, density.density.mean)
        if field in ("h", "z") and (layer, step) in results[0].solution.field_samples:
            normal = _normal(results[0].solution.field_samples[layer, step][field], edges)
            at[step][source_name(layer, NORMAL)] = _columns(edges, normal)
    return {"range": [edges[0], edges[-1]], "top": _top([c["y"] for d in at.values() for c in d.values()]), "at": at}


def _columns(edges: np.ndarray, density: np.ndarray) -> dict[str, list[float]]:
    numbers = {"x": (edges[1:] + edges[:-1]) / 2, "left": edges[:-1], "right": edges[1:], "y": density}
    return {name: [float(f"{value:.4g}") for value in each] for name, each in numbers.items()}


def _normal(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over points of the normal density with the mean and variance of the point's samples (R, P, neurons)."""
    values = samples.astype(np.float64)
    mean, deviation = values.mean(axis=(0, 2)), values.std(axis=(0, 2))
    kept = deviation > 0
    x = (edges[1:] + edges[:-1]) / 2
    scaled = (x - mean[kept, None]) / deviation[kept, None]
    each = np.exp(-(scaled**2) / 2) / (np.sqrt(2 * np.pi) * deviation[kept, None])
    return each.sum(axis=0) / len(mean)


def _top(curves: Sequence[Sequence[float]]) -> float:
    """End of the density axis: a single bin far above all others, as of a field that is often zero, is cut off."""
    highest = max(max(curve) for curve in curves)
    second = max(sorted(curve)[-2] for curve in curves)
    return 1.08 * (highest if highest < 2.5 * second else 1.3 * second) or 1.0


def _chart(results: Sequence[Result], layer: int, curves: dict[str, Any], step: int) -> Chart:
    axes: Any = bare("density", 250, tuple(curves["range"]))
    axes.update(name=f"density-{layer}")
    axes.y_range.update(start=0, end=curves["top"])
    axes.ygrid.visible = False
    keys = []
    empty: dict[str, list[float]] = {"x": [], "left": [], "right": [], "y": []}
    for result in sorted(results, key=lambda each: not each.finite):  # lines above histograms
        name = source_name(layer, result.number)
        source = ColumnDataSource(curves["at"][step].get(name, empty), name=name)
        if result.finite:
            axes.quad("left", "right", "y", 0, source=source, fill_color=result.colour, fill_alpha=0.28,
                      line_color="white", line_width=0.6)  # fmt: skip
        else:
            dash = "6 4" if result.style == "dashes" else "solid"
            axes.line("x", "y", source=source, line_color=result.colour, line_width=2.2, line_dash=dash)
        keys.append(Key(result.name, None, result.colour, "bars" if result.finite else result.style))
    name = source_name(layer, NORMAL)
    source = ColumnDataSource(curves["at"][step].get(name, empty), name=name)
    axes.line("x", "y", source=source, line_color=MUTED, line_width=1.4, line_dash="2 3")
    keys.append(Key("Gaussian, same mean and variance of every point", None, MUTED, "dotted"))
    return Chart(f"Layer {layer}", axes, tuple(keys))
