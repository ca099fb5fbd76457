"""Points that pass an infinite matrix and leave no trace: new data, after training.

What the basis does not know of such a point becomes directions of its own, at most one for each of its sites. Their
images are fresh Gaussian coordinates and responses, as those of every new direction, but the point keeps them to
itself: points do not depend on each other, and all use the same fresh coordinates, the next ones in order of need. So
every point by itself is as it would be in training with weight zero, and two points together are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.infinite_matrix import InfiniteMatrix
from kernelfield.engine.slabs import combination


class Visited(NamedTuple):
    """A matrix that is visited, with room for the directions of a point on both sides.

    Attributes:
        matrix: as training left it. From data, its last rows are free, as many as a point has sites.
        own: (P, m, S) the directions of every point so far, where the matrix is used more than once.
        W, Z: (P, n, m, S) their images, but for `scale`, and (n, m, S) the Gaussian part, the same for all points.
    """

    matrix: InfiniteMatrix
    own: Array | None = None
    W: Array | None = None
    Z: Array | None = None


def visit(visited: Visited, phi: Array, seen: Callable[[Array], Array]) -> tuple[Visited, Array, Array, Array]:
    """Send features phi (P, *sites, S), or coordinates of data (P, *sites, k + r) of which the matrix knows k, up.

    Args:
        visited: the matrix.
        phi: of the points.
        seen: what every site above sees of coordinates below, (P, *sites, k) -> (P B, n k).

    Returns:
        The matrix, coordinates F in its basis, and h and u (P B, S).
    """
    below, above = visited.matrix
    known = visited.matrix.features
    (places, _, particles), (points, *sites, _) = above.Z.shape, phi.shape
    rows = phi.reshape(points, -1, phi.shape[-1])
    count = rows.shape[1]
    if below is None:
        born, unit = above.Z.shape[1] - count, 1
        F, rest = rows[..., :born], rows[..., born:]
        F = jnp.pad(F, [(0, 0), (0, 0), (0, count)])
    else:
        born, unit = below.basis.size, particles
        F = rows @ below.basis.q.T / unit
        rest = rows - F @ below.basis.q
    mine = jnp.zeros((points, count, 0), phi.dtype)
    if visited.own is not None:
        mine = rest @ visited.own.swapaxes(1, 2) / unit
        rest, born = rest - mine @ visited.own, born + visited.own.shape[1]
    variance, axes = jnp.linalg.eigh(rest @ rest.swapaxes(1, 2) / unit)
    root = jnp.sqrt(jnp.maximum(variance, jnp.finfo(phi.dtype).tiny))[:, None]
    own, mine = (axes / root).swapaxes(1, 2) @ rest, jnp.concatenate([mine, axes * root], axis=-1)
    gaussian = lax.dynamic_slice_in_dim(above.Z, born, count, axis=1)
    images = jnp.broadcast_to(gaussian, (points, *gaussian.shape))
    if below is not None:
        response = own @ below.Z.reshape(-1, particles).T / particles
        responded = response.reshape(points, count, places, -1) @ above.basis.q
        images = images + above.response * responded.swapaxes(1, 2)
    own, W, Z = _joined(visited.own, own), _joined(visited.W, images), _joined(visited.Z, gaussian)
    F, mine = (each.reshape(points, *sites, -1) for each in (F, mine))
    alone = seen(mine).reshape(points, -1, W.shape[1] * W.shape[2])
    h = combination(seen(F), above.W, known) + above.scale * (alone @ W.reshape(points, -1, particles)).reshape(
        -1, particles
    )
    u = above.scale * (
        combination(seen(F), above.Z, known) + alone.reshape(-1, alone.shape[-1]) @ Z.reshape(-1, particles)
    )
    return visited._replace(own=own, W=W, Z=Z), F, h, u


def _joined(old: Array | None, new: Array) -> Array:
    """More directions, on the last axis but one."""
    return new if old is None else jnp.concatenate([old, new], axis=-2)
