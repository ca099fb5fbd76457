"""Weights that move at random, W <- kept W + spread xi, and bases that forget directions which no field has any more.

W is a Gaussian matrix at every time: its scale s follows from s^2 <- (kept s)^2 + spread^2, and in units of s its
images K become c K + sqrt(1 - c^2) xi, with c = kept s / s'. What it makes of a new direction follows from K now, by
the same equations as ever. Directions would come without end: those of which a fading memory of fields has nothing are
dropped.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernelfield.engine.directions import Directions, project
from kernelfield.engine.infinite_matrix import Images, InfiniteMatrix, State

FULL = 0.75  # part of its room above which a basis drops directions


def stir(tree: State, kept: Array, spread: Array, key: Array) -> State:
    """Returns a tree of states after one random move of all weights."""
    parts, rebuild = jax.tree.flatten(tree, is_leaf=lambda part: isinstance(part, (InfiniteMatrix, Images)))
    moved: list[Any] = []
    for number, part in enumerate(parts):
        noise = jax.random.fold_in(key, number)
        if isinstance(part, InfiniteMatrix):
            part = _stir_matrix(part, kept, spread, noise)
        elif isinstance(part, Images):
            part = _stir_images(part, kept, spread, jax.random.normal(noise, part.K.shape, part.K.dtype))
        moved.append(part)
    return rebuild.unflatten(moved)


def _stir_images(images: Images, kept: Array, spread: Array, xi: Array) -> Images:
    dtype = images.K.dtype
    before = kept * images.decay
    decay = jnp.sqrt(before**2 + (spread * jnp.sqrt(images.gain) / images.sigma) ** 2)
    c = jnp.where(decay > 0, before / jnp.where(decay > 0, decay, 1), 1).astype(dtype)
    K = c * images.K + jnp.sqrt(1 - c * c) * xi
    return images._replace(K=K, M=kept.astype(dtype) * images.M, decay=decay.astype(dtype))


def _stir_matrix(matrix: InfiniteMatrix, kept: Array, spread: Array, key: Array) -> InfiniteMatrix:
    """Returns a matrix after a move that both of its sides see."""
    up, down = (
        jax.random.normal(side, images.K.shape, images.K.dtype)
        for side, images in zip(jax.random.split(key), (matrix.up, matrix.down), strict=True)
    )
    q_a, share = matrix.below.q, math.sqrt(matrix.T.share)
    common = share * matrix.above.average(up, matrix.above.q).swapaxes(-1, -2)
    down = down + (common - project(matrix.below, down)) @ q_a
    return replace(
        matrix, up=_stir_images(matrix.up, kept, spread, up), down=_stir_images(matrix.down, kept, spread, down)
    )


def fade(tree: State, kept: Array, key: Array) -> State:
    """Returns a tree of states whose bases remember less of past fields, and drop directions where they are full."""
    parts, rebuild = jax.tree.flatten(tree, is_leaf=lambda part: isinstance(part, InfiniteMatrix))
    return rebuild.unflatten(
        [
            _fade(part, kept, jax.random.fold_in(key, number)) if isinstance(part, InfiniteMatrix) else part
            for number, part in enumerate(parts)
        ]
    )


def _fade(matrix: InfiniteMatrix, kept: Array, key: Array) -> InfiniteMatrix:
    def side(basis: Directions, images: Images, noise: Array) -> tuple[Directions, Images]:
        assert basis.memory is not None
        basis = basis._replace(memory=(kept**2 * basis.memory).astype(basis.memory.dtype))
        full = basis.size > FULL * len(basis.q)
        return lax.cond(full, lambda: _drop(basis, images, matrix.tol, noise), lambda: (basis, images))

    noises = jax.random.split(key)
    below, up = side(matrix.below, matrix.up, noises[0])
    above, down = side(matrix.above, matrix.down, noises[1])
    return replace(matrix, below=below, up=up, above=above, down=down)


def _drop(basis: Directions, images: Images, tol: float, key: Array) -> tuple[Directions, Images]:
    """Returns the principal directions of the remembered fields, and their images; rows that are free get new zeta."""
    dtype = basis.q.dtype
    energy, axes = jnp.linalg.eigh(jnp.asarray(basis.memory).astype(jnp.float64))
    energy, axes = energy[::-1], axes[:, ::-1]
    stays = energy > tol * basis.scale
    turn = (axes * stays).T.astype(dtype)
    fresh = jnp.where(stays[:, None], 0, jax.random.normal(key, images.K.shape, dtype))
    memory = jnp.diag(jnp.where(stays, energy, 0)).astype(dtype)
    basis = basis._replace(q=turn @ basis.q, size=jnp.sum(stays).astype(basis.size.dtype), memory=memory)
    return basis, images._replace(K=turn @ images.K + fresh, M=turn @ images.M)
