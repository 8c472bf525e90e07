"""What a person sees while a sweep runs: on a terminal, in a file, and where things go wrong."""

from __future__ import annotations

import io
import math
import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from rich.console import Console

from search_spaces.params import TrialParams
from sweep.history import TrialHistory, TrialState
from sweep.progress import Progress, SweepProgress, clean, duration
from sweep.run_folder import RunPaths
from sweep.trial_records import Suggestion, best

ESCAPE = "\x1b"
SUMMARY = "mobilenet_v2 depth 2, sgd lr 0.0034, batch 32, cross_entropy"


def state(
    number: int, scores: tuple[float, ...] = (), status: str = "running", reason: str = "", **more: Any
) -> TrialState:
    """A trial whose configuration is told as ``SUMMARY``; scores: one an epoch."""
    params = TrialParams(backbone="mobilenet_v2", unfreeze_depth=2, lr=0.0034)
    by_epoch = dict(enumerate(scores, start=1))
    return TrialState(number, f"t{number:04d}", params, Suggestion(), by_epoch, status=status, reason=reason, **more)


def facts_of(total: int = 10, mode: str = "max", earlier: tuple[TrialState, ...] = ()) -> SweepProgress:
    return SweepProgress(TrialHistory(RunPaths(Path("runs/none")), "val_f1_macro", mode), total, 6, earlier)


def run(facts: SweepProgress, trial: TrialState, scores: tuple[float, ...]) -> TrialState:
    """Begin a trial and let it report ``scores``, one an epoch."""
    facts.begin(trial)
    for epoch, score in enumerate(scores, start=len(trial.scores) + 1):
        trial.scores[epoch] = score
        facts.report(trial)
    return trial


def end(facts: SweepProgress, trial: TrialState, status: str) -> None:
    trial.status = status
    facts.end(trial)


def progress(stream: TextIO, time_budget_s: float | None = None) -> Progress:
    """A sweep of 16 trials whose clock goes on by 30 s whenever someone looks at it; one ended earlier."""
    times = iter(range(0, 10**6, 30))
    facts = facts_of(16, earlier=(state(0, (0.61,), "completed"), state(6)))
    return Progress(facts, stream=stream, clock=lambda: next(times), time_budget_s=time_budget_s)


def play(shown: Progress) -> None:
    """A short sweep: one trial of each end, two that run."""
    shown.message("weights: random")
    trials = {number: state(number) for number in range(1, 6)}
    for trial in trials.values():
        shown.trial_started(trial)
    for number, scores in ((1, (0.61, 0.62, 0.63)), (4, (math.nan,)), (2, (0.2,))):
        for epoch, score in enumerate(scores, start=1):
            trials[number].scores[epoch] = score
            shown.epoch(trials[number])
    for number, status, reason in (
        (1, "completed", "ran its budget"),
        (2, "pruned", "asha: below the cutoff 0.6 of 4 others"),
        (3, "failed", f"RuntimeError: out\nof {ESCAPE}[31mmemory"),
    ):
        trials[number].status, trials[number].reason = status, reason
        shown.trial_ended(trials[number])


def rendered(shown: Progress, width: int, height: int = 25) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=True)
    console.print(shown.view(height))
    return [line.rstrip() for line in console.export_text().rstrip().splitlines()]


def on_terminal(use: Callable[[TextIO], None], encoding: str = "utf-8") -> str:
    """All that was written to a terminal of the real kind while ``use`` had it."""
    master, slave = os.openpty()
    written: list[bytes] = []

    def collect() -> None:
        try:
            while chunk := os.read(master, 65536):
                written.append(chunk)
        except OSError:  # how Linux says that the other side is closed
            pass

    reader = threading.Thread(target=collect)
    reader.start()
    with open(slave, "w", encoding=encoding) as stream:
        use(stream)
    reader.join()
    os.close(master)
    return b"".join(written).decode()


def test_the_view_tells_counts_best_and_what_runs() -> None:
    shown = progress(io.StringIO())
    play(shown)
    assert rendered(shown, 80) == [
        "4 of 16 trials ended, 30 s so far, about 2 min left",
        "━" * 20 + "╺" + "━" * 59,
        "2 completed, 1 pruned, 1 failed, 2 running, 10 waiting",
        "",
        "best  val_f1_macro 0.6300  t0001, epoch 3",
        "      mobilenet_v2 depth 2, sgd lr 0.0034, batch 32, cross_entropy",
        "",
        "trial  epoch  last  best  configuration",
        "t0004    1/6     -     -  mobilenet_v2 depth 2, sgd lr 0.0034, batch 32, cross_…",
        "t0005    0/6     -     -  mobilenet_v2 depth 2, sgd lr 0.0034, batch 32, cross_…",
    ]


