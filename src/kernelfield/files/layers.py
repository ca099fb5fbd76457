"""The layers of a network as JSON can hold them, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from kernelfield import layers as kl
from kernelfield.activations.functions import ACTIVATIONS, Activation
from kernelfield.layers import Concatenate, Multiply, Residual, Sequential

NOT_STORED = (
    "a Network of custom layers cannot be stored: save the arrays you need, or take activations known by name and no "
    "Particlewise"
)


def layers_json(layers: Sequential) -> dict[str, Any]:
    """Returns {"layers": settings of every layer, "order": the number of the layer of every use}.

    Raises:
        ValueError: a layer is not one of `kernelfield.layers`, or has a function of its own.
    """
    first = [layers.layers[layers.state_of.index(number)] for number in range(max(layers.state_of, default=-1) + 1)]
    return {"layers": [_layer_json(layer) for layer in first], "order": list(layers.state_of)}


def restore_layers(stored: dict[str, Any]) -> Sequential:
    """Returns the layers that `layers_json` described; uses of one layer share it."""
    layers = [_restore_layer(dict(values)) for values in stored["layers"]]
    return Sequential([layers[number] for number in stored["order"]])


def _layer_json(layer: Any) -> dict[str, Any]:
    kind = type(layer)
    if isinstance(layer, Sequential):
        return {"class": "Sequential", **layers_json(layer)}
    if isinstance(layer, Residual):
        return {"class": "Residual", "scale": layer.scale, "branch": _layer_json(layer.branch)}
    if isinstance(layer, (Concatenate, Multiply)):
        return {"class": kind.__name__, "branches": [_layer_json(branch) for branch in layer.branches]}
    if getattr(kl, kind.__name__, None) is not kind:
        raise ValueError(NOT_STORED)
    values = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer) if field.init}
    for name, value in values.items():
        if isinstance(value, Activation) and ACTIVATIONS.get(value.name) is value:
            values[name] = value.name
        elif isinstance(value, Activation) or callable(value):
            raise ValueError(NOT_STORED)
    return {"class": kind.__name__, **values}


def _restore_layer(values: dict[str, Any]) -> Any:
    name = values.pop("class")
    if name == "Sequential":
        return restore_layers(values)
    if name == "Residual":
        return Residual(_restore_layer(values["branch"]), values["scale"])
    if "branches" in values:
        values["branches"] = [_restore_layer(branch) for branch in values["branches"]]
    return getattr(kl, name)(**values)
