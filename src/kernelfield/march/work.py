"""What a run does and holds, counted before it runs: products, fields, bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield.layers import Activation, Readout, Space
from kernelfield.layers.base import uses
from kernelfield.layers.weights import Weights
from kernelfield.march.replicate import PASS_ROWS

WORKING = 6  # fields of a layer that a step has at once: h, phi, z, g, and what products make


@dataclass(frozen=True)
class Work:
    """What one step of a replicate does.

    Args:
        products: multiplications for each particle, of points that train.
        passed: the same, of points that only pass.
        recorded: the same, for kernels.
        fields: numbers for each particle in the fields of all layers, of points that train.
        state: numbers for each particle in the state.
    """

    products: int
    passed: int
    recorded: int
    fields: int
    state: int


def count(run: Any) -> Work:
    """What a step of a run does, from the widths of all its products."""
    space = Space(None, run.data.shape[1:-1], run.data.shape[-1])
    k, block, C = run.directions, run.setup(0).block or 0, run.problem.outputs or 1
    copies = 3 if run.step.momentum else 2
    recorded = 2 * run.recorder.capacity
    products = passed = for_kernels = fields = state = 0
    for layer in uses(run.step.layers):
        below = math.prod(space.sites)
        if isinstance(layer, Weights):
            wiring = layer.wiring(space.sites)
            above, n = math.prod(wiring.above), wiring.places
            if space.population is None:
                forward = above * n * space.channels
                products += run.rows * 2 * forward
                state += copies * n * space.channels
            else:
                forward = k * (1 + n) * (below + above) + block * n * above
                products += run.rows * (forward + k * (1 + n) * (below + above) + block * n * below)
                products += run.rows * k * n * (above + below)
                state += 2 * k * (1 + copies * n) + 2 * n
                for_kernels += run.rows * recorded * below
            passed += 2 * run.rows * forward
            for_kernels += run.rows * recorded * above
            space = Space(True, wiring.above, width=layer.width)
        elif isinstance(layer, Readout):
            products += 4 * run.rows * below * C
            passed += 2 * run.rows * below * C
            for_kernels += run.rows * recorded * below
            state += copies * below * C
        elif isinstance(layer, Activation):
            fields += run.rows * below
        else:
            space = space._replace(sites=getattr(layer, "left", lambda sites: sites)(space.sites))
    if not run.kernels_at:
        for_kernels = 0
    return Work(products, passed, for_kernels, fields, state)


def bytes_of(run: Any) -> int:
    """Size of the arrays of a run at its peak, about."""
    work, setup, problem = count(run), run.setup(0), run.problem
    S, item = run.particles, np.dtype(setup.dtype).itemsize
    points = problem.points / run.rows
    passing = min(points, max(1.0, PASS_ROWS / run.rows))
    busy = run.at_once * WORKING * work.fields * S * item * (passing if run.batched else 1)
    kept = run.initial_bytes + 3 * len(run.fields_at) * work.fields * points * S * item
    state = work.state * S * item * (1 + len(run.states_at) + 1)
    recorded = run.recorder.capacity * item
    rows = len(run.kernels_at) * problem.points * 2 * len(uses(run.step.layers)) // 2
    looked = (recorded * rows + 2 * recorded * S) if rows else 0
    data = run.data.size * (8 + item) + problem.X.nbytes
    return int(run.count * (kept + state + looked) + busy + data)
