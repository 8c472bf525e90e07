"""An operating point in the report: what the rule reaches on the images that judge, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_chapter import facts, results_of, tables, texts
from run_files import WriteRun, change_sweep
from sklearn.metrics import confusion_matrix

from reports.bootstrap import draw_resamples, score_runs, with_prevalence
from reports.build import build
from reports.caveats import caveats
from reports.chapters import errors, examples, summary
from reports.intervals import interval, is_undefined
from reports.results import Results
from sweep.finalists import select
from sweep.records import read_run
from sweep.run_folder import RunPaths
from trainables.metrics import decide

COVID = {"target_sensitivity": {"covid": 0.9}}


def aimed(root: Path, **sweep: Any) -> Path:
    """``root`` with an operating point, selected as a sweep selects it."""
    change_sweep(RunPaths(root), **(COVID | sweep))
    assert select(read_run(root)) is not None
    return root


def said(results: Results) -> str:
    return " ".join(one.text for one in caveats(results))


@pytest.mark.parametrize("classes", [("covid", "normal", "pneumonia"), ("covid", "normal")])
@pytest.mark.parametrize("kind", ["target_sensitivity", "target_specificity"])
def test_the_ratios_are_of_what_the_rule_says_on_test(write_run: WriteRun, classes: tuple[str, ...], kind: str) -> None:
    root = write_run(finals={}, classes=classes)
    targets = {"target_sensitivity": None} | {kind: {"covid": 0.9}}
    results = results_of(aimed(root, **targets, prevalence={"covid": 0.02}))
    point, model = results.operating_point, results.model
    assert point is not None
    assert model is not None
    test = model.predictions.of("test")
    decided = decide(test.probability, "single_label", classes, point.thresholds)
    assert ((decided == 0) == (test.probability[:, 0] >= point.threshold)).all()
    found = errors.chapter(results)
    frame = tables(found)["operating_points_test"].frame
    rule = frame[frame["decided if"] != "likeliest"].set_index("class")
    assert rule.index.tolist() == list(classes)
    for place, name in enumerate(classes):
        tn, fp, fn, tp = confusion_matrix(test.label == place, decided == place).ravel()
        row = rule.loc[name]
        assert [row[key] for key in ("TN", "FP", "FN", "TP")] == [tn, fp, fn, tp]
        expected = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp)}
        expected |= {"PPV": tp / (tp + fp), "NPV": tn / (tn + fn)}
        for key, value in expected.items():
            assert row[key] == pytest.approx(value)
            assert row[f"{key}_low"] <= value <= row[f"{key}_high"]
    tn, fp, fn, tp = confusion_matrix(test.label == 0, decided == 0).ravel()
    true, false = tp / (tp + fn) * 0.02, fp / (tn + fp) * 0.98
    elsewhere = rule.loc["covid", "PPV at a prevalence of"]
    assert elsewhere == pytest.approx(true / (true + false))
    assert rule.loc["covid", "PPV at a prevalence of_low"] <= elsewhere
    assert np.isnan(rule.loc["normal", "PPV at a prevalence of"])
    line = facts(summary.chapter(results))["Operating point"]
    assert line.startswith(
        f"covid at a probability of at least {point.threshold:.3f} ({kind[7:]} at least 0.9 on validation, "
        "3 networks pooled)"
    )
    numbers = re.search(r"on test: sensitivity ([\d.]+) .*, PPV ([\d.]+) .* at a prevalence of 0.02$", line)
    assert numbers is not None
    assert numbers.groups() == (f"{tp / (tp + fn):.3f}", f"{elsewhere:.3f}")
    assert f"chosen on {point.positives} images of covid among {point.images}." in texts(found)
    assert (examples.truth_and_decisions(test, model.thresholds)[1].argmax(axis=1) == decided).all()


def test_without_a_prevalence_the_observed_ppv_stands_alone(write_run: WriteRun) -> None:
    results = results_of(aimed(write_run(finals={})))
    frame = tables(errors.chapter(results))["operating_points_test"].frame
    assert not [name for name in frame if "prevalence" in name]
    assert "prevalence" not in facts(summary.chapter(results))["Operating point"]


def test_of_several_labels_its_threshold_takes_the_place_of_the_tuned_one(write_run: WriteRun) -> None:
    root = write_run(finals={}, task="multi_label", missing=0.1)
    results = results_of(aimed(root, prevalence={"covid": 0.1}))
    point, model = results.operating_point, results.model
    assert point is not None
    assert model is not None
    test = model.predictions.of("test")
    known = test.label[:, 0] >= 0
    truth, decided = test.label[known, 0] == 1, test.probability[known, 0] >= point.threshold
    row = tables(errors.chapter(results))["operating_points_test"].frame.query("`class` == 'covid'").iloc[-1]
    tn, fp, fn, tp = confusion_matrix(truth, decided).ravel()
    assert [row[key] for key in ("TN", "FP", "FN", "TP")] == [tn, fp, fn, tp]
    assert (model.thresholds or {})["covid"] == point.threshold
    assert row["PPV at a prevalence of"] > 0


def test_few_positives_and_a_target_out_of_reach_are_caveats(write_run: WriteRun) -> None:
    results = results_of(aimed(write_run(finals={})))
    few = "based on 19 validation images of covid, fewer than 20: on other images its sensitivity may be"
    assert few in said(results)
    root = write_run("more", finals={})
    change_sweep(RunPaths(root), target_sensitivity={"normal": 0.9})
    select(read_run(root))
    assert "operating point" not in said(results_of(root))
    selection = json.loads(RunPaths(root).selection.read_text())
    selection["operating_point"] |= {"threshold": None}
    RunPaths(root).selection.write_text(json.dumps(selection))
    results = results_of(root)
    assert "No threshold reaches sensitivity 0.9 of normal on validation" in said(results)
    line = "none: no threshold of normal reaches sensitivity at least 0.9 on validation, 3 networks pooled"
    assert facts(summary.chapter(results))["Operating point"] == line
    assert f"Operating point: {line}." in texts(errors.chapter(results))
    build(root)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"finals": {"selected": False, "opened": 0}}, "no winner with validation predictions was selected"),
        ({"finals": None}, "no winner with validation predictions was selected"),
        ({"finals": {"opened": 0}}, ""),
        ({"finals": {}, "never_predicted": "covid"}, ""),
        ({"finals": {"repeats": 1}}, ""),
    ],
)
def test_a_run_without_all_of_it_still_has_a_report(write_run: WriteRun, changes: Any, missing: str) -> None:
    root = write_run(**changes)
    change_sweep(RunPaths(root), **COVID, prevalence={"covid": 0.02})
    if not missing:
        select(read_run(root))
    results = results_of(root)
    line = facts(summary.chapter(results))["Operating point"]
    assert missing in line
    assert missing in said(results)
    assert missing or ("on test" if changes["finals"].get("opened", 1) else "model file on validation") in line
    build(root)


def test_a_selection_whose_operating_point_is_damaged_is_read(write_run: WriteRun) -> None:
    root = aimed(write_run(finals={}))
    whole = json.loads(RunPaths(root).selection.read_text())
    for point in ({}, {"label": "flu"}, {"label": 3}, "covid", {**whole["operating_point"], "threshold": "high"}):
        RunPaths(root).selection.write_text(json.dumps(whole | {"operating_point": point}))
        assert "Operating point" in facts(summary.chapter(results_of(root)))


def test_ppv_at_the_observed_prevalence_is_the_observed_ppv() -> None:
    chance = np.random.default_rng(1)
    labels = chance.integers(0, 3, 200)
    probabilities = chance.dirichlet(np.ones(3), size=(1, 200))
    resamples = draw_resamples([f"{place // 2}" for place in range(200)], labels, 3, replicates=400)
    scores = score_runs(labels, probabilities, ("a", "b", "c"), resamples, areas=False)
    same = with_prevalence(scores, "b", float((labels == 1).mean()))
    name = "precision_at_prevalence:b"
    assert same.estimate[name] == pytest.approx(scores.estimate["precision:b"])
    rare = with_prevalence(scores, "b", 0.01)
    for sample in (0, 7, 399):
        recall, specificity = (scores.replicates[f"{key}:b"][sample] for key in ("recall", "specificity"))
        expected = recall * 0.01 / (recall * 0.01 + (1 - specificity) * 0.99)
        assert rare.replicates[name][sample] == pytest.approx(expected)
    found = interval(rare, name)
    assert (found.method, found.low < found.estimate < found.high) == ("bootstrap", True)
    never = score_runs(labels, probabilities, ("a", "b", "c"), resamples, areas=False, thresholds={"b": 2.0})
    assert is_undefined(with_prevalence(never, "b", 0.01), name)


@pytest.mark.parametrize("together", [1, 2])
def test_a_ppv_without_a_false_positive_is_as_unsure_as_the_specificity(together: int) -> None:
    labels = np.repeat([0, 1], [80, 40])
    answers = np.where(np.arange(120) < 116, labels, 0)  # four of the 40 are missed
    probabilities = np.eye(2, dtype=np.float32)[answers][None]
    groups = [f"{place // together}" for place in range(120)]
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples(groups, labels, 2), areas=False)
    found = interval(with_prevalence(scores, "b", 0.02), "precision_at_prevalence:b")
    recall, specificity = interval(scores, "recall:b"), interval(scores, "specificity:b")
    assert (found.estimate, found.high, specificity.high) == (1, 1, 1)
    assert specificity.low < 1
    expected = recall.low * 0.02 / (recall.low * 0.02 + (1 - specificity.low) * 0.98)
    assert found.low == pytest.approx(expected)
    assert found.low < 0.5, "80 images without a false positive do not show it"
