"""Several methods over a range of gamma0: how far each of them stays from the references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Training
from kernelfield.observables.compare import Comparison, Quantity, compare_all
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

QUANTITIES: tuple[Quantity, ...] = ("predictions", "Phi", "G", "NTK")


@dataclass(frozen=True)
class Point:
    """The solutions at one gamma0, and their comparisons."""

    gamma0: float
    solutions: Mapping[str, Solution]  # by the name of their method
    comparisons: Mapping[tuple[str, str], Comparison]  # by the names of reference and method


def sweep_gamma(
    network: Architecture,
    problem: Problem,
    training: Training,
    methods: Mapping[str, Method],
    gammas: Sequence[float],
    references: Sequence[str],
) -> Iterator[Point]:
    """Solves by every method at every gamma0, and compares with the references.

    Args:
        network, problem, training: as for `kernelfield.solve`; the network's own gamma0 is not used.
        methods: by name.
        gammas: values of gamma0.
        references: names of the methods that the others are compared with.

    Yields:
        Point, one for each gamma0, as soon as it is done.

    Raises:
        ValueError: a reference is not among the methods, or a method cannot solve this.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> methods = {"theory": kf.March(), "lazy": kf.StaticNTK()}
        >>> network = kf.MLP(depth=2, activation="linear")
        >>> points = kf.sweep_gamma(network, problem, training, methods, [0.1, 1.0], ["theory"])
        >>> small, large = (point.comparisons["theory", "lazy"].row("NTK").error for point in points)
        >>> small < large
        True
    """
    unknown = [name for name in references if name not in methods]
    if unknown:
        raise ValueError(f"references must be among {', '.join(methods)}, got {unknown[0]}")
    for gamma0 in gammas:
        at_gamma0 = type(network)(**{**dict(network), "gamma0": gamma0})
        solutions = {name: solve(at_gamma0, problem, training, method) for name, method in methods.items()}
        comparisons = {}
        for reference in references:
            others = {name: solution for name, solution in solutions.items() if name != reference}
            results = compare_all(others, solutions[reference])
            comparisons |= {(reference, name): comparison for name, comparison in results.items()}
        yield Point(gamma0, solutions, comparisons)


def worst_alignment(comparison: Comparison, quantity: Quantity) -> tuple[float, float] | None:
    """Returns the least alignment of a layer at all times, and its standard error; None if it was not compared."""
    rows = [row for row in comparison.rows if (row.quantity, row.times) == (quantity, "all")]
    worst = min(rows, key=lambda row: row.alignment, default=None)
    return None if worst is None else (worst.alignment, worst.alignment_se)


def records(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Returns a dictionary for each row of each comparison, with gamma0, method and reference, as JSON can hold it."""
    return [
        {"gamma0": point.gamma0, "method": name, "reference": reference, **row}
        for point in points
        for (reference, name), comparison in point.comparisons.items()
        for row in comparison.to_records()
    ]
