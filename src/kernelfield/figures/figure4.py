"""Figure 4 of the paper: convolutional networks of several channel counts and gamma0, and infinitely many channels.

Rich networks train alike at all channel counts: curves of one gamma0 fall together, those of different gamma0 do not.
Below, on few images, the theory of infinitely many channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kernelfield import observables, plotting
from kernelfield.datasets import cifar, digits
from kernelfield.describe.networks import CNN
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import SGD, GradientDescent
from kernelfield.figures.common import Say, Settings, new_figure, solve_and_say, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables.kernels import align
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {1.0: "#2a6f97", 5.0: "#e09f3e", 10.0: "#9b2226"}  # of every gamma0
MARKED = 11  # rows at which fields are recorded, and dots drawn, at most
MARKS = ("--", "-")  # channel counts, small and large


@dataclass(frozen=True)
class Plan:
    """The sizes of all runs.

    Args:
        gammas: gamma0, some of those that have a colour.
        points, tests: images that train, and others.
        depth: convolutions.
        channels: N, two of them.
        seeds: networks of each.
        batch, rate, epochs: of stochastic gradient descent.
        few, few_tests, few_rate, few_steps: the same of the small problem, without batches.
        few_channels: N of its networks.
        particles: of the theory.
    """

    gammas: tuple[float, ...] = tuple(COLOURS)
    points: int = 160
    tests: int = 160
    depth: int = 2
    channels: tuple[int, int] = (16, 64)
    seeds: int = 8
    batch: int = 20
    rate: float = 0.1
    epochs: int = 75
    few: int = 4
    few_tests: int = 4
    few_rate: float = 0.05
    few_steps: int = 60
    few_channels: tuple[int, int] = (32, 256)
    particles: int = 1024


QUICK = Plan(
    points=40, tests=40, channels=(16, 64), seeds=4, epochs=100,
    few_tests=2, few_steps=20, few_rate=0.1, few_channels=(32, 128), particles=512,
)  # fmt: skip


class Runs(NamedTuple):
    """Solutions: of networks by (gamma0, N) on many and on few images, of the theory by gamma0 on the few."""

    many: dict[tuple[float, int], Solution]
    few: dict[tuple[float, int], Solution]
    theory: dict[float, Solution]


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run.

    The images are handwritten digits; those of CIFAR-10, grey and pooled, if the settings have its folder.
    """
    plan = QUICK if settings.quick else Plan()
    yield "figure4", draw_figure(plan, run(plan, settings, say), settings, say)


