"""Two Solutions side by side: relative error and alignment of all that they predict, with error bars.

All follows from the Gram matrix M of inner products between the replicates of both solutions. With A and B
the means over replicates of a quantity, all its entries in one vector,

    error = |A - B| / |B|,    alignment = <A, B> / (|A| |B|),

and A, B, and both with any replicate left out, are weighted sums of replicates. M is summed over blocks of
times, so that no array with all pairs of times is held. Its rows are replicates minus B, and B itself: errors
far below the square root of the rounding error survive, which inner products of the replicates would lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.solution import Estimate, Solution

Quantity = Literal["predictions", "Phi", "G", "NTK"]
When = Literal["all", "final"]
BLOCK_NUMBERS = 2**22  # of both solutions' kernels that are held at once


@dataclass(frozen=True)
class Row:
    """How far one quantity of a solution, A, is from that of its reference, B; both are means over replicates.

    Args:
        quantity: "predictions" f, "Phi", "G" or "NTK".
        layer: of Phi and G, 1..L; None for the others.
        times: "all": all rows that both have (for kernels all pairs of times), or "final": the last of them.
        error: |A - B| / |B|, root mean squares over all entries; NaN where B is zero.
        error_se: its standard error, from leaving out one replicate of either side at a time.
        noise: the error to expect if the two truly agree, from the standard errors of all entries.
        alignment: cosine between A and B; NaN where one of them is zero.
        alignment_se: its standard error.
    """

    quantity: Quantity
    layer: int | None
    times: When
    error: float
    error_se: float
    noise: float
    alignment: float
    alignment_se: float

    @property
    def name(self) -> str:
        """Quantity and layer, as in "Phi 2"."""
        return self.quantity if self.layer is None else f"{self.quantity} {self.layer}"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    A standard error is zero where both sides are exact, and NaN where a side has a single sampled replicate.

    Args:
        rows: one for each quantity and layer, first over all times, then of the final one.
    """

    rows: tuple[Row, ...]

    def row(self, quantity: Quantity, layer: int | None = None, times: When = "all") -> Row:
        """The row of a quantity.

        Args:
            quantity: "predictions", "Phi", "G" or "NTK".
            layer: of Phi and G, 1..L.
            times: "all" or "final".

        Returns:
            Row.

        Raises:
            ValueError: naming what was compared, if this was not.
        """
        for row in self.rows:
            if (row.quantity, row.layer, row.times) == (quantity, layer, times):
                return row
        names = ", ".join(dict.fromkeys(row.name for row in self.rows))
        wanted = quantity if layer is None else f"{quantity} {layer}"
        raise ValueError(f"{wanted} at {times} times was not compared; at 'all' and 'final' times these were: {names}")

    def table(self) -> Table:
        """All rows as a rich Table, to print."""
        about = "noise: the error to expect if the two truly agree"
        out = Table(box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")
        out.add_column("", no_wrap=True)
        for name in ("times", "relative error, %", "noise, %", "alignment"):
            out.add_column(name, justify="right", no_wrap=True)
        for times in ("all", "final"):
            for row in (each for each in self.rows if each.times == times):
                error = _with_error(100 * row.error, 100 * row.error_se, 2, ".3g")
                noise = f"{100 * row.noise:.2g}" if math.isfinite(row.noise) else "-"
                out.add_row(row.name, times, error, noise, _with_error(row.alignment, row.alignment_se, 1, ".6g"))
            out.add_section()
        return out

    def to_records(self) -> list[dict[str, Any]]:
        """All rows as dictionaries that JSON can hold: NaN becomes None."""
        return [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}
            for fields in map(asdict, self.rows)
        ]


def compare(solution: Solution, reference: Solution) -> Comparison:
    """Relative error and alignment of predictions, Phi^l, G^l (l = 1..L) and the NTK, against a reference.

    Where one solution ended early, the rows that both have are compared. Kernels that one of them did not track
    are left out. Networks may differ in all but depth: lazy and rich, or two activation functions.

    Args:
        solution: what is compared.
        reference: with what; errors are relative to its size.

    Returns:
        Comparison, over all times and at the final one.

    Raises:
        ValueError: the two differ in inputs, targets, depth or learning rate.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.compare import compare
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> network = kf.MLP(depth=2, activation="linear")
        >>> infinite = kf.solve(network, problem, training, progress=False)
        >>> finite = kf.solve(network, problem, training, kf.FiniteWidth(width=2048, seeds=4), progress=False)
        >>> found = compare(finite, infinite).row("Phi", layer=2, times="final")
        >>> found.error < 0.1, found.error_se > 0, found.alignment > 0.99
        (True, True, True)
    """
    check_comparable(solution, reference)
    sides = (solution, reference)
    rows = min(len(side.times) for side in sides)
    features = all(side.feature_factors for side in sides)
    gradients = all(side.gradient_factors for side in sides)
    layers: dict[Quantity, Sequence[int | None]] = {
        "predictions": [None],
        "Phi": range(1, len(reference.feature_factors)) if features else [],
        "G": range(1, len(reference.gradient_factors)) if gradients else [],
        "NTK": [None] if features and gradients else [],
    }
    periods: dict[When, range] = {"all": range(rows), "final": range(rows - 1, rows)}
    return Comparison(
        tuple(
            Row(quantity, layer, times, **_measured(_blocks(sides, quantity, layer, period)))
            for times, period in periods.items()
            for quantity, which in layers.items()
            for layer in which
        )
    )


