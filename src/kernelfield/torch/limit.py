"""The infinite-width limit of a network in PyTorch, as a Run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield import layers as kl
from kernelfield.describe.architecture import Architecture, Network
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run, steps_from
from kernelfield.describe.training import SGD, Adam, GradientDescent, Schedule, Training
from kernelfield.march.method import March
from kernelfield.parameterization import MeanField, Numbers, Row, drift, from_numbers
from kernelfield.torch.graph import Graph, Path, Piece, Tensor, push, trace
from kernelfield.torch.loss import read_loss
from kernelfield.torch.optimizer import Rule, read_optimizer
from kernelfield.torch.words import Unreadable

KNOWN_SCALES = (1.0, math.sqrt(2.0), 1 / math.sqrt(3.0), 1 / math.sqrt(2.0))  # muP, He, PyTorch's Linear and attention
NEAR = 3.0  # standard errors of a measured standard deviation within which it is taken to be a known one
ZERO_READOUT = 0.01  # sigma of a readout that starts at zero: its square is what the limit is off by
LARGE_START = 0.1  # rms of outputs at initialization, relative to targets, which is worth a word
HEAVY = 4.0  # standard errors of the kurtosis by which weights are not Gaussian
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


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from a network in PyTorch.

    Attributes:
        run: the run of its infinite-width limit.
        numbers: initialization, multiplier and learning rate of every tensor; print it for a table.
        notes: sentences about what the limit leaves out, or takes to be so.
        graph: the traced network.
    """

    run: Run
    numbers: Numbers
    notes: tuple[str, ...]
    graph: Graph

    def __str__(self) -> str:
        network, training = self.run.network, self.run.training
        lines = [
            str(self.numbers),
            "",
            f"gamma0 = {network.gamma0:.4g}, learning rate eta = {training.learning_rate:.4g}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def describe(
    model: Any,
    optimizer: Any,
    X: Any,
    y: Any,
    loss: Any = "mse",
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    schedule: Schedule = "constant",
    weights: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    centred: bool = True,
    parameterization: Literal["auto", "muP"] = "auto",
    method: Any = None,
    save_at: Sequence[int] | None = None,
) -> Run:
    """Returns the Run of the infinite-width limit of a network in PyTorch; `kernelfield.solve` takes its parts.

    The limit is that of muP from this width on: initial variances, multipliers and learning rates are as they are, and
    change with the width as muP has it. Call it before training: weights are measured as they are. It warns of what the
    limit leaves out; `read` has the same as notes, and the table of numbers.

    Args:
        model: torch.nn.Module that maps a batch X to outputs (P,), (P, 1) or (P, C).
        optimizer: torch.optim.SGD, Adam or AdamW of its parameters, or what MuSGD and MuAdam of the package mup make.
        X: inputs as the model takes them, array or tensor (P, ...); images have their channels first, tokens are ids.
        y: targets (P,), (P, 1) or (P, C), or labels (P,) for cross-entropy.
        loss: that of training: a name as for `kernelfield.Problem`, where "mse" is (f - y)^2 / 2; or nn.MSELoss(),
            nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss() or nn.SoftMarginLoss(), with their own factors.
        steps: number of updates on all points; either this or `epochs` and `batch_size`.
        epochs, batch_size, seed: of mini-batches; `run.training.batches(run.problem)` has their rows.
        schedule: factors of all learning rates, as for `kernelfield.GradientDescent`.
        weights: weights of the points in the loss (P,).
        X_test, y_test: points that do not train.
        centred: whether training is on output minus output at initialization, or on a readout that starts at zero, as
            this library has it. If it is not, and outputs do not start near zero, a warning says how large they are.
        parameterization: "muP" takes plain layers at one learning rate for what muP is at this width; "auto" refuses
            them, as they have no limit.
        method: of the run, March() by default.
        save_at: steps whose kernels the run keeps; all by default.

    Returns:
        Run, with the network, problem and training of the limit.

    Raises:
        ValueError: one sentence about what could not be read, or has no limit.
    """
    result = read(
        model, optimizer, X, y, loss, steps=steps, epochs=epochs, batch_size=batch_size, seed=seed, schedule=schedule,
        weights=weights, X_test=X_test, y_test=y_test, centred=centred, parameterization=parameterization,
        method=method, save_at=save_at,
    )  # fmt: skip
    for note in result.notes:
        warnings.warn(note, stacklevel=2)
    return result.run


