"""The figures: each takes a table of facts and returns a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.page.figure_style import (
    BLUE,
    GRAY,
    INK,
    LIGHT,
    SEQUENTIAL,
    STATUS_COLORS,
    VERMILLION,
    Drawing,
    draw,
    short,
)

NARROW_IN = 4.4
MAX_LABELS_WITH_SHARES = 8
SPLIT_SHADES = {"train": "#0072B2", "val": "#56B4E9", "test": "#999999"}
STATUS_LINES = {"completed": "-", "pruned": "-", "failed": (0, (1, 1)), "running": (0, (4, 2))}
STATUS_LABELS = {"completed": "completed", "pruned": "pruned", "failed": "failed", "running": "running"}


def class_bars(counts: pd.DataFrame) -> Drawing:
    """Images of each class, stacked by split. counts: ``data_tables.class_counts`` without its last row."""
    splits = [name for name in counts if name not in ("class", "total")]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(counts))
        start = np.zeros(len(counts))
        for split in splits:
            values = counts[split].to_numpy(dtype=float)
            axes.barh(
                places,
                values,
                left=start,
                color=SPLIT_SHADES.get(str(split), LIGHT),
                edgecolor="white",
                label=str(split),
            )
            start += values
        axes.set_yticks(places, [short(name) for name in counts["class"]])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if splits and len(counts):
            figure.legend(loc="outside upper left", ncols=len(splits))

    return draw(NARROW_IN, 1.1 + 0.27 * max(len(counts), 1), paint)


def heat_map(scores: pd.DataFrame, tried: pd.DataFrame, label: str, lower_is_better: bool) -> Drawing:
    """Best score of each backbone (row) and depth (column). scores, tried: ``tables.cell_grid``; NaN = no score."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        values, attempts = scores.to_numpy(dtype=float), tried.to_numpy(dtype=float)
        cmap = SEQUENTIAL + ("_r" if lower_is_better else "")
        low, high = _limits(values)
        axes.set_facecolor("#eef0f3")
        image = axes.imshow(np.ma.masked_invalid(values), cmap=cmap, vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = _readable_on(image.cmap(image.norm(value)))
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=color, fontweight="bold")
            else:
                text = "" if np.isnan(attempts[row, column]) else "no score"
                axes.text(column, row, text, ha="center", va="center", color=GRAY, fontsize=8)
        axes.set_xticks(range(scores.shape[1]), [str(name).replace(" ", "\n", 1) for name in scores.columns])
        axes.set_yticks(range(scores.shape[0]), [short(str(name), 20) for name in scores.index])
        _grid_of_cells(axes, scores.shape)
        bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)

    return draw(1.9 + 0.7 * scores.shape[1], 1.0 + 0.42 * scores.shape[0], paint)


