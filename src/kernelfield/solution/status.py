"""How a run ended, and the exceptions that carry what it computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kernelfield.solution.solution import Solution

Code = Literal["ok", "diverged", "interrupted", "not_converged"]


@dataclass(frozen=True)
class Status:
    """How a run ended: a code, and a sentence that says what happened and what to try next."""

    code: Code = "ok"
    message: str = "all steps done"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class SolveError(RuntimeError):
    """A run that failed. Its `solution` holds the steps computed so far, or None if there are none."""

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run. Its `solution` holds the steps computed so far, or None if there are none."""

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


def diverged(step: int, learning_rate: float, times: float) -> Status:
    """Returns the status of a run whose loss grew beyond `times` its initial value at a step."""
    event = f"the loss exceeded {times:g} times its initial value at step {step}"
    return Status("diverged", f"{event}: try a learning_rate below {learning_rate:g}")


def interrupted(done: int, total: int, unit: str = "steps") -> Status:
    """Returns the status of a run that Ctrl-C ended."""
    return Status("interrupted", f"stopped by the user after {done} of {total} {unit}")
