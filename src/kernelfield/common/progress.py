"""Progress bars, on the terminal's standard error alone, for work that takes longer than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]  # takes (done, total)

SHOW_AFTER = 2.0  # seconds without a bar
WANTED: ContextVar[bool] = ContextVar("progress bars are wanted", default=True)


@contextmanager
def bar(title: str, wanted: bool | Report = True) -> Iterator[Report]:
    """Yields a Report, which shows a bar with a title once the work has taken SHOW_AFTER seconds.

    No bar is shown unless both `wanted` and WANTED are true and standard error is a terminal. A Report in place of
    `wanted` is yielded as it is.
    """
    if callable(wanted):
        yield wanted
        return
    counts, console = TextColumn("{task.completed:.0f}/{task.total:.0f}"), Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), counts, TimeRemainingColumn()
    progress, began = Progress(*columns, console=console, transient=True), time.perf_counter()
    task = progress.add_task(title)
    wanted = wanted and WANTED.get() and console.is_terminal

    def report(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        if wanted and not progress.live.is_started and time.perf_counter() - began > SHOW_AFTER:
            progress.start()

    try:
        yield report
    finally:
        if progress.live.is_started:
            progress.stop()
