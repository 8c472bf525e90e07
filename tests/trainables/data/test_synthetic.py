from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from trainables.data.config import DataConfig
from trainables.data.dataset import open_dataset
from trainables.data.image import fit_square
from trainables.data.prepare import prepare
from trainables.data.synthetic import list_demo


def test_demo_set_is_the_same_each_time() -> None:
    first, second = list_demo(), list_demo()
    assert first.paths == second.paths
    assert first.pixels is not None
    assert second.pixels is not None
    assert np.array_equal(first.pixels, second.pixels)


def test_demo_set_has_three_findings_in_every_split_and_no_patient_in_two() -> None:
    samples = list_demo()
    assert 600 <= len(samples) <= 900
    assert samples.splits is not None
    assert samples.groups is not None
    assert {(split, int(label)) for split, label in zip(samples.splits, samples.labels, strict=True)} == {
        (split, label) for split in ("train", "val", "test") for label in range(3)
    }
    split_of = dict(zip(samples.groups, samples.splits, strict=True))
    assert all(split_of[group] == split for group, split in zip(samples.groups, samples.splits, strict=True))


def test_demo_set_needs_more_than_a_linear_model_of_small_images() -> None:
    samples = list_demo()
    assert samples.pixels is not None
    small = np.stack([fit_square(image, 16, "squash").ravel() for image in samples.pixels]) / 255.0
    train = np.array(samples.splits) == "train"
    model = LogisticRegression(C=0.1, max_iter=500).fit(small[train], samples.labels[train])
    accuracy = model.score(small[~train], samples.labels[~train])
    assert 0.40 < accuracy < 0.85


def test_demo_set_becomes_a_run_that_says_what_it_is(tmp_path: Path) -> None:
    dataset = prepare(DataConfig(data="demo", image_size=64), tmp_path / "run", tmp_path / "cache", workers=2)
    assert dataset["demo"]
    assert dataset["source"] == {"kind": "demo", "path": "demo"}
    assert "Demo set" in dataset["caveats"][0]
    assert [finding["severity"] for finding in dataset["checks"]] == []
    assert open_dataset(tmp_path / "run").images.shape[1:] == (1, 64, 64)
