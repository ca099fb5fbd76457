"""What learns: networks as short compositions of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, field_validator

from kernelfield.activations import Activation, activation
from kernelfield.layers import Activation as ActivationLayer
from kernelfield.layers import Dense, ReadIn, Readout, Sequential
from kernelfield.validation import Spec


class MLP(Spec):
    """A fully connected network in mean-field (muP) parameterization.

    h^1 = W^0 x / sqrt(D), h^{l+1} = W^l phi(h^l) / sqrt(N), f = w . phi(h^L) / (gamma0 N), all weights N(0, 1)
    at initialization; f is reported minus its value there.

    Args:
        depth: number of hidden layers L >= 1.
        activation: "linear", "tanh", "relu", "erf", "gelu", "softplus", or any elementwise JAX function.
        gamma0: feature-learning strength > 0; gamma0 -> 0 is lazy, of order one and above is rich.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> import kernelfield as kf
        >>> len(kf.MLP(depth=2, activation="tanh", gamma0=1.0).layers.layers)
        5
    """

    depth: int = Field(ge=1)
    activation: str | Callable[[Any], Any] = "tanh"
    gamma0: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @field_validator("activation")
    @classmethod
    def _known(cls, choice: Any) -> Any:
        activation(choice)
        return choice

    @property
    def nonlinearity(self) -> Activation:
        """The activation function with its derivative."""
        return activation(self.activation)

    @property
    def layers(self) -> Sequential:
        """ReadIn, then (depth - 1) times Dense, an Activation after each, and the Readout."""
        phi = ActivationLayer(self.nonlinearity)
        hidden = [layer for _ in range(self.depth - 1) for layer in (phi, Dense())]
        return Sequential((ReadIn(), *hidden, phi, Readout()))
