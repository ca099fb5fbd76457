"""What moves the weights of a finite network beside its gradients: the moments of Adam, and Langevin noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Moments(NamedTuple):
    """The settings b1, b2 and eps of Adam; see `kernelfield.Adam`."""

    b1: Array
    b2: Array
    eps: Array


def start_moments(params: Any) -> Any:
    """Returns the state of Adam before the first update: moments of zero, and their count."""
    import optax  # lazy: takes a tenth of a second to import

    return optax.scale_by_adam().init(params)


def normalize(settings: Moments, moments: Any, descent: Any, units: Any) -> tuple[Any, Any]:
    """Returns the descent Q / units that Adam makes of a descent, and its new state.

    G = units descent is of order one. Q is mhat / (sqrt(vhat) + eps), and 0 where this is 0 / 0.

    Args:
        settings: b1, b2, eps.
        moments: the state of Adam.
        descent: shaped as the parameters.
        units: a number for each tensor, N sqrt(n).
    """
    import optax

    G = jax.tree.map(lambda slope, unit: unit * slope, descent, units)
    Q, moments = optax.scale_by_adam(*settings).update(G, moments)

    def finish(q: Array, square: Array, unit: float) -> Array:
        return jnp.where(square + settings.eps == 0, 0, q) / unit

    return jax.tree.map(finish, Q, moments.nu, units), moments


def add_noise(key: Array, params: Any, size: Array) -> Any:
    """Returns the parameters plus independent numbers from N(0, size^2)."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return tree.unflatten([leaf + size * xi for leaf, xi in zip(leaves, noise, strict=True)])
