"""Frozen, validated settings whose errors are one sentence that names the argument."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

Value = TypeVar("Value")


class Spec(BaseModel):
    """The base of every settings object: it is frozen, refuses unknown arguments, and its errors are one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentence(type(self), error)) from None


def _sentence(spec: type[BaseModel], error: ValidationError) -> str:
    """Returns the first error of a validation as a sentence; unknown arguments, often misspelt, come first."""
    first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    parts = [str(part) for place, part in enumerate(first["loc"]) if place == 0 or isinstance(part, int)]
    name = ".".join(parts) or "settings"
    if first["type"] == "extra_forbidden":
        return f"{spec.__name__}: unknown argument '{name}'{suggestion(name, list(spec.model_fields))}"
    if first["type"] == "missing":
        return f"{spec.__name__}: {name} is required"
    if first["type"] == "value_error":
        return f"{spec.__name__}: {first.get('ctx', {}).get('error')}"
    need = first["msg"].removeprefix("Input should be ")
    return f"{spec.__name__}: {name} must be {need}, got {first['input']!r}"


def suggestion(name: str, known: list[str]) -> str:
    """Returns the known name nearest to `name` as ' (did you mean ...?)', or the list of known names."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(known)})"


def spec_class(name: str) -> type[Spec]:
    """Returns the settings class of this library with a given name, or raises a ValueError with the nearest name."""
    waiting: list[type[Spec]] = [Spec]
    known: dict[str, type[Spec]] = {}
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
            known[cls.__name__] = cls
    if name not in known:
        raise ValueError(f"'{name}' is unknown{suggestion(name, sorted(known))}")
    return known[name]


def look_up(kind: str, choice: str | Callable[..., Any], known: Mapping[str, Value]) -> Value | None:
    """Returns the value that a name stands for, or None for a function.

    Raises:
        ValueError: `choice` is an unknown name (the message has the nearest known one), or neither name nor function.
    """
    if isinstance(choice, str):
        if choice not in known:
            raise ValueError(f"{kind} '{choice}' is unknown{suggestion(choice, list(known))}")
        return known[choice]
    if not callable(choice):
        raise ValueError(f"{kind} must be a name or a function, got {type(choice).__name__}")
    return None


def check_mask(name: str, values: Any) -> None:
    """Raises ValueError if some values of an array are masked."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise ValueError(f"{name} must not be masked: fill in what is missing, or leave out those points")


def real_array(name: str, values: Any, dimensions: int | tuple[int, ...]) -> np.ndarray:
    """Returns `values` as a read-only float64 copy with `dimensions` axes, or any number of axes from a tuple.

    Raises:
        ValueError: the array is masked, not real, empty, not finite, or has other axes; the message names the argument.
    """
    check_mask(name, values)
    try:
        if np.iscomplexobj(values):
            raise TypeError
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        dtype = getattr(values, "dtype", None)
        got = type(values).__name__ + (f" of {dtype}" if dtype is not None else "")
        raise ValueError(f"{name} must be an array of real numbers, got {got}") from None
    allowed = dimensions if isinstance(dimensions, tuple) else (dimensions,)
    if array.ndim not in allowed:
        raise ValueError(f"{name} must have {' or '.join(map(str, allowed))} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(array))} NaN or infinite")
    array.setflags(write=False)
    return array
