"""models/ of a run folder: made of the right weights, or not made, with the reason."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import no_file_beyond
from run_files import change_sweep
from trained_run import of_two_labels, repeated, trained_run

from sweep import model
from sweep.model import choose, main, renew_models, write_models
from sweep.predictor import open_model
from sweep.records import read_predictions, read_run
from sweep.run_folder import ModelPaths, RunPaths
from trainables.atomic import sha256_of, write_json
from trainables.backbones import BACKBONES
from trainables.data.config import DataConfig
from trainables.metrics import OperatingPoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs") / "run", DataConfig(data=str(small_data), image_size=32))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its export takes seconds, and is tested by itself."""
    monkeypatch.setattr(model, "write_onnx", lambda path, network, facts: path.touch())


def test_a_run_without_finalists_gives_its_best_trial(run: Path) -> None:
    """Also the one test here that writes the whole of models/."""
    assert write_models(read_run(run)) == []
    files = ModelPaths(run / "models")
    said = json.loads(files.facts.read_text())
    assert (said["trial"], said["epoch"], said["seed"], said["code"]) == ("t0000", 1, None, "0123abc")
    assert said["starting_weights"] == {"origin": "random", "sha256": None, "url": None, "range": None}
    assert said["files"]["best.pt"] == {"sha256": sha256_of(files.model), "bytes": files.model.stat().st_size}
    assert said["files"]["best.onnx"]["sha256"] == sha256_of(files.onnx)
    assert 0 <= said["onnx_difference"] <= 1e-4
    assert "torchvision.models.squeezenet1_1()" in said["loading"]


def test_the_model_gives_the_runs_own_predictions(run: Path, small_data: Path, no_onnx: None) -> None:
    assert write_models(read_run(run)) == []
    known = read_predictions(read_run(run), "t0000")
    assert known is not None
    answers = list(open_model(run, "cpu").predict([small_data / path for path in known.path], batch_size=7))
    found = np.stack([answer.probability for answer in answers if answer.probability is not None])
    np.testing.assert_allclose(found, known.probability, atol=1e-4)


def test_the_input_range_of_the_weights_goes_from_training_into_the_model(
    small_data: Path, tmp_path: Path, no_onnx: None
) -> None:
    """Trained, validated and predicted on the scale of 0 to 255, whose best.pt says so."""
    state = BACKBONES["squeezenet1_1"].network().state_dict()
    torch.save(state | {"features.0.weight": state["features.0.weight"] / 100}, tmp_path / "mine.pt")
    weights = f"squeezenet1_1={tmp_path / 'mine.pt'},range=0:255"
    root = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=32), weights=weights)
    assert write_models(read_run(root)) == []
    said = json.loads(ModelPaths(root / "models").facts.read_text())
    assert said["starting_weights"]["origin"] == "file"
    assert said["starting_weights"]["range"] == [0, 255]
    assert (said["mean"], said["std"]) == ([0] * 3, pytest.approx([1 / 255] * 3))
    known = read_predictions(read_run(root), "t0000")
    assert known is not None
    predictor = open_model(root, "cpu")
    seen: list[float] = []
    predictor._network.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].max())))
    answers = list(predictor.predict([small_data / path for path in known.path]))
    found = np.stack([answer.probability for answer in answers if answer.probability is not None])
    np.testing.assert_allclose(found, known.probability, atol=1e-4)
    assert max(seen) == pytest.approx(255)


def test_a_decision_names_the_repeat_that_is_given_out(run: Path, no_onnx: None) -> None:
    repeated(run)
    shutil.rmtree(run / "trials" / "t0000" / "best")
    assert write_models(read_run(run)) == []
    said = json.loads(ModelPaths(run / "models").facts.read_text())
    assert (said["trial"], said["seed"]) == ("t0000/seed_1001", 1001)


def test_tuned_thresholds_go_with_the_model_and_a_label_without_one_has_a_half(tmp_path: Path, no_onnx: None) -> None:
    run = trained_run(tmp_path / "run", of_two_labels(tmp_path))
    repeated(run)
    decision = json.loads(RunPaths(run).selection.read_text())
    write_json(RunPaths(run).selection, decision | {"thresholds": {"t0000": {"high": 0.25}}})
    assert write_models(read_run(run)) == []
    model = open_model(run, "cpu")
    assert model.facts.thresholds == {"high": 0.25, "often": 0.5}
    assert model.decide(np.array([0.25, 0.75], dtype=np.float32)) == ("high", "often"), "a threshold is reached by it"
    assert model.decide(np.array([0.2, 0.4], dtype=np.float32)) == ()
    more_repeats = decision | {"thresholds": {"t0000": {"high": 0.3}}}
    write_json(RunPaths(run).selection, more_repeats)
    assert renew_models(read_run(run)) == []
    assert open_model(run, "cpu").facts.thresholds == {"high": 0.3, "often": 0.5}
    ModelPaths(run / "models").model.unlink()
    assert renew_models(read_run(run)) == []
    assert open_model(run, "cpu").facts.thresholds == {"high": 0.3, "often": 0.5}


