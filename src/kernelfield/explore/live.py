"""The page with a server: a setting is solved when a control moves, and the newest one goes first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server

from kernelfield.common.progress import Report, bar
from kernelfield.explore.frame import Frame, lazy_frame, solve_frame, solve_lazy
from kernelfield.explore.page import Choices, Page
from kernelfield.explore.question import Question, Setting

LEAD = "Drag γ₀ from lazy to rich: the theory is solved anew at every position, and finite networks train beside it."
REST = 300  # milliseconds that the controls rest before the lazy limit is solved, and that a solve is not slow


@dataclass
class Explorer:
    """What all open pages share: the thread that solves, and the lazy limits that it knows."""

    question: Question
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "explore"))
    lazy: dict[Setting, np.ndarray | None] = field(default_factory=dict)

    def solve(self, setting: Setting) -> Frame:
        """Returns the frame of a setting, with its lazy limit if that is known."""
        return solve_frame(self.question, setting, self.lazy.get(forget_gamma0(setting)))

    def solve_lazy(self, setting: Setting) -> Frame:
        """Returns the frame of a setting with its lazy limit, which is solved once for all gamma0."""
        key = forget_gamma0(setting)
        if key not in self.lazy:
            self.lazy[key] = solve_lazy(self.question, setting)
        return lazy_frame(self.lazy[key])

    def knows_lazy(self, setting: Setting) -> bool:
        """Returns whether the lazy limit of a setting is known."""
        return forget_gamma0(setting) in self.lazy

    def compile(self, report: Report) -> None:
        """Solves every depth once, so that no slider waits for a compilation; other choices compile when chosen."""
        start = self.question.start
        settings = [start] if start.depth is None else [replace(start, depth=depth) for depth in Choices().depths]
        for number, setting in enumerate(settings):
            report(number, len(settings))
            self.pool.submit(self.solve_lazy, setting).result()
            self.pool.submit(self.solve, setting).result()
        report(len(settings), len(settings))

    def open(self, document: Document) -> None:
        """Fills a document with a page that follows its controls."""
        Session(self, Page(self.question, Choices()), document).follow()


def forget_gamma0(setting: Setting) -> Setting:
    """Returns a setting that all gamma0 and all widths share."""
    return replace(setting, gamma0=1.0, width=None)


class Session:
    """One open page: at most one setting is being solved, and when it is done, the newest one is next.

    Its lazy limit follows, once the controls rest.
    """

    def __init__(self, explorer: Explorer, page: Page, document: Document) -> None:
        self.explorer, self.page, self.document = explorer, page, document
        self.busy, self.open = False, True
        self.trails: dict[Setting, dict[str, list[float]]] = {}
        page.fill(document, LEAD)
        page.on_change(self.follow)
        document.on_session_destroyed(lambda _: self.close())

    def follow(self) -> None:
        """Solves where the controls are, unless something is being solved already."""
        if not self.busy and self.open:
            setting = self.page.setting
            self.submit(self.explorer.solve, setting)
            self.document.add_timeout_callback(partial(self.wait_for, setting), REST)

    def wait_for(self, setting: Setting) -> None:
        """Shows that numbers are old, if a setting takes long."""
        if self.busy and self.page.setting == setting:
            self.page.wait()

    def follow_with_lazy(self, setting: Setting) -> None:
        """Solves the lazy limit, if the controls have not moved meanwhile."""
        if not self.busy and self.open and self.page.setting == setting:
            self.submit(self.explorer.solve_lazy, setting)

    def submit(self, solve: Callable[[Setting], Frame], setting: Setting) -> None:
        """Solves a setting in the thread that all pages share."""
        self.busy = True
        self.explorer.pool.submit(solve, setting).add_done_callback(partial(self.pass_on, setting))

    def pass_on(self, setting: Setting, solved: Future[Frame]) -> None:
        """Hands a frame from the thread that solved it to the thread of the page."""
        if self.open:
            self.document.add_next_tick_callback(partial(self.show, setting, solved))

    def show(self, setting: Setting, solved: Future[Frame]) -> None:
        """Shows a frame, or says why there is none, and goes on if the controls have moved."""
        error, self.busy = solved.exception(), False
        self.document.hold("combine")  # one message, and one drawing
        if error is None:
            frame = solved.result()
            trail = self.trails.setdefault(forget_gamma0(setting), {"gamma0": [], "movement": []})
            for name, values in trail.items():
                values += frame.sources.get("regime", {}).get(name, [])
            self.page.show(
                replace(
                    frame, sources={**frame.sources, "trail": {name: list(values) for name, values in trail.items()}}
                )
            )
        else:
            self.page.show(Frame({}, {"This cannot be solved": str(error)}))
        self.document.unhold()
        if self.page.setting != setting:
            self.follow()
        elif error is None and not self.explorer.knows_lazy(setting):
            self.document.add_timeout_callback(partial(self.follow_with_lazy, setting), REST)

    def close(self) -> None:
        """Stops following: nobody looks any more."""
        self.open = False


def serve(question: Question, port: int, show: bool, announce: Callable[[str], None], progress: bool = True) -> None:
    """Serves the page on this machine until Ctrl-C.

    Args:
        question: what can be changed.
        port: of the address http://localhost:port; 0 takes a free one.
        show: whether to open it in a browser.
        announce: takes the address, when the page is there.
        progress: whether a bar shows how many programs are compiled.

    Raises:
        OSError: another process has the port.
    """
    explorer = Explorer(question)
    try:
        server = Server({"/": Application(FunctionHandler(explorer.open))}, port=port, address="localhost")
    except OSError:
        raise OSError(f"port {port} is taken: give another --port, or 0 for a free one") from None
    try:
        with bar("compiling", progress) as report:
            explorer.compile(report)
        server.start()
        announce(f"http://localhost:{server.port}/")
        if show:
            server.show("/")
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
        explorer.pool.shutdown(cancel_futures=True)
