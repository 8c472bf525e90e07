"""Sample images: which are shown of each class."""

from __future__ import annotations

import numpy as np

from reports.thumbnails import of_files, samples


def saved(path, labels):
    """One 4 px image a label cell, all of the training split."""
    names = np.array([f"{place}.png" for place in range(len(labels))])
    np.savez(
        path,
        path=names,
        split=np.full(len(labels), "train"),
        label=np.array(labels),
        image=np.zeros((len(labels), 4, 4), np.uint8),
    )
    return path


def shown(path, classes):
    return {name: [one.name for one in found] for name, found in samples(path, classes) or ()}


def test_an_image_of_two_labels_is_shown_once_while_there_are_others(tmp_path):
    labels = ["covid|pneumonia"] * 3 + ["pneumonia"] * 9 + [""]
    found = shown(saved(tmp_path / "t.npz", labels), ("covid", "pneumonia"))
    assert found["covid"] == ["0.png", "1.png", "2.png"]
    assert found["pneumonia"] == [f"{place}.png" for place in range(3, 8)]
    assert found["no label"] == ["12.png"]


def test_it_is_shown_again_where_its_other_label_has_no_more(tmp_path):
    found = shown(saved(tmp_path / "t.npz", ["a|b", "b"]), ("a", "b"))
    assert found == {"a": ["0.png"], "b": ["1.png", "0.png"]}


def test_a_class_with_a_bar_in_its_name_is_one_class(tmp_path):
    assert shown(saved(tmp_path / "t.npz", ["|", "a|b"]), ("|", "a|b")) == {"|": ["0.png"], "a|b": ["1.png"]}


def test_images_are_found_by_file_and_a_damaged_file_has_none(tmp_path):
    path = saved(tmp_path / "t.npz", ["a", "b"])
    found = of_files(path, ["1.png", "9.png"])
    assert list(found) == ["1.png"]
    assert found["1.png"].shape == (4, 4)
    path.write_bytes(b"PK no zip")
    assert of_files(path, ["1.png"]) == {}
    assert samples(path, ("a",)) is None
    np.savez(path, path=np.array(["x"]), split=np.array(["train"]), label=np.array(["a"]), image=np.zeros((1, 4, 4)))
    assert samples(path, ("a",)) is None
