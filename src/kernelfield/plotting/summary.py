"""What a Solution says, as a table for the terminal and as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from kernelfield import observables
from kernelfield.describe.problem import Problem
from kernelfield.observables.groups import by_target
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

QUIET = ("scales_multiply", "momentum", "weight_decay", "schedule", "replacement")  # left out at their defaults
MOST_CLASSES = 10  # more different targets are no classes


def report(solution: Solution) -> Group:
    """Settings, how the run went, loss and kernels, as tables.

    Args:
        solution: what to report.

    Returns:
        rich Group, to print.
    """
    tables = [_settings(solution), _loss(solution)]
    return Group(*tables, _kernels(solution)) if solution.hidden("Phi") else Group(*tables)


def record(solution: Solution) -> dict[str, Any]:
    """What `report` says, as values that JSON can hold: None where there is no standard error.

    Args:
        solution: what to report.

    Returns:
        Settings, status and info; loss at every step; movement and alignment of the feature kernels.
    """

    def held(estimate: Estimate) -> dict[str, Any]:
        missing = not np.isfinite(estimate.se).all()  # a single replicate
        return {"mean": estimate.mean.tolist(), "se": None if missing else estimate.se.tolist()}

    kernels = [
        {
            "layer": layer,
            "moved": held(observables.kernel_movement(solution, "Phi", layer, -1)),
            "alignment": held(observables.kernel_alignment(solution, "Phi", layer, [0, -1])),
        }
        for layer in solution.hidden("Phi")
    ]
    return {
        **{name: str(described(getattr(solution, name))) for name in ("network", "training", "method")},
        "points": solution.problem.points,
        "dimensions": solution.problem.dimensions,
        "outputs": solution.problem.outputs,
        "objective": solution.problem.loss.name,
        "status": solution.status.code,
        "message": solution.status.message,
        "steps": solution.steps_done,
        "loss": held(solution.estimate("loss")),
        "kernels": kernels,
    }


def _settings(solution: Solution) -> Table:
    out = Table(box=SIMPLE, show_header=False, pad_edge=False)
    info = solution.info
    out.add_row("data", data(solution.problem))
    for name in ("network", "training", "method"):
        out.add_row(name, str(described(getattr(solution, name))))
    for key, name in (("feature_ranks", "feature ranks"), ("gradient_ranks", "gradient ranks")):
        if info.get(key):
            out.add_row(name, f"{', '.join(map(str, info[key]))} (hidden layers 1 to {len(info[key])})")
    spent = {key.removeprefix("seconds_"): value for key, value in info.items() if key.startswith("seconds_")}
    if spent:
        out.add_row("seconds", ", ".join(f"{key} {value:.1f}" for key, value in spent.items()))
    out.add_row("status", str(solution.status))
    return out


def data(problem: Problem) -> str:
    """What is learned, in a line: points, dimensions, and the loss and outputs if they are not the usual ones.

    Args:
        problem: what is learned.
    """
    several = f", {problem.outputs} outputs" if problem.outputs is not None else ""
    loss = f", loss {problem.loss.name}" if problem.loss.name != "mse" else ""
    return f"{problem.points} points in {problem.dimensions} dimensions{several}{loss}"


def described(spec: Any) -> str:
    """A settings object as it would be typed, without options that are left to their defaults.

    Args:
        spec: network, training or method.

    Returns:
        "Name(argument=value, ...)".
    """
    fields = type(spec).model_fields
    shown = {name: value for name, value in spec if not (name in QUIET and value == fields[name].default)}
    values = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)
    return f"{type(spec).__name__}({values})"


def _loss(solution: Solution) -> Table:
    out = Table(box=SIMPLE, pad_edge=False)
    loss = solution.estimate("loss")
    low, high = loss.interval()
    first = solution.training.unit
    for name in (first, "training time", "loss", "standard error", "95 % interval"):
        out.add_column(name, justify="right")
    for t in np.unique(np.linspace(0, solution.steps_done, 6).round().astype(int)):
        interval = f"{low[t]:.4g} .. {high[t]:.4g}" if np.isfinite(low[t]) else "one replicate"
        se = f"{loss.se[t]:.1g}" if np.isfinite(loss.se[t]) else "-"
        out.add_row(str(t), f"{solution.times[t]:.4g}", f"{loss.mean[t]:.4g}", se, interval)
    return out


def _kernels(solution: Solution) -> Table:
    out = Table(box=SIMPLE, pad_edge=False)
    for name in ("feature kernel of layer", "moved by", "alignment with y: first", "last"):
        out.add_column(name, justify="right")
    for layer in solution.hidden("Phi"):
        moved = observables.kernel_movement(solution, "Phi", layer, -1)
        cells = (moved, *(observables.kernel_alignment(solution, "Phi", layer, t) for t in (0, -1)))
        out.add_row(str(layer), *(_with_error(cell) for cell in cells))
    return out


def _with_error(estimate: Estimate) -> str:
    mean, se = float(estimate.mean), float(estimate.se)
    return f"{mean:.3f} ± {se:.1g}" if np.isfinite(se) else f"{mean:.3f}"


def draw(solution: Solution) -> Any:
    """Loss with its error band; last feature kernel before and after training, samples ordered by target.

    Args:
        solution: what to draw.

    Returns:
        matplotlib Figure.
    """
    from matplotlib.figure import Figure

    from kernelfield import plotting

    kernels = bool(solution.hidden("Phi"))
    figure = Figure(figsize=(12 if kernels else 6, 3.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, 3 if kernels else 1, width_ratios=[1.5, 1, 1] if kernels else None, squeeze=False)
    loss = axes[0, 0]
    plotting.loss_curve(loss, solution, plotting.RICH, "mean, with 95 % interval")
    loss.legend(frameon=False)
    loss.spines[["top", "right"]].set_visible(False)
    loss.set_title(type(solution.method).__name__, fontsize=11)
    if kernels:
        layer = solution.hidden("Phi")[-1]
        by_class = by_target(solution.problem)
        order, groups = by_class.order, by_class.most(MOST_CLASSES)
        panels = [solution.feature_kernel(layer, t)[np.ix_(order, order)] for t in (0, -1)]
        limit = max(float(np.abs(panel).max()) for panel in panels)
        images = [
            plotting.kernel_matrix(place, panel, limit, f"{when} training", groups)
            for place, panel, when in zip(axes[0, 1:], panels, ("before", "after"), strict=True)
        ]
        figure.colorbar(images[0], ax=axes[0, 1:], label=f"feature kernel $\\Phi^{{{layer}}}$", shrink=0.8)
    return figure
