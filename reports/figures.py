"""The figures of the report: each takes facts and returns a drawing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reports import formats
from reports.drawing import BLUE, GRAY, INK, LIGHT, ORANGE, SKY, VERMILLION, blank, drawn, grid, legend, short

Array = npt.NDArray[np.float64]
Scale = Literal["categorical", "logarithmic", "linear", "integer"]
NARROW_IN, WIDE_IN = 4.4, 5.4
"""Widths of figures; either fits the screen of a phone."""
SPLIT_COLORS = {"train": BLUE, "val": SKY, "test": "#999999"}
STATUS_COLORS = {"completed": BLUE, "pruned": ORANGE, "failed": VERMILLION, "running": GRAY}
MAX_LABELS_WITH_SHARES = 8
MOST_COUNTS = 40
"""Most classes for which a confusion matrix shows counts: each count is an element of the page."""
CROWDED = 200
"""Number of marks above which they are pixels within the SVG: vectors would make the page too large."""


@drawn
def forest(marks: pd.DataFrame, label: str) -> Figure:
    """The winner, the runners-up and the baselines on one scale; above each its name and its value in words.

    Columns: name, kind ("winner", "finalist" or "baseline"), score, low, high, points (of single networks), text (score
    and interval in words).
    """
    figure, axes = blank(WIDE_IN, 0.6 + 0.44 * len(marks))
    styles = {"winner": (BLUE, "D", 3.0, 6.5, "bold"), "finalist": (INK, "o", 1.8, 5.0, "normal")}
    for place, mark in enumerate(marks.to_dict("records")):
        color, shape, width, size, weight = styles.get(mark["kind"], (GRAY, "s", 1.8, 5.0, "normal"))
        fill = "white" if mark["kind"] == "baseline" else color
        axes.hlines(place, mark["low"], mark["high"], color=color, linewidth=width)
        axes.plot([mark["score"]], [place], shape, color=color, markersize=size, markerfacecolor=fill, zorder=3)
        if len(mark["points"]) > 1:
            axes.plot(mark["points"], [place] * len(mark["points"]), "|", color=color, markersize=10, zorder=2.5)
        words: dict[str, Any] = {"va": "bottom", "color": color, "fontweight": weight}
        words["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        at: Any = ("axes fraction", "data")
        axes.annotate(short(mark["name"], 46), (0.0, place - 0.28), xycoords=at, ha="left", **words)
        axes.annotate(mark["text"], (1.0, place - 0.28), xycoords=at, ha="right", **words)
    _name_rows(axes, [""] * len(marks))
    axes.set_ylim(len(marks) - 0.6, -0.85)
    baseline = (marks["kind"] == "baseline").tolist()
    for place in range(1, len(marks)):
        split = baseline[place] and not baseline[place - 1]
        axes.axhline(place - 0.75, color=GRAY if split else LIGHT, linewidth=1.0 if split else 0.6, zorder=0.5)
    axes.set_xlabel(label)
    return figure


@drawn
def courses(rows: pd.DataFrame, label: str, judged: str) -> Figure:
    """Search score, repeats on validation, and repeats with mean and interval on the judging split.

    Columns: name, winner (shown in bold), search (the search score, NaN if unknown), validation, judged (of each
    repeat), mean, low, high (of ``judged``). judged: the judging split in words; "" if it is validation itself, whose
    repeats then have the interval.
    """
    figure, axes = blank(WIDE_IN, 1.15 + (0.5 if judged else 0.36) * max(len(rows), 1))
    search: dict[str, Any] = {"marker": "D", "color": GRAY, "markerfacecolor": "white", "linestyle": "none"}
    repeat: dict[str, Any] = {"marker": "o", "markeredgecolor": "white", "linestyle": "none"}
    handles = [
        Line2D([], [], label="search, best epoch", **search),
        Line2D([], [], label="repeats, validation", color=SKY, **repeat),
    ]
    if judged:
        handles.append(
            Line2D([], [], color=VERMILLION, marker="o", label=f"repeats, {judged}; line: mean and 95 % interval")
        )
    color = VERMILLION if judged else SKY
    for place, row in enumerate(rows.to_dict("records")):
        top, bottom = (place - 0.17, place + 0.17) if judged else (place, place)
        axes.hlines(bottom, row["low"], row["high"], color=color, linewidth=1.8, zorder=2)
        axes.plot([row["mean"]], [bottom], "|", color=color, markersize=13, markeredgewidth=2.2, zorder=2)
        axes.plot([row["search"]], [top], markersize=6, zorder=2.5, **search)
        axes.plot(row["validation"], [top] * len(row["validation"]), color=SKY, zorder=3, **repeat)
        if judged:
            axes.plot(row["judged"], [bottom] * len(row["judged"]), color=color, zorder=3, **repeat)
        if place:
            axes.axhline(place - 0.5, color=LIGHT, linewidth=0.8)
    _name_rows(axes, rows["name"].tolist())
    for tick, winner in zip(axes.get_yticklabels(), rows["winner"], strict=True):
        tick.set_fontweight("bold" if winner else "normal")
    axes.set_xlabel(label)
    legend(figure, handles, 2 if judged else 3)
    return figure


@drawn
def bars(scores: pd.DataFrame, label: str) -> Figure:
    """Horizontal bars of scores in [0, 1]. scores: name, value, low and high (NaN: no interval) of each row."""
    figure, axes = blank(WIDE_IN, 0.7 + 0.24 * max(len(scores), 1))
    places, values = np.arange(len(scores)), scores.iloc[:, 1:].to_numpy(dtype=float)
    axes.barh(places, np.nan_to_num(values[:, 0]), 0.92 * 0.8, color=SKY, edgecolor="white", linewidth=0.5)
    axes.hlines(places, values[:, 1], values[:, 2], color=INK, linewidth=1.1)
    for place, (value, _, high) in zip(places, values, strict=True):
        end = np.nanmax([value, high, 0.0])
        axes.text(end + 0.012, float(place), formats.show("score", float(value)), va="center", fontsize=7.5)
    _name_rows(axes, [str(name) for name in scores.iloc[:, 0]])
    axes.set(xlim=(0, 1.09), xticks=np.arange(0, 1.01, 0.2), xlabel=label)
    return figure


@drawn
def stacked_bars(counts: pd.DataFrame) -> Figure:
    """Horizontal bars of image counts. counts: the first column names the rows, those in ``SPLIT_COLORS`` are parts."""
    figure, axes = blank(NARROW_IN, 1.1 + 0.29 * max(len(counts), 1))
    start = np.zeros(len(counts))
    for name, color in SPLIT_COLORS.items():
        if name in counts and counts[name].any():
            values = counts[name].to_numpy(dtype=float)
            axes.barh(np.arange(len(counts)), values, left=start, color=color, edgecolor="white", label=name)
            start += values
    _name_rows(axes, [str(name) for name in counts.iloc[:, 0]], 18)
    axes.set_xlabel("images")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(figure, columns=3)
    return figure


@drawn
def heat_map(scores: pd.DataFrame, tried: pd.DataFrame, label: str, lower_is_better: bool) -> Figure:
    """Best score of each backbone (row) and depth (column). scores, tried: ``tables.cell_grid``; NaN = no score, but
    at least one score must be finite."""
    title = textwrap.fill(label, 13 + 8 * scores.shape[1])
    figure, axes = blank(1.9 + 0.7 * scores.shape[1], 1.05 + 0.15 * len(title.splitlines()) + 0.42 * scores.shape[0])
    values = scores.to_numpy(dtype=float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # A single score, or equal ones, need a range, and the palest shade should remain visible on the page.
    spread = max(high - low, 0.05)
    unscored = tried.map(lambda count: "" if np.isnan(count) else "no score")
    texts = scores.map(formats.score).where(np.isfinite(values), unscored).to_numpy().tolist()
    axes.set_facecolor("#eef0f3")
    limits = (low - 0.25 * spread, high + 0.05 * spread)
    image = _cells(axes, values, texts, "Blues" + ("_r" if lower_is_better else ""), limits, fontweight="bold")
    axes.set_xticks(range(scores.shape[1]), [str(name).replace(" ", "\n", 1) for name in scores.columns])
    axes.set_yticks(range(scores.shape[0]), [short(str(name), 20) for name in scores.index])
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    axes.set_title(title, loc="left", fontsize=9)  # Next to the colour bar of a single row it would be cut off.
    bar.outline.set_visible(False)
    return figure


@drawn
def confusion(counts: npt.NDArray[np.int64], shares: Array, classes: Sequence[str]) -> Figure:
    """Counts [C, C], rows true; the shade is the share of the row, which is shown as text too if there is room. Above
    ``MOST_COUNTS`` classes no numbers are shown.

    Not scikit-learn's ConfusionMatrixDisplay: it shows either counts or shares, and does not turn long names.
    """
    number = len(classes)
    if number > MOST_COUNTS:
        return _shades_alone(shares, classes)
    with_shares = number <= MAX_LABELS_WITH_SHARES
    side = 1.7 + (0.5 if with_shares else 0.4) * number
    figure, axes = blank(max(3.6, side + 0.4), max(3.1, side))
    texts = _counts_and_shares(counts, shares) if with_shares else [[f"{count:,}" for count in row] for row in counts]
    _cells(axes, shares, texts, fontsize=9 if with_shares else 7)
    names = [short(name, 16) for name in classes]
    room_in = (figure.get_figwidth() - 0.5 - 0.08 * max(map(len, names))) / number
    _name_columns(axes, names, turned=40 if 0.08 * max(map(len, names)) > room_in else 0)
    axes.set_yticks(range(number), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def _shades_alone(shares: Array, classes: Sequence[str]) -> Figure:
    """A matrix of too many classes for numbers in its cells; rows are named if there is room."""
    side = min(0.13 * len(classes), 9.0)
    figure, axes = blank(side + 2.0, side + 0.8)
    axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    names = [short(name, 16) for name in classes] if side < 9.0 else []
    axes.set_xticks([])
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


@drawn
def label_matrices(counts: npt.NDArray[np.int64], shares: Array, classes: Sequence[str]) -> Figure:
    """One 2 x 2 matrix per label. counts, shares: [C, 2, 2], rows true (no, yes), columns predicted (no, yes)."""
    across = 2 if len(classes) == 4 else min(3, len(classes))
    figure, places = grid(len(classes), across, (2.4, 0.3, 1.45), (0.5, 1.6))
    for place, axes in enumerate(places):
        _cells(axes, shares[place], _counts_and_shares(counts[place], shares[place]), fontsize=8)
        axes.set_title(short(classes[place], 13))
        axes.set_xticks([0, 1], ["no", "yes"])
        axes.set_yticks([0, 1], ["no", "yes"])
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


@drawn
def mean_maps(maps: Mapping[str, Array], frame_part: float) -> Figure:
    """Attribution of each class, [S, S], on one scale; a line bounds the frame, which is ``frame_part`` of a side."""
    figure, places = grid(len(maps), min(5, len(maps)), (2.4, 0.8, 1.35), (0.1, 1.55))
    highest = max(float(one.max()) for one in maps.values())
    for axes, (name, attribution) in zip(places, maps.items(), strict=True):
        axes.set_axis_off()
        # Edges at 0 and 1, so that the line lies where the frame ends.
        image = axes.imshow(attribution, cmap="magma", vmin=0, vmax=highest, extent=(0, 1, 1, 0))
        corner, inner = (frame_part, frame_part), 1 - 2 * frame_part
        axes.add_patch(Rectangle(corner, inner, inner, fill=False, edgecolor="white", linewidth=0.8))
        axes.set_title(short(name, 15), fontsize=8.5)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8, pad=0.02)
    bar.set_ticks([0, highest], labels=["none", "most"])
    bar.outline.set_visible(False)
    return figure


@drawn
def curve(epochs: pd.DataFrame, train: str, val: str, label: str, best_epoch: float) -> Figure:
    """Columns ``train`` and ``val`` of one trial's epochs, the best epoch marked."""
    figure, axes = blank(NARROW_IN, 2.7)
    for column, name, color, dash in ((train, "training", GRAY, (0, (4, 2))), (val, "validation", BLUE, "-")):
        if column in epochs and epochs[column].notna().any():
            axes.plot(epochs["epoch"], epochs[column], color=color, linestyle=dash, marker=".", label=name)
    if np.isfinite(best_epoch):
        axes.axvline(best_epoch, color=VERMILLION, linewidth=1.0, label=f"best epoch ({best_epoch:.0f})")
    _epoch_axis(figure, axes, label)
    return figure


