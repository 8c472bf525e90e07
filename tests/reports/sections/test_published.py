"""The five studies beside a run: the same task with our interval, a repeated study row by row, else folded away."""

from __future__ import annotations

import pytest

from reports.data import gather
from reports.page.blocks import Note, Table, Text
from reports.sections import published


def section_of(root):
    return published.section(gather(root))


def table(section, name):
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def words(section):
    return " ".join(block.text for block in section.blocks if isinstance(block, Text | Note))


def test_the_rows_of_the_same_task_stand_below_the_winners_test_scores_with_intervals(write_run):
    section = section_of(write_run(finals={}))
    rows = table(section, "published_three_findings")
    ours = rows.frame.iloc[0]
    assert (ours["id"], ours["study"], ours["split"]) == ("this run", "mean of 3 repeats", "test")
    assert ours["f1_macro_low"] < ours["f1_macro"] < ours["f1_macro_high"]
    assert ours["recall_shown"].startswith(f"{ours['recall']:.3f} (")
    assert set(rows.frame["id"][1:]) >= {"W7", "H8", "Z9", "A10", "M21"}
    assert "W1" not in set(rows.frame["id"])
    assert not rows.folded
    assert "no number of the studies can be compared with one of this run" in words(section)


def test_without_finalists_our_row_is_of_validation_and_said_to_be_optimistic(write_run):
    section = section_of(
        write_run(classes=("normal", "infected"), labels_per_split={"train": 40, "val": 40, "test": 40})
    )
    ours = table(section, "published_two_findings").frame.iloc[0]
    assert (ours["study"], ours["split"]) == ("one run", "val (optimistic)")


def test_without_predictions_only_the_studies_rows_stand(write_run):
    rows = table(section_of(write_run(statuses=("running",))), "published_three_findings")
    assert "this run" not in set(rows.frame["id"])


def test_every_flaw_number_in_the_rows_is_explained_below_them(write_run):
    section = section_of(write_run())
    explained = set(table(section, "published_flaws").frame["number"])
    rows = table(section, "published_three_findings").frame
    assert {int(number) for text in rows["flaws"] if text != "–" for number in text.split()} <= explained


def test_other_classes_get_a_sentence_and_folded_tables(write_run):
    section = section_of(write_run(classes=("a", "b"), trials=1))
    assert "This data set has other classes" in words(section)
    assert [block.folded for block in section.blocks if isinstance(block, Table)] == [True, True, True]
    assert "this run" not in set(table(section, "published_two_findings").frame["id"])


def test_a_repeated_study_stands_row_by_row_beside_the_trials_that_ran_it(write_run):
    rows = [{"id": f"W{number + 1}", "number": number, "claim": f"claim {number}"} for number in range(5)]
    changes = {"space": "studies.bscs17028", "study_rows": rows, "study_rows_left_out": {"W6": "no weights"}}
    root = write_run(classes=("infected", "normal"), trials=4, sweep=changes, finals={"finalists": (0, 3)})
    section = section_of(root)
    frame = table(section, "published_study").frame.set_index("id")
    assert list(frame.index) == ["W1", "W2", "W3", "W4", "W5"]
    assert frame.loc["W1", "reported"] == pytest.approx(0.9267)
    evidence = gather(root)
    assert frame.loc["W4", "val_accuracy"] == evidence.trials["val_accuracy"][3]
    assert frame.loc["W1", "mean"] == evidence.run.finals.of("t0000").mean
    assert frame.loc["W5", "status"] == "not begun"
    assert {"study_splits", "study_counts"} <= {one.name for one in section.tables()}
    assert any(one.name.startswith("study_W1_") for one in section.pictures())
    claims = table(section, "study_claims").frame.set_index("id")
    assert claims.loc["W5", "claim"] == "claim 4"
    assert claims.loc["W5", "note"] == "–"
    assert "W6: no weights" in next(block for block in section.blocks if isinstance(block, Note) and block.items).items
    assert set(table(section, "published_flaws").frame["number"]) >= {5, 6, 8, 12, 13, 19, 21, 22}


def test_a_study_run_whose_rows_are_not_recorded_says_so(write_run):
    assert "No row of the study is recorded" in words(section_of(write_run(sweep={"space": "studies.msds18022"})))
