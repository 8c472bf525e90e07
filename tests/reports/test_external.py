"""The page of an external evaluation: its numbers are those of the files, and it says what they rest on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from reports.comparisons import ExternalResult
from reports.external import build, main, mistakes
from reports.intervals import interval
from sweep.evaluation_records import read_evaluation
from trainables.atomic import FORMAT
from trainables.predictions import Predictions

CLASSES = ("covid", "<b>normal</b>", "pneumonia")


def write(root: Path, *, task: str = "single_label", count: int = 60, absent: bool = False, **changes: Any) -> Path:
    """An evaluation of ``count`` images, two of each patient. absent: no image is of the last class."""
    chance = np.random.default_rng(3)
    several = task == "multi_label"
    label = chance.integers(0, 2, (count, 3)) if several else np.arange(count) % (2 if absent else 3)
    truth = label if several else np.eye(3, dtype=np.int64)[label]
    logits = 2.0 * truth + chance.normal(size=(count, 3)) - several
    probability = 1 / (1 + np.exp(-logits)) if several else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    paths = [f"{number}.png" for number in range(count)]
    root.mkdir(parents=True)
    Predictions.of_split("external", paths, label, probability, CLASSES, 4).write(root / "predictions.npz")
    with (root / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "path", "split", "label", "group", "subgroup_view"])
        table.writerows([n, paths[n], "external", "", f"g{n // 2}", ("AP", "PA")[n % 4 == 0]] for n in range(count))
    model = {"file": "best.pt", "sha256": "ab" * 32, "trial": "t0007/seed_1001", "backbone": "resnet18"}
    facts = {
        "format": FORMAT,
        "name": "hospital & sons",
        "evaluated": "2026-01-05T12:00:00+00:00",
        "command": "runs/x --data 'hospital & sons'",
        "run": "x",
        "model": model | {"image_size": 224},
        "data": {"path": "/data/b.csv", "kind": "table", "fingerprint": "cd" * 32},
        "map": {"tb": "pneumonia"},
        "split": None,
        "task": task,
        "classes": list(CLASSES),
        "thresholds": {"covid": 0.3, CLASSES[1]: 0.5, "pneumonia": 0.6} if several else None,
        "images": count,
        "counts": {name: int(number) for name, number in zip(CLASSES, truth.sum(axis=0), strict=True)},
        "groups": {"from": "patient", "count": count // 2},
        "dropped": [{"path": "bad.png", "reason": "empty"}],
        "warnings": ["5 of 60 images are the run's own training images."],
    }
    (root / "evaluation.json").write_text(json.dumps(facts | changes))
    return root


def test_the_numbers_on_the_page_are_those_of_the_predictions(tmp_path: Path) -> None:
    root = write(tmp_path / "b")
    lines = build(root)
    found = read_evaluation(root).predictions
    decided = found.probability.argmax(axis=1)
    macro = f1_score(found.label, decided, average="macro")
    external = ExternalResult(read_evaluation(root))
    low, high = interval(external.scores, "f1_macro").low, interval(external.scores, "f1_macro").high
    shown = f"{macro:.3f} ({low:.3f}–{high:.3f})"
    assert f"macro F1: {shown}" in lines
    page = (root / "report.html").read_text(encoding="utf-8")
    assert shown in page
    assert shown in (root / "report.md").read_text(encoding="utf-8")
    table = pd.read_csv(root / "tables" / "discrimination_external.csv")
    expected = [roc_auc_score(found.label == place, found.probability[:, place]) for place in range(3)]
    np.testing.assert_allclose(table["AUROC"][:3], expected)
    by_class = pd.read_csv(root / "tables" / "operating_points_external.csv")
    assert by_class["TP"].sum() == (decided == found.label).sum()
    assert "bootstrap over 30 patients" in page


def test_the_page_says_what_is_to_be_known_and_names_are_escaped(tmp_path: Path) -> None:
    build(write(tmp_path / "b"))
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert "5 of 60 images are the run&#39;s own training images." in page
    assert "hospital &amp; sons" in page
    assert "<b>normal" not in page
    assert "tb is pneumonia" in page
    assert "1 files that cannot be read" in page
    assert "Not for clinical use." in page
    assert 'href="http' not in page
    assert "src=" not in page.replace('src="data:', "")
    for name in ("operating_points_external", "f1", "discrimination_external", "calibration_external",
                 "subgroup_scores_external", "mistakes"):  # fmt: skip
        assert (tmp_path / "b" / "tables" / f"{name}.csv").is_file()
        assert f'href="tables/{name}.csv"' in page
    for name in ("confusion_external", "roc_external"):
        assert (tmp_path / "b" / "figures" / f"{name}.png").is_file()


def test_a_macro_f1_is_not_given_where_a_class_has_no_image(tmp_path: Path) -> None:
    lines = build(write(tmp_path / "b", absent=True))
    assert not any(line.startswith(("macro F1", "balanced accuracy")) for line in lines)
    assert any(line.startswith("macro AUROC (2 of 3 classes): ") for line in lines)
    assert any(line.startswith("accuracy: ") for line in lines)
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert "Accuracy on 60 images" in page


def test_labels_are_decided_by_the_models_thresholds(tmp_path: Path) -> None:
    external = ExternalResult(read_evaluation(write(tmp_path / "b", task="multi_label")))
    found = external.evaluation.predictions
    decided = found.probability >= np.array([0.3, 0.5, 0.6], dtype=np.float32)
    assert external.scores.estimate["f1_macro"] == pytest.approx(f1_score(found.label, decided, average="macro"))
    lines = build(tmp_path / "b")
    assert any(line.startswith("exact match: ") for line in lines)
    table = pd.read_csv(tmp_path / "b" / "tables" / "operating_points_external.csv")
    assert sorted(table.loc[table["class"] == "covid", "threshold"]) == [0.3, 0.5], "tuned beside 0.5"


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_mistakes_are_all_that_was_wrong_the_surest_first(task: str, tmp_path: Path) -> None:
    external = ExternalResult(read_evaluation(write(tmp_path / "b", task=task)))
    found, frame = external.evaluation.predictions, mistakes(external)
    if task == "single_label":
        wrong = found.probability.argmax(axis=1) != found.label
    else:
        wrong = (found.probability >= np.array([0.3, 0.5, 0.6], dtype=np.float32)) != found.label
    assert len(frame) == wrong.sum() > 0
    assert frame["probability"].is_monotonic_decreasing
    assert (frame["labelled"] != frame["decided"]).all()


def test_a_missing_label_is_neither_scored_nor_a_mistake(tmp_path: Path) -> None:
    root = write(tmp_path / "b", task="multi_label")
    found = read_evaluation(root).predictions
    label = found.label.copy()
    label[::3, 1] = -1
    Predictions.of_split("external", found.path.tolist(), label, found.probability, CLASSES, 4).write(
        root / "predictions.npz"
    )
    build(root)
    external = ExternalResult(read_evaluation(root))
    decided = found.probability >= np.array([0.3, 0.5, 0.6], dtype=np.float32)
    assert len(mistakes(external)) == ((decided != label) & (label >= 0)).sum()
    table = pd.read_csv(root / "tables" / "operating_points_external.csv").set_index("class")
    assert table.loc[CLASSES[1], ["TP", "FN", "FP", "TN"]].sum() == (label[:, 1] >= 0).sum()
    areas = pd.read_csv(root / "tables" / "discrimination_external.csv").set_index("class")
    rows = label[:, 1] >= 0
    assert areas.loc[CLASSES[1], "AUROC"] == pytest.approx(roc_auc_score(label[rows, 1], found.probability[rows, 1]))


def test_the_page_names_the_weights_of_kappa(tmp_path: Path) -> None:
    assert any(line.startswith("Cohen's kappa (unweighted): ") for line in build(write(tmp_path / "b")))
    root = write(tmp_path / "c", model={"trial": "t0007/seed_1001", "ordered": True})
    found = read_evaluation(root).predictions
    kappa = cohen_kappa_score(found.label, found.probability.argmax(axis=1), weights="quadratic")
    assert any(line.startswith(f"Cohen's kappa (quadratic weights): {kappa:.3f} (") for line in build(root))


@pytest.mark.usefixtures("computed_anew")
def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    root = write(tmp_path / "b")
    build(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    build(root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_what_is_no_evaluation_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path} is not an evaluation: it has no evaluation.json" in capsys.readouterr().err
    root = write(tmp_path / "b")
    (root / "predictions.npz").write_bytes(b"PK")
    assert main([str(root)]) == 2
    assert f"error: {root} cannot be read" in capsys.readouterr().err
    root = write(tmp_path / "c")
    rows = (root / "rows.csv").read_text().splitlines()
    (root / "rows.csv").write_text("\n".join(rows[:-1]) + "\n")
    assert main([str(root)]) == 2
    assert "rows.csv and predictions.npz name other images" in capsys.readouterr().err
    root = write(tmp_path / "d")
    (root / "rows.csv").write_text((root / "rows.csv").read_text().replace(",", ";"))
    assert main([str(root)]) == 2
    assert "rows.csv has no column path and no column group" in capsys.readouterr().err


def test_a_model_with_an_operating_point_is_judged_by_its_rule(tmp_path: Path) -> None:
    point = {"label": "covid", "kind": "sensitivity", "target": 0.95, "threshold": 0.1, "positives": 30, "runs": 3}
    model = {"trial": "t0007/seed_1001", "operating_point": point}
    root = write(tmp_path / "b", thresholds={"covid": 0.1}, model=model)
    build(root)
    found = read_evaluation(root).predictions
    decided = np.where(found.probability[:, 0] >= 0.1, 0, 1 + found.probability[:, 1:].argmax(axis=1))
    external = ExternalResult(read_evaluation(root))
    assert external.scores.estimate["accuracy"] == pytest.approx((decided == found.label).mean())
    assert external.scores.estimate["recall:covid"] == pytest.approx((decided[found.label == 0] == 0).mean())
    assert len(mistakes(external)) == (decided != found.label).sum()
    counts = pd.read_csv(root / "tables" / "confusion_external.csv").to_numpy()[:, 1:]
    assert counts.trace() == (decided == found.label).sum()
    assert "covid at a probability of at least 0.100" in (root / "report.md").read_text()
    subgroups = pd.read_csv(root / "tables" / "subgroup_scores_external.csv")
    assert subgroups["accuracy"][0] == pytest.approx((decided == found.label).mean())
