"""The page without a server: all settings of a grid are solved before, and stored in it."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace
from typing import Any

from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.models import CustomJS, Slider
from bokeh.resources import INLINE

from kernelfield.common.atomic_files import whole_file
from kernelfield.common.progress import bar
from kernelfield.explore.frame import solve_frame, solve_lazy
from kernelfield.explore.page import Choices, Page, write_numbers
from kernelfield.explore.question import Question

LEAD = "The theory of infinite width, solved before for every position of the sliders, and finite networks beside it."
CHOICES = Choices(per_decade=4, rates=False, depths=(1, 2, 3), activations=("tanh", "relu"), widths=(128,))
SHOW = """
const count = (control) => control.step ? Math.round(control.value / control.step) : control.value
const frames = window.kernelfield ??= JSON.parse(text)
const frame = frames[controls.map(count).join("|")]
for (const source of sources) source.data = frame.sources[source.name] ?? {}
numbers.text = frame.numbers
"""


def write(path: str | os.PathLike[str], question: Question, choices: Choices = CHOICES, progress: bool = True) -> None:
    """Writes a page that needs neither a server nor a network: the whole file or nothing.

    Args:
        path: of the page.
        question: what can be changed; of its data the first set alone.
        choices: positions of the controls, every combination of which is solved.
        progress: whether a bar shows how many settings are solved.
    """
    first = next(iter(question.problems))
    question = replace(question, problems={first: question.problems[first]})
    page, document = Page(question, choices), Document()
    controls = list(page.controls.values())
    for control in controls:
        control.value = _nearest(control)
    frames = _solve_all(question, page, progress)
    start = frames["|".join(str(_count(control, control.value)) for control in controls)]
    for name, columns in start["sources"].items():
        page.sources[name].data = columns
    page.numbers.text = start["numbers"]
    page.fill(document, LEAD)
    arguments = {
        "controls": controls,
        "sources": list(page.sources.values()),
        "numbers": page.numbers,
        "text": json.dumps(frames, separators=(",", ":"), allow_nan=False),
    }
    change = CustomJS(args=arguments, code=SHOW)  # one for all controls, which holds all frames
    for control in controls:
        control.js_on_change("value", change)
    text = file_html(document, INLINE, template=document.template, template_variables=document.template_variables)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _solve_all(question: Question, page: Page, progress: bool) -> dict[str, dict[str, Any]]:
    """Returns what the page shows by the positions of its controls: columns by source, and numbers as HTML."""
    frames: dict[str, dict[str, Any]] = {}
    gamma0, *others = (_positions(control) for control in page.controls.values())
    total = len(gamma0) * math.prod(map(len, others))
    with bar("solving", progress) as report:
        for rest in itertools.product(*others):
            trail: dict[str, list[float]] = {"gamma0": [], "movement": []}  # which all of these share
            lazy = None
            for place in gamma0:
                values = dict(zip(page.controls, (place, *rest), strict=True))
                setting = page.read(values)
                lazy = solve_lazy(question, setting) if lazy is None else lazy
                frame = solve_frame(question, setting, lazy)
                for name, column in trail.items():
                    column += frame.sources["regime"][name]
                key = "|".join(str(_count(page.controls[name], value)) for name, value in values.items())
                frames[key] = {"sources": {**frame.sources, "trail": trail}, "numbers": write_numbers(frame.numbers)}
                report(len(frames), total)
    return frames


def _positions(control: Any) -> list[Any]:
    """Returns all values of a control."""
    if not isinstance(control, Slider):
        return list(control.options)
    return [number * control.step for number in range(_count(control, control.start), _count(control, control.end) + 1)]


def _nearest(control: Any) -> Any:
    """Returns the position of a control that is nearest to its value."""
    return _count(control, control.value) * control.step if isinstance(control, Slider) else control.value


def _count(control: Any, value: Any) -> Any:
    """Returns the value of a slider in units of its step, a whole number, and that of another control as it is."""
    return round(value / control.step) if isinstance(control, Slider) else value
