"""The figures of repeated configurations: who stands where, with every repeat as a point and its interval as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.page import formats
from reports.page.figure_style import BLUE, GRAY, INK, LIGHT, VERMILLION, Drawing, draw, short

SKY = "#56B4E9"
ROW_IN = 0.36
NAMED_ROW_IN = 0.46
WIDTH_IN = 5.4
"""A telephone shows it whole."""
LONGEST_LABEL = 34
LONGEST_NAME = 46


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A row of ``standing``. kind: "winner", "finalist" or "shortcut". points: the repeats' own scores; text: the value
    and its interval in words."""

    name: str
    kind: str
    value: float
    low: float
    high: float
    points: Sequence[float]
    text: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """A row of ``courses``: a configuration from the search to the split that judges it.

    search: its score there, NaN if unknown. validation, judged: of each repeat; mean, low, high: of ``judged``. winner:
    stands in bold.
    """

    name: str
    winner: bool
    search: float
    validation: Sequence[float]
    judged: Sequence[float]
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A group of ``bars``: a name, and for each of its bars the value, low and high."""

    name: str
    values: Sequence[tuple[float, float, float]]


def standing(marks: Sequence[Mark], label: str) -> Drawing:
    """The winner, the runners-up and the shortcuts on one scale; above each its name and its value in words."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, mark in enumerate(marks):
            color = {"winner": BLUE, "finalist": INK}.get(mark.kind, GRAY)
            shape = {"winner": "D", "finalist": "o"}.get(mark.kind, "s")
            width, size = (3.0, 6.5) if mark.kind == "winner" else (1.8, 5.0)
            fill = "white" if mark.kind == "shortcut" else color
            axes.hlines(place, mark.low, mark.high, color=color, linewidth=width)
            axes.plot([mark.value], [place], shape, color=color, markersize=size, markerfacecolor=fill, zorder=3)
            if len(mark.points) > 1:
                axes.plot(mark.points, [place] * len(mark.points), "|", color=color, markersize=10, zorder=2.5)
            weight = "bold" if mark.kind == "winner" else "normal"
            for text, across, side in ((short(mark.name, LONGEST_NAME), 0.0, "left"), (mark.text, 1.0, "right")):
                axes.annotate(
                    text,
                    (across, place - 0.28),
                    xycoords=("axes fraction", "data"),
                    ha=side,
                    va="bottom",
                    color=color,
                    fontweight=weight,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
        _rows(axes, [""] * len(marks))
        axes.set_ylim(len(marks) - 0.6, -0.85)
        for place in range(1, len(marks)):
            split = marks[place].kind == "shortcut" and marks[place - 1].kind != "shortcut"
            axes.axhline(place - 0.75, color=GRAY if split else LIGHT, linewidth=1.0 if split else 0.6, zorder=0.5)
        axes.set_xlabel(label)

    return draw(WIDTH_IN, 0.6 + NAMED_ROW_IN * max(len(marks), 1), paint)


def courses(rows: Sequence[Course], label: str, judged: str) -> Drawing:
    """Search score, repeats on validation, and repeats with mean and interval on the split that judges.

    judged: that split in words; "" where it is validation itself, whose repeats then bear the interval.
    """
    handles = [
        Line2D([], [], marker="D", color=GRAY, markerfacecolor="white", linestyle="none", label="search, best epoch"),
        Line2D([], [], marker="o", color=SKY, linestyle="none", markersize=5, label="repeats, validation"),
    ]
    if judged:
        text = f"repeats, {judged}; line: mean and 95 % interval"
        handles.append(Line2D([], [], marker="o", color=VERMILLION, markersize=5, label=text))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        shift = 0.17 if judged else 0.0
        for place, row in enumerate(rows):
            top, bottom = place - shift, place + shift
            color = VERMILLION if judged else SKY
            axes.hlines(bottom, row.low, row.high, color=color, linewidth=1.8, zorder=2)
            axes.plot([row.mean], [bottom], "|", color=color, markersize=13, markeredgewidth=2.2, zorder=2)
            axes.plot([row.search], [top], "D", color=GRAY, markerfacecolor="white", markersize=6, zorder=2.5)
            axes.plot(row.validation, [top] * len(row.validation), "o", color=SKY, markeredgecolor="white", zorder=3)
            if judged:
                axes.plot(row.judged, [bottom] * len(row.judged), "o", color=color, markeredgecolor="white", zorder=3)
        _rows(axes, [row.name for row in rows])
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if row.winner else "normal")
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color=LIGHT, linewidth=0.8)
        axes.set_xlabel(label)
        figure.legend(handles=handles, loc="outside upper left", ncols=2 if len(handles) > 2 else 3)

    return draw(WIDTH_IN, 1.15 + (0.5 if judged else ROW_IN) * max(len(rows), 1), paint)


def bars(groups: Sequence[Bars], names: Sequence[str]) -> Drawing:
    """A group of horizontal bars for each configuration, with an interval where it is known. names: of the bars."""
    colors = (SKY, BLUE, "#E69F00")
    hatches = ("", "", "///")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        thick = 0.8 / len(names)
        for at, color in zip(range(len(names)), colors, strict=False):
            places = np.arange(len(groups)) + (at - (len(names) - 1) / 2) * thick
            values = np.array([group.values[at] for group in groups], dtype=float)
            axes.barh(
                places,
                np.nan_to_num(values[:, 0]),
                0.92 * thick,
                color=color,
                hatch=hatches[at],
                edgecolor="white",
                linewidth=0.5,
            )
            axes.hlines(places, values[:, 1], values[:, 2], color=INK, linewidth=1.1)
            for place, (value, _, high) in zip(places, values, strict=True):
                end = np.nanmax([value, high, 0.0])
                axes.text(end + 0.012, place, formats.show("score", float(value)), va="center", fontsize=7.5)
        _rows(axes, [group.name for group in groups])
        axes.set_xlim(0, 1.09)
        axes.set_xticks(np.arange(0, 1.01, 0.2))
        axes.set_xlabel("score")
        handles = [
            Patch(facecolor=color, hatch=hatch, edgecolor="white", label=name)
            for color, hatch, name in zip(colors, hatches, names, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(names))

    return draw(WIDTH_IN, 1.05 + 0.24 * len(names) * max(len(groups), 1), paint)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """One row a name, the first at the top."""
    axes.set_yticks(range(len(names)), [short(name, LONGEST_LABEL) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