def read(
    model: Any,
    optimizer: Any,
    X: Any,
    y: Any,
    loss: Any = "mse",
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    schedule: Schedule = "constant",
    weights: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    centred: bool = True,
    parameterization: Literal["auto", "muP"] = "auto",
    method: Any = None,
    save_at: Sequence[int] | None = None,
) -> Reading:
    """Returns the Run with the table of numbers, and notes; arguments and errors are those of `describe`."""
    if parameterization not in ("auto", "muP"):
        raise ValueError(f"parameterization must be 'auto' or 'muP', got {parameterization!r}")
    X = as_array(X)
    graph = trace(model, as_input(model, X[:2]))
    path, rule, outputs = end_in_readout(graph.path), read_optimizer(optimizer), as_array(outputs_of(model, X))
    name, factor, targets = read_loss(loss, as_array(y), outputs)
    rows = Rows(path.pieces, rule, factor if rule.betas is None else 1.0)
    numbers = rows.numbers
    if parameterization == "auto":
        check_scaling(numbers, rows.tensors)
    mean_field, notes = from_numbers(numbers, own_rates=True), list(rows.notes)
    layers = Builder(rows, mean_field)
    network = name_network(layers.build(path.pieces), clean(mean_field.gamma0))
    inputs = read_inputs(X, path.pieces[0], graph.path)
    tests: dict[str, Any] = {}
    if X_test is not None:
        X_test = as_array(X_test)
        tests = {"X_test": read_inputs(X_test, path.pieces[0], graph.path)}
        tests["y_test"] = read_loss(loss, as_array(y_test), as_array(outputs_of(model, X_test)))[2]
    problem = Problem(inputs, targets, weights, loss=name, **tests)
    notes += layers.notes
    start, size = (float(np.sqrt(np.mean(np.square(values)))) for values in (outputs, targets))
    if not centred and start > LARGE_START * size:
        notes.append(
            f"outputs start at a root mean square of {start:.2g}, which the limit leaves out: train on output minus "
            "output at initialization, or let the readout start at zero"
        )
    training = make_training(rule, mean_field, steps, epochs, batch_size, seed, schedule)
    saved = None if save_at is None else steps_from("save_at", save_at, training.steps)
    run = Run(network, problem, training, method or March(), saved)
    return Reading(run, numbers, tuple(notes), graph)


# --- numbers of tensors


@dataclass(frozen=True, eq=False)
class Use:
    """A tensor in use, with the kind and the numbers of its row."""

    tensor: Tensor
    kind: Literal["input", "hidden", "output", "bias"]
    fan_in: int
    neurons: int
    is_gain: bool = False
    sums: tuple[int, ...] = ()  # numbers n of which 1 / sqrt(n) may be the standard deviation


