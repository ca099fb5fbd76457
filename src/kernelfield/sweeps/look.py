"""The points of a grid as a table, and for scripts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from kernelfield.sweeps.variables import VARIABLES

if TYPE_CHECKING:
    import xarray

_COLUMNS = {  # of those that a sweep has: the variable, and its heading
    "final_loss": "loss",
    "final_test_loss": "test loss",
    "Phi_alignment": "alignment",
    "seconds_run": "seconds",
}


def keys_of(data: xarray.Dataset) -> list[str]:
    """The keys of a grid, the first one varying slowest.

    Args:
        data: of a sweep.
    """
    return [str(name) for name in data["status"].dims]


def points_of(data: xarray.Dataset) -> list[xarray.Dataset]:
    """Every point that is done.

    Args:
        data: of a sweep.

    Returns:
        Datasets without the dimensions of the grid, their keys as scalar coordinates.
    """
    keys = keys_of(data)
    places = itertools.product(*(range(data.sizes[key]) for key in keys))
    every = (data.isel(dict(zip(keys, place, strict=True))) for place in places)
    return [point for point in every if point["status"].item()]


def shown(value: Any) -> str:
    """The value of a key, as it is printed.

    Args:
        value: of a coordinate.
    """
    held = value.item() if hasattr(value, "item") else value
    return f"{held:g}" if isinstance(held, float) else str(held)


def where(point: xarray.Dataset, keys: list[str]) -> str:
    """A point by its keys, as "gamma0 = 0.1, depth = 2".

    Args:
        point: of a sweep.
        keys: of the grid.
    """
    return ", ".join(f"{key} = {shown(point[key].values)}" for key in keys)


def table(data: xarray.Dataset) -> Table:
    """One row for each point that is done: its status, loss, alignment of the last hidden layer, and seconds.

    Args:
        data: of a sweep.

    Returns:
        rich Table, to print.
    """
    keys, points = keys_of(data), points_of(data)
    known = [name for name in _COLUMNS if name in data and bool(np.isfinite(data[name]).any())]
    about = f"{len(points)} of {data['status'].size} points are done; alignment of the last feature kernel with y y^T"
    out = Table(box=SIMPLE, pad_edge=False, caption=about, caption_justify="left")
    for name in (*keys, "status", *(_COLUMNS[name] for name in known)):
        out.add_column(name, justify="left" if name == "status" else "right")
    for point in points:
        cells = [shown(point[key].values) for key in keys]
        out.add_row(*cells, str(point["status"].item()), *(_cell(point, name) for name in known))
    return out


def _cell(point: xarray.Dataset, name: str) -> str:
    mean, se = (float(last_layer(point[each])) if each in point else np.nan for each in (name, f"{name}_se"))
    if not np.isfinite(mean):
        return "-"
    if name.startswith("seconds"):
        return f"{mean:.1f}"
    digits = ".4g" if name.endswith("loss") else ".3f"
    return f"{mean:{digits}} ± {se:.1g}" if np.isfinite(se) else f"{mean:{digits}}"


def last_layer(values: xarray.DataArray) -> np.ndarray:
    """Values without an axis of layers: those of the last layer there is.

    Args:
        values: with layers or without.
    """
    if "layer" not in values.dims:
        return values.values
    by_layer = values.transpose("layer", ...).values
    count = np.isfinite(by_layer).sum(axis=0)
    return np.take_along_axis(by_layer, np.maximum(count - 1, 0)[None], axis=0)[0]


def failures(data: xarray.Dataset) -> list[str]:
    """Why points failed, a line for each.

    Args:
        data: of a sweep.

    Returns:
        Lines as "gamma0 = 3: diverged: ...".
    """
    keys = keys_of(data)
    failed = [point for point in points_of(data) if point["status"].item() != "ok"]
    return [f"{where(point, keys)}: {point['status'].item()}: {point['message'].item()}" for point in failed]


def records(data: xarray.Dataset) -> list[dict[str, Any]]:
    """Every point that is done, as values that JSON can hold.

    Args:
        data: of a sweep.

    Returns:
        One dictionary for each point: its keys, and variables that are numbers or texts, or have one value for each
        layer; None where there is no value.
    """
    names = [name for name, variable in VARIABLES.items() if set(variable.dims) <= {"layer"} and name != "finished"]
    return [
        {
            **{key: point[key].values.tolist() for key in keys_of(data)},
            **{name: _plain(point[name].values) for name in names},
            "finished": str(point["finished"].values),
        }
        for point in points_of(data)
    ]


def _plain(values: np.ndarray) -> Any:
    if values.dtype.kind != "f":
        return str(values)
    return np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()
