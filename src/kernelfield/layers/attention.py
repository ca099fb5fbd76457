"""Attention over the positions of a sequence, of many heads or of one, and what reads a sequence out.

Padding has fields of zero, by which these layers know it and leave it out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kernelfield.layers.particlewise import ParticleFunction


@dataclass(frozen=True)
class MultiHeadAttention(ParticleFunction):
    """softmax(q k^T / d^alpha) v over the positions of a sequence, in every head: a particle is a head.

    As the width N of the residual stream grows, so does the number N / d of heads of dimension d. Below it are
    `Conv(1, components=3 * d, width=3)`, which makes q, k and v, above it `Conv(1)`.

    Args:
        head_dim: d.
        causal: whether a position sees itself and those before it alone.
        alpha: 1/2 as usual, or 1 as in muP.

    Source: arXiv:2405.15712, the limit of many heads.
    """

    head_dim: int = 2
    causal: bool = False
    alpha: float = 0.5

    @property
    def components(self) -> int:  # type: ignore[override]
        """3 d."""
        return 3 * self.head_dim

    def apply(self, h: Array) -> Array:
        """Returns the values v that every position attends to, (P, positions, d, S)."""
        q, k, v = jnp.split(_check_sequence(self, h), 3, axis=2)
        places, scale = range(h.shape[1]), self.head_dim**-self.alpha
        # sums over short axes are written out, key by key: compilers make slow loops of them
        logits = [scale * sum(q[:, :, i] * k[:, b, None, i] for i in range(self.head_dim)) for b in places]
        sees, present = np.tri(len(places), dtype=bool)[:, :, None], jnp.any(h != 0, axis=2)
        for b in places:
            seen = present[:, b, None] & (sees[:, b] if self.causal else True)
            logits[b] = jnp.where(seen | ~present, logits[b], -jnp.inf)
        top = lax.stop_gradient(functools.reduce(jnp.maximum, logits))
        weights = [jnp.exp(logit - top) for logit in logits]
        values = [weights[b][:, :, None] * v[:, b, None] for b in places]
        total, norm = (functools.reduce(jnp.add, parts) for parts in (values, weights))
        return total / norm[:, :, None] * present[:, :, None]


@dataclass(frozen=True)
class MeanAttention(ParticleFunction):
    """softmax(scale <q k>) v over the positions of a sequence: one head, whose logits are means over its neurons.

    They are 1/N sums at width N, in place of 1/sqrt(N): attention is the same number for all particles, and starts
    uniform. Below it is `Conv(1, components=3, width=3)`.

    Args:
        scale: of the logits.
        causal: whether a position sees itself and those before it alone.
    """

    scale: float = 1.0
    causal: bool = False
    components = 3

    @property
    def is_sampled(self) -> bool:
        """False."""
        return False

    def apply(self, h: Array) -> Array:
        """Returns the values v that every position attends to, (P, positions, 1, S)."""
        q, k, v = (_check_sequence(self, h)[:, :, number] for number in range(3))
        logits = self.scale * jnp.einsum("pas,pbs->pab", q, k) / h.shape[-1]
        A = _attend(logits, self.causal, jnp.any(h != 0, axis=(2, 3)))
        return jnp.einsum("pab,pbs->pas", A, v)[:, :, None]

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel of values under the attention of initialization, which is uniform."""
        A = self._uniform(kernel)
        return np.einsum("mab,mbnd,ncd->manc", A, kernel, A), kernel

    def lazy_backward(self, kernel: np.ndarray, trace: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Returns the kernel of the gradients of values; those of q and k vanish."""
        A = self._uniform(trace)
        return np.einsum("mba,mbnd,ndc->manc", A, kernel, A), 0.0, trace

    def _uniform(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the attention of initialization (P, positions, positions)."""
        present = _find_tokens(kernel)
        return np.asarray(_attend(np.zeros((*present.shape, present.shape[1])), self.causal, present))


@dataclass(frozen=True)
class TokenPool(ParticleFunction):
    """The mean over the positions of a sequence, or its last position, padding left out.

    Args:
        last: whether to take the last position.
    """

    last: bool = False

    @property
    def is_sampled(self) -> bool:
        """False."""
        return False

    @property
    def keeps_gaussian(self) -> bool:
        """True: it is linear for given padding."""
        return True

    def apply(self, h: Array) -> Array:
        """Returns the mean or the last position, (P, C, S)."""
        present = jnp.any(_check_sequence(self, h) != 0, axis=(2, 3))
        return jnp.einsum("pa,pacs->pcs", self._weigh(present).astype(h.dtype), h)

    def _weigh(self, present: Any) -> Any:
        """Returns weights (P, positions) that sum to one, given which positions are tokens."""
        after = present[:, ::-1].cumsum(axis=1)[:, ::-1]  # tokens from a position on
        return present & (after == 1) if self.last else present / after[:, :1]

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel of the mean or the last position."""
        weights = self._weigh(_find_tokens(kernel))
        return np.einsum("ma,manb,nb->mn", weights, kernel, weights), kernel

    def lazy_backward(self, kernel: np.ndarray, trace: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Returns the kernel at every position."""
        weights = self._weigh(_find_tokens(trace))
        return np.einsum("ma,mn,nb->manb", weights, kernel, weights), 0.0, trace


def _check_sequence(layer: ParticleFunction, h: Array) -> Array:
    """Returns h (P, positions, C, S), if its sites are those of a sequence; else raises ValueError."""
    if h.ndim != 4:
        raise ValueError(f"{type(layer).__name__} needs a sequence, X of shape (P, positions, D) or of token ids")
    return h


def _attend(logits: Any, causal: bool, present: Any) -> Any:
    """Returns the softmax over the second position of logits (P, positions, positions), zero at padding."""
    seen = present[:, None] & np.tri(logits.shape[1], dtype=bool) if causal else present[:, None]
    logits = jnp.where(seen | ~present[:, :, None], logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=2) * present[:, :, None]


def _find_tokens(kernel: np.ndarray) -> np.ndarray:
    """Returns which positions (P, positions) of a kernel are tokens: padding has a variance of zero."""
    return np.einsum("mama->ma", kernel) > 0
