"""Commands that learn from tables."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from rich.table import Table
from typer import Argument, Option

from kernelfield.cli.app import Output, app
from kernelfield.cli.options import AsJson, Quiet, parse_numbers, split_words
from kernelfield.common.atomic_files import check_folder, whole_file
from kernelfield.datasets.columns import Task
from kernelfield.datasets.tables import read_table
from kernelfield.files.storage import load
from kernelfield.plotting.summary import new_table

if TYPE_CHECKING:
    from kernelfield.estimators.fitting import Fit


Separator = Annotated[
    str | None, Option(metavar="CHARACTER", help="Between values, or tab or space; recognized by default.")
]
Encoding = Annotated[str | None, Option(metavar="NAME", help="Of the table, latin-1 for instance; UTF-8 by default.")]
KeepNA = Annotated[bool, Option("--keep-na", help='"NA", "null" and the like are texts, not missing values.')]


@app.command()
def fit(
    data: Annotated[Path, Argument(metavar="DATA.csv", help="A table with a header; texts are categories.")],
    target: Annotated[str, Option(metavar="COLUMN", help="What is to be predicted.")],
    output: Annotated[Path, Option("--output", "-o", metavar="MODEL.nc", help="NetCDF file to write.")],
    task: Annotated[
        str | None, Option(help="regression or classification; by default of numbers and of anything else.")
    ] = None,
    inputs: Annotated[
        str | None,
        Option(metavar="A,B,...", help="Columns of inputs; all that do not only number the rows by default."),
    ] = None,
    gamma0: Annotated[
        str, Option(metavar="A,B,...", help="Feature-learning strengths to choose among; 0 is the NTK.")
    ] = "0,0.3,1,3",
    depth: Annotated[int, Option(min=1, help="Hidden layers.")] = 2,
    activation: Annotated[str, Option(help="Of the network.")] = "erf",
    max_steps: Annotated[int, Option(min=1, help="Steps of training, at most, where every step takes all rows.")] = 200,
    max_epochs: Annotated[int, Option(min=1, help="Epochs of training in batches, at most.")] = 20,
    batch_size: Annotated[
        int | None, Option(min=1, help="Rows of an update; all of up to 300, and 128 of more by default.")
    ] = None,
    points: Annotated[int | None, Option(min=10, help="Rows that train, at most; four fifths by default.")] = None,
    width: Annotated[int, Option(min=1, help="Of the finite network beside it.")] = 512,
    seed: Annotated[int, Option(min=0, help="Of splits and samples.")] = 0,
    separator: Separator = None,
    encoding: Encoding = None,
    keep_na: KeepNA = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train an infinitely wide network on a table, and test it beside other predictors on a fifth of the rows."""
    from kernelfield.estimators import fitting

    check_folder(output)
    if task not in (None, "regression", "classification"):
        raise ValueError(f"--task must be regression or classification, got '{task}'")
    gammas, out, began = parse_numbers("--gamma0", gamma0, zero=True), Output(quiet, as_json), time.perf_counter()
    table = read_table(data, separator=separator, encoding=encoding, keep_na=keep_na)
    result = fitting.fit(
        table,
        target,
        cast(Task | None, task),
        inputs=split_words(inputs) if inputs else None,
        gammas=gammas,
        depth=depth,
        activation=activation,
        max_steps=max_steps,
        max_epochs=max_epochs,
        batch_size=batch_size or "auto",
        points=points,
        width=width,
        seed=seed,
        say=out.note,
    )
    result.solution().save(output, predictor=True)
    seconds = time.perf_counter() - began
    for caution in result.cautions:
        out.say(f"caution: {caution}")
    out.say("choice of gamma0, the strength of feature learning (0 is the NTK), by rows that do not train:")
    out.say(_loss_table(result))
    out.say(f"{result.metric} on {result.rows[1]} rows that were left out of it all, ± standard error:")
    out.say(_score_table(result))
    out.say(f"wrote {output}: trained on {result.rows[0]} rows, tested on {result.rows[1]}, {seconds:.0f} s")
    out.print_json({"wrote": str(output), "seconds": seconds, **_record(result)})


@app.command()
def predict(
    model: Annotated[Path, Argument(metavar="MODEL.nc", help="File that fit wrote.")],
    data: Annotated[Path, Argument(metavar="NEW.csv", help="A table with the columns of training.")],
    output: Annotated[Path, Option("--output", "-o", metavar="OUT.csv", help="Table to write.")],
    separator: Separator = None,
    encoding: Encoding = None,
    keep_na: KeepNA = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Predict for new rows of a table by a model that fit wrote: their columns, and the predictions."""
    from kernelfield.estimators import fitting

    check_folder(output)
    for path in (model, data):
        if output.exists() and path.exists() and output.samefile(path):
            raise ValueError(f"the predictions would replace {path}")
    table, solution = read_table(data, separator=separator, encoding=encoding, keep_na=keep_na), load(model)
    try:
        predictions = fitting.predict(solution, table)
    except ValueError as error:
        raise ValueError(f"{data} cannot be predicted by {model}: {error}") from None
    with whole_file(output) as temporary:
        predictions.to_csv(temporary, index=False)
    out = Output(quiet, as_json)
    out.say(f"wrote {output}: {len(predictions)} rows")
    out.print_json({"wrote": str(output), "rows": len(predictions)})


def _record(fit: Fit) -> dict[str, Any]:
    """Returns the model that was chosen and all test scores, as JSON can hold them."""
    scores = {
        score.name: {fit.metric: _finite(score.value), "standard_error": _finite(score.error)} for score in fit.scores
    }
    choice = {"gamma0": fit.model.gamma0_, "steps": fit.model.n_iter_, "cautions": fit.cautions}
    return {"rows": list(fit.rows), **choice, "scores": scores}


def _finite(value: float) -> float | None:
    """Returns a number as JSON can hold it: None if it is not defined."""
    return None if math.isnan(value) else value


def _loss_table(fit: Fit) -> Table:
    """Returns the least validation loss of every gamma0, with a word at the one that was chosen."""
    table = new_table(None, [], ["gamma0", "least loss", "at step or epoch", ""])
    for gamma0, losses in fit.model.validation_losses_.items():
        word = "chosen" if gamma0 == fit.model.gamma0_ else ""
        table.add_row(f"{gamma0:g}", f"{losses.min():.4g}", f"{losses.argmin()}", word)
    return table


def _score_table(fit: Fit) -> Table:
    """Returns the test scores of every predictor."""
    table = new_table(None, ["predictor"], [fit.metric])
    for score in fit.scores:
        table.add_row(
            score.name, "not defined" if math.isnan(score.value) else f"{score.value:.3f} ± {score.error:.3f}"
        )
    return table
