"""Commands that set several results or figures side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from kernelfield.cli.app import INTERRUPTED, Output, accept_sigterm, app, print_line
from kernelfield.cli.options import AsJson, DataPath, DrawPath, Quick, Quiet, check_image, name_files
from kernelfield.common.settings import look_up
from kernelfield.files.config import read
from kernelfield.files.storage import load
from kernelfield.observables.compare import compare as compare_solutions
from kernelfield.plotting import write_figure
from kernelfield.plotting.summary import format_settings

DEMO, FIGURES = Path("kernelfield-demo.png"), Path("figures")


@app.command()
def demo(
    quick: Quick = False,
    out: Annotated[Path, Option("--out", metavar="IMAGE", help="Figure to write.", callback=check_image)] = DEMO,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Learn two classes of digits, lazily and richly, at infinite and at growing finite width."""
    from kernelfield.figures import demo as demonstration

    output, began = Output(quiet, as_json), time.perf_counter()
    plan = demonstration.QUICK if quick else demonstration.FULL
    results = demonstration.run(plan, output.say)
    write_figure(demonstration.draw(results), out)
    seconds = time.perf_counter() - began
    output.say(demonstration.table(results))
    output.say(f"wrote {out} ({seconds:.0f} s in all)")
    output.print_json({"wrote": str(out), "seconds": seconds, "runs": demonstration.records(results)})


@app.command()
def compare(
    results: Annotated[list[Path], Argument(metavar="RESULT.nc", help="Two or more; the last is the reference.")],
    output: DrawPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare results with the LAST one given, the reference: relative errors and alignments.

    The figure shows all of them side by side.
    """
    from kernelfield.plotting.comparison import draw

    out = Output(quiet, as_json)
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
    methods = {name: format_settings(solution.method) for name, solution in solutions.items()}
    for name, comparison in comparisons.items():
        out.say(f"{name}: {methods[name]}", f"compared with {reference}: {methods[reference]}")
        out.say(comparison.table())
    if output is not None:
        out.say(f"wrote {output}")
    sources = {name: {"name": name, "file": str(file), "method": methods[name]} for name, file in files.items()}
    documents = [{**sources[name], "rows": comparison.to_records()} for name, comparison in comparisons.items()]
    out.print_json({"reference": sources[reference], "comparisons": documents})


@app.command()
def report(
    results: Annotated[list[Path], Argument(metavar="RESULT.nc", help="The main result, and any to compare with it.")],
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
    solutions = {name: load(file) for name, file in files.items()}
    versions = {name: file_versions(file) for name, file in files.items()}
    pages.write(output, solutions, title, versions, {name: str(file) for name, file in files.items()})
    out.print_json({"wrote": str(output), "bytes": output.stat().st_size, "results": list(files)})
    out.say(f"wrote {output}")


@app.command()
def explore(
    config: Annotated[
        Path | None, Argument(metavar="CONFIG.toml", help="The run to begin with; digits and an MLP by default.")
    ] = None,
    data: DataPath = None,
    static: Annotated[
        Path | None, Option(metavar="PAGE.html", help="Write a page without a server instead, solved before.")
    ] = None,
    port: Annotated[int, Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)] = 5006,
    browser: Annotated[bool, Option(help="Open the page in a browser.")] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Play with infinite width on a page in the browser: it is solved again as you drag a slider.

    Feature-learning strength, depth, learning rate, activation and data; finite networks train beside it.
    """
    from kernelfield.explore.live import serve
    from kernelfield.explore.question import default_question, question_of
    from kernelfield.explore.static import write
    from kernelfield.report import check_path

    def announce(address: str) -> None:
        out.say(f"{address} shows the page; Ctrl-C ends it")
        out.print_json({"address": address})

    out = Output(quiet, as_json)
    if static is not None:
        check_path(static)
    question = default_question() if config is None else question_of(read(config, data))
    if static is None:
        with accept_sigterm():
            serve(question, port, browser, announce, progress=not quiet)
        out.say("ended")
    else:
        write(static, question, progress=not quiet)
        out.say(f"wrote {static}")
        out.print_json({"wrote": str(static)})


@app.command()
def width_report(
    own: Annotated[Path, Argument(metavar="RUN.nc", help="Networks of finite width: recorded, or trained by train.")],
    output: Annotated[Path, Option("--output", "-o", metavar="PAGE.html", help="Page to write.")],
    infinite: Annotated[
        Path | None, Option(metavar="RESULT.nc", help="The same run at infinite width; solved if it is not given.")
    ] = None,
    corrections: Annotated[
        bool | None, Option(help="Find noise and bias to order 1/N; by default where it takes about a minute.")
    ] = None,
    title: Annotated[str | None, Option(help="Title of the page.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how far networks that trained are from infinite width, which layer departs, and what more width would buy.

    The page holds everything that it shows, and loads nothing.
    """
    from kernelfield import report as pages
    from kernelfield.report.width import width_report as measure

    out = Output(quiet, as_json)
    pages.check_path(output)
    result = measure(load(own), None if infinite is None else load(infinite), corrections, progress=not quiet)
    result.write(output, title)
    out.say(*result.sentences, f"wrote {output}")
    out.print_json({"wrote": str(output), **result.numbers})


@app.command()
def figures(
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="[NAME]...",
            help="1, 2, 3, 4, relu, whitened, depth, transformer, width, rules, transfer, scaling; all by default.",
        ),
    ] = None,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="Where to write them; made if missing.")] = FIGURES,
    quick: Quick = False,
    cifar: Annotated[Path | None, Option(metavar="FOLDER", help="CIFAR-10 instead of digits, for 1 and 4.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make figures of the paper, each from its own settings."""
    from kernelfield import figures as paper

    chosen, settings = names or list(paper.FIGURES), paper.Settings(quick, cifar)
    for name in chosen:
        look_up("figure", name, paper.FIGURES)  # raises for an unknown one
    if cifar is not None:
        if not set(chosen) & set(paper.OF_IMAGES):
            raise ValueError(f"--cifar is for figures {' and '.join(paper.OF_IMAGES)}, got {', '.join(chosen)}")
        settings.images(points=2)  # so that an error in the files comes before any run
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder")
    out.mkdir(parents=True, exist_ok=True)
    output, paths = Output(quiet, as_json), []
    try:
        for name in chosen:
            for stem, figure in paper.FIGURES[name](settings, output.say):
                path = out / f"{stem}.png"
                write_figure(figure, path)
                paths.append(str(path))
                output.say(f"wrote {path}")
    except KeyboardInterrupt:
        print_line("interrupted: figures that were done are kept")
        raise Exit(INTERRUPTED) from None
    output.print_json({"wrote": paths})
