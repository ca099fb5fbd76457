"""The page to play with: what it shows is what `solve` finds, and the newest position of a slider goes first."""

import gc
import json
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from bokeh.document import Document

import kernelfield as kf
from commands import CONFIG, exit_code
from kernelfield.explore import live, static
from kernelfield.explore.frame import empty_frame, solve_frame, solve_lazy
from kernelfield.explore.page import Choices, Page
from kernelfield.explore.question import Question, question_of
from kernelfield.files.config import parse

RNG = np.random.default_rng(5)
SMALL = Question(
    {"one": kf.Problem(RNG.standard_normal((4, 5)), [1, 1, -1, -1]), "two": kf.Problem(np.eye(4), [1, -1, 1, -1])},
    kf.MLP(depth=2, activation="tanh", gamma0=1.0),
    kf.GradientDescent(learning_rate=0.2, steps=6),
    kf.March(particles=64, replicates=2, kernels="features"),
)


@pytest.fixture(scope="module")
def frame():
    setting = replace(SMALL.start, gamma0=2.0, width=16)
    return solve_frame(SMALL, setting, solve_lazy(SMALL, setting))


def test_a_frame_shows_what_solve_finds(frame):
    network = kf.MLP(depth=2, activation="tanh", gamma0=2.0)
    solution = kf.solve(network, SMALL.problems["one"], SMALL.training, SMALL.method, progress=False)
    np.testing.assert_allclose(frame.sources["loss"]["mean"], solution.loss / solution.loss[0], rtol=1e-3)
    Phi = solution.kernel_estimate("Phi", 2, -1).mean
    size = np.sqrt(np.diag(Phi))
    np.testing.assert_allclose(frame.sources["last"]["value"], (Phi / np.outer(size, size)).ravel(), atol=1e-3)
    lazy = kf.solve(network, SMALL.problems["one"], SMALL.training, kf.StaticNTK(), progress=False)
    np.testing.assert_allclose(frame.sources["lazy"]["mean"], lazy.loss / lazy.loss[0], rtol=1e-3)
    assert frame.numbers["Final loss"].startswith(f"{solution.loss[-1]:.2g}"[:4])
    density = np.array(frame.sources["density"]["last"])
    assert 0.9 < density.sum() * np.diff(frame.sources["density"]["x"])[0] < 1.05
    assert len(frame.sources["network loss"]["ys"]) == 4


def test_a_frame_has_all_sources_and_json_holds_it(frame):
    empty = empty_frame().sources
    assert set(frame.sources) == set(empty)
    for name, columns in frame.sources.items():
        assert set(columns) == set(empty[name])
    json.dumps(frame.sources, allow_nan=False)
    bare = solve_frame(SMALL, SMALL.start, None)
    assert not bare.sources["network loss"]["xs"] and not bare.sources["lazy"]["step"]


@pytest.mark.parametrize("width", [None, 16])
@pytest.mark.parametrize("rate", [6.0, 100.0])  # the first after some steps, the last of which has no kernels
def test_a_run_that_diverges_is_shown_with_its_end(rate, width):
    question = replace(SMALL, training=kf.GradientDescent(learning_rate=0.3, steps=40))
    setting = replace(SMALL.start, learning_rate=rate, activation="relu", width=width)
    frame = solve_frame(question, setting, None)
    assert "step" in frame.numbers["It stopped"]
    assert 0 < len(frame.sources["loss"]["step"]) < 41 and frame.sources["first"]["value"]
    json.dumps(frame.sources, allow_nan=False)


def test_the_page_opens_with_the_run_as_it_was_described():
    page = Page(SMALL, Choices())
    assert page.setting == SMALL.start
    assert SMALL.network_of(page.setting) == SMALL.network and SMALL.training_of(page.setting) == SMALL.training
    page.controls["gamma0"].value, page.controls["width"].value = -1.0, "64"
    page.controls["depth"].value, page.controls["data"].value = 3, "two"
    moved = page.setting
    assert (moved.gamma0, moved.width, moved.depth, moved.data) == (0.1, 64, 3, "two")
    assert SMALL.network_of(moved) == kf.MLP(depth=3, activation="tanh", gamma0=0.1)


def test_a_configuration_has_the_controls_that_leave_it_as_it_is():
    page = Page(question_of(parse(CONFIG)), Choices())
    assert set(page.controls) == {"gamma0", "learning_rate", "depth", "width", "activation"}
    fixed = question_of(parse(CONFIG.replace("depth = 1", "depth = 1\nweight_scales = [1, 2]")))
    assert "depth" not in Page(fixed, Choices()).controls and fixed.network_of(fixed.start) == fixed.network
    assert fixed.method.particles == 64


