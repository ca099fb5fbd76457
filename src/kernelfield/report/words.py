"""What the page says in words: settings, the main numbers, and how to read the error bars."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from kernelfield import observables
from kernelfield.describe.architecture import Architecture, Network
from kernelfield.describe.networks import MLP
from kernelfield.describe.training import (
    SGD,
    Adam,
    Descent,
    GradientDescent,
    GradientFlow,
    Langevin,
    Momentum,
    Training,
)
from kernelfield.finite.method import FiniteWidth
from kernelfield.layers import Activation
from kernelfield.observables import Points, compare
from kernelfield.observables.compare import Comparison, Row
from kernelfield.plotting.summary import describe_run, format_settings
from kernelfield.report.result import NO_BREAK, Result
from kernelfield.solution.estimate import Estimate

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
AGREES = 1.5  # times the noise: an error below that is what two equal things would show


def write_title(main: Result) -> str:
    """Returns a title for the page."""
    return f"{_describe_network(main.solution.network)}, {'finite' if main.finite else 'infinite'} width"


def write_lead(results: Sequence[Result]) -> str:
    """Returns two sentences about what was solved."""
    network, problem, training = results[0].solution.network, results[0].solution.problem, results[0].solution.training
    tests = int((problem.weights == 0).sum())
    data = f"{_count(problem.points - tests, 'point')} in {_count(problem.dimensions, 'dimension')}"
    data += f" with {_count(problem.outputs, 'output')}" if problem.outputs > 1 else ""
    data += f" ({tests} more ride along as test points)" if tests else ""
    data += f" by the loss {problem.loss.name}" if problem.loss.name != "mse" else ""
    strength = f"(gamma0{NO_BREAK}={NO_BREAK}{network.gamma0:g})"
    first = f"{_describe_network(network)} {strength} learned {data} {_describe_training(training)}."
    methods = [_describe_method(result) for result in results]
    if len(results) == 1:
        return f"{first} Shown is {methods[0]}."
    main, *others = (f"{method} ({result.name})" for method, result in zip(methods, results, strict=True))
    return f"{first} Shown is {main}, beside {join(others)}."


def tabulate_settings(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Returns rows of the table of settings: name, and an entry for each result, or a single one that all share."""
    columns = []
    for result in results:
        solution, steps = result.solution, f"{results[0].solution.training.unit}s"
        done = f"{solution.steps_done} of {solution.training.steps}"
        columns.append({**describe_run(solution), steps: done, "replicates": count_replicates(result)})
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, [column.get(name, "–") for column in columns]) for name in names]
    return [(name, row[:1] if len(set(row)) == 1 else row) for name, row in rows]


def count_replicates(result: Result) -> str:
    """Returns how many replicates a result has, and what they are."""
    if result.solution.exact:
        return "exact, no sampling"
    kind = "seeds" if result.finite else "independent runs"
    return "one" if result.replicates == 1 else f"{result.replicates} {kind}"


def list_numbers(
    results: Sequence[Result], comparisons: Sequence[tuple[Result, Comparison]]
) -> list[tuple[str, str, str]]:
    """Returns final losses and accuracies, movement and alignment of the last layer, and distances of the others.

    Each is a label, a number as text, and a note: its uncertainty, or what it is compared with.
    """
    main = results[0].solution
    tests = bool((main.problem.weights == 0).any())
    groups: dict[Points, str] = {"train": "training", "test": "test"} if tests else {"train": "training"}
    numbers = []

    def add(label: str, estimate: Estimate, digits: int = 3, unit: str = "", note: str = "") -> None:
        value = format_number(float(estimate.mean), digits) + unit
        numbers.append((label, value, note + _format_estimate(estimate)))

    for points, name in groups.items():
        add(f"final {name} loss", _take_last(observables.loss(main, points)), digits=4)
    if main.problem.outputs > 1:
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
        numbers.append((f"predictions of {result.name} differ by", _percent(row.error, row.error_se), note))
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
    if not is_resolved(row):
        return f"{apart}, about {noise}: no difference is resolved."
    return f"{apart}, more than {noise}: they differ."


def is_resolved(row: Row) -> bool:
    """Returns whether an error is above its noise; not if the noise is unknown."""
    return row.error > AGREES * row.noise


