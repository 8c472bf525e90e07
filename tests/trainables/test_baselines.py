"""The baselines on real images, on the demo set, and on sets where one of them must win or fail."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.dummy import DummyClassifier

from sweep.run_folder import RunPaths
from trainables import baselines
from trainables.baselines import measure_baselines
from trainables.data.config import DataConfig
from trainables.data.dataset import Split, TrialData, open_data
from trainables.data.prepare import prepare
from trainables.metrics import evaluate_predictions
from trainables.predictions import read_predictions
from trainables.weights import FoundWeights, find_weights

NAMES = ["majority", "thumbnails", "borders", "frozen_squeezenet1_1"]
RANDOM = {"squeezenet1_1": FoundWeights(backbone="squeezenet1_1", origin="random")}


def measure(
    data: TrialData, test: Split | None, folder: Path, weights: Mapping[str, FoundWeights] = RANDOM
) -> dict[str, dict[str, Any]]:
    """The entries of the content by name."""
    device = torch.device("cpu")
    content = measure_baselines(data, test, weights, folder, threads=1, device=device, precision="fp32")
    assert json.loads((folder / "baselines.json").read_text()) == content
    return {entry["name"]: entry for entry in content["baselines"]}


def prepared(root: Path, data: Path | str, **request: Any) -> TrialData:
    prepare(DataConfig(data=str(data), **request), root / "run", root / "store", 1)
    return open_data(root / "run")


def part_of(data: TrialData, run: Path) -> Split:
    """The test rows of a single-label run: a sweep opens them once, tests of a baseline may look."""
    with (run / "splits.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    labels = np.array([data.classes.index(row["label"]) for row in rows])
    return Split(np.array([int(row["row"]) for row in rows]), labels, [row["path"] for row in rows])


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    root = tmp_path_factory.mktemp("small")
    prepared(root, small_data, image_size=32)
    return root / "run"


@pytest.fixture
def small(small_run: Path) -> tuple[TrialData, Split]:
    data = open_data(small_run)
    return data, part_of(data, small_run)


def test_every_baseline_is_scored_from_the_predictions_that_it_leaves(
    small: tuple[TrialData, Split], tmp_path: Path
) -> None:
    data, test = small
    found = measure(data, test, tmp_path / "baselines")
    assert list(found) == NAMES
    for name, entry in found.items():
        assert entry["failed"] is None
        assert entry["seconds"] >= 0
        saved = read_predictions(tmp_path / "baselines" / f"{name}.npz")
        assert (saved.classes, saved.epoch) == (data.classes, 0)
        for split, rows in (("val", data.val), ("test", test)):
            mine = saved.of(split)
            assert mine.path.tolist() == rows.paths
            np.testing.assert_array_equal(mine.label, rows.labels)
            expected = evaluate_predictions(mine.label, mine.probability, data.classes, data.task)
            assert entry[split] == pytest.approx(expected)
    assert found["thumbnails"]["val"]["accuracy"] > 0.9  # The classes differ in brightness.
    assert found["thumbnails"]["detail"].startswith("logistic regression, C ")
    assert found["frozen_squeezenet1_1"]["detail"].startswith("random weights, logistic regression, C ")


def test_nothing_of_a_closed_test_split_is_scored_or_written(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    found = measure(small[0], None, tmp_path)
    for name in NAMES:
        assert set(read_predictions(tmp_path / f"{name}.npz").split.tolist()) == {"val"}
        assert found[name]["val"] is not None
        assert found[name]["test"] is None


def test_the_test_split_chooses_nothing(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    data, test = small
    wrong = dataclasses.replace(test, labels=(test.labels + 1) % 3)
    with_test, with_wrong, without = (
        measure(data, split, tmp_path / str(turn), {}) for turn, split in enumerate((test, wrong, None))
    )
    for name in NAMES[:3]:
        assert with_test[name]["val"] == with_wrong[name]["val"] == without[name]["val"]
        assert with_test[name]["detail"] == with_wrong[name]["detail"] == without[name]["detail"]
        both = [read_predictions(tmp_path / turn / f"{name}.npz").of("test").probability for turn in "01"]
        np.testing.assert_array_equal(*both)


def test_the_majority_is_that_of_scikit_learns_dummy(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    data, test = small
    kept = np.flatnonzero((data.train.labels != 0) | (np.arange(len(data.train)) < 5))
    data = dataclasses.replace(
        data, train=Split(data.train.rows[kept], data.train.labels[kept], [data.train.paths[i] for i in kept])
    )
    entry = measure(data, test, tmp_path, {})["majority"]
    dummy = DummyClassifier(strategy="prior").fit(data.train.rows, data.train.labels)
    saved = read_predictions(tmp_path / "majority.npz").of("test")
    np.testing.assert_allclose(saved.probability, dummy.predict_proba(test.rows), rtol=1e-6)
    assert entry["test"]["accuracy"] == pytest.approx(dummy.score(test.rows, test.labels))
    assert entry["test"]["auroc_macro"] == 0.5
    assert entry["detail"] == f"always {data.classes[1]}"


def test_a_baseline_that_fails_is_told_with_its_reason_and_the_others_stand(
    small: tuple[TrialData, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(batches: object) -> None:
        raise torch.OutOfMemoryError("too much")

    measure(*small, tmp_path)
    monkeypatch.setattr(baselines, "borders", exhausted)
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    broken = FoundWeights(backbone="resnet18", origin="folder", path=str(tmp_path / "no.pth"))
    too_small = FoundWeights(backbone="convnext_tiny", origin="random")
    images = np.asarray(small[0].images)[:, :, ::2, ::2]
    halved = dataclasses.replace(small[0], images=images, image_size=16)
    found = measure(halved, small[1], tmp_path, {"resnet18": broken, "convnext_tiny": too_small})
    assert [name for name, entry in found.items() if entry["failed"] is None] == ["majority", "thumbnails"]
    assert found["borders"]["failed"] == "out of memory"
    assert "no.pth" in found["frozen_resnet18"]["failed"]
    assert "at least 32 px" in found["frozen_convnext_tiny"]["failed"]
    for name in ("borders", "frozen_resnet18", "frozen_convnext_tiny"):
        assert (found[name]["val"], found[name]["test"]) == (None, None)
        assert not (tmp_path / f"{name}.npz").exists()


@pytest.mark.filterwarnings("error")
def test_several_labels_an_image_are_answered_one_by_one(tmp_path: Path) -> None:
    """One label is seen in the border, one in the middle; one, in the end, is on every image."""
    chance = np.random.default_rng(0)
    lines = ["path,split,edge,middle,every"]
    for number in range(90):
        edge, middle = number % 2, number // 2 % 2
        pixels = chance.integers(0, 60, (32, 32))
        pixels[:2] += 150 * edge
        pixels[12:20, 12:20] += 150 * middle
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 60 else "val"
        lines.append(f"{number}.png,{split},{edge},{middle},{number % 3 // 2}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    data = prepared(tmp_path, tmp_path / "all.csv", image_size=32, label_column=("edge", "middle", "every"))
    for part in (data.train, data.val):
        part.labels[:, 2] = 1
    found = measure(data, None, tmp_path / "baselines", {})
    assert found["borders"]["val"]["f1:edge"] == 1
    assert found["borders"]["val"]["auroc:middle"] < 0.9
    assert found["thumbnails"]["val"]["exact_match"] == 1
    assert found["thumbnails"]["val"]["auroc:every"] is None
    majority = read_predictions(tmp_path / "baselines" / "majority.npz")
    np.testing.assert_allclose(majority.probability[0], data.train.labels.mean(axis=0))
    assert (read_predictions(tmp_path / "baselines" / "borders.npz").probability[:, 2] == 1).all()


def test_the_file_has_the_name_that_a_run_folder_knows() -> None:
    assert RunPaths(Path("run")).baselines_table.name == baselines.BASELINES_FILE


def test_on_the_demo_set_borders_tell_next_to_nothing(tmp_path: Path) -> None:
    data = prepared(tmp_path, "demo", image_size=64)
    found = measure(data, None, tmp_path / "baselines", {})
    assert found["borders"]["val"]["accuracy"] < found["majority"]["val"]["accuracy"] + 0.15


def test_on_real_x_rays_each_step_towards_a_network_tells_more(shared_dir: Path, tmp_path: Path) -> None:
    manifest = shared_dir / "data" / "xray_a" / "manifest.csv"
    data = prepared(tmp_path, manifest, label_column=("class",), group_column="group_id", image_size=96)
    weights, _ = find_weights(str(shared_dir / "weights"), ["squeezenet1_1"])
    found = measure(data, part_of(data, tmp_path / "run"), tmp_path / "baselines", weights)
    for split in ("val", "test"):
        accuracy = [found[name][split]["accuracy"] for name in ("majority", "borders", "frozen_squeezenet1_1")]
        assert accuracy == sorted(accuracy)
        assert accuracy[0] + 0.05 < accuracy[1]
        assert found["thumbnails"][split]["f1_macro"] > found["borders"][split]["f1_macro"]
