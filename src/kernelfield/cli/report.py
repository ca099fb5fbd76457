"""The command that writes a page about results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernelfield.cli.app import AsJson, Output, Quiet, app, stoppable


@app.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT.nc", help="The main result, and any that are compared with it."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PAGE.html", help="Page to write.")],
    title: Annotated[str | None, typer.Option(help="Title of the page; made from the settings by default.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a result, to send to someone: curves, kernels over time, comparisons, configuration.

    The FIRST result is the main one; the others, finite networks for instance, are compared with it. The page holds
    everything that it shows, and loads nothing.
    """
    from kernelfield import report as pages
    from kernelfield.files.storage import load
    from kernelfield.report.reproduce import file_versions

    out = Output(quiet, as_json)
    pages.check_path(output)
    if len(set(results)) < len(results):
        raise ValueError(f"give every result once, got {', '.join(map(str, results))}")
    stems = [file.stem for file in results]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in results]
    with stoppable():
        files = dict(zip(names, results, strict=True))
        solutions = {name: load(file) for name, file in files.items()}
        versions = {name: file_versions(file) for name, file in files.items()}
        pages.write(output, solutions, title, versions, {name: str(file) for name, file in files.items()})
    out.result({"wrote": str(output), "bytes": output.stat().st_size, "results": names})
    out.say(f"wrote {output}")
