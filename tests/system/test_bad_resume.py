"""``--resume`` of what cannot go on: one answer, and the run stays as it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refused import SMALL, Asked, draw, expect

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.cli import read
from sweep.config import resolve
from sweep.history import TrialHistory
from sweep.plan import Plan, make_plan
from sweep.records import read_run
from sweep.resume import resume
from sweep.run import main, new_run_paths, prepare_into, this_machine, weights_found, write_new_run
from sweep.run_folder import IMAGE_CACHE, RunPaths, image_cache, reopen_run, staging
from trainables.backbones import BACKBONES
from trainables.data.dataset import open_dataset
from trainables.weights import random_network

SPACE = (
    "def space(trial, context):\n"
    "    trial.suggest_float('lr', 0.001, 0.1)\n"
    "    return {'backbone': 'squeezenet1_1', 'batch_size': 4}\n"
)
Edit = Callable[[Path], object]


@pytest.fixture
def run(tmp_path: Path, images: Path) -> RunPaths:
    return begin(tmp_path, images, "--name", "begun")


def begin(tmp_path: Path, images: Path, *more: str) -> RunPaths:
    """A run folder as it is when its first trial begins; its space is the user's own file ``mine.py``."""
    (tmp_path / "mine.py").write_text(SPACE)
    where = ["--storage", str(tmp_path / "storage"), *more, "--space", str(tmp_path / "mine.py")]
    machine = this_machine()
    asked, problems = read(["--data", str(images), *SMALL, *where])
    config = resolve(asked, machine)
    paths = new_run_paths(config)
    with staging(paths, problems) as beside:
        assert beside is not None
        prepare = prepare_into(beside, paths, workers=1, folds=None)
        plan = make_plan(config, problems, prepare, own_epochs=False, machine=machine)
        return write_new_run(paths, beside, asked, plan, machine, where)


def reopened(run: RunPaths, *more: str) -> Plan:
    """The run, as ``--resume`` takes it up again before anything is trained."""
    resumed = resume(read(["--resume", "begun", "--storage", str(run.root.parent), *more])[0])
    with staging(run, []) as beside:
        assert beside is not None
        prepare = prepare_into(beside, run, workers=1, folds=None)
        plan = make_plan(resumed.config, [], prepare, own_epochs=False, machine=this_machine(), resumed=resumed)
        reopen_run(run, beside, {}, plan.damaged, weights_found(plan))
    return plan


def test_a_run_that_was_given_no_name_is_saved_under_that_of_its_folder(tmp_path: Path, images: Path) -> None:
    paths = begin(tmp_path, images)
    saved = json.loads(paths.sweep.read_text())
    assert paths.root.name.startswith("mine-")
    assert (saved["resolved"]["name"], saved["asked"].get("name")) == (paths.root.name, None)


def contents(run: RunPaths) -> dict[str, bytes]:
    return {str(path.relative_to(run.root)): path.read_bytes() for path in run.root.rglob("*") if path.is_file()}


def test_a_run_that_has_begun_can_go_on(run: RunPaths, asked: Asked) -> None:
    """What the tests below show is the fault's doing."""
    assert asked("--resume", "begun", "--dry-run").code == 0


def test_a_run_of_a_cluster_can_go_on_on_one_machine(run: RunPaths, asked: Asked) -> None:
    put(address="auto", concurrency="cluster", wait_for_nodes=4)(run.sweep)
    here = "--address", "local", "--concurrency", 1
    assert asked("--resume", "begun", *here, "--dry-run").code == 0
    expect(asked("--resume", "begun", *here, "--wait-for-nodes", 4), "--wait-for-nodes 4 needs a cluster")


@pytest.mark.parametrize("name", ["nothing", "empty", "."])
def test_a_folder_that_is_no_run(run: RunPaths, asked: Asked, name: str) -> None:
    (run.root.parent / "empty").mkdir()
    expect(asked("--resume", name), "is not a run folder: it has no sweep.json")
    if name != ".":
        expect(asked("--resume", name, "--trials", 0), "runs there: begun", "--trials 0: must be 1 or more")


def test_options_that_contradict_the_run_are_told_with_those_that_are_none(run: RunPaths, asked: Asked) -> None:
    before = contents(run)
    answer = asked("--resume", "begun", "--epochs", 3, "--space", "head_only", "--trials", "no", "--patiense", 2)
    expect(
        answer,
        "unknown option --patiense: did you mean --patience?",
        "--trials must be a whole number, received 'no'",
        (
            "--epochs 3 contradicts the run 'begun', which has 1: omit it, or train its best configurations ",
            f"longer in a new run on the same --data: --warm-start {run.root} --epochs 3",
        ),
        "--space head_only contradicts the run 'begun', which has ",
    )
    assert contents(run) == before


