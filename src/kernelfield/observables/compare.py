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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report, bar
from kernelfield.describe.training import SGD, Descent, OnlineSGD
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

Quantity = Literal["predictions", "Phi", "G", "NTK"]
When = Literal["all", "final"]
NTK_ENTRIES = 4096  # times and samples of tangent kernels, at most: more times are thinned out
BLOCK_NUMBERS = 2**22  # of both solutions' kernels that are held at once


@dataclass(frozen=True)
class Row:
    """How far one quantity of a solution, A, is from that of its reference, B; both are means over replicates.

    Args:
        quantity: "predictions" f, "Phi", "G" or "NTK".
        layer: of Phi and G, 1..L; None for the others.
        times: "all": all rows that both have (for kernels all pairs of times; for the NTK of many points, equally
            spaced ones of them; equal times only where the NTK is known at no others), or "final": the last of them.
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
    are left out. Networks may differ in all but depth: lazy and rich, or two activation functions. Of several outputs
    all are compared at once, and so are gradient kernels between outputs.

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
        >>> finite = kf.solve(network, problem, training, kf.FiniteWidth(width=2048, seeds=4), progress=False)
        >>> found = compare(finite, infinite).row("Phi", layer=2, times="final")
        >>> found.error < 0.1, found.error_se > 0, found.alignment > 0.99
        (True, True, True)
    """
    return compare_all({"": solution}, reference)[""]


def compare_all(solutions: Mapping[str, Solution], reference: Solution, progress: bool = True) -> dict[str, Comparison]:
    """`compare` for several solutions, in one pass over the kernels of the reference.

    Args:
        solutions: what is compared, by name; rows that all of them and the reference have.
        reference: with what.
        progress: show a progress bar on what takes over two seconds.

    Returns:
        Comparisons by name.

    Raises:
        ValueError: one of them differs from the reference in inputs, targets, loss, depth or training.
    """
    for solution in solutions.values():
        check_comparable(solution, reference)
    rows = min(len(side.times) for side in (*solutions.values(), reference))
    layers: dict[Quantity, Sequence[int | None]] = {
        "predictions": [None],
        "Phi": reference.hidden("Phi"),
        "G": reference.hidden("G"),
        "NTK": [None],
    }
    periods: dict[When, np.ndarray] = {"all": np.arange(rows), "final": np.arange(rows - 1, rows)}
    found: dict[str, list[Row]] = {name: [] for name in solutions}
    for times, every in periods.items():
        for quantity, which in layers.items():
            those = {name: each for name, each in solutions.items() if _have(quantity, each, reference)}
            period = every
            if quantity != "predictions":
                for side in (*those.values(), reference):
                    period = np.intersect1d(period, side.kernel_steps(quantity))
            for layer in which if those and len(period) else []:
                with bar(f"comparing {quantity}", progress) as report:
                    measured = _measured(those, reference, quantity, layer, period, report)
                for name, numbers in measured.items():
                    found[name].append(Row(quantity, layer, times, **numbers))
    return {name: Comparison(tuple(each)) for name, each in found.items()}


def _have(quantity: Quantity, *solutions: Solution) -> bool:
    """Whether all of them tracked a quantity."""
    return quantity == "predictions" or all(each.keeps(quantity) for each in solutions)


def check_comparable(solution: Solution, reference: Solution) -> None:
    """Raise ValueError unless the two share inputs, targets, loss, depth and training.

    Of training, all that their common rows depend on: learning rate, momentum, weight decay, schedule and batches.

    Args:
        solution: one of them.
        reference: the other.

    Raises:
        ValueError: naming what differs.
    """
    for name in ("X", "y", "weights"):
        one, other = (getattr(side.problem, name) for side in (solution, reference))
        if one.shape != other.shape:
            raise ValueError(f"{name} must be the same in both solutions, got shapes {one.shape} and {other.shape}")
        if not np.array_equal(one, other):
            raise ValueError(f"{name} must be the same in both solutions, got values up to {_apart(one, other)} apart")
    sides = solution, reference
    streams = [side.problem.stream for side in sides]
    arrays = [[] if stream is None else [stream.X, stream.y] for stream in streams]
    if len(arrays[0]) != len(arrays[1]) or not all(map(np.array_equal, *arrays)):
        raise ValueError("stream must be the same in both solutions")
    if solution.problem.loss != reference.problem.loss:
        names = [side.problem.loss.name for side in sides]
        raise ValueError("loss must be the same in both solutions, got {} and {}".format(*names))
    for name, (one, other) in {
        "depth": [side.network.hidden_layers for side in sides],
        "learning_rate": [side.training.learning_rate for side in sides],
        "momentum": [getattr(side.training, "momentum", 0.0) for side in sides],
        "weight_decay": [getattr(side.training, "weight_decay", 0.0) for side in sides],
        "batches": [_batches(side) for side in sides],
    }.items():
        if one != other:
            raise ValueError(f"{name} must be the same in both solutions, got {one} and {other}")
    rates = [_rates(side) for side in sides]
    common = min(map(len, rates))
    if not np.allclose(rates[0][:common], rates[1][:common], rtol=1e-12, atol=0):
        raise ValueError("schedule must be the same in both solutions, got {} and {}".format(*map(_schedule, sides)))


