"""What the page says in words: settings, the main numbers, and how to read the error bars."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from kernelfield import observables
from kernelfield.describe.networks import MLP, Architecture
from kernelfield.describe.training import SGD, Descent, GradientDescent, GradientFlow, Training
from kernelfield.finite.method import FiniteWidth
from kernelfield.observables import Points
from kernelfield.observables.compare import Comparison, Row
from kernelfield.plotting.summary import describe_run, format_settings, list_seconds
from kernelfield.report.result import NO_BREAK, Result, format_interval, format_number, format_with_error
from kernelfield.report.style import format_symbol
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

AGREES = 1.5  # times the noise: an error below that is what two equal things would show
NOT_KEPT = {"error": "–", "noise": "–", "alignment": "–", "resolved": False}  # a kernel that has no final step


class Number(NamedTuple):
    """A main number as text, with a note: its uncertainty, or what it is compared with."""

    label: str
    value: str
    note: str


def write_title(main: Result) -> str:
    """Returns a title for the page."""
    return f"{_describe_network(main.solution.network)}, {'finite' if main.finite else 'infinite'} width"


def write_lead(results: Sequence[Result]) -> str:
    """Returns two sentences about what was solved."""
    network, problem, training = results[0].solution.network, results[0].solution.problem, results[0].solution.training
    tests = int((problem.weights == 0).sum())
    data = f"{_count(problem.points - tests, 'point')} in {_count(problem.dimensions, 'dimension')}"
    data += f" with {_count(problem.outputs, 'output')}" if problem.outputs is not None else ""
    data += f" ({tests} more ride along as test points)" if tests else ""
    data += f" by the loss {problem.loss.name}" if problem.loss.name != "mse" else ""
    strength = f"(gamma0{NO_BREAK}={NO_BREAK}{network.gamma0:g})"
    first = f"{_describe_network(network)} {strength} learned {data} {_describe_training(training)}."
    methods = [_describe_method(result) for result in results]
    if len(results) == 1:
        return f"{first} Shown is {methods[0]}."
    main, *others = (f"{method} ({result.name})" for method, result in zip(methods, results, strict=True))
    return f"{first} Shown is {main}, beside {_join(others)}."


def tabulate_settings(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Returns rows of the table of settings: name, and an entry for each result, or a single one that all share."""
    columns = [_tabulate_run(result.solution, results[0].unit) for result in results]
    rows = [(name, [column[name] or "–" for column in columns]) for name in columns[0]]
    return [(name, row[:1] if len(set(row)) == 1 else row) for name, row in rows if set(row) != {"–"}]


def _tabulate_run(solution: Solution, unit: str) -> dict[str, str]:
    info = solution.info
    return {
        **describe_run(solution),
        "status": str(solution.status),
        f"{unit}s": f"{solution.steps_done} of {solution.training.steps}",
        "replicates": _format_replicates(solution),
        "ranks of features": ", ".join(map(str, info.get("feature_ranks") or ())),
        "ranks of gradients": ", ".join(map(str, info.get("gradient_ranks") or ())),
        "seconds": _format_seconds(solution),
    }


def list_numbers(results: Sequence[Result], comparisons: Sequence[tuple[Result, Comparison]]) -> list[Number]:
    """Returns final losses and accuracies, movement and alignment of the last layer, and distances of the others."""
    main = results[0].solution
    tests = bool((main.problem.weights == 0).any())
    groups: dict[Points, str] = {"train": "training", "test": "test"} if tests else {"train": "training"}
    numbers = []

    def add(label: str, estimate: Estimate, digits: int = 3, unit: str = "", note: str = "") -> None:
        value = format_number(float(estimate.mean), digits) + unit
        numbers.append(Number(label, value, note + _format_estimate(estimate)))

    for points, name in groups.items():
        add(f"final {name} loss", _take_last(observables.loss(main, points)), digits=4)
    if (main.problem.outputs or 1) > 1:
        with suppress(ValueError):  # targets that are not those of classes
            shares = {name: _take_last(observables.accuracy(main, points)) for points, name in groups.items()}
            for name, share in shares.items():
                add(f"final {name} accuracy", Estimate(100 * share.replicates, share.exact), unit=" %")
    if layers := main.hidden("Phi"):
        symbol = format_symbol("Phi", layers[-1])
        movement = observables.kernel_movement(main, "Phi", layers[-1], t=-1)
        add(f"movement of {symbol}", movement, note="relative to its size at first; ")
        first, last = (observables.kernel_alignment(main, "Phi", layers[-1], t=t) for t in (0, -1))
        add(f"alignment of {symbol} with targets", last, note=f"{format_number(float(first.mean))} at first; ")
    for result, comparison in comparisons[:2]:
        row = comparison.row("predictions")
        note = f"sampling noise alone: {_percent(row.noise)}" if np.isfinite(row.noise) else "relative"
        numbers.append(Number(f"predictions of {result.name} differ by", _percent(row.error, row.error_se), note))
    return numbers


