"""After the search: retrain the best configurations, fix the winner on validation, and open the test split once.

The only code that opens the test split. Its order holds even after a kill: the finalists are written before the first
repeat, the selection before the opening, the opening before the first test prediction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
import math
import operator
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserError
from search_spaces.params import Scalar, TrialParams
from sweep.endings import say
from sweep.heartbeat import Heartbeat
from sweep.history import RepeatHistory, TrialHistory, TrialState
from sweep.model import choose as choose_model
from sweep.optuna_search import Exhausted, key_of
from sweep.plan import Plan
from sweep.progress import Progress, SweepProgress, TensorBoardLog
from sweep.pruning import PruningRule
from sweep.ray_tune import Outcome, TimeBudget, predict_trials, run_tasks, run_trials
from sweep.record_reader import read_json
from sweep.records import Run, read_maps, read_predictions, read_run
from sweep.run_folder import RunPaths
from sweep.trial_records import Finalist, Finals, Suggestion, TrialRecord, rank
from trainables.atomic import append_line, now, write_json
from trainables.attribution import attribute_split, is_of
from trainables.baselines import OUT_OF_MEMORY, measure_baselines, read_properties
from trainables.data.dataset import open_dataset, open_test_split
from trainables.data.splits import write_folds
from trainables.metrics import operating_point, tune_thresholds
from trainables.trial import TrialSettings, predict_trial, set_up_process
from trainables.weights import FoundWeights

TRIALS_TO_COMPARE = 3
RESERVE = 1.15
"""Factor on the expected time of repeats: they also start, validate, and predict."""
FIRST_SEED = 1001
"""Added to the sweep's seed, so that no trial of the search has the same seed."""
RULE = (
    "highest mean over its repeats of the selection metric on validation; finalists within one standard error of it "
    "count as equal, and of those the one with the fewest trainable parameters wins"
)


def run(plan: Plan, search: TrialHistory, settings: TrialSettings, budget: TimeBudget, beat: Heartbeat) -> Outcome:
    """Retrain the finalists of the ended ``search``, select, and open the test split; continues after a kill.

    budget: of the whole sweep. beat: gets the progress of the repeats.
    """
    paths, config = search.paths, plan.config
    chosen, notes = choose(plan, search)
    repeats = repeats_of(config.seed, config.repeats, config.folds)
    say(*notes)
    if not chosen:
        return Outcome()
    if config.folds is not None:
        folds = [paths.fold(repeat.name) for repeat in repeats]
        write_folds(paths.splits, folds, plan.dataset.classes, config.seed)
    rows = [one.model_dump(mode="json", exclude={"repeats"}) for one in chosen]
    content = {"repeats": [repeat.name for repeat in repeats], "folds": config.folds, "finalists": rows}
    write_if_new(paths.chosen, content, time="chosen")
    wanted = [f"{one.trial_id}/{repeat.name}" for one in chosen for repeat in repeats]
    history = RepeatHistory(paths, config.metric, plan.mode, wanted)
    say(*history.load())
    own = {one.trial_id: plan.own_settings(one.number, settings) for one in chosen}

    def settings_of(entry: TrialState) -> tuple[TrialSettings, int]:
        origin = entry.suggestion
        assert origin.seed is not None
        splits = None if origin.fold is None else str(paths.fold(entry.trial_id.partition("/")[2]).absolute())
        # The same random stream for all finalists at the same seed, so shared chance makes no difference between them.
        return dataclasses.replace(own[str(origin.finalist)], seed=origin.seed, splits=splits), 0

    todo = RepeatList(history, chosen, repeats)
    if left := len(todo) + len(history.unfinished()):
        say(_cost(plan, search, chosen, repeats, left))
        trials = len(history.entries) + len(todo)
        nothing_stops = PruningRule("none", plan.budget, plan.grace_period, config.reduction_factor)
        facts = SweepProgress(history, len(wanted), plan.budget, history.of_wanted())
        with closing(TensorBoardLog(history)), closing(Progress(facts)) as progress:
            beat.progress = progress
            outcome = run_trials(plan, history, todo.ask, settings_of, nothing_stops, progress, budget, trials=trials)
        if outcome.interrupted or outcome.out_of_time:
            return outcome
    in_fp32 = settings.precision == "fp32"
    if not in_fp32:  # Thresholds must fit the fp32 outputs of the model file.
        say(*predict_trials(plan, history, history.of_wanted(), settings_of, lambda _: ("train", "val")))
    winner = select(read_run(paths.root))
    if winner is None:
        say("no finalist could be retrained: there is no winner, and the test split stays closed")
        return Outcome()
    judging: tuple[str, ...] = ("val",)
    if plan.dataset.images["test"]:
        open_test(paths, winner, [one.trial_id for one in chosen], plan.dataset.images["test"])
        judging = ("val", "test")

    def splits_of(repeat: TrialState) -> tuple[str, ...]:
        # Only the winner is shown on its training images. In bf16, they mark the predictions that are fp32 already.
        return judging if in_fp32 and repeat.suggestion.finalist != winner else ("train", *judging)

    say(*predict_trials(plan, history, history.of_wanted(), settings_of, splits_of))
    return Outcome()


