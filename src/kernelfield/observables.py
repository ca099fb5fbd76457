"""What a Solution says about learning: losses, alignments, spectra, distributions, each with its error bar.

Every function measures each replicate (an independent scramble, or a network's seed) and returns an `Estimate`:
its `mean`, standard error `se`, and `interval(0.95)` are over replicates, and zero where a solution is exact.

Kernels are named as in the theory: "Phi" with a layer 0..L, "G" with a layer 1..L+1, and "NTK" without. Times `t` are
a step, or several (slice, list), all by default; several times make the first axis of the result. Points are "train"
(those with a weight in the loss; the default), "test" (those of weight zero, see `kernelfield.Problem`) or "all".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from kernelfield.solution import Estimate, Solution, Times

Kernel = Literal["Phi", "G", "NTK"]
Points = Literal["train", "test", "all"]
Field = Literal["h", "z", "g"]
BINS = 60
TAIL = 1e-3  # of samples that lie beyond either end of the bins, at most


def loss(solution: Solution, points: Points = "train") -> Estimate:
    """Mean squared error against step: the weighted mean of Delta_mu^2 / 2 (equal weights on test points).

    Args:
        solution: what to measure.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,).

    Raises:
        ValueError: there are no such points.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield import observables
        >>> problem = kf.Problem([[1.0, 0.0], [0.0, 1.0], [0.8, 0.1]], [1.0, -1.0, 1.0], weights=[1, 1, 0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=9)
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training, progress=False)
        >>> bool(observables.loss(solution, "test").mean[-1] < 0.5)  # what it was before training
        True
    """
    rows, weights = _samples(solution, points), solution.problem.weights
    weights = weights[rows] if weights[rows].any() and points != "all" else np.ones(rows.sum())
    squares = solution.estimate("errors").replicates[..., rows] ** 2
    return Estimate(squares @ (weights / weights.sum()) / 2, solution.exact)


def accuracy(solution: Solution, points: Points = "train") -> Estimate:
    """Share of points whose prediction has the sign of its target, against step; an output of zero is half right.

    Args:
        solution: of a problem with two classes, targets of one sign each.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,), between 0 and 1.

    Raises:
        ValueError: there are no such points, or a target is zero.
    """
    rows = _samples(solution, points)
    y = solution.problem.y[rows]
    if not y.all():
        raise ValueError("accuracy needs targets that are not zero, whose sign is the class")
    right = (1 + np.sign(solution.replicate_predictions[..., rows]) * np.sign(y)) / 2
    return Estimate(right.mean(axis=-1), solution.exact)


def kernel_alignment(
    solution: Solution, kernel: Kernel, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Alignment of a kernel with the targets, A(K, y y^T) = y^T K y / (|K| |y|^2), between -1 and 1.

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where kernel or targets vanish.

    Raises:
        ValueError: for a kernel, layer, step or points that are not there.
    """
    y = solution.problem.y[_samples(solution, points)]
    return _over_time(solution, kernel, layer, t, points, lambda K: _alignment(K, y))


