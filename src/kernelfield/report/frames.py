"""Kernels at many times, small enough for a page: thinned out, one triangle of each, 16 bits per entry."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kernelfield.report.result import Result, Samples, samples, thinned
from kernelfield.report.style import symbol

MOST_STEPS, FEWEST_STEPS = 40, 12
MOST_SAMPLES, FEWEST_SAMPLES = 64, 16
MOST_BYTES = 3_000_000  # of all frames on the page
BYTES_PER_ENTRY = 2 * 4 / 3  # sixteen bits in base64
MOST_BEYOND = 1.5  # colour scales end at so many times the largest entry of the main result
LARGEST, MISSING = 32767, -32768
ROWS = {"Phi": "Feature kernels", "G": "Gradient kernels", "NTK": "Tangent kernel"}


def frames(results: Sequence[Result]) -> dict[str, Any] | None:
    """What the time slider shows.

    Args:
        results: the main result first.

    Returns:
        JSON values: "steps", "times", "unit" of the steps, "samples", "targets", "labels", "counts" (of samples with
        equal targets), "rows" (kind, title, limit of the colours, panels) and "results" (name, frames of each panel);
        None if the main result tracked no kernels.
    """
    main = results[0]
    if not main.kernels:
        return None
    steps, shown = _size(results)
    kept = [_restricted(result, shown) for result in results]
    found: list[dict[str, Any]] = []
    for result in kept:
        reached = [int(step) for step in steps if step <= result.solution.steps_done]
        panels = {_key(*kernel): _encoded(result, kernel, reached) for kernel in result.kernels}
        found.append({"name": result.name, "colour": result.colour, "reached": len(reached), "panels": panels})
    return {
        "steps": steps.tolist(),
        "times": main.solution.times[steps].tolist(),
        "unit": main.unit,
        "thinned": len(steps) < main.solution.steps_done + 1,
        "samples": shown.rows.tolist(),
        "points": main.solution.problem.points,
        "targets": list(shown.targets),
        "labels": list(shown.labels),
        "counts": list(shown.counts),
        "rows": [row for kind in ROWS if (row := _row(kind, main, found))],
        "results": found,
    }


def _size(results: Sequence[Result]) -> tuple[np.ndarray, Samples]:
    """Steps and samples, fewer where there are so many kernels that the page would get too large."""
    main, kept = results[0].solution, results[0].kept_steps
    for result in results[1:]:
        reached = kept <= result.solution.steps_done
        kept = kept[~reached | np.isin(kept, result.kept_steps)]
    rows, points = len(kept), main.problem.points
    panels = sum(len(result.kernels) for result in results)
    steps, count = min(rows, MOST_STEPS), min(points, MOST_SAMPLES)

    def size() -> float:
        return panels * steps * count * (count + 1) / 2 * BYTES_PER_ENTRY

    while size() > MOST_BYTES and count > FEWEST_SAMPLES:
        count -= 1
    while size() > MOST_BYTES and steps > FEWEST_STEPS:
        steps -= 1
    return kept[thinned(rows, steps)], samples(main.problem, count)


def _restricted(result: Result, shown: Samples) -> Result:
    """The result with kernels of the shown samples alone."""
    return replace(result, solution=result.solution.restricted(shown.rows))


def _encoded(result: Result, kernel: Any, steps: Sequence[int]) -> dict[str, Any]:
    """Frames of one kernel: largest size of an entry, and all entries in units of it; one frame if it rests."""
    means = np.stack([result.sample_kernel(*kernel, t=step) for step in (steps[:1] if result.rests else steps)])
    values = means[:, *np.tril_indices(means.shape[1])]
    if (values == values[:1]).all():
        values = values[:1]
    finite = np.isfinite(values)
    scale = float(np.abs(values[finite]).max(initial=0.0))
    units = np.round(np.where(finite, values, 0.0) / (scale or 1.0) * LARGEST)
    codes = np.where(finite, units, MISSING).astype("<i2")
    return {"scale": scale, "frames": len(codes), "data": base64.b64encode(codes.tobytes()).decode("ascii")}


def _row(kind: str, main: Result, found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Kernels of one kind, which share a colour scale over layers, times and results."""
    panels = [(_key(*kernel), kernel[1]) for kernel in main.kernels if kernel[0] == kind]
    if not panels:
        return None
    keys = [key for key, _ in panels]
    own = max(found[0]["panels"][key]["scale"] for key in keys)
    others = [each["panels"][key]["scale"] for each in found[1:] for key in keys if key in each["panels"]]
    limit = min(max([own, *others]), MOST_BEYOND * own) if own > 0 else 1.0
    return {
        "kind": kind,
        "title": ROWS[kind],
        "limit": limit,
        "beyond": max([own, *others]) > limit,
        "panels": [{"key": key, "layer": layer, "name": symbol(kind, layer)} for key, layer in panels],
    }


def _key(kind: str, layer: int | None) -> str:
    return kind if layer is None else f"{kind}{layer}"
