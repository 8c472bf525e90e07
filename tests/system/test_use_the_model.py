"""From a run to answers, as a user gets them: each command in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trained_run import trained_run, with_model
from whole_sweep import ROOT

from search_spaces.params import TrialParams
from sweep.predictor import open_model
from sweep.records import read_predictions, read_run
from trainables.data.config import DataConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.long
def test_a_runs_model_predicts_and_is_judged(small_data: Path, tmp_path: Path) -> None:
    run = with_model(trained_run(tmp_path / "runs" / "mine", DataConfig(data=str(small_data), image_size=32)))
    (small_data / "test" / "broken.png").write_bytes(b"\x89PNG")
    predicted = command("sweep.predict", run, small_data / "test", "--csv", tmp_path / "answers.csv")
    (small_data / "test" / "broken.png").unlink()
    assert predicted.returncode == 2
    assert predicted.stderr.splitlines()[-1] == "error: 1 of 13 images could not be read; the others are predicted"
    assert "Traceback" not in predicted.stderr
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["problem"]]
    assert len(rows) == 12

    # The lines that the report prints, on one of the images.
    said = json.loads((run / "models" / "best.json").read_text())
    lines = said["loading"].replace('"image.png"', json.dumps(rows[0]["file"]))
    plain = subprocess.run(
        [sys.executable, "-I", "-c", lines], cwd=run / "models", capture_output=True, text=True, check=True
    )
    probability = json.loads(plain.stdout.replace("'", '"'))
    for name in said["classes"]:
        assert probability[name] == pytest.approx(float(rows[0][f"probability_{name}"]), abs=1e-5)

    judged = command("sweep.evaluate", run, "--data", small_data, "--split", "test")
    assert (judged.returncode, judged.stderr) == (0, "")
    assert "12 of 12 images are identical to test images of the run" in judged.stdout
    page = Path(judged.stdout.splitlines()[-1].removeprefix("report: "))
    assert page.is_relative_to(run / "external")
    assert "External evaluation on" in page.read_text(encoding="utf-8")


def test_real_xrays_get_the_probabilities_that_the_run_has_for_them(shared_dir: Path, tmp_path: Path) -> None:
    """From pretrained weights, of which the run kept only what trained, and from the JPEG files themselves."""
    source = shared_dir / "data" / "xray_a"
    with (source / "manifest.csv").open(newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["split"] != "test"][::24]
    lines = ["path,split,label", *(f"{source / row['path']},{row['split']},{row['class']}" for row in chosen)]
    (tmp_path / "some.csv").write_text("\n".join(lines) + "\n")
    request = DataConfig(data=str(tmp_path / "some.csv"), image_size=96, label_column=("label",))
    params = TrialParams(backbone="mobilenet_v2", unfreeze_depth=1, batch_size=16, lr=0.01)
    run = with_model(trained_run(tmp_path / "run", request, params, weights=str(shared_dir / "weights")))
    known = read_predictions(read_run(run), "t0000")
    assert known is not None
    files = [Path(path) for path in known.path]
    assert {file.suffix for file in files} == {".jpg"}
    found = [answer.probability for answer in open_model(run, "cpu").predict(files)]
    assert np.abs(np.stack([one for one in found if one is not None]) - known.probability).max() <= 1e-4