def test_a_study_that_runs_the_epochs_of_its_rows_takes_no_others(run: RunPaths) -> None:
    saved = json.loads(run.sweep.read_text())
    saved["resolved"]["space"] = "studies.msds18022"
    for own_epochs, problems in ((True, 2), (False, 1)):
        run.sweep.write_text(json.dumps(saved | {"own_epochs": own_epochs}))
        again = ["--resume", "begun", "--storage", str(run.root.parent), "--epochs"]
        told = [problem for epochs in "12" for problem in resume(read([*again, epochs])[0]).problems]
        assert len(told) == problems, "its 1 given again is no contradiction where all rows run 1"
        assert ["which has the epochs of its rows: omit it" in problem for problem in told] == [own_epochs] * problems


def test_the_file_of_the_first_command_goes_with_its_resumption(run: RunPaths, asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text("name: begun\nprecision: auto\npreset: auto\n")
    for which in ("begun", run.root):
        assert asked("--resume", which, "--config", tmp_path / "night.yaml", "--dry-run").code == 0
    expect(
        asked("--resume", "begun", "--precision", "bf16", "--max-images", 9),
        "--max-images 9 contradicts the run 'begun', which has none",
        "--precision bf16 contradicts the run 'begun', which has fp32",
    )


def test_a_warm_start_needs_its_earlier_run_once(
    tmp_path: Path, images: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = begin(tmp_path, images, "--name", "earlier")
    history = TrialHistory(earlier, "val_f1_macro", "max")
    for number, score in enumerate((0.5, 0.9)):
        history.begin(number, TrialParams(backbone="squeezenet1_1", batch_size=4, lr=0.01 * (number + 1)))
        history.report(number, json.dumps({"epoch": 1, "val_f1_macro": score}))
    begin(tmp_path, images, "--name", "begun", "--warm-start", str(earlier.root))
    saved = json.loads((tmp_path / "storage" / "begun" / "sweep.json").read_text())
    assert saved["resolved"]["warm_start"] == str(earlier.root)
    assert saved["warm_trials"] == [{"trial_id": "t0001", "score": 0.9, "point": {"lr": 0.02}, "opened": 0}]
    earlier.root.rename(tmp_path / "gone")
    capsys.readouterr()
    assert main(["--resume", "begun", "--storage", str(tmp_path / "storage"), "--dry-run"]) == 0
    assert f"the best trials of {earlier.root}, t0001, are tried first" in capsys.readouterr().out
    expect(asked("--resume", "begun", "--warm-start", "x"), "--warm-start x contradicts the run 'begun'")


def test_another_name_for_the_run_is_one_problem(run: RunPaths, asked: Asked) -> None:
    expect(asked("--resume", "begun", "--name", "other"), "--name other cannot go with --resume begun")


def test_another_data_set_and_a_changed_space_are_told_together(
    run: RunPaths, asked: Asked, images: Path, tmp_path: Path
) -> None:
    draw(images / "train" / "dark" / "one more.png", 90)
    (tmp_path / "mine.py").write_text(SPACE.replace("0.1)", "0.2)"))
    before = contents(run)
    other_data = (f"the data set at {images} is not that of the run", "images, labels or splits differ")
    other_space = ("the space file has changed since the run", f"a copy is in {run.space}")
    expect(asked("--resume", "begun"), other_data, other_space)
    other_counts = (other_data[0], "train has 7 images of dark, the run's 6")  # nothing is decoded: images are counted
    expect(asked("--resume", "begun", "--dry-run"), other_counts, other_space)
    assert contents(run) == before


def test_whatever_path_of_the_data_has_moved_can_be_given_anew(tmp_path: Path, images: Path, asked: Asked) -> None:
    begin(tmp_path, images / "train", "--name", "begun", "--val-data", str(images / "val"))
    moved = images.rename(tmp_path / "moved")
    again = ("--resume", "begun", "--data", moved / "train")
    expect(asked(*again), f"--val-data {images / 'val'}: no such file or folder")
    assert asked(*again, "--val-data", moved / "val", "--dry-run").code == 0
    draw(moved / "val" / "dark" / "one more.png", 90)
    other = f"the data set at {moved / 'train'} is not that of the run"
    expect(asked(*again, "--val-data", moved / "val"), (other, "images, labels or splits differ"))


def test_other_weights_than_the_run_began_with(run: RunPaths, asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    torch.save(random_network(BACKBONES["squeezenet1_1"], 0).state_dict(), file)
    weights = ("--weights", f"squeezenet1_1={file}")
    saved = json.loads(run.sweep.read_text())
    saved["resolved"]["weights"] = weights[1]
    run.sweep.write_text(json.dumps(saved))
    facts = json.loads(run.provenance.read_text())
    facts["weights"]["squeezenet1_1"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    run.provenance.write_text(json.dumps(facts))
    assert asked("--resume", "begun", "--dry-run").code == 0
    torch.save(random_network(BACKBONES["squeezenet1_1"], 1).state_dict(), file)
    other = f"the weights of squeezenet1_1 at {file} are not those of the run {run.root}: restore them"
    expect(asked("--resume", "begun"), other)


def test_weights_that_have_moved_can_be_given_anew_and_no_others(tmp_path: Path, images: Path, asked: Asked) -> None:
    before, file, folder = tmp_path / "mine.pt", tmp_path / "moved.pt", tmp_path / "weights"
    torch.save(random_network(BACKBONES["squeezenet1_1"], 0).state_dict(), before)
    run = begin(tmp_path, images, "--name", "begun", "--weights", f"squeezenet1_1={before}")
    before.rename(file)
    expect(asked("--resume", "begun"), f"{before} does not exist")
    again = ("--resume", "begun", "--weights", f"squeezenet1_1={file}")
    assert asked(*again, "--dry-run").code == 0
    reopened(run, *again[2:])
    assert read_run(run.root).provenance.weights["squeezenet1_1"].path == str(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    folder.mkdir()
    (folder / f"squeezenet1_1-{digest[:8]}.pth").write_bytes(file.read_bytes())
    content = f"SHA-256 {digest[:12]}"
    began_with = f"began with weights of origin file ({content}): give the same"
    for given, named in (
        ("random", "random,"),
        (folder, f"folder ({content}),"),
        (f"{again[-1]},range=0:255", f"file (range=0:255, {content}),"),
    ):
        told = (f"--weights gives squeezenet1_1 weights of origin {named}", began_with)
        expect(asked("--resume", "begun", "--weights", given), told)
    torch.save(random_network(BACKBONES["squeezenet1_1"], 1).state_dict(), file)
    expect(asked(*again), ("--weights gives squeezenet1_1 weights of origin file (SHA-256 ", began_with))


def test_data_and_space_that_are_gone(run: RunPaths, asked: Asked, images: Path, tmp_path: Path) -> None:
    images.rename(tmp_path / "elsewhere")
    (tmp_path / "mine.py").unlink()
    expect(asked("--resume", "begun"), f"--data {images}: no such folder", "--space: no such space file: ")


def drop(*names: str) -> Edit:
    def edit(path: Path) -> None:
        saved = json.loads(path.read_text())
        resolved = {name: value for name, value in saved["resolved"].items() if name not in names}
        path.write_text(json.dumps(saved | {"resolved": resolved}))

    return edit


def put(**changed: object) -> Edit:
    def edit(path: Path) -> None:
        saved = json.loads(path.read_text())
        path.write_text(json.dumps(saved | {"resolved": saved["resolved"] | changed}))

    return edit


@pytest.mark.parametrize(
    ("edit", "phrase"),
    [
        (lambda path: path.write_text(path.read_text().partition(":")[0]), "is damaged: Expecting ':' "),
        (lambda path: path.write_text("[]"), "is damaged: it has no settings"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is damaged: 'utf-8' codec can't decode"),
        (drop("metric", "seed"), "is damaged: missing settings: metric, seed; restore it, or start a new run"),
        (put(epoch=3), "is damaged: unknown setting epoch: did you mean epochs?"),
        (put(trials="x"), "is damaged: --trials must be a whole number, received 'x'"),
        (
            put(sampler="nix", epochs=0),
            "is damaged: --epochs 0: must be 1 or more; --sampler: unknown sampler 'nix': allowed: gp, grid, qmc, "
            "random, tpe",
        ),
    ],
)
def test_settings_that_are_damaged_are_not_made_up(run: RunPaths, asked: Asked, edit: Edit, phrase: str) -> None:
    edit(run.sweep)
    before = contents(run)
    expect(asked("--resume", "begun"), (f"--resume: {run.sweep}", phrase))
    assert contents(run) == before


@pytest.mark.parametrize("edit", [Path.unlink, lambda path: path.write_text("{")])
def test_a_run_whose_data_set_is_not_known_any_more(run: RunPaths, asked: Asked, edit: Edit) -> None:
    edit(run.dataset)
    expect(asked("--resume", "begun"), f"--resume: {run.dataset} is missing or damaged: restore it, or start a new run")


def test_a_folder_in_the_place_of_a_file_is_named(run: RunPaths, asked: Asked) -> None:
    run.splits.unlink()
    run.splits.mkdir()
    expect(asked("--resume", "begun"), f"{run.splits} is a folder, but the run had a file there: move the folder away")


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("splits.csv", Path.unlink),
        ("splits.csv", lambda path: path.write_text(path.read_text().replace(",val,", ",train,", 1))),
        ("images.csv", lambda path: path.write_text(path.read_text().replace(",32,", ",64,", 1))),
        ("thumbnails.npz", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_file_that_tells_of_the_data_is_used_as_it_was_written_or_written_again(
    run: RunPaths, asked: Asked, images: Path, name: str, edit: Edit
) -> None:
    before, file = read_run(run.root), run.root / name
    edit(file)
    if name == "splits.csv":
        with pytest.raises(UserError, match=r"splits.csv is missing or was changed: --resume rewrites it"):
            open_dataset(run.root)
    if name.endswith(".csv"):
        damaged = read_run(run.root)
        assert [problem for problem in damaged.problems if problem.startswith(name)]
        assert len(damaged.rows if name == "splits.csv" else damaged.images) == 0
    plan = reopened(run)
    assert plan.notes()[0] == f"{name} is missing or was changed: rewritten from the data"
    after = read_run(run.root)
    assert after.problems == []
    assert after.rows.equals(before.rows)
    assert after.images.equals(before.images)
    assert len(open_dataset(run.root).val) == 6
    file.unlink()
    images.rename(images.with_name("elsewhere"))
    expect(asked("--resume", "begun"), f"--data {images}: no such folder")


@pytest.mark.parametrize("comes", [True, False])
def test_a_file_that_cannot_be_read_may_come_or_go_and_no_image_gets_the_label_of_another(
    tmp_path: Path, images: Path, comes: bool
) -> None:
    cut_off = images / "train" / "bright" / "a.png"  # the first of all
    content = (images / "val" / "dark" / "dark0.png").read_bytes()[:100]
    if not comes:
        cut_off.write_bytes(content)
    run = begin(tmp_path, images, "--name", "begun", "--skip-unreadable")
    before = open_dataset(run.root)
    if comes:
        cut_off.write_bytes(content)
    else:
        cut_off.unlink()
    reopened(run)
    after = open_dataset(run.root)
    for ours, theirs in ((after.train, before.train), (after.val, before.val)):
        assert ours.paths == theirs.paths
        np.testing.assert_array_equal(after.images[ours.rows], before.images[theirs.rows])
    assert read_run(run.root).problems == []


def test_jobs_that_begin_in_the_same_second_have_folders_of_their_own(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.run.datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 1)))
    paths = begin(tmp_path, images)
    assert paths.root.name == "mine-20260101-000000"
    for number in (2, 3):
        again = begin(tmp_path, images)
        assert again.root.name == f"{paths.root.name}-{number}"
        assert json.loads(again.sweep.read_text())["resolved"]["name"] == again.root.name
    with pytest.raises(UserError, match="exists already: give another --name"):
        begin(tmp_path, images, "--name", paths.root.name)


def test_a_run_of_somebody_else_is_told_before_anything_is_read(
    run: RunPaths, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run.root and allowed(path, mode))
    way_out = f"is not writable: ask its owner, or start from its best trials with --warm-start {run.root}"
    expect(asked("--resume", "begun"), ("--resume begun:", way_out))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != IMAGE_CACHE and allowed(path, mode))
    assert image_cache(run.root.parent).name == f"{IMAGE_CACHE}-{os.getuid()}"
    monkeypatch.undo()
    assert image_cache(run.root.parent).name == IMAGE_CACHE


def test_a_deterministic_run_keeps_what_its_numbers_depend_on(tmp_path: Path, images: Path, asked: Asked) -> None:
    cpus = ("--concurrency", "1", "--gpus-per-trial", "0")
    run = begin(tmp_path, images, "--name", "begun", "--deterministic", *cpus)
    problem = "--cpus-per-trial 2: a deterministic run keeps its cpus per trial of 1"
    expect(asked("--resume", "begun", "--cpus-per-trial", 2), problem)
    put(concurrency=9999)(run.sweep)
    elsewhere = ("needs 9999 CPUs: ", "a deterministic run keeps it: continue on a machine that has as many")
    expect(asked("--resume", "begun"), elsewhere)
    kept = "--concurrency 1: a deterministic run keeps its concurrency of 9999: omit it"
    expect(asked("--resume", "begun", "--concurrency", 1), kept, elsewhere)