def choose(plan: Plan, search: TrialHistory) -> tuple[list[Finalist], list[str]]:
    """The best configurations of the search, each once, and with --compare the best of each cell; notes for the user.

    A cell is one combination of the compared hyperparameters' values. It needs three ended trials, also pruned ones:
    under ASHA few trials run their whole budget, and a cell with three pruned trials was tried enough.
    """
    ranked = rank(search.entries.values(), search.mode)
    different: dict[tuple[str, int | None], TrialState] = {}
    for entry in ranked:
        different.setdefault((key_of(entry.params), plan.epochs_of.get(entry.number)), entry)
    best_ones = list(different.values())[: plan.config.finalists]
    found = [_finalist(entry, "finalist", place, None) for place, entry in enumerate(best_ones, start=1)]
    cells: dict[str, list[TrialState]] = {}
    names = plan.config.compare if found else ()
    for entry in ranked if names else ():
        flat = entry.params.to_flat()
        cells.setdefault(json.dumps({name: flat[name] for name in names}), []).append(entry)
    notes = []
    small = sorted(cell for cell, entries in cells.items() if sum(one.ended for one in entries) < TRIALS_TO_COMPARE)
    if small:
        words = (", ".join(f"{name} {value}" for name, value in json.loads(cell).items()) for cell in small[:5])
        shown = "; ".join(words) + (" ..." if len(small) > 5 else "")
        cells_of = f"{len(small)} combination{'s' * (len(small) > 1)} with fewer than {TRIALS_TO_COMPARE} ended trials"
        notes.append(f"--compare: {cells_of} left out: {shown}")
    for cell, entries in sorted(cells.items()):
        if cell not in small and entries[0] not in best_ones:
            found.append(_finalist(entries[0], "compare", None, json.loads(cell)))
    return found, notes


def _finalist(entry: TrialState, role: str, rank: int | None, cell: dict[str, Scalar] | None) -> Finalist:
    return Finalist(
        trial_id=entry.trial_id,
        number=entry.number,
        role=role,
        rank=rank,
        cell=cell,
        search_score=entry.score,
        params=entry.params.to_flat(),
    )


@dataclasses.dataclass(frozen=True)
class RepeatPlan:
    """One retraining that every finalist gets. fold: from 1, of cross-validation; None: the run's own split."""

    name: str
    seed: int
    fold: int | None


def repeats_of(seed: int, repeats: int, folds: int | None) -> list[RepeatPlan]:
    """Retrainings of a finalist: ``repeats`` fresh seeds on the run's split, or each fold once. seed: of the sweep."""
    first = seed + FIRST_SEED
    if folds is None:
        return [RepeatPlan(f"seed_{first + k}", first + k, None) for k in range(repeats)]
    # Names include the number of folds: fold 1 of 5 validates on other images than fold 1 of 10.
    return [RepeatPlan(f"fold_{k + 1}_of_{folds}", first + k, k + 1) for k in range(folds)]


