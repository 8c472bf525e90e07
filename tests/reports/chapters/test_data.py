"""The data chapter: what its tables hold, what was left out, and what is wrong with the data."""

from __future__ import annotations

import pytest
from in_chapter import facts, figures, galleries, notes, results_of, tables, texts

from reports.chapters import methods
from reports.chapters.data import chapter
from sweep.records import read_run
from sweep.run_folder import RunPaths


def test_images_of_each_class_and_split_stand_in_a_table_and_a_figure(write_run):
    found = chapter(results_of(write_run(trials=1)))
    counts = tables(found)["class_counts"]
    assert counts.latex
    assert counts.frame.set_index("class").loc["covid"].to_dict() == {"train": 86, "val": 19, "test": 19, "total": 124}
    assert "covid 124 images" in figures(found)["class_counts"].alt
    assert [label for label, _ in galleries(found)[0].rows] == ["covid", "normal", "pneumonia"]
    assert "(from patient_id)" in facts(found)["Patients"]


def test_of_many_classes_the_first_are_drawn_and_the_table_has_all(write_run):
    counts = {"train": {f"class {number}": number for number in range(100)}}
    found = chapter(results_of(write_run(trials=0, dataset={"classes": list(counts["train"]), "counts": counts})))
    figure = figures(found)["class_counts"]
    assert "The first 40 of 100 classes." in figure.caption
    assert figure.drawing.saved.height_in < 15
    assert len(tables(found)["class_counts"].frame) == 101


def test_what_was_left_out_is_listed_and_counted(write_run):
    left_out = [{"why": "unreadable", "count": 3, "examples": ["0.png"]}, {"why": "rows", "count": 7, "examples": []}]
    found = chapter(results_of(write_run(trials=1, dataset={"left_out": left_out})))
    assert tables(found)["left_out"].frame["why"].tolist() == ["unreadable", "rows"]
    assert "10 images or rows were excluded" in tables(found)["left_out"].caption
    assert "No images were excluded" not in texts(found)
    assert "No images were excluded" in texts(chapter(results_of(write_run("none", trials=1))))


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (
            {"preset": "mura", "notes": ["read as MURA (preset mura).", "14 rows repeat an image."]},
            "read as MURA (preset mura); 14 rows repeat an image",
        ),
        ({}, "without a preset"),
        ({"demo": True}, None),
    ],
)
def test_how_the_set_was_read_is_said(write_run, dataset, said):
    found = chapter(results_of(write_run(trials=1, dataset=dataset)))
    assert facts(found).get("Read") == said


def test_equal_images_are_said_to_be_kept_together_where_splits_were_drawn_so(write_run):
    def said(name, **dataset):
        return facts(chapter(results_of(write_run(name, trials=1, dataset=dataset))))["Splits"]

    assert "patients and equal images kept together" in said("drawn", split_origin="seeded")
    assert "equal images" in said("val", split_origin="val taken from train")
    assert "together" not in said("given", split_origin="given")


def test_nothing_is_said_of_patients_where_none_are_known(write_run):
    groups = {"from": None, "count": None, "counts": {}}
    found = chapter(results_of(write_run(trials=1, dataset={"groups": groups, "split_origin": "seeded", "checks": []})))
    assert facts(found)["Splits"].endswith("; equal images kept together")
    assert "The checks for unreadable files and duplicates found no problems." in texts(found)


def test_near_duplicates_across_splits_are_shown_side_by_side(write_run):
    def shown(name, *items):
        check = {"check": "near_duplicates_across_splits", "severity": "warning", "count": len(items), "items": items}
        root = write_run(name, trials=1, dataset={"checks": [check]})
        return galleries(chapter(results_of(root)))

    assert len(shown("none")) == 1
    rows = read_run(write_run("paths", trials=1)).rows
    train, test = (rows[rows["split"] == split]["path"].iloc[0] for split in ("train", "test"))
    pairs, samples = shown("two", [train, test], ["not/there.png", test])
    assert [(label, [(one.name, one.split, bool(one.uri)) for one in pair]) for label, pair in pairs.rows] == [
        ("pair 1", [(train, "train", True), (test, "test", True)]),
        ("pair 2", [("not/there.png", "?", False), (test, "test", True)]),
    ]
    assert len(samples.rows) == 3
    assert len(shown("many", *[[train, test]] * 40)[0].rows) == 10


def test_image_files_are_described_where_that_was_recorded(write_run):
    root = write_run(trials=1)
    found = tables(chapter(results_of(root)))["image_properties"]
    assert found.folded
    assert found.frame.set_index("class").loc["covid", "jpeg_quality"] == "76 (75 to 77)"
    assert found.frame.set_index("class").loc["all images", "images"] == 1123
    RunPaths(root).images.write_text("row,path\n0,a\n")
    results = results_of(root)
    assert "image_properties" not in tables(chapter(results))
    assert any("images.csv" in problem for problem in results.data.run.problems)
    RunPaths(root).images.unlink()
    results = results_of(root)
    assert "image_properties" not in tables(chapter(results))
    assert results.data.run.problems == []


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


def test_the_demo_set_is_not_said_to_have_been_searched_for_duplicates(write_run) -> None:
    said = {
        demo: texts(chapter(results)) + texts(methods.chapter(results))
        for demo in (False, True)
        if (results := results_of(write_run(f"demo{demo}", dataset={"demo": demo, "checks": []})))
    }
    assert "duplicates" in said[False]
    assert "duplicates" not in said[True]
