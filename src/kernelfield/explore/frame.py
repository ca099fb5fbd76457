"""What the page shows of one setting: columns for each of its data sources, of plain numbers that JSON can hold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield import observables
from kernelfield.explore.question import NETWORKS, Question, Setting
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.particle_run import LEFT_OUT
from kernelfield.observables.groups import by_target
from kernelfield.plotting import thin
from kernelfield.report.style import LAYERS
from kernelfield.report.words import format_number, format_symbol, format_with_error
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve
from kernelfield.theories.static_ntk import StaticNTK

DIGITS = 4  # of numbers on the page
CURVE = 7  # steps at which kernels are known
EDGES = np.linspace(-6, 6, 49)  # of the bins of preactivations, in units of their deviation at the start
MOST_SAMPLES = 40  # of a kernel
LOWEST_LOSS = 1e-5  # relative to its start: the end of the axis

Columns = dict[str, Any]  # lists


@dataclass(frozen=True)
class Frame:
    """The columns of data sources by their names, and numbers in words by their labels."""

    sources: dict[str, Columns]
    numbers: dict[str, str]  # label -> value


def solve_frame(question: Question, setting: Setting, lazy: np.ndarray | None) -> Frame:
    """Returns the frame of a setting: infinite width, and networks of finite width if it has them.

    Args:
        question, setting: what is solved.
        lazy: loss of the lazy limit, which `solve_lazy` returns.
    """
    began = time.perf_counter()
    run = question.parts(setting)
    steps = thin(question.training.steps + 1, CURVE).tolist()
    infinite = solve(*run, question.method, save_at=steps, progress=False, throw=False)
    seconds = time.perf_counter() - began
    networks = None
    if setting.width is not None:
        method = FiniteWidth(width=setting.width, seeds=NETWORKS, kernels="features")
        networks = solve(*run, method, save_at=steps, progress=False, throw=False)
    ours, theirs = _infinite_frame(setting, infinite), _network_frame(setting, networks, infinite)
    numbers = {**ours.numbers, **theirs.numbers, "Infinite width took": f"{1000 * seconds:.0f} ms"}
    return Frame({**empty_frame().sources, **ours.sources, **lazy_frame(lazy).sources, **theirs.sources}, numbers)


def solve_lazy(question: Question, setting: Setting) -> np.ndarray | None:
    """Returns the loss at every step as gamma0 -> 0; None where the static kernel has no answer."""
    try:
        return solve(*question.parts(setting), StaticNTK(), save_at=[0], fields_at=(), progress=False, throw=False).loss
    except ValueError:
        return None


def lazy_frame(lazy: np.ndarray | None) -> Frame:
    """Returns what the loss of the lazy limit fills in, and nothing else."""
    if lazy is None:
        return Frame({"lazy": {"step": [], "mean": []}}, {})
    return Frame({"lazy": _columns(step=np.arange(len(lazy)), mean=_floor(lazy / (lazy[0] or 1.0)))}, {})


def empty_frame() -> Frame:
    """Returns a frame without a single value, with the columns that every data source has."""
    names = {
        "loss": ("step", "mean", "low", "high"),
        "lazy": ("step", "mean"),
        "alignment": ("xs", "ys", "colour", "label"),
        "first": ("x", "y", "value"),
        "last": ("x", "y", "value"),
        "density": ("x", "first", "last"),
        "regime": ("gamma0", "movement"),
        "trail": ("gamma0", "movement"),
        "network loss": ("xs", "ys"),
        "network alignment": ("x", "y", "colour", "label"),
        "network kernel": ("x", "y", "value"),
        "network density": ("left", "right", "top"),
        "network regime": ("gamma0", "movement"),
    }
    return Frame({source: {column: [] for column in columns} for source, columns in names.items()}, {})


def _infinite_frame(setting: Setting, solution: Solution) -> Frame:
    """Returns what infinite width fills in."""
    layers = solution.hidden("Phi")
    steps, start = np.arange(solution.steps_done + 1), solution.loss[0] or 1.0
    loss = solution.estimate("loss")
    se = np.nan_to_num(loss.se)
    sources = {
        "loss": _columns(
            step=steps,
            mean=_floor(loss.mean / start),
            low=_floor((loss.mean - se) / start),
            high=_floor((loss.mean + se) / start),
        ),
    }
    numbers = {"Final loss": _say(Estimate(loss.replicates[:, -1], loss.exact))}
    if layers:
        aligned = {layer: observables.kernel_alignment(solution, "Phi", layer) for layer in layers}
        kept, last = solution.kernel_steps("Phi"), layers[-1]
        end = int(kept[-1])  # of a run that diverged, before its last step
        movement = observables.kernel_movement(solution, "Phi", last, t=end)
        sources |= {
            "alignment": {
                "xs": [_round(kept) for _ in layers],
                "ys": [_round(estimate.mean) for estimate in aligned.values()],
                "colour": [_colour(layer) for layer in layers],
                "label": [format_symbol("Phi", layer) for layer in layers],
            },
            "first": _cells(solution, last, 0),
            "last": _cells(solution, last, end),
            "regime": _columns(gamma0=[setting.gamma0], movement=[max(float(movement.mean), 1e-6)]),
        }
        symbol = format_symbol("Phi", last)
        numbers[f"{symbol} moved by"] = _say(movement)
        start_value = format_number(float(aligned[last].mean[0]))
        end_value = _say(Estimate(aligned[last].replicates[:, -1], solution.exact))
        numbers[f"Alignment of {symbol} with the targets"] = f"{start_value} → {end_value}"
        if {(last, 0), (last, solution.steps_done)} <= solution.field_samples.keys():
            scale = _deviation(solution, last)
            centres = (EDGES[1:] + EDGES[:-1]) / 2
            before, after = (_density(solution, last, step, scale) for step in (0, solution.steps_done))
            sources["density"] = _columns(x=centres, first=before, last=after)
    if (left_out := solution.info.get("learning_left_out", 0.0)) > LEFT_OUT:
        numbers["Left out of what the last step learned"] = f"{100 * left_out:.0f} %"
    if solution.status.code != "ok":
        numbers["It stopped"] = f"{solution.status.code.replace('_', ' ')} at step {solution.steps_done}"
    return Frame(sources, numbers)


def _network_frame(setting: Setting, networks: Solution | None, solution: Solution) -> Frame:
    """Returns what networks of finite width fill in: nothing where there are none."""
    sources: dict[str, Columns] = {}
    if networks is None:
        return Frame(sources, {})
    layers = networks.hidden("Phi")
    start = networks.loss[0] or 1.0
    losses = networks.estimate("loss").replicates / start
    steps = np.arange(losses.shape[1])
    sources["network loss"] = {"xs": [_round(steps) for _ in losses], "ys": [_round(_floor(row)) for row in losses]}
    numbers = {}
    if len(networks.predictions) == len(solution.predictions):
        size = np.linalg.norm(solution.predictions) or 1.0
        gaps = [np.linalg.norm(f - solution.predictions) / size for f in networks.replicate_predictions]
        numbers[f"Distance of one network of width {setting.width}"] = f"{100 * np.mean(gaps):.1f} %"
    if layers:
        last, kept = layers[-1], networks.kernel_steps("Phi")
        points = [
            (step, value, _colour(layer), format_symbol("Phi", layer))
            for layer in layers
            for step, value in zip(kept, observables.kernel_alignment(networks, "Phi", layer, t=kept).mean, strict=True)
        ]
        x, y, colour, label = zip(*points, strict=True)
        sources["network alignment"] = {"x": _round(x), "y": _round(y), "colour": list(colour), "label": list(label)}
        end = int(kept[-1])
        sources["network kernel"] = _cells(networks, last, end, one=True)
        moved = observables.kernel_movement(networks, "Phi", last, t=end).mean
        sources["network regime"] = _columns(gamma0=[setting.gamma0], movement=[max(float(moved), 1e-6)])
        if (last, networks.steps_done) in networks.field_samples and (last, 0) in solution.field_samples:
            top = _density(networks, last, networks.steps_done, _deviation(solution, last))
            sources["network density"] = _columns(left=EDGES[:-1], right=EDGES[1:], top=top)
    return Frame(sources, numbers)


def _columns(**values: Any) -> Columns:
    return {name: _round(column) for name, column in values.items()}


def _round(values: Any) -> list[float]:
    """Returns numbers with as many digits as the page can show."""
    return [float(f"{value:.{DIGITS}g}") for value in np.asarray(values, dtype=float)]


def _floor(loss: np.ndarray) -> np.ndarray:
    """Returns losses no lower than the axis reaches."""
    return np.maximum(np.nan_to_num(loss, nan=LOWEST_LOSS, posinf=1e6), LOWEST_LOSS)


def _say(estimate: Estimate) -> str:
    mean, se = float(estimate.mean), float(estimate.se)
    return format_number(mean) if estimate.exact or not np.isfinite(se) else format_with_error(mean, se, 3, 1)


def _colour(layer: int) -> str:
    return LAYERS[(layer - 1) % len(LAYERS)]


def _cells(solution: Solution, layer: int, step: int, one: bool = False) -> Columns:
    """Returns the cosines of features between samples, ordered by target; of one replicate alone if `one`."""
    groups, estimate = by_target(solution.problem), solution.kernel_estimate("Phi", layer, step)
    kernel = estimate.replicates[0] if one else estimate.mean
    count = len(groups.order)
    kernel = np.einsum("mcnc->mn", kernel.reshape(count, -1, count, len(kernel) // count))
    rows = groups.order[thin(count, MOST_SAMPLES)]
    size = np.sqrt(np.maximum(np.diag(kernel), 1e-30))
    cosines = (kernel / np.outer(size, size))[np.ix_(rows, rows)]
    x, y = np.meshgrid(np.arange(len(rows)), np.arange(len(rows)))
    return _columns(x=x.ravel(), y=y.ravel(), value=cosines.ravel())


def _deviation(solution: Solution, layer: int) -> float:
    """Returns the standard deviation of preactivations before training."""
    return float(observables.field_samples(solution, layer, "h", 0).std()) or 1.0


def _density(solution: Solution, layer: int, step: int, scale: float) -> np.ndarray:
    """Returns the density of preactivations in units of a scale."""
    return observables.activation_density(solution, layer, "h", t=step, edges=EDGES * scale).density.mean * scale
