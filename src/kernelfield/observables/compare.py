"""Two Solutions side by side: relative error and alignment of all that they predict, with error bars.

With A and B the means over replicates of a quantity, all its entries in one vector,

    error = |A - B| / |B|,    alignment = <A, B> / (|A| |B|).

Both follow from the Gram matrix M of inner products between the replicates of both solutions, and so do their
jackknife errors: A and B, with any replicate left out, are weighted sums of replicates. M is summed over blocks of
times, so that no array holds all pairs of times. Its rows are replicates minus B, and B itself: errors far below the
square root of the rounding error survive, which inner products of the replicates would lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report, bar
from kernelfield.observables.comparable import check_comparable
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import FactorKernel, RecordedKernel, Symbol
from kernelfield.solution.solution import Solution

Quantity = Literal["predictions"] | Symbol
Period = Literal["all", "final"]
NTK_ENTRIES = 4096  # times and samples of tangent kernels, at most: more times are thinned out
BLOCK_NUMBERS = 2**22  # of both solutions' kernels that are held at once


@dataclass(frozen=True)
class Row:
    """How far one quantity of a solution, A, is from that of its reference, B; both are means over replicates.

    Args:
        quantity: "predictions" f, "Phi", "G" or "NTK".
        layer: of Phi and G, 1..L; None for the others.
        times: "all": all rows that both have (for kernels all pairs of the steps that both kept; for the NTK of many
            points, equally spaced ones of them; equal times only where the NTK is known at no others), or "final": the
            last row that both have.
        error: |A - B| / |B|, root mean squares over all entries; NaN where B is zero.
        error_se: its standard error, from leaving out one replicate of either side at a time.
        noise: the error to expect if the two truly agree, from the standard errors of all entries.
        alignment: cosine between A and B; NaN where one of them is zero.
        alignment_se: its standard error.
    """

    quantity: Quantity
    layer: int | None
    times: Period
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
    """The rows that `compare` computes.

    A standard error is zero where both sides are exact, and NaN where a side has a single sampled replicate.

    Args:
        rows: one for each quantity and layer, first over all times, then of the final one.
    """

    rows: tuple[Row, ...]

    def row(self, quantity: Quantity, layer: int | None = None, times: Period = "all") -> Row:
        """Returns the row of a quantity; arguments as of `Row`.

        Raises:
            ValueError: naming what was compared, if this was not.
        """
        for row in self.rows:
            if (row.quantity, row.layer, row.times) == (quantity, layer, times):
                return row
        name = quantity if layer is None else f"{quantity} {layer}"
        names = ", ".join(dict.fromkeys(row.name for row in self.rows))
        raise ValueError(f"{name} at {times} times was not compared; at 'all' and 'final' times these were: {names}")

    def table(self) -> Table:
        """Returns all rows as a rich Table, to print."""
        about = "noise: the error to expect if the two truly agree"
        table = Table(box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")
        table.add_column("", no_wrap=True)
        for name in ("times", "relative error, %", "noise, %", "alignment"):
            table.add_column(name, justify="right", no_wrap=True)
        for times in ("all", "final"):
            for row in self.rows:
                if row.times == times:
                    error = format_with_error(100 * row.error, 100 * row.error_se, 2, ".3g")
                    noise = f"{100 * row.noise:.2g}" if math.isfinite(row.noise) else "-"
                    alignment = format_with_error(row.alignment, row.alignment_se, 1, ".6g")
                    table.add_row(row.name, times, error, noise, alignment)
            table.add_section()
        return table

    def to_records(self) -> list[dict[str, Any]]:
        """Returns all rows as dictionaries that JSON can hold: NaN becomes None."""
        return [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}
            for fields in map(asdict, self.rows)
        ]


def compare(solution: Solution, reference: Solution) -> Comparison:
    """Returns relative errors and alignments of predictions, Phi^l, G^l (l = 1..L) and the NTK, against a reference.

    Where one solution ended early, or kept the kernels of some steps, the steps that both have are compared; a kernel
    whose last step one of them did not keep has no final row. Kernels that one of them did not track are left out.
    Networks may differ in all but depth: lazy and rich, or two activation functions. Several outputs are compared at
    once, and so are gradient kernels between outputs.

    Args:
        solution: what is compared.
        reference: with what; errors are relative to its size.

    Returns:
        Comparison, over all times and at the final one.

    Raises:
        ValueError: the two differ in inputs, targets, loss, depth or training.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.observables.compare import compare
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> network = kf.MLP(depth=2, activation="linear")
        >>> infinite = kf.solve(network, problem, training, progress=False)
        >>> finite = kf.solve(network, problem, training, kf.FiniteWidth(width=512, seeds=4), progress=False)
        >>> row = compare(finite, infinite).row("Phi", layer=2, times="final")
        >>> row.error < 0.1, row.error_se > 0, row.alignment > 0.99
        (True, True, True)
    """
    return compare_all({"": solution}, reference)[""]


def compare_all(solutions: Mapping[str, Solution], reference: Solution, progress: bool = True) -> dict[str, Comparison]:
    """Returns the Comparisons of several solutions with a reference, by name, over the rows that all of them have.

    The kernels of the reference are read once. A progress bar shows what takes over two seconds if `progress` is true.
    """
    for solution in solutions.values():
        check_comparable(solution, reference)
    last = min(side.steps_done for side in (*solutions.values(), reference))
    quantities: list[tuple[Quantity, int | None]] = [("predictions", None)]
    quantities.extend(("Phi", layer) for layer in reference.hidden("Phi"))
    quantities.extend(("G", layer) for layer in reference.hidden("G"))
    quantities.extend([("NTK", None)] if reference.keeps("NTK") else [])
    rows: dict[str, list[Row]] = {name: [] for name in solutions}
    for times in ("all", "final"):
        for quantity, layer in quantities:
            sides, steps = dict(solutions), np.arange(last + 1) if times == "all" else np.array([last])
            if quantity != "predictions":
                sides = {name: side for name, side in solutions.items() if side.keeps(quantity)}
                for side in (*sides.values(), reference):
                    steps = np.intersect1d(steps, side.kernel_steps(quantity))
            if sides and len(steps):
                with bar(f"comparing {quantity}", progress) as report:
                    results = _measure([*sides.values(), reference], quantity, layer, steps, report)
                for name, numbers in zip(sides, results, strict=True):
                    rows[name].append(Row(quantity, layer, times, **numbers))
    return {name: Comparison(tuple(rows[name])) for name in solutions}


def _measure(
    sides: Sequence[Solution], quantity: Quantity, layer: int | None, steps: np.ndarray, report: Report
) -> list[dict[str, float]]:
    """Returns the numbers of a Row for each side but the last one, which is the reference."""
    if quantity == "predictions":
        f = [Estimate(side.replicate_predictions[:, steps].astype(np.float64), side.exact) for side in sides]
        blocks: Iterable[tuple[int, list[Estimate]]] = [(1, f)]
    elif any(isinstance(side.kernel(quantity, layer), RecordedKernel) for side in sides):
        times = _spread(steps, max(2, NTK_ENTRIES // (sides[0].problem.points * sides[0].problem.outputs)))
        blocks = ((1, [side.kernel_estimate(quantity, layer, int(t)) for side in sides]) for t in times)
    elif quantity == "NTK":
        blocks = _ntk_blocks(sides, steps, report)
    else:
        blocks = [(1, _cores(sides, quantity, cast(int, layer), steps))]
    grams, estimates = [np.zeros(()) for _ in sides[1:]], []
    for count, estimates in blocks:
        *others, b = estimates
        centre = b.mean
        for place, a in enumerate(others):
            rows = np.concatenate([a.replicates - centre, b.replicates - centre, centre[None]])
            rows = rows.reshape(len(rows), -1)
            grams[place] = grams[place] + count * (rows @ rows.T)
    *others, b = estimates
    return [
        _numbers(gram, (len(a.replicates), len(b.replicates)), (a.exact, b.exact))
        for gram, a in zip(grams, others, strict=True)
    ]


def _cores(sides: Sequence[Solution], symbol: Symbol, layer: int, steps: np.ndarray) -> list[Estimate]:
    """Returns kernels over all pairs of steps in a basis that all factors share: inner products stay, arrays get small.

    With all factors side by side equal to Q R, a kernel F w F^T is Q (R_F w R_F^T) Q^T.
    """
    factors, weights = [], []
    for side in sides:
        kernel = cast(FactorKernel, side.kernel(symbol, layer))
        factor = kernel.at(steps)
        factors.append(factor.reshape(len(factor), -1, factor.shape[-1]))
        weights.append(np.ones(factor.shape[-1]) if kernel.weights is None else kernel.weights.sum(axis=0))
    together = np.concatenate([columns for factor in factors for columns in factor], axis=1)
    with threadpool_limits(1, "blas"):  # threads wait for each other in tall thin factorizations
        triangle: Any = np.linalg.qr(together, mode="r")
    cores, start = [], 0
    for side, factor, weight in zip(sides, factors, weights, strict=True):
        count, _, rank = factor.shape
        parts = triangle[:, start : start + count * rank].reshape(len(triangle), count, rank).swapaxes(0, 1)
        cores.append(Estimate(parts * weight @ parts.swapaxes(1, 2), side.exact))
        start += count * rank
    return cores


def _ntk_blocks(sides: Sequence[Solution], steps: np.ndarray, report: Report) -> Iterator[tuple[int, list[Estimate]]]:
    """Yields the tangent kernels in blocks of steps, with the number of times each block counts.

    Kernels are symmetric: a block of times t with earlier times s stands for its mirror image too.
    """
    points = sides[0].problem.points * sides[0].problem.outputs
    replicates = sum(len(side.replicate_predictions) for side in sides)
    times = _spread(steps, max(2, NTK_ENTRIES // points))
    size = max(1, math.isqrt(BLOCK_NUMBERS // (replicates * points**2)))
    blocks = [times[start : start + size] for start in range(0, len(times), size)]
    pairs = [(t, s, 1 if t is s else 2) for last, t in enumerate(blocks) for s in blocks[: last + 1]]
    for done, (t, s, count) in enumerate(pairs):
        report(done, len(pairs))
        yield count, [side.kernel_estimate("NTK", None, t, s) for side in sides]


def _spread(steps: np.ndarray, most: int) -> np.ndarray:
    """Returns steps, or so many of them at equal distances."""
    return steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int))]


def _numbers(gram: np.ndarray, counts: tuple[int, int], exact: tuple[bool, bool]) -> dict[str, float]:
    """Returns the numbers of a Row from the Gram matrix of both sides' replicates."""
    means = [np.full(count, 1 / count) for count in counts]
    error, alignment = _distance(gram, *means)
    variance, scatter = np.zeros(2), 0.0  # of error and alignment; of all entries of the means
    for side, count in enumerate(counts):
        if exact[side]:
            continue
        if count < 2:
            variance, scatter = np.full(2, np.nan), math.nan
            continue
        without_one = (1 - np.eye(count)) / (count - 1)
        pairs = [(weights, means[1]) if side == 0 else (means[0], weights) for weights in without_one]
        variance = variance + (count - 1) * np.var([_distance(gram, *pair) for pair in pairs], axis=0)
        rows, centre = slice(side * counts[0], side * counts[0] + count), np.eye(count) - 1 / count
        scatter += float(np.trace(centre @ gram[rows, rows] @ centre)) / (count * (count - 1))
    reference = np.concatenate([np.zeros(counts[0]), means[1], [1.0]])
    return {
        "error": error,
        "error_se": float(np.sqrt(variance[0])),
        "noise": _ratio(math.sqrt(abs(scatter)), _norm(gram, reference)),
        "alignment": alignment,
        "alignment_se": float(np.sqrt(variance[1])),
    }


def _distance(gram: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Returns error and alignment of the weighted means sum_i a_i A_i and sum_j b_j B_j; weights sum to one."""
    left = np.concatenate([a, 0 * b, [1.0]])
    right = np.concatenate([0 * a, b, [1.0]])
    sizes = math.sqrt(abs((left @ gram @ left) * (right @ gram @ right)))
    return _ratio(_norm(gram, left - right), _norm(gram, right)), _ratio(float(left @ gram @ right), sizes)


def _norm(gram: np.ndarray, weights: np.ndarray) -> float:
    return math.sqrt(abs(weights @ gram @ weights))  # negative by rounding alone


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def format_with_error(value: float, se: float, digits: int, alone: str) -> str:
    """Returns a number with its standard error to so many digits, or in a format of its own without one."""
    if not math.isfinite(value):
        return "-"
    if not math.isfinite(se) or se == 0:
        return f"{value:{alone}}"
    places = max(0, digits - 1 - math.floor(math.log10(se)))
    return f"{value:.{places}f} ± {se:.{places}f}" if places < 8 else f"{value:{alone}} ± {se:.{digits}g}"
