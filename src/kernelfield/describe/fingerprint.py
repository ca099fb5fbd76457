"""Fingerprints of runs: what makes two of them the same, and in words what differs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kernelfield.common.settings import Spec


def fingerprint(value: Any) -> Any:
    """Returns a value as JSON can hold it: settings by their values, arrays by a digest, functions by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return f"an array {array.shape} with digest {hashlib.sha256(array.data).hexdigest()[:16]}"
    if isinstance(value, Sequence):
        return [fingerprint(item) for item in value]
    if dataclasses.is_dataclass(value):
        values: Any = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Spec | Mapping):
        values = dict(value)
    elif callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    else:
        values = getattr(value, "__dict__", {})
    return {"kind": type(value).__name__} | {str(name): fingerprint(item) for name, item in values.items()}


def differences(there: Any, here: Any, *place: str) -> Iterator[str]:
    """Yields a sentence for every difference between two fingerprints, which lie at `place` in larger ones.

    Example:
        >>> list(differences({"network": {"gamma0": 1.0}}, {"network": {"gamma0": 2.0}}))
        ['network gamma0 is 1.0 there, 2.0 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for name in {**there, **here}:
            yield from differences(there.get(name), here.get(name), *place, name)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from differences(*pair, *place, str(number))
    elif there != here:
        yield f"{' '.join(place)} is {there} there, {here} here"