@drawn
def all_curves(
    epochs: pd.DataFrame, trials: pd.DataFrame, metric: str, label: str, rungs: Sequence[int], best_id: str | None
) -> Figure:
    """The selection metric of every trial by epoch, coloured by status; a mark where a trial was pruned."""
    figure, axes = blank(WIDE_IN, 3.4)
    scored = epochs[["trial_id", "epoch", metric]].dropna()
    lines = {name: part[["epoch", metric]].to_numpy() for name, part in scored.groupby("trial_id")}
    shade = max(0.12, min(0.75, 14 / max(len(lines), 1)))
    for rung in rungs:
        axes.axvline(rung, zorder=0.5, color=GRAY, linewidth=1.0, linestyle=(0, (2, 2)))
    for status, color in STATUS_COLORS.items():
        own = [lines[name] for name in trials.loc[trials["status"] == status, "trial_id"] if name in lines]
        if own:
            collection = LineCollection(own, colors=color, linewidths=1.0, alpha=shade)
            axes.add_collection(collection).set_rasterized(len(own) > CROWDED)
            ends = np.array([line[-1] for line in own])
            shape = {"pruned": "x", "failed": "s"}.get(status, ".")
            axes.plot(*ends.T, shape, color=color, markersize=4.5, label=f"{status} ({len(own)})", linestyle="none")
    if best_id is not None and best_id in lines:
        axes.plot(*lines[best_id].T, color=INK, linewidth=2.2, label="best trial", zorder=4)
    axes.autoscale_view()
    _epoch_axis(figure, axes, label)
    return figure


