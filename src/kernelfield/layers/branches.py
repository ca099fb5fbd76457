"""Layers that all see one field and whose own fields are joined: side by side, as a product, or as a sum.

All branches end on the same particles. Particle s of a branch is the same neuron in a product or a sum, and with fields
side by side its own component of particle s.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.series import Fields, Series, apply_linear, coefficients
from kernelfield.layers.base import Layer, Mass, Setup, Signal, Space, Stateless, Tape, uses
from kernelfield.layers.kernels import sites_of
from kernelfield.layers.weights import Weights

DEPENDENT = "the lazy limit of Multiply is known for branches with Dense or Conv, and at most one without"
MIXED = (
    "the lazy limit of Multiply is known for neurons of one law: put Dense or Conv above Concatenate in its branches"
)
NO_WIDTH = "the lazy limit of Concatenate is known for branches with Dense or Conv, which say how wide they are"
SHARED = "weights can be shared within one branch, not between several"


class Fork(NamedTuple):
    """Where branches began, and where those that have ended did so."""

    below: Space
    ends: tuple[Space, ...] = ()


@dataclass(frozen=True)
class Mark(Stateless):
    """A place between branches in the list of all layers: it tells where the next field lives."""

    find: Callable[[Space], Space]

    def space_above(self, below: Space) -> Space:
        """Returns the space in which the next layer acts."""
        return self.find(below)


class BranchTrace(NamedTuple):
    """The traces of all branches, and their fields."""

    traces: tuple
    fields: tuple


class Branches(Layer):
    """Layers that see the same field; their own fields are joined into one."""

    branches: tuple[Layer, ...]  #: the layers that see the same field

    @property
    def parts(self) -> tuple[Layer, ...]:
        """All branches, with marks before, between and after them."""
        mark: Any = Mark
        parts = [mark(_open), *(part for branch in self.branches for part in (branch, mark(_turn)))]
        return (*parts[:-1], mark(self._close))

    @property
    def is_linear(self) -> bool:
        """Whether all branches say that they are linear."""
        return all(getattr(branch, "is_linear", False) for branch in self.branches)

    def join_spaces(self, spaces: Sequence[Space]) -> Space:
        """Returns the space of the joined field, in the population of the first branch; raises ValueError if none fits.

        The branches are alike, but where a layer says otherwise.
        """
        for name in ("sites", "components", "width"):
            self._check_equal(name, [getattr(space, name) for space in spaces])
        return spaces[0]

    def combine(self, fields: Sequence[Fields]) -> Fields:
        """Returns the joined field (P, *sites, S)."""
        raise NotImplementedError

    def share(self, chi: Fields, fields: Sequence[Fields]) -> Sequence[Fields]:
        """Returns the gradient of every branch, given that of the joined field."""
        raise NotImplementedError

    def combine_kernels(self, kernels: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the kernel of the joined field in the lazy limit."""
        raise NotImplementedError

    def share_kernel(self, kernel: np.ndarray, kernels: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Returns the kernel of the gradients of every branch in the lazy limit."""
        raise NotImplementedError

    def init(self, setup: Setup, below: Space) -> tuple[tuple, Space]:
        """Returns the states of all branches; the populations above them become one."""
        states, spaces = zip(*(branch.init(setup, below) for branch in self.branches), strict=True)
        above = self.join_spaces(spaces)
        for space in spaces:
            above.population.join(space.population)
        return states, above

    def forward(self, state: tuple, x: Fields, mass: Mass) -> tuple[tuple, Fields, BranchTrace]:
        """Returns the states, the joined field, and the traces."""
        passes = [branch.forward(part, x, mass) for branch, part in zip(self.branches, state, strict=True)]
        states, fields, traces = zip(*passes, strict=True)
        return states, self.combine(fields), BranchTrace(traces, fields)

    def backward(
        self, state: tuple, chi: Fields, trace: BranchTrace, mass: Mass, signal: Signal
    ) -> tuple[tuple, Fields, BranchTrace]:
        """Returns the states, the sum of the gradients of all ways, and the completed traces."""
        every = zip(self.branches, state, self.share(chi, trace.fields), trace.traces, strict=True)
        passes = [branch.backward(part, own, of, mass, signal) for branch, part, own, of in every]
        states, downs, traces = zip(*passes, strict=True)
        return states, functools.reduce(operator.add, downs), trace._replace(traces=traces)

    def update(self, state: tuple, trace: BranchTrace, rate: Fields) -> tuple:
        """Returns the states of all branches after one step."""
        every = zip(self.branches, state, trace.traces, strict=True)
        return tuple(branch.update(part, of, rate) for branch, part, of in every)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, BranchTrace]:
        """Returns the kernel of the joined field, and the traces."""
        kernels, traces = zip(*(branch.lazy_forward(kernel, seed) for branch in self.branches), strict=True)
        return self.combine_kernels(kernels), BranchTrace(traces, kernels)

    def lazy_backward(self, kernel: np.ndarray, trace: BranchTrace, seed: int) -> tuple[np.ndarray, Any, BranchTrace]:
        """Returns the sum over branches, whose gradients are independent."""
        every = zip(self.branches, self.share_kernel(kernel, trace.fields), trace.traces, strict=True)
        passes = [branch.lazy_backward(own, of, seed) for branch, own, of in every]
        downs, tangents, traces = zip(*passes, strict=True)
        return functools.reduce(operator.add, downs), sum(tangents), trace._replace(traces=traces)

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[tuple, tuple[int, ...]]:
        """Returns the parameters of all branches, and the shape of the joined field."""
        every = zip(self.branches, self.split_key(key), strict=True)
        params, shapes = zip(*(branch.finite_init(own, shape, width) for branch, own in every), strict=True)
        return params, self.join_shapes(shapes)

    def split_key(self, key: Array) -> Any:
        """Returns a key for every branch."""
        return jax.random.split(key, len(self.branches))

    def join_shapes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape (*sites, channels) of the joined field at finite width."""
        self._check_equal("shape", shapes)
        return shapes[0]

    def finite_apply(self, params: tuple, x: Array, tape: Tape) -> Array:
        """Returns the joined field."""
        every = zip(self.branches, params, strict=True)
        return self.combine([branch.finite_apply(own, x, tape) for branch, own in every])

    def fan_in(self, params: tuple) -> tuple:
        """Returns the numbers n of all branches."""
        return tuple(branch.fan_in(own) for branch, own in zip(self.branches, params, strict=True))

    def _check_equal(self, what: str, values: Sequence[Any]) -> None:
        if any(value != values[0] for value in values):
            raise ValueError(f"all branches of {type(self).__name__} must make the same {what}, got {list(values)}")

    def _check_weights(self) -> None:
        weights = [{id(use) for use in uses(branch) if not isinstance(use, Stateless)} for branch in self.branches]
        if len(weights) < 2:
            raise ValueError(f"{type(self).__name__} needs two branches at least")
        if len(set.union(*weights)) < sum(map(len, weights)):
            raise ValueError(SHARED)

    def _close(self, space: Space) -> Space:
        return self.join_spaces([*space.fork.ends, space])._replace(fork=space.fork.below.fork)


def _open(space: Space) -> Space:
    return space._replace(fork=Fork(space))


def _turn(space: Space) -> Space:
    below, ends = space.fork
    return below._replace(fork=Fork(below, (*ends, space)))


@dataclass(frozen=True, init=False)
class Multiply(Branches):
    """The elementwise product of the fields of several branches.

    Args:
        branches: layers whose fields have the same sites, components and width; `Sequential([])` is the field itself.

    Example:
        >>> import kernelfield as kf
        >>> from kernelfield.layers import Activation, Dense, Multiply, Readout, Sequential
        >>> gate = Sequential([Dense(learns=False), Activation("softplus")])
        >>> kf.Network(layers=[Dense(), Multiply([Dense(), gate]), Readout()]).hidden_layers
        3
    """

    branches: tuple[Layer, ...]

    def __init__(self, branches: Iterable[Layer]) -> None:
        object.__setattr__(self, "branches", tuple(branches))
        self._check_weights()

    @property
    def is_linear(self) -> bool:
        """False."""
        return False

    def combine(self, fields: Sequence[Any]) -> Any:
        """Returns the product."""
        return functools.reduce(operator.mul, fields)

    def share(self, chi: Any, fields: Sequence[Any]) -> list[Any]:
        """Returns the gradient times the fields of all other branches."""
        return [self.combine([chi, *fields[:n], *fields[n + 1 :]]) for n in range(len(fields))]

    def combine_kernels(self, kernels: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the product: the branches are independent."""
        if sum(not _is_fresh(branch) for branch in self.branches) > 1:
            raise ValueError(DEPENDENT)
        return self.combine(kernels)

    def share_kernel(self, kernel: np.ndarray, kernels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the kernel times those of all other branches."""
        return self.share(kernel, kernels)


@dataclass(frozen=True, init=False)
class Concatenate(Branches):
    """The neurons of several branches side by side, in one population: its width is the sum of theirs.

    Weights above see all neurons. Of N = N_1 + N_2 + ... of them a branch has the share of its width. On particles
    these shares are those of components: a branch of twice the width of another has twice its components.

    Args:
        branches: layers whose fields have the same sites; `Sequential([])` is the field itself.

    Example:
        >>> import kernelfield as kf
        >>> from kernelfield.layers import Activation, Concatenate, Dense, Readout, Sequential
        >>> halves = [Sequential([Dense(width=0.5), Activation(name)]) for name in ("tanh", "relu")]
        >>> kf.Network(layers=[Dense(), Concatenate(halves), Readout()]).hidden_layers
        3
    """

    branches: tuple[Layer, ...]

    def __init__(self, branches: Iterable[Layer]) -> None:
        object.__setattr__(self, "branches", tuple(branches))
        self._check_weights()

    @property
    def keeps_gaussian(self) -> bool:
        """False: neurons of different branches have different variances."""
        return False

    def join_spaces(self, spaces: Sequence[Space]) -> Space:
        """Returns the space of all neurons."""
        self._check_equal("sites", [space.sites for space in spaces])
        one, *others = (space.width / space.components for space in spaces)
        if not all(math.isclose(one, other, rel_tol=1e-9) for other in others):
            widths, components = zip(*((space.width, space.components) for space in spaces), strict=True)
            raise ValueError(
                f"Concatenate needs branches with widths as their components, got widths {widths} and components "
                f"{components}: give a branch of width=2 beside one of width=1 components=2"
            )
        width, components = math.fsum(space.width for space in spaces), sum(space.components for space in spaces)
        return spaces[0]._replace(width=width, components=components)

    def combine(self, fields: Sequence[Fields]) -> Fields:
        """Returns the fields one after the other."""
        values = jnp.concatenate([coefficients(field) for field in fields], axis=-1)
        return Series(values) if isinstance(fields[0], Series) else values

    def share(self, chi: Fields, fields: Sequence[Fields]) -> list[Fields]:
        """Returns the part of the gradient that belongs to every branch."""
        ends = np.cumsum([0, *(field.shape[-1] for field in fields)])
        return [apply_linear(lambda x, n=n: x[..., ends[n] : ends[n + 1]], chi) for n in range(len(fields))]

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, BranchTrace]:
        """Returns the mean over all neurons; the trace has the shares of the branches, in place of their kernels."""
        below, widths = Space(None, sites_of(kernel), width=math.nan), []
        for branch in self.branches:
            widths.append(functools.reduce(lambda space, use: use.space_above(space), uses(branch), below).width)
        if not all(map(math.isfinite, widths)):
            raise ValueError(NO_WIDTH)
        passes = [branch.lazy_forward(kernel, seed) for branch in self.branches]
        kernels, traces = zip(*passes, strict=True)
        shares = tuple(width / math.fsum(widths) for width in widths)
        joined = sum(share * part for share, part in zip(shares, kernels, strict=True))
        return np.asarray(joined), BranchTrace(traces, shares)

    def share_kernel(self, kernel: np.ndarray, kernels: Sequence[Any]) -> list[np.ndarray]:
        """Returns the part of the sum over all neurons that every branch has."""
        return [share * kernel for share in kernels]

    def join_shapes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape with all channels."""
        self._check_equal("sites", [shape[:-1] for shape in shapes])
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


def _is_fresh(layer: Layer) -> bool:
    """Returns whether weights of a layer's own make its field, which is then independent of the field below."""
    if isinstance(layer, Branches):
        return all(map(_is_fresh, layer.branches))
    return any(map(_is_fresh, layer.parts)) if layer.parts else isinstance(layer, Weights)
