"""The figures of probabilities: a small panel for each class, with ROC, precision-recall or reliability curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.drawing import BLUE, GRAY, INK, LIGHT, ORANGE, VERMILLION, drawn, grid, legend, short

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]
MOST_PANELS = 30
MOST_POINTS = 250
"""Most points of a drawn curve: more would not be visible, and would enlarge the page."""
_REFERENCE: dict[str, Any] = {"color": GRAY, "linestyle": (0, (2, 2)), "linewidth": 1}
_OTHER_RUNS: dict[str, Any] = {"color": BLUE, "alpha": 0.4, "linewidth": 0.9}
_POINTS: tuple[dict[str, Any], ...] = tuple(
    {"marker": shape, "color": color, "markersize": 6, "markeredgecolor": "white", "linestyle": "none"}
    for shape, color in (("o", VERMILLION), ("D", ORANGE))
)


@dataclass(frozen=True)
class CurvePanel:
    """Curves of one class. runs: one per run, the reported model's first; empty: undefined. text: shown inside.

    level: the share of images with the class (precision-recall); None draws the diagonal (ROC). points: name, x and y
    of each operating point.
    """

    title: str
    runs: Sequence[Curve]
    text: str
    level: float | None = None
    points: Sequence[tuple[str, float, float]] = ()


@dataclass(frozen=True)
class ReliabilityPanel:
    """Bins of one class: confidence, observed, low and high, NaN in an empty bin, and counts.

    others: confidence and observed of the other runs.
    """

    title: str
    text: str
    bins: pd.DataFrame
    others: Sequence[Curve]


Panel = TypeVar("Panel", CurvePanel, ReliabilityPanel)


@drawn
def curves(panels: Sequence[CurvePanel], x: str, y: str) -> Figure:
    """ROC curves, or precision-recall curves as steps (no precision lies between two thresholds). x, y: axis titles."""
    handles: list[Line2D | Patch] = [Line2D([], [], color=BLUE, label="reported model")]
    if any(len(panel.runs) > 1 for panel in panels):
        handles.append(Line2D([], [], label="other repeats", **_OTHER_RUNS))
    handles.append(Line2D([], [], label="chance", **_REFERENCE))
    names = dict.fromkeys(name for panel in panels for name, *_ in panel.points)
    handles += [Line2D([], [], label=name, **style) for name, style in zip(names, _POINTS, strict=False)]
    return _panels(panels, _curves, x, y, handles)


@drawn
def reliability(panels: Sequence[ReliabilityPanel]) -> Figure:
    """Predicted probability against observed share; bars below: the number of images with such a probability."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, label="reported model"),
        Line2D([], [], label="calibrated", **_REFERENCE),
        Patch(color=LIGHT, label="images"),
    ]
    if any(panel.others for panel in panels):
        handles.insert(1, Line2D([], [], label="other repeats", **_OTHER_RUNS))
    return _panels(panels, _bins, "probability", "observed share", handles)


def curve_frame(panels: Sequence[CurvePanel], x: str, y: str) -> pd.DataFrame:
    """The drawn points of each class and run (1: the reported model); x, y: titles of the coordinates."""
    parts = [
        pd.DataFrame({"class": panel.title, "run": run, x: across, y: up})
        for panel in panels
        for run, (across, up) in enumerate(panel.runs, 1)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["class", "run", x, y])


def bin_frame(panels: Sequence[ReliabilityPanel]) -> pd.DataFrame:
    """The bins of each class that hold images, of the reported model."""
    parts = [pd.DataFrame({"class": one.title} | dict(one.bins.items())) for one in panels]
    return pd.concat(parts, ignore_index=True).query("counts > 0")


def thinned(x: Array, y: Array) -> Curve:
    """At most MOST_POINTS of the points, ends included, evenly spread along the curve."""
    if len(x) <= MOST_POINTS:
        return x, y
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    places = np.unique(np.searchsorted(length, np.linspace(0, length[-1], MOST_POINTS)))
    places[0], places[-1] = 0, len(x) - 1
    return x[places], y[places]


def _panels(
    panels: Sequence[Panel], paint: Callable[[Axes, Panel], None], x: str, y: str, handles: Sequence[Line2D | Patch]
) -> Figure:
    """A square panel for each class."""
    number = len(panels)
    across = {1: 1, 2: 2, 4: 2}.get(number, 3)
    if number > 9:
        across = min((5, 4), key=lambda columns: -number % columns)  # the fewest places left empty
    figure, places = grid(number, across, (3.4, 0.5, 1.95), (0.95, 2.1), "xy")
    for place, axes in enumerate(places):
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.tick_params(labelbottom=place + across >= number)
        axes.set_title(short(panels[place].title, 20))
        paint(axes, panels[place])
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    legend(figure, handles, 2)
    return figure


def _curves(axes: Axes, panel: CurvePanel) -> None:
    if not panel.runs:
        _say(axes, panel.text, 0.5, 0.5, "center", "center")
        return
    stairs: Any = "default" if panel.level is None else "steps-post"
    axes.plot([0, 1], [0, 1] if panel.level is None else [panel.level] * 2, **_REFERENCE)
    for x, y in panel.runs[1:]:
        axes.plot(x, y, drawstyle=stairs, **_OTHER_RUNS)
    axes.plot(*panel.runs[0], color=BLUE, drawstyle=stairs)
    for (_, right, up), style in zip(panel.points, _POINTS, strict=False):
        axes.plot([right], [up], zorder=4, **style)
    _say(axes, panel.text, *((0.98, 0.03, "right") if panel.level is None else (0.03, 0.03, "left")), "bottom")


def _bins(axes: Axes, panel: ReliabilityPanel) -> None:
    axes.plot([0, 1], [0, 1], **_REFERENCE)
    counts, edges = panel.bins["counts"].to_numpy(), np.linspace(0, 1, len(panel.bins) + 1)
    heights = 0.22 * counts / max(counts.max(), 1)
    axes.bar(
        edges[:-1], heights, np.diff(edges), align="edge", color=LIGHT, edgecolor="white", linewidth=0.5, zorder=0.6
    )
    for confidence, observed in panel.others:
        known = np.isfinite(confidence)
        axes.plot(confidence[known], observed[known], **_OTHER_RUNS)
    confidence, observed, low, high = panel.bins.drop(columns="counts").dropna().to_numpy().T
    axes.vlines(confidence, low, high, color=BLUE, linewidth=0.9)
    axes.plot(confidence, observed, color=BLUE, marker="o", markersize=4)
    _say(axes, panel.text, 0.03, 0.97, "left", "top")


def _say(axes: Axes, text: str, x: float, y: float, across: Any, up: Any) -> None:
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(x, y, text, ha=across, va=up, transform=axes.transAxes, fontsize=7.5, color=INK, bbox=box, zorder=5)
