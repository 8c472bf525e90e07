"""Missing labels of a multi-label task: every number of the page is of the images whose label is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from baseline_files import POOR, write_baselines
from in_chapter import figures, notes, repeats, results_of, tables
from run_files import WriteRun, write
from sklearn import metrics

from reports.build import build
from reports.chapters import calibration, data, discrimination, errors, examples, finalists
from reports.results import Results
from sweep.records import read_predictions, read_run
from trainables.predictions import Predictions

CLASSES = ("edema", "nodule", "mass")
SIZES = {"train": 60, "val": 150, "test": 150}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("missing") / "run"
    tuned = {"thresholds": dict.fromkeys(CLASSES, 0.4), "finalists": (0, 3), "repeats": 2}
    write(folder, trials=4, classes=CLASSES, task="multi_label", labels_per_split=SIZES, missing=0.3, finals=tuned)
    write_baselines(folder, POOR)
    rows = pd.read_csv(folder / "splits.csv", dtype=str, keep_default_na=False)
    rows["subgroup_view"] = np.where(rows["missing"].str.count(r"\|") == len(CLASSES) - 1, "nothing known", "PA")
    rows.to_csv(folder / "splits.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return results_of(root)


@pytest.fixture(scope="module")
def model(results: Results) -> Predictions:
    """The test rows of the network that the page shows."""
    assert results.model is not None
    return results.model.predictions.of("test")


def known_of(model: Predictions, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probability of a class, of the images whose label is known."""
    rows = model.label[:, place] >= 0
    return model.label[rows, place], model.probability[rows, place].astype(float)


def test_the_files_hold_missing_labels_and_the_page_is_built_of_them(root: Path) -> None:
    saved = read_predictions(read_run(root), "t0000/seed_1001")
    assert saved is not None
    assert (saved.label < 0).all(axis=1).any(), "images of which nothing is known"
    page = build(root).read_text(encoding="utf-8")
    assert ">nan" not in page
    assert read_run(root).problems == []


def test_the_data_chapter_counts_them(results: Results) -> None:
    found = tables(data.chapter(results))["class_counts"]
    rows = results.data.run.rows
    for name, row in found.frame.iloc[:-1].set_index("class").iterrows():
        for split in SIZES:
            of_split = rows[rows["split"] == split]["missing"].str.split("|")
            assert row[f"{split}, missing"] == sum(name in names for names in of_split)
    assert [column.title for column in found.columns][-1] == "test, missing"
    assert "excluded from loss and scores" in found.caption


def test_scores_of_a_class_are_those_of_scikit_learn_on_known_labels(results: Results) -> None:
    parts = repeats(results)
    table = tables(errors.chapter(results))["per_class_test"].frame.set_index("class")
    areas = tables(discrimination.chapter(results))["discrimination_test"].frame.set_index("class")
    for place, name in enumerate(CLASSES):
        known = [known_of(part, place) for part in parts]
        for key, score in (("recall", metrics.recall_score), ("precision", metrics.precision_score)):
            assert table.loc[name, key] == pytest.approx(np.mean([score(t, p >= 0.5) for t, p in known]))
        auroc = np.mean([metrics.roc_auc_score(t, p) for t, p in known])
        assert table.loc[name, "auroc"] == pytest.approx(auroc)
        assert areas.loc[name, "AUROC"] == pytest.approx(auroc)
        assert areas.loc[name, "AP"] == pytest.approx(
            np.mean([metrics.average_precision_score(t, p) for t, p in known])
        )
        assert table.loc[name, "known"] == areas.loc[name, "known"] == len(known[0][0])
        assert areas.loc[name, "share"] == pytest.approx(known[0][0].mean())


def test_operating_points_count_the_images_whose_label_is_known(results: Results, model: Predictions) -> None:
    frame = tables(errors.chapter(results))["operating_points_test"].frame
    for place, name in enumerate(CLASSES):
        truth, probability = known_of(model, place)
        assert len(frame[frame["class"] == name]) == 2
        for _, row in frame[frame["class"] == name].iterrows():
            (tn, fp), (fn, tp) = metrics.confusion_matrix(truth, probability >= row["threshold"])
            assert row[["TP", "FN", "FP", "TN"]].tolist() == [tp, fn, fp, tn]
            assert row["specificity"] == pytest.approx(tn / (tn + fp))
            assert row["NPV"] == pytest.approx(tn / (tn + fn))


