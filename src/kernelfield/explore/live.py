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
from kernelfield.explore.frame import Frame, solve_frame, solve_lazy
from kernelfield.explore.page import Choices, Page
from kernelfield.explore.question import Question, Setting

LEAD = "Drag γ₀ from lazy to rich: the theory is solved anew at every position, and finite networks train beside it."


@dataclass
class Explorer:
    """What all open pages share: the thread that solves, and the lazy limits that it knows."""

    question: Question
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "explore"))
    lazy: dict[Setting, np.ndarray | None] = field(default_factory=dict)

    def solve(self, setting: Setting) -> Frame:
        """Returns the frame of a setting; its lazy limit, which gamma0 does not change, is solved once."""
        key = replace(setting, gamma0=self.question.start.gamma0, width=None)
        if key not in self.lazy:
            self.lazy[key] = solve_lazy(self.question, key)
        return solve_frame(self.question, setting, self.lazy[key])

    def compile(self, report: Report) -> None:
        """Solves every depth once, so that no slider waits for a compilation; other choices compile when chosen."""
        start = self.question.start
        settings = [start] if start.depth is None else [replace(start, depth=depth) for depth in Choices().depths]
        for number, setting in enumerate(settings):
            report(number, len(settings))
            self.pool.submit(self.solve, setting).result()
        report(len(settings), len(settings))

    def open(self, document: Document) -> None:
        """Fills a document with a page that follows its controls."""
        Session(self, Page(self.question, Choices()), document).follow()


class Session:
    """One open page: at most one setting is being solved, and when it is done, the newest one is next."""

    def __init__(self, explorer: Explorer, page: Page, document: Document) -> None:
        self.explorer, self.page, self.document = explorer, page, document
        self.busy, self.open = False, True
        self.trails: dict[Setting, dict[str, list[float]]] = {}
        page.fill(document, LEAD)
        page.on_change(self.follow)
        document.on_session_destroyed(lambda _: self.close())

    def follow(self) -> None:
        """Solves where the controls are, unless something is being solved already."""
        if self.busy or not self.open:
            return
        self.busy, setting = True, self.page.setting
        self.page.wait()
        self.explorer.pool.submit(self.explorer.solve, setting).add_done_callback(partial(self.pass_on, setting))

    def pass_on(self, setting: Setting, solved: Future[Frame]) -> None:
        """Hands a frame from the thread that solved it to the thread of the page."""
        if self.open:
            self.document.add_next_tick_callback(partial(self.show, setting, solved))

    def show(self, setting: Setting, solved: Future[Frame]) -> None:
        """Shows a frame, or says why there is none, and goes on if the controls have moved."""
        error, self.busy = solved.exception(), False
        if error is None:
            frame = solved.result()
            trail = self.trails.setdefault(replace(setting, gamma0=1.0, width=None), {"gamma0": [], "movement": []})
            for name, values in trail.items():
                values += frame.sources["regime"][name]
            self.page.show(replace(frame, sources={**frame.sources, "trail": trail}))
        else:
            self.page.show(Frame({}, {"This cannot be solved": str(error)}))
        if self.page.setting != setting:
            self.follow()

    def close(self) -> None:
        """Stops following: nobody looks any more."""
        self.open = False


def serve(question: Question, port: int, show: bool, say: Callable[[str], None], progress: bool = True) -> None:
    """Serves the page on this machine until Ctrl-C.

    Args:
        question: what can be changed.
        port: of the address http://localhost:port; 0 takes a free one.
        show: whether to open it in a browser.
        say: takes the line that tells the address.
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
        say(f"http://localhost:{server.port}/ shows the page; Ctrl-C ends it")
        if show:
            server.show("/")
        server.io_loop.start()
    except KeyboardInterrupt:
        say("ended")
    finally:
        server.stop()
        explorer.pool.shutdown(cancel_futures=True)