class Rows:
    """The rows of all tensors of a network."""

    def __init__(self, pieces: Sequence[Piece], rule: Rule, factor: float) -> None:
        self.width, self.rule, self.factor = width_below(pieces), rule, factor
        self.not_gaussian: list[str] = []
        self.tensors: dict[int, Use] = {}
        for use in self._uses(pieces):
            before = self.tensors.setdefault(id(use.tensor.parameter), use)
            same = before.kind == use.kind and math.isclose(before.tensor.multiplier, use.tensor.multiplier)
            if not same:
                raise Unreadable(
                    f"{use.tensor.name} is used twice, as {before.kind} and {use.kind} or times two factors"
                )
        rows = tuple(self._row(use) for use in self.tensors.values())
        self.numbers = Numbers("PyTorch", self.width, rows, rule.momentum, rule.betas)

    @property
    def notes(self) -> list[str]:
        """A sentence about tensors that are not Gaussian, whose distribution the limit keeps; none without any."""
        if not self.not_gaussian:
            return []
        names = ", ".join(self.not_gaussian)
        verb = "does" if len(self.not_gaussian) == 1 else "do"
        return [f"{names} {verb} not start Gaussian: the limit here has Gaussian weights of the same variance"]

    def _uses(self, pieces: Sequence[Piece]) -> Iterator[Use]:
        for place, piece in enumerate(flat(pieces)):
            last = piece is pieces[-1]
            if piece.weight is not None and piece.kind == "norm":
                yield Use(piece.weight, "bias", 1, piece.neurons, is_gain=True)
            elif piece.weight is not None and piece.kind == "tokens":
                yield from self._token_uses(piece)
                continue
            elif piece.weight is not None:
                kind = "output" if last else "hidden" if place else "input"
                yield Use(piece.weight, kind, piece.weight.slots, piece.neurons, sums=sums_of(piece.weight))
            if piece.bias is not None:
                if last:
                    raise Unreadable(
                        f"{piece.bias.name} is a bias of the readout, which networks here do not have: take bias=False"
                    )
                if self._rests(piece.bias) and not bool(piece.bias.parameter.any()):
                    continue  # zero, and stays so
                yield Use(piece.bias, "bias", 1, piece.neurons, sums=sums_of(piece.weight))

    def _token_uses(self, piece: Piece) -> Iterator[Use]:
        """Yields the embedding of tokens, in units in which tokens and positions together are an input of n numbers."""
        assert piece.weight is not None
        weight, positions = piece.weight, piece.bias
        n = token_channels(piece)
        yield Use(replace(weight, multiplier=weight.multiplier / math.sqrt(n)), "input", n, piece.neurons, sums=(1,))
        if positions is None:
            return
        one, other = self._numbers_of(weight), self._numbers_of(positions)
        stds = [float(tensor.parameter.detach().float().std()) for tensor in (weight, positions)]
        spread = stds[0] / math.sqrt(2 * positions.parameter.numel())
        if one != other or abs(stds[0] - stds[1]) > NEAR * 1.5 * spread:
            raise Unreadable(f"{positions.name} must start and learn as {weight.name}, the embedding of tokens, does")

    def _rests(self, tensor: Tensor) -> bool:
        return not tensor.parameter.requires_grad or id(tensor.parameter) not in self.rule.rates

    def _numbers_of(self, tensor: Tensor) -> tuple[float, float, float | None]:
        if self._rests(tensor) or self.rule.rates[id(tensor.parameter)][0] == 0:
            raise Unreadable(f"{tensor.name} does not train: every tensor must be among the optimizer's parameters")
        return self.rule.rates[id(tensor.parameter)]

    def _row(self, use: Use) -> Row:
        rate, decay, eps = self._numbers_of(use.tensor)
        rate, decay = rate * self.factor, decay / self.factor
        values = use.tensor.parameter.detach().double().cpu().numpy()
        if use.is_gain and decay:
            raise Unreadable(f"weight decay takes the gain {use.tensor.name} to zero, here it would take it to one")
        std = 0.0 if use.is_gain else float(np.sqrt(np.mean(values**2)))
        std = recognize(std, values.size, use.sums)
        if std > 0 and not use.is_gain and use.kind != "hidden":
            kurtosis = float(np.mean(values**4) / std**4)
            if values.size > 30 and abs(kurtosis - 3) > HEAVY * math.sqrt(24 / values.size):
                self.not_gaussian.append(use.tensor.name)
        name, multiplier = use.tensor.name, abs(use.tensor.multiplier)
        return Row(name, use.kind, use.fan_in, use.neurons, std, multiplier, rate, decay, eps)


def sums_of(weight: Tensor | None) -> tuple[int, ...]:
    """Returns the numbers n of which 1 / sqrt(n) may be a standard deviation: fan_in, and that of the base shape."""
    if weight is None:
        return ()
    infshape = getattr(weight.parameter, "infshape", None)  # of the package mup
    if infshape is None:
        return weight.slots, weight.slots**2, 1
    sizes = zip(infshape.base_shape(), weight.parameter.shape, strict=True)
    return math.prod([here if base is None else base for base, here in sizes][1:]), weight.slots, 1


def recognize(std: float, count: int, sums: Sequence[int]) -> float:
    """Returns the known standard deviation that a measured one of `count` numbers cannot be told from, or itself."""
    known = [scale / math.sqrt(n) for scale in KNOWN_SCALES for n in sums]
    near = min(known, key=lambda value: abs(value - std), default=math.inf)
    return near if abs(near - std) <= NEAR * std / math.sqrt(2 * count) else std


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


def check_scaling(numbers: Numbers, uses: dict[int, Use]) -> None:
    """Raises Unreadable if plain layers have one learning rate, which is standard parameterization and has no limit."""
    plain = all(use.tensor.multiplier == 1 and not hasattr(use.tensor.parameter, "infshape") for use in uses.values())
    if plain and len({row.learning_rate for row in numbers}) == 1 and len(numbers.rows) > 1:
        raise Unreadable(
            "plain layers with one learning rate are standard parameterization, which has no limit that learns "
            f"features: {drift(numbers).sentence} (parameterization='muP' describes what muP makes of it from this "
            "width on)"
        )


