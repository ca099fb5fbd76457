"""How long the page of `kernelfield explore` takes to follow its sliders, in a browser without a window.

    python benchmarks/explore.py [--picture PAGE.png]

Seconds from the command to the address are with the programs that an earlier call compiled, and without. Then every one
of 60 changes of a slider (gamma0, the learning rate and the depth in turn) waits until the page shows the solution of
the new position: milliseconds from the change to the drawn page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import sync_playwright

from goals import goal

CHANGES, AIM = 60, 300
CHANGE = """([name, value]) => new Promise((done) => {
    const page = Bokeh.documents[0], began = performance.now()
    const numbers = page.get_model_by_name('numbers'), changed = numbers.properties.text.change
    const stop = () => { changed.disconnect(stop); requestAnimationFrame(() => done(performance.now() - began)) }
    changed.connect(stop)
    if (page.get_model_by_name(name).value === value) stop()
    page.get_model_by_name(name).value = value
})"""


@contextmanager
def page_of(cache: str) -> Iterator[tuple[str, float]]:
    """Yields the address of the page, and the seconds until it was there."""
    command = [
        sys.executable,
        "-c",
        "from kernelfield.cli import main; main()",
        "explore",
        "--port",
        "0",
        "--no-browser",
    ]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": cache}
    ) as run:
        assert run.stdout is not None
        yield run.stdout.readline().split()[0], time.perf_counter() - began
        run.terminate()


def positions() -> Iterator[tuple[str, float]]:
    """Yields controls with their values: logarithms of gamma0 and the learning rate, and depths."""
    rng = np.random.default_rng(0)
    for number in range(CHANGES):
        match number % 3:
            case 0:
                yield "gamma0", round(rng.uniform(-2, 1), 3)
            case 1:
                yield "learning_rate", round(rng.uniform(-1.6, -0.2), 3)
            case _:
                yield "depth", 1 + number // 3 % 3


def main() -> None:
    """Print markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", help="PNG of the page at the end")
    picture = parser.parse_args().picture
    with tempfile.TemporaryDirectory() as cache:
        with page_of(cache) as (_, cold):
            pass
        with page_of(cache) as (address, warm), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page, problems = browser.new_page(viewport={"width": 1440, "height": 960}), []
            page.on("console", lambda said: said.type in ("error", "warning") and problems.append(said.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(address)
            page.wait_for_function("Bokeh.documents[0]?.get_model_by_name('regime')?.data.gamma0?.length === 1")
            taken: dict[str, list[float]] = {}
            for name, value in positions():
                taken.setdefault(name, []).append(page.evaluate(CHANGE, [name, value]))
            if picture:
                for name, value in (("width", "128"), ("learning_rate", -0.3), ("depth", 2), ("gamma0", 0.301)):
                    page.evaluate(CHANGE, [name, value])
                page.wait_for_timeout(500)
                page.screenshot(path=picture)
            browser.close()
    print(f"| | s |\n|---|---|\n| first start | {cold:.1f} |\n| compiled before | {warm:.1f} |\n")
    print("| slider | changes | median ms | slowest ms |\n|---|---|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {len(times)} | {np.median(times):.0f} | {max(times):.0f} |")
    print(f"\nErrors and warnings of the browser: {len(problems)}.\n")
    print(goal("Slowest of 60 changes of a slider, ms", f"<= {AIM}", max(map(max, taken.values()))))
    print(goal("Errors and warnings of the browser", "<= 0", len(problems)))


if __name__ == "__main__":
    main()
