"""The GPU's benchmark at tiny sizes on the CPU, where the packages that such a machine lacks cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = ("ray", "optuna", "pydantic", "pydicom")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, chance = tmp_path_factory.mktemp("gpu"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for finding in ("covid", "normal", "pneumonia"):
            (folder / split / finding).mkdir(parents=True)
            for number in range(3):
                pixels = chance.integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / finding / f"{number}.png")
    return folder


def rows_of(part: str, data: Path) -> list[dict[str, Any]]:
    # In a file, not with -c: processes that it starts read it again, and are blocked as well.
    code = f"import sys, runpy\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
    script = data.parent / f"blocked_{part}.py"
    script.write_text(
        f"{code}sys.path.insert(0, {str(ROOT)!r})\n"
        "if __name__ == '__main__':\n"
        "    runpy.run_module('benchmarks.gpu', run_name='__main__')\n"
    )
    command = [sys.executable, str(script), "--part", part, "--data", str(data), "--weights", "random"]
    done = subprocess.run(
        [*command, "--device", "cpu", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    machine, *rows = map(json.loads, done.stdout.splitlines())
    assert machine["card"] == "none (CPU)"
    assert [row for row in rows if row.get("passed") is False] == []
    return rows


def test_every_check_passes_or_says_that_it_needs_a_gpu(data: Path) -> None:
    rows = rows_of("tests", data)
    assert [row["test"] for row in rows if row["passed"] is None] == [
        "micro-batches have the gradient of the whole batch"
    ]
    assert len(rows) > 8


def test_the_speed_stands_beside_a_bare_loop(data: Path) -> None:
    rows = rows_of("speed", data)
    full = next(row for row in rows if row["speed"].endswith("everything"))
    ours, bare = full["ours"], full["bare"]  # rounded
    assert (ours - 0.5) / (bare + 0.5) - 0.001 < full["ratio"] < (ours + 0.5) / (bare - 0.5) + 0.001
    assert {"1", "2"} == set(rows[-1]["images_per_second"])


def test_the_studies_rows_are_scored_on_validation_and_test(data: Path) -> None:
    *runs, left_out = rows_of("study", data)
    assert left_out["rows"] == []
    assert len(runs) == 2
    assert all(0 <= row[f"{split}_f1_macro"] <= 1 for row in runs for split in ("val", "test"))
