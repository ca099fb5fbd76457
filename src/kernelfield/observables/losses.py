"""How well a network meets the targets, and whether features are learned before the loss shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernelfield.observables.groups import Points, samples
from kernelfield.observables.kernels import kernel_alignment
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution


def loss(solution: Solution, points: Points = "train") -> Estimate:
    """Returns the problem's own loss against step: its weighted mean over points (equal weights on test points).

    The mean squared error is the mean of |Delta_mu|^2 / 2.

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
    rows, problem, f = samples(solution, points), solution.problem, solution.replicate_predictions
    weights = problem.weights[rows] if points == "train" else np.ones(rows.sum())
    return Estimate(problem.loss.measured(f[:, :, rows], problem.y[rows]) @ (weights / weights.sum()), solution.exact)


def accuracy(solution: Solution, points: Points = "train") -> Estimate:
    """Returns the share of points whose class is predicted, against step.

    The class is the sign of a single output, or the largest of several outputs. Ties count in part: an output of zero
    is half right, and C equal outputs are right by 1 / C.

    Args:
        solution: of a problem whose targets have the sign of their class, or are rows whose largest entry is the class.
        points: "train", "test" or "all".

    Returns:
        Estimate (steps + 1,), between 0 and 1.

    Raises:
        ValueError: there are no such points, or the targets are not those of classes.
    """
    rows = samples(solution, points)
    y, f = solution.problem.y[rows], solution.replicate_predictions[:, :, rows]
    if solution.problem.outputs == 1:
        if not y.all():
            raise ValueError("accuracy needs targets that are not zero, whose sign is the class")
        right = ((1 + np.sign(f) * np.sign(y)) / 2).reshape(*f.shape[:2], len(y))
    else:
        if (np.count_nonzero(y == y.max(axis=1, keepdims=True), axis=1) > 1).any():
            raise ValueError("accuracy needs rows of targets with one largest entry, which is the class")
        largest = f == f.max(axis=-1, keepdims=True)
        right = largest[:, :, np.arange(len(y)), y.argmax(axis=1)] / largest.sum(axis=-1)
    return Estimate(right.mean(axis=-1), solution.exact)


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
    solution: Solution, kernel: Symbol = "NTK", layer: int | None = None, dropped: float = 0.5
) -> SilentAlignment:
    """Returns how much of its alignment with the targets a kernel had gained when the loss had fallen to a share.

    Near 1, features were learned silently, before the loss shows it; near 0, the loss fell first, as in lazy training.
    Between the steps whose kernels were kept, the alignment is interpolated.

    Args:
        solution: what to measure; its kernels of the first and the last step were kept.
        kernel, layer: "Phi" and 0..L, "G" and 1..L+1, or "NTK" and None.
        dropped: share of the first loss, in (0, 1).

    Returns:
        SilentAlignment; NaN for replicates whose loss never fell so far, or whose kernel gained no alignment.

    Raises:
        ValueError: for a share outside (0, 1), or a kernel, layer or step that is not there.

    Source: Atanasov, Bordelon and Pehlevan, ICLR 2022, arXiv:2111.00034.
    """
    if not 0 < dropped < 1:
        raise ValueError(f"dropped must be in (0, 1), got {dropped}")
    kept, losses = solution.kernel(kernel, layer), loss(solution)
    kept.places(np.array([0, solution.steps_done]))  # raises
    kernel_steps, alignments = solution.steps(kept.kept), kernel_alignment(solution, kernel, layer).replicates
    steps = np.array([_first_crossing(path / (path[0] or 1.0), dropped) for path in losses.replicates])
    shares = []
    for step, path in zip(steps, np.broadcast_to(alignments, (len(steps), len(kernel_steps))), strict=True):
        gain = path[-1] - path[0]
        shares.append((np.interp(step, kernel_steps, path) - path[0]) / gain if abs(gain) > 1e-12 else np.nan)
    return SilentAlignment(Estimate(steps, losses.exact), Estimate(np.array(shares), losses.exact))


def _first_crossing(path: np.ndarray, level: float) -> float:
    """Returns the interpolated step at which a path (T,) first falls to a level; NaN if it never does."""
    below = np.flatnonzero(path <= level)
    if not len(below):
        return np.nan
    step = below[0]
    return float(step - (level - path[step]) / (path[step - 1] - path[step])) if step else 0.0
