"""Commands that estimate, solve and show one thing."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

from typer import Argument, Exit, Option

from kernelfield.cli.app import FAILED, INTERRUPTED, Output, accept_sigterm, app, print_line
from kernelfield.cli.grid import show_grid
from kernelfield.cli.options import AsJson, ConfigPath, DataPath, DrawPath, Quiet, ResultPath, finite_networks
from kernelfield.common.atomic_files import check_folder
from kernelfield.describe.run import Run
from kernelfield.files.config import read
from kernelfield.files.storage import load
from kernelfield.finite.corrections import finite_width_corrections
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.cost import GIB
from kernelfield.march.devices import join
from kernelfield.march.estimate import estimate as estimate_cost
from kernelfield.march.method import March, OnParticles
from kernelfield.plotting import summary, write_figure
from kernelfield.solve import describe, solve_run


@app.command()
def solve(
    config: ConfigPath,
    output: ResultPath,
    method: Annotated[
        str, Option(help="march, static_ntk, gradient_independence, perturbation, deep_linear or alternating.")
    ] = "march",
    checkpoint: Annotated[Path | None, Option(metavar="FOLDER", help="Keep what is done there, for --resume.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    checkpoint_every: Annotated[float, Option(metavar="SECONDS", help="Between two checkpoints.")] = 300.0,
    data: DataPath = None,
    distributed: Annotated[bool, Option("--distributed", help="Share it with other processes of a Slurm job.")] = False,
    coordinator: Annotated[str | None, Option(metavar="HOST:PORT", help="Without Slurm: a port of process 0.")] = None,
    processes: Annotated[int | None, Option(min=1, help="Without Slurm: how many there are.")] = None,
    process: Annotated[int | None, Option(min=0, help="Without Slurm: the number of this one, from 0.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Solve training at infinite width."""
    settings, place = read(config, data), (coordinator, processes, process)
    solver = settings.method(method)
    options: dict[str, Any] = {"checkpoint": checkpoint, "resume": resume, "checkpoint_every": checkpoint_every}
    if distributed or place != (None, None, None):
        if not isinstance(solver, OnParticles):
            raise ValueError(f"--distributed is for methods on particles, march for instance, got {method}")
        options["join_others"] = lambda: join(*place)
    run = describe(settings.network, settings.problem(), settings.training, solver)
    _solve_and_write(run, config, output, Output(quiet, as_json), **options)


@app.command()
def estimate(
    config: ConfigPath,
    method: Annotated[str, Option(help="march, gradient_independence or perturbation.")] = "march",
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how long solve will take and how much memory, before it runs."""
    settings, out = read(config, data), Output(quiet, as_json)
    solver: Any = settings.method(method)  # of any kind: other methods are refused
    cost = estimate_cost(settings.network, settings.problem(), settings.training, solver)
    out.say(
        f"about {format_duration(cost.seconds)} to run and at most {format_duration(cost.seconds_compile)} to compile",
        f"{cost.memory / GIB:.2f} GiB of memory, of {cost.available / GIB:.1f} that are available",
        f"this machine does {cost.gflops:.0f} GFLOP/s of such products",
    )
    out.print_json({**dataclasses.asdict(cost), "fits": cost.fits})
    if not cost.fits:
        print_line("it does not fit into memory" + (f": {cost.advice} would" if cost.advice else ""))
        raise Exit(FAILED)


@app.command()
def train(
    config: ConfigPath,
    output: ResultPath,
    width: Annotated[int | None, Option(help="Neurons of each hidden layer, N.")] = None,
    seeds: Annotated[int | None, Option(help="Networks to train, each from its own start.")] = None,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train networks of finite width."""
    settings = read(config, data)
    networks = finite_networks(settings, width, seeds, config)
    run = describe(settings.network, settings.problem(), settings.training, networks)
    _solve_and_write(run, config, output, Output(quiet, as_json))


@app.command()
def width(
    config: ConfigPath,
    width: Annotated[int | None, Option(min=1, help="N of your network; by default that in section [finite].")] = None,
    pairs: Annotated[int, Option(min=2, help="Pairs of networks for the bias: more for a smaller error bar.")] = 64,
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how far a network is from infinite width, what of it is noise and what is bias, and how wide is enough."""
    settings, out = read(config, data), Output(quiet, as_json)
    width = cast(FiniteWidth, finite_networks(settings, width, None, config)).width
    march = cast(March, settings.method("march"))
    found = finite_width_corrections(settings.network, settings.problem(), settings.training, pairs=pairs, method=march)
    out.say(found.summary(width))
    out.say(found.table(width))
    out.print_json(found.record(width))


@app.command()
def show(
    result: Annotated[Path, Argument(metavar="RESULT", help="File that solve or train wrote, or folder of a sweep.")],
    output: DrawPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Summarize a result: settings, status, loss with error bars, kernels; or the points of a sweep that are done.

    The figure shows loss and kernels.
    """
    if result.is_dir():
        show_grid(result, output, Output(quiet, as_json))
        return
    solution, out = load(result), Output(quiet, as_json)
    out.say(summary.report(solution))
    if output is not None:
        write_figure(summary.draw(solution), output)
        out.say(f"wrote {output}")
    out.print_json({"file": str(result), "wrote": output and str(output), **summary.record(solution)})


def _solve_and_write(
    run: Run, config: Path, output: Path, out: Output, join_others: Callable[[], bool] = lambda: True, **options: Any
) -> None:
    """Solves, writes what was computed, and exits with the status of the run.

    Of several processes, which `join_others` connects, the one that gets True from it writes.
    """
    check_folder(output)
    if output.exists() and output.samefile(config):
        raise ValueError(f"the result would replace the configuration {config}")
    began = time.perf_counter()
    writes, folder = join_others(), options.get("checkpoint")
    out = out if writes else Output(quiet=True, as_json=False)
    with accept_sigterm() if folder else contextlib.nullcontext():
        solution = solve_run(run, throw=False, **options)
    if writes:
        solution.save(output)
    seconds = time.perf_counter() - began
    loss = f"loss {solution.loss[0]:.4g} -> {solution.loss[-1]:.4g}"
    steps = f"{solution.steps_done} of {run.steps} {run.training.unit}s"
    out.say(f"wrote {output}: {loss} in {steps}, {seconds:.1f} s")
    if out.as_json:
        out.print_json({"wrote": str(output), "seconds": seconds, **summary.record(solution)})
    code = solution.status.code
    if code != "ok":
        if writes:
            again = f"; --resume goes on from {folder}" if folder and code == "interrupted" else ""
            print_line(f"{solution.status} ({output} holds the steps that were computed{again})")
        raise Exit(INTERRUPTED if code == "interrupted" else FAILED)


def format_duration(seconds: float) -> str:
    """Returns a time in units that a person can read."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
