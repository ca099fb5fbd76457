"""The points of a sweep that are done: as a table to print, and as records for scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.sweeps.axes import format_value
from kernelfield.sweeps.variables import VARIABLES

_COLUMNS = {  # variables of the table with their headings and formats
    "final_loss": ("loss", ".4g"),
    "final_test_loss": ("test loss", ".4g"),
    "Phi_alignment": ("alignment", ".3f"),
    "seconds_run": ("seconds", ".1f"),
}


def grid_keys(data: xarray.Dataset) -> list[str]:
    """Returns the keys of the grid of a sweep, the first one varying slowest."""
    return [str(name) for name in data["status"].dims]


def select_points(data: xarray.Dataset) -> list[xarray.Dataset]:
    """Returns a dataset for every point that is done, with the keys of the grid as scalar coordinates."""
    keys = grid_keys(data)
    points = (data.isel(dict(zip(keys, place, strict=True))) for place in np.ndindex(data["status"].shape))
    return [point for point in points if point["status"].item()]


def table(data: xarray.Dataset) -> Table:
    """Returns a table of the points that are done: status, loss, alignment of the last hidden layer, and seconds."""
    keys, points = grid_keys(data), select_points(data)
    names = [name for name in _COLUMNS if bool(np.isfinite(data[name]).any())]
    about = f"{len(points)} of {data['status'].size} points are done; alignment of the last feature kernel with y y^T"
    out = Table(box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")
    for name in (*keys, "status", *(_COLUMNS[name][0] for name in names)):
        out.add_column(name, justify="left" if name == "status" else "right")
    for point in points:
        cells = [format_value(point[key].values) for key in keys]
        out.add_row(*cells, str(point["status"].item()), *(_cell(point, name) for name in names))
    return out


def _cell(point: xarray.Dataset, name: str) -> str:
    """Returns a variable of a point with its standard error, as text."""
    columns, form = (name, f"{name}_se"), _COLUMNS[name][1]
    mean, se = (float(take_last_layer(point[column])) if column in point else np.nan for column in columns)
    if not np.isfinite(mean):
        return "-"
    return f"{mean:{form}} ± {se:.1g}" if np.isfinite(se) else f"{mean:{form}}"


def take_last_layer(values: xarray.DataArray) -> np.ndarray:
    """Returns the values of the last layer that has any, without the axis of layers if there is one."""
    if "layer" in values.dims:
        values = values.isel(layer=values.notnull().sum("layer") - 1)
    return values.values


def failures(data: xarray.Dataset) -> list[str]:
    """Returns a line about each point that failed, as "gamma0 = 3: diverged: ..."."""
    lines = []
    for point in select_points(data):
        status, message = point["status"].item(), point["message"].item()
        if status != "ok":
            label = ", ".join(f"{key} = {format_value(point[key].values)}" for key in grid_keys(data))
            lines.append(f"{label}: {status}: {message}")
    return lines


def records(data: xarray.Dataset) -> list[dict[str, Any]]:
    """Returns the keys and variables of every point that is done, as JSON can hold them.

    Variables are texts, numbers or a list with a number for each layer; None stands for a missing number.
    """
    names = [name for name, variable in VARIABLES.items() if set(variable.dims) <= {"layer"} and name != "finished"]
    return [
        {
            **{key: point[key].values.tolist() for key in grid_keys(data)},
            **{name: _plain(point[name].values) for name in names},
            "finished": str(point["finished"].values),
        }
        for point in select_points(data)
    ]


def _plain(values: np.ndarray) -> Any:
    """Returns values as JSON can hold them: a text, or numbers with None for those that are not finite."""
    if values.dtype.kind != "f":
        return str(values)
    return np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()
