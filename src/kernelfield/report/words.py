"""What the page says in words: settings, the main numbers, and how to read the error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield import observables
from kernelfield.describe.networks import MLP
from kernelfield.describe.training import SGD, Descent, GradientDescent, GradientFlow, OnlineSGD
from kernelfield.observables.compare import Comparison, Row
from kernelfield.plotting.summary import data, described
from kernelfield.report.result import NO_BREAK, Result, between, plain, with_error
from kernelfield.report.style import symbol
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

STATUS = {
    "ok": "finished",
    "diverged": "diverged",
    "interrupted": "interrupted",
    "not_converged": "not converged",
}
AGREES = 1.5  # times the noise: an error below that is what two equal things would show


@dataclass(frozen=True)
class Number:
    """A main number.

    Args:
        label: what it is.
        value: the number, as text.
        note: its uncertainty, or what it is compared with.
    """

    label: str
    value: str
    note: str


def title(main: Result) -> str:
    """A title for the page."""
    return f"{_network(main.solution.network)}, {'finite' if main.finite else 'infinite'} width"


def lead(results: Sequence[Result]) -> str:
    """What was solved, in two sentences."""
    main = results[0].solution
    network: Any = main.network
    tests = int((main.problem.weights == 0).sum())
    beside = f" ({tests} more ride along as test points)" if tests else ""
    several = f" with {_count(main.problem.outputs, 'output')}" if main.problem.outputs is not None else ""
    loss = f" by the loss {main.problem.loss.name}" if main.problem.loss.name != "mse" else ""
    about = f"{_count(main.problem.points - tests, 'point')} in {_count(main.problem.dimensions, 'dimension')}"
    about += f"{several}{beside}{loss}"
    first = (
        f"{_network(network)} (gamma0{NO_BREAK}={NO_BREAK}{network.gamma0:g}) learned {about} {_rule(main.training)}."
    )
    named = [_method(each) + (f" ({each.name})" if len(results) > 1 else "") for each in results]
    second = f"Shown is {named[0]}" + (f", beside {_listed(named[1:])}." if len(results) > 1 else ".")
    return f"{first} {second}"


def settings(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Rows of the table of settings: name, and one entry for each result, or a single one that all share."""
    rows = [
        (
            "data",
            [data(r.solution.problem) for r in results],
        ),
        *((part, [described(getattr(r.solution, part)) for r in results]) for part in ("network", "training")),
        ("method", [described(r.solution.method) for r in results]),
        ("status", [str(r.solution.status) for r in results]),
        (f"{results[0].unit}s", [f"{r.solution.steps_done} of {r.solution.training.steps}" for r in results]),
        ("replicates", [_replicates(r) for r in results]),
        ("ranks of features", [_ranks(r, "feature_ranks") for r in results]),
        ("ranks of gradients", [_ranks(r, "gradient_ranks") for r in results]),
        ("seconds", [_seconds(r) for r in results]),
    ]
    kept = [(name, entries) for name, entries in rows if any(entry != "–" for entry in entries)]
    return [(name, entries[:1] if len(set(entries)) == 1 else entries) for name, entries in kept]


def numbers(results: Sequence[Result], comparisons: Sequence[tuple[Result, Comparison]]) -> list[Number]:
    """The main numbers: final loss, test loss, movement and alignment of the last layer, distance of the others."""
    main = results[0].solution
    loss = observables.loss(main)
    final = Estimate(loss.replicates[:, -1], loss.exact)
    out = [Number("final training loss", plain(float(final.mean), 4), _interval(final))]
    if (main.problem.weights == 0).any():
        test = observables.loss(main, "test")
        last = Estimate(test.replicates[:, -1], test.exact)
        out.append(Number("final test loss", plain(float(last.mean), 4), _interval(last)))
    if main.problem.outputs is not None and main.problem.outputs > 1 and _classes(main):
        for points in ("train", "test") if (main.problem.weights == 0).any() else ("train",):
            right = observables.accuracy(main, points)
            last = Estimate(100 * right.replicates[:, -1], right.exact)
            name = "training" if points == "train" else "test"
            out.append(Number(f"final {name} accuracy", f"{plain(float(last.mean))} %", _interval(last)))
    if main.hidden("Phi"):
        layer = main.hidden("Phi")[-1]
        moved = observables.kernel_movement(main, "Phi", layer, t=-1)
        ends = [observables.kernel_alignment(main, "Phi", layer, t=t) for t in (0, -1)]
        name = symbol("Phi", layer)
        size = f"relative to its size at first; {_interval(moved)}"
        out.append(Number(f"movement of {name}", plain(float(moved.mean)), size))
        first = f"{plain(float(ends[0].mean))} at first; {_interval(ends[1])}"
        out.append(Number(f"alignment of {name} with targets", plain(float(ends[1].mean)), first))
    for result, comparison in comparisons[:2]:
        row = comparison.row("predictions")
        note = f"sampling noise alone: {plain(100 * row.noise, 2)} %" if np.isfinite(row.noise) else "relative"
        value = f"{with_error(100 * row.error, 100 * row.error_se)} %"
        out.append(Number(f"predictions of {result.name} differ by", value, note))
    return out


