"""Settings, status and versions of a Solution, as the attributes of a file hold them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from kernelfield.common.settings import Spec, spec_class
from kernelfield.describe.losses import LOSSES
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.layers import Sequential
from kernelfield.solution.solution import Solution

FORMAT, SCHEMA = "kernelfield.Solution", 7
RETIRED = ("feature_tol", "gradient_tol", "save_at")  # settings that methods on particles had once


def attributes(solution: Solution) -> dict[str, Any]:
    """Returns settings, status and versions, as attributes of a file can hold them.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be stored.
    """
    parts = {"network": solution.network, "training": solution.training, "method": solution.method}
    libraries = {f"{name}_version": _version(name) for name in ("kernelfield", "jax", "numpy")}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "settings": json.dumps({name: settings_json(spec) for name, spec in parts.items()}),
        "loss": loss_name(solution.problem),
        "seed": getattr(solution.method, "seed", -1),
        "exact": json.dumps(bool(solution.exact)),
        "status": solution.status.code,
        "status_message": solution.status.message,
        "info": json.dumps(dict(solution.info), default=_plain),
        **libraries,
    }


def _version(name: str) -> str:
    with contextlib.suppress(Exception):
        return version(name)
    return "unknown"


def _plain(value: Any) -> Any:
    """NumPy values and mappings as JSON can hold them."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"info holds a {type(value).__name__}, which cannot be stored")


def settings_json(spec: Spec) -> dict[str, Any]:
    """Returns {"class": name, **values} of a network, training rule or method, as JSON can hold it.

    Raises:
        ValueError: a value is a custom function, or the network has custom layers.
    """
    for name, value in spec:
        if isinstance(value, Sequential):
            raise ValueError(
                "a Network of custom layers cannot be stored: save the arrays you need, or use MLP, CNN or ResNet"
            )
        if callable(value):
            known = "list its values" if name == "schedule" else "use an activation known by name"
            raise ValueError(_not_stored(name, known))
    return {"class": type(spec).__name__, **spec.model_dump(mode="json")}


def restore_settings(settings: dict[str, Any]) -> Any:
    """Returns the network, training rule or method that `settings_json` described."""
    values = dict(settings)
    cls: type[Spec] = spec_class(values.pop("class"))
    if cls is GradientDescent and values.pop("batch", None) is not None:  # of schemas 1 to 4
        raise ValueError("it was trained by GradientDescent(batch=...), which is SGD now: solve it again")
    if cls is GradientDescent:
        values.pop("seed", None)
    for setting in RETIRED:
        values.pop(setting, None)
    return cls(**values)


def loss_name(problem: Problem) -> str:
    """Returns the name of the loss of a problem.

    Raises:
        ValueError: the loss is a custom function.
    """
    if LOSSES.get(problem.loss.name) != problem.loss:
        raise ValueError(_not_stored("loss", f"use one of {', '.join(LOSSES)}"))
    return problem.loss.name


def about_steps(solution: Solution) -> str:
    """Returns what the steps of a Solution count."""
    return f"number of {solution.training.unit}s before this row"


def _not_stored(name: str, otherwise: str) -> str:
    return f"{name} is a custom function, which cannot be stored: save the arrays you need, or {otherwise}"
