"""What learns: any composition of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from kernelfield import layers as kl
from kernelfield.activations.functions import Activation
from kernelfield.common.settings import Spec
from kernelfield.describe.problem import InputAxes, Problem
from kernelfield.layers import Layer, Sequential
from kernelfield.layers.base import Stateless, uses
from kernelfield.layers.vectors import Readout
from kernelfield.layers.weights import Scaled, Weights

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Architecture(Spec):
    """The base of all networks, which have layers and a feature-learning strength.

    f = w . phi / (gamma0 N) with all weights N(0, 1) at initialization; f is reported minus its value there.
    """

    if TYPE_CHECKING:  # arguments of the networks below, or derived from their arguments
        gamma0: float

        @property
        def layers(self) -> Sequential: ...

    @property
    def hidden_layers(self) -> int:
        """The number of hidden layers, one less than the uses of weights."""
        return sum(isinstance(layer, (Weights, Readout)) for layer in uses(self.layers)) - 1

    @property
    def nonlinearities(self) -> list[Activation]:
        """The activation function of every activation layer."""
        return [layer.nonlinearity for layer in uses(self.layers) if isinstance(layer, kl.Activation)]

    @property
    def is_linear(self) -> bool:
        """Whether all layers say that they are linear: then the theory is Gaussian, and solved exactly."""
        return self.layers.is_linear

    @property
    def factorizes(self) -> bool:
        """Whether the tangent kernel is sum_l G^{l+1} Phi^l, sample by sample.

        Sites, biases, shared weights, different widths, and scales that multiply weights in use prevent it.
        """
        layers, simple = uses(self.layers), (kl.Dense, kl.Activation, Readout)
        weights = [layer for layer in layers if isinstance(layer, Scaled)]
        plain = all(layer.gain * getattr(layer, "width", 1) == 1 for layer in weights)
        shared = len(set(map(id, weights))) < len(weights)
        return plain and not shared and all(isinstance(layer, simple) for layer in layers)

    def inputs(self, problem: Problem) -> np.ndarray:
        """Returns X as the first layer takes it: (P, D) for Dense, which takes an image as a vector, or (P, *sites, C).

        Raises:
            ValueError: the first layer is a convolution and the inputs have no sites.
        """
        if isinstance(uses(self.layers)[0], kl.Dense):
            return problem.X.reshape(problem.points, -1)
        if problem.X.ndim == 2:
            need = "(P, positions, C) or (P, rows, columns, C)"
            raise ValueError(f"{type(self).__name__} needs X of shape {need}, got {problem.X.shape}")
        return problem.X

    def every_input(self, problem: Problem) -> np.ndarray:
        """Returns `inputs` of the observed points, followed by those of the stream if there is one."""
        return np.concatenate([self.inputs(points) for points in (problem, problem.stream) if points is not None])

    def coordinates(self, problem: Problem) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns the principal axes (k, D) of the inputs that train, and `InputAxes.coordinates` of `every_input`.

        These coordinates are all that infinite width knows of inputs.
        """
        X = self.inputs(problem)[problem.weights > 0] if problem.stream is None else self.inputs(problem.stream)
        axes = InputAxes.of(X.reshape(-1, X.shape[-1]))
        return axes.axes, *axes.coordinates(self.every_input(problem))


def _owners(layer: Layer) -> set[tuple[int, int]]:
    """Returns every layer of weights inside a layer with the layer that it is a part of, by their identities."""
    own = {(id(part), id(layer)) for part in layer.parts if not part.parts and not isinstance(part, Stateless)}
    return own.union(*map(_owners, layer.parts))


class Network(Architecture):
    """Any composition of `kernelfield.layers`.

    Args:
        layers: bottom to top, the first one Dense or Conv, the last one Readout. A layer object that occurs more than
            once shares its weights.
        gamma0: feature-learning strength > 0; gamma0 -> 0 is lazy, of order one and above is rich.

    Example:
        >>> import kernelfield as kf
        >>> from kernelfield.layers import Activation, Dense, Readout
        >>> again = Dense()
        >>> kf.Network(layers=[Dense(), Activation("tanh"), again, Activation("tanh"), again, Readout()]).hidden_layers
        3
    """

    layers: Any  # type: ignore[assignment]
    gamma0: Positive = 1.0

    @field_validator("layers")
    @classmethod
    def _compose(cls, layers: Any) -> Sequential:
        """Returns layers, a Sequential or a list, as a Sequential that can be a network."""
        network = layers if isinstance(layers, Sequential) else Sequential(layers)
        while network.layers and isinstance(network.layers[-1], Sequential):
            network = Sequential([*network.layers[:-1], *network.layers[-1].layers])
        every = uses(network)
        if not every or not isinstance(every[0], Weights) or network.layers[0] is not every[0]:
            raise ValueError("the first layer of a network must be Dense or Conv")
        if [isinstance(layer, Readout) for layer in every] != [False] * (len(every) - 1) + [True]:
            raise ValueError("the last layer of a network, and no other, must be Readout")
        owners = _owners(network)
        if len({weights for weights, _ in owners}) < len(owners):
            raise ValueError("weights can be shared within one Sequential, not between several")
        return network
