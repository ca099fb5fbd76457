"""A dictionary between the mean-field form of this library, muP, the NTK form and standard parameterization.

    numbers = to_mup(network, problem, training, width=1024)     # prints as a table, one row for each tensor
    numbers["W1"].std, numbers["W1"].multiplier, numbers["W1"].learning_rate
    from_mup(learning_rate=0.1, base_width=256)                  # "what is my network's gamma0?"

`exponents` compares how parameterizations scale with width, `numbers` writes one network at one width in each of
them, `inverse` reads gamma0 and eta from such numbers, and `scaling` says which of them depart from muP as N grows.
"""

from kernelfield.parameterization.exponents import (
    MEAN_FIELD,
    MUP,
    MUP_TABLE_8,
    MUP_TABLE_9,
    NTK,
    STANDARD,
    Exponents,
    Parameterization,
    equivalent,
    growth,
    mean_field,
    regime,
)
from kernelfield.parameterization.inverse import MeanField, from_mup, from_numbers
from kernelfield.parameterization.numbers import Numbers, Row, to_mean_field, to_mup, to_ntk, to_standard
from kernelfield.parameterization.scaling import Drift, TensorDrift, drift

__all__ = [
    "MEAN_FIELD",
    "MUP",
    "MUP_TABLE_8",
    "MUP_TABLE_9",
    "NTK",
    "STANDARD",
    "Drift",
    "Exponents",
    "MeanField",
    "Numbers",
    "Parameterization",
    "Row",
    "TensorDrift",
    "drift",
    "equivalent",
    "from_mup",
    "from_numbers",
    "growth",
    "mean_field",
    "regime",
    "to_mean_field",
    "to_mup",
    "to_ntk",
    "to_standard",
]
