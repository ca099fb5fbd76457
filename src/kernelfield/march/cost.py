"""What a run does and holds, counted before it runs: products, fields, bytes, and whether they fit into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import psutil

from kernelfield.engine.directions import EXACT_ROWS
from kernelfield.layers import Activation, Readout
from kernelfield.layers.base import uses
from kernelfield.layers.particlewise import ParticleFunction
from kernelfield.layers.weights import Weights
from kernelfield.march.devices import placement
from kernelfield.march.layout import Layout
from kernelfield.march.replicate import KEPT, PASS_ROWS

GIB = 2**30
FEWEST = 256  # particles that are proposed
ENTRY, RANDOM = 16, 32  # multiplications that take as long as one update of an entry by Adam, and one random number
SEARCH = 170  # multiplications for each field and direction of a basis, to find new ones of many fields (measured)
WORKING = 6  # fields of a layer that a step has at once: h, phi, z, g, and what products make


@dataclass
class Work:
    """What one step of a replicate does, for each particle."""

    products: int = 0  # multiplications for points that train
    passed: int = 0  # multiplications for points that only pass
    recorded: int = 0  # multiplications for kernels
    fields: int = 0  # numbers in the fields of all layers, of points that train
    state: int = 0  # numbers in the state


def count(layout: Layout) -> Work:
    """Returns what a step of a run does, from the widths of all its products."""
    work, space = Work(), layout.space
    setup = layout.setup(0)
    rows, k, block, C = layout.rows, layout.directions, setup.block or 0, layout.problem.outputs
    by_entries, skeleton = setup.by_entries, setup.skeleton
    copies = 5 if by_entries else 3 if layout.step.momentum else 2
    for layer in uses(layout.step.layers):
        below, last = math.prod(space.sites) * space.components, space
        space = layer.space_above(space)
        if isinstance(layer, Weights):
            n, of, to = layer.wiring(last.sites).places, last.components, layer.components
            above = math.prod(space.sites) * to
            if last.channels:
                forward = above * n * last.channels
                work.products += rows * 2 * forward
                work.state += copies * n * last.channels * to
            else:
                forward = k * (1 + n) * (below + above) + block * n * above * of
                backward = k * (1 + n) * (below + above) + block * n * below * to
                work.products += rows * (forward + backward + k * n * (above + below))
                work.state += (k * (1 + (2 if by_entries else copies) * n) + n) * (of + to)
                if by_entries and not skeleton:
                    pairs = layout.particles * n * of * to
                    work.state += 4 * pairs
                    work.products += (3 * rows + ENTRY) * pairs
                if (
                    by_entries and skeleton
                ):  # entries of columns and rows with their moments, and products of two factors
                    known, rank = skeleton
                    work.state += 4 * known * (to + n * of) + rank * (to + n * of)
                    work.products += (rows * known + ENTRY * known + known * rank) * (to + n * of) + known**2 * to
                    work.products += 2 * rows * rank * (above + below)
                if setup.noisy:
                    work.products += RANDOM * n * k * (of + to)
                work.recorded += count_recording(layout, rows * below)
            work.passed += 2 * rows * forward
            work.recorded += count_recording(layout, rows * above)
        elif isinstance(layer, Readout):
            work.products += 4 * rows * below * C
            work.passed += 2 * rows * below * C
            work.recorded += count_recording(layout, rows * below)
            work.state += copies * below * C
        elif isinstance(layer, (Activation, ParticleFunction)):
            work.fields += rows * below
    return work


def count_recording(layout: Layout, fields: int) -> int:
    """Returns the multiplications for coordinates of so many recorded fields, and for the search of new directions."""
    if not layout.kernels_at:
        return 0
    used = 3 * layout.recorder.capacity // 4  # on average: a basis fills up as the run goes on
    return fields * used + (fields * used if fields <= EXACT_ROWS else SEARCH * (fields + used))


def bytes_of(layout: Layout) -> int:
    """Returns the size of the arrays of a run at its peak, about."""
    work, problem, recorder = count(layout), layout.problem, layout.recorder
    S, item = layout.particles, np.dtype(layout.dtype).itemsize
    points = problem.points / layout.rows
    passing = min(points, max(1.0, PASS_ROWS / layout.rows)) if layout.batched else 1
    busy = layout.side_by_side * WORKING * work.fields * S * item * passing
    initial = min(layout.initial_bytes, KEPT) if layout.batched else layout.initial_bytes
    kept = initial + 3 * len(layout.run.fields_at) * work.fields * points * S * item
    state = work.state * S * item * (len(layout.states_at) + 2)
    rows = len(layout.kernels_at) * problem.points * 2 * len(uses(layout.step.layers)) // 2
    kernels = recorder.capacity * item * (rows + 2 * S) if rows else 0
    data = layout.data.size * (8 + item) + problem.X.nbytes
    return int(layout.count * (kept + state + kernels) + busy + data)


def available() -> int:
    """Returns the bytes that programs can still have on this machine."""
    return psutil.virtual_memory().available


def advice(layout: Layout, share: float) -> str | None:
    """Returns the setting of a run that takes no more than a share of its memory, as text; None if nothing suffices."""
    fewer, count = 2 ** math.floor(math.log2(max(1.0, layout.particles * share))), int(layout.count * share)
    if layout.finite:
        return f"seeds={count}" if count else None
    if fewer >= FEWEST:
        return f"particles={fewer}"
    return f"replicates={count}" if count >= 2 else None


def check_memory(layout: Layout) -> None:
    """Raise ValueError if this machine cannot hold the arrays of a run."""
    if layout.exact or placement(layout.particles).is_split:
        return
    needed, most = bytes_of(layout), available()
    if needed > most:
        fits, (S, R) = (
            advice(layout, most / needed),
            ("width", "seeds") if layout.finite else ("particles", "replicates"),
        )
        raise ValueError(
            f"{S}={layout.particles} and {R}={layout.count} need about {needed / GIB:.1f} GiB of memory, "
            f"of which {most / GIB:.1f} are available" + (f": {fits} would fit" if fits else "")
        )
