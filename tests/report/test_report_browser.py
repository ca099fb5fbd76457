"""The page in a browser without a network."""

import time

import pytest

pytestmark = pytest.mark.thorough
PIXELS = "[...document.querySelectorAll('canvas.kernel')].map((each) => each.toDataURL())"
LINES = """Bokeh.documents.flatMap((each) => each.roots()).flatMap((plot) => plot.center ?? [])
    .filter((part) => part.name === 'now').map((line) => line.location)"""
IDLE = "Boolean(window.Bokeh?.documents.length) && Bokeh.documents.every((each) => each.is_idle)"
DENSITY = "Bokeh.documents.map((each) => each.get_model_by_name('density-1-0')).find(Boolean).data.y"


@pytest.fixture
def opened(browser):
    """Opens a page; afterwards there must have been no error, no warning and no request."""
    contexts, problems = [], []

    def show(path, width=1280, height=900):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, offline=True))
        page = contexts[-1].new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and problems.append(said.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith("http") and problems.append(request.url))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        until(page, IDLE)
        return page

    yield show
    for context in contexts:
        context.close()
    assert not problems


def until(page, condition, seconds=30):
    """Wait for a condition in the page (whose security policy forbids what playwright's own waiting does)."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


def test_the_page_draws_everything_without_errors_or_requests(opened, page_file):
    page = opened(page_file)
    plots = page.locator("[data-root-id] > *")
    assert plots.count() == 9
    for place in range(plots.count()):
        assert plots.nth(place).bounding_box()["height"] > 200
    assert len(set(page.evaluate(PIXELS))) == 10  # Phi, G of two layers and the NTK, of two results


def test_the_slider_moves_the_kernels_and_the_line_in_the_curves(opened, page_file):
    page = opened(page_file)
    last = page.evaluate(PIXELS)
    assert page.inner_text("#step") == "step 5 of 5" and set(page.evaluate(LINES)) == {5}
    page.locator("#time").fill("0")
    first = page.evaluate(PIXELS)
    assert page.inner_text("#step") == "step 0 of 5" and set(page.evaluate(LINES)) == {0}
    assert all(one != other for one, other in zip(first, last, strict=True))
    page.locator("#time").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(PIXELS) == last


def test_play_runs_to_the_end(opened, page_file):
    page = opened(page_file)
    page.locator("#time").fill("2")
    page.click("#play")
    until(page, "document.getElementById('time').value === '5'")
    until(page, "document.getElementById('play').getAttribute('aria-label') === 'Play'")
    assert page.inner_text("#step") == "step 5 of 5"


def test_pointing_at_a_kernel_reads_its_entry(opened, page_file, pair):
    page = opened(page_file)
    canvas = page.locator("canvas.kernel[data-name='Φ²'][data-place='0']")
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] * 2.5 / 6, "y": box["height"] * 0.5 / 6})
    said = page.inner_text("#entry").replace("\N{MINUS SIGN}", "-")
    assert said.startswith("infinite: Φ² of sample 0 (y = 1) and sample 2 (y = 1) = ")
    assert float(said.rpartition("= ")[2]) == pytest.approx(pair["infinite"].feature_kernel(2)[0, 2], abs=1e-3)


def test_densities_follow_their_controls(opened, page_file):
    page = opened(page_file)
    first = page.evaluate(DENSITY)
    page.locator("#recorded").fill("0")
    second = page.evaluate(DENSITY)
    page.click("#field button[data-value='g']")
    assert first != second != page.evaluate(DENSITY)
    assert page.inner_text("#recorded-step") == "step 0"


@pytest.mark.parametrize("width", [390, 320])
def test_the_page_fits_a_phone(opened, page_file, width):
    page = opened(page_file, width=width, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator("canvas.kernel").nth(place).bounding_box() for place in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"]  # two in a row


def test_the_copy_button_copies_the_configuration(opened, page_file):
    page = opened(page_file)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("button[data-copy='toml1']")
    until(page, "document.querySelector('[data-copy=toml1]').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#toml1").text_content()