@drawn
def cost(trials: pd.DataFrame, front: pd.DataFrame, finalists: pd.DataFrame, label: str) -> Figure:
    """Scores against trainable parameters. Columns: number, trainable_params (positive), score; of finalists error too:
    one standard error of the score, or 0. front: the trials that no cheaper one beats, the cheapest first."""
    figure, axes = blank(WIDE_IN, 3.2)
    known, on, repeated = (
        one[["trainable_params", "score"]].to_numpy(dtype=np.float64).T for one in (trials, front, finalists)
    )
    flat: dict[str, Any] = {"linestyle": "none", "rasterized": len(trials) > CROWDED}
    axes.plot(*known, marker=".", color=GRAY, alpha=0.45, markersize=6, label="trial", **flat)
    axes.step(*on, where="post", color=BLUE, linewidth=1.4)
    axes.plot(*on, "o", color=BLUE, markersize=5.5, label="no cheaper trial is better")
    apart = 0.05 * np.ptp([np.log(known[0]), known[1]], axis=1)
    named = np.full(2, np.inf)
    for number, point in zip(front["number"], on.T, strict=True):
        place = np.array([np.log(point[0]), point[1]])
        if (np.abs(place - named) <= apart).all():
            continue  # it would cover the previous number
        named = place
        axes.annotate(f"{number:.0f}", (point[0], point[1]), (4, -10), textcoords="offset points", fontsize=7.5)
    if len(finalists):
        style: dict[str, Any] = {"color": VERMILLION, "markersize": 5, "elinewidth": 1.2, "capsize": 2, "fmt": "D"}
        style |= {"yerr": finalists["error"].to_numpy(), "label": "finalist, mean of repeats"}
        axes.errorbar(repeated[0], repeated[1], **style)
    _log_axis(axes, known[0])
    axes.set(xlabel="trainable parameters", ylabel=label)
    axes.margins(x=0.08, y=0.08)
    legend(figure, columns=3)
    return figure


