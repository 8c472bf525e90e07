"""The right images under the right names, pairs that are confused, thumbnails where there are any."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from in_chapter import galleries, notes, results_of, tables, texts
from PIL import Image
from sklearn import metrics

from reports.chapters.examples import BEST, FALSE_NEGATIVES, FALSE_POSITIVES, WORST, chapter, confused_pairs, examples
from sweep.run_folder import RunPaths
from trainables.predictions import Predictions


def listed(found):
    return next(table for name, table in tables(found).items() if name.startswith("examples_"))


def predictions(label, probability, classes=("a", "b", "c")) -> Predictions:
    label, probability = np.array(label), np.array(probability, dtype=np.float32)
    paths = np.array([f"{row}.png" for row in range(len(label))])
    return Predictions(paths, np.full(len(label), "test"), label, probability, classes, 1)


def test_best_and_worst_are_the_extremes_of_the_true_classs_probability_each_with_its_own_file(write_run):
    results = results_of(write_run(finals={}))
    frame = listed(chapter(results)).frame
    test = results.model.predictions.of("test")
    place = {path: row for row, path in enumerate(test.path)}
    for number, name in enumerate(test.classes):
        mine = np.sort(test.probability[test.label == number, number])
        best = frame[(frame["class"] == name) & (frame["kind"] == BEST)]
        worst = frame[(frame["class"] == name) & (frame["kind"] == WORST)]
        np.testing.assert_allclose(best["probability"], mine[::-1][:4])
        np.testing.assert_allclose(worst["probability"], mine[:4])
        for row in (*best.to_dict("records"), *worst.to_dict("records")):
            of_file = place[row["path"]]
            assert row["probability"] == pytest.approx(test.probability[of_file, number])
            assert row["decision"] == test.classes[test.probability[of_file].argmax()]
            assert row["truth"] == name == test.classes[test.label[of_file]]


def test_no_image_is_both_best_and_worst_in_a_class_of_few():
    few = predictions([0, 0, 0, 1], [[0.9, 0.1, 0], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    frame = examples(few, None)
    assert not frame["path"].duplicated().any()
    assert frame[frame["kind"] == BEST]["path"].tolist() == ["0.png", "1.png", "3.png"]
    assert frame[frame["kind"] == WORST]["path"].tolist() == ["2.png"]


def test_a_multi_label_task_shows_the_most_confident_mistakes_at_the_tuned_thresholds(write_run):
    root = write_run(finals={"thresholds": {"a": 0.3, "b": 0.5}}, task="multi_label", classes=("a", "b"))
    results = results_of(root)
    frame = listed(chapter(results)).frame
    test = results.model.predictions.of("test")
    for number, (name, threshold) in enumerate({"a": 0.3, "b": 0.5}.items()):
        p, truth = test.probability[:, number], test.label[:, number] == 1
        false_positives = np.sort(p[~truth & (p >= threshold)])[::-1][:4]
        false_negatives = np.sort(p[truth & (p < threshold)])[:4]
        mine = frame[frame["class"] == name]
        np.testing.assert_allclose(mine[mine["kind"] == FALSE_POSITIVES]["probability"], false_positives)
        np.testing.assert_allclose(mine[mine["kind"] == FALSE_NEGATIVES]["probability"], false_negatives)


def test_confused_pairs_are_the_off_diagonal_of_the_confusion_matrix(write_run):
    test = results_of(write_run(finals={})).model.predictions.of("test")
    matrix = metrics.confusion_matrix(test.label, test.probability.argmax(axis=1))
    pairs = confused_pairs(test, None)
    assert pairs["images"].sum() == matrix.sum() - np.trace(matrix)
    assert pairs["images"].is_monotonic_decreasing
    for row in pairs.to_dict("records"):
        true, predicted = test.classes.index(row["true"]), test.classes.index(row["predicted"])
        assert row["images"] == matrix[true, predicted]
        assert row["share"] == matrix[true, predicted] / matrix[true].sum()


def test_confused_labels_are_missed_and_given_on_the_same_image():
    truth = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=np.uint8)
    said = [[0.1, 0.9, 0.2], [0.2, 0.3, 0.1], [0.1, 0.8, 0.9]]
    pairs = confused_pairs(predictions(truth, said), None)
    # The first image lacks a and has b instead, the second only lacks a, the third lacks a and has c instead.
    assert pairs[["true", "predicted", "images", "of"]].values.tolist() == [["a", "b", 1, 3], ["a", "c", 1, 3]]


def test_thumbnails_are_those_of_the_files_and_a_missing_one_leaves_its_name(write_run):
    root = write_run(finals={})
    path = RunPaths(root).thumbnails
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    rows = {str(name): row for row, name in enumerate(arrays["path"])}
    first = galleries(chapter(results_of(root)))[0].rows[0][1][0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.uri.split(",")[1]))), dtype=float)
    assert np.abs(pixels - arrays["image"][rows[first.name]]).mean() < 4

    np.savez(path, **{key: np.delete(value, rows[first.name], axis=0) for key, value in arrays.items()})
    without = galleries(chapter(results_of(root)))[0].rows[0][1][0]
    assert (without.name, without.uri) == (first.name, "")


def test_of_a_split_of_few_thumbnails_the_galleries_show_the_extremes_of_those(write_run):
    root = write_run(finals={})
    whole = listed(chapter(results_of(root)))
    path = RunPaths(root).thumbnails
    with np.load(path) as saved:
        few = {key: saved[key][::8] for key in saved.files}
    np.savez(path, **few)
    found = chapter(results_of(root))
    shown = [(name, image) for gallery in galleries(found) for name, images in gallery.rows for image in images]
    assert {name for name, _ in shown} == {"covid", "normal", "pneumonia"}
    assert all(image.uri for _, image in shown)
    assert {image.name for _, image in shown} <= set(few["path"].tolist())
    count = int((few["split"] == "test").sum())
    assert f"Of its 169 images {count} have a thumbnail in the run folder" in texts(found)
    assert listed(found).frame.equals(whole.frame)
    assert listed(found).caption != whole.caption


@pytest.mark.parametrize("damage", ["missing", "bytes"])
def test_without_thumbnails_the_names_stand_alone(write_run, damage):
    root = write_run(finals={})
    RunPaths(root).thumbnails.unlink()
    if damage == "bytes":
        RunPaths(root).thumbnails.write_bytes(b"PK no zip")
    found = chapter(results_of(root))
    assert "names only" in notes(found)
    assert len(galleries(found)) == 2


def test_below_an_image_stand_its_probability_and_the_answer(write_run):
    found = chapter(results_of(write_run(finals={})))
    rows = listed(found).frame.set_index("path")
    answers = set()
    for image in (image for gallery in galleries(found) for _, images in gallery.rows for image in images):
        row = rows.loc[image.name]
        answer = "correct" if row["decision"] == row["truth"] else f"predicted {row['decision']}"
        assert image.note == f"p {row['probability']:.3f}, {answer}"
        answers.add(answer.partition(" ")[0])
    assert answers == {"correct", "predicted"}


def test_validation_stands_in_where_test_was_not_opened(write_run):
    found = chapter(results_of(write_run()))
    assert listed(found).name == "examples_val"
    assert all(image.split == "val" for _, images in galleries(found)[0].rows for image in images)


def test_nothing_confused_and_nothing_predicted_is_said(write_run):
    assert confused_pairs(predictions([0, 1, 2], np.eye(3)), None).empty
    assert "no predictions" in texts(chapter(results_of(write_run(statuses=("failed",)))))
