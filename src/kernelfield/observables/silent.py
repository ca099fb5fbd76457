"""Whether features are learned before the loss shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernelfield.observables.kernels import kernel_alignment
from kernelfield.observables.losses import loss
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution


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
