"""Shortcuts beside the winner: what is set against what, and when the page warns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseline_files import LABELS, POOR, write_baselines

from reports.data import ReportData, gather
from reports.page.blocks import Note, Table, Text
from reports.scores import shortcut_tables
from reports.sections import shortcuts
from sweep.run_folder import RunPaths
from trainables.metrics import evaluate_predictions

WriteRun = Callable[..., Path]


def table_of(evidence: ReportData) -> Table:
    (table,) = [block for block in shortcuts.section_blocks(evidence) if isinstance(block, Table)]
    return table


def notes_of(evidence: ReportData, level: str) -> list[Note]:
    return [block for block in shortcuts.section_blocks(evidence) if isinstance(block, Note) and block.level == level]


def test_the_table_sets_the_winners_mean_beside_every_baseline_on_both_splits(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    evidence = gather(root)
    table = table_of(evidence)
    rows = table.frame.set_index("name")
    assert list(rows.index) == ["winner", *POOR]
    assert rows.loc["winner", "baseline"] == "Winner, trial 0"
    assert rows.loc["winner", "how"] == "fine-tuned, mean of 3 runs"
    winner = [one for name, one in evidence.repeats.items() if name.startswith("t0000/")]
    entries = {entry["name"]: entry for entry in json.loads(RunPaths(root).baselines_table.read_text())["baselines"]}
    for split in ("val", "test"):
        for metric in ("accuracy", "f1_macro"):
            parts = [one.of(split) for one in winner]
            mean = np.mean(
                [evaluate_predictions(p.label, p.probability, p.classes, "single_label")[metric] for p in parts]
            )
            assert rows.loc["winner", f"{split}_{metric}"] == pytest.approx(mean)
            for name in POOR:
                assert rows.loc[name, f"{split}_{metric}"] == pytest.approx(entries[name][split][metric])
    low, high = rows["test_f1_macro_low"], rows["test_f1_macro_high"]
    assert ((low <= rows["test_f1_macro"]) & (rows["test_f1_macro"] <= high)).all()
    assert rows.loc["thumbnails", "lead"] == pytest.approx(
        rows.loc["winner", "test_f1_macro"] - rows.loc["thumbnails", "test_f1_macro"]
    )
    assert [column.key for column in table.columns][-1] == "way"
    assert (rows.loc["majority", "way"], rows.loc["winner", "way"]) == (0, 1)


def test_where_shortcuts_fall_short_nothing_warns_and_the_best_is_named(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR | {"thumbnails": 0.25, "borders": 0.1})
    evidence = gather(root)
    assert notes_of(evidence, "warning") == []
    (text,) = [
        block.text
        for block in shortcuts.section_blocks(evidence)
        if isinstance(block, Text) and block.text.startswith("No shortcut comes close")
    ]
    assert "Thumbnails of 16 x 16 pixels: macro F1 " in text
    assert "90 % of the way" in text
    assert "on the test split" in text


@pytest.mark.parametrize("name", ["thumbnails", "borders"])
def test_a_pixel_shortcut_that_comes_close_is_a_plain_warning(write_run: WriteRun, name: str) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1} | {name: 3.0})
    (warning,) = notes_of(gather(root), "warning")
    assert warning.text.startswith("The labels may be told by how the images were made")
    assert [item.split(":")[0] for item in warning.items] == [LABELS[name]]
    assert "the winner, 0." in warning.items[0]


def test_frozen_features_that_do_as_well_say_that_fine_tuning_gained_nothing_and_warn_of_no_shortcut(
    write_run: WriteRun,
) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1, "frozen_resnet18": 3.0})
    evidence = gather(root)
    assert notes_of(evidence, "warning") == []
    (note,) = notes_of(evidence, "info")
    assert "fine-tuning is not shown to gain anything" in note.text
    assert "is behind by" in note.items[0]


def test_a_winner_that_answers_always_the_same_is_told_so(write_run: WriteRun) -> None:
    root = write_run(finals={})
    paths = RunPaths(root)
    for name in ("seed_1001", "seed_1002", "seed_1003"):
        file = paths.repeat(f"t0000/{name}").predictions
        with np.load(file) as saved:
            arrays = {key: saved[key] for key in saved.files}
        arrays["probability"] = np.tile(np.float32([0.1, 0.2, 0.7]), (len(arrays["path"]), 1))
        np.savez(file, **arrays)
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.5})
    evidence = gather(root)
    first, second = notes_of(evidence, "warning")
    assert "an answer that never changes" in first.text
    assert second.items[0].startswith("Thumbnails")
    assert table_of(evidence).frame["way"].iloc[1:].isna().all()


def test_before_the_test_split_is_opened_nothing_of_it_is_shown(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    RunPaths(root).test_access.unlink()
    evidence = gather(root)
    table = table_of(evidence)
    assert not [name for name in table.frame if str(name).startswith("test")]
    assert "test" not in " ".join(column.title for column in table.columns)
    assert shortcut_tables.contest_on(evidence, shortcut_tables.read_shortcuts(evidence.run) or [], "test") is None


def test_without_finalists_the_best_trial_stands_beside_them_on_validation(write_run: WriteRun) -> None:
    root = write_run()
    write_baselines(root, POOR, splits=("val",))
    table = table_of(gather(root))
    assert table.frame["baseline"].iloc[0].startswith("Best of the search, trial ")
    assert table.frame["how"].iloc[0] == "fine-tuned"
    assert "on the validation split" in table.caption


def test_a_failed_baseline_stands_with_its_reason(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR, failed=("borders",))
    rows = table_of(gather(root)).frame.set_index("name")
    assert rows.loc["borders", "how"] == "not measured: out of memory"
    assert rows.loc["borders", "test_f1_macro_shown"] == "–"


def test_predictions_that_are_damaged_or_of_other_images_leave_the_plain_scores(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    folder = RunPaths(root).baselines
    (folder / "borders.npz").write_bytes(b"no zip")
    with np.load(folder / "thumbnails.npz") as saved:
        arrays = {key: saved[key] for key in saved.files}
    np.savez(folder / "thumbnails.npz", **(arrays | {"path": np.char.add("other/", arrays["path"])}))
    evidence = gather(root)
    rows = table_of(evidence).frame.set_index("name")
    assert rows.loc["majority", "test_f1_macro_low"] > 0
    for name in ("borders", "thumbnails"):
        assert rows.loc[name, "test_f1_macro"] > 0
        assert math.isnan(rows.loc[name, "test_f1_macro_low"])
        assert math.isnan(rows.loc[name, "lead"])
    assert [problem for problem in evidence.problems if "borders.npz" in problem]


@pytest.mark.parametrize("content", ["{", "[]", '{"baselines": 3}', '{"baselines": [{"label": "no name"}]}'])
def test_a_damaged_file_is_a_problem_and_no_crash(write_run: WriteRun, content: str) -> None:
    root = write_run(finals={})
    RunPaths(root).baselines.mkdir()
    RunPaths(root).baselines_table.write_text(content)
    evidence = gather(root)
    blocks = shortcuts.section_blocks(evidence)
    assert any(isinstance(block, Text) and "No baselines were measured" in block.text for block in blocks)
    assert any("baselines/baselines.json" in problem for problem in evidence.problems)


def test_a_run_without_baselines_says_so(write_run: WriteRun) -> None:
    evidence = gather(write_run())
    blocks = shortcuts.section_blocks(evidence)
    assert [block.kind for block in blocks] == ["heading", "text"]
    assert evidence.problems == []


def test_without_a_winner_the_baselines_stand_alone(write_run: WriteRun) -> None:
    root = write_run()
    write_baselines(root, POOR, splits=("val",))
    for file in root.glob("trials/*/best/predictions.npz"):
        file.unlink()
    evidence = gather(root)
    table = table_of(evidence)
    assert list(table.frame["name"]) == list(POOR)
    assert table.frame["val_f1_macro"].notna().all()
    assert [note.text for note in notes_of(evidence, "info")] == [
        "There is no winner yet whose predictions could be set beside them."
    ]


def test_with_folds_the_winner_is_judged_on_the_images_that_the_baselines_saw(write_run: WriteRun) -> None:
    root = write_run(finals={"opened": 0})
    paths = RunPaths(root)
    write_baselines(root, POOR, splits=("val",))
    paths.chosen.write_text(json.dumps(json.loads(paths.chosen.read_text()) | {"folds": 3}))
    for fold, name in enumerate(("seed_1001", "seed_1002", "seed_1003")):
        file = paths.repeat(f"t0000/{name}").predictions
        with np.load(file) as saved:
            arrays: dict[str, Any] = {key: saved[key] for key in saved.files}
        kept = np.arange(len(arrays["path"])) % 3 == fold
        rows = {key: arrays[key][kept] for key in ("path", "split", "label", "probability")}
        np.savez(file, **(arrays | rows | {"split": np.full(int(kept.sum()), "val")}))
    evidence = gather(root)
    found = shortcut_tables.contest_on(evidence, shortcut_tables.read_shortcuts(evidence.run) or [], "val")
    assert found is not None
    assert set(found.shortcuts) == set(POOR)
    assert len(found.winner.resamples.member) == sum(evidence.dataset["counts"]["val"].values())


def test_several_labels_an_image_are_compared_at_one_half_for_all(write_run: WriteRun) -> None:
    root = write_run(task="multi_label", classes=("a", "b"), finals={"thresholds": {"a": 0.9}})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.3})
    table = table_of(gather(root))
    assert "probability of 0.5, for all alike" in table.caption
    assert table.frame["test_f1_macro"].notna().all()
