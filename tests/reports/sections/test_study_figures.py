"""A repeated study's own figures: curves and matrices of each row."""

from __future__ import annotations

from study_run import write_study

from reports.data import gather
from reports.page.blocks import Picture, Pictures
from reports.sections import study_figures
from sweep.run_folder import RunPaths


def pictures_of(blocks) -> dict[str, Picture]:
    return {picture.name: picture for block in blocks if isinstance(block, Pictures) for picture in block.items}


def test_every_row_has_curves_and_a_matrix_of_each_split_that_it_was_scored_on(write_run):
    evidence = gather(write_study(write_run, "msds19042", ("A7", "A9"), finals={"finalists": (0,)}))
    pictures = pictures_of(study_figures.blocks(evidence))
    shown = ["loss", "accuracy", "train", "val", "test"]
    assert list(pictures) == [f"study_A7_{name}" for name in shown] + [f"study_A9_{name}" for name in shown[:-1]]
    test = evidence.repeats["t0000/seed_1001"].of("test")
    right = int((test.label == test.probability.argmax(axis=1)).sum())
    assert f"{right} of {len(test.label)} decisions are right" in pictures["study_A7_test"].alt


def test_the_labels_of_a_multi_label_row_have_a_matrix_each(write_run):
    evidence = gather(write_study(write_run, "bscs17028", ("W9",), task="multi_label"))
    assert "one matrix a label" in pictures_of(study_figures.blocks(evidence))["study_W9_val"].caption


def test_without_predictions_there_are_no_figures(write_run):
    root = write_study(write_run, "bscs17028", ("W2",))
    assert pictures_of(study_figures.blocks(gather(root)))
    RunPaths(root).trial("t00000").predictions.unlink()
    assert study_figures.blocks(gather(root)) == []
