"""The command line, called as a user does."""

import pytest

from kernelfield.cli import main

CONFIG = """
[data]
source = "gaussian"
points = 3
dimensions = 3
[network]
depth = 1
activation = "tanh"
[training]
learning_rate = 0.2
steps = 3
[march]
particles = 64
replicates = 2
"""  # a run of a moment


def exit_code(*arguments):
    """What the program ends with."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code
