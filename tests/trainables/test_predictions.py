"""Predictions keep their file names, on disk and when they are joined."""

import numpy as np

from trainables.predictions import Predictions, join, read_predictions


def of_split(split, labels):
    probabilities = np.linspace(0, 1, len(labels) * 2).reshape(-1, 2)
    paths = [f"{split}/ä {i}.png" for i in range(len(labels))]
    return Predictions.of_split(split, paths, np.array(labels), probabilities, ("no", "yes"), 3)


def test_what_is_written_is_read_without_pickle(tmp_path):
    written = join([of_split("train", [0, 1, 1]), of_split("val", [1])])
    written.write(tmp_path / "best" / "predictions.npz")
    found = read_predictions(tmp_path / "best" / "predictions.npz")
    assert found.path.tolist() == ["train/ä 0.png", "train/ä 1.png", "train/ä 2.png", "val/ä 0.png"]
    assert found.split.tolist() == ["train"] * 3 + ["val"]
    assert found.label.tolist() == [0, 1, 1, 1]
    assert (found.probability == written.probability).all()
    assert (found.classes, found.epoch) == (("no", "yes"), 3)
    assert [part.name for part in (tmp_path / "best").iterdir()] == ["predictions.npz"]


def test_multi_label_rows_hold_small_multi_hot_labels():
    found = of_split("val", [[0.0, 1.0], [1.0, 1.0]])
    assert found.label.dtype == np.uint8
    assert found.label.tolist() == [[0, 1], [1, 1]]


def test_the_rows_of_one_split_come_out_as_they_went_in():
    whole = join([of_split("train", [0, 1, 1]), of_split("val", [1, 0])])
    assert whole.of("val").path.tolist() == of_split("val", [1, 0]).path.tolist()
    assert (whole.of("val").probability == of_split("val", [1, 0]).probability).all()
