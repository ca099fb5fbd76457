"""The command line, called as a user does."""

import pytest

from kernelfield.cli import main


def exit_code(*arguments):
    """What the program ends with."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code
