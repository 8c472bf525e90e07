"""Optuna's plots of a study, redrawn in the report's style: its own do not fit a page or a telephone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from reports.page import formats
from reports.page.figure_style import BLUE, GRAY, INK, LIGHT, VERMILLION, Drawing, draw, short

SLICE_IN = 3.3
CROWDED = 200  # from here on marks are pixels within the SVG: vectors would make the page heavy
_INACTIVE = -0.09


def importance_dots(importances: pd.DataFrame, titles: Sequence[str]) -> Drawing:
    """Importance as a multiple of chance, on a logarithmic axis. importances: ``importance.importances``."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        ratio = importances["times_chance"].to_numpy(dtype=np.float64)
        places = np.arange(len(ratio))
        shown = np.clip(ratio, 0.01, None)
        beyond = ratio > 1
        axes.axvline(1, color=GRAY, linewidth=1.2)
        axes.hlines(places, 1, shown, color=LIGHT, linewidth=2, zorder=1)
        axes.plot(shown[beyond], places[beyond], "o", color=BLUE, markersize=7)
        axes.plot(shown[~beyond], places[~beyond], "o", color=GRAY, markersize=6, markerfacecolor="white")
        axes.set_xscale("log")
        axes.set_xlim(min(0.05, float(np.nanmin(shown, initial=0.05)) / 1.5), max(4, np.nanmax(shown, initial=1) * 1.6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(places, [short(title, 26) for title in titles])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("importance, as a multiple of chance")

    return draw(4.4, 0.9 + 0.25 * max(len(importances), 2), paint)


def slice_plot(
    values: pd.Series[Any],
    scores: NDArray[np.float64],
    distribution: BaseDistribution,
    title: str,
    label: str,
    best: int,
) -> Drawing:
    """Scores against what the trials took for one parameter. values: by place in ``scores``;
    best: the best's place. All slices of a study have the same vertical axis."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = values.index.to_numpy(dtype=np.int64)
        own = scores[places]
        choices = choices_of(values) if isinstance(distribution, CategoricalDistribution) else []
        if choices:
            level = np.array([choices.index(str(value)) for value in values], dtype=np.float64)
            across = level + 0.22 * _spread(places)
            for place in range(len(choices)):
                middle = float(np.median(own[level == place]))
                axes.plot([place - 0.32, place + 0.32], [middle, middle], color=INK, linewidth=1.6, zorder=3)
            _name_levels(axes, choices)
        else:
            across = values.to_numpy(dtype=np.float64)
            _scale(axes, distribution, across)
        crowded = len(own) > CROWDED
        size, shade = (5, 0.35) if crowded else (7, 0.6)
        axes.plot(across, own, ".", color=BLUE, markersize=size, alpha=shade, rasterized=crowded, zorder=2)
        is_best = places == best
        axes.plot(across[is_best], own[is_best], "D", color=VERMILLION, markersize=5.5, zorder=4)
        room = 0.06 * float(np.ptp(scores))
        axes.set_ylim(scores.min() - room, scores.max() + room)
        axes.set_xlabel(title)
        axes.set_ylabel(label)

    return draw(SLICE_IN, 2.5, paint)


def parallel_coordinates(
    table: pd.DataFrame, logarithmic: Sequence[str], titles: Sequence[str], label: str, lower_is_better: bool
) -> Drawing:
    """One line a trial through its values and its score, the best darkest and on top.

    table: one row a trial; its first column the score, then one column a parameter, numbers or text, NaN where a trial
    does not have it. logarithmic: the parameters with such an axis. titles: of the parameters.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        heights, ticks = [], []
        for name in table:
            height, marks = _axis(table[name], str(name) in logarithmic)
            heights.append(height)
            ticks.append(marks)
        lines = np.stack(heights, axis=1)
        good = lines[:, 0] if not lower_is_better else 1 - lines[:, 0]
        order = np.argsort(good, kind="stable")
        rank = np.linspace(0, 1, len(order))
        colors = mpl.colormaps["YlGnBu"](0.22 + 0.78 * rank**3)
        points = [np.column_stack([np.arange(lines.shape[1]), line]) for line in lines[order]]
        axes.add_collection(LineCollection(points, colors=colors, linewidths=1.1, alpha=0.85))
        axes.set_xlim(-0.15, lines.shape[1] - 0.6)
        axes.set_ylim(_INACTIVE - 0.04, 1.04)
        axes.set_xticks(
            range(lines.shape[1]),
            [_two_lines(text) for text in (label, *titles)],
            fontsize=8,
        )
        axes.tick_params(axis="x", length=0, top=True, labeltop=True, labelbottom=False)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        halo = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        for place, marks in enumerate(ticks):
            axes.plot([place, place], [0, 1], color=GRAY, linewidth=0.9, zorder=2.5)
            for at, text in marks:
                axes.plot([place - 0.02, place + 0.02], [at, at], color=GRAY, linewidth=0.9, zorder=2.5)
                axes.text(place + 0.05, at, text, va="center", fontsize=7.5, bbox=halo, zorder=3)

    return draw(1.0 + 0.95 * table.shape[1], 3.4, paint)


def _spread(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [-1, 1) that look random and hang on the place alone: the golden ratio's multiples."""
    return np.asarray((places * 0.6180339887498949) % 1 * 2 - 1, dtype=np.float64)


def choices_of(values: pd.Series[Any]) -> list[str]:
    """The values as text, words before numbers, these by their size."""
    known = {str(value): value for value in values}
    return sorted(known, key=lambda text: (_leading_numbers(text), text))


def _leading_numbers(text: str) -> list[float]:
    """[256, 128] for "256+128", [0.5] for "0.5", [] for what begins with a letter."""
    return [float(number) for number in re.findall(r"[\d.]+", text)] if re.fullmatch(r"[\d.+]*\d", text) else []


def _name_levels(axes: Axes, choices: list[str]) -> None:
    names = [short(choice, 16) for choice in choices]
    turned = sum(map(len, names)) > 30
    axes.set_xticks(range(len(names)), names, rotation=35 if turned else 0, ha="right" if turned else "center")
    for label in axes.get_xticklabels():
        label.set_rotation_mode("anchor" if turned else "default")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="x")


def _scale(axes: Axes, distribution: BaseDistribution, taken: NDArray[np.float64]) -> None:
    """The horizontal axis of a number: its few values as ticks, or some of its range."""
    logarithmic = is_log(distribution) and bool((taken > 0).all())
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    few = _few(np.log10(taken) if logarithmic else taken, taken)
    if few is not None:
        ticks = np.unique(taken)
        axes.set_xticks(ticks, [formats.general(float(value)) for value in ticks])
    elif logarithmic:
        narrow = taken.max() < 30 * taken.min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(distribution, IntDistribution)))


