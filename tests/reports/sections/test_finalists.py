"""The section on the finalists: its tables, its words, and every state that a run can be in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from reports.data import gather
from reports.page.blocks import Note, Picture, Section, Table, Text
from reports.prose import verdict
from reports.scores.finals import Leaderboard
from reports.scores.paired import Comparison
from reports.scores.statistics import interval
from reports.sections import comparison, finalists
from sweep.run_folder import RunPaths


def table(section: Section, name: str) -> Table:
    return next(one for one in section.tables() if one.name == name)


def words(section: Section) -> str:
    parts: list[str] = []
    for block in section.blocks:
        if isinstance(block, Text | Note):
            parts += [block.text, *getattr(block, "items", ())]
    return " ".join(parts)


def with_leads(standing: Leaderboard, **leads: Comparison) -> Leaderboard:
    facts: dict[str, Any] = {name: getattr(standing, name) for name in standing.__dataclass_fields__}
    return Leaderboard(**(facts | {"leads": leads}))


def lead(difference: float, p_holm: float) -> Comparison:
    low, high = difference - 0.05, difference + 0.05
    return Comparison(difference=difference, low=low, high=high, p=p_holm / 2, p_holm=p_holm, warning="")


def test_the_table_of_finalists_has_search_score_repeats_gap_and_test_score_with_its_interval(write_run):
    evidence = gather(write_run(finals={}))
    frame = table(finalists.section(evidence), "finalists").frame
    standing = evidence.standing
    assert list(frame["number"]) == [0, 3, 1]
    assert list(frame["role"]) == ["winner", "", ""]
    for row, one in zip(frame.to_dict("records"), standing.finalists, strict=True):
        known = interval(one.scores, "f1_macro")
        assert (row["score"], row["score_low"], row["score_high"]) == (known.estimate, known.low, known.high)
        assert (row["search_score"], row["mean"]) == (one.finalist.search_score, one.mean)
        assert row["gap"] == pytest.approx(row["search_score"] - row["mean"])
        assert row["each_repeat"] == ", ".join(f"{value:.3f}" for value in one.scores.by_run["f1_macro"])
        assert row["repeated"] == f"{one.mean:.3f} ± {one.standard_error:.3f}"


def test_every_repeat_stands_with_its_own_scores(write_run):
    evidence = gather(write_run(finals={"failed": ("t0003/seed_1002",)}))
    frame = table(finalists.section(evidence), "repeats").frame
    assert len(frame) == 9
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert (failed["number"], failed["repeat"], failed["reason"]) == (3, "seed_1002", "RuntimeError: no memory")
    assert math.isnan(failed["score"])
    winner = frame[frame["number"] == 0]
    assert winner["score"].mean() == pytest.approx(evidence.standing.winner.scores.estimate["f1_macro"])
    assert winner["validation"].mean() == pytest.approx(evidence.standing.winner.mean)


def test_the_pairs_have_difference_p_and_a_verdict_in_words(write_run):
    evidence = gather(write_run(finals={}))
    section = finalists.section(evidence)
    frame = table(section, "finalists_paired").frame
    for row, one in zip(frame.to_dict("records"), evidence.standing.runners_up, strict=True):
        known = evidence.standing.leads[one.trial_id]
        assert (row["difference"], row["p"], row["p_holm"]) == (known.difference, known.p, known.p_holm)
        assert row["verdict"] == "no difference shown"
    assert "found 17 to 30 times in 100" in words(section)


@pytest.mark.parametrize(
    ("leads", "expected"),
    [
        ({"t0003": lead(0.1, 0.01), "t0001": lead(0.2, 0.002)}, "it is better than trials 3 and 1"),
        ({"t0003": lead(0.1, 0.01), "t0001": lead(0.01, 0.4)}, "trial 3 (difference +0.100 (+0.050 to +0.150)"),
        ({"t0003": lead(0.01, 0.9), "t0001": lead(0.02, 0.6)}, "it cannot be told apart from trials 3 and 1"),
        ({"t0003": lead(-0.1, 0.01), "t0001": lead(0.02, 0.6)}, "it is worse than trial 3"),
        ({"t0003": lead(-0.1, 0.01), "t0001": lead(0.02, 0.6)}, "stays the winner all the same"),
        ({"t0003": lead(0.1, math.nan), "t0001": lead(0.02, 0.6)}, "it could not be tested against trial 3"),
    ],
)  # fmt: skip
def test_the_verdict_says_no_more_than_the_corrected_p_values(write_run, leads, expected):
    standing = gather(write_run(finals={"repeats": 1})).standing
    assert expected in verdict.sentence(with_leads(standing, **leads))


def test_several_openings_are_a_warning(write_run):
    once, often = (words(finalists.section(gather(write_run(str(n), finals={"opened": n})))) for n in (1, 3))
    assert "opened 3 times" in often
    assert "optimistic" in often
    assert "opened 1 time" not in once


@pytest.mark.parametrize(
    ("finals", "expected"),
    [
        ({"selected": False, "opened": 0}, "no winner has been fixed. The test split stays closed"),
        ({"opened": 0}, "the test split was not opened yet"),
        ({"failed": ("t0003/seed_1001",)}, "1 of 9 repeats failed"),
        (None, "No finalists have been chosen"),
    ],
)
def test_the_state_of_the_finals_is_said(write_run, finals, expected):
    assert expected in words(finalists.section(gather(write_run(finals=finals))))


def test_without_finalists_by_wish_the_section_says_what_is_lost(write_run):
    assert "--finalists 0" in words(finalists.section(gather(write_run(sweep={"finalists": 0}))))


@pytest.mark.parametrize("file", ["selection.json", "finalists.json", "predictions of all", "test_access.jsonl"])
def test_damaged_files_are_said_and_the_rest_is_shown(write_run, file):
    root = write_run(finals={"compare": (2,)}, trials=6)
    paths = RunPaths(root)
    if file == "predictions of all":
        for folder in paths.repeat_folders():
            paths.repeat(f"{folder.parent.name}/{folder.name}").predictions.write_bytes(b"x")
    else:
        (paths.finalists / file).write_text("{ torn")
    evidence = gather(root)
    section = finalists.section(evidence)
    assert words(section)
    assert comparison.section(evidence).tables()
    if file == "selection.json":
        assert "which finalist won is not known" in words(section)
    if file == "finalists.json":
        assert "is damaged" in words(section)
    if file == "test_access.jsonl":
        assert evidence.standing.split == "test"  # a torn line counts as an opening


@pytest.mark.parametrize("names", [["backbone"], ["backbone", "unfreeze_depth"]])
def test_compared_cells_stand_in_a_table_with_a_figure(write_run, names):
    cells = {"finalists": (0, 3), "compare": (1, 2, 4), "repeats": 2}
    root = write_run(trials=9, sweep={"compare": names}, finals=cells)
    evidence = gather(root)
    section = finalists.section(evidence)
    frame = table(section, "compared_cells").frame
    assert len(frame) == len(evidence.standing.cells)
    assert "the winner itself" in set(frame["verdict"])
    assert set(names) <= set(frame.columns)
    for row in frame.to_dict("records"):
        one = next(each for each in evidence.standing.contenders if each.finalist.number == row["number"])
        assert row["score"] == one.scores.estimate["f1_macro"]
    assert any(isinstance(block, Picture) and block.name == "compared_cells" for block in section.blocks)


def test_a_metric_where_lower_is_better_and_a_table_with_odd_names(write_run):
    nasty = ("<b>", "a|b$x$", "normal")
    root = write_run(classes=nasty, sweep={"metric": "val_nll", "mode": "min"}, finals={"repeats": 2})
    section = finalists.section(gather(root))
    assert (table(section, "finalists").frame["score"] > 0).all()
    assert "negative log-likelihood" in words(section)


def test_the_comparison_joins_the_repeats_of_each_cells_best_trial(write_run):
    evidence = gather(write_run(trials=9, statuses=("completed",), finals={"compare": (7,)}))
    cells = comparison.repeated_cells(evidence)
    by_number = {one.finalist.number: one for one in evidence.standing.contenders}
    joined = cells[cells["mean"].notna()]
    assert len(joined) >= 1
    assert set(joined["number"]) == set(cells["number"]) & set(by_number)
    for row in joined.to_dict("records"):
        one = by_number[row["number"]]
        assert row["judged_f1_macro"] == one.scores.estimate["f1_macro"]
        assert row["judged_accuracy"] == one.scores.estimate["accuracy"]
        assert row["mean"] == one.mean
    section = comparison.section(evidence)
    assert "a hint, not evidence" in words(section)
    assert {block.name for block in section.blocks if isinstance(block, Picture)} == {
        "backbone_depth",
        "repeated_scores",
    }


def test_without_repeats_the_comparison_stays_a_hint(write_run):
    section = comparison.section(gather(write_run()))
    assert "these differences are hints, not evidence" in words(section)
    assert "repeated_scores" not in {block.name for block in section.blocks if isinstance(block, Picture)}


def test_hyperparameters_of_another_version_are_named_and_not_fatal(write_run):
    root = write_run(finals={"repeats": 1})
    paths = RunPaths(root)
    chosen = json.loads(paths.chosen.read_text())
    for row in chosen["finalists"]:
        row["params"] = {"backbone": "resnet18", "wings": 2}
    paths.chosen.write_text(json.dumps(chosen))
    frame = table(finalists.section(gather(root)), "finalists").frame
    assert set(frame["configuration"]) == {"hyperparameters damaged"}
