"""Kernels as images: between samples, and between times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.observables.groups import by_target
from kernelfield.plotting.style import KERNEL_COLOURS, TIME_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOST_CLASSES = 10  # more different targets are no classes


def kernel_matrix(axes: Axes, kernel: np.ndarray, limit: float, title: str, groups: Sequence[int]) -> AxesImage:
    """Returns the image of a kernel, drawn on a colour scale from -limit to limit that several panels can share.

    Args:
        axes: matplotlib axes.
        kernel: (P, P).
        limit: of the colour scale.
        title: above the panel.
        groups: how many samples each class has, in order; lines are drawn between classes.
    """
    image = axes.imshow(kernel, cmap=KERNEL_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest")
    for edge in np.cumsum(groups)[:-1]:
        axes.axhline(edge - 0.5, color="black", lw=0.8, alpha=0.6)
        axes.axvline(edge - 0.5, color="black", lw=0.8, alpha=0.6)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    return image


def kernel_matrix_by_target(axes: Axes, kernel: np.ndarray, limit: float, title: str, problem: Problem) -> AxesImage:
    """Returns the image of a kernel (P, P), drawn as `kernel_matrix` with the samples in the order of their targets."""
    groups = by_target(problem)
    counts = groups.counts if len(groups.counts) <= MOST_CLASSES else (problem.points,)
    ordered = kernel[np.ix_(groups.order, groups.order)]
    return kernel_matrix(axes, ordered, limit, title, counts)


def two_time_matrix(
    axes: Axes, kernel: np.ndarray, bounds: tuple[float, float], title: str, logarithmic: bool = False
) -> AxesImage:
    """Returns the image of a kernel between all pairs of times, with time running up and to the right.

    Args:
        kernel: (T, T).
        bounds: of the colour scale, which several panels can share.
        logarithmic: whether the colour scale is; bounds must be positive then.
        axes, title: as for `kernel_matrix`.
    """
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if logarithmic else Normalize)(*bounds)
    image = axes.imshow(kernel, cmap=TIME_COLOURS, norm=norm, origin="lower", interpolation="nearest")
    ends = [0, len(kernel) // 2, len(kernel) - 1]
    axes.set_title(title, fontsize=11)
    axes.set(xticks=ends, yticks=ends, xlabel="step $s$")
    return image


def class_labels(axes: Axes, names: Sequence[str], groups: Sequence[int]) -> None:
    """Writes the names of the classes along the left side of a kernel matrix; `groups` as in `kernel_matrix`."""
    ends = np.cumsum(groups)
    axes.set_yticks(ends - np.asarray(groups) / 2 - 0.5, names)
    axes.tick_params(axis="y", length=0)