def is_log(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log


def _few(scaled: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The different values in their order, if they are so few and so far apart that each can be labelled."""
    values = np.unique(scaled)
    longest = max(len(formats.general(float(label))) for label in labels)
    apart = len(values) < 2 or np.diff(values).min() >= max(0.09, 0.03 * longest) * (values[-1] - values[0])
    return values if len(values) <= 6 and apart else None


def _axis(values: pd.Series[Any], logarithmic: bool) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Heights in [0, 1], ``_INACTIVE`` for NaN, and the labelled places of one vertical axis."""
    known = values.dropna()
    heights = np.full(len(values), _INACTIVE)
    if any(isinstance(value, str) for value in known):
        choices = choices_of(known)
        step = 1 / max(len(choices) - 1, 1)
        heights[values.notna()] = [choices.index(str(value)) * step for value in known]
        marks = [(place * step, short(choice, 14)) for place, choice in enumerate(choices)]
    else:
        numbers = known.to_numpy(dtype=np.float64)
        scaled = np.asarray(np.log10(numbers) if logarithmic else numbers, dtype=np.float64)
        low, high = float(scaled.min()), float(scaled.max())
        heights[values.notna()] = (scaled - low) / (high - low) if high > low else 0.5
        few = _few(scaled, numbers)
        at = np.linspace(low, high, 5) if few is None else few
        shown = 10**at if logarithmic else at
        marks = [
            ((place - low) / (high - low) if high > low else 0.5, formats.general(float(f"{value:.6g}")))
            for place, value in zip(at, shown, strict=True)
        ]
    if len(known) < len(values):
        marks.append((_INACTIVE, "without"))
    return heights, marks


def _two_lines(text: str) -> str:
    """Broken at the space nearest to the middle."""
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if len(text) <= 10 or not spaces:
        return text
    middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
