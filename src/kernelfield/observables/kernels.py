"""How kernels lie to the targets, to what they were, and to each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from threadpoolctl import threadpool_limits

from kernelfield.observables.groups import Points, restrict, samples
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution
from kernelfield.solution.trained_network import Times


def kernel_alignment(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Returns the alignment of a kernel with the targets, A(K, y y^T) = y^T K y / (|K| |y|^2), between -1 and 1.

    With C outputs it is A(K, Y Y^T) with the targets Y (P, C), and for a kernel between outputs too, whose rows are
    (sample, output), A(K, y y^T) with the vector y of all entries of Y.

    Args:
        solution: what to measure.
        kernel, layer: "Phi" and 0..L, "G" and 1..L+1, or "NTK" and None.
        t: step or steps; all that were kept by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step; 0 where kernel or targets vanish.

    Raises:
        ValueError: for a kernel, layer, step or points that are not there.
    """
    Y = _targets(solution, points)
    return _measure(lambda K: align(K, Y), kernel, layer, t, points, solution)


def centred_alignment(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Returns the centred kernel alignment (CKA) with the targets: `kernel_alignment` of both less their means.

    With H = 1 - 1 1^T / P, it is A(H K H, H y y^T H). Means are over samples, for each output apart.
    Arguments and errors are those of `kernel_alignment`.

    Returns:
        Estimate (times,), or of a number for a single step; 0 where kernel or targets vanish.

    Source: Kornblith et al., ICML 2019, arXiv:1905.00414; with y y^T: Cortes et al., JMLR 13 (2012).
    """
    Y = _targets(solution, points)

    def centre_and_align(K: np.ndarray) -> np.ndarray:
        K = K.reshape(len(K), len(Y), -1, len(Y), K.shape[-1] // len(Y))  # samples and outputs, twice
        K = K - K.mean(axis=1, keepdims=True)
        K = K - K.mean(axis=3, keepdims=True)
        return align(K.reshape(len(K), len(Y) * K.shape[2], -1), Y - Y.mean(axis=0))

    return _measure(centre_and_align, kernel, layer, t, points, solution)


def kernel_movement(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Returns how far training moved a kernel, |K(t) - K(0)| / |K(0)| (Frobenius norms).

    At finite width all entries of K(0) scatter, which enlarges |K(0)| by about P / (2 N) a layer for nearly orthogonal
    points: networks then seem to move less than they do at infinite width.

    Arguments and errors are those of `kernel_alignment`; the kernel of step 0 was kept.

    Returns:
        Estimate (times,), or of a number for a single step; 0 where the kernel vanishes at first.
    """
    first = restrict(solution, points).kernel_estimate(kernel, layer, 0).replicates
    return _measure(lambda K: _ratio(_norm(K - first), _norm(first)), kernel, layer, t, points, solution)


def gradient_alignment(solution: Solution, layer: int, t: Times | None = None, points: Points = "train") -> Estimate:
    """Returns the cosine between gradients and what stands for them in a learning rule, the mean over samples.

    Gradients g are those of the outputs in the preactivations of a hidden layer; g~ is what feedback makes of one
    error signal of an output, or the activity times the error signal. 1 is gradient descent.

    Args:
        solution: of a run with a learning rule.
        layer: 1..L.
        t: step or steps; all that were kept by default.
        points: "train", "test" or "all".

    Returns:
        Estimate (times,), or of a number for a single step.

    Raises:
        ValueError: the run has no learning rule, or a layer, step or points are not there.

    Source: arXiv:2210.02157.
    """
    return _measure(lambda K: np.einsum("rmm->r", K) / K.shape[-1], "cosine", layer, t, points, solution)


def ntk_spectrum(solution: Solution, t: Times | None = None, points: Points = "train") -> Estimate:
    """Returns the eigenvalues of the tangent kernel divided by the number of points, largest first.

    A mode of the errors of equally weighted points with eigenvalue la decays as exp(-la tau), as long as the kernel
    rests; tau is training time. With C outputs the same holds for the mean squared error, of P C modes.
    Noise drives eigenvalues apart, so those of every replicate are biased: the estimate is the jackknife of those of
    the mean kernel. Arguments and errors are those of `kernel_alignment`.

    Returns:
        Estimate (times, P), or (P,) for a single step; P C of C outputs.
    """
    count = np.count_nonzero(samples(solution, points))
    with threadpool_limits(1, "blas"):  # threads wait for each other in small factorizations
        return _measure(
            lambda K: _jackknife(lambda K: np.linalg.eigvalsh(K)[:, ::-1] / count, K), "NTK", None, t, points, solution
        )


def effective_rank(
    solution: Solution, kernel: Symbol, layer: int | None = None, t: Times | None = None, points: Points = "train"
) -> Estimate:
    """Returns the participation ratio of a kernel's eigenvalues, (tr K)^2 / tr K^2: 1 if one is not zero, P for K ~ 1.

    Arguments and errors are those of `kernel_alignment`.

    Returns:
        Estimate (times,), or of a number for a single step; 0 where the kernel vanishes.
    """
    return _measure(
        lambda K: _ratio(np.trace(K, axis1=1, axis2=2) ** 2, _norm(K) ** 2), kernel, layer, t, points, solution
    )


def two_time_kernel(solution: Solution, kernel: Symbol, layer: int | None = None, points: Points = "train") -> Estimate:
    """Returns a kernel between all pairs of times, averaged over samples (and outputs): (1/P) sum_mu K[t, mu; s, mu].

    Arguments and errors are those of `kernel_alignment`.

    Returns:
        Estimate (times, times) of the steps that were kept.
    """
    part = restrict(solution, points)
    steps, count = part.kernel(kernel, layer).kept, part.problem.points
    total, exact = np.zeros(()), False
    for sample in range(count):
        estimate = part.restricted([sample]).kernel_estimate(kernel, layer, steps)
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
    """Returns the alignment of a kernel with that of another solution, <K, K_ref> / (|K| |K_ref|), at equal times.

    Every replicate is compared with the mean over the reference's replicates, whose own error is not in the error
    bar. `kernelfield.compare` aligns the two means, over all pairs of times, and accounts for both sides' errors.

    Args:
        solution: what to measure, for instance networks of finite width.
        reference: with what, for instance infinite width.
        kernel, layer, t, points: as of `kernel_alignment`; without `t`, all steps that both kept.

    Returns:
        Estimate (times,), or of a number for a single step; 0 where one of the kernels vanishes.

    Raises:
        ValueError: the two have different points or outputs, or kept no step in common; for a kernel, layer, step or
            points that are not there.
    """
    if solution.problem.points != reference.problem.points:
        counts = solution.problem.points, reference.problem.points
        raise ValueError("cosine_alignment needs solutions of the same points, got {} and {}".format(*counts))

    def align_pair(K: np.ndarray, other: np.ndarray) -> np.ndarray:
        if K.shape[1:] != other.shape[1:]:
            outputs = solution.problem.outputs, reference.problem.outputs
            raise ValueError("cosine_alignment needs kernels of the same outputs, got {} and {}".format(*outputs))
        mean = other.mean(axis=0)
        return _ratio(np.einsum("rmn,mn->r", K, mean), _norm(K) * np.linalg.norm(mean))

    return _measure(align_pair, kernel, layer, t, points, solution, reference)


def _measure(
    measure: Callable[..., np.ndarray],
    kernel: Symbol,
    layer: int | None,
    t: Times | None,
    points: Points,
    *solutions: Solution,
) -> Estimate:
    """Returns a measure of a kernel's replicates (R, P, P) at each time, of one solution or of two beside each other.

    Without `t`, the times are the steps that all solutions kept. A single step gives no axis of times.
    """
    sides = [restrict(solution, points) for solution in solutions]
    if t is None:
        t = reduce(np.intersect1d, [side.steps(side.kernel(kernel, layer).kept) for side in sides])
        if not t.size:
            raise ValueError("there is no step whose kernel every solution kept: see save_at")
    values, exact = [], False
    for steps in zip(*(np.atleast_1d(side.steps(t)) for side in sides), strict=True):
        pairs = zip(sides, steps, strict=True)
        estimates = [side.kernel_estimate(kernel, layer, int(step)) for side, step in pairs]
        values.append(measure(*(estimate.replicates for estimate in estimates)))
        exact = estimates[0].exact
    return Estimate(values[0] if isinstance(t, int | np.integer) else np.stack(values, axis=1), exact)


def _jackknife(measure: Callable[[np.ndarray], np.ndarray], K: np.ndarray) -> np.ndarray:
    """Returns the pseudo-values (R, ...) of a measure of the mean of K (R, P, P), free of bias of order 1/R."""
    R, total = len(K), K.sum(axis=0)
    if R == 1:
        return measure(K)
    return R * measure(total[None] / R) - (R - 1) * measure((total - K) / (R - 1))


def _norm(K: np.ndarray) -> np.ndarray:
    return np.linalg.norm(K, axis=(1, 2))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient, and 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _targets(solution: Solution, points: Points) -> np.ndarray:
    """Returns the targets Y (P, C), with C = 1 for a single output."""
    y = solution.problem.y[samples(solution, points)]
    return y.reshape(len(y), -1)


def align(K: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Returns A(K, Y Y^T) of kernels K (R, P, P), or A(K, y y^T) of kernels (R, P C, P C) with all entries y of Y."""
    Y = Y if K.shape[-1] == len(Y) else Y.reshape(-1, 1)
    return _ratio(np.einsum("mc,rmn,nc->r", Y, K, Y, optimize=True), _norm(K) * np.linalg.norm(Y.T @ Y))