def check_comparable(solution: Solution, reference: Solution) -> None:
    """Raise ValueError unless the two share inputs, targets, depth and learning rate.

    Args:
        solution: one of them.
        reference: the other.

    Raises:
        ValueError: naming what differs.
    """
    for name in ("X", "y"):
        one, other = (getattr(side.problem, name) for side in (solution, reference))
        if one.shape != other.shape:
            raise ValueError(f"{name} must be the same in both solutions, got shapes {one.shape} and {other.shape}")
        if not np.array_equal(one, other):
            raise ValueError(f"{name} must be the same in both solutions, got values up to {_apart(one, other)} apart")
    for part, name in (("network", "depth"), ("training", "learning_rate")):
        one, other = (getattr(getattr(side, part), name, None) for side in (solution, reference))
        if one != other:
            raise ValueError(f"{name} must be the same in both solutions, got {one} and {other}")


def _apart(one: np.ndarray, other: np.ndarray) -> str:
    return f"{np.abs(one - other).max():.3g}"


def _blocks(
    sides: tuple[Solution, Solution], quantity: Quantity, layer: int | None, period: range
) -> Iterator[tuple[int, Estimate, Estimate]]:
    """A quantity of both sides in blocks of the times in `period`, with the number of times each block counts.

    Kernels are symmetric: a block of times t with earlier times s stands for its mirror image too.
    """
    if quantity == "predictions":
        times = slice(period.start, period.stop)
        both = (side.estimate(quantity) for side in sides)
        a, b = (Estimate(each.replicates[:, times].astype(np.float64), each.exact) for each in both)
        yield 1, a, b
        return
    method = {"Phi": "feature_kernel", "G": "gradient_kernel", "NTK": "ntk"}[quantity]
    which = () if layer is None else (layer,)
    replicates = sum(len(side.replicate_predictions) for side in sides)
    size = max(1, math.isqrt(BLOCK_NUMBERS // (replicates * sides[0].problem.points ** 2)))
    blocks = [slice(start, min(start + size, period.stop)) for start in period[::size]]
    for last, t in enumerate(blocks):
        for s in blocks[: last + 1]:
            a, b = (side.estimate(method, *which, t, s) for side in sides)
            yield 1 if s == t else 2, a, b


def _measured(blocks: Iterable[tuple[int, Estimate, Estimate]]) -> dict[str, float]:
    """Errors and alignment of a quantity, given block by block: the numbers of a Row."""
    gram, counts, exact = np.zeros(()), (0, 0), (False, False)
    for count, a, b in blocks:
        counts, exact = (len(a.replicates), len(b.replicates)), (a.exact, b.exact)
        centre = b.mean
        rows = np.concatenate([a.replicates - centre, b.replicates - centre, centre[None]])
        rows = rows.reshape(len(rows), -1)
        gram = gram + count * (rows @ rows.T)
    value, variance, scatter = _distance(gram, *map(_mean, counts)), np.zeros(2), 0.0
    for side in (0, 1):
        if not exact[side]:
            variance = variance + _jackknife(gram, counts, side)
            scatter += _scatter(gram, counts, side)
    reference = np.concatenate([np.zeros(counts[0]), _mean(counts[1]), [1.0]])
    return {
        "error": value[0],
        "error_se": float(np.sqrt(variance[0])),
        "noise": _ratio(math.sqrt(abs(scatter)), _norm(gram, reference)),
        "alignment": value[1],
        "alignment_se": float(np.sqrt(variance[1])),
    }


def _mean(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


def _distance(gram: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Error and alignment of the weighted means sum_i a_i A_i and sum_j b_j B_j; weights sum to one."""
    left = np.concatenate([a, 0 * b, [1.0]])
    right = np.concatenate([0 * a, b, [1.0]])
    sizes = math.sqrt(abs((left @ gram @ left) * (right @ gram @ right)))
    return _ratio(_norm(gram, left - right), _norm(gram, right)), _ratio(float(left @ gram @ right), sizes)


def _jackknife(gram: np.ndarray, counts: tuple[int, int], side: int) -> np.ndarray:
    """Variance of error and alignment from the replicates of one side, (2,): NaN for a single one."""
    count = counts[side]
    if count < 2:
        return np.full(2, np.nan)
    without_one, other = (1 - np.eye(count)) / (count - 1), _mean(counts[1 - side])
    pairs = [(each, other) if side == 0 else (other, each) for each in without_one]
    return (count - 1) * np.var([_distance(gram, *pair) for pair in pairs], axis=0)


def _scatter(gram: np.ndarray, counts: tuple[int, int], side: int) -> float:
    """Squared standard error of one side's mean, summed over entries: NaN for a single replicate."""
    count, start = counts[side], counts[0] * side
    if count < 2:
        return math.nan
    block = gram[start : start + count, start : start + count]
    around = np.eye(count) - 1 / count
    return float(np.trace(around @ block @ around)) / (count * (count - 1))


def _norm(gram: np.ndarray, weights: np.ndarray) -> float:
    return math.sqrt(abs(weights @ gram @ weights))  # negative by rounding alone


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _with_error(value: float, se: float, digits: int, alone: str) -> str:
    """A number with its standard error to so many digits, or in a format of its own if there is none."""
    if not math.isfinite(value):
        return "-"
    if not math.isfinite(se) or se == 0:
        return f"{value:{alone}}"
    places = max(0, digits - 1 - math.floor(math.log10(se)))
    return f"{value:.{places}f} ± {se:.{places}f}" if places < 8 else f"{value:{alone}} ± {se:.{digits}g}"
