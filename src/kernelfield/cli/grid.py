"""The command that sweeps over a grid, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernelfield.cli.app import FAILED, INTERRUPTED, AsJson, Output, Quiet, app, one_line
from kernelfield.cli.runs import ConfigPath, DataPath


@app.command()
def sweep(
    config: ConfigPath,
    grid: Annotated[
        list[str],
        typer.Option(metavar="KEY=A,B,...", help="A key of the configuration and its values; once for each key."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SWEEP.zarr", help="Folder to write, or to go on in.")
    ],
    method: Annotated[str, typer.Option(help="march, finite, static_ntk or any other method.")] = "march",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers solve the points.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this computer; by default as many as cores. 0: this process.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do points that failed again.")] = False,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve every combination of several values of several keys, on many processes.

    Every point is written to one dataset when it is done. The same command goes on with a sweep that was stopped or
    killed, and kernelfield show looks at it at any time.
    """
    from kernelfield import sweeps as grids
    from kernelfield.common.progress import bar
    from kernelfield.files.config import read

    out, points = Output(quiet, as_json), grids.grid_of(read(config, data), grids.parsed(grid), method)
    try:
        with bar("sweep") as report:
            grids.run(points, output, workers, scheduler, retry_failed, report)
    except KeyboardInterrupt:
        one_line(f"interrupted ({_kept(output, len(points.runs))})")
        raise typer.Exit(INTERRUPTED) from None
    except grids.SweepError as error:
        one_line(f"{error} ({_kept(output, len(points.runs))})")
        raise typer.Exit(FAILED) from None
    failed = show_grid(output, None, out)
    if failed:
        one_line(f"{failed} of {len(points.runs)} points failed: --retry-failed does them again")
        raise typer.Exit(FAILED)


def _kept(path: Path, total: int) -> str:
    from kernelfield.sweeps.store import points_done

    if not path.exists():
        return "nothing was written"
    return f"{points_done(path)} of {total} points are done: the same command goes on"


def show_grid(path: Path, image: Path | None, out: Output) -> int:
    """Print the points of a sweep that are done, and draw them if there is a name for an image.

    Args:
        path: of the folder.
        image: to write.
        out: where to print.

    Returns:
        How many of them failed.
    """
    from kernelfield import sweeps as grids
    from kernelfield.plotting.grid import draw

    data = grids.read(path)
    failed, figure = grids.failures(data), image and draw(data)
    out.say(grids.table(data))
    if failed:
        out.say(*failed)
    if image is not None:
        from kernelfield.plotting import write_figure

        write_figure(figure, image)
        out.say(f"wrote {image}")
    points = grids.records(data)
    total = int(data["status"].size)
    out.result({"file": str(path), "wrote": image and str(image), "points_in_all": total, "points": points})
    return len(failed)
