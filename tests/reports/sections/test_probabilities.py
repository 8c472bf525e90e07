"""Calibration: means, errors and Brier scores against scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from reports.data import gather
from reports.scores.calibration import brier_score, top_label_reliability
from reports.scores.shown import repeats_of_winner
from reports.sections.probabilities import BINS, SELECTION, section


def rows(found):
    return found.tables()[0].frame.set_index("probability of")


def test_each_class_has_its_brier_score_and_its_mean_probability_over_the_repeats(write_run):
    evidence = gather(write_run(finals={}))
    frame = rows(section(evidence))
    repeats = [one.of("test") for one in repeats_of_winner(evidence)]
    for place, name in enumerate(repeats[0].classes):
        truth = repeats[0].label == place
        given = [one.probability[:, place].astype(float) for one in repeats]
        row = frame.loc[name]
        assert row["Brier"] == pytest.approx(np.mean([metrics.brier_score_loss(truth, one) for one in given]))
        assert row["given"] == pytest.approx(np.mean(given))
        assert row["observed"] == pytest.approx(truth.mean())
        assert row["difference"] == pytest.approx(np.mean(given) - truth.mean())
        always = np.full(len(truth), truth.mean())
        assert row["Brier of the share"] == pytest.approx(metrics.brier_score_loss(truth, always))
    whole = np.mean([brier_score(one.label, one.probability) for one in repeats])
    assert frame.loc["all classes (sum)", "Brier"] == pytest.approx(whole)
    assert frame.loc["all classes (sum)", "Brier_low"] < whole < frame.loc["all classes (sum)", "Brier_high"]


def test_the_answers_own_confidence_is_checked_too(write_run):
    evidence = gather(write_run(finals={}))
    row = rows(section(evidence)).loc[SELECTION]
    repeats = [one.of("test") for one in repeats_of_winner(evidence)]
    errors = [top_label_reliability(one.label, one.probability, bins=BINS).error for one in repeats]
    assert row["ECE"] == pytest.approx(np.mean(errors))
    assert row["ECE of each repeat"] == ", ".join(f"{value:.3f}" for value in errors)
    assert row["observed"] == pytest.approx(
        np.mean([metrics.accuracy_score(one.label, one.probability.argmax(1)) for one in repeats])
    )


def test_a_multi_label_task_checks_each_label_and_takes_the_mean_of_them(write_run):
    root = write_run(
        finals={}, task="multi_label", classes=("a", "b"), labels_per_split={"train": 60, "val": 60, "test": 60}
    )
    evidence = gather(root)
    frame = rows(section(evidence))
    assert frame.index.tolist() == ["a", "b", "all labels (mean)"]
    whole = np.mean(
        [brier_score(one.label, one.probability) for one in (p.of("test") for p in repeats_of_winner(evidence))]
    )
    assert frame.loc["all labels (mean)", "Brier"] == pytest.approx(whole)


def test_the_binning_is_stated_and_the_diagram_told_in_words(write_run):
    found = section(gather(write_run(finals={"opened": 0})))
    picture = found.pictures()[0]
    assert picture.name == "reliability_val"
    assert "10 bins of equal width" in picture.caption
    assert picture.alt.startswith("Reliability diagrams, validation split.")


def test_a_network_that_is_always_sure_and_right_is_drawn_without_a_warning(write_run):
    root = write_run(trials=1)
    path = root / "trials/t00000/best/predictions.npz"
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    arrays["probability"] = np.eye(3, dtype=np.float32)[arrays["label"]]
    np.savez(path, **arrays)
    frame = rows(section(gather(root)))
    assert (frame["ECE"].dropna() == 0).all()
    assert frame.loc["all classes (sum)", "Brier"] == 0


def test_without_predictions_there_is_a_sentence(write_run):
    assert "no predictions" in section(gather(write_run(statuses=("failed",)))).blocks[0].text