def centred_alignment(
    solution: Solution, kernel: Kernel, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Centred kernel alignment (CKA) with the targets: `kernel_alignment` of kernel and targets less their means.

    With H = 1 - 1 1^T / P, it is A(H K H, H y y^T H).

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where kernel or targets vanish.

    Raises:
        ValueError: for a kernel, layer, step or points that are not there.

    Source: Kornblith et al., ICML 2019, arXiv:1905.00414; with y y^T: Cortes et al., JMLR 13 (2012).
    """
    y = solution.problem.y[_samples(solution, points)]

    def centred(K: np.ndarray) -> np.ndarray:
        return K - K.mean(axis=1, keepdims=True) - K.mean(axis=2, keepdims=True) + K.mean(axis=(1, 2), keepdims=True)

    return _over_time(solution, kernel, layer, t, points, lambda K: _alignment(centred(K), y - y.mean()))


def kernel_movement(
    solution: Solution, kernel: Kernel, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """How far training moved a kernel, |K(t) - K(0)| / |K(0)| (Frobenius norms).

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where the kernel vanishes at first.

    Raises:
        ValueError: for a kernel, layer, step or points that are not there.
    """
    (first, *_), _ = _kernels(_on(solution, points), kernel, layer, [0])
    return _over_time(solution, kernel, layer, t, points, lambda K: _ratio(_norm(K - first), _norm(first)))


def ntk_spectrum(solution: Solution, t: Times | None = None, points: Points = "train") -> Estimate:
    """Eigenvalues of the tangent kernel divided by the number of points, largest first.

    A mode of the errors of equally weighted points with eigenvalue la decays as exp(-la tau), as long as the kernel
    rests; tau is training time.

    Args:
        solution: what to measure.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times, P), or (P,) for a single step.

    Raises:
        ValueError: the run did not track gradient kernels; for a step or points that are not there.
    """

    def eigenvalues(K: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(K)[:, ::-1] / K.shape[-1]

    with threadpool_limits(1, "blas"):  # threads wait for each other in small factorizations
        return _over_time(solution, "NTK", None, t, points, eigenvalues)


def effective_rank(
    solution: Solution, kernel: Kernel, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Participation ratio of a kernel's eigenvalues, (tr K)^2 / tr K^2: 1 for a single direction, P for K ~ 1.

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where the kernel vanishes.

    Raises:
        ValueError: for a kernel, layer, step or points that are not there.
    """

    def ratio(K: np.ndarray) -> np.ndarray:
        return _ratio(np.trace(K, axis1=1, axis2=2) ** 2, _norm(K) ** 2)

    return _over_time(solution, kernel, layer, t, points, ratio)


def two_time_kernel(solution: Solution, kernel: Kernel, layer: int | None = None, points: Points = "train") -> Estimate:
    """A kernel between all pairs of times, averaged over samples: (1/P) sum_mu K[t, mu; s, mu].

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1, steps + 1).

    Raises:
        ValueError: for a kernel, layer or points that are not there.
    """
    chosen, every = _on(solution, points), slice(None)
    count, total, exact = chosen.problem.points, np.zeros(()), False
    for sample in range(count):
        estimate = _kernel(chosen.restricted([sample]), kernel, layer, every)
        total, exact = total + estimate.replicates[:, :, 0, :, 0] / count, estimate.exact
    return Estimate(total, exact)


def cosine_alignment(
    solution: Solution,
    reference: Solution,
    kernel: Kernel,
    layer: int | None = None,
    t: Times | None = None,
    points: Points = "train",
) -> Estimate:
    """Alignment of a kernel with that of another solution, <K, K_ref> / (|K| |K_ref|), at equal times.

    Every replicate is compared with the mean over the reference's replicates, whose own error is not in the error
    bar. `kernelfield.compare` aligns the two means, over all pairs of times, and accounts for both sides' errors.

    Args:
        solution: what to measure, for instance networks of finite width.
        reference: with what, for instance infinite width.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        t: step or steps; all that both have by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where one of the kernels vanishes.

    Raises:
        ValueError: the two have different points; for a kernel, layer, step or points that are not there.
    """
    if solution.problem.points != reference.problem.points:
        counts = solution.problem.points, reference.problem.points
        raise ValueError("cosine_alignment needs solutions of the same points, got {} and {}".format(*counts))
    times = list(range(min(solution.steps_done, reference.steps_done) + 1)) if t is None else t
    (ours, exact), (theirs, _) = (_kernels(_on(side, points), kernel, layer, times) for side in (solution, reference))
    values = [_cosine(K, other.mean(axis=0)) for K, other in zip(ours, theirs, strict=True)]
    return _estimate(values, exact, times)


