"""The data chapter: what its tables hold, what was left out, and what is wrong with the data."""

from __future__ import annotations

from in_chapter import facts, figures, galleries, notes, results_of, tables, texts

from reports.chapters.data import chapter
from sweep.run_folder import RunPaths


def test_images_of_each_class_and_split_stand_in_a_table_and_a_figure(write_run):
    found = chapter(results_of(write_run(trials=1)))
    counts = tables(found)["class_counts"]
    assert counts.latex
    assert counts.frame.set_index("class").loc["covid"].to_dict() == {"train": 86, "val": 19, "test": 19, "total": 124}
    assert "covid 124 images" in figures(found)["class_counts"].alt
    assert [label for label, _ in galleries(found)[0].rows] == ["covid", "normal", "pneumonia"]
    assert "column patient_id" in facts(found)["Patients"]


def test_files_that_were_left_out_are_listed_and_counted(write_run):
    dropped = [{"path": f"{number}.png", "reason": "truncated"} for number in range(3)]
    found = chapter(results_of(write_run(trials=1, dataset={"dropped": dropped})))
    assert tables(found)["left_out"].frame["path"].tolist() == ["0.png", "1.png", "2.png"]
    assert "3 files were left out" in tables(found)["left_out"].caption
    assert "No file was left out" not in texts(found)
    assert "No file was left out" in texts(chapter(results_of(write_run("none", trials=1))))


def test_subgroups_and_sources_are_folded_and_a_class_from_one_source_is_a_warning(write_run):
    found = chapter(results_of(write_run(trials=1)))
    assert tables(found)["subgroups"].folded
    assert tables(found)["source_by_class"].folded
    assert "covid from “cohen” alone" in notes(found)
    mixed = {"source_by_class": {"covid": {"cohen": 1, "nih": 1}, "normal": {"cohen": 1, "nih": 1}}}
    assert "alone" not in notes(chapter(results_of(write_run("mixed", trials=1, dataset=mixed))))


def test_weights_stand_with_their_file_and_those_not_found_are_named(write_run):
    found = chapter(results_of(write_run(trials=1)))
    assert tables(found)["weights"].frame["file"].tolist() == ["mobilenet_v2-b0353104.pth", "resnet18-f37072fd.pth"]
    assert "vgg16: vgg16-397923af.pth is not in the folder" in notes(found)


def test_a_run_without_dataset_json_says_that_nothing_is_known(write_run):
    root = write_run(trials=1)
    RunPaths(root).dataset.unlink()
    assert "nothing is known of the data" in notes(chapter(results_of(root)))