def write_if_new(path: Path, content: dict[str, Any], time: str) -> None:
    """Write ``content`` with the present time under the key ``time``, unless the file has the same content already."""
    before, texts = read_json(path, [], ""), {time, "reason"}  # the wording of a sentence may have changed
    told, known = ({key: one for key, one in these.items() if key not in texts} for these in (content, before))
    if told != known:
        write_json(path, {time: now()} | content)


class RepeatList:
    """Gives out the repeats that have not begun: the first of every finalist, then the second of each, and so on, so
    that whenever it is interrupted all finalists have been repeated equally often."""

    def __init__(self, history: RepeatHistory, chosen: Sequence[Finalist], repeats: Sequence[RepeatPlan]) -> None:
        self._history = history
        begun = {entry.trial_id for entry in history.entries.values()}
        every = [(one, repeat, f"{one.trial_id}/{repeat.name}") for repeat in repeats for one in chosen]
        self._left = [each for each in every if each[2] not in begun]

    def __len__(self) -> int:
        return len(self._left)

    def ask(self) -> TrialState:
        """Begin the next repeat. Raises ``Exhausted`` when all have begun."""
        if not self._left:
            raise Exhausted
        one, repeat, name = self._left.pop(0)
        origin = Suggestion(finalist=one.trial_id, seed=repeat.seed, fold=repeat.fold)
        return self._history.begin(self._history.next_number, TrialParams.from_flat(one.params), origin, name)


def _cost(plan: Plan, search: TrialHistory, chosen: list[Finalist], repeats: list[RepeatPlan], left: int) -> str:
    finalists = sum(one.role == "finalist" for one in chosen)
    what = f"{finalists} finalist{'s' * (finalists > 1)}"
    if cells := len(chosen) - finalists:
        what += f" and the best of {cells} combination{'s' * (cells > 1)}"
    how = f"{len(repeats)} folds" if plan.config.folds else f"{len(repeats)} new seed{'s' * (len(repeats) > 1)}"
    every = [one for _ in repeats for one in chosen]
    minutes = _seconds(plan, search, every[-left:]) / 60
    verb, to_go = "is" if len(chosen) == 1 else "are", f"{left} training{'s' * (left > 1)} to go"
    return f"{what} {verb} retrained with {how}: {to_go}, about {max(1, math.ceil(minutes))} min"


def expected_seconds(plan: Plan, search: TrialHistory) -> float:
    """How long the repeats of the best configurations so far will take, by their measured epochs; 0 while unknown."""
    chosen, _ = choose(plan, search)
    count = plan.config.folds or plan.config.repeats
    return RESERVE * _seconds(plan, search, [one for _ in range(count) for one in chosen])


def _seconds(plan: Plan, search: TrialHistory, chosen: list[Finalist]) -> float:
    """Seconds to train ``chosen``, each for its whole budget, in this order, ``plan.at_once`` in parallel."""
    busy_until_s = [0.0] * min(plan.at_once, max(1, len(chosen)))
    for one in chosen:
        epochs = plan.epochs_of.get(one.number, plan.config.epochs)
        seconds = search.entries[one.number].mean_epoch_seconds * epochs
        heapq.heapreplace(busy_until_s, busy_until_s[0] + seconds)
    return max(busy_until_s)


def select(run: Run) -> str | None:
    """Write selection.json for the finalists of ``run``; returns the winner's id, None if no repeat has a score.

    If the file already has the same selection, it stays as it is, with its time.
    """
    finals, mode = run.finals, run.sweep.mode
    assert finals is not None
    winner, reason = winner_of(finals, mode)
    if winner is None:
        return None
    made = {
        "metric": run.sweep.metric,
        "mode": mode,
        "rule": RULE,
        "winner": winner.trial_id,
        "model": _model(finals, winner, mode).trial_id,
        "reason": reason,
        "scores": {one.trial_id: _score(one) for one in finals.finalists},
        "thresholds": _thresholds(run, finals),
    }
    if run.sweep.target is not None:  # No key otherwise, so that selections of earlier runs stay the same.
        kind, label, target = run.sweep.target
        pooled, classes = _pooled(run, finals, winner), run.dataset.classes
        point = None if pooled is None else operating_point(*pooled, classes, label, kind, target)
        made["operating_point"] = None if point is None else dataclasses.asdict(point)
    write_if_new(run.paths.selection, made, time="selected")
    return winner.trial_id


