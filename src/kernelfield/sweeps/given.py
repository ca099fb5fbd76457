"""Data that a program gives, in the place of what a configuration file says about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kernelfield.describe.problem import Problem


@dataclass(frozen=True)
class GivenData:
    """A Problem as the section [data] of a configuration.

    Args:
        given: the Problem.
    """

    given: Problem

    model_fields: ClassVar[dict[str, Any]] = {}  # no keys

    def problem(self, folder: Path) -> Problem:
        """The Problem; `folder` is not used."""
        return self.given

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """What a text can say about it."""
        return {"source": "given", "points": self.given.points, "loss": self.given.loss.name}