def _describe_network(network: Architecture) -> str:
    if isinstance(network, Network):
        names = [layer.nonlinearity.name if isinstance(layer, Activation) else type(layer).__name__
                 for layer in network.layers.layers]  # fmt: skip
        return f"The network {', '.join(names)}"
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
        return f"in {_count(training.steps, 'step')} of gradient descent with {join(options)}"
    if isinstance(training, Langevin):
        return f"in {_count(training.steps, 'step')} of Langevin dynamics with {join(options)}"
    if isinstance(training, Adam):
        length = f"in {_count(training.steps, training.unit)} of {type(training).__name__}"
        batches = f"batches of {training.batch_size}, " if training.batch_size else ""
        return f"{length}, {batches}{', '.join(options)}"
    if isinstance(training, SGD):
        order = " drawn with replacement" if training.replacement else ""
        batches = f"batches of {training.batch_size}{order}, {_count(training.epochs, 'epoch')}"
        return f"by stochastic gradient descent, {batches}, {', '.join(options)}"
    fresh = f"{training.batch_size} fresh points in each of {training.every * training.steps} updates"
    return f"by online stochastic gradient descent, {fresh}, {', '.join(options)}"


def _list_options(training: Descent) -> list[str]:
    """Returns the learning rate in words, and everything else that differs from plain descent."""
    options = [f"learning rate {training.learning_rate:g}"]
    if isinstance(training, Momentum):
        options += [f"momentum {training.momentum:g}"] * (training.momentum > 0)
        options += [] if training.rule is None else [training.rule.kind.replace("_", " ") + " in place of gradients"]
    options += [f"weight decay {training.weight_decay:g}"] * (training.weight_decay > 0)
    if isinstance(training, Langevin):
        options.append(f"temperature {training.temperature:g}")
    if isinstance(training, Adam):
        options.append("betas {:g} and {:g}".format(*training.betas))
    if training.schedule != "constant":
        name = training.schedule if isinstance(training.schedule, str) else "custom"
        options.append(f"a {name} schedule")
    return options


def _describe_method(result: Result) -> str:
    method, exact = result.solution.method, result.solution.exact
    name = type(method).__name__
    if isinstance(method, FiniteWidth):
        recorded = ", recorded while it trained" if result.solution.info.get("recorded") else ""
        recorded = recorded.replace("it", "they") if method.seeds > 1 else recorded
        return f"{_count(method.seeds, 'network')} of width {method.width}{recorded}"
    neurons = f"{result.replicates} × {getattr(method, 'particles', '')}"
    texts = {
        "March": "the full theory of infinite width, " + ("exactly" if exact else f"on {neurons} sampled neurons"),
        "StaticNTK": "the static tangent kernel, infinite width in the lazy limit",
        "GradientIndependence": "infinite width in the gradient-independence approximation",
        "Perturbation": "infinite width to leading order in gamma0",
        "DeepLinear": "the full theory of linear networks of infinite width, exactly",
        "AlternatingMonteCarlo": "the full theory of infinite width by alternating Monte Carlo",
        "BayesianPosterior": "the Bayesian posterior at infinite width, where Langevin dynamics comes to rest",
    }
    return texts.get(name, f"the method {name}")


def _format_estimate(estimate: Estimate) -> str:
    if estimate.exact:
        return "exact"
    if len(estimate.replicates) < 2:
        return "one replicate, no error bar"
    low, high = estimate.interval(0.95)
    return f"95 %: {format_interval(float(low), float(high))}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_number(value: float, digits: int = 3) -> str:
    """Returns a number with a proper minus sign; a dash where there is none."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "\N{EN DASH}"


def format_interval(low: float, high: float) -> str:
    """Returns "low to high", with enough digits to tell them apart."""
    pairs = [(format_number(low, digits), format_number(high, digits)) for digits in range(3, 7)]
    return " to ".join(next((pair for pair in pairs if pair[0] != pair[1]), pairs[0]))


def format_with_error(value: float, se: float, digits: int = 3, error_digits: int = 2) -> str:
    """Returns "value ± se" with so many digits of the standard error; a value without one has its own `digits`."""
    return compare.format_with_error(value, se, error_digits, f".{digits}g").replace("-", "\N{MINUS SIGN}")


def format_symbol(kernel: str, layer: int | None) -> str:
    """Returns the name of a kernel in plain text, with its layer as a superscript."""
    letter = "Φ" if kernel == "Phi" else kernel
    return letter if layer is None else letter + str(layer).translate(SUPERSCRIPTS)


def join(items: Sequence[str]) -> str:
    """Returns items as an enumeration in words."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
