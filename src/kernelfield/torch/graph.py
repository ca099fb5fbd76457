"""The graph of a network in PyTorch, read node by node.

`torch.fx` traces the module, and every node of the graph gets a `Path`: the pieces between the input and that node. An
addition of two paths, one of which begins with the other, is a residual block.

All names of PyTorch are known as text here: it is imported where a module is traced, and nowhere else.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

from kernelfield.torch.functions import INPLACE, calculate, read_function
from kernelfield.torch.modules import LEAVES, known_class, read_module
from kernelfield.torch.pieces import Call, Path, shape_of
from kernelfield.torch.words import Unreadable

SHAPES = ("size", "dim", "getattr", "shape")  # functions whose results no layer takes


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
            self.values[node] = self._module(node, self.modules[node.target])
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

    def _call(self, node: Any, where: str, path: Path, arguments: list[Any]) -> Call:
        options = {name: self._value(option) for name, option in node.kwargs.items()}
        return Call(node, where, path, arguments, options, self.names)

    def _module(self, node: Any, module: Any) -> Path:
        where, arguments = f"{known_class(module)} {node.target!r}", [self._value(argument) for argument in node.args]
        if not arguments or not isinstance(arguments[0], Path):
            raise Unreadable(f"{where} takes what no layer made")
        return read_module(self._call(node, where, arguments[0], arguments), module)

    def _function(self, node: Any, name: str) -> Any:
        arguments = [self._value(argument) for argument in node.args]
        paths = [argument for argument in arguments if isinstance(argument, Path)]
        if name in SHAPES:
            return None
        if not paths:
            return calculate(name, arguments)
        return read_function(self._call(node, f"{name} (node {node.name!r})", paths[0], arguments), name)