def test_the_view_of_a_sweep_that_has_just_begun_claims_nothing() -> None:
    times = iter((0, 30))
    begun = Progress(facts_of(16), stream=io.StringIO(), clock=lambda: next(times))
    assert [line for line in rendered(begun, 80) if "━" not in line] == [
        "0 of 16 trials ended, 30 s so far",
        "0 completed, 0 pruned, 0 failed, 0 running, 16 waiting",
        "",
        "best  no val_f1_macro yet",
    ]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_view_fits_any_width(width: int) -> None:
    shown = progress(io.StringIO())
    play(shown)
    lines = rendered(shown, width)
    assert max(map(len, lines)) <= width
    assert any("t0005" in line for line in lines)


def test_the_view_of_many_trials_fits_the_height() -> None:
    shown = progress(io.StringIO())
    for number in range(16):
        shown.trial_started(state(number))
    lines = rendered(shown, 80, height=15)
    assert len(lines) < 15
    assert lines[-1] == "and 12 more"


def test_the_time_left_is_never_more_than_the_time_budget() -> None:
    shown = progress(io.StringIO(), time_budget_s=65)
    assert rendered(shown, 80)[0] == "1 of 16 trials ended, 30 s so far, about 35 s left"


def test_a_file_gets_one_plain_line_for_each_ended_trial_and_message() -> None:
    stream = io.StringIO()
    shown = progress(stream)
    play(shown)
    shown.close()
    assert stream.getvalue().splitlines() == [
        "weights: random",
        f"[2/16] t0001 completed | val_f1_macro 0.6300 at epoch 3 | {SUMMARY} | the best so far",
        f"[3/16] t0002 pruned | val_f1_macro 0.2000 at epoch 1 | {SUMMARY} | "
        "asha: below the cutoff 0.6 of 4 others | best so far 0.6300 (t0001)",
        f"[4/16] t0003 failed | {SUMMARY} | RuntimeError: out of memory",
    ]


def test_a_terminal_gets_the_view_and_its_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")

    def sweep(stream: TextIO) -> None:
        shown = progress(stream)
        play(shown)
        shown.close()
        shown.message("done")

    written = on_terminal(sweep)
    assert "2 running, 10 waiting" in re.sub(rf"{ESCAPE}\[[0-9;]*m", "", written)
    assert "RuntimeError: out of memory" in re.sub(r"\s+", " ", written)
    assert written.count(f"{ESCAPE}[?25l") == written.count(f"{ESCAPE}[?25h") == 1
    assert written.endswith("done\r\n")


def test_no_color_takes_the_colours_from_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")

    def sweep(stream: TextIO) -> None:
        shown = progress(stream)
        play(shown)
        shown.close()

    written = on_terminal(sweep)
    assert "running" in written
    assert re.search(rf"{ESCAPE}\[[0-9;]*3[0-7]m", written) is None


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    written = on_terminal(lambda stream: play(progress(stream)))
    assert ESCAPE not in written
    assert written.count("\r\n") == 4


def test_a_terminal_without_unicode_gets_what_it_can_show() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    progress(stream).message("Müller’s X-rays")
    assert raw.getvalue() == b"M?ller?s X-rays\n"


def test_a_terminal_without_unicode_gets_the_view_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    silent: list[bool] = []

    def sweep(stream: TextIO) -> None:
        shown = progress(stream)
        play(shown)
        shown.close()
        silent.append(shown.silent)

    written = on_terminal(sweep, encoding="ascii")
    assert silent == [False]
    assert "2 running, 10 waiting" in re.sub(rf"{ESCAPE}\[[0-9;]*m", "", written)


def test_a_closed_pipe_silences_the_progress_and_spares_the_sweep() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    stream = open(write_end, "w", encoding="utf-8")  # noqa: SIM115  # closing it fails again, that is the point
    shown = progress(stream)
    play(shown)
    shown.close()
    assert shown.silent
    assert shown.pace().busy == 2, "who looks from outside is still told how the trials get on"
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_closing_twice_is_closing_once() -> None:
    shown = progress(io.StringIO())
    shown.close()
    shown.close()
    assert not shown.silent


def test_what_a_library_says_cannot_move_the_cursor_or_fill_the_screen() -> None:
    assert clean(f"a\r\nb\t{ESCAPE}[2J{ESCAPE}]0;title\x07c\x00\x9b") == "a b c"
    assert clean("[red]not markup[/red]") == "[red]not markup[/red]"
    assert len(clean("x" * 10_000)) == 400


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (3600, "1 h"),
        (4800, "1 h 20 min"),
        (183600, "2 d 3 h"),
    ],
)
def test_a_duration_is_told_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def best_of(facts: SweepProgress) -> tuple[str, float, int]:
    assert facts.best is not None
    epoch = next(epoch for epoch, score in facts.best.scores.items() if score == facts.best.score)
    return facts.best.trial_id, facts.best.score, epoch