def winner_of(finals: Finals, mode: str) -> tuple[Finalist | None, str]:
    """The winner by ``RULE`` (one standard error: Breiman et al. 1984, section 3.4.3), and why in a sentence.

    mode: "max" or "min". A finalist that lost a repeat to a failure counts only if no finalist has all repeats.
    """
    able = [one for one in finals.finalists if one.role == "finalist" and one.scores]
    whole = [one for one in able if len(one.scores) == finals.asked]
    able = whole or able
    if not able:
        return None, ""
    sign = 1.0 if mode == "max" else -1.0
    highest = max(able, key=lambda one: (sign * one.mean, -(one.rank or 0)))
    error = highest.standard_error
    equal = [one for one in able if one is highest or sign * (highest.mean - one.mean) <= error]
    winner = min(equal, key=lambda one: (one.trainable_params or math.inf, -sign * one.mean, one.rank or 0))
    if winner is not highest:
        return winner, (
            f"The winner's mean over repeats, {winner.mean:.4f}, lies within one standard error ({error:.4f}) of the "
            f"best, {highest.mean:.4f} of {highest.trial_id}, and it trains fewer parameters."
        )
    others = len(equal) - 1
    if others:
        return winner, (
            f"The winner has the best mean over its repeats, {highest.mean:.4f}; {others} "
            f"other{'s' * (others > 1)} within one standard error ({error:.4f}) train{'s' * (others == 1)} no fewer "
            "parameters."
        )
    lone = " (one repeat each: no standard error)" if math.isnan(error) else f" (standard error {error:.4f})"
    return winner, f"The winner has the best mean over its repeats, {highest.mean:.4f}{lone}."


def _model(finals: Finals, winner: Finalist, mode: str) -> TrialRecord:
    """The repeat whose weights become the model: the best on validation; with folds the first, as each fold validates
    on other images."""
    if finals.folds is not None:
        return winner.completed[0]
    sign = 1.0 if mode == "max" else -1.0
    return max(winner.completed, key=lambda one: (sign * one.score, -one.seed))


def _score(one: Finalist) -> dict[str, Any]:
    numbers = {"mean": one.mean, "standard_error": one.standard_error}
    return {key: None if math.isnan(value) else value for key, value in numbers.items()} | {"repeats": len(one.scores)}


def _thresholds(run: Run, finals: Finals) -> dict[str, dict[str, float]] | None:
    """Thresholds by finalist and label, tuned on the validation predictions of all repeats of the finalist; None for a
    single-label task."""
    if run.dataset.task != "multi_label":
        return None
    found = {}
    for finalist in finals.finalists:
        if (pooled := _pooled(run, finals, finalist)) is not None:
            found[finalist.trial_id] = tune_thresholds(*pooled, run.dataset.classes)
    return found


