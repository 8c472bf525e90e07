"""The checklist: what the records answer is answered with its value, the rest is left to the authors by name."""

from __future__ import annotations

import re

import pytest

from reports.build import SECTIONS
from reports.data import gather
from reports.page.blocks import Table
from reports.prose import checklist
from sweep.run_folder import RunPaths


def answers(root):
    return checklist.answers(gather(root)).set_index("item")["answer"]


def test_answers_hold_the_values_of_the_run(write_run):
    found = answers(write_run(finals={}))
    assert found["level at which partitions are disjoint"] == "patient (column patient_id)"
    assert "train 785 (500 patients)" in found["images and patients in each partition, by class"]
    assert (
        found["how the final model was selected"] == "mean of 3 repeats on validation, before the test split was opened"
    )
    assert re.match(r"test macro F1 0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", found["performance with its precision"])
    assert found["subgroups and fairness"] == "scores by view"
    assert re.match(r"3 seeds: 0\.\d{3} to 0\.\d{3}", found["robustness"])


def test_without_finalists_the_score_is_called_optimistic_and_robustness_not_examined(write_run):
    found = answers(write_run(dataset={"groups": {}, "subgroups": {}}))
    assert "validation macro F1" in found["performance with its precision"]
    assert "optimistic" in found["performance with its precision"]
    assert found["robustness"] == "not examined: no repeats"
    assert found["level at which partitions are disjoint"] == "image; patients not known"
    assert found["subgroups and fairness"] == "no subgroup column was given"


@pytest.mark.parametrize("statuses", [("failed",), ("running",)])
def test_a_run_without_a_model_says_so(write_run, statuses):
    assert answers(write_run(statuses=statuses))["performance with its precision"] == "no predictions"


def test_a_run_of_which_little_is_recorded_is_answered_with_that(write_run):
    root = write_run(trials=0)
    for path in (RunPaths(root).dataset, RunPaths(root).provenance):
        path.unlink()
    found = answers(root)
    assert found["the model"] == "no model"
    assert found["software"] == "not recorded"
    assert found["class imbalance"] == "class counts not recorded"


def test_every_answer_names_a_section_of_the_page(write_run):
    evidence = gather(write_run(finals={}))
    titles = {make(evidence).title for make in SECTIONS}
    assert set(checklist.answers(evidence)["where"]) - {"–"} <= titles


def test_between_them_the_two_tables_name_every_item_of_both_guidelines(write_run):
    tables = [block for block in checklist.checklist(gather(write_run())) if isinstance(block, Table)]
    named = {key: set() for key in ("claim", "tripod")}
    for table in tables:
        for key, found in named.items():
            for text in table.frame[key]:
                found |= numbers(text)
    assert named["claim"] == set(map(str, range(1, 43)))
    assert {re.match(r"\d+", item)[0] for item in named["tripod"]} == set(map(str, range(1, 28)))


def numbers(text):
    """{"3a", "3b", "4"} for "3a–3b, 4"."""
    found = set()
    for part in text.split(", "):
        first, _, last = part.partition("–")
        if first and last and first.isdigit():
            found |= {str(number) for number in range(int(first), int(last) + 1)}
        elif first and last:
            stem = first[:-1]
            found |= {f"{stem}{chr(letter)}" for letter in range(ord(first[-1]), ord(last[-1]) + 1)}
        elif first:
            found.add(first)
    return found
