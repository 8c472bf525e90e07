"""The event files that TensorBoard shows."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from full_disk import no_file_beyond
from tensorboardX.proto.event_pb2 import Event
from toy_sweep import history_of

from search_spaces.params import TrialParams
from sweep.history import TrialHistory
from sweep.progress import TensorBoardLog
from sweep.run_folder import RunPaths


@pytest.fixture
def history(tmp_path: Path) -> TrialHistory:
    history = TrialHistory(RunPaths(tmp_path), "val_f1_macro", "max")
    history.begin(0, TrialParams(backbone="resnet18"))
    return history


def report(history: TrialHistory, epoch: int, **values: float | None) -> None:
    history.report(0, json.dumps({"epoch": epoch, **values}))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in the event files of ``folder``, by tag; the form of a record is TensorFlow's TFRecord."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 6)))
    return found


def test_every_number_of_every_epoch_is_a_point_of_a_curve(history: TrialHistory, tmp_path: Path) -> None:
    TensorBoardLog(history)
    report(history, 1, train_loss=1.5, **{"val_f1:covid": 0.25}, lr=0.01, val_auroc_macro=None)
    report(history, 2, train_loss=1.0, **{"val_f1:covid": 0.5}, lr=0.01)
    history.end(0, "completed", "")
    found = curves(tmp_path / "trials" / "t0000")
    assert found["train/loss"] == [(1, 1.5), (2, 1.0)]
    assert found["val/f1/covid"] == [(1, 0.25), (2, 0.5)]
    assert found["trial/lr"] == [(1, 0.01), (2, 0.01)]
    assert "val/auroc_macro" not in found


def test_a_resumed_trial_goes_on_with_its_curve(history: TrialHistory, tmp_path: Path) -> None:
    first = TensorBoardLog(history)
    report(history, 1, train_loss=1.5)
    first.close()
    again = history_of(tmp_path)
    second = TensorBoardLog(again)
    report(again, 2, train_loss=1.0)
    second.close()
    assert sorted(curves(tmp_path / "trials" / "t0000")["train/loss"]) == [(1, 1.5), (2, 1.0)]


def test_trouble_with_the_files_does_not_end_the_sweep(history: TrialHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter", full)
    TensorBoardLog(history)
    report(history, 1, val_f1_macro=0.5)
    report(history, 2, val_f1_macro=0.5)
    assert history.entries[0].scores == {1: 0.5, 2: 0.5}


def test_a_disk_that_fills_up_does_not_end_the_sweep(history: TrialHistory) -> None:
    log = TensorBoardLog(history)
    report(history, 1, train_loss=1.5)
    with no_file_beyond(0):
        log.close()
    report(history, 2, train_loss=1.0)
    with no_file_beyond(0):
        log.end(history.entries[0])
