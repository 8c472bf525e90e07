"""``--dry-run --json``: what was read, as one JSON object and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from refused import SMALL, files_below

from sweep.run import NOT_CHECKED, main


def shown(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main([*map(str, arguments), *SMALL, "--dry-run", "--json"])
    written = capfd.readouterr().out
    return code, json.loads(written)


def test_it_says_how_the_images_are_read_and_writes_nothing(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_below(tmp_path)
    code, said = shown(capfd, "--data", images, "--storage", tmp_path / "runs")
    assert code == 0
    assert said.keys() == {"config", "data", "problems"}
    assert said["config"]["data"] == str(images)
    assert said["problems"] == []
    data = said["data"]
    assert data.keys() == {"preset", "task", "classes", "images", "label_counts", "groups", "left_out", "notes"}
    assert (data["preset"], data["task"], data["classes"]) == (None, "single_label", ["bright", "dark"])
    assert data["images"] == {"train": 12, "val": 6, "test": 0}
    assert data["label_counts"] == {"bright": 9, "dark": 9}
    assert data["groups"] == {"from": None, "count": None}
    assert any(note.startswith("not yet checked") for note in data["notes"])
    assert files_below(tmp_path) == before


def test_a_refusal_is_one_object_too(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = shown(capfd, "--data", tmp_path / "gone", "--sampler", "tep")
    assert code == 2
    assert said["data"] is None
    assert [problem.split(":")[0] for problem in said["problems"]] == ["--sampler", f"--data {tmp_path / 'gone'}"]
    code, said = shown(capfd, "--data", images, "--sampler", "tep")
    assert (code, len(said["problems"])) == (2, 1)
    assert said["data"]["images"] == {"train": 12, "val": 6, "test": 0}


def test_it_goes_with_a_dry_run(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(images), *SMALL, "--json", "--storage", str(tmp_path / "runs")]) == 2
    assert json.loads(capfd.readouterr().out)["problems"] == ["--json needs --dry-run: add it, or omit --json"]


def test_in_words_it_says_what_it_has_not_looked_at(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(images), *SMALL, "--dry-run"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == NOT_CHECKED