def images(settings: Settings, points: int, tests: int) -> Problem:
    """Returns images of two classes, 4 x 4 pixels: as many as train, and others, of weight zero, the last of each."""
    total = points + tests
    if settings.cifar is None:
        data = digits(classes=(4, 9), points=total, images=True, pool=2)
    else:
        data = cifar(settings.cifar, points=total, images=True, grey=True, pool=8)
    trains = np.arange(total) % (total // 2) < points // 2
    return Problem(data.X, data.y, weights=trains)


def run(plan: Plan, settings: Settings, say: Say) -> Runs:
    """Returns all Solutions, and says a line about each."""
    runs = Runs({}, {}, {})
    problem, small = images(settings, plan.points, plan.tests), images(settings, plan.few, plan.few_tests)
    training = SGD(learning_rate=plan.rate, batch_size=plan.batch, epochs=plan.epochs)
    few_training = GradientDescent(learning_rate=plan.few_rate, steps=plan.few_steps)
    rows, few_rows = choose_rows(plan.epochs), choose_rows(plan.few_steps)
    march = March(particles=plan.particles, kernels="features")
    for gamma0 in plan.gammas:
        network, name = CNN(depth=plan.depth, activation="relu", gamma0=gamma0), f"gamma0 = {gamma0:g}"
        for N in plan.channels:
            method = FiniteWidth(width=N, seeds=plan.seeds, kernels="none")
            runs.many[gamma0, N] = solve_and_say(f"{name}, N = {N}", say, network, problem, training, method, rows)
        name, rest = f"few images, {name}", (say, network, small, few_training)
        for N in plan.few_channels:
            method = FiniteWidth(width=N, seeds=2 * plan.seeds, kernels="none")
            runs.few[gamma0, N] = solve_and_say(f"{name}, N = {N}", *rest, method, few_rows)
        runs.theory[gamma0] = solve_and_say(f"{name}, theory", *rest, march, few_rows)
    return runs


def choose_rows(last: int) -> list[int]:
    """Returns about MARKED rows of 0..last, equally spaced, with both ends."""
    return plotting.thin(last + 1, MARKED).tolist()


def test_loss(solution: Solution) -> Estimate:
    """Returns the loss of the test images (rows,)."""
    return observables.loss(solution, points="test")


def test_error(solution: Solution) -> Estimate:
    """Returns the share of test images on the wrong side (rows,)."""
    accuracy = observables.accuracy(solution, points="test")
    return Estimate(1 - accuracy.replicates, accuracy.exact)


def margin(solution: Solution) -> Estimate:
    """Returns the mean of y f over test images (rows,)."""
    tests = solution.problem.weights == 0
    predictions = solution.estimate("predictions").replicates[..., tests]
    return Estimate((predictions * solution.problem.y[tests]).mean(axis=-1), solution.exact)


def alignment(solution: Solution) -> Estimate:
    """Returns the alignment of the kernel that enters the readout with the targets of test images (recorded steps,).

    The network averages over sites before its readout.
    """
    tests = solution.problem.weights == 0
    y, sites, values = solution.problem.y[tests], int(np.prod(solution.problem.X.shape[1:-1])), []
    for step in recorded_steps(solution):
        h = solution.field_samples[solution.network.hidden_layers, step]["h"][:, tests]
        features = np.maximum(h, 0).reshape(*h.shape[:2], sites, -1).mean(axis=2)
        values.append(align(features @ features.swapaxes(1, 2), y[:, None]))
    return Estimate(np.stack(values, axis=1), solution.exact)


ALIGNMENT = r"alignment $A(\Phi^L, y y^\top)$"
MEASURES: dict[str, Callable[[Solution], Estimate]] = {
    "test loss": test_loss,
    "test error": test_error,
    ALIGNMENT: alignment,
}
MEASURES_OF_FEW = {  # so few images have hardly an error: how far they are on their side says more
    "test loss": test_loss,
    "margin $y f$ of test images": margin,
    ALIGNMENT: alignment,
}


def recorded_steps(solution: Solution) -> list[int]:
    """Returns the steps at which fields were recorded."""
    return sorted({step for _, step in solution.field_samples})


def times(solution: Solution, curve: Estimate) -> np.ndarray:
    """Returns the training times of a curve of all steps, or of those at which fields were recorded."""
    of_all = len(curve.mean) == len(solution.times)
    return solution.times if of_all else solution.times[recorded_steps(solution)]


def spread(curves: Mapping[tuple[float, int], np.ndarray]) -> tuple[float, float]:
    """Returns how far apart curves by (gamma0, N) are, rms over time and over pairs of networks.

    The first number is across N at the same gamma0, the second one across gamma0 at the same N.
    """
    squares: tuple[list[float], list[float]] = [], []
    for (one, a), (other, b) in itertools.combinations(curves.items(), 2):
        if (one[0] == other[0]) != (one[1] == other[1]):
            squares[one[1] == other[1]].append(float(np.mean((a - b) ** 2)))
    across_channels, across_gamma0 = (float(np.sqrt(np.mean(values))) for values in squares)
    return across_channels, across_gamma0


def draw_figure(plan: Plan, runs: Runs, settings: Settings, say: Say) -> Figure:
    """Returns the figure, and says how far curves are apart."""
    figure = new_figure(13.5, 8.2)
    above, below = figure.subplots(2, 3)
    for letter, axes, name in zip("abc", above, MEASURES, strict=True):
        _draw_many(axes, plan, runs, name, say)
        write_heading(axes, letter, name)
    for letter, axes, name in zip("def", below, MEASURES_OF_FEW, strict=True):
        _draw_few(axes, plan, runs, name, say)
        write_heading(axes, letter, "few images, and theory")
    above[0].legend(fontsize=8, frameon=False)
    below[0].legend(fontsize=8, frameon=False)
    data = "digits 4 and 9" if settings.cifar is None else "CIFAR-10 airplanes and automobiles, grey"
    about = f"{data}, 4 x 4 pixels; {plan.depth} convolutions, ReLU"
    top = f"top: {plan.points} images in batches of {plan.batch}, $\\eta$ = {plan.rate:g}, {plan.epochs} epochs"
    bottom = f"bottom: {plan.few} images, {plan.few_tests} to test, $\\eta$ = {plan.few_rate:g}"
    write_caption(figure, f"{about}; {top}; {bottom}")
    return figure


def _draw_many(axes: Axes, plan: Plan, runs: Runs, name: str, say: Say) -> None:
    curves = {key: MEASURES[name](solution) for key, solution in runs.many.items()}
    across_channels, across_gamma0 = spread({key: curve.mean for key, curve in curves.items()})
    apart = f"{across_channels:.3g} across N at fixed gamma0, {across_gamma0:.3g} across gamma0 at fixed N"
    say(f"{_without_tex(name)}: apart by {apart}")
    for (gamma0, channels), curve in curves.items():
        solution, label = runs.many[gamma0, channels], f"$\\gamma_0$ = {gamma0:g}, N = {channels}"
        _draw_band(axes, solution, curve, COLOURS[gamma0], label, MARKS[plan.channels.index(channels)])
    axes.set(xlabel=r"training time $\eta t$", ylabel=name)


def _draw_few(axes: Axes, plan: Plan, runs: Runs, name: str, say: Say) -> None:
    measure = MEASURES_OF_FEW[name]
    for gamma0, theory in runs.theory.items():
        expected, colour = measure(theory), COLOURS[gamma0]
        _draw_band(axes, theory, expected, colour, f"theory, $\\gamma_0$ = {gamma0:g}", "-")
        for channels, mark, fill in zip(plan.few_channels, "so", ("white", colour), strict=True):
            networks = runs.few[gamma0, channels]
            curve, label = measure(networks), f"N = {channels}" if gamma0 == plan.gammas[-1] else ""
            rows = choose_rows(len(curve.mean) - 1)
            t, mean, se = times(networks, curve)[rows], curve.mean[rows], curve.se[rows]
            axes.errorbar(t, mean, se, fmt=mark, ms=4.5, mfc=fill, color=colour, label=label)
            gap = np.sqrt(np.mean((curve.mean - expected.mean) ** 2))
            noise = np.sqrt(np.mean(curve.se**2 + expected.se**2))
            about = f"few images, gamma0 = {gamma0:g}, N = {channels}: {_without_tex(name)}"
            say(f"{about} {gap:.3g} from theory ({noise:.2g} expected)")
    axes.set(xlabel=r"training time $\eta t$", ylabel=name)


def _without_tex(name: str) -> str:
    return name.replace("$", "").replace("\\", "")


def _draw_band(axes: Axes, solution: Solution, curve: Estimate, colour: str, label: str, style: str) -> None:
    """Draws a mean with its standard error."""
    t = times(solution, curve)
    axes.plot(t, curve.mean, style, color=colour, label=label, lw=1.8)
    axes.fill_between(t, curve.mean - curve.se, curve.mean + curve.se, color=colour, alpha=0.18, lw=0)
