"""Transformers that look up a value in their context, at infinite width and as finite networks.

A sequence has three items, each a key with a value, and a question, which is one of the keys. The answer is the value
of this key. From 128 sequences, rich training at infinite width learns to look it up: it answers 99.2 % of 128 new
sequences (standard error 0.3 %), lazy training 72.7 % (0.6 %). The rich answer follows the value that is asked for five
times as far as another value (0.81 and 0.15, where 1 and 0 are perfect), the lazy one 1.5 times as far (0.23 and 0.16).
Networks of width 256 are three times closer to infinite width than those of width 16.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernelfield import observables, plotting
from kernelfield.describe.networks import Transformer
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import SGD
from kernelfield.figures.common import INFINITE, Say, Settings, new_figure, solve_and_say, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS, VALUES, ITEMS = 4, 3, 3
HEAD_DIM = 2
GAMMAS = {"lazy": 0.05, "rich": 2.0}
COLOURS = {"lazy": plotting.LAZY, "rich": plotting.RICH}
MARKED = 11  # epochs at which changes are measured, and dots drawn


@dataclass(frozen=True)
class Plan:
    """The sizes of all runs.

    Args:
        points, tests: sequences that train, and others.
        rate, batch, epochs: of stochastic gradient descent.
        particles, replicates: of infinite width.
        seeds: number of networks, by their width N.
    """

    points: int
    tests: int
    rate: float
    batch: int
    epochs: int
    particles: int
    replicates: int
    seeds: Mapping[int, int]


FULL = Plan(
    points=128,
    tests=128,
    rate=0.1,
    batch=32,
    epochs=30,
    particles=512,
    replicates=4,
    seeds={16: 16, 32: 16, 64: 8, 128: 8, 256: 4},
)
QUICK = Plan(points=32, tests=16, rate=0.1, batch=16, epochs=5, particles=128, replicates=2, seeds={16: 4, 64: 4})


class Runs(NamedTuple):
    """Solutions: of infinite width by regime, of networks by regime and width."""

    theory: dict[str, Solution]
    networks: dict[tuple[str, int], Solution]


class Changes(NamedTuple):
    """How far outputs move when a value changes: of the item asked for, and of another one, (epochs,) each."""

    epochs: np.ndarray
    asked: Estimate
    other: Estimate


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and about each panel."""
    plan = QUICK if settings.quick else FULL
    yield "transformer", draw_figure(plan, run(plan, say), say)


# --- sequences, as rows of the keys and the values of all items and the place of the item asked for


def choose_sequences(count: int) -> np.ndarray:
    """Returns `count` different rows (count, 2 ITEMS + 1), in which no key occurs twice."""
    keys, values = itertools.permutations(range(KEYS), ITEMS), itertools.product(range(VALUES), repeat=ITEMS)
    rows = [(*some, *others, asked) for some, others, asked in itertools.product(keys, values, range(ITEMS))]
    return np.random.default_rng(0).permutation(np.array(rows))[:count]


def change_value(rows: np.ndarray, item: int) -> np.ndarray:
    """Returns rows with the next value in one of their items."""
    changed = rows.copy()
    changed[:, ITEMS + item] = (rows[:, ITEMS + item] + 1) % VALUES
    return changed


def encode(rows: np.ndarray) -> np.ndarray:
    """Returns token ids (P, ITEMS + 1): a key with its value is one token, and so is a question."""
    keys, values, asked = rows[:, :ITEMS], rows[:, ITEMS:-1], rows[:, -1:]
    return np.concatenate([VALUES * keys + values, KEYS * VALUES + np.take_along_axis(keys, asked, axis=1)], axis=1)


def answer(rows: np.ndarray) -> np.ndarray:
    """Returns targets (P, VALUES): one-hot rows of the value asked for, less their mean."""
    return np.eye(VALUES)[rows[np.arange(len(rows)), ITEMS + rows[:, -1]]] - 1 / VALUES


# --- runs, and what is measured


