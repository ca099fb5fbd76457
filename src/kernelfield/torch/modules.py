"""Modules of PyTorch, as pieces of a network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from kernelfield.torch.pieces import Call, Path, Piece, push
from kernelfield.torch.words import Unreadable

HEADS = " heads"  # what follows the name of a node of attention, for its second weights
LEAVES = ("Linear", "MuReadout", "Conv1d", "Conv2d", "LayerNorm", "RMSNorm", "Embedding", "MultiheadAttention")
IDENTITIES = ("Identity", "contiguous", "clone", "float", "to")
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "dropout")
BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm", "LazyBatchNorm1d", "LazyBatchNorm2d", "batch_norm")
RESHAPES = ("Flatten", "Unflatten", "flatten", "view", "reshape", "squeeze", "unsqueeze")
POOLS = ("AvgPool1d", "AvgPool2d", "MaxPool1d", "MaxPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d")
PADDINGS = {"zeros": "zero", "circular": "circular"}
ACTIVATIONS = {
    "ReLU": "relu",
    "relu": "relu",
    "Tanh": "tanh",
    "tanh": "tanh",
    "Softplus": "softplus",
    "softplus": "softplus",
    "GELU": "gelu",
    "gelu": "gelu",
    "erf": "erf",
    "Sigmoid": "sigmoid",
    "sigmoid": "sigmoid",
    "SiLU": "silu",
    "silu": "silu",
    "ELU": "elu",
    "elu": "elu",
    "SELU": "selu",
    "selu": "selu",
    "LeakyReLU": "leaky_relu",
    "leaky_relu": "leaky_relu",
    "LogSigmoid": "log_sigmoid",
    "sin": "sin",
    "cos": "cos",
}
USUAL = {"approximate": "none", "beta": 1.0, "threshold": 20.0, "alpha": 1.0, "negative_slope": 0.01}


def known_class(module: Any) -> str:
    """Returns the name of a module's class, or of the first of its bases that is a layer here."""
    names = [each.__name__ for each in type(module).__mro__]
    return next((name for name in names if name in LEAVES), names[0])


def read_module(call: Call, module: Any) -> Path:
    """Returns the path through a module; raises Unreadable for one that networks here do not have."""
    kind, where = known_class(module), call.where
    if hasattr(module, "parametrizations") or hasattr(module, "weight_g"):
        raise Unreadable(f"{where} has a reparametrized weight (weight norm, spectral norm): take plain weights")
    check_batch_norm(call, kind)
    if kind in IDENTITIES:
        return call.path
    if kind in DROPOUTS:
        return read_dropout(call, float(module.p), module.training)
    if kind in ("Linear", "MuReadout"):
        factor = module.output_mult / module.width_mult() if kind == "MuReadout" else 1.0
        return read_linear(call, module.weight, module.bias, factor)
    if kind in ("Conv1d", "Conv2d"):
        return read_convolution(call, module)
    if kind == "Embedding":
        return read_embedding(call, module)
    if kind in ("LayerNorm", "RMSNorm"):
        return read_norm(call, module, kind)
    if kind == "MultiheadAttention":
        return read_attention(call, module)
    if kind in POOLS:
        return read_pool(call, module, kind)
    if kind in RESHAPES:
        return read_reshape(call)
    if kind in ACTIVATIONS:
        settings = {name: getattr(module, name) for name in USUAL if hasattr(module, name)}
        return read_activation(call, kind, settings)
    raise Unreadable(f"{where} is not a layer that can be read")


def check_batch_norm(call: Call, kind: str) -> None:
    """Raises Unreadable for batch norm."""
    if kind in BATCH_NORMS:
        raise Unreadable(
            f"{call.where}: samples of a batch meet in it, which this theory does not have: take LayerNorm"
        )


def read_dropout(call: Call, p: float, training: bool) -> Path:
    """Returns the path, if dropout drops nothing."""
    if p > 0 and training:
        raise Unreadable(
            f"{call.where} drops activations at random (p={p:g}), which this theory does not have: take p=0"
        )
    return call.path


