"""Frozen, validated settings whose errors are one sentence that names the argument."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError


class Spec(BaseModel):
    """Base of every settings object: frozen, no unknown arguments, errors in one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentence(type(self), error)) from None


def _sentence(spec: type[BaseModel], error: ValidationError) -> str:
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # a misspelt name first
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
    """The nearest known name as ' (did you mean ...?)', or the list of known names."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(known)})"


def spec_class(name: str, base: type[Spec] = Spec) -> type[Spec]:
    """The settings class of this library with a given name, among the subclasses of `base`.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    found, known = [base], {}
    while found:
        each = found.pop()
        found += each.__subclasses__()
        if each.__module__.partition(".")[0] == __name__.partition(".")[0]:
            known[each.__name__] = each
    if name not in known:
        raise ValueError(f"'{name}' is unknown{suggestion(name, sorted(known))}")
    return known[name]


def named(kind: str, choice: Any, known: Mapping[str, Any]) -> Any:
    """What a name stands for; None for a function.

    Raises:
        ValueError: for an unknown name, with the nearest known one, or what is neither.
    """
    if isinstance(choice, str):
        if choice not in known:
            raise ValueError(f"{kind} '{choice}' is unknown{suggestion(choice, list(known))}")
        return known[choice]
    if not callable(choice):
        raise ValueError(f"{kind} must be a name or a function, got {type(choice).__name__}")
    return None


def real_array(name: str, values: Any, dimensions: int | tuple[int, ...]) -> np.ndarray:
    """`values` as a finite, non-empty, read-only float64 array with `dimensions` axes, or one of several numbers.

    Raises:
        ValueError: naming the argument, what is required and what came.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be an array of real numbers, got {type(values).__name__}") from None
    allowed = dimensions if isinstance(dimensions, tuple) else (dimensions,)
    if array.ndim not in allowed:
        raise ValueError(f"{name} must have {' or '.join(map(str, allowed))} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(array))} NaN or infinite")
    array.setflags(write=False)
    return array
