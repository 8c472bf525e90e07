"""Backbones and depths: the best trial of each pair in the search, and with --compare the repeats of cells."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import figures, formats, intervals, tables
from reports.blocks import Block, Figure, Table, Text, columns
from reports.chapters.finalists import (
    MOST_DRAWN,
    NO_DIFFERENCE,
    courses,
    courses_in_words,
    lead_cells,
    lead_titles,
    validated,
)
from reports.leaderboard import Leaderboard
from reports.results import Results
from trainables.metrics import metric_mode

VERDICTS = {1.0: "the first is better", -1.0: "the second is better", 0.0: NO_DIFFERENCE}
LONG = 12


def chapter(results: Results) -> list[Block]:
    data, board = results.data, results.leaderboard
    if data.trials.empty:
        return [Text("No trial has begun, so there is nothing to compare.")]
    cells = repeated_cells(results)
    repeated = int(cells["mean"].notna().sum())
    many = f"; the best trial of {repeated} of {len(cells)} cells was retrained." if repeated else "."
    text = (
        f"{formats.escape(data.basis('val'))} Equal depth is not equal capacity: compare the trainable parameters. "
        f"Cells with more trials had more chances of a high score{many}"
    )
    if repeated < len(cells):
        text += " A score from a single training run is a hint, not evidence."
    blocks: list[Block] = [Text(text), *_heat_map(results, cells), _table(results, cells, bool(repeated))]
    if board.cells:
        blocks += _compared(board)
        if not results.effects.empty:
            blocks += _effects(results, board)
    return blocks


def repeated_cells(results: Results) -> pd.DataFrame:
    """``tables.by_cell``, and if a cell's best trial was retrained: mean, standard_error, repeated (text), and
    ``intervals.cells`` of the score on the judging split. Otherwise NaN and dashes."""
    data, board = results.data, results.leaderboard
    cells = tables.by_cell(data.trials, data.ranked)
    of_number = {float(one.finalist.number): one for one in board.configurations}
    rows: list[dict[str, Any]] = []
    for number in cells["number"]:
        one = of_number.get(number)
        if one is None:
            rows.append({"mean": float("nan"), "repeated": formats.ABSENT, **intervals.cells(None, {"judged": ""})})
        else:
            rows.append(validated(board, one) | intervals.cells(one.scores, {"judged": board.metric}))
    return pd.concat([cells, pd.DataFrame(rows, index=cells.index)], axis=1)


def _heat_map(results: Results, cells: pd.DataFrame) -> list[Block]:
    if not cells["score"].notna().any():
        return []
    data, metric, top = results.data, formats.metric_name(results.data.metric), results.data.ranked.iloc[0]
    scores, tried = tables.cell_grid(cells, "score"), tables.cell_grid(cells, "trials")
    alt = (
        f"Heat map of the best {metric}, backbones by depth; the best cell is {top['backbone']}, {top['unfrozen']}, "
        f"{top['score']:.3f}. The table below holds all values."
    )
    caption = f"Best {metric} of each backbone and depth in the search. Gray: no score."
    drawing = figures.heat_map(scores, tried, metric, data.run.sweep.mode == "min")
    return [Figure("backbone_depth_map", caption, alt, drawing)]


def _table(results: Results, cells: pd.DataFrame, repeated: bool) -> Table:
    data, board = results.data, results.leaderboard
    metric = formats.metric_name(data.metric)
    names = ["backbone", "unfrozen", "trials", "trainable_params"]
    names += ["score"] if data.metric not in ("val_accuracy", "val_f1_macro") else []
    titles = {"score": metric} if "score" in names else {}
    names += ["val_f1_macro", "val_accuracy"]
    caption = f"Best trial of each backbone and depth by {metric}, at its best epoch."
    if repeated:
        titles |= {"repeated": "mean of repeats ± SE", "judged_shown": board.metric_name}
        shown = [one for one in board.configurations if one.finalist.number in set(cells["number"])]
        below = intervals.below((one.scores, board.metric) for one in shown)
        caption += f" Mean of repeats: {metric} of the retrained configurations. {below}"
    titles |= {"seconds": "time", "number": "trial", "val_accuracy": f"val {formats.score_name('accuracy', data.task)}"}
    return Table("backbone_depth", caption.strip(), cells, columns(*names, **titles), latex=True)


def _compared(board: Leaderboard) -> list[Block]:
    """The best trial of each cell of --compare, retrained: the values of the compared factors side by side."""
    rows = []
    for values, one in board.cells.items():
        pairs = zip(board.cell_names, values, strict=True)
        row: dict[str, Any] = {name: formats.choice(name, value) for name, value in pairs}
        row |= {"number": one.finalist.number, **validated(board, one)}
        row |= intervals.cells(one.scores, {"score": board.metric})
        row |= lead_cells(board, board.cell_leads.get(one.trial_id))
        row |= {"verdict": "the winner itself"} if one is board.winner else {}
        rows.append(row | {"remark": "; ".join(one.remarks)})
    frame = pd.DataFrame(rows)
    titles = {"repeated": "mean of repeats ± SE", "gap_shown": "gap", "score_shown": board.metric_name}
    titles |= lead_titles("winner's lead") | ({"remark": "remark"} if frame["remark"].any() else {})
    names = formats.listing(name.replace("_", " ") for name in board.cell_names)
    text = (
        f"### Compared: {formats.escape(names)}\n\nThe best trial of each cell with at least three finished trials "
        "was retrained like the finalists (--compare). Cells also differ in other hyperparameters, such as learning "
        "rate and batch size: each has those of its own best trial. Only cells that are also finalists can win."
    )
    below = intervals.below(((one.scores, board.metric) for one in board.cells.values()), method=False)
    caption = f"Holm: p corrected for the number of cells. {below}"
    table = Table("compared_cells", caption, frame, columns(*board.cell_names, "number", **titles))
    return [Text(text), _cell_figure(board, frame), table]


def _cell_figure(board: Leaderboard, frame: pd.DataFrame) -> Figure:
    """A heat map for two factors, rows for any other number."""
    names, judged, cells = board.cell_names, board.metric_name, list(board.cells.values())
    caption = f"{formats.capital(judged)}, mean over the repeats of each cell's best trial."
    if len(names) != 2 or not frame["score"].notna().any():
        return courses(board, cells, "compared_cells_map", caption)
    order = [list(dict.fromkeys(frame[name])) for name in names]
    grid = frame.pivot(index=names[0], columns=names[1], values="score").reindex(index=order[0], columns=order[1])
    drawing = figures.heat_map(grid, grid.where(grid.isna(), 1.0), judged, metric_mode(board.metric) == "min")
    alt = courses_in_words(board, cells[:MOST_DRAWN])
    return Figure("compared_cells_map", f"{caption} Gray: not retrained.", alt, drawing)


def _effects(results: Results, board: Leaderboard) -> list[Block]:
    frame = results.effects
    differences = zip(frame["difference"], frame["low"], frame["high"], strict=True)
    shown = frame.assign(
        shown=[formats.difference(*row) for row in differences],
        p_shown=[formats.p_value(value) for value in frame["p_holm"]],
        result=[VERDICTS.get(value, "not tested") for value in frame["verdict"]],
        factor=frame["factor"].str.replace("_", " "),
    )
    caption = (
        f"Cells that differ in one factor: difference in {results.metric_name}, first minus second. 95 % intervals and "
        f"p values (corrected by Holm's method over all rows) are {board.resting_on}."
    )
    names = ("factor", *(("within",) if frame["within"].any() else ()), "first", "second")
    titles = columns(*names, shown="difference", p_shown="p", result="result")
    return [Table("effects", caption, shown, titles, folded=len(shown) > LONG)]
