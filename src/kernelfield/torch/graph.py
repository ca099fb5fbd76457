"""What a network in PyTorch computes, read from its graph: a chain of pieces, each with its tensors and multipliers.

`torch.fx` traces the module, and every node of the graph gets a `Path`: the pieces between the input and that node. A
constant factor travels up the path to the weights that it can be counted to. An addition of two paths, one of which
begins with the other, is a residual block.

All names of PyTorch are known as text here: it is imported where a module is traced, and nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kernelfield.torch.words import Unreadable

Layout = Literal["flat", "sites first", "sites last"]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A parameter in use: its name, the parameter itself, and the constant that multiplies it.

    `slots` are the numbers that enter each sum of its layer, 1 for biases.
    """

    name: str
    parameter: Any
    multiplier: float
    slots: int = 1


@dataclass(frozen=True, eq=False)
class Piece:
    """A layer of the network: its kind, its weights, bias and gain, and settings of its kind."""

    kind: str
    name: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    neurons: int = 0
    settings: Any = None
    branch: tuple[Piece, ...] = ()
    below: float = 1.0  # factors of the node's input and output that are counted to the weights
    above: float = 1.0

    @property
    def is_linear(self) -> bool:
        """Whether a constant factor above it can be counted to its weights."""
        return self.kind in ("dense", "conv", "tokens")

    def times(self, factor: float) -> Piece:
        """Returns the piece whose output is `factor` times as large."""

        def scaled(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else replace(tensor, multiplier=tensor.multiplier * factor)

        return replace(self, weight=scaled(self.weight), bias=scaled(self.bias), above=self.above * factor)


@dataclass(frozen=True, eq=False)
class Path:
    """The pieces between the input and a node of the graph, and a constant factor of their result."""

    pieces: tuple[Piece, ...]
    factor: float
    layout: Layout | None  # None until the first weights say what the axes of the input are
    shape: tuple[int, ...]  # of one sample

    def then(self, piece: Piece, layout: Layout | None, shape: Sequence[int], factor: float = 1.0) -> Path:
        """Returns the path with one more piece."""
        return Path((*self.pieces, piece), factor, layout, tuple(shape))


def push(path: Path, what: str) -> Path:
    """Returns the path with its factor counted to the last weights, below what needs it: pools may lie between."""
    if path.factor == 1:
        return path
    pieces = list(path.pieces)
    for place in range(len(pieces) - 1, -1, -1):
        if pieces[place].is_linear:
            pieces[place] = pieces[place].times(path.factor)
            return replace(path, pieces=tuple(pieces), factor=1.0)
        if pieces[place].kind not in ("pool", "mean"):
            break
    raise Unreadable(f"{what}: the factor {path.factor:g} below it follows no weights that it could be counted to")


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
IDENTITIES = ("Identity", "contiguous", "clone", "float", "to")
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "dropout")
BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm", "LazyBatchNorm1d", "LazyBatchNorm2d", "batch_norm")
RESHAPES = ("Flatten", "Unflatten", "flatten", "view", "reshape", "squeeze", "unsqueeze")
SHAPES = ("size", "dim", "getattr", "shape")
LEAVES = ("Linear", "MuReadout", "Conv1d", "Conv2d", "LayerNorm", "RMSNorm", "Embedding", "MultiheadAttention")


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced network: the path from its input to its output, and its graph as a module that shares all tensors."""

    path: Path
    module: Any


def trace(model: Any, example: Any) -> Graph:
    """Returns the graph of a module, and the path from its input to its output.

    Args:
        model: a torch.nn.Module.
        example: a few samples, a tensor (P, ...) as the module takes it.

    Raises:
        Unreadable: naming what it could not read.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from torch.fx.passes.shape_prop import ShapeProp  # pyright: ignore[reportMissingImports]

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
            return known_class(m) in LEAVES or super().is_leaf_module(m, module_qualified_name)

    try:
        graph = Tracer().trace(model)
        module: Any = torch.fx.GraphModule(model, graph)
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # it prints tracebacks
            ShapeProp(module).propagate(example)
    except Exception as error:  # of any kind: the code of the model runs
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split("\n")[0].split())
        raise Unreadable(f"torch.fx cannot trace {type(model).__name__}.forward: {reason}") from None
    reader = Reader(model)
    for node in graph.nodes:
        reader.read(node)
    return Graph(reader.output, module)


def known_class(module: Any) -> str:
    """Returns the name of a module's class, or of the first of its bases that is a layer here."""
    names = [each.__name__ for each in type(module).__mro__]
    return next((name for name in names if name in LEAVES), names[0])


