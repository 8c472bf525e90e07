"""Backbones and depths: the best trial of each pair in the search, and with --compare what repeats of cells show."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import figures, formats, intervals, tables
from reports.blocks import Block, Chapter, Column, Figure, Table, Text
from reports.chapters.finalists import axis, course, judged_name, lead_cells, lead_columns, score_cells, validated
from reports.leaderboard import Leaderboard
from reports.results import Results

TITLE = "Backbones and depths"
VERDICTS = {1.0: "the first is better", -1.0: "the second is better", 0.0: "no significant difference"}
MOST_DRAWN = 24
LONG = 12


def chapter(results: Results) -> Chapter:
    data, board = results.data, results.leaderboard
    if data.trials.empty:
        return Chapter("backbone_depth", TITLE, (Text("No trial has begun: there is nothing to compare."),))
    cells = repeated_cells(results)
    text = (
        f"{formats.escape(data.basis('val'))} Equal depth is not equal capacity: trainable parameters stand beside it. "
    )
    text += "Cells with more trials had more chances to be lucky"
    repeated = int(cells["mean"].notna().sum())
    text += f"; {repeated} of {len(cells)} cells had their best trial retrained." if repeated else "."
    if repeated < len(cells):
        text += " A score of one training is a hint, not evidence."
    blocks: list[Block] = [Text(text), *_heat_map(results, cells), _table(results, cells, bool(repeated))]
    if board is not None and board.cells:
        blocks += _compared(board)
        if not results.effects.empty:
            blocks += _effects(results)
    return Chapter("backbone_depth", TITLE, tuple(blocks))


def repeated_cells(results: Results) -> pd.DataFrame:
    """``tables.by_cell``, and where the cell's best trial was retrained: mean, standard_error, repeated (text), and
    ``intervals.cells`` of score on the split that judges. Elsewhere NaN and dashes."""
    data, board = results.data, results.leaderboard
    cells = tables.by_cell(data.trials, data.ranked)
    of_number = {} if board is None else {float(one.finalist.number): one for one in board.configurations}
    rows: list[dict[str, Any]] = []
    for number in cells["number"]:
        one = of_number.get(number)
        if board is None or one is None:
            rows.append({"mean": float("nan"), "repeated": formats.ABSENT, "judged_shown": formats.ABSENT})
        else:
            kept = {key: value for key, value in validated(board, one).items() if key not in ("gap_shown",)}
            rows.append(kept | score_cells(one, "judged", board.metric))
    return pd.concat([cells, pd.DataFrame(rows, index=cells.index)], axis=1)


def _heat_map(results: Results, cells: pd.DataFrame) -> list[Block]:
    if not cells["score"].notna().any():
        return []
    data, metric = results.data, formats.metric_name(results.data.metric)
    scores, tried = tables.cell_grid(cells, "score"), tables.cell_grid(cells, "trials")
    top = data.ranked.iloc[0]
    figure = Figure(
        "backbone_depth_map",
        f"Best {metric} of each backbone and depth in the search. Gray: no score.",
        f"Heat map of the best {metric}, backbones by depth; the best cell is {top['backbone']}, {top['unfrozen']}, "
        f"{top['score']:.3f}. The table below holds all values.",
        figures.heat_map(scores, tried, metric, data.mode == "min"),
    )
    return [figure]


def _table(results: Results, cells: pd.DataFrame, repeated: bool) -> Table:
    data, board = results.data, results.leaderboard
    metric = formats.metric_name(data.metric)
    columns = [Column("backbone", "backbone"), Column("unfrozen", "trained"), Column("trials", "trials", "integer")]
    columns.append(Column("trainable_params", "trainable", "si"))
    if data.metric not in ("val_accuracy", "val_f1_macro"):
        columns.append(Column("score", metric, "score"))
    columns += [Column("val_f1_macro", "val macro F1", "score"), Column("val_accuracy", "val accuracy", "score")]
    caption = f"The best trial of each backbone and depth by {metric}, at its best epoch."
    if board is not None and repeated:
        columns += [Column("repeated", "mean of repeats ± SE"), *intervals.columns({"judged": judged_name(board)})]
        shown = [one for one in board.configurations if one.finalist.number in set(cells["number"])]
        below = intervals.below((one.scores, board.metric) for one in shown if one.scores is not None)
        caption += f" Mean of repeats: {metric} of the retrained. {below}"
    columns += [Column("seconds", "time", "duration"), Column("number", "trial", "integer")]
    return Table("backbone_depth", caption.strip(), cells, tuple(columns), latex=True)


def _compared(board: Leaderboard) -> list[Block]:
    """The best of each cell of --compare, retrained: one hyperparameter's values side by side."""
    rows = []
    for values, one in board.cells.items():
        pairs = zip(board.cell_names, values, strict=True)
        row: dict[str, Any] = {name: formats.choice(name, value) for name, value in pairs}
        row |= {"number": one.finalist.number, **validated(board, one), **score_cells(one, "score", board.metric)}
        row |= lead_cells(board, board.cell_leads.get(one.trial_id))
        row |= {"verdict": "the winner itself"} if one is board.winner else {}
        rows.append(row | {"remark": "; ".join(one.remarks)})
    frame = pd.DataFrame(rows)
    columns = [
        *(Column(name, name.replace("_", " ")) for name in board.cell_names),
        Column("number", "trial", "integer"),
        Column("repeated", "mean of repeats ± SE"),
        Column("gap_shown", "gap"),
        Column("score_shown", judged_name(board)),
        *lead_columns("winner's lead"),
    ]
    if frame["remark"].any():
        columns.append(Column("remark", "remark"))
    names = formats.listing(name.replace("_", " ") for name in board.cell_names)
    text = (
        f"### Compared: {formats.escape(names)}\n\nThe best trial of each cell with at least three trials was "
        "retrained like the finalists (--compare). Cells differ in more than this: each has the learning rate, batch "
        "size and so on of its own best trial. None of them can win."
    )
    scored = ((one.scores, board.metric) for one in board.cells.values() if one.scores is not None)
    below = intervals.below(scored, method=False)
    table = Table("compared_cells", f"Holm: p corrected for the number of cells. {below}", frame, tuple(columns))
    return [Text(text), _cell_figure(board, frame), table]