@drawn
def slices(panels: Sequence[tuple[str, Scale, pd.DataFrame]], winner: int | None, label: str) -> Figure:
    """Scores against the values of each hyperparameter, on one vertical scale; the winner is marked.

    panels: title, scale of the horizontal axis, and the trials. Columns: number, value (text or number), score. winner:
    its number.
    """
    across = len(panels) if len(panels) < 5 else 3
    figure, places = grid(len(panels), across, (3.4, 0.4, 2.7), (0.0, 2.5), "y")
    for axes, (title, scale, trials) in zip(places, panels, strict=True):
        _slice(axes, scale, trials, winner)
        axes.set_xlabel(title)
    figure.supylabel(label, fontsize=9)
    return figure


def choices_of(values: Sequence[Any]) -> list[str]:
    """The distinct values as text: words first, then numbers in ascending order."""
    return sorted({str(value) for value in values}, key=lambda text: (_leading_numbers(text), text))


def _leading_numbers(text: str) -> list[float]:
    """[256, 128] for "256+128", [0.5] for "0.5", [] for what begins with a letter."""
    return [float(number) for number in re.findall(r"[\d.]+", text)] if re.fullmatch(r"[\d.+]*\d", text) else []


def _slice(axes: Axes, scale: Scale, trials: pd.DataFrame, winner: int | None) -> None:
    scores, values = trials["score"].to_numpy(dtype=np.float64), trials["value"].tolist()
    if scale == "categorical":
        choices = choices_of(values)
        level = np.array([choices.index(str(value)) for value in values], dtype=np.float64)
        # Jitter by multiples of the golden ratio looks random, but depends only on the position.
        x = level + 0.22 * ((np.arange(len(level)) * 0.6180339887498949) % 1 * 2 - 1)
        medians = [float(np.median(scores[level == place])) for place in range(len(choices))]
        axes.hlines(medians, np.arange(len(choices)) - 0.32, np.arange(len(choices)) + 0.32, color=INK, linewidth=1.6)
        names = [short(choice, 16) for choice in choices]
        _name_columns(axes, names, turned=35 if sum(map(len, names)) > 22 else 0)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.grid(visible=False, axis="x")
    else:
        x = np.array(values, dtype=np.float64)
        if scale == "logarithmic":
            _log_axis(axes, x)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=scale == "integer"))
    crowded = len(x) > CROWDED
    size, shade = (5, 0.35) if crowded else (7, 0.6)
    axes.plot(x, scores, ".", color=BLUE, markersize=size, alpha=shade, rasterized=crowded)
    if (chosen := (trials["number"] == winner).to_numpy()).any():
        axes.plot(x[chosen], scores[chosen], "D", color=VERMILLION, markersize=5.5, zorder=4)


