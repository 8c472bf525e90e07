"""Sweeps that are started from Python: one after the other in a process, and in a thread of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from refused import files_below

from search_spaces.errors import UserError
from sweep.run import sweep

ROOT = Path(__file__).resolve().parents[2]

TWICE = """
import pathlib, sys, threading, time
import ray
from search_spaces.errors import UserError
from sweep.records import read_run
from sweep.run import sweep

options = dict(data=sys.argv[1], storage=sys.argv[2], image_size=32, backbones=["squeezenet1_1"], weights="random",
               trials=1, epochs=1, finalists=0, concurrency=1, set={"batch_size": 4})

def told(**options):
    try:
        sweep(**options)
    except UserError as error:
        return str(error)

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print(told(name="refused", **options))
ray.shutdown()
runs = [sweep(name="first", **options)]
thread = threading.Thread(target=lambda: runs.append(sweep(name="second", **options)))
thread.start()
while thread.is_alive() and not pathlib.Path(sys.argv[2], "second").exists():
    time.sleep(0.01)
print(told(name="refused", **options))
thread.join()
for paths in runs:
    print("trials:", paths.root.name, len(read_run(paths.root).trials), paths.report.is_dir(), ray.is_initialized())
"""


@pytest.mark.long
def test_one_sweep_follows_the_other_in_one_process_also_in_a_thread(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWICE, str(images), str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Ray is already running in this process: call ray.shutdown() first")
    assert "another sweep is running in this process: wait for it, or start this one in another process" in lines
    assert [line for line in lines if line.startswith("trials: ") and line.endswith("False")] == [
        "trials: first 1 True False",
        "trials: second 1 True False",
    ]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [".image_cache", "first", "second"]


def test_what_is_wrong_is_raised_with_all_of_it(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        sweep(data=images, storage=tmp_path / "runs", trials=0, sampler="tep", epoch=3)
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        "unknown option --epoch",
        "--trials 0",
        "--sampler",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_writes_nothing_and_says_where_it_would_go(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files_below(tmp_path)
    paths = sweep(
        data=images,
        storage="new/er",
        name="mine",
        dry_run=True,
        weights="random",
        image_size=32,
        backbones=["squeezenet1_1"],
        set={"batch_size": 4},
    )
    assert (paths.root, files_below(tmp_path)) == (Path("new/er/mine"), before)
    assert 'storage: "new/er"' in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--storage file/runs is not a writable folder"):
        sweep(data=images, storage="file/runs", dry_run=True, weights="random", backbones=["squeezenet1_1"])


@pytest.mark.parametrize("storage", ["s3://bucket/runs", "file:///runs"])
def test_a_storage_elsewhere_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=f"--storage {storage}: is a URL"):
        sweep(data=images, storage=storage, weights="random", backbones=["squeezenet1_1"], set={"batch_size": 4})
    assert files_below(tmp_path) == before
