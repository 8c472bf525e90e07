"""How a sweep stands, as its events tell it."""

from __future__ import annotations

import math

import pytest

from sweep.sweep_progress import SweepProgress


def standing(total: int = 10, mode: str = "max") -> SweepProgress:
    return SweepProgress(total=total, epochs=6, metric="val_f1_macro", mode=mode)


def run(facts: SweepProgress, number: int, scores: list[float]) -> None:
    """Begin a trial and let it report ``scores``, one an epoch."""
    facts.begin(f"t{number}", number, f"configuration {number}")
    best = math.nan
    for epoch, score in enumerate(scores, start=1):
        if not math.isnan(score):
            better = max if facts.mode == "max" else min
            best = score if math.isnan(best) else better(best, score)
        facts.report(f"t{number}", number, epoch, score, best)


def test_trials_are_waiting_running_or_ended() -> None:
    facts = standing(total=5)
    run(facts, 0, [0.5])
    run(facts, 1, [])
    facts.end("t0", 0, "pruned", 0.5)
    assert (facts.waiting, len(facts.running), dict(facts.ended)) == (3, 1, {"pruned": 1})


def test_the_best_is_the_best_epoch_of_any_trial_also_of_one_that_runs() -> None:
    facts = standing()
    run(facts, 0, [0.5, 0.7, 0.6])
    run(facts, 1, [0.6, 0.65])
    assert facts.best is not None
    assert (facts.best.trial_id, facts.best.best_score, facts.best.best_epoch) == ("t0", 0.7, 2)
    facts.end("t0", 0, "completed", 0.7)
    assert (facts.best.best_epoch, facts.best.summary) == (2, "configuration 0")


def test_the_best_is_the_lowest_where_less_is_better() -> None:
    facts = standing(mode="min")
    run(facts, 0, [0.5, 0.7])
    run(facts, 1, [0.6, 0.4])
    assert facts.best is not None
    assert (facts.best.trial_id, facts.best.best_score, facts.best.best_epoch) == ("t1", 0.4, 2)


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    facts = standing()
    run(facts, 0, [math.nan])
    assert facts.best is None
    run(facts, 1, [0.1, math.nan])
    assert facts.best is not None
    assert facts.best.trial_id == "t1"
    facts.end("t0", 0, "failed", math.nan)
    assert facts.best.trial_id == "t1"


def test_a_trial_of_an_earlier_session_counts_but_does_not_tell_how_long_trials_take() -> None:
    facts = standing(total=3)
    facts.recall("t0", 0, "completed", 0.9, "configuration 0")
    assert (facts.waiting, dict(facts.ended)) == (2, {"completed": 1})
    assert facts.best is not None
    assert facts.best.summary == "configuration 0"
    assert facts.seconds_left(10) is None


def test_a_resumed_trial_may_have_its_best_epoch_behind_it() -> None:
    facts = standing()
    facts.begin("t0", 0, "configuration 0")
    facts.report("t0", 0, 4, 0.6, 0.9)
    assert facts.best is not None
    assert (facts.best.best_score, facts.best.best_epoch) == (0.9, 0)
    facts.report("t0", 0, 5, 0.95, 0.95)
    assert (facts.best.best_score, facts.best.best_epoch) == (0.95, 5)


def test_a_trial_that_starts_again_is_counted_once() -> None:
    facts = standing(total=3)
    run(facts, 0, [0.5])
    run(facts, 0, [])
    assert (len(facts.running), facts.running[0].epoch) == (1, 1)


def test_events_of_a_trial_that_nobody_announced_are_taken_as_they_come() -> None:
    facts = standing(total=1)
    facts.report("t0", 0, 3, 0.5, 0.5)
    assert facts.end("t1", 1, "failed", math.nan).trial_id == "t1"
    assert facts.waiting == 0


@pytest.mark.parametrize(
    ("ended_after", "left_s"),
    [
        # One epoch takes 1 s. Nothing has ended: the budget of 6 for 8 to come, and the rest of the two that run.
        ([], 8 * 6 + 5 + 4),
        # The trials that ended took 2 epochs on average: so do the rest, and the two that run are as good as done.
        ([1, 3], 6 * 2 + 1 + 0),
    ],
)
def test_time_left_follows_from_the_epochs_that_trials_really_run(ended_after: list[int], left_s: float) -> None:
    facts = standing(total=10)
    for number, epochs in enumerate(ended_after):
        run(facts, number, [0.5] * epochs)
        facts.end(f"t{number}", number, "pruned", 0.5)
    run(facts, 8, [0.5])
    run(facts, 9, [0.5, 0.5])
    assert facts.seconds_left(elapsed_s=sum(ended_after) + 3) == pytest.approx(left_s)
