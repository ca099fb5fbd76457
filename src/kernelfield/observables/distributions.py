"""The distributions of h, z and g over neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

Field = Literal["h", "z", "g"]
BINS = 60
TAIL = 1e-3  # share of samples that lie beyond either end of the bins, at most


@dataclass(frozen=True, eq=False)
class Density:
    """The density of a field over neurons.

    Args:
        edges: of the bins (bins + 1,).
        density: Estimate (bins,); its integral is one.
    """

    edges: np.ndarray
    density: Estimate

    @property
    def centres(self) -> np.ndarray:
        """The middles of the bins (bins,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def activation_density(
    solution: Solution,
    layer: int,
    field: Field = "h",
    sample: int | None = None,
    t: int = -1,
    edges: np.ndarray | int = BINS,
) -> Density:
    """Returns the density of h, z or g over the neurons of a hidden layer, at a step whose fields were recorded.

    Args:
        solution: what to measure.
        layer: 1..L.
        field: "h" preactivation, "z" pregradient or "g" = phi'(h) z.
        sample: number of the point; all points together if None.
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
    """Returns how far a field is from Gaussian, for every point: <x^4> / <x^2>^2 - 3 of x = field - mean.

    Arguments and errors are those of `activation_density`.

    Returns:
        Estimate (P,), 0 for a Gaussian: sampled also where the solution is exact.
    """
    from scipy.stats import kurtosis  # lazy: it takes half a second to import

    return Estimate(kurtosis(field_samples(solution, layer, field, t).astype(np.float64), axis=-1))


def field_samples(solution: Solution, layer: int, field: Field = "h", t: int = -1) -> np.ndarray:
    """Returns the samples of a field (R, P, neurons); `Solution.fields` has those of all replicates in one array.

    Arguments and errors are those of `activation_density`.
    """
    recorded = solution.fields(layer, t)  # raises
    if field not in recorded:
        raise ValueError(f"field must be one of {', '.join(recorded)}, which were recorded, got {field!r}")
    return solution.field_samples[layer, t % (solution.steps_done + 1)][field]
