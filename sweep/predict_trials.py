"""What the weights that trials kept are used for when they have ended: predictions of other splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from search_spaces.params import TrialParams
from sweep.history import TrialHistory, TrialState
from sweep.plan import Plan
from sweep.ray_tune import run_tasks
from trainables.trial import TrialSettings, predict_trial

SettingsOf = Callable[[TrialState], tuple[TrialSettings, int]]


def predict_kept(
    plan: Plan, history: TrialHistory, entries: Sequence[TrialState], settings_of: SettingsOf, splits: tuple[str, ...]
) -> list[str]:
    """Predict ``splits`` with the kept weights of each of the ended trials ``entries`` that lacks one of them.

    Beside each other, as the trials ran; returns what failed, one sentence each. settings_of: as of ``TuneSearcher``.
    """
    kept = [entry for entry in entries if entry.ended and history.files(entry).weights.exists()]
    arguments = []
    for entry in kept:
        settings, stream = settings_of(entry)
        arguments.append((entry.params, settings, stream, history.files(entry).weights.absolute(), splits))
    problems = []
    for entry, result in zip(kept, run_tasks(plan, _predict, arguments), strict=True):
        if isinstance(result, Exception):
            reason = str(result).strip().splitlines()[-1]
            problems.append(f"{entry.trial_id} could not be predicted on {', '.join(splits)}: {reason}")
    return problems


def _predict(params: TrialParams, settings: TrialSettings, stream: int, weights: Path, splits: tuple[str, ...]) -> None:
    # Without a result: the predictions would travel back through Ray for nothing.
    predict_trial(params, settings, stream, weights, splits)
