"""Weights whose scale is not one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
from jax import Array

from kernelfield.layers.base import Simple

Multiplies = Literal["initialization", "weight"]


@dataclass(frozen=True, kw_only=True)
class Scaled(Simple):
    """Weights with a scale.

    Args:
        scale: sigma_w, by default of the initialization N(0, sigma_w^2).
        multiplies: what `scale` multiplies: the "initialization", or the "weight" in use, which starts as N(0, 1); what
            is learned then moves fields sigma_w^2 times as far.
    """

    scale: float = 1.0
    multiplies: Multiplies = "initialization"

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, got {self.scale}")
        if self.multiplies not in ("initialization", "weight"):
            raise ValueError(f"multiplies must be 'initialization' or 'weight', got {self.multiplies!r}")

    @property
    def gain(self) -> float:
        """Factor of what is learned."""
        return self.scale**2 if self.multiplies == "weight" else 1.0

    def drawn(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Weights of finite width at initialization."""
        weights = jax.random.normal(key, shape)
        return weights if self.multiplies == "weight" or self.scale == 1 else self.scale * weights

    def multiplied(self, h: Array) -> Array:
        """What weights of finite width make, times the scale if it multiplies them in use."""
        return self.scale * h if self.multiplies == "weight" and self.scale != 1 else h