def _batches(solution: Solution) -> str:
    training = solution.training
    if isinstance(training, OnlineSGD):
        return f"fresh points, {training.batch_size} in an update and {training.every} updates in a row"
    if not isinstance(training, SGD) or training.batches(solution.problem) is None:
        return "all points"
    drawn = " with replacement" if training.replacement else ""
    return f"batches of {training.batch_size}{drawn} of seed {training.seed}"


def _rates(solution: Solution) -> np.ndarray:
    """Learning rates of the updates that the rows cover."""
    training = solution.training
    if not isinstance(training, Descent):
        return np.full(solution.steps_done, training.learning_rate)
    return training.rates(solution.problem)[: solution.steps_done * training.updates_per_step(solution.problem)]


def _schedule(solution: Solution) -> str:
    training = solution.training
    schedule = getattr(training, "schedule", "constant")
    name = f"'{schedule}'" if isinstance(schedule, str) else "another one"
    return f"{name} over {training.steps} {training.unit}s"


def _apart(one: np.ndarray, other: np.ndarray) -> str:
    return f"{np.abs(one - other).max():.3g}"


def _measured(
    solutions: Mapping[str, Solution],
    reference: Solution,
    quantity: Quantity,
    layer: int | None,
    period: np.ndarray,
    report: Report,
) -> dict[str, dict[str, float]]:
    """Errors and alignments of a quantity at the times in `period`: the numbers of a Row, by name."""
    sides = [*solutions.values(), reference]
    if quantity == "predictions":
        blocks: Iterable = [(1, [_part(side.estimate(quantity), period) for side in sides])]
    elif quantity == "NTK":
        blocks = _ntk_blocks(sides, period, report)
    else:
        blocks = [(1, _cores(sides, quantity, cast(int, layer), period))]
    grams, estimates = [np.zeros(()) for _ in solutions], []
    for count, estimates in blocks:
        *others, b = estimates
        centre = b.mean
        for place, a in enumerate(others):
            rows = np.concatenate([a.replicates - centre, b.replicates - centre, centre[None]])
            rows = rows.reshape(len(rows), -1)
            grams[place] = grams[place] + count * (rows @ rows.T)
    *others, b = estimates
    return {
        name: _numbers(gram, (len(a.replicates), len(b.replicates)), (a.exact, b.exact))
        for name, gram, a in zip(solutions, grams, others, strict=True)
    }


def _part(estimate: Estimate, times: np.ndarray) -> Estimate:
    return Estimate(estimate.replicates[:, times].astype(np.float64), estimate.exact)


def _cores(sides: Sequence[Solution], quantity: Quantity, layer: int, period: np.ndarray) -> list[Estimate]:
    """Kernels over all pairs of times in a basis that all factors share: inner products stay, arrays get small.

    With all factors side by side equal to Q R, a kernel F w F^T is Q (R_F w R_F^T) Q^T.
    """
    factors, weights = [], []
    for side in sides:
        kernel = side.factor_kernel("Phi" if quantity == "Phi" else "G", layer)
        chosen = kernel.at(period)
        factors.append(chosen.reshape(len(chosen), -1, chosen.shape[-1]))
        weights.append(np.ones(chosen.shape[-1]) if kernel.weights is None else kernel.weights.sum(axis=0))
    together = np.concatenate([each for factor in factors for each in factor], axis=1)
    with threadpool_limits(1, "blas"):  # threads wait for each other in tall thin factorizations
        triangle: Any = np.linalg.qr(together, mode="r")
    cores, at = [], 0
    for side, factor, weight in zip(sides, factors, weights, strict=True):
        count, _, rank = factor.shape
        parts = triangle[:, at : at + count * rank].reshape(len(triangle), count, rank).swapaxes(0, 1)
        cores.append(Estimate(parts * weight @ parts.swapaxes(1, 2), side.exact))
        at += count * rank
    return cores


def _ntk_blocks(sides: Sequence[Solution], period: np.ndarray, report: Report) -> Iterator[tuple[int, list[Estimate]]]:
    """The tangent kernels in blocks of times, with the number of times each block counts.

    Kernels are symmetric: a block of times t with earlier times s stands for its mirror image too. Where one of them
    is known at equal times only, those are compared.
    """
    points = sides[0].problem.points * (sides[0].problem.outputs or 1)
    replicates = sum(len(side.replicate_predictions) for side in sides)
    most = max(2, NTK_ENTRIES // points)
    times = period[np.unique(np.linspace(0, len(period) - 1, min(len(period), most)).round().astype(int))]
    if not all(side.network.factorizes for side in sides):
        yield from ((1, [side.kernel_estimate("NTK", None, int(t)) for side in sides]) for t in times)
        return
    size = max(1, math.isqrt(BLOCK_NUMBERS // (replicates * points**2)))
    blocks = [times[start : start + size] for start in range(0, len(times), size)]
    pairs = [(t, s, 1 if t is s else 2) for last, t in enumerate(blocks) for s in blocks[: last + 1]]
    for done, (t, s, count) in enumerate(pairs):
        report(done, len(pairs))
        yield count, [side.kernel_estimate("NTK", None, t, s) for side in sides]


def _numbers(gram: np.ndarray, counts: tuple[int, int], exact: tuple[bool, bool]) -> dict[str, float]:
    """The numbers of a Row, given the Gram matrix."""
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