class Reader:
    """Reads the nodes of a graph in order. `output` is the path to the output."""

    def __init__(self, model: Any) -> None:
        self.modules, self.parameters = dict(model.named_modules()), dict(model.named_parameters())
        self.constants = dict(model.named_buffers())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.values: dict[Any, Any] = {}  # node -> Path, number, or a parameter
        self.output: Path = None  # type: ignore[assignment]

    def read(self, node: Any) -> None:
        """Reads one node."""
        if node.op == "placeholder":
            if any(isinstance(value, Path) for value in self.values.values()):
                if node.args:  # an argument with a default
                    self.values[node] = node.args[0]
                    return
                raise Unreadable(f"forward takes a second input {node.name!r}: one input can be read")
            self.values[node] = Path((), 1.0, None, shape_of(node))
        elif node.op == "get_attr":
            self.values[node] = self._attribute(node.target)
        elif node.op == "output":
            self.output = self._value(node.args[0])
            if not isinstance(self.output, Path):
                raise Unreadable("forward must return one tensor")
        elif node.op == "call_module":
            module = self.modules[node.target]
            self.values[node] = self._module(node, module, known_class(module))
        else:
            name = node.target if isinstance(node.target, str) else node.target.__name__
            self.values[node] = self._function(node, INPLACE.get(name, name))

    def _attribute(self, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        value = self.constants.get(name)
        if value is not None and value.numel() == 1:
            return float(value)
        return value

    def _value(self, argument: Any) -> Any:
        return self.values.get(argument, argument) if hasattr(argument, "op") else argument

    # --- modules

    def _module(self, node: Any, module: Any, kind: str) -> Any:
        where, x = f"{kind} {node.target!r}", self._value(node.args[0])
        if not isinstance(x, Path):
            raise Unreadable(f"{where} takes what no layer made")
        if hasattr(module, "parametrizations") or hasattr(module, "weight_g"):
            raise Unreadable(f"{where} has a reparametrized weight (weight norm, spectral norm): take plain weights")
        if kind in BATCH_NORMS:
            raise Unreadable(f"{where}: samples of a batch meet in it, which this theory does not have: take LayerNorm")
        if kind in IDENTITIES:
            return x
        if kind in DROPOUTS:
            return check_dropout(x, where, float(module.p), module.training)
        if kind in ("Linear", "MuReadout"):
            factor = 1.0
            if kind == "MuReadout":
                factor = module.output_mult / module.width_mult()
            return self._linear(x, node, where, module.weight, module.bias, factor)
        if kind in ("Conv1d", "Conv2d"):
            return self._conv(x, node, where, module)
        if kind == "Embedding":
            return self._embedding(x, node, where, module)
        if kind in ("LayerNorm", "RMSNorm"):
            return self._norm(x, node, where, module, kind)
        if kind == "MultiheadAttention":
            return self._attention(x, node, where, module)
        if kind in ("AvgPool1d", "AvgPool2d", "MaxPool1d", "MaxPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d"):
            return self._pool(x, node, where, module, kind)
        if kind in RESHAPES:
            return self._reshape(x, node, where)
        if kind in ACTIVATIONS:
            return self._activation(x, node, where, kind, module)
        raise Unreadable(f"{where} is not a layer that can be read")

    def _tensor(self, parameter: Any, multiplier: float, slots: int = 1) -> Tensor | None:
        if parameter is None:
            return None
        return Tensor(self.names.get(id(parameter), "a tensor"), parameter, multiplier, slots)

    def _linear(self, x: Path, node: Any, where: str, weight: Any, bias: Any, factor: float = 1.0) -> Path:
        inputs, outputs, shape = weight.shape[1], weight.shape[0], shape_of(node)
        if x.layout == "sites first" and len(x.shape) > 1:
            raise Unreadable(f"{where} acts on the last axis of an image: flatten it, or take a convolution")
        tensors = self._tensor(weight, x.factor * factor, inputs), self._tensor(bias, 1.0)
        kind, layout = ("dense", "flat") if len(shape) == 1 else ("conv", "sites last")
        piece = Piece(kind, node.name, *tensors, neurons=outputs, below=x.factor)
        return x.then(piece, layout, shape)

    def _conv(self, x: Path, node: Any, where: str, module: Any) -> Path:
        kernel, stride, padding = module.kernel_size, module.stride, module.padding
        if module.groups != 1 or any(each != 1 for each in module.dilation):
            raise Unreadable(f"{where} has groups or dilation, which convolutions here do not have")
        if len(set(kernel)) > 1 or len(set(stride)) > 1:
            raise Unreadable(f"{where} has a window or stride that differs between axes")
        same = (kernel[0] - 1) // 2
        is_same = padding == "same" if isinstance(padding, str) else all(each == same for each in padding)
        if not is_same or kernel[0] % 2 == 0:
            raise Unreadable(f"{where} needs a window of odd size and padding={same}, so that sites keep their number")
        modes = {"zeros": "zero", "circular": "circular"}
        if module.padding_mode not in modes:
            raise Unreadable(f"{where} has padding_mode={module.padding_mode!r}: take 'zeros' or 'circular'")
        slots = module.in_channels * math.prod(kernel)
        tensors = self._tensor(module.weight, x.factor, slots), self._tensor(module.bias, 1.0)
        settings = kernel[0], stride[0], modes[module.padding_mode]
        piece = Piece("conv", node.name, *tensors, module.out_channels, settings, below=x.factor)
        return x.then(piece, "sites first", shape_of(node))

    def _embedding(self, x: Path, node: Any, where: str, module: Any) -> Path:
        if x.pieces or len(x.shape) != 1:
            raise Unreadable(f"{where} must take token ids (P, positions), the input of the network")
        if module.padding_idx is not None or module.max_norm is not None:
            raise Unreadable(f"{where} has padding_idx or max_norm, which cannot be read")
        piece = Piece(
            "tokens", node.name, self._tensor(module.weight, x.factor, 1), None, module.embedding_dim,
            module.num_embeddings,
        )  # fmt: skip
        return x.then(piece, "sites last", shape_of(node))

    def _norm(self, x: Path, node: Any, where: str, module: Any, kind: str) -> Path:
        shape: tuple[int, ...] = shape_of(node)
        if tuple(module.normalized_shape) != shape[-1:] or (x.layout == "sites first" and len(shape) > 1):
            raise Unreadable(f"{where} must normalize over neurons alone, the last axis, got {module.normalized_shape}")
        if not x.pieces:
            raise Unreadable(f"{where} acts on the data: normalize them before")
        eps = module.eps if module.eps is not None else 1.2e-7
        gain, bias = self._tensor(module.weight, 1.0), self._tensor(getattr(module, "bias", None), 1.0)
        if gain is not None and not bool((gain.parameter == 1).all()):
            raise Unreadable(f"{where} has gains that are not one: they start at one here")
        return x.then(
            Piece("norm", node.name, gain, bias, int(module.normalized_shape[-1]), (kind, eps / x.factor**2)),
            x.layout,
            shape,
        )

    def _attention(self, x: Path, node: Any, where: str, module: Any) -> Path:
        query, key, value = (self._value(argument) for argument in node.args[:3])
        extras = {name: value for name, value in node.kwargs.items() if name not in ("need_weights",)}
        if query is not key or query is not value:
            raise Unreadable(f"{where} must attend to what asks: the same query, key and value")
        if any(extras.values()) or len(node.args) > 3:
            raise Unreadable(f"{where} has a mask or other options, which cannot be read")
        if not module.batch_first or not module._qkv_same_embed_dim or module.bias_k is not None:
            raise Unreadable(f"{where} needs batch_first=True, and neither kdim, vdim nor add_bias_kv")
        check_dropout(x, where, float(module.dropout), module.training)
        width, heads = module.embed_dim, module.num_heads
        into = Piece(
            "conv", node.name, self._tensor(module.in_proj_weight, x.factor, width),
            self._tensor(module.in_proj_bias, 1.0), 3 * width, (1, 1, "zero", 3 * (width // heads)), below=x.factor,
        )  # fmt: skip
        heads_piece = Piece("attention", node.name, settings=width // heads)
        out = module.out_proj
        tensors = self._tensor(out.weight, 1.0, width), self._tensor(out.bias, 1.0)
        last = Piece("conv", f"{node.name}{HEADS}", *tensors, neurons=width)
        return Path((*x.pieces, into, heads_piece, last), 1.0, "sites last", x.shape)

    def _pool(self, x: Path, node: Any, where: str, module: Any, kind: str) -> Path:
        shape = shape_of(node)
        if not x.pieces:
            raise Unreadable(f"{where} acts on the data: pool them before")
        if x.layout != "sites first":
            raise Unreadable(f"{where} needs channels before sites, as convolutions make them")
        if kind.startswith("Adaptive"):
            if math.prod(shape[1:]) != 1:
                raise Unreadable(f"{where} must have output size 1, the mean over all sites")
            return x.then(Piece("mean", node.name, settings=x.layout), x.layout, shape, x.factor)
        sizes = {number for value in (module.kernel_size, module.stride) for number in as_tuple(value)}
        if len(sizes) > 1 or any(as_tuple(module.padding)) or getattr(module, "ceil_mode", False):
            raise Unreadable(f"{where} needs windows that do not overlap, without padding")
        if kind.startswith("Max"):
            x = push(x, where)
        piece = Piece("max" if kind.startswith("Max") else "pool", node.name, settings=sizes.pop())
        return x.then(piece, "sites first", shape, x.factor)

    def _activation(self, x: Path, node: Any, where: str, kind: str, module: Any = None) -> Path:
        if not x.pieces:
            raise Unreadable(f"{where} acts on the data: apply it before")
        settings: dict[str, Any] = {name: value for name, value in node.kwargs.items() if name != "inplace"}
        if module is not None:
            settings = {
                name: getattr(module, name)
                for name in ("approximate", "beta", "threshold", "alpha", "negative_slope")
                if hasattr(module, name)
            }
        name = ACTIVATIONS[kind]
        usual = {"approximate": "none", "beta": 1.0, "threshold": 20.0, "alpha": 1.0, "negative_slope": 0.01}
        changed = {key: value for key, value in settings.items() if value != usual.get(key)}
        if changed == {"approximate": "tanh"}:
            name, changed = "gelu_tanh", {}
        if changed or len(node.args) > 1:
            raise Unreadable(f"{where} has settings other than the usual ones: {changed or node.args[1:]}")
        return push(x, where).then(Piece("activation", node.name, settings=name), x.layout, shape_of(node))

    # --- functions and methods

    def _function(self, node: Any, name: str) -> Any:
        where, arguments = f"{name} (node {node.name!r})", [self._value(argument) for argument in node.args]
        paths = [argument for argument in arguments if isinstance(argument, Path)]
        if name in SHAPES or (name == "getitem" and not paths):
            return None
        if not paths:
            numbers = all(isinstance(argument, int | float) for argument in arguments)
            if numbers and name in ARITHMETIC:
                return ARITHMETIC[name](*arguments)
            return None
        x = paths[0]
        if name in ("mul", "truediv", "div", "neg", "multiply"):
            return self._multiply(x, node, where, name, arguments)
        if name in ("add", "sub"):
            return self._add(node, where, arguments, -1.0 if name == "sub" else 1.0)
        if name == "linear":
            weight, bias = self._value(node.args[1]), [*arguments[2:], node.kwargs.get("bias")][0]
            return self._linear(x, node, where, weight, self._value(bias))
        if name in BATCH_NORMS:
            raise Unreadable(f"{where}: samples of a batch meet in it, which this theory does not have: take LayerNorm")
        if name in DROPOUTS:
            p = node.kwargs.get("p", arguments[1] if len(arguments) > 1 else 0.5)
            training = node.kwargs.get("training", arguments[2] if len(arguments) > 2 else True)
            return check_dropout(x, where, float(p), bool(training))
        if name in IDENTITIES:
            return x
        if name in RESHAPES:
            return self._reshape(x, node, where)
        if name in ("transpose", "permute", "mT", "movedim"):
            return self._transpose(x, node, where)
        if name == "mean":
            return self._mean(x, node, where, arguments)
        if name == "getitem":
            return self._item(x, node, where, arguments[1])
        if name in ACTIVATIONS:
            return self._activation(x, node, where, name)
        raise Unreadable(f"{where} is not a function that can be read")

    def _multiply(self, x: Path, node: Any, where: str, name: str, arguments: list[Any]) -> Path:
        factor = -1.0
        if name != "neg":
            others = [argument for argument in arguments if argument is not x]
            number = others[0] if others else None
            if not isinstance(number, int | float) or number == 0 or (arguments[0] is not x and name != "mul"):
                raise Unreadable(f"{where}: a factor must be a constant number that is not zero")
            factor = float(number) if name in ("mul", "multiply") else 1 / float(number)
        scaled = replace(x, factor=x.factor * factor)
        into_sum = any(getattr(user.target, "__name__", user.target) in ("add", "iadd", "sub") for user in node.users)
        last = scaled.pieces[-1] if scaled.pieces else None
        return push(scaled, where) if last is not None and last.is_linear and not into_sum else scaled

    def _add(self, node: Any, where: str, arguments: list[Any], sign: float) -> Path:
        one, other = arguments[0], arguments[1]
        if not isinstance(one, Path) or not isinstance(other, Path):
            return self._add_parameter(where, *((one, other) if isinstance(one, Path) else (other, one)), sign)
        other = replace(other, factor=sign * other.factor)
        skip, way = (one, other) if len(one.pieces) <= len(other.pieces) else (other, one)
        count = len(skip.pieces)
        if skip.pieces == way.pieces and count:
            return replace(skip, factor=skip.factor + way.factor)
        if not count or way.pieces[:count] != skip.pieces:
            raise Unreadable(f"{where} adds two branches neither of which is a skip from the other's beginning")
        piece = Piece(
            "residual", node.name, settings=way.factor / skip.factor, branch=way.pieces[count:], neurons=skip.shape[0]
        )
        return skip.then(piece, skip.layout, skip.shape, skip.factor)

    def _add_parameter(self, where: str, x: Path, value: Any, sign: float) -> Path:
        """Returns the path with a bias, or with the embedding of positions after that of tokens."""
        last = x.pieces[-1] if x.pieces else None
        if last is None or not hasattr(value, "shape") or id(value) not in self.names or sign < 0:
            raise Unreadable(f"{where} adds what is neither a bias nor a branch of the network")
        if last.kind == "tokens" and tuple(value.shape)[-2:] == x.shape and value.numel() == math.prod(x.shape):
            if x.factor != 1 or last.bias is not None:
                raise Unreadable(f"{where}: positions must be added to tokens without a factor, and once")
            positions = self._tensor(value, 1.0)
            return replace(x, pieces=(*x.pieces[:-1], replace(last, bias=positions)))
        if last.is_linear and last.bias is None and value.numel() == last.neurons and x.factor == 1:
            return replace(x, pieces=(*x.pieces[:-1], replace(last, bias=self._tensor(value, 1.0))))
        raise Unreadable(f"{where} adds a parameter that is no bias of the layer below it")

    def _reshape(self, x: Path, node: Any, where: str) -> Path:
        shape = shape_of(node)
        if shape == x.shape:
            return x
        if math.prod(shape) == math.prod(x.shape):
            if len(shape) <= 1:
                return replace(x, layout="flat", shape=shape)
            if x.layout == "sites first" and shape[:1] == x.shape[:1] and x.pieces[-1].kind == "mean":
                return replace(x, shape=shape)
            if not x.pieces:
                return replace(x, shape=shape, layout="reshaped")  # type: ignore[arg-type]
        raise Unreadable(f"{where} makes {shape} of {x.shape}: the fields of a layer can be flattened, no more")

    def _transpose(self, x: Path, node: Any, where: str) -> Path:
        shape = shape_of(node)
        if len(x.shape) != 2 or shape != x.shape[::-1] or not x.pieces:
            raise Unreadable(f"{where}: the positions and channels of a sequence can change places, no more")
        layout: Layout = "sites first" if x.layout == "sites last" else "sites last"
        return replace(x, layout=layout, shape=shape)

    def _mean(self, x: Path, node: Any, where: str, arguments: list[Any]) -> Path:
        axes = node.kwargs.get("dim", node.kwargs.get("axis", arguments[1] if len(arguments) > 1 else None))
        rank = len(x.shape) + 1
        found = {axis % rank for axis in as_tuple(axes)} if axes is not None else None
        sites = set(range(2, rank)) if x.layout == "sites first" else set(range(1, rank - 1))
        if found != sites or not sites or not x.pieces:
            raise Unreadable(f"{where} must be the mean over all sites or positions, and over nothing else")
        return x.then(Piece("mean", node.name, settings=x.layout), x.layout, shape_of(node), x.factor)

    def _item(self, x: Path, node: Any, where: str, index: Any) -> Path:
        if (
            index == 0
            and x.pieces
            and x.pieces[-2:-1]
            and x.pieces[-2].kind == "attention"
            and x.shape == shape_of(node)
        ):
            return x  # the first of what attention returns
        whole = slice(None)
        if index in ((whole, -1), (whole, -1, whole)) and x.layout == "sites last" and len(x.shape) == 2:
            return x.then(Piece("last", node.name), "flat", shape_of(node), x.factor)
        raise Unreadable(f"{where}: of the positions of a sequence the last one can be taken, x[:, -1]")


HEADS = " heads"  # what follows the name of a node of attention, for its second weights
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


def check_dropout(x: Path, where: str, p: float, training: bool) -> Path:
    """Returns the path, if dropout drops nothing."""
    if p > 0 and training:
        raise Unreadable(f"{where} drops activations at random (p={p:g}), which this theory does not have: take p=0")
    return x


def shape_of(node: Any) -> tuple[int, ...]:
    """Returns the shape of one sample at a node; of the first of several results."""
    meta: Any = node.meta.get("tensor_meta")
    while isinstance(meta, tuple) and not hasattr(meta, "shape"):
        meta = meta[0]
    shape: Any = getattr(meta, "shape", ())
    return tuple(shape[1:])


def as_tuple(value: Any) -> tuple[int, ...]:
    """Returns a number, or several, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)
