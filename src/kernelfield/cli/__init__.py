"""The command line: parse, call the library, write.

Bad input prints one line to stderr and exits 2 with nothing written; a failed run exits 1 and an interrupted
one 130, both after writing the steps that were computed.
"""

from kernelfield.cli import runs, studies, tables
from kernelfield.cli.app import main

__all__ = ["main", "runs", "studies", "tables"]
