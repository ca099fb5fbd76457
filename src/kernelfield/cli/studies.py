"""Commands that set several results, methods or figures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Argument, Exit, Option

from kernelfield.cli.app import INTERRUPTED, Output, Stopped, app, catch_interrupts, new_table, print_line
from kernelfield.cli.options import (
    AsJson,
    ConfigPath,
    DataPath,
    Quick,
    Quiet,
    check_image,
    finite_networks,
    name_files,
    parse_numbers,
    split_words,
)
from kernelfield.common.settings import suggestion
from kernelfield.files.config import read
from kernelfield.files.storage import load
from kernelfield.observables.compare import Comparison
from kernelfield.observables.compare import compare as compare_solutions
from kernelfield.plotting import write_figure
from kernelfield.plotting.summary import format_settings
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from kernelfield.sweeps.gammas import Point


@app.command()
def compare(
    results: Annotated[list[Path], Argument(metavar="RESULT.nc", help="Two or more; the last is the reference.")],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="IMAGE", help="Also draw all of them side by side.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare results with the LAST one given, the reference: relative errors and alignments."""
    from kernelfield.plotting.comparison import draw

    out = Output(quiet, as_json)
    if output is not None:
        check_image(output)
    if len(set(results)) < max(2, len(results)):
        paths = ", ".join(map(str, results))
        raise ValueError(f"give two different results or more, the reference last; got {paths}")
    files = name_files(results)
    solutions = {name: load(file) for name, file in files.items()}
    *others, reference = files
    comparisons = {}
    for name in others:
        try:
            comparisons[name] = compare_solutions(solutions[name], solutions[reference])
        except ValueError as error:
            raise ValueError(f"{files[name]} and {files[reference]} cannot be compared: {error}") from None
    if output is not None:
        write_figure(draw(solutions, reference, comparisons), output)
    _print_comparisons(files, solutions, comparisons, out)
    if output is not None:
        out.say(f"wrote {output}")


def _print_comparisons(
    files: Mapping[str, Path], solutions: Mapping[str, Solution], comparisons: Mapping[str, Comparison], out: Output
) -> None:
    """Prints every comparison with the last of the solutions."""
    methods = {name: format_settings(solution.method) for name, solution in solutions.items()}
    sources = {name: {"name": name, "file": str(file), "method": methods[name]} for name, file in files.items()}
    *_, reference = files
    documents = [{**sources[name], "rows": comparison.to_records()} for name, comparison in comparisons.items()]
    out.print_json({"reference": sources[reference], "comparisons": documents})
    for name, comparison in comparisons.items():
        out.say(f"{name}: {methods[name]}", f"compared with {reference}: {methods[reference]}")
        out.say(comparison.table())


