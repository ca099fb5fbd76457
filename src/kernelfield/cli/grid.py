"""Commands that sweep: over a grid of settings, and over gamma0 by several methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Exit, Option

from kernelfield.cli import options
from kernelfield.cli.app import FAILED, INTERRUPTED, Output, app, print_line
from kernelfield.cli.options import AsJson, ConfigPath, DataPath, ImagePath, Quiet
from kernelfield.common.progress import bar
from kernelfield.files.config import read
from kernelfield.plotting import write_figure
from kernelfield.plotting.summary import new_table

if TYPE_CHECKING:
    from kernelfield.sweeps.gammas import Point


@app.command()
def sweep(
    config: ConfigPath,
    grid: Annotated[list[str], Option(metavar="KEY=A,B,...", help="A key and its values; once for each key.")],
    output: Annotated[Path, Option("--output", "-o", metavar="SWEEP.zarr", help="Folder to write, or to go on in.")],
    method: Annotated[str, Option(help="march, finite, static_ntk or any other method.")] = "march",
    scheduler: Annotated[str | None, Option(metavar="ADDRESS", help="Dask scheduler whose workers solve.")] = None,
    workers: Annotated[int | None, Option(help="Processes here, by default as many as cores; 0: this one.")] = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Do points that failed again.")] = False,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve every combination of several values of several keys, on many processes.

    Every point is written to one dataset when it is done. The same command goes on with a sweep that was stopped or
    killed, and kernelfield show looks at it at any time.
    """
    from kernelfield import sweeps
    from kernelfield.sweeps.store import Store

    out, points = Output(quiet, as_json), sweeps.make_grid(read(config, data), sweeps.parse_grid(grid), method)
    try:
        with bar("sweep") as report:
            sweeps.run(points, output, workers, scheduler, retry_failed, report)
    except (KeyboardInterrupt, sweeps.SweepError) as error:
        is_interrupt, done = isinstance(error, KeyboardInterrupt), "nothing was written"
        if output.exists():
            count = (Store(output).status != "").sum()
            done = f"{count} of {len(points.runs)} points are done: the same command goes on"
        print_line(f"{'interrupted' if is_interrupt else error} ({done})")
        raise Exit(INTERRUPTED if is_interrupt else FAILED) from None
    failed = show_grid(output, None, out)
    if failed:
        print_line(f"{failed} of {len(points.runs)} points failed: --retry-failed does them again")
        raise Exit(FAILED)


def show_grid(path: Path, image: Path | None, out: Output) -> int:
    """Prints the points of a sweep that are done, draws them if an image is named, and returns how many failed."""
    from kernelfield import sweeps
    from kernelfield.plotting.grid import draw

    data = sweeps.read(path)
    failures, figure = sweeps.failures(data), image and draw(data)
    out.say(sweeps.table(data))
    if failures:
        out.say(*failures)
    if image and figure:
        write_figure(figure, image)
        out.say(f"wrote {image}")
    points, total = sweeps.records(data), int(data["status"].size)
    out.print_json({"file": str(path), "wrote": image and str(image), "points_in_all": total, "points": points})
    return len(failures)


@app.command("sweep-gamma")
def sweep_gamma(
    config: ConfigPath,
    gamma0: Annotated[str, Option(metavar="A,B,...", help="Values of gamma0, separated by commas.")],
    output: ImagePath,
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

    settings, names = read(config, data), options.split_words(methods)
    gammas = options.parse_numbers("--gamma0", gamma0)
    chosen = {name: settings.method(name) for name in ("march", *names) if name != "finite"}
    if width is not None or seeds is not None or "finite" in (*settings.methods, *names):
        chosen["finite"] = options.finite_networks(settings, width, seeds, config)
    references = [name for name in ("march", "finite") if name in chosen]
    problem, points, out = settings.problem(), [], Output(quiet, as_json)
    try:
        for point in sweep.sweep_gamma(settings.network, problem, settings.training, chosen, gammas, references):
            points.append(point)
            out.note(f"gamma0 = {point.gamma0:g} done, {len(points)} of {len(gammas)}")
    except KeyboardInterrupt:
        if not points:
            raise
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
