"""The figures of one network's probabilities: a small panel for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.page.figure_style import BLUE, GRAY, INK, LIGHT, VERMILLION, Drawing, draw, short

ORANGE = "#E69F00"
MOST_POINTS = 250
"""Of a drawn curve: more would be seen by nobody and fill the page."""

MOST_PANELS = 30
MARKS = (("o", VERMILLION), ("D", ORANGE))

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]


@dataclass(frozen=True)
class CurvePanel:
    """Curves of one class. runs: of each run, the shown network first; none: undefined. text: stands inside.

    level: the share of images with the class (precision-recall); None draws the diagonal (ROC). points: pairs of a name
    and its place, where decisions are taken.
    """

    title: str
    runs: Sequence[Curve]
    text: str
    level: float | None = None
    points: Sequence[tuple[str, float, float]] = ()


@dataclass(frozen=True)
class ReliabilityPanel:
    """Bins of one class, B of them. confidence, observed, low, high: [B], NaN in an empty bin; counts: [B].

    others: confidence and observed of the other runs.
    """

    title: str
    text: str
    confidence: Array
    observed: Array
    low: Array
    high: Array
    counts: npt.NDArray[np.int64]
    others: Sequence[Curve]


Panel = TypeVar("Panel", CurvePanel, ReliabilityPanel)


def roc(panels: Sequence[CurvePanel]) -> Drawing:
    """False positive rate against sensitivity."""
    return _panels(panels, _curves, "1 - specificity", "sensitivity", _curve_legend(panels))


def precision_recall(panels: Sequence[CurvePanel]) -> Drawing:
    """Recall against precision; each curve is a stair: no precision lies between two thresholds."""
    return _panels(panels, _curves, "recall (sensitivity)", "precision (PPV)", _curve_legend(panels))


def reliability(panels: Sequence[ReliabilityPanel]) -> Drawing:
    """Probability given against how often it came true; bars below: how many images have such a probability."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, label="shown network"),
        Line2D([], [], color=GRAY, linestyle=(0, (2, 2)), linewidth=1, label="as it should be"),
        Patch(color=LIGHT, label="images"),
    ]
    if any(panel.others for panel in panels):
        handles.insert(1, Line2D([], [], color=BLUE, alpha=0.4, linewidth=0.9, label="other repeats"))
    return _panels(panels, _bins, "probability", "observed share", handles)


def thinned(x: Array, y: Array) -> Curve:
    """At most MOST_POINTS of the points, ends included, evenly spread along the curve."""
    if len(x) <= MOST_POINTS:
        return x, y
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    places = np.unique(np.searchsorted(length, np.linspace(0, length[-1], MOST_POINTS)))
    places[0], places[-1] = 0, len(x) - 1
    return x[places], y[places]


def _panels(
    panels: Sequence[Panel], paint_one: Callable[[Axes, Panel], None], x: str, y: str, handles: Sequence[Line2D | Patch]
) -> Drawing:
    number = len(panels)
    across = {1: 1, 2: 2, 4: 2}.get(number, 3)
    if number > 9:
        across = min((5, 4), key=lambda columns: -number % columns)  # the fewest places left empty
    down = -(-number // across)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place >= number:
                axes.set_axis_off()
                continue
            panel = panels[place]
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.tick_params(labelbottom=place + across >= number)
            axes.set_title(short(panel.title, 20))
            paint_one(axes, panel)
        figure.supxlabel(x, fontsize=9)
        figure.supylabel(y, fontsize=9)
        figure.legend(handles=list(handles), loc="outside upper left", ncols=2)

    return draw(max(3.4, 0.5 + 1.95 * across), 0.95 + 2.1 * down, paint)


def _curves(axes: Axes, panel: CurvePanel) -> None:
    if not panel.runs:
        _say(axes, panel.text, "center")
        return
    if panel.level is None:
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle=(0, (2, 2)), linewidth=1)
    else:
        axes.axhline(panel.level, color=GRAY, linestyle=(0, (2, 2)), linewidth=1)
    stairs = "default" if panel.level is None else "steps-post"
    for x, y in panel.runs[1:]:
        axes.plot(x, y, color=BLUE, alpha=0.4, linewidth=0.9, drawstyle=stairs)
    axes.plot(*panel.runs[0], color=BLUE, drawstyle=stairs)
    for (_, right, up), (shape, color) in zip(panel.points, MARKS, strict=False):
        axes.plot([right], [up], shape, color=color, markersize=6, markeredgecolor="white", zorder=4)
    _say(axes, panel.text, "lower right" if panel.level is None else "lower left")


def _curve_legend(panels: Sequence[CurvePanel]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [Line2D([], [], color=BLUE, label="shown network")]
    if any(len(panel.runs) > 1 for panel in panels):
        handles.append(Line2D([], [], color=BLUE, alpha=0.4, linewidth=0.9, label="other repeats"))
    handles.append(Line2D([], [], color=GRAY, linestyle=(0, (2, 2)), linewidth=1, label="without knowledge"))
    names = dict.fromkeys(name for panel in panels for name, *_ in panel.points)
    for name, (shape, color) in zip(names, MARKS, strict=False):
        handles.append(
            Line2D(
                [], [], color=color, marker=shape, linestyle="none", markeredgecolor="white", markersize=6, label=name
            )
        )
    return handles


def _bins(axes: Axes, panel: ReliabilityPanel) -> None:
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle=(0, (2, 2)), linewidth=1)
    edges = np.linspace(0, 1, len(panel.counts) + 1)
    seen = panel.counts > 0
    heights = 0.22 * panel.counts[seen] / panel.counts.max()
    axes.bar(
        edges[:-1][seen],
        heights,
        np.diff(edges)[seen],
        align="edge",
        color=LIGHT,
        edgecolor="white",
        linewidth=0.5,
        zorder=0.6,
    )
    for confidence, observed in panel.others:
        known = np.isfinite(confidence)
        axes.plot(confidence[known], observed[known], color=BLUE, alpha=0.4, linewidth=0.9)
    known = np.isfinite(panel.confidence)
    x, y = panel.confidence[known], panel.observed[known]
    axes.vlines(x, panel.low[known], panel.high[known], color=BLUE, linewidth=0.9)
    axes.plot(x, y, color=BLUE, marker="o", markersize=4)
    _say(axes, panel.text, "upper left")


def _say(axes: Axes, text: str, place: str) -> None:
    left, bottom, across, up = {
        "lower right": (0.98, 0.03, "right", "bottom"),
        "lower left": (0.03, 0.03, "left", "bottom"),
        "upper left": (0.03, 0.97, "left", "top"),
        "center": (0.5, 0.5, "center", "center"),
    }[place]
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(
        left, bottom, text, ha=across, va=up, transform=axes.transAxes, fontsize=7.5, color=INK, bbox=box, zorder=5
    )
