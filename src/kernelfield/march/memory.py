"""The memory of this machine."""

from __future__ import annotations

import math

import psutil

GIB = 2**30


def available() -> int:
    """Returns the bytes that programs can still have on this machine."""
    return psutil.virtual_memory().available


def smaller(particles: int, replicates: int, least: int, share: float) -> str | None:
    """Returns the setting that takes no more than a share of the memory of so many particles and replicates, as text.

    There are at least `least` particles, or two replicates; None if nothing suffices.
    """
    fewer = 2 ** math.floor(math.log2(max(1.0, particles * share)))
    if fewer >= least:
        return f"particles={fewer}"
    if (count := int(replicates * share)) >= 2:
        return f"replicates={count}"
    return None
