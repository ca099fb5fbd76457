"""Everything that the template of the page fills in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kernelfield.observables.compare import compare
from kernelfield.report import charts, reproduce, words
from kernelfield.report.frames import encode_frames
from kernelfield.report.result import Result, number_results
from kernelfield.report.style import THEME, Chart
from kernelfield.solution.solution import Solution


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
    density_charts, densities = charts.chart_densities(results)
    shown = {
        "learning": [charts.chart_loss(results), *charts.chart_alignments(results)],
        "activations": density_charts,
        "movement": [*charts.chart_movements(results), *charts.chart_spectrum(results)],
    }
    movie = encode_frames(results)
    script, elements = _embed(shown)
    source = reproduce.find_source(main.solution.problem)
    return {
        "title": title or words.write_title(main),
        "made": datetime.now(UTC).strftime("%d %B %Y"),
        "results": results,
        "problem": main.solution.problem,
        "unit": main.solution.training.unit,
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
        "data": {"movie": movie, "densities": densities, "now": main.solution.steps_done},
    }


def render(content: Mapping[str, Any]) -> str:
    """Returns the page as HTML text, from the values of its template by name."""
    loader = PackageLoader("kernelfield.report", "template")
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=loader, autoescape=True, **options)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(content)


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
