"""Everything that the template of the page fills in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup

from kernelfield.observables.compare import compare
from kernelfield.report import reproduce, words
from kernelfield.report.curves import alignment_charts, loss_chart, movement_charts, spectrum_chart
from kernelfield.report.densities import densities
from kernelfield.report.frames import frames
from kernelfield.report.result import Result, results
from kernelfield.report.style import THEME, Chart
from kernelfield.solution.solution import Solution

SECTIONS = {
    "solved": "What was solved",
    "learning": "Learning",
    "kernels": "Kernels during training",
    "activations": "Activations",
    "movement": "Movement and spectrum",
    "comparison": "Side by side",
    "errors": "How to read the error bars",
    "reproduce": "Run it again",
}


def content(
    solutions: Mapping[str, Solution],
    title: str | None,
    versions: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Values of the template.

    Args:
        solutions: by name, the main one first; all can be compared.
        title: of the page, or None.
        versions: of the libraries that made each solution, by name.
        files: the file of each solution, by name.

    Returns:
        Values by name.
    """
    shown = results(solutions)
    main, *others = shown
    compared = [(other, compare(other.solution, main.solution)) for other in others]
    sampled, spectrum = densities(shown), spectrum_chart(shown)
    charts = {
        "learning": [loss_chart(shown), *alignment_charts(shown)],
        "activations": sampled[0] if sampled else [],
        "movement": [*movement_charts(shown), *([spectrum] if spectrum else [])],
    }
    movie = frames(shown)
    script, drawn = _embedded(charts)
    missing = {"kernels": movie is None, "activations": sampled is None, "movement": not charts["movement"],
               "comparison": not compared}  # fmt: skip
    return {
        "title": title or words.title(main),
        "lead": words.lead(shown),
        "made": datetime.now(UTC).strftime("%d %B %Y"),
        "sections": {key: name for key, name in SECTIONS.items() if not missing.get(key)},
        "results": shown,
        "warnings": words.warnings(shown),
        "outputs": main.solution.problem.outputs,
        "unit": main.unit,
        "numbers": words.numbers(shown, compared),
        "settings": words.settings(shown),
        "charts": drawn,
        "movie": movie,
        "absent": _absent(main, movie, sampled),
        "density_fields": sampled[1]["fields"] if sampled else {},
        "density_steps": sampled[1]["steps"] if sampled else [],
        "comparisons": [(r, words.verdict(c), words.table(c), c.rows) for r, c in compared],
        "error_bars": words.error_bars(shown, bool(compared)),
        **_recipes(shown, files),
        "versions": _versions(shown, versions),
        "bokeh_version": bokeh_version,
        "bokeh": Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        "plots": Markup(script),
        "data": {"movie": movie, "densities": sampled[1] if sampled else None, "now": main.solution.steps_done},
    }  # fmt: skip


def _embedded(charts: Mapping[str, Sequence[Chart]]) -> tuple[str, dict[str, list[tuple[Chart, Markup]]]]:
    """The script that draws all plots, and the charts with the elements that it draws into."""
    named = {f"{section}{place}": chart for section, each in charts.items() for place, chart in enumerate(each)}
    script, elements = components({name: chart.plot for name, chart in named.items()}, theme=THEME)
    places = {
        section: [(chart, Markup(elements[f"{section}{place}"])) for place, chart in enumerate(each)]
        for section, each in charts.items()
    }
    return script, places


def _absent(main: Result, movie: Any, sampled: Any) -> list[str]:
    """What the main result did not record, so that the page lacks it."""
    out = []
    if movie is None:
        out.append('Kernels were not tracked in this run: solve with kernels = "all" to see them.')
    elif not main.solution.hidden("G"):
        kernels = "all" if main.solution.problem.outputs is None else "per_output"
        out.append(
            f'Gradient kernels and the tangent kernel were not tracked in this run: solve with kernels = "{kernels}".'
        )
    elif main.solution.problem.outputs is not None:
        out.append("Gradient kernels and the tangent kernel are shown between samples, as means over outputs.")
    if sampled is None:
        out.append("No samples of activations were recorded in this run.")
    return out


def _recipes(shown: Sequence[Result], files: Mapping[str, str]) -> dict[str, Any]:
    source = reproduce.data_source(shown[0].solution.problem)
    code = None if source.known else reproduce.extraction(shown, files)
    return {"source": source, "extraction": code, "recipes": reproduce.recipes(shown, source, files)}


def _versions(shown: Sequence[Result], versions: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Name of a result and the libraries that made it."""
    texts = [
        (each.name, ", ".join(f"{library} {number}" for library, number in versions[each.name].items()))
        for each in shown
        if versions.get(each.name)
    ]
    return [("all results", texts[0][1])] if len({text for _, text in texts}) == 1 and len(texts) > 1 else texts
