"""What the rules of the analysis look at, gathered once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from reports.data import ReportData
from reports.page import wording
from reports.scores.finals import Leaderboard, lower_is_better, stand
from reports.scores.resampled_scores import Scores
from reports.scores.shortcut_tables import Contest, contest_on, read_shortcuts
from reports.scores.shown import ReportedModel, Runs, runs_on, shown
from reports.trials import tables
from reports.trials.effects import COLUMNS, effects


@dataclass(frozen=True)
class Finding:
    """One sentence or two. kind: "shown" (an interval or a count supports it), "open" (a hint, or what cannot be told
    apart), "limit" (what weakens all the rest)."""

    kind: str
    text: str


@dataclass(frozen=True)
class Facts:
    """Everything is of the configuration that the page shows: the winner, or the best trial where none was decided."""

    evidence: ReportData

    @cached_property
    def standing(self) -> Leaderboard | None:
        return stand(self.evidence)

    @cached_property
    def network(self) -> ReportedModel | None:
        return shown(self.evidence)

    @cached_property
    def runs(self) -> Runs | None:
        """Its runs on the split that judges it."""
        return None if self.split is None else runs_on(self.evidence, self.split)

    @cached_property
    def scores(self) -> Scores | None:
        winner = self.standing.winner if self.standing else None
        if winner is not None and winner.scores is not None:
            return winner.scores
        return None if self.runs is None else self.runs.scores()

    @cached_property
    def contest(self) -> Contest | None:
        """It against the shortcuts, where any were measured."""
        shortcuts = read_shortcuts(self.evidence.run)
        return contest_on(self.evidence, shortcuts, self.split) if shortcuts and self.split else None

    @cached_property
    def effects(self) -> pd.DataFrame:
        """``effects.effects`` of the cells of --compare; empty without."""
        return effects(self.standing) if self.standing is not None else pd.DataFrame(columns=COLUMNS)

    @property
    def split(self) -> str | None:
        """Which judges: "test" or "val"; None without predictions."""
        return None if self.network is None else self.network.judged

    @property
    def metric(self) -> str:
        """What is compared, as ``score_runs`` calls it: the selection metric, or macro F1 where it has no such."""
        if self.standing is not None:
            return self.standing.metric
        name = self.evidence.metric.removeprefix("val_")
        return name if self.scores is not None and name in self.scores.estimate else "f1_macro"

    @property
    def metric_words(self) -> str:
        """ "test macro F1"."""
        return wording.metric_name(f"{self.split or 'val'}_{self.metric}")

    @property
    def title(self) -> str:
        """ "The winner (trial 7)" or "The best trial (7)"."""
        winner = self.standing.winner if self.standing else None
        if winner is not None:
            return f"The winner ({winner.title})"
        best = self.evidence.best
        return f"The best trial ({best['number']:.0f})" if best else "The best trial"

    @property
    def counts(self) -> dict[str, int]:
        return tables.status_counts(self.evidence.trials)

    def better(self, difference: float) -> bool:
        """Whether a score higher by ``difference`` is better."""
        return difference < 0 if lower_is_better(self.metric) else difference > 0


def known(value: float) -> bool:
    return not math.isnan(value)


def in_sentence(title: str) -> str:
    """A title within a sentence: "the winner (trial 7)"."""
    return title[:1].lower() + title[1:]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
