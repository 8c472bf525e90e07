"""The report as a whole: what it writes, that it repeats byte for byte, and that no run folder breaks it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from full_disk import no_file_beyond
from in_chapter import page_text
from run_files import rewrite, rewrite_epochs, write

from reports import external
from reports.build import build, main
from sweep.run_folder import RunPaths

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with repeats and a report, for tests that only read."""
    root = write(tmp_path_factory.mktemp("finished") / "run", trials=12, finals={})
    build(root)
    return root


def files(root: Path) -> dict[str, bytes]:
    report = root / "report"
    return {str(path.relative_to(report)): path.read_bytes() for path in sorted(report.rglob("*")) if path.is_file()}


def test_a_report_holds_a_page_markdown_tables_figures_and_a_manifest_of_them(built):
    written = files(built)
    manifest = json.loads(written.pop("manifest.json"))
    assert manifest["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    for name in ("index.html", "report.md", "tables/trials.csv", "tables/class_counts.tex", "tables/backbone_depth.csv",
                 "figures/backbone_depth_map.png", "figures/confusion_val.svg", "figures/all_scores.svg"):  # fmt: skip
        assert name in written


def test_every_figure_has_its_numbers_in_a_table_and_four_tables_are_latex(finished):
    written = files(finished)
    latex = {name for name in written if name.endswith(".tex")}
    assert latex == {f"tables/{name}.tex" for name in ("class_counts", "finalists", "backbone_depth", "per_class_test")}
    assert len([name for name in written if name.endswith(".csv")]) > len(latex)


def test_chapters_stand_in_the_order_in_which_they_are_read(finished):
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="([^"]+)"', page) == [
        "summary", "data", "finalists", "backbone_depth", "errors", "examples", "discrimination", "calibration",
        "learning_curves", "hyperparameters", "cost", "methods", "trials", "reproducibility",
    ]  # fmt: skip


def test_a_rebuild_in_another_process_and_elsewhere_gives_the_same_bytes(write_run, tmp_path):
    """And leaves nothing behind, whatever else lies in the folder."""
    root = write_run(dataset={"caveats": ["duplicates were allowed"]})
    build(root)
    first = files(root)
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(root, moved)
    (moved / "notes.txt").write_text("a file that nobody knows")
    (moved / "trials" / "stray.txt").write_text("another")
    done = subprocess.run(
        [sys.executable, "-m", "reports.build", str(moved)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(moved / "report" / "index.html")
    assert files(moved) == first
    assert not [path.name for path in moved.iterdir() if path.name.startswith(".report")]


def test_the_page_loads_nothing_from_elsewhere(built):
    page = (built / "report" / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|img|link|iframe|image)[^>]*(?:src|href)="([^"]*)"', page)
    assert loaded
    assert all(address.startswith("data:") for address in loaded)
    assert "@import" not in page
    assert "url(http" not in page