def _cell_figure(board: Leaderboard, frame: pd.DataFrame) -> Figure:
    names, judged, cells = board.cell_names, judged_name(board), list(board.cells.values())[:MOST_DRAWN]
    shown = "; ".join(f"{one.title} {score_cells(one, 'score', board.metric)['score_shown']}" for one in cells)
    alt = f"The {judged} of the best trial of each cell: {shown}."
    caption = f"{judged[:1].upper()}{judged[1:]}, mean over the repeats of each cell's best trial."
    if len(names) == 2 and frame["score"].notna().any():
        order = [list(dict.fromkeys(frame[name])) for name in names]
        grid = frame.pivot(index=names[0], columns=names[1], values="score").reindex(index=order[0], columns=order[1])
        tried = grid.where(grid.isna(), 1.0)
        drawing = figures.heat_map(grid, tried, judged, board.metric in ("nll", "loss"))
        return Figure("compared_cells_map", f"{caption} Gray: not repeated.", alt, drawing)
    rows = [course(board, one) for one in cells]
    drawing = figures.courses(rows, axis(board), "test" if board.split == "test" else "")
    return Figure("compared_cells_map", caption, alt, drawing)


def _effects(results: Results) -> list[Block]:
    frame = results.effects
    differences = zip(frame["difference"], frame["low"], frame["high"], strict=True)
    shown = frame.assign(
        shown=[formats.difference(*row) for row in differences],
        p_shown=[formats.p_value(value) for value in frame["p_holm"]],
        result=[VERDICTS.get(value, "not tested") for value in frame["verdict"]],
        factor=frame["factor"].str.replace("_", " "),
    )
    caption = (
        f"Cells that differ in one factor: difference in {results.metric_name}, first less second, with 95 % intervals "
        "and p values corrected by Holm's method over all rows (paired bootstrap over patients)."
    )
    columns = (
        Column("factor", "factor"),
        *((Column("within", "within"),) if frame["within"].any() else ()),
        Column("first", "first"),
        Column("second", "second"),
        Column("shown", "difference"),
        Column("p_shown", "p"),
        Column("result", "result"),
    )
    return [Table("effects", caption, shown, columns, folded=len(shown) > LONG)]
