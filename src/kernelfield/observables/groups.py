"""Samples in the order of their targets, as kernels are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernelfield.describe.problem import Problem


@dataclass(frozen=True, eq=False)
class Groups:
    """Samples ordered by target, largest first; with several outputs by class, in the order of the outputs.

    Args:
        order: numbers of the samples (P,).
        names: of the groups of equal targets: "y = 1", or "class 0" where targets are rows with a single one.
        counts: how many samples each group has.
        of_sample: number of the group of every sample (P,), as the problem has them.
    """

    order: np.ndarray
    names: tuple[str, ...]
    counts: tuple[int, ...]
    of_sample: np.ndarray

    def most(self, count: int) -> tuple[int, ...]:
        """Returns `counts`, or all samples together if there are more groups than `count`."""
        return self.counts if len(self.counts) <= count else (len(self.order),)


def by_target(problem: Problem) -> Groups:
    """Returns the samples of a problem in groups of equal targets.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.observables.groups import by_target
        >>> groups = by_target(kf.Problem(np.eye(3), [-1.0, 1.0, -1.0]))
        >>> groups.order.tolist(), groups.names, groups.counts
        ([1, 0, 2], ('y = 1', 'y = −1'), (1, 2))
    """
    y = problem.y.reshape(problem.points, -1)
    targets, group, counts = np.unique(-y, axis=0, return_inverse=True, return_counts=True)
    group, targets = group.reshape(-1), 0.0 - targets
    classes = y.shape[1] > 1 and bool((np.sort(y, axis=1) == np.eye(y.shape[1])[-1]).all())
    names = tuple(f"class {row.argmax()}" if classes else f"y = {_target(row)}" for row in targets)
    return Groups(np.argsort(group, kind="stable"), names, tuple(counts.tolist()), group)


def _target(row: np.ndarray) -> str:
    numbers = ", ".join(f"{value:.3g}" for value in row).replace("-", "\N{MINUS SIGN}")
    return numbers if len(row) == 1 else f"({numbers})"
