"""ROC and precision-recall: areas and curves against scikit-learn, mean over the repeats, undefined classes marked."""

from __future__ import annotations

import numpy as np
import pytest
from in_chapter import figures, notes, repeats, results_of, tables, texts
from run_files import keep_rows, rewrite
from sklearn import metrics

from reports import model_card
from reports.chapters import calibration, errors, summary
from reports.chapters.discrimination import MACRO, chapter
from reports.class_panels import MOST_POINTS, thinned
from sweep.run_folder import RunPaths


def areas(found):
    (table,) = tables(found).values()
    return table


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_areas_are_the_mean_of_scikit_learns_over_the_repeats(write_run, task):
    sizes = {"train": 60, "val": 60, "test": 60}
    results = results_of(write_run(finals={}, task=task, labels_per_split=sizes))
    frame = areas(chapter(results)).frame.set_index("class")
    parts = repeats(results)
    for place, name in enumerate(parts[0].classes):
        truth = parts[0].label[:, place] == 1 if task == "multi_label" else parts[0].label == place
        of_each = [metrics.roc_auc_score(truth, one.probability[:, place]) for one in parts]
        row = frame.loc[name]
        assert row["AUROC"] == pytest.approx(np.mean(of_each))
        assert row["AUROC_of_each_repeat"] == ", ".join(f"{value:.3f}" for value in of_each)
        precision = [metrics.average_precision_score(truth, one.probability[:, place]) for one in parts]
        assert row["AP"] == pytest.approx(np.mean(precision))
        assert row["AP_low"] < row["AP"] < row["AP_high"]
        assert row["images"] == truth.sum()
    assert frame.loc[MACRO, "AUROC"] == pytest.approx(frame["AUROC"].iloc[:-1].mean())


def test_a_class_that_the_split_lacks_is_undefined_not_zero(write_run):
    root = write_run(finals={"repeats": 1})
    path = RunPaths(root).trial("t0000/seed_1001").predictions
    keep_rows(path, lambda arrays: (arrays["split"] != "test") | (arrays["label"] != 1))
    found = chapter(results_of(root))
    assert "Undefined for normal" in notes(found)
    rows = areas(found).frame.set_index("class")
    assert rows.loc["normal", "AUROC_shown"] == rows.loc["normal", "AP_shown"] == "–"
    assert "no image has it" in figures(found)["roc_test"].drawing.saved.svg
    assert rows.loc["covid", "AUROC"] > 0.5


def test_without_finalists_the_curves_are_of_the_best_trial_on_validation(write_run):
    found = chapter(results_of(write_run()))
    assert list(figures(found)) == ["roc_val", "precision_recall_val"]
    assert "AUROC_of_each_repeat" not in [column.key for column in areas(found).columns]
    assert "other repeats" not in figures(found)["roc_val"].drawing.saved.svg


def test_the_operating_point_is_a_point_on_the_curve(write_run):
    chosen = "decided at the chosen threshold"
    with_positive = chapter(results_of(write_run(finals={}, sweep={"positive_class": "covid"})))
    assert chosen in figures(with_positive)["roc_test"].drawing.saved.svg
    assert chosen not in figures(chapter(results_of(write_run("plain", finals={}))))["roc_test"].drawing.saved.svg


def test_figures_say_their_numbers_in_words(write_run):
    found = chapter(results_of(write_run(finals={})))
    rows = areas(found).frame.set_index("class")
    for name in ("covid", "normal", "pneumonia"):
        assert f"{name} {rows.loc[name, 'AUROC']:.3f}" in figures(found)["roc_test"].alt


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_shape():
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.3
    x, y, _ = metrics.roc_curve(truth, truth + rng.normal(size=20_000), drop_intermediate=False)
    few_x, few_y = thinned(x, y)
    assert len(few_x) <= MOST_POINTS
    assert (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert metrics.auc(few_x, few_y) == pytest.approx(metrics.auc(x, y), abs=2e-3)


@pytest.mark.parametrize("count", [2, 15])
def test_any_number_of_classes_makes_one_panel_each(write_run, count):
    names = [f"class <{place}>" for place in range(count)]
    sizes = {"train": 60, "val": 90, "test": 90}
    root = write_run(finals={"repeats": 2}, classes=names, labels_per_split=sizes, trials=1)
    for figure in figures(chapter(results_of(root))).values():
        assert all(f"class &lt;{place}&gt;" in figure.drawing.saved.svg for place in range(count))


def test_class_names_are_no_markup_where_they_are_few_enough_to_be_listed(write_run):
    results = results_of(write_run(finals={}, classes=("<b>", "*a*", "normal"), trials=1))
    assert "<b>" in results.basis("test")
    for found in (chapter(results), calibration.chapter(results)):
        assert "<b>" not in texts(found)
        assert " *a*" not in texts(found)


def test_folds_are_scored_together_each_image_by_the_fold_that_did_not_train_on_it(write_run):
    root = write_run(finals={"opened": 0, "folds": 3})
    for fold in range(3):
        file = RunPaths(root).trial(f"t0000/seed_{1001 + fold}").predictions
        rewrite(file, path=lambda arrays, fold=fold: np.char.add(f"{fold}/", arrays["path"]))
    results = results_of(root)
    found = chapter(results)
    parts = repeats(results, "val")
    truth, probability = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "probability"))
    row = areas(found).frame.set_index("class").loc["covid"]
    assert row["AUROC"] == pytest.approx(metrics.roc_auc_score(truth == 0, probability[:, 0]))
    assert row["images"] == (truth == 0).sum() == 3 * 19
    assert "each predicted by the network that was not trained on it" in texts(found)
    assert results.whose("val") == "trial 0, all folds together"
    assert "of this network, on the images of its fold" in texts(errors.chapter(results))
    assert figures(summary.chapter(results))["confusion_val"].caption.startswith("The model file on its own fold, val")
    assert "this model file, its own fold | all folds" in "\n".join(model_card._scores(results))
