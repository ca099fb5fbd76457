"""How far estimates are from those of another solution, as cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import kernelfield as kf


def cell(found: Sequence[kf.Estimate], truth: Sequence[kf.Estimate]) -> str:
    """The mean relative distance, and what the standard errors of both sides make of a distance of zero, in percent."""
    pairs = [(a, b, np.linalg.norm(b.mean)) for a, b in zip(found, truth, strict=True)]
    distance = np.mean([np.linalg.norm(a.mean - b.mean) / size for a, b, size in pairs])
    noise = np.mean([np.sqrt(np.sum(a.se**2 + b.se**2)) / size for a, b, size in pairs])
    return f"{100 * distance:.2f} ({100 * noise:.2f})"