@dataclass(frozen=True, eq=False)
class Density:
    """Density of a field over neurons.

    Args:
        edges: of the bins (bins + 1,).
        density: Estimate (bins,), its integral is one.
    """

    edges: np.ndarray
    density: Estimate

    @property
    def centres(self) -> np.ndarray:
        """Middles of the bins (bins,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def activation_density(
    solution: Solution,
    layer: int,
    field: Field = "h",
    sample: int | None = None,
    t: int = -1,
    edges: np.ndarray | int = BINS,
) -> Density:
    """Distribution of h, z or g over the neurons of a hidden layer, at a step whose fields were recorded.

    Args:
        solution: what to measure.
        layer: 1..L.
        field: "h" preactivation, "z" pregradient or "g" = phi'(h) z.
        sample: which point; all points together if None.
        t: a recorded step (`fields_at` of `kernelfield.solve`).
        edges: of the bins (bins + 1,), increasing; or how many bins, equal ones on the range without its far tails.

    Returns:
        Density, with its error bar over replicates. Samples outside the bins count in its norm.

    Raises:
        ValueError: for a field, layer or step that was not recorded, or a sample that is not there.
    """
    values = field_samples(solution, layer, field, t)
    if sample is not None:
        if not -solution.problem.points <= sample < solution.problem.points:
            raise ValueError(f"sample must be one of {solution.problem.points} points, got {sample}")
        values = values[:, [sample]]
    flat = values.reshape(len(values), -1).astype(np.float64)
    if np.ndim(edges) == 0:
        low, high = np.quantile(flat, [TAIL, 1 - TAIL])
        room = 0.05 * (high - low) or 0.5
        edges = np.linspace(low - room, high + room, int(edges) + 1)
    bins = np.asarray(edges, dtype=np.float64)
    counts = np.stack([np.histogram(row, bins)[0] for row in flat])
    return Density(bins, Estimate(counts / (flat.shape[1] * np.diff(bins))))


def excess_kurtosis(solution: Solution, layer: int, field: Field = "h", t: int = -1) -> Estimate:
    """How far a field is from Gaussian, for every point: <x^4> / <x^2>^2 - 3 of x = field - mean; Gaussian: 0.

    Args:
        solution: what to measure.
        layer: 1..L.
        field: "h" preactivation, "z" pregradient or "g" = phi'(h) z.
        t: a recorded step (`fields_at` of `kernelfield.solve`).

    Returns:
        Estimate (P,): sampled also where the solution is exact.

    Raises:
        ValueError: for a field, layer or step that was not recorded.
    """
    return Estimate(stats.kurtosis(field_samples(solution, layer, field, t).astype(np.float64), axis=-1))


def field_samples(solution: Solution, layer: int, field: Field = "h", t: int = -1) -> np.ndarray:
    """Samples of a field, replicate by replicate; `Solution.fields` has them in one.

    Args:
        solution: what recorded them.
        layer: 1..L.
        field: "h" preactivation, "z" pregradient or "g" = phi'(h) z.
        t: a recorded step (`fields_at` of `kernelfield.solve`).

    Returns:
        (R, P, neurons).

    Raises:
        ValueError: for a field, layer or step that was not recorded.
    """
    known = solution.fields(layer, t)  # raises
    if field not in known:
        raise ValueError(f"field must be one of {', '.join(known)}, which were recorded, got {field!r}")
    return solution.field_samples[layer, t % (solution.steps_done + 1)][field]


@dataclass(frozen=True, eq=False)
class SilentAlignment:
    """Whether a kernel aligned with the targets before the loss fell.

    Args:
        step: Estimate of the step, interpolated, at which the loss had fallen to the given share of its first value.
        share: Estimate of how much of the alignment gained in all of training was there by then.
    """

    step: Estimate
    share: Estimate


def silent_alignment(
    solution: Solution, kernel: Kernel = "NTK", layer: int | None = None, dropped: float = 0.5
) -> SilentAlignment:
    """How much of its alignment with the targets a kernel had gained when the loss had fallen to a share.

    Near 1, features were learned silently, before the loss shows it; near 0, the loss fell first, as in lazy training.

    Args:
        solution: what to measure.
        kernel: "Phi", "G" or "NTK".
        layer: 0..L of Phi, 1..L+1 of G, None for the NTK.
        dropped: share of the first loss, in (0, 1).

    Returns:
        SilentAlignment; NaN for replicates whose loss never fell so far, or whose kernel gained no alignment.

    Raises:
        ValueError: for a share outside (0, 1), or a kernel or layer that is not there.

    Source: Atanasov, Bordelon and Pehlevan, ICLR 2022, arXiv:2111.00034.
    """
    if not 0 < dropped < 1:
        raise ValueError(f"dropped must be in (0, 1), got {dropped}")
    aligned, losses = kernel_alignment(solution, kernel, layer), loss(solution)
    steps = np.array([_first_crossing(each / (each[0] or 1.0), dropped) for each in losses.replicates])
    every, shares = np.arange(solution.steps_done + 1), []
    for step, path in zip(steps, np.broadcast_to(aligned.replicates, (len(steps), len(every))), strict=True):
        gain = path[-1] - path[0]
        shares.append((np.interp(step, every, path) - path[0]) / gain if abs(gain) > 1e-12 else np.nan)
    return SilentAlignment(Estimate(steps, losses.exact), Estimate(np.array(shares), losses.exact))


def _first_crossing(path: np.ndarray, level: float) -> float:
    """Where a path (T,) first falls to a level, interpolated; NaN if it never does."""
    below = np.flatnonzero(path <= level)
    if not len(below):
        return np.nan
    at = below[0]
    return float(at - (level - path[at]) / (path[at - 1] - path[at])) if at else 0.0


# --- kernels on some of the points


def _samples(solution: Solution, points: Points) -> np.ndarray:
    """Which samples are meant, a mask (P,)."""
    trains = solution.problem.weights > 0
    masks = {"train": trains, "test": ~trains, "all": np.ones_like(trains)}
    if points not in masks:
        raise ValueError(f"points must be one of {', '.join(masks)}, got {points!r}")
    if not masks[points].any():
        raise ValueError("the problem has no test points: give them to Problem with weight zero")
    return masks[points]


def _on(solution: Solution, points: Points) -> Solution:
    rows = _samples(solution, points)
    return solution if rows.all() else solution.restricted(np.flatnonzero(rows))


def _kernel(solution: Solution, kernel: Kernel, layer: int | None, t: Times) -> Estimate:
    names = {"Phi": "feature_kernel", "G": "gradient_kernel", "NTK": "ntk"}
    if kernel not in names:
        raise ValueError(f"kernel must be one of {', '.join(names)}, got {kernel!r}")
    if (kernel == "NTK") != (layer is None):
        need = "no layer" if kernel == "NTK" else "a layer"
        raise ValueError(f"kernel {kernel!r} takes {need}, got layer={layer}")
    return solution.estimate(names[kernel], *([] if layer is None else [layer]), t=t)


def _kernels(solution: Solution, kernel: Kernel, layer: int | None, t: Times) -> tuple[list[np.ndarray], bool]:
    """The kernel at each of the times, (R, P, P) each, and whether it is exact."""
    estimates = [_kernel(solution, kernel, layer, int(step)) for step in np.atleast_1d(solution.steps(t))]
    return [each.replicates for each in estimates], estimates[0].exact


def _over_time(
    solution: Solution,
    kernel: Kernel,
    layer: int | None,
    t: Times | None,
    points: Points,
    measure: Callable[[np.ndarray], np.ndarray],
) -> Estimate:
    """`measure` of the kernels (R, P, P) of each time."""
    chosen = _on(solution, points)
    steps = np.atleast_1d(chosen.steps(t))
    estimates = (_kernel(chosen, kernel, layer, int(step)) for step in steps)
    measured = [(measure(each.replicates), each.exact) for each in estimates]
    return _estimate([values for values, _ in measured], measured[0][1], t)


def _estimate(values: list[np.ndarray], exact: bool, t: Times | None) -> Estimate:
    """One value for each time, (R, ...) each, as an Estimate; no axis for a single step."""
    return Estimate(values[0] if isinstance(t, int | np.integer) else np.stack(values, axis=1), exact)


def _norm(K: np.ndarray) -> np.ndarray:
    return np.linalg.norm(K, axis=(1, 2))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _alignment(K: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _ratio(np.einsum("m,rmn,n->r", y, K, y), _norm(K) * (y @ y))


def _cosine(K: np.ndarray, other: np.ndarray) -> np.ndarray:
    return _ratio(np.einsum("rmn,mn->r", K, other), _norm(K) * np.linalg.norm(other))