def test_the_operating_point_goes_with_the_model_and_another_one_renews_it(run: Path, no_onnx: None) -> None:
    repeated(run)
    assert renew_models(read_run(run)) == []
    before = open_model(run, "cpu").facts
    assert (before.thresholds, before.operating_point) == (None, None)
    decision = json.loads(RunPaths(run).selection.read_text())
    point = OperatingPoint("dark", "sensitivity", 0.9, 0.2, positives=7, images=21, runs=1)
    write_json(RunPaths(run).selection, decision | {"operating_point": dataclasses.asdict(point)})
    assert renew_models(read_run(run)) == []
    model, record = open_model(run, "cpu"), read_run(run).model
    assert record is not None
    assert (model.facts.thresholds, record.thresholds) == ({"dark": 0.2}, {"dark": 0.2})
    assert model.facts.operating_point == record.operating_point == point
    assert model.facts.classes == ("bright", "dark", "gray")
    assert model.decide(np.array([0.7, 0.25, 0.05], dtype=np.float32)) == ("dark",)
    assert model.decide(np.array([0.7, 0.1, 0.2], dtype=np.float32)) == ("bright",)
    assert model.decide(np.array([0.3, 0.1, 0.6], dtype=np.float32)) == ("gray",)
    written = ModelPaths(run / "models").facts.stat().st_mtime_ns
    assert renew_models(read_run(run)) == []
    assert ModelPaths(run / "models").facts.stat().st_mtime_ns == written

    # Other finalists are asked for, and not repeated yet: the model is still the winner's.
    chosen = json.loads(RunPaths(run).chosen.read_text())
    others = [one | {"trial_id": "t0001", "number": 1} for one in chosen["finalists"]]
    write_json(RunPaths(run).chosen, chosen | {"finalists": others})
    assert renew_models(read_run(run)) == []
    facts = open_model(run, "cpu").facts
    assert (facts.trial, facts.operating_point, facts.thresholds) == ("t0000/seed_1001", point, {"dark": 0.2})


@pytest.mark.parametrize("name", ["best.pt", "best.onnx"])
def test_a_damaged_model_is_written_anew(run: Path, no_onnx: None, name: str) -> None:
    assert write_models(read_run(run)) == []
    damaged = run / "models" / name
    damaged.write_bytes(damaged.read_bytes()[:1000] + b"damaged")
    assert renew_models(read_run(run)) == []
    record = read_run(run).model
    assert record is not None
    assert record.files[name].sha256 == sha256_of(damaged)
    assert open_model(run, "cpu").facts.trial == "t0000"


def test_weights_that_are_gone_are_told_and_an_earlier_model_stays(run: Path, no_onnx: None) -> None:
    assert write_models(read_run(run)) == []
    weights = RunPaths(run).trial("t0000").weights
    weights.unlink()
    (problem,) = write_models(read_run(run))
    assert f"best.pt was not written: the weights of t0000 are not on disk ({weights})" in problem
    assert open_model(run, "cpu").facts.trial == "t0000"


def test_a_model_without_onnx_is_a_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    ModelPaths(run / "models").root.mkdir()
    ModelPaths(run / "models").onnx.write_bytes(b"of an earlier model")
    monkeypatch.setattr(model, "write_onnx", fails)
    (problem,) = write_models(read_run(run))
    assert problem.endswith("best.onnx was not written: onnxscript is not installed (pip install -U onnx onnxscript)")
    said = json.loads(ModelPaths(run / "models").facts.read_text())
    assert list(said["files"]) == ["best.pt"]
    assert not ModelPaths(run / "models").onnx.exists()


def test_a_disk_that_takes_no_more_is_no_fault_of_the_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep ends for it, and makes the model when it goes on."""
    with no_file_beyond(100_000):
        with pytest.raises(OSError) as caught:
            write_models(read_run(run))
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(ModelPaths(run / "models").model))
        assert model.main([str(run)]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {ModelPaths(run / 'models').model}: files may not grow that large")


def test_the_best_is_the_lowest_where_the_metric_says_so(run: Path) -> None:
    shutil.copytree(run / "trials" / "t0000", run / "trials" / "t0001")
    other = RunPaths(run).trial("t0001")
    write_json(other.params, json.loads(other.params.read_text()) | {"number": 1})
    record = json.loads(other.result.read_text())
    other.result.write_text(json.dumps(record | {"val_f1_macro": record["val_f1_macro"] + 0.1, "val_nll": 1e-3}) + "\n")
    assert choose(read_run(run)).trial == "t0001"
    change_sweep(RunPaths(run), mode="min")
    assert choose(read_run(run)).trial == "t0000"


def test_the_command_makes_the_model_of_a_run_that_was_killed(
    run: Path, no_onnx: None, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ModelPaths(run / "models")
    files.root.mkdir()
    files.card.write_text("of an earlier model")
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(files.model), str(files.onnx)]
    assert "t0000 of the sweep run" in files.card.read_text()
    assert "best.pt does not exist" not in (run / "report" / "report.md").read_text()
    shutil.rmtree(run / "trials")
    assert main([str(run)]) == 2
    assert f"no trial of {run} has a score" in capsys.readouterr().err
    assert main([str(run / "models")]) == 2
    assert "is not a run folder: it has no sweep.json" in capsys.readouterr().err
