"""How far a network is from infinite width: in numbers, in sentences, and on one page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from kernelfield import observables
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent
from kernelfield.finite.corrections import Corrections, finite_width_corrections
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables.compare import Comparison, compare
from kernelfield.report import style, write
from kernelfield.report.result import Result, number_results
from kernelfield.report.style import Chart, Key, create_time_plot, draw_curve, fit_range
from kernelfield.report.words import format_number, format_symbol, join
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve_run

INFINITE = "infinite width"
LAZY, RICH = 0.1, 0.5  # movement of feature kernels below which learning is lazy, and above which it is rich
DEPARTS = 2.0  # times its distance at initialization, from which on a layer has departed
FEW_ROWS = 32  # points times sites up to which corrections are found without being asked for
PAIRS = 16  # of coupled networks, for corrections


@dataclass(frozen=True, eq=False)
class WidthReport:
    """A network of finite width beside infinite width. Print it for sentences; `write` makes a page of it.

    Attributes:
        own: the network, or several of one width, that trained.
        infinite: the same run at infinite width.
        corrections: noise and bias of this width to order 1 / N; None where they are not known.
        why_none: a sentence that says why not.
    """

    own: Solution
    infinite: Solution
    corrections: Corrections | None = None
    why_none: str = ""

    @property
    def width(self) -> int:
        """N."""
        method: Any = self.own.method
        return method.width

    @property
    def networks(self) -> int:
        """The number of networks."""
        return len(self.own.replicate_predictions)

    @cached_property
    def comparison(self) -> Comparison:
        """The mean of the networks compared with infinite width."""
        return compare(self.own, self.infinite)

    @cached_property
    def steps(self) -> np.ndarray:
        """The steps that both have."""
        return np.arange(min(self.own.steps_done, self.infinite.steps_done) + 1)

    @cached_property
    def distance(self) -> Estimate:
        """How far the predictions of every network are, at each step, relative to those at infinite width at the end.

        Points that do not train count too: (steps,).
        """
        f = self.infinite.predictions[self.steps].astype(float)
        rows = self.own.replicate_predictions[:, self.steps] - f
        size = math.sqrt(float(np.mean(f[-1] ** 2))) or 1.0
        return Estimate(np.sqrt(np.mean(rows**2, axis=tuple(range(2, rows.ndim)))) / size)

    @cached_property
    def layers(self) -> list[int]:
        """The hidden layers whose feature kernels both kept."""
        return [layer for layer in self.own.hidden("Phi") if layer in self.infinite.hidden("Phi")]

    @cached_property
    def kernel_steps(self) -> np.ndarray:
        """The steps at which both kept feature kernels."""
        if not self.layers:
            return np.array([], int)
        return np.intersect1d(self.own.kernel_steps("Phi"), self.infinite.kernel_steps("Phi"))

    @cached_property
    def kernel_distances(self) -> Mapping[int, Estimate]:
        """|Phi(t) - Phi_infinite(t)| / |Phi_infinite(t)| of every network (kernel steps,), by layer."""
        distances = {}
        for layer in self.layers:
            values = []
            for t in self.kernel_steps:
                one = self.own.kernel_estimate("Phi", layer, int(t)).replicates
                other = self.infinite.kernel_estimate("Phi", layer, int(t)).mean
                norms = np.linalg.norm(one - other, axis=(1, 2))
                values.append(norms / max(float(np.linalg.norm(other)), 1e-300))
            distances[layer] = Estimate(np.stack(values, axis=1))
        return distances

    @property
    def departures(self) -> dict[int, int | None]:
        """The first step, by layer, at which a feature kernel is twice as far as at initialization; None if never."""
        found: dict[int, int | None] = {}
        for layer, distance in self.kernel_distances.items():
            far = np.flatnonzero(distance.mean > DEPARTS * distance.mean[0])
            found[layer] = int(self.kernel_steps[far[0]]) if len(far) else None
        return found

    @property
    def movement(self) -> dict[str, float]:
        """How far training moved the last feature kernel, relative to its size: "own" and "infinite"."""
        if not self.layers or not {0, int(self.steps[-1])} <= set(self.kernel_steps.tolist()):
            return {}
        last = self.layers[-1]
        return {
            name: float(observables.kernel_movement(side, "Phi", last, t=int(self.steps[-1])).mean)
            for name, side in (("own", self.own), ("infinite", self.infinite))
        }

    @property
    def regime(self) -> Literal["lazy", "between lazy and rich", "rich"] | None:
        """Whether features move at infinite width; None where kernels were not kept."""
        if not self.movement:
            return None
        moved = self.movement["infinite"]
        return "lazy" if moved < LAZY else "rich" if moved > RICH else "between lazy and rich"

    # --- words

    @property
    def sentences(self) -> list[str]:
        """What the report says, sentence by sentence."""
        return [text for text in (self._far(), self._why(), self._layers(), self._regime(), self._wider()) if text]

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _far(self) -> str:
        who = "This network" if self.networks == 1 else f"Each of these {self.networks} networks"
        start, end = self.own.loss[0], self.own.loss[self.steps[-1]]
        there = self.infinite.loss[self.steps[-1]]
        text = (
            f"{who} of width {self.width:,} ends {_percent(float(self.distance.mean[-1]))} from infinite width in its "
            f"predictions, and was at most {_percent(float(self.distance.mean.max()))} off on the way."
        )
        if self.networks > 1:
            mean = self.comparison.row("predictions", times="final").error
            text += f" Their mean ends {_percent(mean)} off."
        losses = f"Its loss fell from {format_number(float(start))} to {format_number(float(end))}"
        return f"{text} {losses}, at infinite width to {format_number(float(there))}."

    def _why(self) -> str:
        if self.corrections is None:
            if self.networks > 1:
                spread = math.sqrt(float(np.mean(self.own.replicate_predictions[:, -1].var(axis=0, ddof=1))))
                size = math.sqrt(float(np.mean(self.infinite.predictions[-1] ** 2))) or 1.0
                return (
                    f"{self.why_none} The spread between the networks, which is noise of their random starts, is "
                    f"{_percent(spread / size)}; what their mean is off by more than "
                    f"{_percent(spread / size / math.sqrt(self.networks))} is bias."
                )
            return f"{self.why_none} One network alone does not tell noise from bias: record several seeds."
        expected = self.corrections.distance(self.width)
        own = float(self.distance.mean[-1])
        ratio = own / expected.total if expected.total else math.nan
        text = (
            f"The theory to order 1/N expects {_percent(expected.noise)} of noise, which differs between random starts "
            f"and which averaging takes away, and {_percent(expected.bias)} of bias, which all networks of this width "
            "share."
        )
        if not math.isfinite(ratio):
            return text
        if ratio > 3:
            return f"{text} This one is {ratio:.1f} times as far: check multipliers, learning rates and the loss."
        return f"{text} That is what it shows." if ratio < 1.5 else f"{text} It shows {ratio:.1f} times as much."

    def _layers(self) -> str:
        if not self.layers:
            return "Feature kernels were not recorded, so that layers cannot be told apart."
        last = {layer: float(distance.mean[-1]) for layer, distance in self.kernel_distances.items()}
        parts = [f"{_percent(value)} in {format_symbol('Phi', layer)}" for layer, value in last.items()]
        text = f"Feature kernels end {join(parts)} off."
        steps = {layer: step for layer, step in self.departures.items() if step is not None}
        if not steps:
            return f"{text} No layer gets much further than it was at initialization, where it is noise of the weights."
        first = min(steps, key=lambda layer: (steps[layer], -last[layer]))
        unit = self.own.training.unit
        return (
            f"{text} Layer {first} departs first: from {unit} {steps[first]} on it is twice as far as at "
            "initialization."
        )

    def _regime(self) -> str:
        if self.regime is None:
            return ""
        here, there = self.movement["own"], self.movement["infinite"]
        return (
            f"Learning is {self.regime}: training moves the last feature kernel by {format_number(here, 2)} times its "
            f"size here and by {format_number(there, 2)} times at infinite width "
            f"(gamma0 = {self.own.network.gamma0:.3g})."
        )

    def _wider(self) -> str:
        if self.corrections is not None:
            here = self.corrections.distance(self.width).total
            half, one = self.corrections.width_for(here / 2), self.corrections.width_for(0.01)
            eight = self.corrections.distance(self.width, 8).total
            return (
                f"Half as far takes a width of {half:,}, and 1 % a width of {one:,}; the mean of eight networks of "
                f"this width is within {_percent(eight)}."
            )
        return (
            f"If it is noise, a width of {4 * self.width:,} halves the distance, and so does the mean of four networks."
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the report, as JSON can hold them."""
        record: dict[str, Any] = {
            "width": self.width,
            "networks": self.networks,
            "distance": {"final": float(self.distance.mean[-1]), "largest": float(self.distance.mean.max())},
            "kernels": {str(layer): float(each.mean[-1]) for layer, each in self.kernel_distances.items()},
            "departures": {str(layer): step for layer, step in self.departures.items()},
            "movement": self.movement,
            "regime": self.regime,
            "comparison": self.comparison.to_records(),
            "corrections": None,
        }
        if self.corrections is not None:
            expected = self.corrections.distance(self.width)
            widths = {f"{share:g}": self.corrections.width_for(share) for share in (0.05, 0.02, 0.01)}
            record["corrections"] = {"noise": expected.noise, "bias": expected.bias, "widths": widths}
        return record

    # --- the page

    @property
    def names(self) -> dict[str, Solution]:
        """Both solutions, by their names on the page."""
        kind = "network" if self.networks == 1 else "networks"
        return {INFINITE: self.infinite, f"your {kind}, width {self.width:,}": self.own}

    def charts(self) -> list[Chart]:
        """Returns charts of the distance in predictions, and in the feature kernel of every layer."""
        results = number_results(self.names)
        charts = [self._chart({"predictions": (self.steps, self.distance)}, results, "Distance in predictions")]
        if self.layers:
            kernels = {
                format_symbol("Phi", layer): (self.kernel_steps, each) for layer, each in self.kernel_distances.items()
            }
            charts.append(self._chart(kernels, results, "Distance in feature kernels"))
        return charts

    def _chart(self, curves: Mapping[str, tuple[np.ndarray, Estimate]], results: list[Result], title: str) -> Chart:
        plot, keys = create_time_plot(results, "relative distance"), []
        for number, (name, (steps, distance)) in enumerate(curves.items()):
            colour = style.LAYERS[number % len(style.LAYERS)] if len(curves) > 1 else results[1].colour
            draw_curve(plot, steps, distance, colour, "line", name)
            keys.append(Key(name, colour, "line"))
        if self.corrections is not None and "predictions" in curves:
            expected = Estimate(np.full((1, 2), self.corrections.distance(self.width).total), exact=True)
            draw_curve(plot, self.steps[[0, -1]], expected, style.MUTED, "dotted", "expected after training")
            keys.append(Key("expected after training, to order 1/N", style.MUTED, "dotted"))
        zero = Estimate(np.zeros((1, 1)), exact=True)
        fit_range(plot, [zero, *(distance for _, distance in curves.values())])
        plot.y_range.start = 0
        return Chart(title, plot, keys)

    def write(self, path: str | os.PathLike[str], title: str | None = None, **options: Any) -> None:
        """Writes the page.

        Args:
            path: of the page, ending in .html.
            title: of the page.
            options: `versions` and `files` of `kernelfield.report.write`.

        Raises:
            ValueError, FileNotFoundError: as `kernelfield.report.write` raises them.
        """
        title = title or f"How far is width {self.width:,} from infinite width?"
        write(path, self.names, title, width=self, **options)


