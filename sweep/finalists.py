"""After the search: the best configurations trained again, the winner fixed on validation, the test split opened once.

The only code that opens the test split. Everything is done in an order that a kill cannot undo: what is repeated is
written before the first repeat, the decision before the opening, the opening before the first test prediction.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sweep.history import TrialHistory, TrialState
from sweep.model_selection import decide
from sweep.plan import Plan
from sweep.progress import Progress, SweepProgress
from sweep.pruning import PruningRule
from sweep.ray_tune import Outcome, TimeBudget, TuneSearcher, predict_trials, run_trials
from sweep.records import read_run
from sweep.repeats import Chosen, Repeat, RepeatHistory, RepeatList, repeats_of, settings_of_repeat
from sweep.run_folder import RunPaths
from sweep.tensorboard import TensorBoardLog
from trainables.atomic import write_json
from trainables.data.folds import write_folds
from trainables.settings import TrialSettings

TRIALS_TO_COMPARE = 3
RESERVE = 1.15
"""Of the time that repeats are expected to take: they also start, validate, and predict."""


def run(
    plan: Plan, search: TrialHistory, settings: TrialSettings, budget: TimeBudget, say: Callable[[str], None]
) -> Outcome:
    """Repeat the finalists of the ended ``search``, decide, and open the test split; go on where a kill cut it off.

    budget: of the whole sweep. say: is told, a line each, what is repeated and what went wrong.
    """
    paths, config = search.paths, plan.config
    chosen, notes = choose(plan, search)
    repeats = repeats_of(config.seed, config.repeats or 1, config.folds)
    for note in notes:
        say(note)
    if not chosen:
        return Outcome(interrupted=False, out_of_time=False)
    if config.folds is not None:
        folds = [paths.fold(k + 1) for k in range(config.folds)]
        write_folds(paths.splits, folds, plan.dataset.classes, config.seed)
    _write_chosen(paths, chosen, repeats, config.folds)
    wanted = [f"{one.trial_id}/{repeat.name}" for one in chosen for repeat in repeats]
    history = RepeatHistory(paths, config.metric, plan.mode, wanted)
    for problem in history.load():
        say(problem)
    own = {one.trial_id: plan.own_settings(one.number, settings) for one in chosen}

    def settings_of(entry: TrialState) -> tuple[TrialSettings, int]:
        return settings_of_repeat(entry, own[entry.asked["finalist"]], paths)

    todo = RepeatList(history, chosen, repeats)
    if len(todo) or history.unfinished():
        say(_cost(plan, search, chosen, repeats, len(todo) + len(history.unfinished())))
        outcome = _train(plan, history, todo, settings_of, budget)
        if outcome.interrupted or outcome.out_of_time:
            return outcome
    winner = decide(read_run(paths.root))
    if winner is None:
        say("no finalist could be trained again: there is no winner, and the test split stays closed")
        return Outcome(interrupted=False, out_of_time=False)
    splits: tuple[str, ...] = ("train", "val")
    if plan.dataset.images["test"]:
        open_test(paths, winner, [one.trial_id for one in chosen], int(plan.dataset.images["test"]))
        splits = ("train", "val", "test")
    for problem in predict_trials(plan, history, history.of_wanted(), settings_of, splits):
        say(problem)
    return Outcome(interrupted=False, out_of_time=False)


def choose(plan: Plan, search: TrialHistory) -> tuple[list[Chosen], list[str]]:
    """The best configurations of the search, each once, and with --compare the best of each cell; notes for the user.

    A cell is one combination of the compared hyperparameters' values. It needs three trials that ran to their end, were
    it the scheduler's: under ASHA few run their whole budget, and a cell that was stopped early three times was tried.
    """
    ranked = _ranked(search)
    found: list[Chosen] = []
    seen: set[str] = set()
    for entry in ranked:
        key = json.dumps(entry.params.active(), sort_keys=True)
        if len(found) < (plan.config.finalists or 0) and key not in seen:
            seen.add(key)
            found.append(_chosen(search, entry, "finalist", len(found) + 1, None))
    cells: dict[str, list[TrialState]] = {}
    names = plan.config.compare if found else ()
    for entry in ranked if names else ():
        flat = entry.params.to_flat()
        cells.setdefault(json.dumps({name: flat[name] for name in names}), []).append(entry)
    notes = []
    small = sorted(cell for cell, entries in cells.items() if sum(one.ended for one in entries) < TRIALS_TO_COMPARE)
    if small:
        shown = "; ".join(_cell_words(cell) for cell in small[:5]) + (" ..." if len(small) > 5 else "")
        cells_of = f"{len(small)} cell{'s' * (len(small) > 1)} of fewer than {TRIALS_TO_COMPARE} ended trials"
        notes.append(f"--compare: {cells_of} left out: {shown}")
    mine = {one.trial_id for one in found}
    for cell, entries in sorted(cells.items()):
        if cell not in small and entries[0].trial_id not in mine:
            found.append(_chosen(search, entries[0], "compare", None, json.loads(cell)))
    return found, notes


def open_test(paths: RunPaths, winner: str, finalists: list[str], images: int) -> None:
    """Write down that the test split is opened, and for which decision; each decision opens it once."""
    decided = hashlib.sha256(paths.selection.read_bytes()).hexdigest()
    lines = paths.test_access.read_text(encoding="utf-8").splitlines() if paths.test_access.exists() else []
    if lines and decided in lines[-1]:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"opened": now, "winner": winner, "finalists": finalists, "images": images, "decision_sha256": decided}
    with paths.test_access.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def expected_seconds(plan: Plan, search: TrialHistory) -> float:
    """How long the repeats of the best configurations so far will take, from their own epochs; 0 while unknown."""
    chosen, _ = choose(plan, search)
    count = plan.config.folds or plan.config.repeats or 1
    return RESERVE * _seconds(plan, search, [one for one in chosen for _ in range(count)])


def _ranked(search: TrialHistory) -> list[TrialState]:
    """Trials with a score, the best first; of equals the first. Failed ones do not count."""
    sign = 1.0 if search.mode == "max" else -1.0
    scored = [
        (-sign * score, entry.number, entry)
        for entry in search.entries.values()
        if entry.status != "failed" and not math.isnan(score := search.best_score(entry))
    ]
    return [entry for _, _, entry in sorted(scored, key=lambda one: one[:2])]


def _chosen(
    search: TrialHistory, entry: TrialState, role: str, rank: int | None, cell: dict[str, Any] | None
) -> Chosen:
    return Chosen(entry.trial_id, entry.number, role, rank, cell, search.best_score(entry), entry.params)


def _cell_words(cell: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in json.loads(cell).items())


def _write_chosen(paths: RunPaths, chosen: list[Chosen], repeats: list[Repeat], folds: int | None) -> None:
    """finalists.json, unless it says the same already."""
    rows = [one.to_dict() for one in chosen]
    content = {"runs": [repeat.name for repeat in repeats], "folds": folds, "finalists": rows}
    if paths.chosen.exists():
        before = json.loads(paths.chosen.read_text(encoding="utf-8"))
        if {key: value for key, value in before.items() if key != "chosen"} == content:
            return
    write_json(paths.chosen, {"chosen": datetime.now(UTC).isoformat(timespec="seconds")} | content)


def _train(
    plan: Plan,
    history: RepeatHistory,
    todo: RepeatList,
    settings_of: Callable[[TrialState], tuple[TrialSettings, int]],
    budget: TimeBudget,
) -> Outcome:
    """The repeats as trials that nothing stops early."""
    trials = len(history.entries) + len(todo)
    searcher = TuneSearcher(todo, history, settings_of, plan.concurrency)
    stopping = PruningRule("none", plan.budget, plan.grace_period, plan.config.reduction_factor)
    curves = TensorBoardLog(history)
    progress = Progress(SweepProgress(history, len(history.wanted), plan.budget, history.of_wanted()))
    try:
        return run_trials(plan, history, searcher, stopping, progress, budget, trials=trials)
    finally:
        progress.close()
        curves.close()


def _cost(plan: Plan, search: TrialHistory, chosen: list[Chosen], repeats: list[Repeat], left: int) -> str:
    finalists = sum(one.role == "finalist" for one in chosen)
    what = f"{finalists} finalist{'s' * (finalists > 1)}"
    if cells := len(chosen) - finalists:
        what += f" and the best of {cells} cell{'s' * (cells > 1)}"
    how = f"{len(repeats)} folds" if plan.config.folds else f"{len(repeats)} fresh seeds"
    every = [one for one in chosen for _ in repeats]
    minutes = _seconds(plan, search, every) * left / len(every) / 60
    verb, to_go = "is" if len(chosen) == 1 else "are", f"{left} training{'s' * (left > 1)} to go"
    return f"{what} {verb} trained again with {how}: {to_go}, about {max(1, math.ceil(minutes))} min"


def _seconds(plan: Plan, search: TrialHistory, chosen: list[Chosen]) -> float:
    """Of training each of ``chosen`` for its whole budget, as many at once as the sweep runs."""
    total = 0.0
    for one in chosen:
        epochs = plan.epochs_of.get(one.number, plan.config.epochs or 1)
        total += search.entries[one.number].mean_epoch_seconds * epochs
    return total / min(plan.concurrency, max(1, len(chosen)))