def run(plan: Plan, say: Say) -> Runs:
    """Returns all Solutions, and says a line about each."""
    rows, runs = choose_sequences(plan.points + plan.tests), Runs({}, {})
    trains = np.arange(len(rows)) < plan.points
    problem = Problem(encode(rows), answer(rows), weights=trains, vocabulary=KEYS * (VALUES + 1))
    training = SGD(learning_rate=plan.rate, batch_size=plan.batch, epochs=plan.epochs)
    marked = choose_epochs(plan.epochs).tolist()
    march = March(particles=plan.particles, replicates=plan.replicates, kernels="none")
    for regime, gamma0 in GAMMAS.items():
        network = Transformer(depth=1, head_dim=HEAD_DIM, readout="last", gamma0=gamma0)
        setting = say, network, problem, training
        runs.theory[regime] = solve_and_say(f"{regime}, {INFINITE}", *setting, march, marked)
        for N, seeds in plan.seeds.items():
            method = FiniteWidth(width=N, seeds=seeds, kernels="none")
            runs.networks[regime, N] = solve_and_say(f"{regime}, N = {N}", *setting, method, marked)
    return runs


def choose_epochs(last: int) -> np.ndarray:
    """Returns the epochs after the first at which changes are measured."""
    return plotting.thin(last + 1, MARKED)[1:]


def measure_changes(solution: Solution, tests: np.ndarray) -> Changes:
    """Returns how far outputs at test rows move when one value changes, rms in units of the change of the target.

    A perfect answer follows a change of the item asked for by 1, and one of another item by 0.
    """
    versions = [tests, *(change_value(tests, item) for item in range(ITEMS))]
    epochs, asked = choose_epochs(solution.steps_done), np.eye(ITEMS, dtype=bool)[tests[:, -1]]
    found: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for epoch in epochs:
        f = solution.predict(encode(np.concatenate(versions)), step=epoch).replicates
        before, *after = np.split(f, ITEMS + 1, axis=1)
        squares = np.stack(
            [np.sum((moved - before) ** 2, axis=-1) / 2 for moved in after], axis=-1
        )  # |e_a - e_b|^2 = 2
        for values, items in zip(found, (asked, ~asked), strict=True):
            values.append(np.sqrt(squares[:, items].mean(axis=1)))
    return Changes(epochs, *(Estimate(np.stack(values, axis=1)) for values in found))


def measure_distance(networks: Solution, theory: Solution) -> Estimate:
    """Returns how far a network is from infinite width, |f_N - f| / |f|, rms over points and epochs, one per seed."""
    f = theory.predictions
    squares = ((networks.replicate_predictions - f) ** 2).reshape(len(networks.replicate_predictions), -1)
    return Estimate(np.sqrt(squares.mean(axis=1) / np.mean(f**2)))


# --- the figure


def draw_figure(plan: Plan, runs: Runs, say: Say) -> Figure:
    """Returns the figure, and says the numbers of every panel."""
    figure = new_figure(13.5, 4.4)
    panels = figure.subplots(1, 3)
    _draw_accuracy(panels[0], runs, say)
    _draw_changes(panels[1], choose_sequences(plan.points + plan.tests)[plan.points :], runs, say)
    _draw_distances(panels[2], runs, say)
    for letter, axes, text in zip(
        "abc",
        panels,
        ("answers to new sequences", "answers follow one item", "distance from infinite width"),
        strict=True,
    ):
        write_heading(axes, letter, text)
    task = f"{KEYS} keys, {VALUES} values, {plan.points} sequences of {ITEMS} items and a question"
    network = f"one block, heads of dimension {HEAD_DIM}"
    write_caption(figure, f"{task}; {network}, $\\eta$ = {plan.rate:g}, batches of {plan.batch}; 95 % intervals")
    return figure


def _widest(runs: Runs) -> int:
    return max(N for _, N in runs.networks)


