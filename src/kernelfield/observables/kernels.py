"""How kernels lie to the targets, to what they were, and to each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from kernelfield.observables.points import Points, on, samples
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution, Times


def kernel_alignment(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Alignment of a kernel with the targets, A(K, y y^T) = y^T K y / (|K| |y|^2), between -1 and 1.

    Of C outputs it is A(K, Y Y^T) with the targets Y (P, C), and for a kernel between outputs too, whose rows are
    (sample, output), A(K, y y^T) with the vector y of all entries of Y.

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
    Y = _targets(solution, points)
    return _over_time(solution, kernel, layer, t, points, lambda K: _alignment(K, Y))


def centred_alignment(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Centred kernel alignment (CKA) with the targets: `kernel_alignment` of kernel and targets less their means.

    With H = 1 - 1 1^T / P, it is A(H K H, H y y^T H). Means are over samples, those of every output apart.

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
    Y = _targets(solution, points)

    def centred(K: np.ndarray) -> np.ndarray:
        K = K.reshape(len(K), len(Y), -1, len(Y), K.shape[-1] // len(Y))  # samples and outputs, twice
        K = K - K.mean(axis=1, keepdims=True)
        K = K - K.mean(axis=3, keepdims=True)
        return K.reshape(len(K), len(Y) * K.shape[2], -1)

    return _over_time(solution, kernel, layer, t, points, lambda K: _alignment(centred(K), Y - Y.mean(axis=0)))


def kernel_movement(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """How far training moved a kernel, |K(t) - K(0)| / |K(0)| (Frobenius norms).

    At finite width all entries of K(0) scatter, which enlarges |K(0)| by about P / (2 N) a layer for nearly orthogonal
    points: networks then seem to move less than they do at infinite width.

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
    (first, *_), _ = _kernels(on(solution, points), kernel, layer, [0])
    return _over_time(solution, kernel, layer, t, points, lambda K: _ratio(_norm(K - first), _norm(first)))


def ntk_spectrum(solution: Solution, t: Times | None = None, points: Points = "train") -> Estimate:
    """Eigenvalues of the tangent kernel divided by the number of points, largest first.

    A mode of the errors of equally weighted points with eigenvalue la decays as exp(-la tau), as long as the kernel
    rests; tau is training time. Of C outputs the same holds for the mean squared error, of P C modes.

    Args:
        solution: what to measure.
        t: step or steps; all by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times, P), or (P,) for a single step; P C of C outputs.

    Raises:
        ValueError: the run did not track gradient kernels; for a step or points that are not there.
    """

    count = np.count_nonzero(samples(solution, points))

    def eigenvalues(K: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(K)[:, ::-1] / count

    with threadpool_limits(1, "blas"):  # threads wait for each other in small factorizations
        return _over_time(solution, "NTK", None, t, points, eigenvalues)


def effective_rank(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
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


def two_time_kernel(solution: Solution, kernel: Symbol, layer: int | None = None, points: Points = "train") -> Estimate:
    """A kernel between all pairs of times, averaged over samples (and outputs): (1/P) sum_mu K[t, mu; s, mu].

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
    chosen = on(solution, points)
    every = chosen.kernel(kernel, layer).kept
    count, total, exact = chosen.problem.points, np.zeros(()), False
    for sample in range(count):
        estimate = chosen.restricted([sample]).kernel_estimate(kernel, layer, every)
        values = estimate.replicates  # one sample, of one output or several
        total, exact = total + np.einsum("rtcsc->rts", values) / values.shape[-1] / count, estimate.exact
    return Estimate(total, exact)


def cosine_alignment(
    solution: Solution,
    reference: Solution,
    kernel: Symbol,
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
        ValueError: the two have different points or outputs; for a kernel, layer, step or points that are not there.
    """
    if solution.problem.points != reference.problem.points:
        counts = solution.problem.points, reference.problem.points
        raise ValueError("cosine_alignment needs solutions of the same points, got {} and {}".format(*counts))
    times = list(range(min(solution.steps_done, reference.steps_done) + 1)) if t is None else t
    (ours, exact), (theirs, _) = (_kernels(on(side, points), kernel, layer, times) for side in (solution, reference))
    if ours[0].shape[1:] != theirs[0].shape[1:]:
        outputs = solution.problem.outputs, reference.problem.outputs
        raise ValueError("cosine_alignment needs kernels of the same outputs, got {} and {}".format(*outputs))
    values = [_cosine(K, other.mean(axis=0)) for K, other in zip(ours, theirs, strict=True)]
    return _estimate(values, exact, times)


def _kernels(solution: Solution, kernel: Symbol, layer: int | None, t: Times) -> tuple[list[np.ndarray], bool]:
    """The kernel at each of the times, (R, P, P) each, and whether it is exact."""
    estimates = [solution.kernel_estimate(kernel, layer, int(step)) for step in np.atleast_1d(solution.steps(t))]
    return [each.replicates for each in estimates], estimates[0].exact


def _over_time(
    solution: Solution,
    kernel: Symbol,
    layer: int | None,
    t: Times | None,
    points: Points,
    measure: Callable[[np.ndarray], np.ndarray],
) -> Estimate:
    """`measure` of the kernels (R, P, P) of each time."""
    chosen = on(solution, points)
    steps = np.atleast_1d(chosen.steps(chosen.kernel(kernel, layer).kept if t is None else t))
    estimates = (chosen.kernel_estimate(kernel, layer, int(step)) for step in steps)
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


def _targets(solution: Solution, points: Points) -> np.ndarray:
    """Y (P, C), C = 1 for a single output."""
    y = solution.problem.y[samples(solution, points)]
    return y.reshape(len(y), -1)


def _alignment(K: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """A(K, Y Y^T) of kernels K (R, P, P), or A(K, y y^T) of kernels (R, P C, P C) with all entries y of Y."""
    Y = Y if K.shape[-1] == len(Y) else Y.reshape(-1, 1)
    return _ratio(np.einsum("mc,rmn,nc->r", Y, K, Y, optimize=True), _norm(K) * np.linalg.norm(Y.T @ Y))


def _cosine(K: np.ndarray, other: np.ndarray) -> np.ndarray:
    return _ratio(np.einsum("rmn,mn->r", K, other), _norm(K) * np.linalg.norm(other))
