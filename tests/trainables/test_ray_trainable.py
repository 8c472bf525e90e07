"""A trial as a Ray trainable: it goes on where it was, gives way to the next, and fails alone."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import no_file_beyond
from PIL import Image
from trial_settings import timeless, trial_settings

from search_spaces.params import TrialParams
from trainables import ray_trainable
from trainables.data.config import DataConfig
from trainables.data.prepare import prepare
from trainables.ray_trainable import FinetuneTrainable
from trainables.trial import FinetuneTrial


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder on forty small images of two classes."""
    root = tmp_path_factory.mktemp("data")
    chance = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12), ("test", 4)):
        for number in range(count):
            bright = number % 2
            pixels = np.clip(chance.normal(90 + 60 * bright, 40, (36, 36)), 0, 255).astype(np.uint8)
            path = root / split / ("bright" if bright else "dark") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    run = tmp_path_factory.mktemp("run")
    prepare(DataConfig(data=str(root), image_size=36), run, tmp_path_factory.mktemp("cache"), workers=1)
    return run


@pytest.fixture
def config(run_dir: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(number: int = 0, **changes: Any) -> dict[str, Any]:
        settings = trial_settings(run_dir, seed=1, time_limit_s=changes.pop("time_limit_s", None))
        params = TrialParams(
            **{"backbone": "squeezenet1_1", "unfreeze_depth": 4, "dropout": 0.5, "batch_size": 8} | changes
        )
        folder = tmp_path / f"trial{number}"
        names = {"state": "state.pt", "weights": "weights.pt", "predictions": "p.npz", "error": "error.txt"}
        paths = {name: str(folder / file) for name, file in (names | {"stacks": "stacks.txt"}).items()}
        folder.mkdir(exist_ok=True)
        return {"stream": number, "params": params.to_flat(), "settings": dataclasses.asdict(settings), "files": paths}

    return make


def curve(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without what a clock says."""
    return [timeless(json.loads(result["record"])) for result in results]


def test_a_trial_started_again_reports_its_last_epoch_once_more_and_goes_on(
    config: Callable[..., dict[str, Any]],
) -> None:
    whole = FinetuneTrainable(config(number=0))
    expected = curve([whole.step() for _ in range(4)])
    lost = FinetuneTrainable(config(number=5) | {"stream": 0})
    before = [lost.step() for _ in range(2)]
    again = FinetuneTrainable(config(number=5) | {"stream": 0})
    after = [again.step() for _ in range(3)]
    assert after[0] == before[1], "the very same record, also its clock: it was not trained again"
    assert curve(before + after[1:]) == expected
    assert after[-1]["done"]
    assert after[-1]["end"] == "budget"


def test_a_process_that_takes_another_trial_gives_what_a_fresh_one_gives(
    config: Callable[..., dict[str, Any]],
) -> None:
    fresh = FinetuneTrainable(config(number=1) | {"stream": 2})
    reused = FinetuneTrainable(config(number=0))
    reused.step()
    assert reused.reset_config(config(number=2))
    assert curve([reused.step()]) == curve([fresh.step()])


def test_a_trial_that_raises_ends_with_its_reason_and_the_next_one_runs(
    config: Callable[..., dict[str, Any]],
) -> None:
    bad = config(number=2, batch_size=25)  # of 24 images
    trial = FinetuneTrainable(bad)
    result = trial.step()
    assert (result["done"], result["end"], result["record"]) == (True, "error", "")
    assert result["reason"]
    assert "Traceback" in Path(bad["files"]["error"]).read_text()
    trial.reset_config(config(number=3))
    assert trial.step()["epoch"] == 1


def test_a_trial_that_a_full_disk_keeps_from_going_on_is_unfinished_and_loses_no_epoch(
    config: Callable[..., dict[str, Any]],
) -> None:
    whole = FinetuneTrainable(config(number=7))
    expected = curve([whole.step() for _ in range(4)])
    made = config(number=8) | {"stream": 7}
    state = Path(made["files"]["state"])
    trial = FinetuneTrainable(made)
    before = [trial.step() for _ in range(2)]
    kept = state.read_bytes()
    with no_file_beyond(100_000):
        stopped = trial.step()
    assert stopped["done"]
    assert stopped["disk"] == [errno.EFBIG, str(state)] or stopped["disk"] == [errno.EFBIG, made["files"]["weights"]]
    assert "end" not in stopped
    assert stopped["record"] == ""
    assert state.read_bytes() == kept
    assert not Path(made["files"]["error"]).exists()
    again = FinetuneTrainable(made)
    after = [again.step() for _ in range(3)]
    assert after[0] == before[1]
    assert curve(before + after[1:]) == expected


def test_a_trial_whose_folder_denies_permission_is_unfinished_and_one_of_other_files_fails(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(number=10)

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", refuse)
        stopped = FinetuneTrainable(made).step()
    assert stopped["disk"] in [[errno.EACCES, made["files"][name]] for name in ("state", "weights")]
    assert "end" not in stopped

    def deny(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere/resnet18.pth")

    monkeypatch.setattr(FinetuneTrial, "run_epoch", deny)
    failed = FinetuneTrainable(made).step()
    assert (failed["end"], "disk" in failed) == ("error", False)


def test_a_trial_whose_error_cannot_be_written_down_is_unfinished(config: Callable[..., dict[str, Any]]) -> None:
    made = config(number=9, unfreeze_depth=None, unfreeze_layers=("no.such.layer",))
    trial = FinetuneTrainable(made)
    with no_file_beyond(10):
        assert trial.step()["disk"] == [errno.EFBIG, made["files"]["error"]]


def test_the_best_epochs_weights_and_predictions_are_on_disk_after_every_step(
    config: Callable[..., dict[str, Any]],
) -> None:
    made = config(number=4)
    trial = FinetuneTrainable(made)
    for _ in range(4):
        record = json.loads(trial.step()["record"])
        with np.load(made["files"]["predictions"]) as saved:
            assert int(saved["epoch"]) == record["best_epoch"]
        assert torch.load(made["files"]["weights"], weights_only=True)["epoch"] == record["best_epoch"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def change_bits(path: Path) -> None:
    """Of more bytes in a row than lie between two tensors."""
    content = np.fromfile(path, dtype=np.uint8)
    content[len(content) // 2 :][:100] ^= 1
    content.tofile(path)


def resave(path: Path, **changes: Any) -> None:
    torch.save(torch.load(path, weights_only=True) | changes, path)


DAMAGES: dict[str, Callable[[dict[str, Path]], object]] = {
    "a state of noise": lambda files: files["state"].write_bytes(np.random.default_rng(0).bytes(5000)),
    "an empty state": lambda files: files["state"].write_bytes(b""),
    "a truncated state": lambda files: cut(files["state"]),
    "other bits in the state": lambda files: change_bits(files["state"]),
    "a pickle as state": lambda files: files["state"].write_bytes(pickle.dumps({"trial": 1})),
    "something else as state": lambda files: torch.save([1, 2], files["state"]),
    "no state": lambda files: files["state"].unlink(),
    "no weights": lambda files: files["weights"].unlink(),
    "other bits in the weights": lambda files: change_bits(files["weights"]),
    "weights of another epoch": lambda files: resave(files["weights"], epoch=9),
    "weights of another trial": lambda files: resave(files["weights"], params=TrialParams(backbone="vgg16").to_flat()),
    "a lost record": lambda files: files["result"].write_text('{"epoch": 2}\n'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_trial_of_which_a_file_is_damaged_is_trained_again_from_its_beginning(
    config: Callable[..., dict[str, Any]], damage: str
) -> None:
    made = config(number=7)
    made["files"]["result"] = str(Path(made["files"]["state"]).with_name("result.jsonl"))
    files = {name: Path(path) for name, path in made["files"].items()}
    first = FinetuneTrainable(made)
    before = [first.step() for _ in range(2)]
    files["result"].write_text("".join(result["record"] + "\n" for result in before))
    DAMAGES[damage](files)
    again = FinetuneTrainable(made)
    after = [again.step() for _ in range(2)]
    assert curve(after) == curve(before)
    assert [bool(result["begun_again"]) for result in after] == [True, False], "it is said once"
    assert torch.load(files["weights"], weights_only=True)["epoch"] == json.loads(after[-1]["record"])["best_epoch"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
@pytest.mark.parametrize("name", ["state", "weights"])
def test_a_file_that_cannot_be_read_just_now_is_not_damaged(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    made = config(number=9)
    FinetuneTrainable(made).step()
    before = Path(made["files"]["state"]).read_bytes()
    is_zipfile = zipfile.is_zipfile

    def refuse(path: Path) -> bool:
        if path == Path(made["files"][name]):
            raise OSError(number, os.strerror(number), str(path))
        return is_zipfile(path)

    with monkeypatch.context() as patched:
        patched.setattr(zipfile, "is_zipfile", refuse)
        result = FinetuneTrainable(made).step()
    of_disk = number in (errno.EIO, errno.ESTALE)
    assert result.get("disk", [None])[0] == (number if of_disk else None)
    assert result.get("end") == (None if of_disk else "error")
    assert Path(made["files"]["state"]).read_bytes() == before
    assert FinetuneTrainable(made).step()["begun_again"] == ""


def test_a_state_whose_tensors_have_other_shapes_is_none(config: Callable[..., dict[str, Any]]) -> None:
    made = config(number=8)
    FinetuneTrainable(made).step()
    path = Path(made["files"]["state"])
    state = torch.load(path, weights_only=True)
    state["trial"]["model"] = {name: tensor[..., :1] for name, tensor in state["trial"]["model"].items()}
    torch.save(state, path)
    result = FinetuneTrainable(made).step()
    assert (result["epoch"], "has shape" in result["begun_again"]) == (1, True)


def test_an_epoch_cut_off_behind_its_weights_is_run_again_and_all_of_them_if_it_is_not_the_best_then(
    config: Callable[..., dict[str, Any]],
) -> None:
    whole = FinetuneTrainable(config(number=0))
    best = [json.loads(whole.step()["record"])["best_epoch"] for _ in range(4)]
    improved, not_improved = best[-1], next(epoch for epoch in (2, 3, 4) if best[epoch - 1] < epoch)
    assert improved > 1
    for epoch, expected in ((improved, improved), (not_improved, 1)):
        made = config(number=10 + epoch) | {"stream": 0}
        lost = FinetuneTrainable(made)
        for _ in range(epoch - 1):
            lost.step()
        resave(Path(made["files"]["weights"]), epoch=epoch)
        again = FinetuneTrainable(made)
        assert (again.step()["epoch"], again.step()["epoch"]) == (epoch - 1, expected)


HANGING = """
import json, resource, sys
import trainables.ray_trainable as module
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # ends it where the watchdog does not
class Hanging:
    seconds = 0.0
    def __init__(self, *_): pass
    def run_epoch(self):
        sum(iter(int, 1))  # never returns to Python code that could look at a clock
module.HANG_GRACE_S = 0.0
module.FinetuneTrial = Hanging
module.FinetuneTrainable(json.loads(sys.argv[1])).step()
"""


def test_a_trial_that_hangs_is_ended_with_its_stacks_and_not_started_again(
    config: Callable[..., dict[str, Any]],
) -> None:
    made = config(number=6, time_limit_s=1.0)
    command = [sys.executable, "-c", HANGING, json.dumps(made)]
    hung = subprocess.run(command, capture_output=True, text=True, check=False)
    assert hung.returncode != 0
    assert "run_epoch" in Path(made["files"]["stacks"]).read_text()
    result = FinetuneTrainable(made).step()
    assert result["end"] == "error"
    assert "hung past its time limit of 1.0 s" in result["reason"]


@pytest.mark.parametrize(
    ("reserved", "reason"),
    [(0.9, "out of memory: OutOfMemoryError: full"), (0.1, "other processes use the memory of its GPU")],
)
def test_memory_that_others_hold_says_something_against_the_gpu(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, reserved: float, reason: str
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    made = config(number=11)
    made["settings"] |= {"use_gpu": True, "gpu_share": 0.5}
    monkeypatch.setattr(ray_trainable, "FinetuneTrial", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 80e9))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: reserved * 40e9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    result = FinetuneTrainable(made).step()
    assert (result["end"], result["reason"], result["gpu"]) == ("error", reason, "3")


def test_a_gpu_that_answers_nothing_more_fails_its_trial_and_takes_no_other(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with `TORCH_USE_CUDA_DSA`")

    made = config(number=12)
    trial = FinetuneTrainable(made)
    trial.step()
    for name in ("run_epoch", "close"):
        monkeypatch.setattr(FinetuneTrial, name, broken)
    result = trial.step()
    assert (result["end"], result["reason"]) == ("error", "RuntimeError: CUDA error: an illegal memory access")
    monkeypatch.setattr(os, "_exit", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trial.reset_config(config(number=13))


@pytest.mark.parametrize("text", ["CUDNN_STATUS_ALLOC_FAILED when calling `cudnnCreate(handle)`", ""])
def test_a_state_is_kept_where_a_gpu_had_no_room_for_it(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(text) if text else torch.AcceleratorError("CUDA error: out of memory")

    made = config(number=14)
    FinetuneTrainable(made).step()
    with monkeypatch.context() as patched:
        patched.setattr(FinetuneTrial, "load_state_dict", refuse)
        assert FinetuneTrainable(made).step()["end"] == "error"
    assert FinetuneTrainable(made).step()["begun_again"] == ""
