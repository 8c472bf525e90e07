from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public_sets import MINIATURES, image, table

from search_spaces.errors import UserError
from sweep.config import SweepConfig
from trainables.data.config import DataConfig
from trainables.data.dataset import open_dataset
from trainables.data.prepare import inspect, list_samples, prepare
from trainables.data.presets import FOLDER, apply_preset, describe_presets, read_preset
from trainables.data.samples import Samples

ROOT = Path(__file__).resolve().parents[3]
OURS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LAYOUTS = {  # of public_layouts.py: the preset, and the tables that are another's
    "nih_chestxray14": ("nih_chestxray14", {}),
    "chexpert": ("chexpert", {}),
    "rsna_pneumonia": ("rsna_pneumonia", {"stage_2_detailed_class_info.csv": "rsna_pneumonia_classes"}),
    "covidx": ("covidx", {}),
    "covid19_radiography": ("covid19_radiography", {}),
    "kermany_kaggle_zip": ("kermany_chest_xray", {}),
    "ham10000": ("ham10000", {}),
    "aptos": ("aptos_2019", {}),
    "vindr_cxr": ("vindr_cxr", {}),
    "mura": ("mura", {}),
}


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """``sets(name)`` writes a miniature once: its root, and what is right for it."""
    out, made = tmp_path_factory.mktemp("sets"), {}

    def make(name: str) -> tuple[Path, Any]:
        if name not in made:
            made[name] = (out / name, MINIATURES[name](out / name))
        return made[name]

    return make


def applied(data: Path | str, **given: Any) -> DataConfig:
    return apply_preset(DataConfig.model_validate({"data": str(data), **given}))[0]