def width_report(
    own: Solution,
    infinite: Solution | None = None,
    corrections: Corrections | bool | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> WidthReport:
    """Returns how far a network that trained is from infinite width, and why.

    Args:
        own: Solution of one network, or of several of one width: recorded from your own training loop, or trained by
            `kernelfield.FiniteWidth`.
        infinite: Solution of the same run at infinite width; solved by March if it is not given.
        corrections: noise and bias to order 1 / N, which `finite_width_corrections` finds; True finds them, False
            leaves them out. By default they are found for gradient descent on up to 32 points (times sites), which
            takes about a minute.
        path: of a page to write, ending in .html.
        progress: show progress bars.

    Returns:
        WidthReport: print it for sentences, `write` a page.

    Raises:
        ValueError: `own` is not of finite width, solutions cannot be compared, or corrections are of another network.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> run = kf.MLP(depth=1), kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> own = kf.solve(*run, kf.FiniteWidth(width=128, seeds=1), progress=False)
        >>> report = kf.width_report(own, corrections=False, progress=False)
        >>> bool(report.distance.mean[-1] < 0.5), report.layers
        (True, [1])
    """
    if not isinstance(own.method, FiniteWidth):
        raise ValueError(f"own must be of networks of finite width, got {type(own.method).__name__}")
    if isinstance(corrections, Corrections):
        theirs = corrections.run
        if (theirs.network, theirs.training) != (own.network, own.training):
            raise ValueError("corrections must be those of the network and the training of own")
    run = Run(own.network, own.problem, own.training, March(kernels="features"), own.run.save_at)
    if infinite is None:
        infinite = solve_run(run, progress=progress)
    why = "Noise and bias to order 1/N were not asked for."
    if corrections is None:
        rows = own.problem.points * math.prod(own.network.inputs(own.problem).shape[1:-1])
        corrections = isinstance(own.training, GradientDescent) and rows <= FEW_ROWS
        why = "" if corrections else (
            "Noise and bias to order 1/N were not looked for: they take long but for gradient descent on few points."
        )  # fmt: skip
    if corrections is True:
        try:
            corrections = finite_width_corrections(
                own.network, own.problem, own.training, pairs=PAIRS, networks=2, progress=progress
            )
        except ValueError as error:
            why, corrections = f"Noise and bias to order 1/N are not known for this run: {error}.", None
    report = WidthReport(own, infinite, corrections or None, why)
    report.comparison  # noqa: B018  (raises here if they cannot be compared)
    if path is not None:
        report.write(path)
    return report


def _percent(value: float) -> str:
    return f"{format_number(100 * value, 2)} %"
