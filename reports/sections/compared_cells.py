"""The best of each cell of --compare, trained again: one hyperparameter's values side by side, with repeats."""

from __future__ import annotations

import pandas as pd

from reports.data import ReportData
from reports.page import figures, figures_finals, wording
from reports.page.blocks import Block, Column, Heading, Picture, Table, Text
from reports.scores import finals_tables, finals_words, interval_cells
from reports.scores.finals import Leaderboard, lower_is_better

MOST_DRAWN = 24


def blocks(evidence: ReportData, standing: Leaderboard) -> list[Block]:
    frame = finals_tables.cell_frame(standing)
    names = wording.listing(name.replace("_", " ") for name in standing.cell_names)
    judged = finals_words.judged_name(standing)
    columns = [
        *(Column(name, name.replace("_", " ")) for name in standing.cell_names),
        Column("number", "trial", "integer"),
        Column("repeated", "mean of repeats ± SE"),
        Column("gap_shown", "gap"),
        Column("score_shown", judged),
        *finals_words.lead_columns("winner's lead"),
    ]
    if frame["remark"].any():
        columns.append(Column("remark", "remark"))
    asked = [(one.scores, standing.metric) for one in standing.cells.values() if one.scores is not None]
    caption = (
        f"The best trial of each {names}, trained again like the finalists. Holm: p corrected for the number of cells. "
        f"{finals_words.basis(evidence, standing)} {interval_cells.below(asked)}"
    )
    text = (
        f"The best trial of the search for each {names} with at least three trials was repeated as well (--compare). "
        "Cells differ in more than this: each has the learning rate, batch size and so on of its own best trial. "
        "None of them can win; the winner is one of the finalists above."
    )
    table = Table(name="compared_cells", caption=" ".join(caption.split()), frame=frame, columns=tuple(columns))
    return [Heading(f"Compared: {names}"), Text(text), _cell_picture(evidence, standing, frame), table]


def _cell_picture(evidence: ReportData, standing: Leaderboard, frame: pd.DataFrame) -> Picture:
    names, judged = standing.cell_names, finals_words.judged_name(standing)
    best = list(standing.cells.values())[:MOST_DRAWN]
    alt = f"The {judged} of the best trial of each cell: " + finals_words.alt_of(best, standing)
    caption = f"{judged[:1].upper()}{judged[1:]}, mean over the repeats of each cell's best trial. "
    caption += finals_words.basis(evidence, standing)
    if len(names) == 2 and frame["score"].notna().any():
        order = [list(dict.fromkeys(frame[name])) for name in names]
        grid = frame.pivot(index=names[0], columns=names[1], values="score").reindex(index=order[0], columns=order[1])
        tried = grid.where(grid.isna(), 1.0)
        drawing = figures.heat_map(grid, tried, judged, lower_is_better(standing.metric))
        return Picture(name="compared_cells", caption=f"{caption} Gray: not repeated.", alt=alt, drawing=drawing)
    rows = [finals_words.course(standing, one) for one in best]
    drawing = figures_finals.courses(rows, finals_words.axis(standing), finals_words.beside(standing))
    return Picture(name="compared_cells", caption=caption, alt=alt, drawing=drawing)
