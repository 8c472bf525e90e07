"""Operating points: decisions, their counts and ratios against scikit-learn, and the threshold chosen on validation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from reports.data import gather
from reports.page.blocks import Table, Text
from reports.scores.shown import alone_on, repeats_of_winner, shown
from reports.sections.operating import blocks, chosen_cut, decision_rules, positive_class, table, youden


def points(root, **changes):
    """The table of operating points of a run, its words above, and the evidence."""
    evidence = gather(root)
    found = blocks(evidence, shown(evidence))
    frame = next(block for block in found if isinstance(block, Table))
    return frame, " ".join(block.text for block in found if isinstance(block, Text)), evidence


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(2, 50), decimals=st.integers(1, 5))
def test_youdens_threshold_has_the_greatest_sensitivity_plus_specificity_of_all(seed, images, decimals):
    rng = np.random.default_rng(seed)
    truth = rng.random(images) < 0.4
    probability = rng.random(images).round(decimals).astype(np.float32)
    threshold = youden(truth, probability)
    if truth.all() or not truth.any():
        assert threshold is None
        return
    decided = probability >= threshold
    index = decided[truth].mean() - decided[~truth].mean()
    false_positive_rate, sensitivity, _ = metrics.roc_curve(truth, probability, drop_intermediate=False)
    # Deciding nothing, which roc_curve adds, is worth no more than deciding everything.
    assert index == pytest.approx((sensitivity - false_positive_rate)[1:].max())


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    truth = np.array([True, False, True, False, False])
    # Cuts at 0.85 and 0.45 find one and both positives; 0.45 is better. Without the second positive they are equal.
    probability = np.array([0.9, 0.8, 0.5, 0.4, 0.1], dtype=np.float32)
    assert youden(truth, probability) == pytest.approx(0.45)
    tied = np.array([True, False, True, False])
    assert youden(tied, np.array([0.95, 0.7, 0.5, 0.3], dtype=np.float32)) == pytest.approx(0.4)


@pytest.mark.parametrize("classes", [("covid", "normal", "pneumonia"), ("normal", "pneumonia")])
def test_the_ratios_of_every_class_are_those_of_scikit_learn(write_run, classes):
    frame, _, evidence = points(write_run(finals={}, classes=classes))
    test = shown(evidence).predictions.of("test")
    answers = test.probability.argmax(axis=1)
    likeliest = frame.frame[frame.frame["decided if"] == "likeliest"]
    assert likeliest["class"].tolist() == list(classes)
    for place, row in enumerate(likeliest.to_dict("records")):
        truth, decided = test.label == place, answers == place
        tn, fp, fn, tp = metrics.confusion_matrix(truth, decided).ravel()
        assert (row["TN"], row["FP"], row["FN"], row["TP"]) == (tn, fp, fn, tp)
        assert row["sensitivity"] == pytest.approx(metrics.recall_score(truth, decided))
        assert row["specificity"] == pytest.approx(metrics.recall_score(truth, decided, pos_label=0))
        assert row["PPV"] == pytest.approx(metrics.precision_score(truth, decided))
        assert row["NPV"] == pytest.approx(metrics.precision_score(truth, decided, pos_label=0))
        assert row["sensitivity_low"] <= row["sensitivity"] <= row["sensitivity_high"]


def test_a_positive_class_is_stated_alone_with_the_threshold_from_validation_applied_to_test(write_run):
    frame, words, evidence = points(write_run(finals={}, sweep={"positive_class": "covid"}))
    assert frame.name == "operating_points_test"
    assert frame.frame["class"].tolist() == ["covid", "covid"]
    cut = chosen_cut(evidence, "covid")
    pooled = [part.of("val") for part in repeats_of_winner(evidence)]
    truth = np.concatenate([part.label == 0 for part in pooled])
    assert cut.threshold == youden(truth, np.concatenate([part.probability[:, 0] for part in pooled]))
    assert (cut.positives, cut.images, cut.runs) == (19, 169, 3)
    test = shown(evidence).predictions.of("test")
    decided = test.probability[:, 0] >= cut.threshold
    assert frame.frame["TP"].tolist()[1] == int((decided & (test.label == 0)).sum())
    assert frame.frame["decided if"].tolist() == ["likeliest", f"p ≥ {cut.threshold:.3f}"]
    assert "validation predictions of 3 repeats, pooled (19 images of covid among 169)" in words


def test_in_a_binary_task_one_threshold_decides_both_classes(write_run):
    frame, _, evidence = points(write_run(finals={}, classes=("normal", "pneumonia")))
    threshold = chosen_cut(evidence, None).threshold
    chosen = frame.frame.set_index("decided if")
    assert chosen.index.tolist() == ["likeliest", f"pneumonia < {threshold:.3f}", "likeliest", f"p ≥ {threshold:.3f}"]
    both, other = chosen.iloc[3], chosen.iloc[1]
    assert (both["TP"], both["FN"], both["FP"], both["TN"]) == (other["TN"], other["FP"], other["FN"], other["TP"])
    assert both["sensitivity"] == other["specificity"]


def test_a_threshold_scored_where_it_was_chosen_is_said_to_be_flattered(write_run):
    frame, words, _ = points(write_run(finals={"opened": 0}, sweep={"positive_class": "covid"}))
    assert frame.name == "operating_points_val"
    assert "which flatters it" in words
    _, words, _ = points(write_run("unrepeated", sweep={"positive_class": "covid"}))
    assert "on its validation predictions (19 images" in words


def test_a_multi_label_task_is_stated_at_one_half_and_at_the_tuned_thresholds(write_run):
    thresholds = {"a": 0.31, "b": 0.5, "c": 0.72}
    root = write_run(finals={"thresholds": thresholds}, task="multi_label", classes=("a", "b", "c"))
    frame, words, evidence = points(root)
    assert frame.frame[["class", "threshold"]].values.tolist() == [
        ["a", 0.5],
        ["a", 0.31],
        ["b", 0.5],
        ["c", 0.5],
        ["c", 0.72],
    ]
    assert "Not tuned, for lack of positives on validation: b." in words
    test = shown(evidence).predictions.of("test")
    for row in frame.frame.to_dict("records"):
        place = ("a", "b", "c").index(row["class"])
        truth, decided = test.label[:, place] == 1, test.probability[:, place] >= row["threshold"]
        assert [row[key] for key in ("TN", "FP", "FN", "TP")] == metrics.confusion_matrix(
            truth, decided
        ).ravel().tolist()


def test_a_multi_label_task_without_tuned_thresholds_has_one_row_a_label(write_run):
    frame, words, _ = points(write_run(task="multi_label", classes=("a", "b")))
    assert frame.frame["threshold"].tolist() == [0.5, 0.5]
    assert "no thresholds were tuned" in words


def test_a_class_that_no_image_has_or_that_is_never_answered_has_no_ratio(write_run):
    root = write_run(finals={}, never_predicted="covid")
    evidence = gather(root)
    images = alone_on(evidence, shown(evidence), "test")
    without = images.of(images.labels != 1)
    frame, _ = table(decision_rules(without, None, None, None), without.resamples)
    rows = frame.set_index("class")
    assert np.isnan(rows.loc["covid", "PPV"]) or rows.loc["covid", "TP"] + rows.loc["covid", "FP"] > 0
    assert np.isnan(rows.loc["normal", "sensitivity"])
    assert rows.loc["normal", "sensitivity_shown"] == "–"


def test_a_positive_class_that_the_data_lacks_is_told_and_all_classes_are_stated(write_run):
    root = write_run(sweep={"positive_class": "<b>flu</b>"})
    evidence = gather(root)
    assert positive_class(evidence) is None
    found = blocks(evidence, shown(evidence))
    assert any("there is no such class" in getattr(block, "text", "") for block in found)
    assert len(next(block for block in found if isinstance(block, Table)).frame) == 3


def test_two_readings_of_one_run_give_the_same_numbers(write_run):
    root = write_run(finals={})
    first, second = (points(root)[0].frame for _ in range(2))
    assert json.dumps(first.to_dict("records")) == json.dumps(second.to_dict("records"))