def _take_last(estimate: Estimate) -> Estimate:
    return Estimate(estimate.replicates[:, -1], estimate.exact)


def _percent(value: float, se: float | None = None) -> str:
    return f"{format_number(100 * value, 2) if se is None else format_with_error(100 * value, 100 * se)} %"


def judge(comparison: Comparison) -> str:
    """Returns a sentence about how far predictions over all times agree."""
    row = comparison.row("predictions")
    apart = f"Predictions differ by {_percent(row.error, row.error_se)} over all of training"
    if not np.isfinite(row.error):
        return "The predictions of the reference are zero: there is no relative error."
    if not np.isfinite(row.noise):
        return f"{apart}; with a single replicate there is no telling how much of it is sampling noise."
    if row.noise == 0:
        return f"{apart}; neither side has sampling noise."
    noise = f"the {_percent(row.noise)} that sampling noise alone would give"
    if row.error < AGREES * row.noise:
        return f"{apart}, about {noise}: no difference is resolved."
    return f"{apart}, more than {noise}: they differ."


def tabulate(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns rows of a comparison: "quantity", "layer", and "cells" of all times and of the final one."""
    final = {(row.quantity, row.layer): _format_cells(row) for row in comparison.rows if row.times == "final"}
    return [
        {
            "quantity": row.quantity,
            "layer": row.layer,
            "cells": [_format_cells(row), final.get((row.quantity, row.layer), NOT_KEPT)],
        }
        for row in comparison.rows
        if row.times == "all"
    ]


def explain_error_bars(results: Sequence[Result], compared: bool) -> list[str]:
    """Returns paragraphs about how to read the error bars of these results."""
    many = [result for result in results if not result.solution.exact and result.replicates > 1]
    single = [result.name for result in results if not result.solution.exact and result.replicates == 1]
    exact = [result.name for result in results if result.solution.exact]
    texts = []
    if many:
        counts = _join([f"{_format_replicates(result.solution)} ({result.name})" for result in many])
        texts.append(
            f"Bands and bars are 95 % confidence intervals of the mean, from the spread over {counts}, by Student's t. "
            "Numbers after ± are one standard error of the mean."
        )
    if any(not result.finite for result in many):
        texts.append(
            "At infinite width they measure the noise of sampling neurons, which shrinks with more particles. They do "
            "not contain the small bias of a finite number of particles and directions: lower tol to see it."
        )
    if any(result.finite for result in results):
        texts.append(
            "Those of finite networks are about the mean over seeds at that width. Its distance from infinite width, "
            "of order 1/width, is not in them: where the dots are off the line by more than their bars, that is width."
        )
    if exact:
        texts.append(f"{_join(exact)}: solved without sampling, so that error bars are zero.")
    if single:
        about = "a single replicate, so that the size of its noise is not known; no bars are drawn."
        texts.append(f"{_join(single)}: {about}")
    if compared:
        texts.append(
            "In comparisons, noise is the relative error to expect if the two truly agree. An error near it is "
            "agreement, as far as these runs can tell."
        )
    return texts


def list_warnings(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Returns a heading and an explanation for each result that did not finish."""
    warnings = []
    for result in results:
        status, training = result.solution.status, result.solution.training
        if status.code != "ok":
            steps = f"{result.solution.steps_done} of {_count(training.steps, result.unit)}"
            heading = f"{result.name}: {status.code.replace('_', ' ')} after {steps}"
            warnings.append((heading, f"{status.message[:1].upper()}{status.message[1:]}."))
    return warnings


def _describe_network(network: Architecture) -> str:
    if not isinstance(network, MLP):
        return f"The network {format_settings(network)}"
    phi = network.activation if isinstance(network.activation, str) else network.nonlinearity.name
    layers = "one hidden layer" if network.depth == 1 else f"{network.depth} hidden layers"
    return f"A {'deep linear' if phi == 'linear' and network.depth > 1 else phi} network with {layers}"


def _describe_training(training: Training) -> str:
    if isinstance(training, GradientFlow):
        return f"by gradient flow over a training time of {training.time:g}"
    options = _list_options(training)
    if isinstance(training, GradientDescent):
        return f"in {_count(training.steps, 'step')} of gradient descent with {_join(options)}"
    if isinstance(training, SGD):
        order = " drawn with replacement" if training.replacement else ""
        batches = f"batches of {training.batch_size}{order}, {_count(training.epochs, 'epoch')}"
        return f"by stochastic gradient descent, {batches}, {', '.join(options)}"
    fresh = f"{training.batch_size} fresh points in each of {training.every * training.steps} updates"
    return f"by online stochastic gradient descent, {fresh}, {', '.join(options)}"


def _list_options(training: Descent) -> list[str]:
    """Returns the learning rate in words, and momentum, weight decay and schedule if there are any."""
    options = [f"learning rate {training.learning_rate:g}"]
    options += [f"momentum {training.momentum:g}"] * (training.momentum > 0)
    options += [f"weight decay {training.weight_decay:g}"] * (training.weight_decay > 0)
    if training.schedule != "constant":
        options += [
            f"a {training.schedule} schedule" if isinstance(training.schedule, str) else "a schedule of its own"
        ]
    return options


def _describe_method(result: Result) -> str:
    method, exact = result.solution.method, result.solution.exact
    name = type(method).__name__
    if isinstance(method, FiniteWidth):
        return f"{_count(method.seeds, 'network')} of width {method.width}"
    neurons = f"{result.replicates} × {getattr(method, 'particles', '')}"
    texts = {
        "March": "the full theory of infinite width, " + ("exactly" if exact else f"on {neurons} sampled neurons"),
        "StaticNTK": "the static tangent kernel, infinite width in the lazy limit",
        "GradientIndependence": "infinite width in the gradient-independence approximation",
        "Perturbation": "infinite width to leading order in gamma0",
        "DeepLinear": "the full theory of linear networks of infinite width, exactly",
        "AlternatingMonteCarlo": "the full theory of infinite width by alternating Monte Carlo",
    }
    return texts.get(name, f"the method {name}")


def _format_estimate(estimate: Estimate) -> str:
    if estimate.exact:
        return "exact"
    if len(estimate.replicates) < 2:
        return "one replicate, no error bar"
    low, high = estimate.interval(0.95)
    return f"95 %: {format_interval(float(low), float(high))}"


def _format_cells(row: Row) -> dict[str, Any]:
    return {
        "error": format_with_error(100 * row.error, 100 * row.error_se),
        "noise": format_number(100 * row.noise, 2),
        "alignment": format_with_error(row.alignment, row.alignment_se, 6, error_digits=1),
        "resolved": bool(np.isfinite(row.noise) and row.error > AGREES * row.noise),
    }


def _format_replicates(solution: Solution) -> str:
    count = len(solution.replicate_predictions)
    if solution.exact:
        return "exact, no sampling"
    kind = "seeds" if isinstance(solution.method, FiniteWidth) else "independent runs"
    return f"{count} {kind}" if count > 1 else "one"


def _format_seconds(solution: Solution) -> str:
    parts = list_seconds(solution)
    text = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    return f"{sum(parts.values()):.1f} ({text})" if len(parts) > 1 else text


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
