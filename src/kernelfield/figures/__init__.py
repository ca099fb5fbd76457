"""The figures of the paper, one file each: `draw(settings, say)` yields images, each with its name.

kernelfield figures NAME --out FOLDER
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kernelfield.figures import (
    depth,
    figure1,
    figure2,
    figure3,
    figure4,
    rules,
    scaling,
    transfer,
    transformer,
    two_layer_relu,
    whitened,
    width,
)
from kernelfield.figures.common import Say, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[Settings, Say], Iterator[tuple[str, Figure]]]] = {
    "1": figure1.draw,
    "2": figure2.draw,
    "3": figure3.draw,
    "4": figure4.draw,
    "relu": two_layer_relu.draw,
    "whitened": whitened.draw,
    "depth": depth.draw,
    "transformer": transformer.draw,
    "width": width.draw,
    "rules": rules.draw,
    "transfer": transfer.draw,
    "scaling": scaling.draw,
}
OF_IMAGES = ("1", "4")  # those that take images
