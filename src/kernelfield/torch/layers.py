"""The layers of the limit, made of the pieces of a network in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kernelfield import layers as kl
from kernelfield.describe.architecture import Architecture, Network
from kernelfield.describe.networks import MLP
from kernelfield.parameterization import MeanField
from kernelfield.torch.pieces import Piece, Tensor
from kernelfield.torch.tensors import Rows
from kernelfield.torch.words import Unreadable

ZERO_READOUT = 0.01  # sigma of a readout that starts at zero: its square is what the limit is off by
FUNCTIONS = {
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "leaky_relu": jax.nn.leaky_relu,
    "log_sigmoid": jax.nn.log_sigmoid,
    "gelu_tanh": jax.nn.gelu,
    "sin": jnp.sin,
    "cos": jnp.cos,
}


class Builder:
    """Makes layers of pieces."""

    def __init__(self, rows: Rows, mean_field: MeanField) -> None:
        self.rows, self.mean_field, self.made, self.notes = rows, mean_field, dict[int, kl.Layer](), list[str]()

    def build(self, pieces: Sequence[Piece]) -> list[kl.Layer]:
        """Returns the layers of pieces, the readout included."""
        return [layer for piece in pieces for layer in self._layers(piece, piece is pieces[-1])]

    def _layers(self, piece: Piece, is_last: bool) -> list[kl.Layer]:
        kind, settings = piece.kind, piece.settings
        if kind == "residual":
            if not piece.branch or not piece.branch[-1].is_linear:
                raise Unreadable(f"the branch that ends in {piece.name!r} must end in weights")
            branch = [layer for each in piece.branch for layer in self._layers(each, False)]
            return [kl.Residual(kl.Sequential(branch), settings)]
        if kind in ("dense", "conv", "tokens"):
            return self._weights(piece, is_last)
        if kind == "norm":
            name, eps = settings
            layer = kl.LayerNorm(eps) if name == "LayerNorm" else kl.RMSNorm(eps)
            return [layer, *self._vector(piece.weight, kl.Gain), *self._vector(piece.bias, kl.Bias)]
        if kind == "mean":
            return [kl.TokenPool() if settings == "sites last" else kl.GlobalAveragePool()]
        layers: dict[str, Any] = {
            "activation": lambda: kl.Activation(FUNCTIONS.get(settings, settings)),
            "pool": lambda: kl.AveragePool(settings),
            "max": lambda: kl.MaxPool(settings),
            "attention": lambda: kl.MultiHeadAttention(settings),
            "last": lambda: kl.TokenPool(last=True),
        }
        return [layers[kind]()]

    def _weights(self, piece: Piece, is_readout: bool) -> list[kl.Layer]:
        """Returns the layer of weights, and that of their bias if there is one."""
        assert piece.weight is not None
        key, name = id(piece.weight.parameter), piece.weight.name
        if key not in self.made:
            scale, rate = self._scale(name), clean(self.mean_field.relative_rates[name])
            if scale == 0 and not is_readout:
                raise Unreadable(f"{name} starts at zero, and so would all that it makes: give it random weights")
            if scale == 0:
                scale = ZERO_READOUT
                self.notes.append(f"{name} starts at zero, the limit with a scale of {ZERO_READOUT:g}")
            common: dict[str, Any] = {"scale": scale, "relative_rate": rate}
            self.made[key] = kl.Readout(**common) if is_readout else self._make_hidden(piece, common)
        return [self.made[key], *([] if piece.kind == "tokens" else self._vector(piece.bias, kl.Bias))]

    def _make_hidden(self, piece: Piece, common: dict[str, Any]) -> kl.Layer:
        common = common | {"width": piece.neurons / self.rows.width}
        if piece.kind == "dense":
            return kl.Dense(**common)
        if piece.kind == "tokens" or piece.settings is None:  # of every position
            return kl.Conv(1, 1, "zero", **common)
        kernel, stride, padding, *components = piece.settings
        return kl.Conv(kernel, stride, padding, **common, **({"components": components[0]} if components else {}))

    def _vector(self, tensor: Tensor | None, kind: Any) -> list[kl.Layer]:
        """Returns the layer of a bias or a gain, if there is one that trains."""
        if tensor is None or id(tensor.parameter) not in self.rows.tensors:
            return []
        if id(tensor.parameter) not in self.made:
            rate = clean(self.mean_field.relative_rates[tensor.name])
            scale = {} if kind is kl.Gain else {"scale": self._scale(tensor.name)}
            self.made[id(tensor.parameter)] = kind(**scale, relative_rate=rate)
        return [self.made[id(tensor.parameter)]]

    def _scale(self, name: str) -> float:
        """Returns the scale of a tensor without the rounding of its last digits."""
        return clean(self.mean_field.scales[name])


def clean(value: float) -> float:
    """Returns a number without the rounding of its last digits."""
    return float(f"{value:.10g}")


def name_network(layers: list[kl.Layer], gamma0: float) -> Architecture:
    """Returns an MLP if its layers are these, which more methods solve, and else a Network."""
    dense = [layer for layer in layers if isinstance(layer, kl.Dense)]
    activations = {layer.nonlinearity.name for layer in layers if isinstance(layer, kl.Activation)}
    biases = {layer.scale for layer in layers if isinstance(layer, kl.Bias)}
    if dense and len(activations) == 1 and len(biases) <= 1 and isinstance(layers[-1], kl.Readout):
        scales, widths = [layer.scale for layer in (*dense, layers[-1])], [layer.width for layer in dense]
        try:
            candidate = MLP(
                depth=len(dense),
                activation=activations.pop(),
                gamma0=gamma0,
                bias_scale=biases.pop() if biases else None,
                weight_scales=None if set(scales) == {1.0} else scales,
                widths=None if set(widths) == {1.0} else widths,
            )
        except ValueError:  # an activation without a name
            return Network(layers=layers, gamma0=gamma0)
        if list(candidate.layers.layers) == layers and len(set(map(id, layers))) == len(layers):
            return candidate
    return Network(layers=layers, gamma0=gamma0)
