"""The figures of the paper, one file each: `draw(quick, say)` yields images, each with its name.

kernelfield figures NAME --out FOLDER
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kernelfield.figures import figure3, whitened

Draw = Callable[[bool, Callable[[str], None]], Iterator[tuple[str, Any]]]

FIGURES: dict[str, Draw] = {"3": figure3.draw, "whitened": whitened.draw}