def _cells(
    axes: Axes, shades: Array, texts: Sequence[Sequence[str]], colors: str = "Blues", limits: Any = (0, 1), **style: Any
) -> Any:
    """A grid of shaded cells, each with its text; NaN: no shade."""
    masked = np.ma.masked_invalid(shades)
    image = axes.imshow(
        masked, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto" if limits != (0, 1) else None
    )
    for (row, column), shade in np.ndenumerate(np.asarray(shades)):
        if np.isfinite(shade):
            red, green, blue, _ = image.to_rgba(np.asarray(shade))
            color = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
            own = style
        else:
            color, own = GRAY, {"fontsize": 8}
        axes.text(column, row, texts[row][column], ha="center", va="center", color=color, **own)
    rows, columns = shades.shape
    axes.grid(visible=False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return image


def _counts_and_shares(counts: npt.NDArray[np.int64], shares: Array) -> list[list[str]]:
    return [
        [
            f"{count:,}" + (f"\n{100 * share:.0f} %" if np.isfinite(share) else "")
            for count, share in zip(*row, strict=True)
        ]
        for row in zip(counts, shares, strict=True)
    ]


def _name_rows(axes: Axes, names: Sequence[str], limit: int = 34) -> None:
    """One row per name, the first at the top."""
    axes.set_yticks(range(len(names)), [short(name, limit) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)


def _name_columns(axes: Axes, names: Sequence[str], turned: int) -> None:
    axes.set_xticks(range(len(names)), names, rotation=turned, ha="right" if turned else "center")
    for label in axes.get_xticklabels():
        label.set_rotation_mode("anchor" if turned else "default")


def _epoch_axis(figure: Figure, axes: Axes, label: str) -> None:
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    legend(figure, columns=3)


def _log_axis(axes: Axes, values: Array) -> None:
    """A logarithmic axis with a tick at each value (all > 0) if they are few, else at round ones: 1, 200, 30k, 4M."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    ticks = np.unique(values)
    if len(ticks) <= 6 and (len(ticks) < 2 or np.diff(np.log(ticks)).min() > 0.15 * np.log(ticks[-1] / ticks[0])):
        axes.set_xticks(ticks)
    else:
        narrow = values.max() < 40 * values.min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=6))


def _tick(value: float) -> str:
    """0.001, 200, 30k, 4M."""
    factor, unit = next(((f, u) for f, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= f), (1.0, ""))
    return f"{value / factor:.3g}{unit}"
