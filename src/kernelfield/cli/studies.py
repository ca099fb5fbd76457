"""Commands that set several things side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.cli.app import (
    INTERRUPTED,
    AsJson,
    Output,
    Quiet,
    Stopped,
    app,
    check_image,
    one_line,
    stoppable,
)
from kernelfield.cli.runs import ConfigPath, DataPath, networks

if TYPE_CHECKING:
    from kernelfield.observables.compare import Comparison
    from kernelfield.solution.solution import Solution
    from kernelfield.sweeps.gammas import Point


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.nc", help="Two or more; the last is the reference.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="IMAGE", help="Also draw all of them side by side.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare results with the LAST one given, the reference: relative errors and alignments."""
    from kernelfield.files.storage import load
    from kernelfield.observables.compare import compare as compared
    from kernelfield.plotting import write_figure
    from kernelfield.plotting.comparison import draw

    out = Output(quiet, as_json)
    if output is not None:
        check_image(output)
    files = _named(results)
    solutions = {name: load(file) for name, file in files.items()}
    *others, reference = files
    found = {}
    for name in others:
        try:
            found[name] = compared(solutions[name], solutions[reference])
        except ValueError as error:
            raise ValueError(f"{files[name]} and {files[reference]} cannot be compared: {error}") from None
    if output is not None:
        write_figure(draw(solutions, reference, found), output)
    _print_comparisons(files, solutions, found, out)
    if output is not None:
        out.say(f"wrote {output}")


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Files by stem, or by path if stems are the same."""
    if len(set(files)) < max(2, len(files)):
        raise ValueError(f"give two different results or more, the reference last; got {', '.join(map(str, files))}")
    stems = [file.stem for file in files]
    return dict(zip(stems if len(set(stems)) == len(stems) else map(str, files), files, strict=True))


def _print_comparisons(
    files: dict[str, Path], solutions: dict[str, Solution], found: dict[str, Comparison], out: Output
) -> None:
    from kernelfield.plotting.summary import described

    methods = {name: str(described(solution.method)) for name, solution in solutions.items()}
    about = {name: {"name": name, "file": str(file), "method": methods[name]} for name, file in files.items()}
    *_, reference = files
    compared = [{**about[name], "rows": each.to_records()} for name, each in found.items()]
    out.result({"reference": about[reference], "comparisons": compared})
    for name, each in found.items():
        out.say(f"{name}: {methods[name]}", f"compared with {reference}: {methods[reference]}")
        out.say(each.table())


@app.command("sweep-gamma")
def sweep_gamma(
    config: ConfigPath,
    gamma0: Annotated[str, typer.Option(metavar="A,B,...", help="Values of gamma0, separated by commas.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="IMAGE", help="Figure to write.")],
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="Methods beside march: any of its sections, finite among them.")
    ] = "gradient_independence,perturbation,static_ntk",
    width: Annotated[int | None, typer.Option(help="Also networks of this width (or of section [finite]).")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve by several methods over a range of gamma0: alignment to the full theory and to finite networks."""
    from kernelfield.files.config import read
    from kernelfield.plotting import write_figure
    from kernelfield.plotting.gammas import draw
    from kernelfield.sweeps import gammas as sweep

    check_image(output)
    described, gammas = read(config, data), numbers("--gamma0", gamma0)
    chosen = {name: described.method(name) for name in ("march", *_words(methods)) if name != "finite"}
    if width is not None or seeds is not None or "finite" in described.methods or "finite" in _words(methods):
        chosen["finite"] = networks(described, width, seeds, config)
    references = [name for name in ("march", "finite") if name in chosen]
    points, stopped, out = [], False, Output(quiet, as_json)
    try:
        for point in sweep.sweep_gamma(
            described.network, described.problem(), described.training, chosen, gammas, references
        ):
            points.append(point)
            out.note(f"gamma0 = {point.gamma0:g} done, {len(points)} of {len(gammas)}")
    except KeyboardInterrupt:
        stopped = True
    if not points:
        raise Stopped("interrupted: nothing was written")
    write_figure(draw(points), output)
    out.result(sweep.records(points))
    out.say(_alignments(points))
    out.say(f"wrote {output}")
    if stopped:
        one_line(f"interrupted ({output} shows {len(points)} of {len(gammas)} values of gamma0)")
        raise typer.Exit(INTERRUPTED)


def _alignments(points: Sequence[Point]) -> Table:
    """Alignment of the tangent kernel, or of predictions, over all times with each reference, against gamma0."""
    tracked = all(
        any(row.name == "NTK" for row in each.rows) for point in points for each in point.comparisons.values()
    )
    quantity, name = ("NTK", "the NTK") if tracked else ("predictions", "predictions")
    about = f"alignment of {name} over all of training"
    out = Table(box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")
    out.add_column("reference")
    out.add_column("method")
    for point in points:
        out.add_column(f"gamma0 = {point.gamma0:g}", justify="right")
    for reference, name in points[0].comparisons:
        rows = [point.comparisons[reference, name].row(quantity) for point in points]
        out.add_row(reference, name, *(f"{row.alignment:.5f}" for row in rows))
    return out


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(option: str, text: str, zero: bool = False) -> list[float]:
    """Positive numbers, separated by commas, or zero if that is allowed."""
    try:
        found = [float(word) for word in _words(text)]
    except ValueError:
        found = []
    if not found or not all(0 < number < float("inf") or (zero and number == 0) for number in found):
        kind = "numbers that are not negative," if zero else "positive numbers"
        raise ValueError(f"{option} must be {kind} separated by commas, got '{text}'")
    return found


@app.command()
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="1, 2, 3, 4, relu, whitened, depth; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write them; made if missing.")] = Path(
        "figures"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller runs.")] = False,
    cifar: Annotated[
        Path | None,
        typer.Option("--cifar", metavar="FOLDER", help="CIFAR-10's own files, for figures 1 and 4 instead of digits."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make figures of the paper, each from its own settings."""
    from kernelfield.common.settings import suggestion
    from kernelfield.figures import FIGURES, OF_IMAGES, Settings
    from kernelfield.plotting import write_figure

    chosen, settings = names or list(FIGURES), Settings(quick, cifar)
    for name in chosen:
        if name not in FIGURES:
            raise ValueError(f"figure '{name}' is unknown{suggestion(name, list(FIGURES))}")
    if cifar is not None:
        if not set(chosen) & set(OF_IMAGES):
            raise ValueError(f"--cifar is for figures {' and '.join(OF_IMAGES)}, got {', '.join(chosen)}")
        settings.images(points=2)  # what is wrong with the files is said before any run
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder")
    out.mkdir(parents=True, exist_ok=True)
    output, written = Output(quiet, as_json), []
    with stoppable("interrupted: figures that were done are kept"):
        for name in chosen:
            for stem, figure in FIGURES[name](settings, output.say):
                write_figure(figure, out / f"{stem}.png")
                written.append(str(out / f"{stem}.png"))
                output.say(f"wrote {written[-1]}")
    output.result({"wrote": written})