def _draw_accuracy(axes: Axes, runs: Runs, say: Say) -> None:
    N = _widest(runs)
    for regime, theory in runs.theory.items():
        networks, colour = runs.networks[regime, N], COLOURS[regime]
        found = {points: observables.accuracy(theory, points) for points in ("train", "test")}
        finite = observables.accuracy(networks, "test")
        label = f"{regime}, $\\gamma_0$ = {GAMMAS[regime]:g}, {INFINITE}"
        plotting.curve(axes, theory.steps(), found["test"], colour, label)
        plotting.dots(axes, networks.steps(), finite, colour, count=MARKED)
        axes.plot(theory.steps(), found["train"].mean, ":", color=colour, lw=1.4)
        ends = {"train": found["train"], "new": found["test"], f"new, N = {N}": finite}
        text = ", ".join(
            f"{name} {100 * value.mean[-1]:.1f} ({100 * value.se[-1]:.1g})" for name, value in ends.items()
        )
        say(f"{regime}: right answers at the end, in % (standard error): {text}")
    axes.plot([], [], "o", color=plotting.NEUTRAL, mfc="white", mew=1.6, label=f"networks, N = {N}")
    axes.plot([], [], ":", color=plotting.NEUTRAL, lw=1.4, label="sequences that train")
    axes.axhline(1 / VALUES, color=plotting.NEUTRAL, lw=0.9, ls=(0, (2, 3)), label="guessing")
    last = max(solution.steps_done for solution in runs.theory.values())
    axes.set(xlabel="epoch", ylabel="share of right answers", xlim=(0.5, last + 0.5), ylim=(0, 1.03))
    _finish(axes, "lower right")


def _draw_changes(axes: Axes, tests: np.ndarray, runs: Runs, say: Say) -> None:
    N, parts = _widest(runs), {"asked": ("the item asked for", "-"), "other": ("another item", "--")}
    for regime, theory in runs.theory.items():
        found, finite = (measure_changes(each, tests) for each in (theory, runs.networks[regime, N]))
        for name, (label, style) in parts.items():
            line, dots = getattr(found, name), getattr(finite, name)
            plotting.curve(axes, found.epochs, line, COLOURS[regime], style=style)
            plotting.dots(axes, finite.epochs, dots, COLOURS[regime], count=MARKED)
            say(
                f"{regime}: the answer follows a change of {label} by {line.mean[-1]:.3f} ({line.se[-1]:.1g}), "
                f"N = {N} by {dots.mean[-1]:.3f} ({dots.se[-1]:.1g})"
            )
    for label, style in parts.values():
        axes.plot([], [], style, color=plotting.NEUTRAL, lw=2, label=f"a change of {label}")
    axes.axhline(1, color=plotting.NEUTRAL, lw=0.9, ls=(0, (2, 3)), label="the target follows the item asked for")
    axes.set(xlabel="epoch", ylabel="how far the answer follows it", ylim=(0, 1.1))
    _finish(axes, "center right")


def _draw_distances(axes: Axes, runs: Runs, say: Say) -> None:
    widths = np.array(sorted({N for _, N in runs.networks}))
    distances = {
        regime: [measure_distance(runs.networks[regime, N], theory) for N in widths]
        for regime, theory in runs.theory.items()
    }
    for regime, values in distances.items():
        means, errors = np.array([(each.mean, each.interval(0.95)[1] - each.mean) for each in values]).T
        axes.errorbar(widths, means, errors, fmt="o-", color=COLOURS[regime], capsize=3, label=regime)
        f = runs.theory[regime].estimate("predictions")
        noise = np.sqrt(np.mean(f.se**2) / np.mean(f.mean**2))
        text = ", ".join(f"N = {N}: {each.mean:.3f} ({each.se:.1g})" for N, each in zip(widths, values, strict=True))
        say(f"{regime}: distance of a network from infinite width {text}; error of infinite width {noise:.1g}")
    guide = float(distances["lazy"][-1].mean) * np.sqrt(widths[-1] / widths)
    axes.plot(widths, guide, ":", color=plotting.NEUTRAL, label=r"$\propto N^{-1/2}$")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="width $N$",
        ylabel=r"$|f_N - f_\infty|\,/\,|f_\infty|$ of one network",
        ylim=(0.12, 1.1),
    )
    axes.set_xticks(widths, labels=[str(N) for N in widths])
    ticks = [0.1, 0.2, 0.4, 0.8]
    axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _finish(axes, "upper right")


def _finish(axes: Axes, place: Any) -> None:
    plotting.plain(axes)
    axes.legend(fontsize=8.5, frameon=False, loc=place)
