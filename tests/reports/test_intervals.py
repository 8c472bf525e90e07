"""Scores with their intervals as the reader sees them, and the words below a table."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from reports.bootstrap import draw_resamples, score_runs
from reports.intervals import Interval, as_text, below, cells, in_two_lines, interval, qualifier


def scored(labels, probabilities, groups=None):
    labels, probabilities = np.array(labels), np.array(probabilities, dtype=float)
    names = [f"c{place}" for place in range(probabilities.shape[-1])]
    resamples = draw_resamples(groups or [""] * len(labels), labels, len(names), replicates=300)
    return score_runs(labels, probabilities[None], names, resamples)


@pytest.fixture(scope="module")
def three_classes():
    """60 patients with an image each; no image is of c2, and it is never answered."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    probabilities = np.full((60, 3), 0.1)
    probabilities[np.arange(60), np.where(rng.random(60) < 0.8, labels, 1 - labels)] = 0.8
    return scored(labels, probabilities)


def test_a_cell_holds_the_numbers_for_the_csv_and_the_text_for_the_page(three_classes):
    found = cells(three_classes, {"sensitivity": "recall:c0"})
    expected = interval(three_classes, "recall:c0")
    assert found["sensitivity"] == expected.estimate
    assert (found["sensitivity_low"], found["sensitivity_high"]) == (expected.low, expected.high)
    assert found["sensitivity_shown"] == f"{expected.estimate:.3f} ({expected.low:.3f}–{expected.high:.3f})"


@pytest.mark.parametrize("name", ["recall:c2", "precision:c2", "auroc:c2", "sensitivity_at_90_specificity:c2"])
def test_what_no_image_counts_towards_is_a_dash_and_said_below(three_classes, name):
    found = cells(three_classes, {"x": name})
    assert math.isnan(found["x"])
    assert found["x_shown"] == "–"
    assert "A dash: undefined" in below([(three_classes, name)])


def test_a_mean_over_the_defined_classes_says_how_many_and_kappa_its_weights(three_classes):
    each = [three_classes.estimate[f"auroc:{name}"] for name in ("c0", "c1")]
    assert three_classes.estimate["auroc_macro"] == pytest.approx(np.mean(each))
    assert qualifier(three_classes, "auroc_macro") == " (2 of 3 classes)"
    assert qualifier(three_classes, "f1_macro") == ""
    assert qualifier(three_classes, "kappa") == " (unweighted)"
    assert qualifier(replace(three_classes, ordered=True), "kappa") == " (quadratic weights)"


def test_a_warning_is_a_mark_in_the_cell_and_a_sentence_below():
    labels = np.repeat([0, 1], [30, 6])
    few = scored(labels, np.eye(2)[np.roll(labels, 1)], groups=[f"p{row // 2}" for row in range(36)])
    assert cells(few, {"x": "recall:c1"})["x_shown"].endswith(" †")
    assert "† fewer than 20 patients with c1: interval too narrow." in below([(few, "recall:c1")])
    assert "†" not in in_two_lines(few, "recall:c1")


def test_many_like_warnings_become_one():
    labels = np.tile(np.arange(4), 4)
    groups = [f"p{row // 2}" for row in range(16)]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 16)
    few = scored(labels, probabilities, groups)
    text = below([(few, f"f1:c{place}") for place in range(4)])
    assert text.count("fewer than 20") == 1
    assert "fewer than 20 patients with the class: interval too narrow" in text


def test_the_method_and_what_it_rests_on_are_named(three_classes):
    assert "Wilson for proportions (patients are not known" in below([(three_classes, "recall:c0")])
    text = below([(three_classes, "f1_macro"), (three_classes, "accuracy")])
    assert "bootstrap over 60 images (patients are not known), 300 resamples" in text


def test_bounds_below_zero_are_joined_by_a_word():
    assert as_text(Interval(-0.01, -0.03, 0.02, "bootstrap", "")) == "-0.010 (-0.030 to 0.020)"
    assert as_text(Interval(0.5, math.nan, math.nan, "", "too few groups")) == "0.500 †"