def problem(data: Path | str, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        applied(data, **given)
    (sentence,) = caught.value.problems
    return sentence


@pytest.mark.parametrize("name", OURS)
def test_a_preset_says_what_it_does_and_leaves_what_is_uncertain_to_the_user(name: str) -> None:
    preset = read_preset(FOLDER / f"{name}.yaml", ours=True)
    assert preset.title
    assert len(preset.about) > 40
    assert preset.source
    assert preset.files
    for decision in ("uncertain_label", "allow_leakage", "skip_missing", "skip_unreadable", "max_images", "seed"):
        assert decision not in preset.values
    patients = ("group_column", "group_from")
    assert any(getattr(preset, field) for field in patients) or "patient" in preset.about, "says nothing of patients"


def test_every_preset_is_tried_on_a_miniature() -> None:
    tried = {name for name, _ in LAYOUTS.values()} | {
        name for _, others in LAYOUTS.values() for name in others.values()
    }
    tried |= MINIATURES.keys()
    left = {name for name in OURS if name not in tried}
    assert (
        left == {name for name in OURS if name.startswith("medmnist_")} - MINIATURES.keys()
    )  # they differ in names only


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_set_is_recognised_by_its_folder_and_by_its_table(layout: str, layouts: Path) -> None:
    name, tables = LAYOUTS[layout]
    expected = json.loads((layouts / "expected.json").read_text())[layout]
    opened = [layout, expected["open"], *(one["open"] for one in expected.get("also", []))]
    for place in opened:
        config, note = apply_preset(DataConfig(data=str(layouts / place)))
        assert config.preset == tables.get(Path(place).name, name), place
        assert config.data == str(layouts / place)
        assert note is not None
        assert f"(preset {config.preset})" in note


@pytest.mark.parametrize("name", MINIATURES)
def test_a_set_is_recognised_by_each_path_that_leads_to_it(name: str, sets: Callable[[str], tuple[Path, Any]]) -> None:
    root, right = sets(name)
    for place in right.data:
        asked = SweepConfig(data=str(root / place))
        config, note = apply_preset(asked)
        assert (config.preset, note is None) == (right.preset, right.preset == "none")
        assert config.data == asked.data
        assert apply_preset(config) == (config, note)
        saved = SweepConfig.model_validate(json.loads(json.dumps(config.to_json())))
        assert apply_preset(saved) == (config, note)
        folder = root / place if (root / place).is_dir() else (root / place).parent
        paths = [
            config.table,
            config.val_data,
            config.test_data,
            config.images_dir,
            *(one["table"] for one in config.join),
        ]
        for path in paths:
            assert path in (None, "none") or (folder / path).exists(), path


@pytest.mark.parametrize("name", MINIATURES)
def test_a_set_is_made_ready_for_trials(name: str, sets: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> None:
    root, right = sets(name)
    config = DataConfig.model_validate({"data": str(root / right.data[0]), "image_size": 32, **right.options})
    shown = inspect(config)
    dataset = prepare(config, tmp_path / "run", tmp_path / "cache", workers=1)
    assert (dataset["preset"] or "none") == right.preset
    assert (shown["images"], shown["left_out"]) == (dataset["images"], dataset["left_out"])
    data = open_dataset(tmp_path / "run")
    assert (data.classes, len(data.train), len(data.val)) == (
        right.classes,
        dataset["images"]["train"],
        dataset["images"]["val"],
    )


def listed(data: Path, **given: Any) -> Samples:
    return list_samples(applied(data, **given))


def images_by_class(samples: Samples) -> dict[str, int]:
    return dict(zip(samples.classes, map(int, samples.hot.sum(axis=0)), strict=True))


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_read_as_its_documentation_has_it(name: str, sets: Callable[[str], tuple[Path, Any]]) -> None:
    root, right = sets(name)
    for place in right.data:
        samples = listed(root / place, **right.options)
        assert samples.problems == ()
        assert samples.classes == right.classes
        assert len(samples) == (right.images if isinstance(right.images, int) else sum(right.images.values()))
        assert (samples.splits and Counter(samples.splits)) == (None if isinstance(right.images, int) else right.images)
        assert {label: images_by_class(samples)[label] for label in right.counts} == right.counts
        assert (samples.groups and len(set(samples.groups) - {""}) + samples.groups.count("")) == right.groups
        assert sum(one.count for one in samples.left_out) == right.left_out
        if samples.pixels is None:
            assert all(file.is_file() for file in samples.files)
            assert len(set(samples.files)) == len(samples)


LISTED = {  # of public_layouts.py, with its preset: what differs from expected.json, and what only the user can decide
    "nih_chestxray14": {"labels": ["Atelectasis", "Cardiomegaly", "Effusion"], "splits": {"train": 56, "test": 16}},
    "chexpert": {"options": {"uncertain_label": "0"}},
    "rsna_pneumonia": {"classes": ["no pneumonia", "pneumonia"]},
    "covidx": {},
    "covid19_radiography": {},
    "kermany_kaggle_zip": {"groups": 64},
    "ham10000": {},
    "aptos": {},
    "vindr_cxr": {"labels": ["Aortic enlargement", "Cardiomegaly", "Pleural effusion"]},
    "mura": {"classes": ["negative", "positive"]},
}


@pytest.mark.parametrize("layout", LISTED)
def test_a_public_set_is_read_as_its_documentation_has_it(layout: str, layouts: Path) -> None:
    right = json.loads((layouts / "expected.json").read_text())[layout] | LISTED[layout]
    for place in (layout, right["open"]):
        samples = listed(layouts / place, **right.get("options", {}))
        assert samples.problems == ()
        assert samples.task == right["task"]
        assert list(samples.classes) == right["classes" if samples.task == "single_label" else "labels"]
        assert len(samples) == right["images"]
        assert (samples.splits and Counter(samples.splits)) == right["splits"]
        assert (samples.groups and len(set(samples.groups))) == right["groups"]
        assert sum(one.count for one in samples.left_out) == (right["left_out"] or {"count": 0})["count"]
        for label, count in right.get("label_counts", {}).items():
            assert images_by_class(samples).get(label, count) == count


def test_a_copy_beside_a_set_does_not_hide_it(tmp_path: Path) -> None:
    right = MINIATURES["kermany_oct"](tmp_path)
    shutil.copytree(tmp_path / "OCT2017 ", tmp_path / "oct2017" / "OCT2017 ")
    assert applied(tmp_path).preset == right.preset
    samples = listed(tmp_path)
    assert (len(samples), sum(one.count for one in samples.left_out)) == (112, 112)


def test_the_three_classes_of_rsna_are_read_from_their_own_table(layouts: Path) -> None:
    samples = listed(layouts / "rsna_pneumonia" / "stage_2_detailed_class_info.csv")
    assert samples.classes == ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")
    assert len(samples) == 40


def test_files_of_a_preset_are_those_of_the_set_and_not_those_here(
    layouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "valid.csv", [{"Path": "x.png"}])
    monkeypatch.chdir(tmp_path)
    samples = listed(layouts / "chexpert", uncertain_label="0")
    assert Counter(samples.splits or ()) == {"train": 48, "val": 12}


def test_a_release_without_some_of_the_values_that_a_preset_names_is_read(tmp_path: Path) -> None:
    """One view, no "No Finding" and no finding with a slash."""
    rows = [
        {"patientid": at, "finding": ["Pneumonia", "Tuberculosis"][at % 2], "view": "PA", "modality": "X-ray"}
        for at in range(24)
    ]
    for row in rows:
        row["filename"] = f"{row['patientid']}.png"
        image(tmp_path / "images" / str(row["filename"]), int(row["patientid"]) % 2)
    table(tmp_path / "metadata.csv", rows)
    assert images_by_class(listed(tmp_path)) == {"Pneumonia": 12, "Tuberculosis": 12}


@pytest.mark.parametrize("layout", ["split_suffix_folders", "list_cells", "three_csvs", "wrapper_folder"])
def test_a_set_of_ones_own_has_no_preset(layout: str, layouts: Path) -> None:
    asked = DataConfig(data=str(layouts / layout))
    assert apply_preset(asked) == (asked.model_copy(update={"preset": "none"}), None)


@pytest.mark.parametrize("data", ["demo", "/no/such/place", "x" * 5000])
def test_where_there_is_no_folder_or_file_nothing_fits(data: str) -> None:
    assert applied(data).preset == "none"


STRANGERS = {  # files of a set of one's own, with the names that a public set has; what its user gives
    "train_valid": (
        {"train.csv": "file,Opacity,Nodule\na.png,1,", "valid.csv": "file,Opacity,Nodule\nb.png,,1", "train/a.png": ""},
        {"path_column": "file", "label_column": ["Opacity", "Nodule"]},
    ),
    "train_valid_of_chexpert_labels": (
        {"train.csv": "Path,Edema\na.png,1", "valid.csv": "Path,Edema\nb.png,1"},
        {"path_column": "Path", "label_column": "Edema"},
    ),
    "train_test": (
        {"train.csv": "image,label\n0.png,0", "test.csv": "image,label\n1.png,0", "train_images/0.png": ""},
        {"path_column": "image", "label_column": "label", "ordered_classes": True},
    ),
    "boxes": ({"train.csv": "image_id,class_name\na,x", "train/a.png": ""}, {"label_column": "class_name"}),
    "patients": (
        {"train.csv": "Patient,FVC\nID1,x", "train/ID1/1.dcm": ""},
        {"path_column": "Patient", "label_column": "FVC"},
    ),
    "list": (
        {"train.txt": "1 a.png cat web", "test.txt": "2 b.png dog web", "train/a.png": "", "test/b.png": ""},
        {"columns": "pid,file,class,source", "path_column": "file", "label_column": "class"},
    ),
    "studies": (
        {"train_labeled_studies.csv": "train/p1/,0", "valid_labeled_studies.csv": "valid/p2/,1"},
        {"columns": "study,label", "path_column": "study", "label_column": "label"},
    ),
    "metadata": (
        {"metadata.csv": "image_name,diagnosis\na.png,x", "images/a.png": ""},
        {"path_column": "image_name", "label_column": "diagnosis"},
    ),
    "metadata_of_splits": ({"train/metadata.csv": "file,label\na.png,x"}, {"path_column": "file"}),
    "captions": ({"metadata.csv": "file_name,text\na.png,x"}, {}),
    "third_class": (
        {
            f"{split}/{name}": ""
            for split in ("train", "test")
            for name in ("NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person1_virus_6.jpeg", "COVID19/COVID19(1).jpg")
        },
        {},
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_set_of_ones_own_with_the_file_names_of_a_public_one_has_no_preset(name: str, tmp_path: Path) -> None:
    files, given = STRANGERS[name]
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    for place in (tmp_path, *(tmp_path / file for file, content in files.items() if content)):
        assert applied(place).preset == "none"
        assert applied(place, **given).preset == "none"


def test_what_the_user_names_does_not_hide_a_public_set(
    sets: Callable[[str], tuple[Path, Any]], layouts: Path, tmp_path: Path
) -> None:
    assert applied(layouts / "aptos", path_column="image", label_column="grade").preset == "aptos_2019"
    assert applied(layouts / "mura", columns="a,b", label_column="b").preset == "mura"
    assert applied(sets("isic_2019")[0], group_column="sex", join=[]).preset == "isic_2019"
    table(tmp_path / "metadata.csv", [{"file_name": "a.png", "species": "x"}])
    assert applied(tmp_path, label_column="species").preset == "hf_imagefolder_flat"


@pytest.mark.parametrize("packer", [bytes, gzip.compress])
def test_metadata_of_an_imagefolder_may_be_a_parquet(tmp_path: Path, packer: Callable[[bytes], bytes]) -> None:
    (tmp_path / "train").mkdir()
    frame = pd.DataFrame({"file_name": ["a.png", "b.png"] * 500, "label": ["ill", "well"] * 500})
    (tmp_path / "train" / "metadata.parquet").write_bytes(packer(frame.to_parquet()))
    config = applied(tmp_path)
    assert (config.preset, config.table, config.label_column) == (
        "hf_imagefolder",
        "train/metadata.parquet",
        ("label",),
    )
    (tmp_path / "train" / "metadata.parquet").write_bytes(packer(frame.rename(columns={"label": "text"}).to_parquet()))
    assert applied(tmp_path).preset == "none"


def test_what_is_given_is_never_overridden(sets: Callable[[str], tuple[Path, Any]]) -> None:
    root, _ = sets("padchest")
    given = {
        "group_column": "StudyID",
        "where": ["Projection=PA"],
        "min_class_images": 1,
        "subgroup_column": ["ImageDir"],
    }
    config = applied(root, **given)
    assert config.preset == "padchest"
    assert config.group_column == "StudyID"
    assert config.where == {"Projection": ("PA",)}
    assert config.min_class_images == 1
    assert config.subgroup_column == ("ImageDir",)
    assert config.no_finding == "normal"


def test_other_label_columns_do_not_take_over_what_the_presets_labels_mean(layouts: Path) -> None:
    config = applied(layouts / "nih_chestxray14", label_column="Patient Gender")
    assert (config.task, config.no_finding, config.group_column) == ("auto", None, "Patient ID")
    config = applied(layouts / "nih_chestxray14", label_column="Finding Labels")
    assert (config.task, config.no_finding) == ("multi_label", "No Finding")
    config, note = apply_preset(DataConfig(data=str(layouts / "chexpert"), label_column=("Fracture",)))
    assert (config.blank_label, config.group_from) == ({}, r"(patient\d+)")
    assert config.val_data == "CheXpert-v1.0-small/valid.csv"
    assert note == (
        "read as CheXpert (preset chexpert), except its labels: --label-column gives others, and the preset's label "
        "settings are ignored."
    )
    config = applied(layouts / "nih_chestxray14", task="single_label")
    assert config.no_finding is None


def test_conditions_on_labels_are_left_out_with_them(sets: Callable[[str], tuple[Path, Any]]) -> None:
    assert set(applied(sets("cohen_covid")[0]).where) == {"modality", "view", "finding"}
    assert set(applied(sets("cohen_covid")[0], label_column="sex").where) == {"modality", "view"}


def test_what_a_set_lacks_is_a_mistake_if_the_user_named_it(sets: Callable[[str], tuple[Path, Any]]) -> None:
    root, _ = sets("cohen_covid")
    assert len(listed(root, where=["view=PA,AP semi erect"])) == len(listed(root, where=["view=PA"]))
    with pytest.raises(UserError) as caught:
        listed(root, where=["view=PA,AP semi erect,Frontal"])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["--where view=Frontal"]
    for name, value in {"no_finding": "Healthy", "label_separator": "|"}.items():
        (told,) = listed(root, **{name: value}).problems
        assert told.startswith(f"--{name.replace('_', '-')} ")
        assert value in told


def test_a_preset_can_be_refused_or_insisted_on(layouts: Path, tmp_path: Path) -> None:
    asked = DataConfig(data=str(layouts / "mura"), preset="none")
    assert apply_preset(asked) == (asked, None)
    assert applied(layouts / "mura", preset="mura").label_column == ("label",)
    assert (
        applied(layouts / "rsna_pneumonia", preset="rsna_pneumonia_classes").table == "stage_2_detailed_class_info.csv"
    )
    (tmp_path / "train_labeled_studies.csv").write_text("a,0\n")
    missing = problem(tmp_path, preset="mura")
    assert "valid_labeled_studies.csv" in missing
    assert str(tmp_path) in missing
    assert "train_labeled_studies.csv" in problem(tmp_path / "train_labeled_studies.csv", preset="ham10000") + missing
    assert "demo" in problem("demo", preset="mura")
    assert "'ham10000'" in problem(tmp_path, preset="ham1000")


def test_two_presets_that_fit_equally_well_are_asked_about(tmp_path: Path) -> None:
    for name in ("chestmnist", "pneumoniamnist"):
        (tmp_path / f"{name}.npz").write_bytes(b"")
    sentence = problem(tmp_path)
    assert "medmnist_chest" in sentence
    assert "medmnist_pneumonia" in sentence
    assert "--preset" in sentence
    assert applied(tmp_path, preset="medmnist_chest").class_names["13"] == "hernia"
    assert applied(tmp_path / "chestmnist.npz").preset == "medmnist_chest"


def test_a_split_that_a_release_lacks_is_said(layouts: Path, tmp_path: Path) -> None:
    (tmp_path / "covidx").symlink_to(layouts / "covidx")
    small = tmp_path / "small"
    small.mkdir()
    for name in ("train.txt", "test.txt", "train", "test"):
        (small / name).symlink_to(layouts / "covidx" / name)
    config, note = apply_preset(DataConfig(data=str(small)))
    assert (config.preset, config.val_data, config.test_data) == ("covidx", None, "test.txt")
    assert note is not None
    assert note.endswith("Not there: val.txt.")


def test_columns_to_report_by_are_taken_if_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "HAM10000_metadata.tab").write_text("lesion_id\timage_id\tdx\tsex\tdataset\nL\tI\tnv\tf\tvidir\n")
    config = applied(tmp_path)
    assert (config.subgroup_column, config.source_column) == (("sex",), "dataset")
    (tmp_path / "HAM10000_metadata.tab").write_text("lesion_id\timage_id\tdx\nL\tI\tnv\n")
    config = applied(tmp_path)
    assert (config.preset, config.subgroup_column, config.source_column) == ("ham10000", (), None)


def test_a_users_own_preset_is_a_yaml_file(tmp_path: Path) -> None:
    table(tmp_path / "lists" / "all.csv", [{"file": "a.png", "class": "x"}])
    own = tmp_path / "own.yaml"
    own.write_text(
        "table: lists/*.csv\npath-column: file\nlabel_column: [class]\nwhere: {view: [PA, 3]}\nval_data: none\n"
    )
    config, note = apply_preset(DataConfig(data=str(tmp_path), preset=str(own)))
    assert (config.table, config.path_column, config.label_column) == ("lists/all.csv", "file", ("class",))
    assert config.where == {"view": ("PA", "3")}
    assert config.preset == str(own)
    assert note is not None
    assert str(own) in note
    assert apply_preset(config) == (config, note)
    own.write_text("table: lists/*.csv\nval_data: vla.csv\nlabel_column: class\n")
    assert applied(tmp_path, preset=str(own)).val_data == "vla.csv"  # reading it will tell that there is none
    own.write_text("table: list/*.csv\n")
    assert "list/*.csv" in problem(tmp_path, preset=str(own))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lable_column: x", "'label_column'"),
        ("data: x", "'data'"),
        ("uncertain_label: perhaps", "missing"),
        ("group_from: '(unclosed'", "not a regular expression"),
        ("group_from: patient", "parentheses"),
        ("label_column: 3", "quote it"),
        ("join: {table: x}", "on"),
        ("join: [{table: x, on: id}, {table: x, on: id}]", "is given twice"),
        ("task: both", "task"),
        ("title: 3", "title"),
        ("known_by: (x", "not a regular expression"),
        ("table: a\ntable: b", "twice"),
        ("table: a\npath_column: b\npath-column: b", "twice"),
        ("- table", "label_column: finding"),
        ("", "label_column: finding"),
        ("table: [", "line"),
        ("a: &a [*a]", "*a"),
        ("a: " + "[" * 3000, "deep"),
        ("a: " + "{b: " * 3000, "deep"),
        ("table: caf\udce9", "UTF-8"),
        ("\x00", "not YAML"),
        ("? {a: b}\n: c", "unhashable"),
        ("#" * 110_000, "bytes"),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_clear_error(content: str, said: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_bytes(content.encode("utf-8", "surrogateescape"))
    sentence = problem(tmp_path, preset=str(own))
    assert str(own) in sentence
    assert said in sentence
    assert len(sentence) < 2000


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.booleans(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*DataConfig.model_fields, "title", "about", "source"]), ANYTHING, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_whatever_a_preset_holds_it_is_read_or_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(UserError):
        applied(tmp_path, preset=str(own))


def test_a_pipe_in_place_of_a_table_is_not_opened(tmp_path: Path) -> None:
    image(tmp_path / "train_images" / "a.png", 0)
    os.mkfifo(tmp_path / "train.csv")
    assert applied(tmp_path).preset == "none"


@pytest.mark.parametrize("name", ["absent.yaml", "folder.yaml", "x" * 5000 + ".yaml"])
def test_a_preset_that_is_no_file_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "preset" in problem(tmp_path, preset=str(tmp_path / name))


def test_the_readme_names_every_preset() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in OURS if f"`{name}`" not in readme]
    assert len([name for name in missing if name.startswith("medmnist_")]) == len(missing) == 9
    assert "`medmnist_chest` and nine more" in readme


def test_the_preset_that_contributing_shows_is_one(tmp_path: Path) -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = contributing.partition("## Add a preset")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "shown.yaml").write_text(shown)
    preset = read_preset(tmp_path / "shown.yaml")
    assert preset.join == ({"table": "patients.csv", "on": ("patient",), "columns": ("sex",)},)
    assert preset.source


def test_the_list_describes_every_preset() -> None:
    described = describe_presets()
    for name in OURS:
        assert f"{name}: {read_preset(FOLDER / f'{name}.yaml', ours=True).title}" in described
    assert max(map(len, described.splitlines())) <= 120