def _pooled(run: Run, finals: Finals, one: Finalist) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Labels [N, ...] and probabilities [R, N, C] of the repeats of ``one`` on validation; None if none can be read."""
    read = (read_predictions(run, repeat.trial_id) for repeat in one.completed)
    parts = [part.of("val") for part in read if part is not None]
    if not parts:
        return None
    if finals.folds is None:
        return parts[0].label, np.stack([part.probability for part in parts])
    # Each fold validates on images of its own.
    return np.concatenate([part.label for part in parts]), np.concatenate([part.probability for part in parts])[None]


def open_test(paths: RunPaths, winner: str, finalists: list[str], images: int) -> None:
    """Record that the test split is opened, and for which selection; each selection opens it once."""
    selected = hashlib.sha256(paths.selection.read_bytes()).hexdigest()
    lines = paths.test_access.read_text(encoding="utf-8").splitlines() if paths.test_access.exists() else []
    if lines and selected in lines[-1]:
        return
    line = {"opened": now(), "winner": winner, "finalists": finalists, "images": images, "selection_sha256": selected}
    append_line(paths.test_access, json.dumps(line))


class Part(NamedTuple):
    """A call that adds to the run's folder, in one of the processes that ran the trials. failed: what it means if the
    call fails, to be followed by the reason."""

    call: tuple[Any, ...]
    failed: str


def baselines(plan: Plan, run: Run, settings: TrialSettings) -> list[Part]:
    """What makes ``baselines/``; [] if it is complete.

    The frozen networks are those of the finalists, without finalists that of the best trial. The test split is included
    once it has been opened.
    """
    opened = run.finals is not None and run.finals.opened
    networks: dict[str, FoundWeights | None] = {"simple": None}
    networks |= {name: plan.weights[name] for name in _backbones(run) if name in plan.weights}
    lasting = [one for one in run.baselines or () if one.failed != OUT_OF_MEMORY]
    measured = {one.name for one in lasting if one.failed or not opened or one.test is not None}
    wanted = {"majority" if network is None else f"frozen_{name}" for name, network in networks.items()}
    if len(measured) == len(run.baselines or ()) and measured >= wanted:
        return []
    folder = run.paths.baselines.absolute()
    return [
        Part((_measure, folder / f"part_{name}.json", settings, network, opened), f"no baselines ({name})")
        for name, network in networks.items()
    ]


def maps(plan: Plan, run: Run, settings: TrialSettings) -> list[Part]:
    """What makes ``maps.npz`` of the model; [] if it is there.

    Maps are of the test split if it has been opened, under the same opening as its predictions; else of validation.
    """
    try:
        chosen = choose_model(run)
    except UserError:
        return []
    split = "test" if run.finals is not None and run.finals.opened else "val"
    known, judged = read_maps(run, chosen.trial), read_predictions(run, chosen.trial)
    if known and judged and known.split == split and is_of(known, judged.of(split), chosen.thresholds):
        return []
    call = _attribute, chosen.files.weights.absolute(), plan.weights, split, chosen.thresholds, settings
    return [Part(call, f"no attribution maps of {chosen.trial}")]


def training_predictions(plan: Plan, run: Run, best: TrialState | None, settings: TrialSettings) -> list[Part]:
    """What predicts the training images with the best trial of the search, if the report shows it: nothing has won."""
    if best is None or not best.ended or (run.finals is not None and run.finals.winner):
        return []
    weights = run.paths.trial(best.trial_id).weights.absolute()
    call = predict_trial, best.params, plan.own_settings(best.number, settings), best.number, weights
    return [Part(call, f"no training predictions of {best.trial_id}")] if weights.exists() else []


def make(plan: Plan, run: Run, parts: Sequence[Part]) -> list[str]:
    """Make ``parts`` in parallel, and write ``baselines.json`` of those that are baselines; returns what failed."""
    for old in run.paths.baselines.glob("part_*.json"):
        old.unlink()
    problems = run_tasks(plan, run.paths, operator.call, [part.call for part in parts])
    made = [part for part, why in zip(parts, problems, strict=True) if why is None]
    if files := [part.call[1] for part in made if part.call[0] is _measure]:
        entries = [entry for file in files for entry in json.loads(file.read_text(encoding="utf-8"))]
        write_json(run.paths.baselines_table, {"baselines": entries})
        for file in files:
            file.unlink()
    return [f"{part.failed}: {why}" for part, why in zip(parts, problems, strict=True) if why is not None]


def _attribute(
    weights_path: Path,
    weights: dict[str, FoundWeights],
    split: str,
    thresholds: dict[str, float] | None,
    settings: TrialSettings,
) -> None:
    device = set_up_process(settings)
    attribute_split(Path(settings.run_dir), weights_path, weights, split, thresholds, device)


def _backbones(run: Run) -> list[str]:
    if run.finals is not None:
        return sorted({str(one.params["backbone"]) for one in run.finals.finalists})
    return [] if run.best is None else [str(run.best.params.get("backbone"))]


def _measure(part: Path, settings: TrialSettings, network: FoundWeights | None, opened: bool) -> None:
    root = Path(settings.run_dir)
    test = open_test_split(root) if opened else None
    entries = measure_baselines(open_dataset(root), test, network, part.parent, settings, read_properties(root))
    write_json(part, entries)
