"""A report: one self-contained HTML page about a solution and what it is compared with.

    from kernelfield import report
    report.write("report.html", {"infinite width": infinite, "width 512": finite})

The page loads nothing: scripts, styles and data are in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kernelfield.common.atomic_files import check_folder, whole_file
from kernelfield.observables.compare import compare
from kernelfield.report import charts, reproduce, words
from kernelfield.report.frames import encode_frames
from kernelfield.report.inputs import chart_inputs
from kernelfield.report.result import Result, number_results
from kernelfield.report.style import THEME, Chart
from kernelfield.solution.solution import Solution

ENDINGS = (".html", ".htm")


def write(
    path: str | os.PathLike[str],
    solutions: Mapping[str, Solution],
    title: str | None = None,
    versions: Mapping[str, Mapping[str, str]] | None = None,
    files: Mapping[str, str] | None = None,
    width: Any = None,
) -> None:
    """Writes a page: the whole file or nothing.

    Args:
        path: of the page, ending in .html; an existing one is replaced.
        solutions: by name; the first is the main result, the others are compared with it.
        title: of the page; made from the settings by default.
        versions: of the libraries that made each solution, by name; those of a file are in its attributes.
        files: the file of each solution, by name, for the commands that make it again.
        width: a `WidthReport`, whose sentences and charts come first on the page; None for none.

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
    text = page(solutions, title, versions, files, width)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def page(
    solutions: Mapping[str, Solution],
    title: str | None = None,
    versions: Mapping[str, Mapping[str, str]] | None = None,
    files: Mapping[str, str] | None = None,
    width: Any = None,
) -> str:
    """Returns the page as HTML text with everything in it; arguments and errors are those of `write`."""
    if not solutions:
        raise ValueError("a report needs at least one solution")
    content = _collect_content(number_results(solutions), title, versions or {}, files or {}, width)
    loader = PackageLoader("kernelfield.report", "template")
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=loader, autoescape=True, **options)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(content)


def check_path(path: Path) -> None:
    """Raises ValueError or FileNotFoundError if no page can be written at `path`."""
    check_folder(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"the page's name must end in {' or '.join(ENDINGS)}, got {path.name}")


def _collect_content(
    results: Sequence[Result],
    title: str | None,
    versions: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
    width: Any,
) -> dict[str, Any]:
    """Returns everything that the template of the page fills in, by name; other arguments as `write`."""
    main, *others = results
    comparisons = []
    for other in others:
        try:
            comparisons.append((other, compare(other.solution, main.solution)))
        except ValueError as error:
            raise ValueError(f"{other.name} and {main.name} cannot be in one report: {error}") from None
    density_charts, densities = charts.chart_densities(results)
    shown = {
        "width": [] if width is None else width.charts(),
        "learning": [charts.chart_loss(results), *charts.chart_alignments(results)],
        "activations": density_charts,
        "movement": [*charts.chart_movements(results), *charts.chart_spectrum(results)],
        "inputs": chart_inputs(results),
    }
    movie = encode_frames(results)
    script, elements = _embed(shown)
    source = reproduce.find_source(main.solution.problem)
    return {
        "title": title or words.write_title(main),
        "made": datetime.now(UTC).strftime("%d %B %Y"),
        "results": results,
        "problem": main.solution.problem,
        "width": width,
        "charts": elements,
        "comparisons": comparisons,
        "words": words,
        "source": source,
        "extraction": None if source.known else reproduce.write_extraction(main, files),
        "recipes": reproduce.write_recipes(results, source, files),
        "versions": _list_versions(results, versions),
        "kernelfield": version("kernelfield"),
        "bokeh_version": bokeh_version,
        "bokeh": Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        "plots": Markup(script),
        "data": {"movie": movie, "densities": densities, "unit": main.solution.training.unit},
    }


def _embed(sections: Mapping[str, Sequence[Chart]]) -> tuple[str, dict[str, list[tuple[Chart, Markup]]]]:
    """Returns the script that draws all plots, and by section every chart with the element that it draws into."""
    script, texts = components([chart.plot for section in sections.values() for chart in section], theme=THEME)
    elements = map(Markup, texts)
    return script, {name: [(chart, next(elements)) for chart in section] for name, section in sections.items()}


def _list_versions(results: Sequence[Result], versions: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Returns the names of results, or "all results" if they agree, with the libraries that made them."""
    texts = [
        (result.name, ", ".join(f"{library} {number}" for library, number in libraries.items()))
        for result in results
        if (libraries := versions.get(result.name))
    ]
    return [("all results", texts[0][1])] if len(texts) > 1 and len({text for _, text in texts}) == 1 else texts
