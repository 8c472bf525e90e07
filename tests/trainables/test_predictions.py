"""Predictions keep their file names, on disk and when they are joined."""

from dataclasses import replace

import numpy as np
import pytest

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
    assert found.label.dtype == np.int8
    assert found.label.tolist() == [[0, 1], [1, 1]]


def test_the_rows_of_one_split_come_out_as_they_went_in():
    whole = join([of_split("train", [0, 1, 1]), of_split("val", [1, 0])])
    assert whole.of("val").path.tolist() == of_split("val", [1, 0]).path.tolist()
    assert (whole.of("val").probability == of_split("val", [1, 0]).probability).all()


@pytest.mark.parametrize("labels", [[0, 1, 1], [[0, 1], [1, 1], [0, 0]]])
def test_predictions_come_in_the_order_of_given_images(labels):
    part, order = of_split("val", labels), [2, 0, 1]
    found = part.align(part.path[order], part.label[order].astype(float))
    assert found.path.tolist() == ["val/ä 2.png", "val/ä 0.png", "val/ä 1.png"]
    assert found.label.tolist() == [labels[place] for place in order]
    assert found.probability.tolist() == part.probability[order].tolist()
    assert (found.split.tolist(), found.classes, found.epoch) == (["val"] * 3, ("no", "yes"), 3)


def test_predictions_of_other_images_or_labels_have_no_such_order():
    part = of_split("val", [0, 1, 1])
    assert part.align(part.path[:2], part.label[:2]) is None
    assert part.align(np.append(part.path, "val/more.png"), np.append(part.label, 1)) is None
    assert part.align(np.array(["val/other.png", *part.path[1:]]), part.label) is None
    assert part.align(part.path, np.array([0, 1, 0])) is None
    assert part.align(part.path, np.array([[1, 0], [0, 1], [0, 1]])) is None


def test_a_path_that_stands_twice_on_one_side_alone_is_another_set_of_images():
    part = of_split("val", [0, 1, 1])
    twice = replace(part, path=part.path[[0, 1, 1]])
    assert part.align(twice.path, part.label) is None
    assert twice.align(part.path, part.label) is None
