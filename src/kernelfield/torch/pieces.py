"""What a network computes, as a chain of pieces: each with its tensors, and the constants that multiply them.

A constant factor travels up the chain to the weights that it can be counted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kernelfield.torch.words import Unreadable

Layout = Literal["flat", "sites first", "sites last", "reshaped"]  # the last one of the data alone


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


def flat(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yields all pieces in the order in which they act, those of branches in place of their block."""
    for piece in pieces:
        yield from flat(piece.branch) if piece.kind == "residual" else (piece,)


def width_below(pieces: Sequence[Piece]) -> int:
    """Returns the number N of neurons that the readout, the last piece, sees."""
    for piece in reversed(pieces[:-1]):
        if piece.kind in ("dense", "conv", "tokens", "norm"):
            return piece.neurons
        if piece.kind == "residual":
            return width_below((*piece.branch, pieces[-1]))
    raise Unreadable("the network must have a hidden layer below its readout")


def end_in_readout(path: Path) -> Path:
    """Returns the path with a factor of the output counted to its last weights, the readout."""
    path = replace(path, pieces=path.pieces) if path.factor == 1 else push(path, "the output")
    if not path.pieces or path.pieces[-1].kind != "dense":
        last = path.pieces[-1].kind if path.pieces else "nothing"
        raise Unreadable(f"the network must end in a linear readout of vectors, it ends in {last}")
    if path.pieces[0].kind not in ("dense", "conv", "tokens"):
        raise Unreadable("the network must begin with linear weights, a convolution or an embedding")
    return path


@dataclass(frozen=True, eq=False)
class Call:
    """A node of the graph that acts on a path, as a function or as a module.

    Args:
        node: the node.
        where: what the node is called in words.
        path: the path that it acts on.
        arguments, options: paths, numbers and parameters that it is called with, by place and by name.
        names: of parameters, by their `id`.
    """

    node: Any
    where: str
    path: Path
    arguments: Sequence[Any]
    options: Mapping[str, Any]
    names: Mapping[int, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of what it returns."""
        return shape_of(self.node)

    def use(self, parameter: Any, multiplier: float = 1.0, slots: int = 1) -> Tensor | None:
        """Returns a parameter in use, None without a parameter; other arguments are those of `Tensor`."""
        if parameter is None:
            return None
        return Tensor(self.names.get(id(parameter), "a tensor"), parameter, multiplier, slots)


def shape_of(node: Any) -> tuple[int, ...]:
    """Returns the shape of one sample at a node; of the first of several results."""
    meta: Any = node.meta.get("tensor_meta")
    while isinstance(meta, tuple) and not hasattr(meta, "shape"):
        meta = meta[0]
    shape: Any = getattr(meta, "shape", ())
    return tuple(shape[1:])
