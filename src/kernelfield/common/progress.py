"""Progress bars, on the terminal's standard error alone, for work that takes longer than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]

SHOW_AFTER = 2.0  # seconds without a bar
WANTED: ContextVar[bool] = ContextVar("progress bars are wanted", default=True)


@contextmanager
def bar(title: str, wanted: bool = True) -> Iterator[Report]:
    """A progress report (done, total) that shows a bar once the work has taken SHOW_AFTER seconds.

    There is none where standard error is not a terminal, nor where WANTED is false.

    Args:
        title: left of the bar.
        wanted: show it.

    Yields:
        What to call with (done, total).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    shown, began = Progress(*columns, console=console, transient=True), time.perf_counter()
    task = shown.add_task(title)
    wanted = wanted and WANTED.get() and console.is_terminal

    def report(done: int, total: int) -> None:
        shown.update(task, completed=done, total=total)
        if wanted and not shown.live.is_started and time.perf_counter() - began > SHOW_AFTER:
            shown.start()

    try:
        yield report
    finally:
        if shown.live.is_started:
            shown.stop()
