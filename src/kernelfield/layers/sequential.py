"""Layers one after the other: forward up, backward down, update in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from kernelfield.layers.base import Layer, Setup


@dataclass(frozen=True)
class Sequential:
    """The composition of `layers`, itself a layer."""

    layers: tuple[Layer, ...]

    def init(self, setup: Setup, below: Any) -> tuple[tuple, Any]:
        """The states of all layers and the last population."""
        states = []
        for layer in self.layers:
            state, below = layer.init(setup, below)
            states.append(state)
        return tuple(states), below

    def forward(self, state: tuple, signal: Any) -> tuple[tuple, Any, tuple]:
        """Bottom to top."""
        states, traces = [], []
        for layer, old in zip(self.layers, state, strict=True):
            new, signal, trace = layer.forward(old, signal)
            states.append(new)
            traces.append(trace)
        return tuple(states), signal, tuple(traces)

    def backward(self, state: tuple, chi: Any, trace: tuple) -> tuple[tuple, Any, tuple]:
        """Top to bottom."""
        states, traces = [], []
        for layer, old, passed in reversed(list(zip(self.layers, state, trace, strict=True))):
            new, chi, passed = layer.backward(old, chi, passed)
            states.append(new)
            traces.append(passed)
        return tuple(states[::-1]), chi, tuple(traces[::-1])

    def update(self, state: tuple, trace: tuple, rate: Array) -> tuple:
        """Each layer by itself."""
        return tuple(
            layer.update(old, passed, rate) for layer, old, passed in zip(self.layers, state, trace, strict=True)
        )

    def finite_init(self, key: Array, inputs: int, width: int) -> tuple[tuple, int]:
        """Parameters of all layers."""
        params = []
        for layer, layer_key in zip(self.layers, jax.random.split(key, len(self.layers)), strict=True):
            values, inputs = layer.finite_init(layer_key, inputs, width)
            params.append(values)
        return tuple(params), inputs

    def finite_apply(self, params: tuple, x: Array) -> Array:
        """Bottom to top."""
        for layer, values in zip(self.layers, params, strict=True):
            x = layer.finite_apply(values, x)
        return x

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)
