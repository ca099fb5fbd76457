"""The command that sweeps over a grid, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from kernelfield.cli.app import FAILED, INTERRUPTED, Output, app, print_line
from kernelfield.cli.options import AsJson, ConfigPath, DataPath, Quiet
from kernelfield.common.progress import bar
from kernelfield.files.config import read
from kernelfield.plotting import write_figure


@app.command()
def sweep(
    config: ConfigPath,
    grid: Annotated[
        list[str], Option(metavar="KEY=A,B,...", help="A key of the configuration and its values; once for each key.")
    ],
    output: Annotated[Path, Option("--output", "-o", metavar="SWEEP.zarr", help="Folder to write, or to go on in.")],
    method: Annotated[str, Option(help="march, finite, static_ntk or any other method.")] = "march",
    scheduler: Annotated[
        str | None, Option(metavar="ADDRESS", help="Dask scheduler whose workers solve the points.")
    ] = None,
    workers: Annotated[
        int | None, Option(help="Processes on this computer; by default as many as cores. 0: this process.")
    ] = None,
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
    from kernelfield.sweeps.store import count_points_done

    out, points = Output(quiet, as_json), sweeps.make_grid(read(config, data), sweeps.parse_grid(grid), method)
    try:
        with bar("sweep") as report:
            sweeps.run(points, output, workers, scheduler, retry_failed, report)
    except (KeyboardInterrupt, sweeps.SweepError) as error:
        is_interrupt, done = isinstance(error, KeyboardInterrupt), "nothing was written"
        if output.exists():
            count = count_points_done(output)
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
