"""Memory that this machine has."""

from __future__ import annotations

import math

import psutil

GIB = 2**30


def available() -> int:
    """Bytes that programs can still have on this machine."""
    return psutil.virtual_memory().available


def smaller(particles: int, replicates: int, least: int, share: float) -> str | None:
    """The settings that take no more than a share of the memory of so many particles and replicates.

    Args:
        particles: S.
        replicates: R.
        least: number of particles.
        share: below one.

    Returns:
        The first setting that suffices, as text; None if there is none.
    """
    fewer = 2 ** math.floor(math.log2(max(1.0, particles * share)))
    if fewer >= least:
        return f"particles={fewer}"
    if (count := int(replicates * share)) >= 2:
        return f"replicates={count}"
    return None