def test_figures_on_the_page_have_ids_of_their_own_and_alternative_texts(built):
    page = (built / "report" / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', page))
    assert referred <= set(ids)
    assert page.count("<svg") == len(re.findall(r'role="img" aria-label="[^"]{15,}"', page)) > 8


def test_the_summary_names_the_best_trial_and_its_score_and_says_what_was_run(built):
    page = page_text(built)
    row = max(
        (json.loads(line) | {"id": folder.name} for folder in sorted((built / "trials").iterdir())
         if json.loads((folder / "status.json").read_text())["status"] != "failed"
         for line in (folder / "result.jsonl").read_text().splitlines()),
        key=lambda row: row["val_f1_macro"],
    )  # fmt: skip
    assert f"{row['val_f1_macro']:.3f} Validation macro F1 of the best trial, {int(row['id'][1:])}" in page
    assert "optimistic" in page
    assert "covid 19, normal 75, pneumonia 75" in page
    assert "Not for clinical use." in page
    assert "3 completed, 2 pruned, 1 failed, 0 running" in page


def test_the_demo_set_allowed_leaks_and_folded_weights_are_told_in_the_summary(write_run):
    folded = {"resnet18": {"path": "r.pth", "sha256": "ab", "origin": "folder", "folded_batchnorm": True, "note": ""}}
    root = write_run(
        dataset={"demo": True, "caveats": ["3 patients are in two splits"]}, provenance={"weights": folded}
    )
    build(root)
    summary = page_text(root).split("2 Data")[0]
    for words in ("phantoms drawn by a program", "3 patients are in two splits", "Folded BatchNorm", "resnet18"):
        assert words in summary


def test_names_with_markup_are_escaped_in_latex_too(write_run):
    nasty = ("<script>alert(1)</script>", "a|b `c` $x_1$ & \\d{} %", "normal")
    root = write_run(classes=nasty, trials=1)
    build(root)
    tex = files(root)["tables/class_counts.tex"].decode()
    assert r"a|b `c` \$x\_1\$ \& \textbackslash{}d\{\} \%" in tex


@pytest.mark.parametrize("count", [2, 12])
def test_any_number_of_classes_makes_a_report(write_run, count):
    names = [f"class {place} with a name that is much too long for any axis" for place in range(count)]
    root = write_run(classes=names, labels_per_split={"train": 80, "val": 60, "test": 60}, trials=1)
    build(root)
    assert all(name in page_text(root) for name in names)


def test_a_multi_label_run_shows_one_two_by_two_a_label(write_run):
    root = write_run(task="multi_label", classes=("effusion", "nodule", "pneumonia", "edema"), trials=2)
    build(root)
    written = files(root)
    assert {"figures/confusion_val.svg", "tables/confusion_train.csv", "tables/confusion_val.csv"} <= written.keys()
    assert "at a probability of 0.5" in page_text(root)


def test_a_run_whose_trials_all_failed_says_why_and_names_no_best(write_run):
    root = write_run(statuses=("failed",))
    build(root)
    page = page_text(root)
    assert "There is no best configuration All 6 trials failed" in page
    assert "RuntimeError: out of memory" in page


def test_a_run_without_trials_says_so(write_run):
    root = write_run(trials=0)
    build(root)
    assert "No trial has begun." in page_text(root)


def test_a_run_that_is_still_running_says_so(write_run):
    root = write_run(statuses=("running",))
    build(root)
    page = page_text(root)
    assert "The sweep has not ended" in page
    assert "6 of 6 trials are unfinished" in page
    assert "The best trial is still running" in page
    assert "predictions are not on disk" in page


def test_a_trial_that_never_had_a_number_leaves_the_others_their_place(write_run):
    root = write_run(trials=2, statuses=("completed",))

    def nan(row: dict[str, Any]) -> dict[str, Any]:
        return row | {key: float("nan") for key in row if key.startswith(("val_", "train_"))}

    rewrite_epochs(RunPaths(root).trial("t00000").result, nan)
    build(root)
    assert "of the best trial, 1, at epoch 6" in page_text(root)
    rewrite_epochs(RunPaths(root).trial("t00001").result, nan)
    build(root)
    assert "No trial has a valid validation macro F1 yet." in page_text(root)


def test_damaged_and_missing_files_are_told_and_the_rest_is_shown(write_run):
    root = write_run()
    paths = RunPaths(root)
    paths.trial("t00002").params.write_text("{ torn")
    shutil.rmtree(paths.trial("t00003").root)
    best = paths.trial("t00000")
    paths.thumbnails.write_bytes(b"PK no zip")
    paths.provenance.unlink()
    build(root)
    page = page_text(root)
    assert "Problems found while reading the run folder" in page
    assert "t00002" in page
    assert "provenance.json is missing" in page
    assert "no sample images" in page
    assert "Validation macro F1 of the best trial" in page
    assert best.root.is_dir()


def test_predictions_that_contradict_the_records_are_told(write_run):
    root = write_run(trials=1)
    rewrite(RunPaths(root).trial("t00000").predictions, probability=lambda arrays: arrays["probability"][::-1])
    build(root)
    assert "one of the two is damaged" in page_text(root)


@pytest.mark.parametrize("damage", ["shape", "nan", "classes", "bytes", "label"])
def test_damaged_predictions_are_left_out_with_a_word(write_run, damage):
    root = write_run(trials=1)
    path = RunPaths(root).trial("t00000").predictions
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    if damage == "shape":
        arrays["probability"] = arrays["probability"][:-3]
    elif damage == "nan":
        arrays["probability"][0, 0] = np.nan
    elif damage == "classes":
        arrays["classes"] = np.array(["a", "b", "c"])
    elif damage == "label":
        arrays["label"][0] = 7
    np.savez(path, **arrays)
    if damage == "bytes":
        path.write_bytes(b"no zip")
    build(root)
    page = page_text(root)
    assert "predictions.npz" in page.split("2 Data")[0]
    assert "or are damaged" in page


def test_a_data_set_without_a_test_split_is_not_said_to_have_one(write_run):
    root = write_run(trials=1, dataset={"images": {"train": 785, "val": 169, "test": 0}})
    build(root)
    assert "There is no test split" in page_text(root)


def test_a_metric_that_is_better_when_lower_ranks_the_lowest_first(write_run):
    root = write_run(sweep={"metric": "val_nll", "mode": "min"}, statuses=("completed",))
    build(root)
    scores = pd.read_csv(root / "report/tables/trials.csv")["score"].tolist()
    assert f"{min(scores):.3f} Validation negative log-likelihood" in page_text(root)


@pytest.mark.parametrize("make", ["missing", "empty", "file"])
def test_a_folder_that_is_no_run_is_one_clear_line_and_exit_code_2(tmp_path, capsys, make):
    target = tmp_path / "target"
    if make == "empty":
        target.mkdir()
    elif make == "file":
        target.write_text("x")
    assert main([str(target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(target) in error
    assert not (target / "report").exists()


def test_hundreds_of_trials_make_one_page_that_lists_them_all(write_run):
    root = write_run(trials=300, epochs=2)
    build(root)
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count('<span class="chip completed">') == 150
    assert len((root / "report/tables/trials.csv").read_text().splitlines()) == 301
    assert "The first 50 of 300 rows" in (root / "report/report.md").read_text()


@pytest.mark.parametrize("command", [main, external.main])
def test_a_path_that_is_none_is_told(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert [command([given]) for given in ("s3://bucket/run", "n" * 256)] == [2, 2]
    url, long = capsys.readouterr().err.splitlines()
    assert " s3://bucket/run: is a URL, and only paths are supported" in url
    assert long.endswith(": File name too long")


@pytest.mark.parametrize(
    "block", [lambda report: report.symlink_to("nowhere"), lambda report: report.write_text("mine"), Path.mkdir]
)
def test_whatever_stands_where_the_report_belongs_gives_way(write_run, block: Callable[[Path], object]) -> None:
    root = write_run(statuses=("failed",))
    block(root / "report")
    build(root)
    assert "Not for clinical use." in page_text(root)
    assert not (root / "report").is_symlink()
    assert [path.name for path in root.iterdir() if path.name.startswith(".report")] == []


def test_a_report_that_cannot_be_written_is_one_line_and_the_old_one_stays(write_run, capsys) -> None:
    root = write_run(trials=1)
    build(root)
    before = files(root)
    with no_file_beyond(50_000):
        code = main([str(root)])
    assert (code, *capsys.readouterr()) == (
        4,
        "",
        f"error: {root}: files may not grow that large (ulimit -f, or the file system)\n",
    )
    assert files(root) == before
    assert [path.name for path in root.iterdir() if path.name.startswith(".report")] == []
