"""Which finalist wins, and that the decision stands before the test split is opened."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import write

from sweep.finalists import select, winner_of
from sweep.records import read_run
from sweep.trial_records import EpochRecord, Finalist, Finals, Suggestion, TrialRecord


def finalist(name: str, scores: list[float], size: int = 1000, role: str = "finalist", rank: int = 1) -> Finalist:
    repeats = tuple(
        TrialRecord(
            trial_id=f"{name}/seed_{1001 + place}",
            suggestion=Suggestion(seed=1001 + place),
            status="failed" if math.isnan(score) else "completed",
            best=EpochRecord(trainable_params=size),
            score=score,
        )
        for place, score in enumerate(scores)
    )
    return Finalist(trial_id=name, number=rank, role=role, rank=rank, search_score=0.9, repeats=repeats)


def finals(*finalists: Finalist, asked: int = 3) -> Finals:
    return Finals(finalists=finalists, repeats=tuple(f"seed_{1001 + place}" for place in range(asked)))


def test_the_best_mean_over_repeats_wins_whatever_the_search_said() -> None:
    first = finalist("t0001", [0.80, 0.81, 0.82], rank=1)
    second = finalist("t0002", [0.90, 0.91, 0.92], size=9000, rank=2)
    winner, reason = winner_of(finals(first, second), "max")
    assert winner is second
    assert "best mean" in reason
    assert winner_of(finals(first, second), "min")[0] is first


def test_within_one_standard_error_the_smaller_network_wins() -> None:
    best = finalist("t0001", [0.80, 0.84, 0.88], size=9000)
    near = finalist("t0002", [0.82, 0.83, 0.825], size=10, rank=2)
    assert best.standard_error == pytest.approx(np.std([0.80, 0.84, 0.88], ddof=1) / math.sqrt(3))
    winner, reason = winner_of(finals(best, near), "max")
    assert winner is near
    assert "fewer parameters" in reason
    far = finalist("t0003", [0.81, 0.815, 0.816], size=1, rank=3)
    assert winner_of(finals(best, far), "max")[0] is best


def test_one_repeat_has_no_standard_error_and_breaks_no_tie() -> None:
    best, near = finalist("t0001", [0.84], size=9000), finalist("t0002", [0.8399], size=10, rank=2)
    winner, reason = winner_of(finals(best, near, asked=1), "max")
    assert winner is best
    assert "no standard error" in reason


def test_a_finalist_that_lost_a_repeat_stands_back() -> None:
    lucky = finalist("t0001", [0.95, math.nan, math.nan])
    whole = finalist("t0002", [0.80, 0.81, 0.82], rank=2)
    assert winner_of(finals(lucky, whole), "max")[0] is whole
    assert winner_of(finals(lucky), "max")[0] is lucky


def test_a_cell_of_compare_cannot_win_and_without_a_score_nobody_does() -> None:
    compared = finalist("t0003", [0.99, 0.99, 0.99], role="compare")
    assert winner_of(finals(compared, finalist("t0001", [0.8, 0.8, 0.8])), "max")[0].trial_id == "t0001"  # type: ignore[union-attr]
    assert winner_of(finals(compared, finalist("t0001", [math.nan] * 3)), "max") == (None, "")


def selected(root: Path) -> dict[str, Any]:
    select(read_run(root))
    content: dict[str, Any] = json.loads((root / "finalists" / "selection.json").read_text())
    return content


def test_the_model_is_the_winners_best_repeat_on_validation(tmp_path: Path) -> None:
    root = write(tmp_path / "run", finals={"selected": False, "opened": 0})
    content = selected(root)
    run = read_run(root)
    assert run.finals is not None
    assert (winner := run.finals.winning) is not None
    assert content["model"] == max(winner.completed, key=lambda one: one.score).trial_id
    assert content["scores"][winner.trial_id]["mean"] == pytest.approx(np.mean([one.score for one in winner.repeats]))
    assert content["thresholds"] is None


def test_the_same_decision_keeps_its_time_and_another_does_not(tmp_path: Path) -> None:
    root = write(tmp_path / "run", finals={"selected": False, "opened": 0})
    path = root / "finalists" / "selection.json"
    first = selected(root)
    path.write_text(json.dumps(first | {"selected": "2020-01-01T00:00:00+00:00"}))
    assert selected(root)["selected"] == "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(first | {"winner": "t0009"}))
    assert selected(root)["winner"] == first["winner"]


def test_thresholds_of_several_labels_are_fixed_with_the_winner(tmp_path: Path) -> None:
    sizes = {"train": 60, "val": 120, "test": 30}
    root = write(tmp_path / "run", task="multi_label", labels_per_split=sizes, finals={"selected": False, "opened": 0})
    thresholds = selected(root)["thresholds"]
    assert thresholds.keys() == {"t0000", "t0001", "t0003"}
    assert set(thresholds["t0000"]) == {"covid", "normal", "pneumonia"}
    assert all(0 < one < 1 for one in thresholds["t0000"].values())
