"""The command that says what a solve will take."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from kernelfield.cli.app import FAILED, AsJson, Output, Quiet, app, one_line, stoppable
from kernelfield.cli.runs import ConfigPath, DataPath


@app.command()
def estimate(
    config: ConfigPath,
    method: Annotated[str, typer.Option(help="march, gradient_independence or perturbation.")] = "march",
    data: DataPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how long solve will take and how much memory, before it runs."""
    import kernelfield
    from kernelfield.files.config import read
    from kernelfield.march.memory import GIB

    described, out = read(config, data), Output(quiet, as_json)
    with stoppable():
        cost = kernelfield.estimate(
            described.network, described.problem(), described.training, described.method(method)
        )
    out.say(
        f"about {duration(cost.seconds)} to run and at most {duration(cost.seconds_compile)} to compile",
        f"{cost.memory / GIB:.2f} GiB of memory, of {cost.available / GIB:.1f} that are available",
        f"this machine does {cost.gflops:.0f} GFLOP/s of such products",
    )
    out.result({**dataclasses.asdict(cost), "fits": cost.fits})
    if not cost.fits:
        one_line("it does not fit into memory" + (f": {cost.advice} would" if cost.advice else ""))
        raise typer.Exit(FAILED)


def duration(seconds: float) -> str:
    """A time that a person can read."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