@app.command()
def report(
    results: Annotated[
        list[Path], Argument(metavar="RESULT.nc", help="The main result, and any that are compared with it.")
    ],
    output: Annotated[Path, Option("--output", "-o", metavar="PAGE.html", help="Page to write.")],
    title: Annotated[str | None, Option(help="Title of the page; made from the settings by default.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a result, to send to someone: curves, kernels over time, comparisons, configuration.

    The FIRST result is the main one; the others, finite networks for instance, are compared with it. The page holds
    everything that it shows, and loads nothing.
    """
    from kernelfield import report as pages
    from kernelfield.report.reproduce import file_versions

    out = Output(quiet, as_json)
    pages.check_path(output)
    if len(set(results)) < len(results):
        raise ValueError(f"give every result once, got {', '.join(map(str, results))}")
    files = name_files(results)
    with catch_interrupts():
        solutions = {name: load(file) for name, file in files.items()}
        versions = {name: file_versions(file) for name, file in files.items()}
        pages.write(output, solutions, title, versions, {name: str(file) for name, file in files.items()})
    out.print_json({"wrote": str(output), "bytes": output.stat().st_size, "results": list(files)})
    out.say(f"wrote {output}")


@app.command("sweep-gamma")
def sweep_gamma(
    config: ConfigPath,
    gamma0: Annotated[str, Option(metavar="A,B,...", help="Values of gamma0, separated by commas.")],
    output: Annotated[Path, Option("--output", "-o", metavar="IMAGE", help="Figure to write.")],
    methods: Annotated[
        str, Option(metavar="A,B,...", help="Methods beside march: any of its sections, finite among them.")
    ] = "gradient_independence,perturbation,static_ntk",
    width: Annotated[int | None, Option(help="Also networks of this width (or of section [finite]).")] = None,
    seeds: Annotated[int | None, Option(help="How many of them.")] = None,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve by several methods over a range of gamma0: alignment to the full theory and to finite networks."""
    from kernelfield.plotting.gammas import draw
    from kernelfield.sweeps import gammas as sweep

    check_image(output)
    settings, gammas, names = read(config, data), parse_numbers("--gamma0", gamma0), split_words(methods)
    chosen = {name: settings.method(name) for name in ("march", *names) if name != "finite"}
    if width is not None or seeds is not None or "finite" in (*settings.methods, *names):
        chosen["finite"] = finite_networks(settings, width, seeds, config)
    references = [name for name in ("march", "finite") if name in chosen]
    problem, points, out = settings.problem(), [], Output(quiet, as_json)
    try:
        for point in sweep.sweep_gamma(settings.network, problem, settings.training, chosen, gammas, references):
            points.append(point)
            out.note(f"gamma0 = {point.gamma0:g} done, {len(points)} of {len(gammas)}")
    except KeyboardInterrupt:
        if not points:
            raise Stopped("interrupted: nothing was written") from None
    write_figure(draw(points), output)
    out.print_json(sweep.records(points))
    out.say(_alignment_table(points))
    out.say(f"wrote {output}")
    if len(points) < len(gammas):
        print_line(f"interrupted ({output} shows {len(points)} of {len(gammas)} values of gamma0)")
        raise Exit(INTERRUPTED)


def _alignment_table(points: Sequence[Point]) -> Table:
    """Returns the alignment of the tangent kernel, or of predictions, with each reference, against gamma0."""
    comparisons = [comparison for point in points for comparison in point.comparisons.values()]
    is_tracked = all(any(row.name == "NTK" for row in comparison.rows) for comparison in comparisons)
    quantity, name = ("NTK", "the NTK") if is_tracked else ("predictions", "predictions")
    headings = [f"gamma0 = {point.gamma0:g}" for point in points]
    table = new_table(f"alignment of {name} over all of training", ["reference", "method"], headings)
    for reference, method in points[0].comparisons:
        rows = [point.comparisons[reference, method].row(quantity) for point in points]
        table.add_row(reference, method, *(f"{row.alignment:.5f}" for row in rows))
    return table


@app.command()
def figures(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="1, 2, 3, 4, relu, whitened, depth; all by default.")
    ] = None,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="Where to write them; made if missing.")] = Path(
        "figures"
    ),
    quick: Quick = False,
    cifar: Annotated[
        Path | None,
        Option("--cifar", metavar="FOLDER", help="CIFAR-10's own files, for figures 1 and 4 instead of digits."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make figures of the paper, each from its own settings."""
    from kernelfield.figures import FIGURES, OF_IMAGES, Settings

    chosen, settings = names or list(FIGURES), Settings(quick, cifar)
    for name in chosen:
        if name not in FIGURES:
            raise ValueError(f"figure '{name}' is unknown{suggestion(name, list(FIGURES))}")
    if cifar is not None:
        if not set(chosen) & set(OF_IMAGES):
            raise ValueError(f"--cifar is for figures {' and '.join(OF_IMAGES)}, got {', '.join(chosen)}")
        settings.images(points=2)  # so that an error in the files comes before any run
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder")
    out.mkdir(parents=True, exist_ok=True)
    output, paths = Output(quiet, as_json), []
    with catch_interrupts("interrupted: figures that were done are kept"):
        for name in chosen:
            for stem, figure in FIGURES[name](settings, output.say):
                path = out / f"{stem}.png"
                write_figure(figure, path)
                paths.append(str(path))
                output.say(f"wrote {path}")
    output.print_json({"wrote": paths})
