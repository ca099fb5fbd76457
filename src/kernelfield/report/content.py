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
from kernelfield.report.curves import chart_alignments, chart_loss, chart_movements, chart_spectrum
from kernelfield.report.densities import chart_densities
from kernelfield.report.frames import encode_frames
from kernelfield.report.result import Result, number_results
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


def collect_content(
    solutions: Mapping[str, Solution],
    title: str | None,
    versions: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the values of the template by name; arguments as `kernelfield.report.write`."""
    results = number_results(solutions)
    main, *others = results
    comparisons = [(other, compare(other.solution, main.solution)) for other in others]
    density_charts, densities = chart_densities(results)
    charts = {
        "learning": [chart_loss(results), *chart_alignments(results)],
        "activations": density_charts,
        "movement": [*chart_movements(results), *chart_spectrum(results)],
    }
    movie = encode_frames(results)
    script, elements = _embed(charts)
    filled = {"kernels": movie, **charts, "comparison": comparisons}
    source = reproduce.find_source(main.solution.problem)
    return {
        "title": title or words.write_title(main),
        "lead": words.write_lead(results),
        "made": datetime.now(UTC).strftime("%d %B %Y"),
        "sections": {key: name for key, name in SECTIONS.items() if filled.get(key, True)},
        "results": results,
        "warnings": words.list_warnings(results),
        "outputs": main.solution.problem.outputs,
        "unit": main.unit,
        "numbers": words.list_numbers(results, comparisons),
        "settings": words.tabulate_settings(results),
        "charts": elements,
        "movie": movie,
        "absent": _list_absent(main, movie is not None, densities is not None),
        "density_fields": densities["fields"] if densities else {},
        "density_steps": densities["steps"] if densities else [],
        "comparisons": [
            (other, words.judge(comparison), words.tabulate(comparison), comparison.rows)
            for other, comparison in comparisons
        ],
        "error_bars": words.explain_error_bars(results, bool(comparisons)),
        "source": source,
        "extraction": None if source.known else reproduce.write_extraction(main, files),
        "recipes": reproduce.write_recipes(results, source, files),
        "versions": _list_versions(results, versions),
        "bokeh_version": bokeh_version,
        "bokeh": Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        "plots": Markup(script),
        "data": {"movie": movie, "densities": densities, "now": main.solution.steps_done},
    }


def _embed(charts: Mapping[str, Sequence[Chart]]) -> tuple[str, dict[str, list[tuple[Chart, Markup]]]]:
    """Returns the script that draws all plots, and by section every chart with the element that it draws into."""
    script, texts = components([chart.plot for section in charts.values() for chart in section], theme=THEME)
    elements = map(Markup, texts)
    return script, {name: [(chart, next(elements)) for chart in section] for name, section in charts.items()}


def _list_absent(main: Result, kernels: bool, densities: bool) -> list[str]:
    """Returns sentences about what the main result did not record, so that the page lacks it."""
    texts, outputs = [], main.solution.problem.outputs is not None
    if not kernels:
        texts.append('Kernels were not tracked in this run: solve with kernels = "all" to see them.')
    elif not main.solution.hidden("G"):
        choice = "per_output" if outputs else "all"
        about = f'were not tracked in this run: solve with kernels = "{choice}".'
        texts.append(f"Gradient kernels and the tangent kernel {about}")
    elif outputs:
        texts.append("Gradient kernels and the tangent kernel are shown between samples, as means over outputs.")
    if not densities:
        texts.append("No samples of activations were recorded in this run.")
    return texts


def _list_versions(results: Sequence[Result], versions: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Returns the names of results, or "all results" if they agree, with the libraries that made them."""
    texts = [
        (result.name, ", ".join(f"{library} {number}" for library, number in libraries.items()))
        for result in results
        if (libraries := versions.get(result.name))
    ]
    return [("all results", texts[0][1])] if len(texts) > 1 and len({text for _, text in texts}) == 1 else texts
