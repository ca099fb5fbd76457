"""The page: its controls, its plots, and the data sources that frames fill in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from bokeh.document import Document
from bokeh.models import (
    ColumnDataSource,
    CustomJSTickFormatter,
    Div,
    HoverTool,
    InlineStyleSheet,
    Range1d,
    Select,
    Slider,
)
from bokeh.palettes import RdBu11
from bokeh.plotting import figure
from bokeh.transform import linear_cmap
from jinja2 import ChoiceLoader, Environment, PackageLoader, Template

from kernelfield.explore.frame import EDGES, LOWEST_LOSS, MOST_SAMPLES, Frame, empty_frame
from kernelfield.explore.question import ACTIVATIONS, DEPTHS, GAMMA0, RATE, WIDTHS, Question, Setting
from kernelfield.report import style
from kernelfield.report.style import Chart, Key

INFINITE, LAZY, NETWORKS = "#c8374d", "#5c6670", "#2a78b5"
NO_NETWORKS = "none"
HEIGHT = 290
PLAIN = "const n = Math.pow(10, tick); return n.toPrecision(n < 0.1 ? 2 : 3)"  # a number, of its logarithm
NUMBERS = """
:host, .bk-clearfix { font: 15px/1.4 Inter, "Segoe UI", "Helvetica Neue", Helvetica, Arial, sans-serif; width: 100%; }
dl { display: grid; grid-template-columns: 1fr 1fr; gap: 16px 22px; margin: 0; width: 100%; }
dt { color: #5c6670; font-size: 13.5px; }
dd { margin: 1px 0 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; color: #1d2329; }
"""
TITLE = "A network of infinite width, solved as you drag"


@dataclass(frozen=True)
class Choices:
    """What the controls offer.

    Args:
        per_decade: positions of gamma0 and the learning rate between two powers of ten.
        rates: whether the learning rate can be changed.
        depths, activations, widths: of networks; of those of finite width.
    """

    per_decade: int = 50
    rates: bool = True
    depths: tuple[int, ...] = DEPTHS
    activations: tuple[str, ...] = ACTIVATIONS
    widths: tuple[int, ...] = WIDTHS


class Page:
    """Controls, plots and numbers of one page."""

    def __init__(self, question: Question, choices: Choices) -> None:
        self.start = question.start
        self.sources: dict[str, Any] = {
            name: ColumnDataSource(columns, name=name) for name, columns in empty_frame().sources.items()
        }
        look = InlineStyleSheet(css=NUMBERS)
        self.numbers = Div(text="", name="numbers", sizing_mode="stretch_width", stylesheets=[look])
        self.controls = _make_controls(question, choices)
        self.charts = {
            "loss": self._draw_loss(question.training.steps),
            "alignment": self._draw_alignment(question.training.steps),
            "regime": self._draw_regime(),
            "density": self._draw_density(),
        }
        points = len(question.problems[self.start.data].y)
        self.kernels = {
            "before training": self._draw_kernel("first", points),
            "after training": self._draw_kernel("last", points),
            "one finite network": self._draw_kernel("network kernel", points),
        }

    @property
    def setting(self) -> Setting:
        """Where the controls are."""
        return self.read({name: control.value for name, control in self.controls.items()})

    def read(self, values: Mapping[str, Any]) -> Setting:
        """Returns the setting that values of the controls stand for."""
        powers = {name: float(f"{10 ** values[name]:.4g}") for name in ("gamma0", "learning_rate") if name in values}
        width = None if values["width"] == NO_NETWORKS else int(values["width"])
        return Setting(**{**vars(self.start), **values, **powers, "width": width})

    def on_change(self, act: Callable[[], None]) -> None:
        """Calls a function whenever a control moves."""
        for control in self.controls.values():
            control.on_change("value", lambda attribute, old, new: act())

    def wait(self) -> None:
        """Shows that the numbers are not those of the controls yet."""
        self.numbers.css_classes = ["waiting"]

    def show(self, frame: Frame) -> None:
        """Fills in the columns and the numbers of a frame."""
        for name, columns in frame.sources.items():
            if self.sources[name].data != columns:
                self.sources[name].data = columns
        if frame.numbers:
            self.numbers.update(text=write_numbers(frame.numbers), css_classes=[])

    def fill(self, document: Document, lead: str) -> None:
        """Puts the page, with a sentence at its top, into a document of Bokeh."""
        for name, chart in self.charts.items():
            chart.plot.name = f"chart of {name}"
        plots = [*(chart.plot for chart in self.charts.values()), *self.kernels.values()]
        for model in [*self.controls.values(), *plots, self.numbers]:
            document.add_root(model)
        document.theme, document.title, document.template = style.THEME, TITLE, read_template()
        document.template_variables.update(
            controls=list(self.controls), charts=self.charts, kernels=self.kernels, lead=lead
        )

    def _draw_loss(self, steps: int) -> Chart:
        plot = _create_step_plot("loss / loss at the start", steps, (LOWEST_LOSS, 2.0), log=True)
        plot.multi_line("xs", "ys", source=self.sources["network loss"], line_color=NETWORKS, line_alpha=0.75)
        plot.line("step", "mean", source=self.sources["lazy"], line_color=LAZY, line_dash="6 4", line_width=1.6)
        plot.varea("step", "low", "high", source=self.sources["loss"], fill_color=INFINITE, fill_alpha=0.2)
        line = plot.line("step", "mean", source=self.sources["loss"], line_color=INFINITE, line_width=2.6)
        plot.add_tools(HoverTool(renderers=[line], tooltips="step @step: @mean", mode="vline", visible=False))
        keys = Key("infinite width", INFINITE, "line"), Key("its lazy limit, γ₀ → 0", LAZY, "dashes")
        return Chart("Loss", plot, [*keys, Key("finite networks", NETWORKS, "line")])

    def _draw_alignment(self, steps: int) -> Chart:
        plot = _create_step_plot("alignment A(Φ, y yᵀ)", steps, (0.0, 1.0))
        lines = plot.multi_line("xs", "ys", source=self.sources["alignment"], line_color="colour", line_width=2.6)
        look = {"fill_color": "white", "line_color": "colour", "line_width": 1.6, "size": 7}
        plot.scatter("x", "y", source=self.sources["network alignment"], **look)
        plot.add_tools(HoverTool(renderers=[lines], tooltips="@label", visible=False))
        keys = [Key(f"layer {layer}"[6 * (layer > 1) :], style.LAYERS[layer - 1], "line") for layer in DEPTHS]
        return Chart("How much features look like the targets", plot, [*keys, Key("finite networks", LAZY, "dots")])

    def _draw_regime(self) -> Chart:
        ends = GAMMA0[0] / 1.3, GAMMA0[1] * 1.3
        plot = style.create_plot("movement of the last Φ", HEIGHT, ends, log=True, x_log=True)
        plot.xaxis.axis_label = "feature-learning strength γ₀"
        plot.y_range.update(start=1e-5, end=50)
        plot.scatter("gamma0", "movement", source=self.sources["trail"], size=5, color=INFINITE, alpha=0.35)
        plot.scatter("gamma0", "movement", source=self.sources["regime"], size=14, color=INFINITE)
        look = {"fill_color": None, "line_color": NETWORKS, "line_width": 2, "size": 14}
        plot.scatter("gamma0", "movement", source=self.sources["network regime"], **look)
        keys = Key("infinite width", INFINITE, "dots"), Key("finite networks", NETWORKS, "dots")
        return Chart("From lazy to rich", plot, keys)

    def _draw_density(self) -> Chart:
        plot = style.create_plot("density", HEIGHT, (float(EDGES[0]), float(EDGES[-1])))
        plot.xaxis.axis_label = "preactivation h / its deviation before training"
        plot.y_range.update(start=0, end=0.7)
        look: dict[str, Any] = {"fill_color": NETWORKS, "fill_alpha": 0.28, "line_color": "white", "line_width": 0.6}
        plot.quad("left", "right", "top", 0, source=self.sources["network density"], **look)
        plot.line("x", "first", source=self.sources["density"], line_color=LAZY, line_dash="2 3", line_width=1.8)
        plot.line("x", "last", source=self.sources["density"], line_color=INFINITE, line_width=2.6)
        keys = Key("before training", LAZY, "dotted"), Key("after training", INFINITE, "line")
        return Chart("Neurons of the last hidden layer", plot, [*keys, Key("finite networks", NETWORKS, "bars")])

    def _draw_kernel(self, name: str, points: int) -> Any:
        """Returns a plot of cosines between samples."""
        most = min(points, MOST_SAMPLES)
        plot = figure(
            aspect_ratio=1, sizing_mode="scale_width", tools="", toolbar_location=None, name=f"plot of {name}"
        )
        plot.update(x_range=Range1d(start=-0.5, end=most - 0.5), y_range=Range1d(start=most - 0.5, end=-0.5))
        plot.axis.visible = plot.grid.visible = False
        plot.update(min_border_left=0, min_border_right=0, min_border_top=0, min_border_bottom=0)
        colours = linear_cmap("value", RdBu11, -1, 1)
        plot.rect("x", "y", 1, 1, source=self.sources[name], fill_color=colours, line_color=colours)
        return plot


def _create_step_plot(ylabel: str, steps: int, ends: tuple[float, float], log: bool = False) -> Any:
    """Returns an empty plot over the steps of training."""
    plot = style.create_plot(ylabel, HEIGHT, (-0.02 * steps, 1.02 * steps), log)
    plot.xaxis.axis_label = "step of training"
    plot.y_range.update(start=ends[0], end=ends[1])
    return plot


def _make_controls(question: Question, choices: Choices) -> dict[str, Any]:
    """Returns the controls, by the names of what they set in a Setting."""
    start = question.start
    controls: dict[str, Any] = {"gamma0": _log_slider("feature learning γ₀", GAMMA0, start.gamma0, choices)}
    if start.learning_rate is not None and choices.rates:
        controls["learning_rate"] = _log_slider("learning rate η", RATE, start.learning_rate, choices)
    if start.depth is not None:
        ends = min(*choices.depths, start.depth), max(*choices.depths, start.depth)
        controls["depth"] = Slider(title="hidden layers", start=ends[0], end=ends[1], step=1, value=start.depth)
    widths: list[Any] = [NO_NETWORKS, *map(str, choices.widths)]
    controls["width"] = Select(title="finite networks of width", options=widths, value=NO_NETWORKS)
    if start.activation is not None:
        names: list[Any] = list(dict.fromkeys([start.activation, *choices.activations]))
        controls["activation"] = Select(title="activation", options=names, value=start.activation)
    sets: list[Any] = list(question.problems)
    if len(sets) > 1:
        controls["data"] = Select(title="data", options=sets, value=start.data)
    for name, control in controls.items():
        control.update(name=name, sizing_mode="stretch_width")
    return controls


def _log_slider(title: str, ends: tuple[float, float], value: float, choices: Choices) -> Slider:
    """Returns a slider of the logarithm of a positive number, which reaches the number that it starts from."""
    step, start = 1 / choices.per_decade, math.log10(value)
    low, high = (round(end / step) * step for end in (min(math.log10(ends[0]), start), max(math.log10(ends[1]), start)))
    return Slider(title=title, start=low, end=high, step=step, value=start, format=CustomJSTickFormatter(code=PLAIN))


def write_numbers(numbers: Mapping[str, str]) -> str:
    """Returns numbers with their labels as HTML."""
    rows = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in numbers.items())
    return f"<dl>{rows}</dl>"


def read_template() -> Template:
    """Returns the template of the page, which uses the style sheet of reports."""
    loader = ChoiceLoader(
        [PackageLoader("kernelfield.explore", "template"), PackageLoader("kernelfield.report", "template")]
    )
    return Environment(loader=loader, autoescape=False, trim_blocks=True, lstrip_blocks=True).get_template(
        "explore.html"
    )
