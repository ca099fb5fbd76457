"""The layers that networks are made of; `base` says what a layer is.

Compose them in `Sequential` and give that to `kernelfield.Network`: the first layer is Dense or Conv, the last one
Readout. A layer object that occurs more than once shares its weights. `Particlewise` makes a layer of any function.
"""

from kernelfield.layers.attention import MeanAttention, MultiHeadAttention, TokenPool
from kernelfield.layers.base import FieldTrace, Layer, Setup, Space, WeightTrace
from kernelfield.layers.branches import Concatenate, Multiply
from kernelfield.layers.composed import Residual, Sequential, stack_gated_layers
from kernelfield.layers.particlewise import LayerNorm, MaxPool, Particlewise, RMSNorm, SwiGLU
from kernelfield.layers.stateless import Activation, AveragePool, GlobalAveragePool
from kernelfield.layers.vectors import Bias, Gain, Readout
from kernelfield.layers.weights import Conv, Dense

__all__ = [
    "Activation",
    "AveragePool",
    "Bias",
    "Concatenate",
    "Conv",
    "Dense",
    "FieldTrace",
    "Gain",
    "GlobalAveragePool",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "MeanAttention",
    "MultiHeadAttention",
    "Multiply",
    "Particlewise",
    "RMSNorm",
    "Readout",
    "Residual",
    "Sequential",
    "Setup",
    "Space",
    "SwiGLU",
    "TokenPool",
    "WeightTrace",
    "stack_gated_layers",
]
