"""Networks that write their own list of layers: fully connected, convolutional, residual, and transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from kernelfield import layers as kl
from kernelfield.activations.functions import Activation, activation
from kernelfield.describe.architecture import Architecture, Positive
from kernelfield.describe.problem import Problem
from kernelfield.layers import Layer, Sequential
from kernelfield.layers.vectors import Readout
from kernelfield.layers.weights import Multiplies


def _check_activation(choice: Any) -> Any:
    """Returns the choice of an activation function, if there is such a function."""
    activation(choice)
    return choice


Choice = Annotated[str | Callable[[Any], Any], AfterValidator(_check_activation)]


class _WithActivation(Architecture):
    """The base of networks with one activation function throughout."""

    if TYPE_CHECKING:
        activation: Choice

    @property
    def nonlinearity(self) -> Activation:
        """The activation function with its derivative."""
        return activation(self.activation)


class MLP(_WithActivation):
    """A fully connected network in mean-field (muP) parameterization.

    h^1 = W^0 x / sqrt(D), h^{l+1} = W^l phi(h^l) / sqrt(N), f = w . phi(h^L) / (gamma0 N), all weights N(0, 1)
    at initialization; f is reported minus its value there.

    Args:
        depth: number of hidden layers L >= 1.
        activation: "linear", "tanh", "relu", "erf", "gelu", "softplus", or any elementwise JAX function.
        gamma0: feature-learning strength > 0; gamma0 -> 0 is lazy, of order one and above is rich.
        bias_scale: sigma_b, of trained biases of the hidden layers that start as N(0, sigma_b^2); no biases if None.
        weight_scales: sigma_w of the L + 1 weights; all are one by default.
        scales_multiply: whether these scales multiply the "initialization", N(0, sigma_w^2), or the "weight" in use.
        widths: widths of the L hidden layers, up to a common factor: N is the width of the last one.

    Source: arXiv:2205.09653, section 2, and its appendix D.7 for widths.

    Example:
        >>> import kernelfield as kf
        >>> len(kf.MLP(depth=2, activation="tanh", gamma0=1.0).layers.layers)
        5
    """

    depth: int = Field(ge=1)
    activation: Choice = "tanh"
    gamma0: Positive = 1.0
    bias_scale: float | None = Field(default=None, ge=0)
    weight_scales: list[Positive] | None = None
    scales_multiply: Multiplies = "initialization"
    widths: list[Positive] | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> MLP:
        for name, count in (("weight_scales", self.depth + 1), ("widths", self.depth)):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"{name} must have {count} numbers for depth {self.depth}, got {len(values)}")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether all weights start as N(0, 1), in layers of one width without biases."""
        return self.bias_scale is self.weight_scales is self.widths is None

    @property
    def layers(self) -> Sequential:
        """Dense, Bias and an Activation `depth` times, and the Readout."""
        phi, multiplies = kl.Activation(self.nonlinearity), self.scales_multiply
        scales, widths = self.weight_scales or [1.0] * (self.depth + 1), self.widths or [1.0] * self.depth
        layers: list[Layer] = []
        for scale, width in zip(scales, widths, strict=False):
            layers.append(kl.Dense(scale=scale, multiplies=multiplies, width=width / widths[-1]))
            layers += [phi] if self.bias_scale is None else [kl.Bias(self.bias_scale), phi]
        return Sequential([*layers, Readout(scale=scales[-1], multiplies=multiplies)])


class CNN(_WithActivation):
    """A convolutional network, over sequences (P, positions, C) or images (P, rows, columns, C).

    h^1 = n^{-1/2} sum_j W_j x_{a + j} / sqrt(C) and so on, n the number of places of the kernel.

    Args:
        depth: number of convolutions L >= 1.
        kernel: sites of the window along each axis.
        stride: stride of every convolution.
        padding: "zero" or "circular".
        pool: average over windows of so many sites along each axis after every activation but the last; 1 for none.
        readout: "average" over all sites before the readout, or "flatten", with weights of its own for every site.
        activation, gamma0: as for `MLP`.

    Source: arXiv:2205.09653, section 6 and its appendix on convolutions.

    Example:
        >>> import kernelfield as kf
        >>> kf.CNN(depth=2, pool=2).hidden_layers
        2
    """

    depth: int = Field(ge=1)
    kernel: int = Field(default=3, ge=1)
    stride: int = Field(default=1, ge=1)
    padding: Literal["zero", "circular"] = "zero"
    pool: int = Field(default=1, ge=1)
    readout: Literal["average", "flatten"] = "average"
    activation: Choice = "tanh"
    gamma0: Positive = 1.0

    @property
    def layers(self) -> Sequential:
        """Conv, Activation and AveragePool `depth` times, GlobalAveragePool, and the Readout."""
        phi, between = kl.Activation(self.nonlinearity), [kl.AveragePool(self.pool)] if self.pool > 1 else []
        blocks = [[kl.Conv(self.kernel, self.stride, self.padding), phi] for _ in range(self.depth)]
        last = [kl.GlobalAveragePool()] if self.readout == "average" else []
        below = [layer for block in blocks[:-1] for layer in block + between]
        return Sequential([*below, *blocks[-1], *last, Readout()])