class Pool:
    """Holds back what was submitted until it is told to solve it."""

    def __init__(self):
        self.waiting = []

    def submit(self, solve, setting):
        self.waiting.append((solve, setting, future := Future()))
        return future

    def solve_next(self):
        solve, setting, future = self.waiting.pop(0)
        try:
            future.set_result(solve(setting))
        except ValueError as error:
            future.set_exception(error)
        return setting


class Here(Document):
    """Runs callbacks at once."""

    def add_next_tick_callback(self, callback):
        callback()

    def add_timeout_callback(self, callback, milliseconds):
        callback()


@pytest.fixture
def session():
    explorer = live.Explorer(SMALL, Pool())
    return live.Session(explorer, Page(SMALL, Choices()), Here())


def test_positions_between_are_left_out_and_the_newest_is_shown(session):
    pool, slider = session.explorer.pool, session.page.controls["gamma0"]
    session.follow()
    for value in (-1.0, -0.5, 0.5):
        slider.value = value
    assert len(pool.waiting) == 1
    assert pool.solve_next() == SMALL.start and pool.solve_next().gamma0 == 3.162
    assert not session.page.sources["lazy"].data["step"]
    assert pool.solve_next().gamma0 == 3.162 and not pool.waiting  # the lazy limit, when the controls rest
    assert session.page.sources["lazy"].data["step"] and "Final loss" in session.page.numbers.text
    assert session.page.sources["trail"].data["gamma0"] == [1.0, 3.162]


def test_what_cannot_be_solved_is_said_and_the_page_goes_on(session):
    pool = session.explorer.pool
    session.page.controls["gamma0"].value = -17.0  # features would move by less than rounding
    pool.solve_next()
    assert "below rounding" in session.page.numbers.text
    session.page.controls["gamma0"].value = 0.0
    pool.solve_next()
    assert session.page.sources["loss"].data["step"] and "Final loss" in session.page.numbers.text


def test_a_page_that_was_closed_is_not_solved_for(session):
    session.follow()
    session.close()
    session.page.controls["gamma0"].value = 0.5
    assert session.explorer.pool.solve_next() == SMALL.start and not session.explorer.pool.waiting
    assert not session.page.numbers.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Bokeh leaves the socket to Python
def test_a_port_that_is_taken_and_a_page_with_another_name_are_one_line(tmp_path, capsys):
    server = live.Server({}, port=0, address="localhost")
    assert exit_code("explore", "--port", str(server.port), "--no-browser") == 2
    assert f"port {server.port} is taken" in capsys.readouterr().err
    server.stop()
    gc.collect()
    assert exit_code("explore", "--static", str(tmp_path / "page.txt")) == 2
    assert ".html" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def static_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("explore") / "page.html"
    choices = Choices(per_decade=1, rates=False, depths=(1, 2), activations=("tanh",), widths=(16,))
    static.write(path, SMALL, choices, progress=False)
    return path


@pytest.mark.thorough
def test_a_page_without_a_server_has_every_position(static_page, browser):
    page, problems = browser.new_context(offline=True).new_page(), []
    page.on("console", lambda said: said.type in ("error", "warning") and problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(static_page.as_uri())
    page.wait_for_function("window.Bokeh?.documents[0]?.is_idle")
    found = []
    for gamma0 in (-2, -1, 0, 1):
        for depth in (1, 2):
            change = f"""async () => {{ const page = Bokeh.documents[0]
                page.get_model_by_name('gamma0').value = {gamma0}
                page.get_model_by_name('depth').value = {depth}
                await new Promise((done) => setTimeout(done, 100))
                return [...page.get_model_by_name('loss').data.mean].at(-1) }}"""
            found.append(page.evaluate(change))
    settings = [
        replace(SMALL.start, gamma0=gamma0, depth=depth) for gamma0 in (0.01, 0.1, 1.0, 10.0) for depth in (1, 2)
    ]
    expected = [solve_frame(SMALL, setting, None).sources["loss"]["mean"][-1] for setting in settings]
    assert found == expected and not problems


@pytest.fixture
def address(tmp_path):
    """Where the command shows a small run."""
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    program = "from kernelfield.cli import main; main()"
    command = [sys.executable, "-c", program, "explore", str(config), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[0]
        process.terminate()
        assert process.stdout.read() == "ended\n" and process.wait() == 0


@pytest.mark.thorough
def test_the_live_page_follows_its_sliders(browser, address):
    page, problems = browser.new_page(), []
    page.on("console", lambda said: said.type in ("error", "warning") and problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    shown = "Bokeh.documents[0].get_model_by_name('regime').data.gamma0[0]"
    page.wait_for_function(f"window.Bokeh?.documents[0]?.is_idle && {shown} === 1")
    for power in (-1.5, -0.5, 0.5):
        page.evaluate(f"() => {{ Bokeh.documents[0].get_model_by_name('gamma0').value = {power} }}")
        page.wait_for_function(f"{shown} === {float(f'{10**power:.4g}')}")
    assert not problems
