"""Functions of PyTorch, and operators between tensors, as pieces of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kernelfield.torch.modules import (
    ACTIVATIONS,
    DROPOUTS,
    IDENTITIES,
    RESHAPES,
    as_tuple,
    check_batch_norm,
    read_activation,
    read_dropout,
    read_linear,
    read_reshape,
)
from kernelfield.torch.pieces import Call, Layout, Path, Piece, push
from kernelfield.torch.words import Unreadable

INPLACE = {"iadd": "add", "imul": "mul", "add_": "add", "mul_": "mul", "relu_": "relu", "tanh_": "tanh"}
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "sqrt": math.sqrt,
    "neg": lambda a: -a,
}


def calculate(name: str, arguments: Sequence[Any]) -> Any:
    """Returns the result of a function of numbers; None of what is no number, which no layer may take."""
    if name in ARITHMETIC and all(isinstance(argument, int | float) for argument in arguments):
        return ARITHMETIC[name](*arguments)
    return None


def read_function(call: Call, name: str) -> Path:
    """Returns the path through a function; raises Unreadable for one that networks here do not have."""
    arguments, options = call.arguments, call.options
    if name in ("mul", "truediv", "div", "neg", "multiply"):
        return multiply(call, name)
    if name in ("add", "sub"):
        return add(call, -1.0 if name == "sub" else 1.0)
    if name == "linear":
        return read_linear(call, arguments[1], arguments[2] if len(arguments) > 2 else options.get("bias"))
    check_batch_norm(call, name)
    if name in DROPOUTS:
        p = options.get("p", arguments[1] if len(arguments) > 1 else 0.5)
        training = options.get("training", arguments[2] if len(arguments) > 2 else True)
        return read_dropout(call, float(p), bool(training))
    if name in IDENTITIES:
        return call.path
    if name in RESHAPES:
        return read_reshape(call)
    if name in ("transpose", "permute", "mT", "movedim"):
        return transpose(call)
    if name == "mean":
        return average(call)
    if name == "getitem":
        return take(call, arguments[1])
    if name in ACTIVATIONS:
        return read_activation(call, name, {key: value for key, value in options.items() if key != "inplace"})
    raise Unreadable(f"{call.where} is not a function that can be read")


def multiply(call: Call, name: str) -> Path:
    """Returns the path times a constant, which is counted to the weights below unless an addition comes next."""
    x, where, factor = call.path, call.where, -1.0
    if name != "neg":
        others = [argument for argument in call.arguments if argument is not x]
        number = others[0] if others else None
        is_first = call.arguments[0] is x
        if not isinstance(number, int | float) or number == 0 or (not is_first and name != "mul"):
            raise Unreadable(f"{where}: a factor must be a constant number that is not zero")
        factor = float(number) if name in ("mul", "multiply") else 1 / float(number)
    scaled = replace(x, factor=x.factor * factor)
    users = [getattr(user.target, "__name__", user.target) for user in call.node.users]
    into_sum = any(user in ("add", "iadd", "sub") for user in users)
    last = scaled.pieces[-1] if scaled.pieces else None
    return push(scaled, where) if last is not None and last.is_linear and not into_sum else scaled


def add(call: Call, sign: float) -> Path:
    """Returns the sum of two paths, one of which begins with the other, or the path plus a parameter."""
    if call.options:
        raise Unreadable(f"{call.where} has {', '.join(call.options)}, which cannot be read: multiply before")
    one, other = call.arguments[0], call.arguments[1]
    if not isinstance(one, Path) or not isinstance(other, Path):
        return add_parameter(call, other if isinstance(one, Path) else one, sign)
    other = replace(other, factor=sign * other.factor)
    skip, way = (one, other) if len(one.pieces) <= len(other.pieces) else (other, one)
    count = len(skip.pieces)
    if skip.pieces == way.pieces and count:
        return replace(skip, factor=skip.factor + way.factor)
    if not count or way.pieces[:count] != skip.pieces:
        raise Unreadable(f"{call.where} adds two branches neither of which is a skip from the other's beginning")
    scale, branch = way.factor / skip.factor, way.pieces[count:]
    piece = Piece("residual", call.node.name, settings=scale, branch=branch, neurons=skip.shape[0])
    return skip.then(piece, skip.layout, skip.shape, skip.factor)


def add_parameter(call: Call, value: Any, sign: float) -> Path:
    """Returns the path with a bias, or with the embedding of positions after that of tokens."""
    x, where = call.path, call.where
    last = x.pieces[-1] if x.pieces else None
    if last is None or not hasattr(value, "shape") or id(value) not in call.names or sign < 0:
        raise Unreadable(f"{where} adds what is neither a bias nor a branch of the network")
    if last.kind == "tokens" and tuple(value.shape)[-2:] == x.shape and value.numel() == math.prod(x.shape):
        if x.factor != 1 or last.bias is not None:
            raise Unreadable(f"{where}: positions must be added to tokens without a factor, and once")
    elif not last.is_linear or last.bias is not None or value.numel() != last.neurons or x.factor != 1:
        raise Unreadable(f"{where} adds a parameter that is no bias of the layer below it")
    return replace(x, pieces=(*x.pieces[:-1], replace(last, bias=call.use(value))))


def transpose(call: Call) -> Path:
    """Returns the path whose sites and channels have changed places."""
    x, shape = call.path, call.shape
    if len(x.shape) != 2 or shape != x.shape[::-1] or not x.pieces:
        raise Unreadable(f"{call.where}: the positions and channels of a sequence can change places, no more")
    layout: Layout = "sites first" if x.layout == "sites last" else "sites last"
    return replace(x, layout=layout, shape=shape)


def average(call: Call) -> Path:
    """Returns the path with the mean over all sites."""
    x, arguments, options = call.path, call.arguments, call.options
    axes = options.get("dim", options.get("axis", arguments[1] if len(arguments) > 1 else None))
    rank = len(x.shape) + 1
    found = {axis % rank for axis in as_tuple(axes)} if axes is not None else None
    sites = set(range(2, rank)) if x.layout == "sites first" else set(range(1, rank - 1))
    if found != sites or not sites or not x.pieces:
        raise Unreadable(f"{call.where} must be the mean over all sites or positions, and over nothing else")
    return x.then(Piece("mean", call.node.name, settings=x.layout), x.layout, call.shape, x.factor)


def take(call: Call, index: Any) -> Path:
    """Returns the path at the last position, or the first of the two results of attention."""
    x = call.path
    kinds = [piece.kind for piece in x.pieces]
    if index == 0 and kinds[-2:-1] == ["attention"] and x.shape == call.shape:
        return x
    whole = slice(None)
    if index in ((whole, -1), (whole, -1, whole)) and x.layout == "sites last" and len(x.shape) == 2:
        return x.then(Piece("last", call.node.name), "flat", call.shape, x.factor)
    raise Unreadable(f"{call.where}: of the positions of a sequence the last one can be taken, x[:, -1]")
