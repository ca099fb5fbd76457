"""A Solution in short: as tables for the terminal, as values for JSON, and as a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Column, Table

from kernelfield import observables, plotting
from kernelfield.common.settings import Spec
from kernelfield.layers import Activation, Residual, Sequential
from kernelfield.observables.compare import format_with_error
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUIET = (
    "scales_multiply",
    "momentum",
    "weight_decay",
    "schedule",
    "replacement",
    "skeleton",
)  # left out at their defaults
PARTS = ("network", "training", "method")


def report(solution: Solution) -> Group:
    """Returns the settings, the status, the loss and the kernels as rich tables, to print."""
    settings = Table(box=SIMPLE, show_header=False, pad_edge=False)
    for name, text in describe_run(solution).items():
        settings.add_row(name, text)
    kernels = _tabulate_kernels(solution.with_both_ends())
    return Group(settings, _tabulate_loss(solution), *([kernels] if kernels.row_count else []))


def record(solution: Solution) -> dict[str, Any]:
    """Returns settings, status, the loss at every step and the kernels, as values that JSON can hold.

    A standard error is None where there is a single replicate.
    """

    def values(estimate: Estimate) -> dict[str, Any]:
        known = np.isfinite(estimate.se).all()
        return {"mean": estimate.mean.tolist(), "se": estimate.se.tolist() if known else None}

    return {
        **{name: format_settings(getattr(solution, name)) for name in PARTS},
        "points": solution.problem.points,
        "dimensions": solution.problem.dimensions,
        "outputs": solution.problem.outputs,
        "objective": solution.problem.loss.name,
        "status": solution.status.code,
        "message": solution.status.message,
        "steps": solution.steps_done,
        "loss": values(solution.estimate("loss")),
        "kernels": [
            {"layer": layer, "moved": values(movement), "alignment": values(alignment)}
            for layer, movement, alignment in _measure_kernels(solution.with_both_ends())
        ],
    }


def describe_run(solution: Solution) -> dict[str, str]:
    """Returns data, network, training, method, ranks, seconds and status, each in a line; those that it has."""
    problem, info = solution.problem, solution.info
    outputs = f", {problem.outputs} outputs" if problem.outputs > 1 else ""
    loss = f", loss {problem.loss.name}" if problem.loss.name != "mse" else ""
    data = f"{problem.points} points in {problem.dimensions} dimensions{outputs}{loss}"
    lines = {"data": data, **{name: format_settings(getattr(solution, name)) for name in PARTS}}
    for kind in ("feature", "gradient"):
        if ranks := info.get(f"{kind}_ranks"):
            lines[f"{kind} ranks"] = f"{', '.join(map(str, ranks))} (hidden layers 1 to {len(ranks)})"
    seconds = {name.removeprefix("seconds_"): value for name, value in info.items() if name.startswith("seconds_")}
    if seconds:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        lines["seconds"] = f"{sum(seconds.values()):.1f} ({parts})" if len(seconds) > 1 else parts
    return {**lines, "status": str(solution.status)}


def format_settings(spec: Spec) -> str:
    """Returns "Name(argument=value, ...)" of a network, training or method, without most of its defaults."""
    fields = type(spec).model_fields
    known = {name: value for name, value in spec if not (name in QUIET and value == fields[name].default)}
    texts = {name: _format_layer(value) if isinstance(value, Sequential) else repr(value)
             for name, value in known.items() if value is not None}  # fmt: skip
    values = ", ".join(f"{name}={text}" for name, text in texts.items())
    return f"{type(spec).__name__}({values})"


def _format_layer(layer: Any) -> str:
    """Returns a layer as code makes it, without most of its defaults."""
    if isinstance(layer, Sequential):
        return f"[{', '.join(map(_format_layer, layer.layers))}]"
    if isinstance(layer, Activation):
        return layer.nonlinearity.name
    if isinstance(layer, Residual):
        return f"Residual({_format_layer(layer.branch)}, {layer.scale:g})"
    fields = [field for field in dataclasses.fields(layer) if field.init] if dataclasses.is_dataclass(layer) else []
    values = [
        (field.name, getattr(layer, field.name)) for field in fields if getattr(layer, field.name) != field.default
    ]
    texts = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in values)
    return f"{type(layer).__name__}({', '.join(texts)})"


def _measure_kernels(solution: Solution) -> Iterator[tuple[int, Estimate, Estimate]]:
    """Yields every hidden layer with the movement of its feature kernel, and its alignment at both ends (2,)."""
    for layer in solution.hidden("Phi"):
        alignment = observables.kernel_alignment(solution, "Phi", layer, [0, -1])
        yield layer, observables.kernel_movement(solution, "Phi", layer, -1), alignment


def _tabulate_loss(solution: Solution) -> Table:
    table = new_table(None, [], [solution.training.unit, "training time", "loss", "standard error", "95 % interval"])
    loss = solution.estimate("loss")
    low, high = loss.interval()
    for t in plotting.thin(solution.steps_done + 1, 6):
        interval = f"{low[t]:.4g} .. {high[t]:.4g}" if np.isfinite(low[t]) else "one replicate"
        se = f"{loss.se[t]:.1g}" if np.isfinite(loss.se[t]) else "-"
        table.add_row(str(t), f"{solution.times[t]:.4g}", f"{loss.mean[t]:.4g}", se, interval)
    return table


def _tabulate_kernels(solution: Solution) -> Table:
    table = new_table(None, [], ["feature kernel of layer", "moved by", "alignment with y: first", "last"])
    for layer, movement, alignment in _measure_kernels(solution):
        means, errors = [movement.mean, *alignment.mean], [movement.se, *alignment.se]
        table.add_row(str(layer), *(format_with_error(*pair, 1, ".3f") for pair in zip(means, errors, strict=True)))
    return table


def new_table(about: str | None, left: Sequence[str], right: Sequence[str]) -> Table:
    """Returns an empty table with a caption, and with columns aligned to the left and to the right."""
    columns = [*left, *(Column(name, justify="right") for name in right)]
    return Table(*columns, box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")


def draw(solution: Solution) -> Figure:
    """Returns a figure of the loss with its error band, and of the last feature kernel before and after training."""
    layers = solution.with_both_ends().hidden("Phi")
    figure = plotting.new_figure(12 if layers else 6, 3.8)
    ratios = [1.5, 1, 1] if layers else [1]
    loss, *places = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    plotting.loss_curve(loss, solution, plotting.RICH, "mean, with 95 % interval")
    loss.legend(frameon=False)
    plotting.plain(loss)
    loss.set_title(type(solution.method).__name__, fontsize=11)
    if layers:
        kernels = [solution.feature_kernel(layers[-1], t) for t in (0, -1)]
        limit = float(np.abs(kernels).max())
        images = [
            plotting.kernel_matrix_by_target(axes, kernel, limit, f"{time} training", solution.problem)
            for axes, kernel, time in zip(places, kernels, ("before", "after"), strict=True)
        ]
        figure.colorbar(images[0], ax=places, label=f"feature kernel $\\Phi^{{{layers[-1]}}}$", shrink=0.8)
    return figure
