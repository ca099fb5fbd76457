"""The layers that networks are made of."""

from kernelfield.layers.activation import Activation
from kernelfield.layers.base import FieldTrace, Layer, Setup, Signal, WeightTrace
from kernelfield.layers.dense import Dense
from kernelfield.layers.read_in import ReadIn
from kernelfield.layers.readout import Readout
from kernelfield.layers.sequential import Sequential

__all__ = [
    "Activation",
    "Dense",
    "FieldTrace",
    "Layer",
    "ReadIn",
    "Readout",
    "Sequential",
    "Setup",
    "Signal",
    "WeightTrace",
]
