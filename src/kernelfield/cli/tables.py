"""Commands that learn from tables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.cli.app import AsJson, Output, Quiet, app, stoppable
from kernelfield.cli.studies import numbers

if TYPE_CHECKING:
    from kernelfield.estimators.fitting import Fitted


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(metavar="DATA.csv", help="A table with a header; texts are categories.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="What is to be predicted.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.nc", help="NetCDF file to write.")],
    task: Annotated[
        str | None, typer.Option(help="regression or classification; by default of numbers and of anything else.")
    ] = None,
    gamma0: Annotated[
        str, typer.Option(metavar="A,B,...", help="Feature-learning strengths to choose among; 0 is the NTK.")
    ] = "0,0.3,1,3",
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 2,
    activation: Annotated[str, typer.Option(help="Of the network.")] = "erf",
    max_steps: Annotated[int, typer.Option(min=1, help="Steps of training, at most.")] = 200,
    points: Annotated[int, typer.Option(min=10, help="Rows that train, at most; time grows with their cube.")] = 300,
    width: Annotated[int, typer.Option(min=1, help="Of the finite network beside it.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of splits and samples.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train an infinitely wide network on a table, and test it beside other predictors on a fifth of the rows."""
    from kernelfield.estimators import fitting
    from kernelfield.estimators.tables import Task, read_table
    from kernelfield.files.storage import check_folder

    check_folder(output)
    if task not in (None, "regression", "classification"):
        raise ValueError(f"--task must be regression or classification, got '{task}'")
    gammas, out, began = numbers("--gamma0", gamma0, zero=True), Output(quiet, as_json), time.perf_counter()
    table = read_table(data)
    with stoppable():
        found = fitting.fit(
            table,
            target,
            cast(Task | None, task),
            gammas=gammas,
            depth=depth,
            activation=activation,
            max_steps=max_steps,
            points=points,
            width=width,
            seed=seed,
            say=out.note,
        )
    found.solution().save(output, predictor=True)
    seconds = time.perf_counter() - began
    out.say(*_chosen(found), _scores(found))
    out.say(f"wrote {output}: trained on {found.rows[0]} rows, tested on {found.rows[1]}, {seconds:.0f} s")
    out.result({"wrote": str(output), "seconds": seconds, **_record(found)})


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.nc", help="File that fit wrote.")],
    data: Annotated[Path, typer.Argument(metavar="NEW.csv", help="A table with the columns of training.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.csv", help="Table to write.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Predict for new rows of a table by a model that fit wrote: their columns, and the predictions."""
    from kernelfield.common.atomic_files import whole_file
    from kernelfield.estimators import fitting
    from kernelfield.estimators.tables import read_table
    from kernelfield.files.storage import check_folder, load

    check_folder(output)
    for given in (model, data):
        if output.exists() and given.exists() and output.samefile(given):
            raise ValueError(f"the predictions would replace {given}")
    table, solution = read_table(data), load(model)
    try:
        with stoppable():
            found = fitting.predicted(solution, table)
    except ValueError as error:
        raise ValueError(f"{data} cannot be predicted by {model}: {error}") from None
    with whole_file(output) as beside:
        found.to_csv(beside, index=False)
    Output(quiet, as_json).say(f"wrote {output}: {len(found)} rows")
    Output(quiet, as_json).result({"wrote": str(output), "rows": len(found)})


def _record(found: Fitted) -> dict[str, Any]:
    """For scripts."""
    scores = {each.name: {found.metric: each.value, "standard_error": each.error} for each in found.scores}
    chosen = {"gamma0": found.model.gamma0_, "steps": found.model.n_iter_, "cautions": found.cautions}
    return {"rows": list(found.rows), **chosen, "scores": scores}


def _chosen(found: Fitted) -> list[str | Table]:
    """Validation losses of every gamma0, the one that was taken, and cautions."""
    table = Table(box=SIMPLE, pad_edge=False, caption="loss on the validation split", caption_justify="left")
    table.add_column("gamma0", justify="right")
    table.add_column("least loss", justify="right")
    table.add_column("at step", justify="right")
    for gamma0, losses in found.model.validation_losses_.items():
        taken = " <" if gamma0 == found.model.gamma0_ else ""
        table.add_row(f"{gamma0:g}", f"{losses.min():.4g}", f"{losses.argmin()}{taken}")
    return [table, *(f"caution: {each}" for each in found.cautions)]


def _scores(found: Fitted) -> Table:
    """Test scores of every predictor."""
    table = Table(
        box=SIMPLE,
        pad_edge=False,
        caption="on test rows, with standard errors",
        caption_justify="left",
    )
    table.add_column("predictor")
    table.add_column(found.metric, justify="right")
    for each in found.scores:
        table.add_row(each.name, f"{each.value:.3f} ± {each.error:.3f}")
    return table
