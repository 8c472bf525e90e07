"""The facts of a report, checked on run folders that were written to disk."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from run_files import rewrite_epochs
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score

from reports import tables
from reports.data import read_report_data
from sweep.records import DatasetRecord, ProvenanceRecord, read_run
from sweep.run_folder import RunPaths

DATASET = DatasetRecord(
    classes=("covid", "normal"),
    counts={"val": {"covid": 3, "normal": 9}, "train": {"covid": 10, "normal": 30}},
    images={"train": 40, "val": 12},
)


def frame(rows: list[dict]) -> pd.DataFrame:
    """Trials as ``read_run`` gives them, of what matters here; ``depth`` and ``backbone`` are hyperparameters."""
    return tables.trial_frame(
        pd.DataFrame(
            [
                {
                    "trial_id": f"t{number}",
                    "number": number,
                    "status": row.get("status", "completed"),
                    "reason": row.get("reason", ""),
                    "score": row.get("score"),
                    "epochs_run": row.get("epochs", 5),
                    "trainable_params": row.get("params", 100),
                    "seconds": 1.0,
                    "param_backbone": row.get("backbone", "resnet18"),
                    "param_unfreeze_depth": row.get("depth", 0),
                    "param_unfreeze_layers": row.get("layers", "none"),
                    "param_lr": row.get("lr", 0.1),
                }
                for number, row in enumerate(rows)
            ]
        )
    )


def test_the_highest_score_wins_unless_its_trial_failed():
    trials = frame([{"score": 0.7}, {"score": 0.9, "status": "failed"}, {"score": 0.8, "status": "pruned"}, {}])
    assert list(tables.ranked(trials, "max")["number"]) == [2, 0]
    assert list(tables.ranked(trials, "min")["number"]) == [0, 2]


def test_a_tie_goes_to_fewer_trainable_parameters_then_to_the_earlier_trial():
    trials = frame([{"score": 0.8, "params": 900}, {"score": 0.8, "params": 50}, {"score": 0.8, "params": 50}])
    assert list(tables.ranked(trials, "max")["number"]) == [1, 2, 0]


def test_a_cell_is_worth_its_best_trial_and_counts_all_of_them():
    trials = frame(
        [
            {"backbone": "vgg16", "depth": 4, "score": 0.6},
            {"backbone": "vgg16", "depth": 4, "score": 0.9, "status": "pruned"},
            {"backbone": "vgg16", "depth": 4, "status": "failed"},
            {"backbone": "resnet18", "depth": 1, "status": "failed"},
            {"backbone": "resnet18", "depth": None, "layers": "layer4.1", "score": 0.5},
            {"backbone": "resnet18", "depth": 0, "score": 0.4},
        ]
    )
    cells = tables.by_cell(trials, tables.ranked(trials, "max"))
    found = cells[["backbone", "unfrozen", "trials"]].to_dict("split")["data"]
    assert found == [
        ["resnet18", "head only", 1],
        ["resnet18", "last block", 1],
        ["resnet18", "chosen layers", 1],
        ["vgg16", "all blocks", 3],
    ]
    np.testing.assert_array_equal(cells["score"], [0.4, math.nan, 0.5, 0.9])
    grid = tables.cell_grid(cells, "score")
    assert list(grid.columns) == ["head only", "last block", "all blocks", "chosen layers"]
    assert grid.loc["vgg16", "all blocks"] == 0.9
    assert math.isnan(grid.loc["vgg16", "head only"])


def test_the_pruned_share_counts_only_trials_that_were_decided():
    trials = frame(
        [
            {"depth": 0, "score": 0.5, "epochs": 20},
            {"depth": 4, "score": 0.5, "status": "pruned", "epochs": 3},
            {"depth": 4, "score": 0.7, "status": "pruned", "epochs": 3},
            {"depth": 4, "score": 0.6, "epochs": 20},
            {"depth": 4, "status": "failed", "epochs": 1},
            {"depth": 2, "status": "running", "epochs": 1},
        ]
    )
    facts = tables.stopped_by_depth(trials, tables.ranked(trials, "max")).set_index("unfrozen")
    assert list(facts.index) == ["head only", "last 2 blocks", "all blocks"]
    assert facts.loc["all blocks", "pruned_share"] == pytest.approx(2 / 3)
    assert facts.loc["head only", "pruned_share"] == 0
    assert math.isnan(facts.loc["last 2 blocks", "pruned_share"])
    assert facts.loc["all blocks", ["trials", "failed", "median_epochs", "score"]].tolist() == [4, 1, 3.0, 0.7]


def test_hyperparameters_that_never_change_are_told_apart_from_those_that_do():
    differing, constant = tables.varied(frame([{"lr": 0.1}, {"lr": 0.2}]))
    assert differing == ["lr"]
    assert constant["backbone"] == "resnet18"


def test_failures_are_gathered_by_reason_with_the_trials_that_had_it():
    failed = [{"status": "failed", "reason": "out of memory"}, {"status": "failed"}, {"score": 1.0}]
    found = tables.failures(frame([*failed, {"status": "failed", "reason": "out of memory"}]))
    assert found.to_dict("split")["data"] == [["out of memory", 2, "0, 3"], ["no reason recorded", 1, "1"]]


def test_no_trials_at_all_give_empty_tables(write_run):
    trials = tables.trial_frame(read_run(write_run(trials=0)).trials)
    assert tables.ranked(trials, "max").empty
    assert tables.by_cell(trials, tables.ranked(trials, "max")).empty
    assert tables.stopped_by_depth(trials, tables.ranked(trials, "max")).empty
    assert tables.failures(trials).empty
    assert set(tables.status_counts(trials).values()) == {0}


def test_the_written_table_holds_every_trial_with_full_precision(built):
    written = pd.read_csv(built / "report/tables/trials.csv")
    trials = read_run(built).trials
    assert list(written["trial_id"]) == list(trials["trial_id"])
    np.testing.assert_allclose(written["score"], trials["score"], rtol=1e-12)
    assert "reason" in written


def test_the_evidence_ranks_what_the_files_say(write_run):
    root = write_run(trials=4, statuses=("completed",))
    last = RunPaths(root).trial("t00003").result
    rewrite_epochs(last, lambda row: row | ({"val_f1_macro": 0.999} if row["epoch"] == 2 else {}))
    best = read_report_data(root).best
    assert best is not None
    assert (best["trial_id"], best["best_epoch"], best["score"]) == ("t00003", 2, 0.999)


def test_class_counts_stand_in_the_order_of_the_splits_with_all_images_below():
    found = tables.class_counts(DATASET)
    assert list(found.columns) == ["class", "train", "val", "total"]
    assert found.to_numpy().tolist() == [["covid", 10, 3, 13], ["normal", 30, 9, 39], ["all images", 40, 12, 52]]


def test_images_with_several_labels_are_counted_once_in_the_last_row():
    dataset = DATASET.model_copy(update={"task": "multi_label", "images": {"train": 31, "val": 10}})
    assert tables.class_counts(dataset).iloc[-1].tolist() == ["all images", 31, 10, 41]


def test_missing_labels_are_counted_by_class_and_split():
    missing = {"train": {"covid": 4, "normal": 0}, "val": {"normal": 2}}
    found = tables.class_counts(DATASET.model_copy(update={"task": "multi_label", "missing": missing}))
    assert found["train, missing"].tolist() == [4, 0, 4]
    assert found["val, missing"].tolist() == [0, 2, 2]
    assert list(tables.class_counts(DATASET).columns) == ["class", "train", "val", "total"]


def test_what_was_left_out_is_one_list_with_at_most_three_examples():
    left_out = [
        {"why": "masks beside images", "count": 310, "examples": [f"m{place}.png" for place in range(9)]},
        {"why": "--where view=PA", "count": 2, "examples": ["row 7", "row 9"]},
    ]
    ignored = {"check": "ignored_files", "count": 9, "message": "9 files are no images", "items": [["a.txt"]]}
    dropped = [{"path": f"{place}.png", "reason": ("empty", "torn")[place % 2]} for place in range(3)]
    dataset = DatasetRecord.model_validate({"left_out": left_out, "checks": [ignored], "dropped": dropped})
    expected = [["masks beside images", 310, "m0.png; m1.png; m2.png"], ["--where view=PA", 2, "row 7; row 9"]]
    expected += [["unreadable: empty", 2, "0.png; 2.png"], ["unreadable: torn", 1, "1.png"]]
    assert tables.left_out(dataset).to_numpy().tolist() == expected


def test_image_files_are_described_class_by_class():
    images = pd.DataFrame(
        {
            "path": ["a", "b", "c", "not used"],
            "mode": ["L", "L", "RGB", "CMYK"],
            "width": [512, 1024, 2048, 1],
            "height": [512, 512, 512, 1],
            "bits": [8, 8, 16, 1],
            "jpeg_quality": [75, 95, math.nan, 1],
            "mean": [100.0, 120.0, 80.0, 0],
            "sd": [10.0, 20.0, 60.0, 0],
        }
    )
    rows = pd.DataFrame({"path": ["c", "b", "a"], "label": ["normal", "covid|b", "covid|b"]})
    found = tables.image_properties(images, rows, DatasetRecord(classes=("covid|b", "normal", "none")))
    assert found["images"].tolist() == [2, 1, 0, 3]
    first = {"width": "768 (512 to 1,024)", "height": "512", "mode": "L", "bits": "8", "jpeg_quality": "85 (75 to 95)"}
    assert found.iloc[0].to_dict() == {"class": "covid|b", "images": 2, **first, "mean": 110, "sd": 15}
    last = {"mode": "L 2, RGB 1", "bits": "8 2, 16 1", "width": "1,024 (512 to 2,048)"}
    assert found.iloc[3][list(last)].to_dict() == last
    assert found.iloc[1]["jpeg_quality"] == found.iloc[2]["mode"] == ""
    several = tables.image_properties(images, rows, DatasetRecord(classes=("covid", "b"), task="multi_label"))
    assert several["images"].tolist() == [2, 2, 3]


def test_the_majority_baseline_is_what_a_classifier_that_ignores_the_image_scores():
    train = ["covid"] * 10 + ["normal"] * 30
    val = ["covid"] * 3 + ["normal"] * 9
    guess = DummyClassifier(strategy="most_frequent").fit([[0]] * 40, train).predict([[0]] * 12)
    found = tables.majority_baseline(DATASET, "val")
    assert found is not None
    assert found["accuracy"] == pytest.approx(accuracy_score(val, guess))
    assert found["f1_macro"] == pytest.approx(f1_score(val, guess, average="macro", zero_division=0))


def test_there_is_no_majority_baseline_of_several_labels_or_unknown_counts():
    assert tables.majority_baseline(DATASET.model_copy(update={"task": "multi_label"}), "val") is None
    assert tables.majority_baseline(DatasetRecord(), "val") is None


def test_findings_stand_the_gravest_first_with_examples():
    dataset = DatasetRecord.model_validate(
        {
            "checks": [
                {"check": "tiny_class", "severity": "info", "message": "m", "count": 1, "items": []},
                {"check": "groups", "severity": "error", "message": "m", "count": 9, "items": [["a", "b"]] * 9},
                {"check": "near", "severity": "warning", "message": "m", "count": 1, "items": [["c"]]},
            ]
        }
    )
    found = tables.checks(dataset)
    assert list(found["severity"]) == ["error", "warning", "info"]
    assert found["examples"].tolist() == ["a = b; a = b; a = b", "c", ""]


def test_weights_show_their_file_without_the_folders_of_this_machine_and_say_where_batchnorm_is_folded():
    weights = {
        "resnet18": {"origin": "folder", "path": "/home/me/w/resnet18-ab.pth", "sha256": "ab" * 32},
        "vgg16": {"origin": "random", "path": None, "folded_batchnorm": False},
        "mobilenet_v2": {"origin": "folder", "path": "m.pth", "folded_batchnorm": True, "note": "n"},
    }
    found = tables.weights(ProvenanceRecord.model_validate({"weights": weights})).set_index("backbone")
    assert found.loc["resnet18", "file"] == "resnet18-ab.pth"
    assert found["batchnorm"].to_dict() == {"mobilenet_v2": "FOLDED", "resnet18": "normal", "vgg16": "normal"}


def test_an_empty_record_gives_empty_tables():
    for make in (tables.checks, tables.left_out, tables.subgroups, tables.source_by_class):
        assert make(DatasetRecord()).empty
    assert tables.weights(ProvenanceRecord()).empty
    assert tables.class_counts(DatasetRecord()).to_numpy().tolist() == [["all images", 0]]


def test_sources_are_rows_and_a_class_may_be_called_source():
    counts = {"source": {"a": 3}, "normal": {"a": 1, "b": 2}}
    found = tables.source_by_class(DatasetRecord(source_by_class=counts))
    assert found.to_numpy().tolist() == [["a", 3, 1], ["b", 0, 2]]
    assert list(found.columns) == ["source of the images", "source", "normal"]
