"""Kernels at many times, small enough for a page: of few steps and samples, one triangle, 16 bits per entry."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.observables.groups import by_target
from kernelfield.plotting import thin
from kernelfield.plotting.comparison import MOST_BEYOND
from kernelfield.plotting.matrices import MOST_CLASSES
from kernelfield.report.result import NO_BREAK, Result
from kernelfield.report.words import format_symbol
from kernelfield.solution.kernel import Key, Symbol
from kernelfield.solution.solution import Solution

MOST_STEPS, FEWEST_STEPS = 40, 12
MOST_SAMPLES, FEWEST_SAMPLES = 64, 16
MOST_BYTES = 3_000_000  # of all frames on the page
BYTES_PER_ENTRY = 2 * 4 / 3  # sixteen bits in base64
LARGEST, MISSING = 32767, -32768
TITLES: dict[Symbol, str] = {"Phi": "Feature kernels", "G": "Gradient kernels", "NTK": "Tangent kernel"}


def encode_frames(results: Sequence[Result]) -> dict[str, Any] | None:
    """Returns the kernels that the time slider moves through, as JSON values; None if the main result tracked none.

    They are "steps", "times", "points", what `_choose_samples` returns, "rows" (kind, title, limit of the colours,
    panels) and "results" (name, frames of each panel).
    """
    main = results[0]
    if not main.kernels:
        return None
    kinds = {kind for kind, _ in main.kernels}
    steps, samples = _choose_size(results)
    encoded: list[dict[str, Any]] = []
    for result in results:
        part = result.solution.restricted(np.array(samples["samples"]))
        reached = [int(step) for step in steps if step <= part.steps_done]
        panels = {format_symbol(*key): _encode(part, key, reached) for key in result.kernels}
        encoded.append({"name": result.name, "colour": result.colour, "reached": len(reached), "panels": panels})
    return {
        "steps": steps.tolist(),
        "times": main.solution.times[steps].tolist(),
        "thinned": len(steps) < main.solution.steps_done + 1,
        "points": main.solution.problem.points,
        **samples,
        "rows": [_describe_row(kind, main, encoded) for kind in TITLES if kind in kinds],
        "results": encoded,
    }


def _choose_size(results: Sequence[Result]) -> tuple[np.ndarray, dict[str, list[Any]]]:
    """Returns steps and samples, fewer where there are so many kernels that the page would get too large."""
    main, common = results[0].solution, results[0].kept_steps
    for result in results[1:]:
        reached = common <= result.solution.steps_done
        common = common[~reached | np.isin(common, result.kept_steps)]
    panels = sum(len(result.kernels) for result in results)
    entries = MOST_BYTES / BYTES_PER_ENTRY / panels  # of a panel at all steps; about count^2 / 2 of them at each step
    steps = min(len(common), MOST_STEPS)
    count = min(main.problem.points, MOST_SAMPLES, max(FEWEST_SAMPLES, int(np.sqrt(2 * entries / steps))))
    steps = min(steps, max(FEWEST_STEPS, int(2 * entries / count**2)))
    return common[thin(len(common), steps)], _choose_samples(main.problem, count)


def _choose_samples(problem: Problem, most: int) -> dict[str, list[Any]]:
    """Returns the samples that the page shows: ordered by target, test points last, equally spaced ones of too many.

    They are "samples" (their numbers), "targets" ("y = 1" or "class 0" of each), "labels" of groups with equal targets
    and "counts" (of samples in each group). There are no labels if there are too many groups.
    """
    groups, tests = by_target(problem), problem.weights == 0
    rows = np.lexsort((groups.of_sample, tests))
    rows = rows[thin(len(rows), most)]
    targets = [groups.names[groups.of_sample[row]] for row in rows]
    labels = [f"{'test, ' if tests[row] else ''}{target}" for row, target in zip(rows, targets, strict=True)]
    counts = Counter(label.replace(" ", NO_BREAK) for label in labels)
    if len(counts) > min(MOST_CLASSES * (1 + tests.any()), len(rows) / 2):
        counts = {}
    chosen = {"samples": rows.tolist(), "targets": targets}
    return {**chosen, "labels": list(counts), "counts": list(counts.values()) or [len(rows)]}


def _encode(solution: Solution, key: Key, steps: Sequence[int]) -> dict[str, Any]:
    """Returns a kernel between samples in units of its largest entry: frames of all steps, or one if it rests."""
    means = np.stack([solution.kernel_estimate(*key, step).mean for step in steps])
    points = solution.problem.points
    outputs = means.shape[-1] // points
    kernels = np.einsum("tmcnc->tmn", means.reshape(-1, points, outputs, points, outputs)) / outputs
    values = kernels[:, *np.tril_indices(points)]
    if (values == values[:1]).all():
        values = values[:1]
    finite = np.isfinite(values)
    scale = float(np.abs(values[finite]).max(initial=0.0))
    units = np.round(np.where(finite, values, 0.0) / (scale or 1.0) * LARGEST)
    codes = np.where(finite, units, MISSING).astype("<i2")
    return {"scale": scale, "frames": len(codes), "data": base64.b64encode(codes.tobytes()).decode("ascii")}


def _describe_row(kind: Symbol, main: Result, encoded: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the panels of kernels of one kind, which share a colour scale over layers, times and results."""
    layers = {format_symbol(kind, layer): layer for symbol, layer in main.kernels if symbol == kind}
    scales = [[panel["scale"] for name, panel in result["panels"].items() if name in layers] for result in encoded]
    own, largest = max(scales[0]), max(scale for row in scales for scale in row)
    limit = min(largest, MOST_BEYOND * own) if own > 0 else 1.0
    panels = [{"name": name, "layer": layer} for name, layer in layers.items()]
    return {"kind": kind, "title": TITLES[kind], "limit": limit, "beyond": largest > limit, "panels": panels}