def _classes(solution: Solution) -> bool:
    """Whether every row of targets has one largest entry."""
    y = solution.problem.y
    return bool((np.count_nonzero(y == y.max(axis=1, keepdims=True), axis=1) == 1).all())


def verdict(comparison: Comparison) -> str:
    """What a comparison says about the predictions over all times, in a sentence."""
    row = comparison.row("predictions")
    apart = f"Predictions differ by {with_error(100 * row.error, 100 * row.error_se)} % over all of training"
    if not np.isfinite(row.error):
        return "The predictions of the reference are zero: there is no relative error."
    if not np.isfinite(row.noise):
        return f"{apart}; with a single replicate there is no telling how much of it is sampling noise."
    if row.noise == 0:
        return f"{apart}; neither side has sampling noise."
    noise = f"{plain(100 * row.noise, 2)} %"
    if row.error < AGREES * row.noise:
        return f"{apart}, about the {noise} that sampling noise alone would give: no difference is resolved."
    return f"{apart}, more than the {noise} that sampling noise alone would give: they differ."


def table(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of the tables of a comparison: "quantity", "layer", and "cells" of all times and of the final one."""
    every, final = ([row for row in comparison.rows if row.times == times] for times in ("all", "final"))
    return [
        {"quantity": row.quantity, "layer": row.layer, "cells": [_cells(row), _cells(last)]}
        for row, last in zip(every, final, strict=True)
    ]


def error_bars(results: Sequence[Result], compared: bool) -> list[str]:
    """How to read the error bars of these results, a paragraph each."""
    many = [r for r in results if r.sampled and r.replicates > 1]
    single = [r.name for r in results if r.sampled and r.replicates == 1]
    exact = [r.name for r in results if not r.sampled]
    out = []
    if many:
        counts = _listed([f"{r.replicates} {'seeds' if r.finite else 'independent runs'} ({r.name})" for r in many])
        out.append(
            f"Bands and bars are 95 % confidence intervals of the mean, from the spread over {counts}, by Student's t. "
            "Numbers after ± are one standard error of the mean."
        )
    if any(not r.finite for r in many):
        out.append(
            "At infinite width they measure the noise of sampling neurons, which shrinks with more particles. They do "
            "not contain the small bias of a finite number of particles and directions: lower tol to see it."
        )
    if any(r.finite for r in results):
        out.append(
            "Those of finite networks are about the mean over seeds at that width. Its distance from infinite width, "
            "of order 1/width, is not in them: where the dots are off the line by more than their bars, that is width."
        )
    if exact:
        out.append(f"{_listed(exact)}: solved without sampling, so that error bars are zero.")
    if single:
        out.append(
            f"{_listed(single)}: a single replicate, so that the size of its noise is not known; no bars are drawn."
        )
    if compared:
        out.append(
            "In comparisons, noise is the relative error to expect if the two truly agree. An error near it is "
            "agreement, as far as these runs can tell."
        )
    return out


def warnings(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Results that did not finish: heading and explanation."""
    return [
        (
            f"{r.name}: {STATUS.get(r.solution.status.code, r.solution.status.code)} after "
            f"{r.solution.steps_done} of {_count(r.solution.training.steps, r.unit)}",
            f"{r.solution.status.message[:1].upper()}{r.solution.status.message[1:]}.",
        )
        for r in results
        if r.solution.status.code != "ok"
    ]


def _network(network: Any) -> str:
    if not isinstance(network, MLP):
        return f"The network {described(network)}"
    phi = network.activation if isinstance(network.activation, str) else network.nonlinearity.name
    layers = "one hidden layer" if network.depth == 1 else f"{network.depth} hidden layers"
    return f"A {'deep linear' if phi == 'linear' and network.depth > 1 else phi} network with {layers}"


def _rule(training: Any) -> str:
    if isinstance(training, GradientDescent):
        return f"in {_count(training.steps, 'step')} of gradient descent with {_listed(_options(training))}"
    if isinstance(training, SGD):
        drawn = " drawn with replacement" if training.replacement else ""
        batches = f"batches of {training.batch_size}{drawn}, {_count(training.epochs, 'epoch')}"
        return f"by stochastic gradient descent, {batches}, {', '.join(_options(training))}"
    if isinstance(training, OnlineSGD):
        fresh = f"{training.batch_size} fresh points in each of {training.every * training.steps} updates"
        return f"by online stochastic gradient descent, {fresh}, {', '.join(_options(training))}"
    if isinstance(training, GradientFlow):
        return f"by gradient flow over a training time of {training.time:g}"
    return f"by {described(training)}"


def _options(training: Descent) -> list[str]:
    """Learning rate, and momentum, decay and schedule if there are any, in words."""
    schedule, out = training.schedule, [f"learning rate {training.learning_rate:g}"]
    out += [f"momentum {training.momentum:g}"] * (training.momentum > 0)
    out += [f"weight decay {training.weight_decay:g}"] * (training.weight_decay > 0)
    named = f"a {schedule} schedule" if isinstance(schedule, str) else "a schedule of its own"
    return out if schedule == "constant" else [*out, named]


def _method(result: Result) -> str:
    method: Any = result.solution.method
    exact = result.solution.exact
    name = type(method).__name__
    if result.finite:
        return f"{_count(method.seeds, 'network')} of width {method.width}"
    sampled = f"{result.replicates} × {getattr(method, 'particles', '')}"
    words = {
        "March": "the full theory of infinite width, " + ("exactly" if exact else f"on {sampled} sampled neurons"),
        "StaticNTK": "the static tangent kernel, infinite width in the lazy limit",
        "GradientIndependence": "infinite width in the gradient-independence approximation",
        "Perturbation": "infinite width to leading order in gamma0",
        "DeepLinear": "the full theory of linear networks of infinite width, exactly",
        "AlternatingMonteCarlo": "the full theory of infinite width by alternating Monte Carlo",
    }
    return words.get(name, f"the method {name}")


def _interval(estimate: Estimate) -> str:
    if estimate.exact:
        return "exact"
    if len(estimate.replicates) < 2:
        return "one replicate, no error bar"
    low, high = estimate.interval(0.95)
    return f"95 %: {between(float(low), float(high))}"


def _cells(row: Row) -> dict[str, Any]:
    return {
        "error": with_error(100 * row.error, 100 * row.error_se),
        "noise": plain(100 * row.noise, 2),
        "alignment": with_error(row.alignment, row.alignment_se, 6, figures=1),
        "resolved": bool(np.isfinite(row.noise) and row.error > AGREES * row.noise),
    }


def _replicates(result: Result) -> str:
    if not result.sampled:
        return "exact, no sampling"
    return f"{result.replicates} {'seeds' if result.finite else 'independent runs'}" if result.replicates > 1 else "one"


def _ranks(result: Result, key: str) -> str:
    return ", ".join(map(str, result.solution.info.get(key) or ())) or "–"


def _seconds(result: Result) -> str:
    spent = {k.removeprefix("seconds_"): v for k, v in result.solution.info.items() if k.startswith("seconds_")}
    parts = ", ".join(f"{key} {value:.1f}" for key, value in spent.items())
    return f"{sum(spent.values()):.1f} ({parts})" if len(spent) > 1 else parts or "–"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