def test_a_subgroup_of_which_nothing_is_known_has_no_score(results: Results) -> None:
    frame = tables(errors.chapter(results))["subgroup_scores_test"].frame.set_index("value")
    whole = repeats(results)
    some = [(part.label >= 0).any(axis=1) for part in whole]
    right_of = [((part.probability >= 0.5) == (part.label == 1)) | (part.label < 0) for part in whole]
    expected = np.mean([right[rows].all(axis=1).mean() for right, rows in zip(right_of, some, strict=True)])
    assert frame.loc["PA", "accuracy"] == pytest.approx(expected)
    assert frame.loc["nothing known", "images"] == (~some[0]).sum()
    assert np.isnan(frame.loc["nothing known", "accuracy"])
    assert frame.loc["nothing known", "accuracy_shown"] == "–"


def test_curves_and_bins_are_of_known_labels(results: Results, model: Predictions) -> None:
    roc = figures(discrimination.chapter(results))["roc_test"].frame
    reliability = figures(calibration.chapter(results))["reliability_test"].frame
    brier = tables(calibration.chapter(results))["calibration_test"].frame.set_index("probability of")
    assert roc is not None
    assert reliability is not None
    each = []
    for place, name in enumerate(CLASSES):
        truth, probability = known_of(model, place)
        curve = roc[(roc["class"] == name) & (roc["run"] == 1)]
        drawn = metrics.auc(curve["1 - specificity"], curve["sensitivity"])
        assert drawn == pytest.approx(metrics.roc_auc_score(truth, probability))
        assert reliability[reliability["class"] == name]["counts"].sum() == len(truth)
        parts = repeats(results)
        each.append(np.mean([metrics.brier_score_loss(*known_of(part, place)) for part in parts]))
        assert brier.loc[name, "Brier"] == pytest.approx(each[-1])
        assert brier.loc[name, "observed"] == pytest.approx(truth.mean())
    assert brier.loc["all labels (mean)", "Brier"] == pytest.approx(np.mean(each))


def test_an_unknown_label_is_no_mistake(results: Results, model: Predictions) -> None:
    shown = examples.examples(model, None)
    label = {
        (path, name): int(value)
        for path, of in zip(model.path, model.label, strict=True)
        for name, value in zip(CLASSES, of, strict=True)
    }
    wrong = [label[row["path"], row["class"]] for row in shown.to_dict("records")]
    assert [value == 1 for value in wrong] == (shown["kind"] == examples.FALSE_NEGATIVES).tolist()
    assert -1 not in wrong
    pairs = examples.confused_pairs(model, None)
    decided = model.probability >= 0.5
    for row in pairs.to_dict("records"):
        missed, given = CLASSES.index(row["true"]), CLASSES.index(row["predicted"])
        both = (model.label[:, missed] == 1) & ~decided[:, missed] & (model.label[:, given] == 0) & decided[:, given]
        assert row["images"] == both.sum()


def test_baselines_and_finalists_are_compared_on_known_labels(results: Results) -> None:
    comparison = results.baselines("test")
    assert comparison is not None
    assert set(comparison.measured) == set(POOR)
    for name, scores in comparison.measured.items():
        with np.load(results.data.run.paths.baselines / f"{name}.npz") as saved:
            rows = saved["split"] == "test"
            label, decided = saved["label"][rows], saved["probability"][rows] >= 0.5
        f1 = [metrics.f1_score(t[t >= 0], d[t >= 0], zero_division=0) for t, d in zip(label.T, decided.T, strict=True)]
        assert scores.estimate["f1_macro"] == pytest.approx(np.mean(f1))
    assert "tuned thresholds" in " ".join(
        column.title for column in tables(finalists.chapter(results))["finalists"].columns
    )


def test_a_class_of_which_nothing_is_known_is_told_and_left_out_of_means(write_run: WriteRun) -> None:
    folder = write_run(trials=2, classes=CLASSES, task="multi_label", labels_per_split=SIZES, missing=0.1)
    path = folder / "trials/t00000/best/predictions.npz"
    saved = dict(np.load(path))
    saved["label"][:, 2] = -1
    np.savez(path, **saved)
    results = results_of(folder)
    table = tables(discrimination.chapter(results))["discrimination_val"].frame.set_index("class")
    assert table.loc["mean of 2 of 3 classes", "AUROC"] == pytest.approx(table.loc[list(CLASSES[:2]), "AUROC"].mean())
    frame = tables(calibration.chapter(results))["calibration_val"].frame
    assert frame["probability of"].tolist() == [*CLASSES[:2], "all labels (mean)"]
    assert results.never_predicted("val") == []
    assert "Undefined for mass" in notes(discrimination.chapter(results))
    build(folder)
