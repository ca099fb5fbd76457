"""Commands that solve one thing, and look at it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernelfield.cli.app import (
    FAILED,
    INTERRUPTED,
    AsJson,
    Output,
    Quiet,
    app,
    check_image,
    one_line,
    stoppable,
    unattended,
)

if TYPE_CHECKING:
    from kernelfield.files.config import Config
    from kernelfield.solution.solution import Solution

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to run; see examples/digits.toml.")]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="CIFAR-10's or MNIST's own files, instead of folder in [data]."),
]
ResultPath = Annotated[Path, typer.Option("--output", "-o", metavar="RESULT.nc", help="NetCDF file to write.")]


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller runs.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="IMAGE", help="Figure to write.")] = Path(
        "kernelfield-demo.png"
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Learn two classes of digits, lazily and richly, at infinite and at growing finite width."""
    from kernelfield.figures import demo as demonstration
    from kernelfield.plotting import write_figure

    check_image(out)
    output, began = Output(quiet, as_json), time.perf_counter()
    plan = demonstration.QUICK if quick else demonstration.FULL
    with stoppable():
        results = demonstration.run(plan, output.say)
        write_figure(demonstration.draw(results), out)
    seconds = time.perf_counter() - began
    output.say(demonstration.table(results))
    output.say(f"wrote {out} ({seconds:.0f} s in all)")
    output.result({"wrote": str(out), "seconds": seconds, "runs": demonstration.records(results)})


@app.command()
def solve(
    config: ConfigPath,
    output: ResultPath,
    method: Annotated[
        str, typer.Option(help="march, static_ntk, gradient_independence, perturbation, deep_linear or alternating.")
    ] = "march",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep what is done there, to go on from with --resume.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint; from the beginning if there is none.")
    ] = False,
    checkpoint_every: Annotated[float, typer.Option(metavar="SECONDS", help="Between two checkpoints.")] = 300.0,
    data: DataPath = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Share the solve with the other processes of a Slurm job.")
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Share it without Slurm: a free port of process 0.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Without Slurm: how many there are.")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Without Slurm: the number of this one, from 0.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve training at infinite width."""
    from kernelfield.files.config import read
    from kernelfield.march.devices import join
    from kernelfield.march.method import OnParticles

    described = read(config, data)
    chosen, place = described.method(method), (coordinator, processes, process)
    alone = not distributed and place == (None, None, None)
    if not alone and not isinstance(chosen, OnParticles):
        raise ValueError(f"--distributed is for methods on particles, march for instance, got {method}")
    kept = {"checkpoint": checkpoint, "resume": resume, "checkpoint_every": checkpoint_every}
    out = Output(quiet, as_json)
    _run(described, chosen, config, output, out, None if alone else lambda: join(*place), **kept)


@app.command()
def train(
    config: ConfigPath,
    output: ResultPath,
    width: Annotated[int | None, typer.Option(help="Neurons of each hidden layer, N.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks to train, each from its own start.")] = None,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train networks of finite width."""
    from kernelfield.files.config import read

    described = read(config, data)
    _run(described, networks(described, width, seeds, config), config, output, Output(quiet, as_json))


def networks(described: Config, width: int | None, seeds: int | None, config: Path) -> Any:
    """Finite networks as the file describes them, with what the command line says instead."""
    if width is None and "finite" not in described.methods:
        raise ValueError(f"give --width, or width in section [finite] of {config}")
    given = {name: number for name, number in (("width", width), ("seeds", seeds)) if number is not None}
    return described.method("finite", **given)


@app.command()
def show(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="File that solve or train wrote, or folder of a sweep.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="IMAGE", help="Also draw loss and kernels.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Summarize a result: settings, status, loss with error bars, kernels; or the points of a sweep that are done."""
    from kernelfield.files.storage import load
    from kernelfield.plotting import summary

    if output is not None:
        check_image(output)
    if result.is_dir():
        from kernelfield.cli.grid import show_grid

        show_grid(result, output, Output(quiet, as_json))
        return
    solution, out = load(result), Output(quiet, as_json)
    out.say(summary.report(solution))
    if output is not None:
        from kernelfield.plotting import write_figure

        write_figure(summary.draw(solution), output)
        out.say(f"wrote {output}")
    out.result({"file": str(result), "wrote": output and str(output), **summary.record(solution)})


def _run(
    described: Config,
    method: Any,
    config: Path,
    output: Path,
    out: Output,
    join: Callable[[], bool] | None = None,
    **kept: Any,
) -> None:
    """Solve, write what was computed, and exit with the status of the run; of several processes one writes."""
    import kernelfield
    from kernelfield.files.storage import check_folder

    check_folder(output)
    if output.exists() and output.samefile(config):
        raise ValueError(f"the result would replace the configuration {config}")
    began = time.perf_counter()
    problem = described.problem()
    first, folder = join is None or join(), kept.get("checkpoint")
    out = out if first else Output(quiet=True, as_json=False)
    with stoppable(), unattended() if folder else contextlib.nullcontext():
        solution = kernelfield.solve(described.network, problem, described.training, method, throw=False, **kept)
    if first:
        solution.save(output)
    seconds = time.perf_counter() - began
    out.say(f"wrote {output}: {_in_short(solution)}, {seconds:.1f} s")
    if out.as_json:
        from kernelfield.plotting.summary import record

        out.result({"wrote": str(output), "seconds": seconds, **record(solution)})
    if solution.status.code != "ok":
        if first:
            again = f"; --resume goes on from {folder}" if folder and solution.status.code == "interrupted" else ""
            one_line(f"{solution.status} ({output} holds the steps that were computed{again})")
        raise typer.Exit(INTERRUPTED if solution.status.code == "interrupted" else FAILED)


def _in_short(solution: Solution) -> str:
    loss = f"loss {solution.loss[0]:.4g} -> {solution.loss[-1]:.4g}"
    return f"{loss} in {solution.steps_done} of {solution.training.steps} {solution.training.unit}s"