class ResNet(_WithActivation):
    """A residual network of L blocks, h^{l+1} = h^l + beta W^l phi(h^l) / sqrt(N).

    Blocks are fully connected, or convolutions (`kernel`) with an average over all sites before the readout.

    Args:
        depth: number of blocks L >= 1; with the first weights there are L + 1 hidden layers.
        branch_scale: beta, a number or "1/sqrt(depth)", with which dynamics converge as depth grows.
        kernel: sites of the window of convolutions along each axis; None for fully connected blocks.
        padding: padding of the convolutions, "zero" or "circular".
        activation, gamma0: as for `MLP`.

    Source: arXiv:2309.16620.

    Example:
        >>> import kernelfield as kf
        >>> kf.ResNet(depth=4).beta
        0.5
    """

    depth: int = Field(ge=1)
    branch_scale: float | Literal["1/sqrt(depth)"] = "1/sqrt(depth)"
    kernel: int | None = Field(default=None, ge=1)
    padding: Literal["zero", "circular"] = "zero"
    activation: Choice = "tanh"
    gamma0: Positive = 1.0

    @property
    def beta(self) -> float:
        """The scale of the branches."""
        return 1 / math.sqrt(self.depth) if isinstance(self.branch_scale, str) else self.branch_scale

    @property
    def layers(self) -> Sequential:
        """The first weights, the blocks, an Activation and the Readout."""
        phi = kl.Activation(self.nonlinearity)

        def weights() -> Layer:
            return kl.Dense() if self.kernel is None else kl.Conv(self.kernel, padding=self.padding)

        blocks = [kl.Residual(Sequential([phi, weights()]), self.beta) for _ in range(self.depth)]
        last = [] if self.kernel is None else [kl.GlobalAveragePool()]
        return Sequential([weights(), *blocks, phi, *last, Readout()])


class Transformer(_WithActivation):
    """A transformer over a sequence (P, positions, D), with a residual stream of N neurons and N / d heads a block.

    Each block adds beta times causal or full attention of many heads, and beta times a network of one hidden layer at
    every position. Weights start as N(0, 1); gains and biases of the norms are trained.

    Args:
        depth: number of blocks.
        head_dim: d, dimensions of a head; the number of heads grows with the width.
        mlp_width: width of the hidden layers of the blocks, relative to the residual stream.
        norm: "pre", LayerNorm with gain and bias before each branch and before the readout; or "none".
        causal: whether a position sees itself and those before it alone.
        readout: the "mean" over all positions, or the "last" position.
        branch_scale: beta, a number or "1/sqrt(depth)", with which dynamics converge as depth grows.
        activation, gamma0: as for `MLP`.

    Source: arXiv:2405.15712.

    Example:
        >>> import kernelfield as kf
        >>> kf.Transformer(depth=2, head_dim=4).hidden_layers
        9
    """

    depth: int = Field(ge=1)
    head_dim: int = Field(default=4, ge=1)
    mlp_width: float = Field(default=2.0, gt=0)
    norm: Literal["pre", "none"] = "pre"
    causal: bool = False
    readout: Literal["mean", "last"] = "mean"
    branch_scale: float | Literal["1/sqrt(depth)"] = "1/sqrt(depth)"
    activation: Choice = "gelu"
    gamma0: Positive = 1.0

    @property
    def layers(self) -> Sequential:
        """Conv(1), two Residual branches a block, the last norm, the mean or the last position, and the Readout."""
        beta = 1 / math.sqrt(self.depth) if isinstance(self.branch_scale, str) else self.branch_scale
        phi, heads = kl.Activation(self.nonlinearity), kl.MultiHeadAttention(self.head_dim, self.causal)

        def norm() -> list[Layer]:
            return [kl.LayerNorm(), kl.Gain(), kl.Bias(skips_padding=True)] if self.norm == "pre" else []

        layers: list[Layer] = [kl.Conv(1)]
        for _ in range(self.depth):
            attention = [kl.Conv(1, components=heads.components, width=3.0), heads, kl.Conv(1)]
            hidden = [kl.Conv(1, components=round(self.mlp_width) or 1, width=self.mlp_width), phi, kl.Conv(1)]
            layers += [kl.Residual(Sequential([*norm(), *branch]), beta) for branch in (attention, hidden)]
        return Sequential([*layers, *norm(), kl.TokenPool(self.readout == "last"), Readout()])

    def inputs(self, problem: Problem) -> np.ndarray:
        """Returns X (P, positions, D); raises ValueError if it has other sites, or padding that would not stay zero."""
        X = super().inputs(problem)
        if X.ndim != 3:
            raise ValueError(f"Transformer needs X of shape (P, positions, D) or token ids, got {X.shape}")
        present = X.any(axis=-1)
        if 0 in (tokens := present.sum(axis=1)):
            raise ValueError(f"sequence {tokens.argmin()} has no tokens, or zeros alone")
        if not present.all() and float(self.nonlinearity.phi(np.zeros(1))[0]) != 0:
            raise ValueError(f"padding needs an activation with phi(0) = 0, got '{self.nonlinearity.name}'")
        return X
