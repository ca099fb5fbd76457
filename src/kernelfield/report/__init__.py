"""A report: one self-contained HTML page about a solution and what it is compared with.

    from kernelfield import report
    report.write("report.html", {"infinite width": infinite, "width 512": finite})

The page loads nothing: scripts, styles and data are in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kernelfield.common.atomic_files import check_folder, whole_file
from kernelfield.observables.comparable import check_comparable
from kernelfield.solution.solution import Solution

ENDINGS = (".html", ".htm")


def write(
    path: str | os.PathLike[str],
    solutions: Mapping[str, Solution],
    title: str | None = None,
    versions: Mapping[str, Mapping[str, str]] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes a page: the whole file or nothing.

    Args:
        path: of the page, ending in .html; an existing one is replaced.
        solutions: by name; the first is the main result, the others are compared with it.
        title: of the page; made from the settings by default.
        versions: of the libraries that made each solution, by name; those of a file are in its attributes.
        files: the file of each solution, by name, for the commands that make it again.

    Raises:
        ValueError: the name ends in something else, there is no solution, or they cannot be compared.
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import tempfile, numpy as np, kernelfield as kf
        >>> from pathlib import Path
        >>> from kernelfield import report
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0]),
        ...                     kf.GradientDescent(learning_rate=0.5, steps=4), progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report.write(folder + "/report.html", {"infinite": solution})
        ...     Path(folder, "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
        True
    """
    check_path(Path(path))
    text = page(solutions, title, versions, files)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def page(
    solutions: Mapping[str, Solution],
    title: str | None = None,
    versions: Mapping[str, Mapping[str, str]] | None = None,
    files: Mapping[str, str] | None = None,
) -> str:
    """Returns the page as HTML text with everything in it; arguments as `write`.

    Raises:
        ValueError: there is no solution, or they cannot be compared.
    """
    from kernelfield.report.content import collect_content, render  # lazy: bokeh takes a second to import

    if not solutions:
        raise ValueError("a report needs at least one solution")
    (first, main), *others = solutions.items()
    for name, solution in others:
        try:
            check_comparable(solution, main)
        except ValueError as error:
            raise ValueError(f"{name} and {first} cannot be in one report: {error}") from None
    return render(collect_content(solutions, title, versions or {}, files or {}))


def check_path(path: Path) -> None:
    """Raises ValueError or FileNotFoundError if no page can be written at `path`."""
    check_folder(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"the page's name must end in {' or '.join(ENDINGS)}, got {path.name}")