def read_linear(call: Call, weight: Any, bias: Any, factor: float = 1.0) -> Path:
    """Returns the path with one more layer of weights, times a factor."""
    x, shape = call.path, call.shape
    if x.layout == "sites first" and len(x.shape) > 1:
        raise Unreadable(f"{call.where} acts on the last axis of an image: flatten it, or take a convolution")
    tensors = call.use(weight, x.factor * factor, weight.shape[1]), call.use(bias)
    kind, layout = ("dense", "flat") if len(shape) == 1 else ("conv", "sites last")
    piece = Piece(kind, call.node.name, *tensors, neurons=weight.shape[0], below=x.factor)
    return x.then(piece, layout, shape)


def read_convolution(call: Call, module: Any) -> Path:
    """Returns the path with one more convolution, which keeps the number of sites but for its stride."""
    x, where = call.path, call.where
    kernel, stride, padding = module.kernel_size, module.stride, module.padding
    if module.groups != 1 or any(each != 1 for each in module.dilation):
        raise Unreadable(f"{where} has groups or dilation, which convolutions here do not have")
    if len(set(kernel)) > 1 or len(set(stride)) > 1:
        raise Unreadable(f"{where} has a window or stride that differs between axes")
    same = (kernel[0] - 1) // 2
    is_same = padding == "same" if isinstance(padding, str) else all(each == same for each in padding)
    if not is_same or kernel[0] % 2 == 0:
        raise Unreadable(f"{where} needs a window of odd size and padding={same}, so that sites keep their number")
    if module.padding_mode not in PADDINGS:
        raise Unreadable(f"{where} has padding_mode={module.padding_mode!r}: take 'zeros' or 'circular'")
    slots = module.in_channels * math.prod(kernel)
    tensors = call.use(module.weight, x.factor, slots), call.use(module.bias)
    settings = kernel[0], stride[0], PADDINGS[module.padding_mode]
    piece = Piece("conv", call.node.name, *tensors, module.out_channels, settings, below=x.factor)
    return x.then(piece, "sites first", call.shape)


def read_embedding(call: Call, module: Any) -> Path:
    """Returns the path from token ids to their vectors."""
    x, where = call.path, call.where
    if x.pieces or len(x.shape) != 1:
        raise Unreadable(f"{where} must take token ids (P, positions), the input of the network")
    if module.padding_idx is not None or module.max_norm is not None:
        raise Unreadable(f"{where} has padding_idx or max_norm, which cannot be read")
    weight = call.use(module.weight, x.factor)
    piece = Piece("tokens", call.node.name, weight, None, module.embedding_dim, module.num_embeddings)
    return x.then(piece, "sites last", call.shape)


def read_norm(call: Call, module: Any, kind: str) -> Path:
    """Returns the path with one more LayerNorm or RMSNorm over neurons."""
    x, where, shape = call.path, call.where, call.shape
    if tuple(module.normalized_shape) != shape[-1:] or (x.layout == "sites first" and len(shape) > 1):
        raise Unreadable(f"{where} must normalize over neurons alone, the last axis, got {module.normalized_shape}")
    if not x.pieces:
        raise Unreadable(f"{where} acts on the data: normalize them before")
    eps = module.eps if module.eps is not None else 1.2e-7
    gain, bias = call.use(module.weight), call.use(getattr(module, "bias", None))
    if gain is not None and not bool((gain.parameter == 1).all()):
        raise Unreadable(f"{where} has gains that are not one: they start at one here")
    settings = kind, eps / x.factor**2
    piece = Piece("norm", call.node.name, gain, bias, int(module.normalized_shape[-1]), settings)
    return x.then(piece, x.layout, shape)