def confusion(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], classes: Sequence[str]) -> Drawing:
    """Counts [C, C], rows true; the shade is the share of the row."""
    number = len(classes)
    with_shares = number <= MAX_LABELS_WITH_SHARES

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        image = axes.imshow(np.nan_to_num(shares), cmap=SEQUENTIAL, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            text = f"{count:,}"
            if with_shares and np.isfinite(share):
                text += f"\n{100 * share:.0f} %"
            color = _readable_on(image.cmap(image.norm(np.nan_to_num(share))))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9 if with_shares else 7)
        names = [short(name, 16) for name in classes]
        turned = max(map(len, names)) > 24 // number
        axes.set_xticks(range(number), names, rotation=40 if turned else 0, ha="right" if turned else "center")
        if turned:
            for label in axes.get_xticklabels():
                label.set_rotation_mode("anchor")
        axes.set_yticks(range(number), names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        _grid_of_cells(axes, (number, number))

    side = 2.0 + 0.62 * number if with_shares else 2.0 + 0.4 * number
    return draw(max(3.6, side + 0.4), max(3.2, side), paint)


def label_matrices(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], classes: Sequence[str]) -> Drawing:
    """One 2 x 2 a label. counts, shares: [C, 2, 2], rows true (no, yes), columns predicted (no, yes)."""
    across = 2 if len(classes) == 4 else min(3, len(classes))
    down = -(-len(classes) // across)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(down, across, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(classes):
                axes.set_axis_off()
                continue
            image = axes.imshow(np.nan_to_num(shares[place]), cmap=SEQUENTIAL, vmin=0, vmax=1)
            for (row, column), count in np.ndenumerate(counts[place]):
                share = np.nan_to_num(shares[place, row, column])
                color = _readable_on(image.cmap(image.norm(share)))
                text = f"{count:,}\n{100 * share:.0f} %"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
            axes.set_title(short(classes[place], 13))
            axes.set_xticks([0, 1], ["no", "yes"])
            axes.set_yticks([0, 1], ["no", "yes"])
            _grid_of_cells(axes, (2, 2))
        figure.supxlabel("predicted", fontsize=9)
        figure.supylabel("true", fontsize=9)

    return draw(max(2.4, 0.3 + 1.45 * across), 0.5 + 1.6 * down, paint)


def curve(epochs: pd.DataFrame, train: str, val: str, label: str, best_epoch: float) -> Drawing:
    """Columns ``train`` and ``val`` of one trial's epochs, the best epoch marked."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for column, name, color, dash in ((train, "training", GRAY, (0, (4, 2))), (val, "validation", BLUE, "-")):
            if column in epochs and epochs[column].notna().any():
                axes.plot(epochs["epoch"], epochs[column], color=color, linestyle=dash, marker=".", label=name)
        if np.isfinite(best_epoch):
            axes.axvline(best_epoch, color=VERMILLION, linewidth=1.0, label=f"best epoch ({best_epoch:.0f})")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        _whole_epochs(axes)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", ncols=3)

    return draw(NARROW_IN, 2.7, paint)


def all_curves(
    epochs: pd.DataFrame, trials: pd.DataFrame, metric: str, label: str, rungs: Sequence[int], best_id: str | None
) -> Drawing:
    """The selection metric of every trial by epoch, coloured by status; a mark where a trial was stopped."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        scored = epochs[["trial_id", "epoch", metric]].dropna()
        lines = {name: part[["epoch", metric]].to_numpy() for name, part in scored.groupby("trial_id")}
        crowded = max(0.12, min(0.75, 14 / max(len(lines), 1)))
        for rung in rungs:
            axes.axvline(rung, color=GRAY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0.5)
        for status, color in STATUS_COLORS.items():
            drawn = [lines[i] for i in trials.loc[trials["status"] == status, "trial_id"] if len(lines.get(i, ())) > 0]
            if not drawn:
                continue
            label_text = f"{STATUS_LABELS[status]} ({len(drawn)})"
            style: Any = STATUS_LINES[status]
            axes.add_collection(LineCollection(drawn, colors=color, linewidths=1.0, alpha=crowded, linestyles=[style]))
            ends = np.array([line[-1] for line in drawn])
            shape = {"pruned": "x", "failed": "s"}.get(status, ".")
            axes.plot(ends[:, 0], ends[:, 1], shape, color=color, markersize=4.5, label=label_text, linestyle="none")
        best = lines.get(best_id or "")
        if best is not None and len(best):
            axes.plot(best[:, 0], best[:, 1], color=INK, linewidth=2.2, label="best trial", zorder=4)
        axes.autoscale_view()
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        _whole_epochs(axes)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", ncols=3)

    return draw(5.4, 3.4, paint)


def status_bars(by_depth: pd.DataFrame) -> Drawing:
    """Trials of each depth by status. by_depth: ``tables.stopped_by_depth``."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(by_depth))
        start = np.zeros(len(by_depth))
        for status, color in STATUS_COLORS.items():
            values = by_depth[status].to_numpy(dtype=float)
            if not values.any():
                continue
            hatch = "///" if status == "pruned" else None
            axes.barh(
                places, values, left=start, color=color, edgecolor="white", hatch=hatch, label=STATUS_LABELS[status]
            )
            start += values
        axes.set_yticks(places, list(by_depth["unfrozen"]))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("trials")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(loc="outside upper left", ncols=2)

    return draw(NARROW_IN, 1.3 + 0.33 * max(len(by_depth), 1), paint)


def _limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    # A single score, or equal ones, need a range, and the palest shade should not vanish into the page.
    spread = max(high - low, 0.05)
    return low - 0.25 * spread, high + 0.05 * spread


def _readable_on(rgba: Any) -> str:
    red, green, blue = mpl.colors.to_rgb(rgba)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK


def _grid_of_cells(axes: Axes, shape: tuple[int, ...]) -> None:
    axes.grid(visible=False)
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