def test_trials_are_waiting_running_or_ended() -> None:
    facts = facts_of(total=5)
    pruned = run(facts, state(0), (0.5,))
    run(facts, state(1), ())
    end(facts, pruned, "pruned")
    assert (facts.waiting, len(facts.running), dict(facts.ended)) == (3, 1, {"pruned": 1})


def test_the_best_is_the_best_epoch_of_any_trial_also_of_one_that_runs() -> None:
    facts = facts_of()
    first = run(facts, state(0), (0.5, 0.7, 0.6))
    run(facts, state(1), (0.6, 0.65))
    assert best_of(facts) == ("t0000", 0.7, 2)
    end(facts, first, "completed")
    assert best_of(facts) == ("t0000", 0.7, 2)


def test_the_best_is_the_lowest_where_less_is_better() -> None:
    facts = facts_of(mode="min")
    run(facts, state(0, mode="min"), (0.5, 0.7))
    run(facts, state(1, mode="min"), (0.6, 0.4))
    assert best_of(facts) == ("t0001", 0.4, 2)


def test_of_equal_trials_the_best_trains_fewer_parameters_and_then_is_the_first() -> None:
    facts = facts_of(earlier=(state(0, (0.5, 0.7), "completed", trainable_params=900),))
    run(facts, state(1, trainable_params=200), (0.7,))
    assert best_of(facts) == ("t0001", 0.7, 1)
    run(facts, state(2, trainable_params=200), (0.7,))
    assert best_of(facts) == ("t0001", 0.7, 1)


def test_a_score_that_is_no_number_and_a_failed_trial_are_never_the_best() -> None:
    facts = facts_of()
    run(facts, state(0), (math.nan,))
    assert facts.best is None
    run(facts, state(1), (0.1, math.nan))
    failed = run(facts, state(2), (0.9,))
    assert best_of(facts) == ("t0002", 0.9, 1)
    end(facts, failed, "failed")
    assert best_of(facts) == ("t0001", 0.1, 1)


def test_the_best_is_found_without_looking_at_trials_that_have_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(earlier=tuple(state(number, (number / 100,), "completed") for number in range(50)))
    looked_at: set[int] = set()

    def noted(trial: TrialState) -> float:
        looked_at.add(trial.number)
        return trial.best_score()

    monkeypatch.setattr(TrialState, "score", property(noted))
    run(facts, state(50), (0.2, 0.6))
    assert looked_at == {49, 50}
    assert best_of(facts) == ("t0050", 0.6, 2)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_that_of_all_trials_whatever_happens_to_them(mode: str) -> None:
    facts, chance = facts_of(mode=mode), random.Random(0)
    trials, begun = [state(number, mode=mode, trainable_params=number % 3) for number in range(6)], set[int]()
    for _ in range(300):
        trial = chance.choice(trials)
        if trial.ended or len(trial.scores) > 8:  # It is retried from its beginning.
            trial.status, trial.scores = "running", {}
        run(facts, trial, (chance.choice((0.1, 0.2, 0.3, 0.4, math.nan)),))
        if chance.random() < 0.3:
            end(facts, trial, chance.choice(("completed", "pruned", "failed")))
        begun.add(trial.number)
        assert facts.best == best([one for one in trials if one.number in begun], mode)


def test_a_trial_of_an_earlier_session_counts_but_does_not_tell_how_long_trials_take() -> None:
    facts = facts_of(total=3, earlier=(state(0, (0.5, 0.9), "completed"), state(1, (0.1,))))
    assert (facts.waiting, dict(facts.ended)) == (2, {"completed": 1})
    assert best_of(facts) == ("t0000", 0.9, 2)
    assert facts.seconds_left(10) is None


def test_a_resumed_trial_may_have_its_best_epoch_behind_it() -> None:
    facts = facts_of()
    trial = run(facts, state(0, (0.1, 0.9, 0.2)), (0.6,))
    assert best_of(facts) == ("t0000", 0.9, 2)
    run(facts, trial, (0.95,))
    assert best_of(facts) == ("t0000", 0.95, 5)


def test_a_trial_that_starts_again_is_counted_once() -> None:
    facts = facts_of(total=3)
    run(facts, run(facts, state(0), (0.5,)), ())
    assert (len(facts.running), len(facts.running[0].scores)) == (1, 1)


def test_events_of_a_trial_that_nobody_announced_are_taken_as_they_come() -> None:
    facts = facts_of(total=1)
    facts.report(state(0, (0.5, 0.5, 0.5)))
    end(facts, state(1), "failed")
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
    facts = facts_of()
    for number, epochs in enumerate(ended_after):
        end(facts, run(facts, state(number), (0.5,) * epochs), "pruned")
    run(facts, state(8), (0.5,))
    run(facts, state(9), (0.5, 0.5))
    assert facts.seconds_left(elapsed_s=sum(ended_after) + 3) == pytest.approx(left_s)
