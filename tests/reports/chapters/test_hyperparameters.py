"""Hyperparameters: labelled as association, drawn only where there is enough to draw, the winner marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_chapter import figures, notes, results_of, tables, texts
from run_files import WriteRun
from searched_run import write_searched

from reports import figures as drawings
from reports import importance
from reports.chapters.hyperparameters import chapter, slices
from search_spaces.params import TrialParams
from sweep.run_folder import RunPaths


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chapter draws does not hang on how finely chance was measured."""
    monkeypatch.setattr(importance, "SHUFFLES", 6)


def score(params: TrialParams, epoch: int) -> float:
    return 0.6 + 0.2 * (params.backbone == "resnet18") + 0.01 * params.dropout


def test_the_chapter_says_association_and_shows_importance_as_a_table_and_what_matters_as_slices(
    tmp_path: Path,
) -> None:
    found = chapter(results_of(write_searched(tmp_path / "run", score, trials=30, epochs=5)))
    assert notes(found).startswith("Associations, not causes")
    table = tables(found)["importance"]
    assert list(tables(found)) == ["importance"]
    assert "PED-ANOVA" in table.caption
    beyond = table.frame.loc[table.frame["times_chance"] > 1, "parameter"]
    assert "backbone" in set(beyond)
    assert list(figures(found)) == ["hyperparameters"]
    drawn = figures(found)["hyperparameters"].frame
    assert list(drawn["parameter"].unique()) == list(beyond[:4])


def test_the_slices_mark_the_winner_that_the_whole_page_names(
    monkeypatch: pytest.MonkeyPatch, write_run: WriteRun
) -> None:
    seen: list[Any] = []
    original = drawings.slices
    monkeypatch.setattr(drawings, "slices", lambda *facts: (seen.extend(facts), original(*facts))[1])
    results = results_of(write_run(trials=14, statuses=("completed",), finals={}))
    best_of_slices = int(results.used_trials.numbers[results.used_trials.scores.argmax()])
    assert results.number != best_of_slices, "else the test shows nothing"
    figure = slices(results, ["lr"])
    ((_, _, trials),), winner, _ = seen
    assert trials.set_index("number").loc[winner, "value"] == results.winner.finalist.params["lr"]
    assert f"diamond: trial {results.number}" in figure.caption


def test_what_was_compared_and_left_out_is_said(tmp_path: Path) -> None:
    statuses = ("completed", "pruned", "failed", "running")
    text = texts(chapter(results_of(write_searched(tmp_path / "run", score, trials=24, statuses=statuses))))
    assert "12 trials are compared by their best validation macro F1 within the first 3 epochs" in text
    assert "Excluded: 6 failed and 6 unfinished." in text


@pytest.mark.parametrize(("trials", "status"), [(0, "completed"), (9, "completed"), (30, "failed"), (12, "running")])
def test_too_few_trials_are_told_and_nothing_is_drawn(write_run: WriteRun, trials: int, status: str) -> None:
    found = chapter(results_of(write_run(trials=trials, statuses=(status,))))
    assert figures(found) == {}
    assert "can be compared" in texts(found)
    assert "at least 10 are needed" in texts(found)


def test_equal_scores_are_told(tmp_path: Path) -> None:
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5, trials=16, epochs=2)
    assert "All trials have the same score" in texts(chapter(results_of(root)))


def test_a_search_in_which_nothing_mattered_says_so(tmp_path: Path) -> None:
    root = write_searched(tmp_path / "run", lambda params, epoch: (params.weight_decay * 1e7) % 1, trials=14, seed=5)
    found = chapter(results_of(root))
    beyond = tables(found)["importance"].frame["times_chance"] > 1
    assert ("No hyperparameter stands out" in texts(found)) == (not beyond.any())


def test_a_learning_rate_at_the_bound_of_its_range_is_a_hint_to_widen_it(tmp_path: Path) -> None:
    root = write_searched(tmp_path / "run", score, trials=12, statuses=("completed",))
    best = int(results_of(root).number)
    path = RunPaths(root).trial(f"t{best:05d}").params
    record = json.loads(path.read_text())
    name = next(key for key in record["suggestion"]["suggested"] if key.startswith("lr."))
    highest = record["suggestion"]["distributions"][name]["attributes"]["high"]
    for value, expected in ((highest, True), (1e-3, False)):
        record["suggestion"]["suggested"][name] = record["params"]["lr"] = value
        path.write_text(json.dumps(record))
        results = results_of(root)
        assert (results.used_trials.place_at_bound(best, "lr", 0.02) == "upper") == expected
        if expected and figures(chapter(results)):
            assert f"trial {best} lies at the upper bound" in texts(chapter(results))


def test_trials_that_share_given_values_are_counted(tmp_path: Path) -> None:
    root = write_searched(tmp_path / "run", score, trials=20, epochs=1, statuses=("completed",))
    assert "seed points" not in texts(chapter(results_of(root)))
    for folder in sorted(RunPaths(root).trial_folders())[:8]:
        path = RunPaths(root).trial(folder.name).params
        record = json.loads(path.read_text())
        record["params"]["dropout"] = record["suggestion"]["suggested"]["dropout"] = 0.2
        path.write_text(json.dumps(record))
    assert "8 of them began at seed points" in texts(chapter(results_of(root)))