def read_attention(call: Call, module: Any) -> Path:
    """Returns the path through heads of attention, between weights below them and above."""
    x, where, name = call.path, call.where, call.node.name
    query, key, value = call.arguments[:3]
    extras = {option: value for option, value in call.node.kwargs.items() if option != "need_weights"}
    if query is not key or query is not value:
        raise Unreadable(f"{where} must attend to what asks: the same query, key and value")
    if any(extras.values()) or len(call.arguments) > 3:
        raise Unreadable(f"{where} has a mask or other options, which cannot be read")
    if not module.batch_first or not module._qkv_same_embed_dim or module.bias_k is not None:
        raise Unreadable(f"{where} needs batch_first=True, and neither kdim, vdim nor add_bias_kv")
    read_dropout(call, float(module.dropout), module.training)
    width, out = module.embed_dim, module.out_proj
    head = width // module.num_heads  # its dimension
    into = call.use(module.in_proj_weight, x.factor, width), call.use(module.in_proj_bias)
    below = Piece("conv", name, *into, 3 * width, (1, 1, "zero", 3 * head), below=x.factor)
    heads = Piece("attention", name, settings=head)
    above = Piece("conv", f"{name}{HEADS}", call.use(out.weight, 1.0, width), call.use(out.bias), width)
    return Path((*x.pieces, below, heads, above), 1.0, "sites last", x.shape)


def read_pool(call: Call, module: Any, kind: str) -> Path:
    """Returns the path with windows of sites pooled into one site each, or with all of them."""
    x, where, shape = call.path, call.where, call.shape
    if not x.pieces:
        raise Unreadable(f"{where} acts on the data: pool them before")
    if x.layout != "sites first":
        raise Unreadable(f"{where} needs channels before sites, as convolutions make them")
    if kind.startswith("Adaptive"):
        if math.prod(shape[1:]) != 1:
            raise Unreadable(f"{where} must have output size 1, the mean over all sites")
        return x.then(Piece("mean", call.node.name, settings=x.layout), x.layout, shape, x.factor)
    sizes = {number for value in (module.kernel_size, module.stride) for number in as_tuple(value)}
    if len(sizes) > 1 or any(as_tuple(module.padding)) or getattr(module, "ceil_mode", False):
        raise Unreadable(f"{where} needs windows that do not overlap, without padding")
    if kind.startswith("Max"):
        x = push(x, where)
    piece = Piece("max" if kind.startswith("Max") else "pool", call.node.name, settings=sizes.pop())
    return x.then(piece, "sites first", shape, x.factor)


def read_activation(call: Call, kind: str, settings: dict[str, Any]) -> Path:
    """Returns the path with one more activation, whose settings must be the usual ones."""
    if not call.path.pieces:
        raise Unreadable(f"{call.where} acts on the data: apply it before")
    name = ACTIVATIONS[kind]
    changed = {key: value for key, value in settings.items() if value != USUAL.get(key)}
    if changed == {"approximate": "tanh"}:
        name, changed = "gelu_tanh", {}
    if changed or len(call.arguments) > 1:
        others = changed or call.node.args[1:]
        raise Unreadable(f"{call.where} has settings other than the usual ones: {others}")
    piece = Piece("activation", call.node.name, settings=name)
    return push(call.path, call.where).then(piece, call.path.layout, call.shape)


def read_reshape(call: Call) -> Path:
    """Returns the path with another shape of the same numbers: one axis, or axes of size one more or less."""
    x, shape = call.path, call.shape
    if shape == x.shape:
        return x
    if math.prod(shape) == math.prod(x.shape):
        if len(shape) <= 1:
            return replace(x, layout="flat", shape=shape)
        if x.layout == "sites first" and shape[:1] == x.shape[:1] and x.pieces[-1].kind == "mean":
            return replace(x, shape=shape)
        if not x.pieces:
            return replace(x, shape=shape, layout="reshaped")
    raise Unreadable(f"{call.where} makes {shape} of {x.shape}: the fields of a layer can be flattened, no more")


def as_tuple(value: Any) -> tuple[int, ...]:
    """Returns a number, or several, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)
