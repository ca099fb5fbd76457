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
