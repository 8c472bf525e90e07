"""A disk that fills up in mid-sweep: one line that names it, exit code 4, and when there is room nothing was lost."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import torch
from full_disk import fill, tiny_disk
from whole_sweep import run_sweep

from sweep.run_folder import RunPaths

pytestmark = pytest.mark.long


def lines_of(run: Path) -> dict[str, list[str]]:
    """The records of the epochs of each trial and repeat, as they were appended."""
    return {str(path.relative_to(run).parent): path.read_text().splitlines() for path in run.rglob("result.jsonl")}


@pytest.mark.parametrize(
    ("full_at", "held"), [("[1/", "trials/t000[1-9]"), ("retrained with", "finalists/t000[0-9]/seed_*")]
)
def test_a_storage_that_fills_up_ends_the_sweep_and_it_goes_on_when_there_is_room(
    small_data: Path, tmp_path: Path, full_at: str, held: str
) -> None:
    """It is full before a trial that runs, or a repeat, has ended."""
    with tiny_disk(tmp_path / "disk", 200) as disk:
        fillers: list[Path] = []
        let_go = tmp_path / "go on"

        def fill_up(lines: list[str], process: subprocess.Popen[str]) -> None:
            if full_at in lines[-1] and not fillers:
                while not [*run.glob(f"{held}/result.jsonl")]:
                    assert process.poll() is None
                    time.sleep(0.01)
                fillers.append(fill(disk))
                let_go.touch()

        where = ["--data", small_data, "--storage", disk, "--name", "run", "--weights", "random", "--image-size", 32]
        what = ["--backbones", "squeezenet1_1", "--set", "unfreeze_depth=4", "--trials", 4, "--epochs", 3]
        finalists = ["--finalists", 0] if full_at == "[1/" else ["--finalists", 1, "--repeats", 1]
        run = disk / "run"
        waits = {"HELD": held, "LET_GO": str(let_go)}
        full = run_sweep(*where, *what, *finalists, at=fill_up, program="held_sweep.py", **waits)
        assert full.code == 4, full.text + full.errors
        assert "lost its worker" not in full.text
        assert len(full.errors.splitlines()) == 1, full.errors
        error = full.errors.strip()
        assert error.startswith(f"error: --storage {disk}: the disk is full (at {run}/")
        assert error.endswith(f": free space; continue with: python -m sweep.run --resume run --storage {disk}")
        assert not RunPaths(run).reserve.exists()
        before = lines_of(run)
        unfinished = [path.parent for path in run.rglob("params.json") if not (path.parent / "status.json").exists()]
        assert unfinished
        for folder in unfinished:
            epochs = [json.loads(line)["epoch"] for line in before.get(str(folder.relative_to(run)), [])]
            if (folder / "state.pt").exists():
                assert torch.load(folder / "state.pt", weights_only=True)["last"]["epoch"] >= max(epochs, default=0)
            else:
                assert epochs == []
        fillers[0].unlink()
        resumed = run_sweep("--resume", "run", "--storage", disk)
        assert resumed.code == 0, resumed.errors
        after = lines_of(run)
        for trial, lines in before.items():
            assert after[trial][: len(lines)] == lines, "an epoch that was on record is not trained again"
        for lines in after.values():
            records = [json.loads(line) for line in dict.fromkeys(lines)]
            assert [record["epoch"] for record in records] == list(range(1, len(records) + 1))
        assert {json.loads(path.read_text())["status"] for path in run.rglob("status.json")} <= {"completed", "pruned"}
        assert list(run.rglob("state.pt")) == []
        assert (run / "models" / "best.onnx").exists()