# --- layers


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
            return self._weights(piece, is_last and piece.weight is not None and self._is_output(piece))
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

    def _is_output(self, piece: Piece) -> bool:
        assert piece.weight is not None
        return self.rows.tensors[id(piece.weight.parameter)].kind == "output"

    def _weights(self, piece: Piece, is_readout: bool) -> list[kl.Layer]:
        assert piece.weight is not None
        key = id(piece.weight.parameter)
        if key not in self.made:
            use = self.rows.tensors[key]
            name = use.tensor.name
            scale, rate = self._scale(name), clean(self.mean_field.relative_rates[name])
            if is_readout:
                if scale == 0:
                    scale = ZERO_READOUT
                    self.notes.append(f"{name} starts at zero, the limit with a scale of {ZERO_READOUT:g}")
                self.made[key] = kl.Readout(scale=scale, relative_rate=rate)
            else:
                if scale == 0:
                    raise Unreadable(f"{name} starts at zero, and so would all that it makes: give it random weights")
                common: dict[str, Any] = {"scale": scale, "relative_rate": rate}
                common["width"] = piece.neurons / self.rows.width
                self.made[key] = self._make(piece, common)
        bias = [] if piece.kind == "tokens" else self._vector(piece.bias, kl.Bias)
        return [self.made[key], *bias]

    def _make(self, piece: Piece, common: dict[str, Any]) -> kl.Layer:
        if piece.kind == "dense":
            return kl.Dense(**common)
        kernel, stride, padding, *components = (
            piece.settings if piece.kind == "conv" and piece.settings else (1, 1, "zero")
        )
        if components:
            common["components"] = components[0]
        return kl.Conv(kernel, stride, padding, **common)

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


# --- training, inputs


def make_training(
    rule: Rule,
    mean_field: MeanField,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int,
    schedule: Schedule,
) -> Training:
    """Returns the training rule of the limit."""
    if (steps is None) == (epochs is None) or (epochs is None) != (batch_size is None):
        raise ValueError("give steps, or epochs and batch_size")
    common: dict[str, Any] = {"learning_rate": clean(mean_field.learning_rate), "schedule": schedule}
    common["weight_decay"] = clean(mean_field.weight_decay)
    batches: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    if rule.betas is not None:
        length: dict[str, Any] = {"steps": steps} if epochs is None else batches
        return Adam(betas=rule.betas, eps=clean(mean_field.eps or 0.0), **common, **length)
    if epochs is None:
        common["steps"] = steps
        return GradientDescent(momentum=rule.momentum, **common)
    return SGD(momentum=rule.momentum, **common, **batches)


def read_inputs(X: np.ndarray, first: Piece, path: Path) -> np.ndarray:
    """Returns inputs as a Problem has them: channels last, and token ids as rows of numbers."""
    if first.kind == "tokens":
        return encode(X, first)
    if first.kind == "dense":
        return X.reshape(len(X), -1)
    is_image = first.settings is not None  # of a convolution, and not of weights at every position
    return np.moveaxis(X, 1, -1) if is_image else X


def token_channels(piece: Piece) -> int:
    """Returns the number n of channels of encoded tokens: the vocabulary, and positions if they have an embedding."""
    positions = 0 if piece.bias is None else piece.bias.parameter.numel() // piece.neurons
    return piece.settings + positions


def encode(ids: np.ndarray, piece: Piece) -> np.ndarray:
    """Returns rows (P, positions, n) of token ids (P, positions): sqrt(n) for the token, and for the position."""
    n = token_channels(piece)
    rows = np.eye(piece.settings)[ids.astype(int)]
    if n > piece.settings:
        places = np.broadcast_to(np.eye(n - piece.settings)[: ids.shape[1]], (*ids.shape, n - piece.settings))
        rows = np.concatenate([rows, places], axis=-1)
    return rows * math.sqrt(n)


def as_array(values: Any) -> np.ndarray:
    """Returns a tensor or an array as an array."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def as_input(model: Any, X: Any) -> Any:
    """Returns inputs as a tensor of the type and on the device of a model; token ids stay whole numbers."""
    import torch  # pyright: ignore[reportMissingImports]

    parameter, tensor = next(model.parameters()), torch.as_tensor(as_array(X).copy())
    return tensor.to(parameter.device) if tensor.dtype in (torch.int32, torch.int64) else tensor.to(parameter)


def outputs_of(model: Any, X: Any) -> Any:
    """Returns the outputs of a model (P, C), without gradients."""
    import torch  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        outputs = model(as_input(model, X))
    return outputs.reshape(len(outputs), -1)
