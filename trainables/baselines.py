"""What a sweep's winner must beat: answers that need no finding, no detail, or no training of a network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.errors import UserError
from trainables.atomic import write_json
from trainables.batches import Batches
from trainables.data.dataset import Split, TrialData
from trainables.metrics import evaluate_predictions
from trainables.plain_features import Features, borders, frozen_features, thumbnails
from trainables.predictions import Predictions, join
from trainables.regression import fit_regression
from trainables.weights import FoundWeights

# The same name stands in sweep/run_folder.py, which this package may not import; a test compares them.
BASELINES_FILE = "baselines.json"


def measure_baselines(
    data: TrialData,
    test: Split | None,
    backbones: Mapping[str, FoundWeights],
    folder: Path,
    *,
    threads: int,
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """Measure every baseline on the sweep's own images and splits; write and return ``baselines.json``.

    majority: the training split's frequencies, the same for every image. thumbnails, borders: logistic regression on
    16 x 16 pixels, and on the outermost sixteenth of each side. frozen_<backbone>: logistic regression on what a new
    head would see of the untouched network. How exactly: ``plain_features`` and ``regression``.

    test: the opened test split, or None while it is closed. folder: also gets ``<name>.npz``, the predictions of val
    and, if given, test (epoch 0: nothing was trained by epochs). threads: of torch, and labels fitted at once.
    device: where frozen networks run; precision: "fp32" or "bf16", theirs.

    Content: {"baselines": [{name, label, detail, val, test, seconds, failed}]}. val, test: the metrics of
    ``evaluate_predictions``, None where undefined; test itself is None while it is closed. failed: None, or why there
    is no result (then val and test are None): a baseline that fails does not stop the others.
    """
    contest = _Contest(data, test, device, threads)
    with _torch_threads(threads):
        found = [_measured(contest, baseline, folder) for baseline in _baselines(contest, backbones, precision)]
    content = {"baselines": found}
    write_json(folder / BASELINES_FILE, content)
    return content


@dataclass(frozen=True)
class _Answer:
    """probabilities: float32 [n, classes] of val and, if open, test. detail: how they were found, for the reader."""

    probabilities: Mapping[str, NDArray[np.float32]]
    detail: str


@dataclass(frozen=True)
class _Baseline:
    name: str
    label: str
    answer: Callable[[], _Answer]


def _baselines(contest: _Contest, backbones: Mapping[str, FoundWeights], precision: str) -> list[_Baseline]:
    pixels, frozen = contest.by_pixels, contest.by_network
    return [
        _Baseline("majority", "Majority class", contest.by_frequency),
        _Baseline("thumbnails", "Thumbnails of 16 x 16 pixels", partial(pixels, thumbnails)),
        _Baseline("borders", "Image borders only", partial(pixels, borders)),
        *(
            _Baseline(f"frozen_{name}", f"Frozen features of {name}", partial(frozen, weights, precision))
            for name, weights in backbones.items()
        ),
    ]


class _Contest:
    """The splits on which all baselines are measured: "train", "val" and, if it is open, "test"."""

    def __init__(self, data: TrialData, test: Split | None, device: torch.device, threads: int) -> None:
        self.data = data
        self.splits = {"train": data.train, "val": data.val} | ({} if test is None else {"test": test})
        self._device, self._threads = device, threads

    def by_frequency(self) -> _Answer:
        """Each class by its share of the training split, so the decision is always the same."""
        labels, count = self.data.train.labels, len(self.data.classes)
        single = self.data.task == "single_label"
        shares = np.bincount(labels, minlength=count) / len(labels) if single else labels.mean(axis=0)
        answer = np.float32(shares)
        detail = f"always {self.data.classes[int(shares.argmax())]}" if single else "each label by its frequency"
        return _Answer({name: np.tile(answer, (len(split), 1)) for name, split in self.splits.items()}, detail)

    def by_pixels(self, features: Callable[[Batches], Features]) -> _Answer:
        return self._by_regression(features(self._batches(torch.device("cpu"))))

    def by_network(self, found: FoundWeights, precision: str) -> _Answer:
        data = self._batches(self._device)
        features = frozen_features(found, data, self.data.image_size, precision)
        answer = self._by_regression(features)
        random = "random weights, " if found.origin == "random" else ""
        return _Answer(answer.probabilities, random + answer.detail)

    def _by_regression(self, features: Features) -> _Answer:
        ends = np.cumsum([len(split) for split in self.splits.values()])
        parts = dict(zip(self.splits, np.split(features, ends[:-1]), strict=True))
        labels = {name: split.labels for name, split in self.splits.items()}
        found = fit_regression(parts, labels, self.data.classes, self.data.task, threads=self._threads)
        detail = f"logistic regression, C {found.strength:g} chosen on validation"
        if found.unfinished:
            detail += f"; not converged at C {', '.join(f'{strength:g}' for strength in found.unfinished)}"
        return _Answer(found.probabilities, detail)

    def _batches(self, device: torch.device) -> Batches:
        """The images of all splits, one after the other."""
        rows = np.concatenate([split.rows for split in self.splits.values()])
        labels = np.concatenate([split.labels for split in self.splits.values()])
        return Batches(self.data.images, rows, labels, device)


def _measured(contest: _Contest, baseline: _Baseline, folder: Path) -> dict[str, Any]:
    """Run one baseline, write its predictions, and return its entry of ``baselines.json``."""
    path = folder / f"{baseline.name}.npz"
    path.unlink(missing_ok=True)  # Those of a measurement before would stand beside another result.
    entry: dict[str, Any] = {"name": baseline.name, "label": baseline.label, "detail": "", "val": None, "test": None}
    began_s = time.monotonic()
    try:
        answer = baseline.answer()
        rows = {name: _rows(contest, name, answer) for name in contest.splits if name != "train"}
        scores = {name: _scores(contest, one) for name, one in rows.items()}
        join(list(rows.values())).write(path)
        entry |= {"detail": answer.detail, **scores, "failed": None}
    except Exception as error:
        entry["failed"] = _reason(error)
    return entry | {"seconds": round(time.monotonic() - began_s, 3)}


def _rows(contest: _Contest, name: str, answer: _Answer) -> Predictions:
    split = contest.splits[name]
    probabilities = answer.probabilities[name]
    return Predictions.of_split(name, split.paths, split.labels, probabilities, contest.data.classes, epoch=0)


def _scores(contest: _Contest, rows: Predictions) -> dict[str, float | None]:
    values = evaluate_predictions(rows.label, rows.probability, contest.data.classes, contest.data.task)
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """``count`` threads for torch; as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
