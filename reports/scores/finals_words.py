"""What the parts of the page on repeated configurations have in common: names, captions, columns, rows of figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.data import ReportData
from reports.page import figures_finals, wording
from reports.page.blocks import Column
from reports.scores import finals_tables, interval_cells
from reports.scores.finals import ConfigurationResult, Leaderboard, lower_is_better
from reports.scores.paired import Comparison


def judged_name(standing: Leaderboard) -> str:
    """The score that judges, in words: "test macro F1"."""
    return wording.metric_name(f"{standing.split}_{standing.metric}")


def split_name(standing: Leaderboard) -> str:
    return wording.SPLIT_NAMES[standing.split]


def basis(evidence: ReportData, standing: Leaderboard) -> str:
    """The images that the judged scores rest on. With folds validation images are those of training, too."""
    if standing.split == "val" and standing.finals.folds:
        return "Every training and validation image, each judged by the network that was not trained on it."
    return evidence.basis(standing.split)


def alt_of(contenders: Sequence[ConfigurationResult], standing: Leaderboard) -> str:
    """Each contender's score in words."""
    parts = [
        f"{one.title} {finals_tables.score_cells(one, 'score', standing.metric)['score_shown']}" for one in contenders
    ]
    return "; ".join(parts) + "."


def course(standing: Leaderboard, one: ConfigurationResult) -> figures_finals.Course:
    """The contender's row of ``figures_finals.courses``."""
    cells = finals_tables.score_cells(one, "score", standing.metric)
    judged = () if one.scores is None else one.scores.by_run.get(standing.metric, ())
    return figures_finals.Course(
        name=f"{one.finalist.number}: {finals_tables.network(one)}",
        winner=one is standing.winner,
        search=one.finalist.search_score,
        validation=list(one.validation.values()),
        judged=[float(value) for value in judged] if standing.split == "test" else (),
        mean=cells["score"],
        low=cells["score_low"],
        high=cells["score_high"],
    )


def score_name(standing: Leaderboard) -> str:
    """The score without its split: "macro F1"."""
    return wording.metric_name(f"test_{standing.metric}").removeprefix("test ")


def axis(standing: Leaderboard) -> str:
    """The score as the label of an axis."""
    return score_name(standing) + (" (lower is better)" if lower_is_better(standing.metric) else "")


def beside(standing: Leaderboard) -> str:
    """The split that is drawn beside validation; "" where validation itself judges."""
    return "test" if standing.split == "test" else ""


def lead_columns(title: str = "difference") -> list[Column]:
    """The columns that show ``finals_tables.lead_cells``."""
    return [
        Column("lead", f"{title} (95 %)"),
        Column("p_shown", "p"),
        Column("p_holm_shown", "p, Holm"),
        Column("verdict", "verdict"),
    ]


def warned(leads: Iterable[Comparison]) -> str:
    """What the marks of paired differences mean; "" where there are none."""
    found = sorted({one.warning for one in leads if one.warning})
    return f"{interval_cells.MARK} {'; '.join(found)}." if found else ""
