"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kernelfield.common.atomic_files import check_folder
from kernelfield.files.config import Config
from kernelfield.solution.method import Method

IMAGES = (".png", ".pdf", ".svg")

ConfigPath = Annotated[Path, Argument(metavar="CONFIG.toml", help="What to run; see examples/digits.toml.")]
DataPath = Annotated[
    Path | None,
    Option("--data", metavar="FOLDER", help="CIFAR-10's or MNIST's own files, instead of folder in [data]."),
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print nothing but errors, and show no progress.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON document instead, for scripts.")]
Quick = Annotated[bool, Option("--quick", help="Fewer and smaller runs.")]


def check_image(path: Path | None) -> Path | None:
    """Returns a path; raises an error if no image can be written there."""
    if path is not None:
        check_folder(path)
        if path.suffix.lower() not in IMAGES:
            raise ValueError(f"the figure's name must end in {', '.join(IMAGES)}, got {path.name}")
    return path


ResultPath = Annotated[Path, Option("--output", "-o", metavar="RESULT.nc", help="NetCDF file to write.")]
ImagePath = Annotated[Path, Option("--output", "-o", metavar="IMAGE", help="Figure to write.", callback=check_image)]
DrawPath = Annotated[
    Path | None, Option("--output", "-o", metavar="IMAGE", help="Also write a figure.", callback=check_image)
]


def name_files(files: Sequence[Path]) -> dict[str, Path]:
    """Returns files by their stems, or by their paths if two stems are the same."""
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else map(str, files)
    return dict(zip(names, files, strict=True))


def split_words(text: str) -> list[str]:
    """Returns the words between the commas of a text."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_numbers(option: str, text: str, zero: bool = False) -> list[float]:
    """Returns the positive numbers that an option lists, separated by commas, or zero if `zero` allows it."""
    try:
        numbers = [float(word) for word in split_words(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") or (zero and number == 0) for number in numbers):
        kind = "numbers that are not negative," if zero else "positive numbers"
        raise ValueError(f"{option} must be {kind} separated by commas, got '{text}'")
    return numbers


def finite_networks(config: Config, width: int | None, seeds: int | None, path: Path) -> Method:
    """Returns the finite networks of the configuration at a path, with the width and seeds of the command line."""
    if width is None and "finite" not in config.methods:
        raise ValueError(f"give --width, or width in section [finite] of {path}")
    options = {"width": width, "seeds": seeds}
    return config.method("finite", **{name: number for name, number in options.items() if number is not None})
