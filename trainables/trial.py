"""One trial: hyperparameters and data in, a record per epoch out, and the best epoch's weights and predictions."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.errors import ParameterError, UserError, gathered, raise_all
from search_spaces.params import TrialParams
from trainables.batches import Batches, ImageBatches, keep_to_share, plan_batches
from trainables.checkpoints import read_checkpoint, write_checkpoint
from trainables.data.dataset import PREDICTIONS_FILE, Split, TrialData, open_dataset, open_test_split
from trainables.data.image import PREPROCESSING_VERSION
from trainables.engine import Forward, evaluate, give_back_memory, set_up_cpu, train_epoch
from trainables.feature_cache import CachePlace
from trainables.finetune import FineTunedModel, build_model, model_problems
from trainables.frozen_features import VIEWS, FeatureBatches, FrozenFeatures, shared_order, stages_kept
from trainables.losses import Loss, make_loss
from trainables.metrics import evaluate_predictions, metric_mode
from trainables.optimizers import Schedule, make_optimizer
from trainables.predictions import Predictions, join, read_predictions
from trainables.seeding import Randomness, set_determinism, trunk_seed
from trainables.weights import FoundWeights, find_weights

SAME_PROBABILITY = {"fp32": 5e-3, "bf16": 5e-2}
"""By how much probabilities of the same weights may differ on another device or with another batch size."""
AUTOTUNE_FROM_IMAGES = 200_000
"""If a trial may train on this many images or more, over all epochs, cuDNN measures its algorithms (``train_epoch``).

When it measured them for whole batches, last batches and validation, first epochs on 785 images took an H200 40 s for
ResNet-50 and 42 s for DenseNet-121 in fp32, other epochs 1.2 s and 1.3 s. The gain is not measured: from this size on,
saving a tenth of a step would pay for it.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """The settings that all trials of a sweep share; sent through Ray as a plain dict (``asdict``).

    run_dir: the run folder, a path that every node sees; it holds dataset.json and splits.csv.
    epochs: the budget of a trial, >= 1. weights: as ``find_weights`` reads them; weights_sha256: by backbone, of the
    files that the sweep began with.
    precision: "fp32" or "bf16" (autocast). metric: a column of epochs.parquet.
    patience: epochs without a better metric after which a trial ends by itself; None = never.
    time_limit_s: wall-clock seconds after which a trial fails; None = never.
    seed: of the sweep; a trial's own is derived from it and the trial's number.
    cpus: torch threads of a trial. use_gpu: run on cuda (the device that Ray made visible); gpu_share: the part of it
    that a trial has.
    deterministic: torch's deterministic algorithms. splits: a file in the form of splits.csv that assigns train
    and val anew (cross-validation); None = the run's own.
    cached_stages: by backbone, after how many of its stages features are kept (``stages_worth_keeping``); a trial uses
    the last of them before the first stage that trains. cache_dir: the cache's folder on each node, None = features
    stay in the trial's memory; cache_bytes: as ``CachePlace.limit_bytes``.
    """

    run_dir: str
    epochs: int
    weights: str
    precision: str
    metric: str
    patience: int | None
    time_limit_s: float | None
    seed: int
    cpus: int
    use_gpu: bool
    deterministic: bool
    weights_sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    splits: str | None = None
    cached_stages: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    cache_dir: str | None = None
    cache_bytes: int | None = None
    gpu_share: float = 1.0

    @property
    def cache_place(self) -> CachePlace | None:
        """The place of the feature cache; None = features stay in the trial's memory."""
        return None if self.cache_dir is None else CachePlace(self.cache_dir, self.cache_bytes)


def set_up_process(settings: TrialSettings) -> torch.device:
    """Set a trial's threads, determinism and share of a GPU for this process; return the device to compute on."""
    set_up_cpu(settings.cpus)
    set_determinism(settings.deterministic)
    if settings.use_gpu:
        keep_to_share(settings.gpu_share)
    return torch.device("cuda" if settings.use_gpu else "cpu")


class TrialTimeoutError(TimeoutError):
    """A trial took longer than its time limit."""


class FinetuneTrial:
    """The fine-tuning of one network, epoch by epoch.

    Calls ``set_up_process``, opens the run's data set (only training and validation), finds and checks the weights and
    builds the network. All random numbers follow from settings.seed and ``number`` (of the trial in its sweep, >= 0).
    Raises ParameterError, with all problems together, if these parameters cannot run on this data set.

    tracker: of the epochs so far. After an epoch that improved, call ``save_best``.
    """

    def __init__(self, params: TrialParams, settings: TrialSettings, number: int) -> None:
        self.params, self.settings = params, settings
        self.tracker = BestEpochTracker(settings)
        self._spent_s = 0.0
        self._running_since: float | None = None
        self._micro_batch: int | None = None
        self._probabilities = np.zeros((0, 0), dtype=np.float32)
        with self._on_the_clock():
            self._device = set_up_process(settings)
            self._random = Randomness(settings.seed, number, self._device)
            self.data = open_dataset(Path(settings.run_dir), None if settings.splits is None else Path(settings.splits))
            loss = _checked_loss(params, settings, self.data).to(self._device)
            self._weights = self._find_weights()
            self.model = self._build_model()
            self._forward = Forward(self.model, loss, self.data.task, settings.precision)
            self._features = self._frozen_features()
            self._train, self._val = (self._batches(split) for split in (self.data.train, self.data.val))
            groups = self.model.parameter_groups(params.lr, params.backbone_lr_factor)
            self._optimizer = make_optimizer(params, groups)
            steps = settings.epochs * len(plan_batches(len(self._train), params.batch_size, None))
            long = settings.epochs * len(self._train) >= AUTOTUNE_FROM_IMAGES
            self._autotune = long and not settings.deterministic
            self._schedule = Schedule(self._optimizer, params.lr_schedule, steps)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of building, training and validation so far, with those before it was restored."""
        running = 0.0 if self._running_since is None else time.monotonic() - self._running_since
        return self._spent_s + running

    @property
    def note(self) -> str:
        """What the user should know of this trial, such as why frozen features could not be kept; "" = nothing."""
        return "" if self._features is None else self._features.note

    def run_epoch(self) -> dict[str, Any]:
        """Train one epoch and validate; return its flat record.

        Keys: epoch (from 1), train_loss, train_accuracy, val_loss, val_<each metric>, lr (of the head, at the epoch's
        start), epoch_seconds (with the features that it computed), images_per_second (of training only),
        inference_ms_per_image (of validation, all stages included), trainable_params, total_params, best_epoch,
        best_<selection metric>, and micro_batch if memory ran out. When the trial ends by itself also done=True,
        reason, and end: "budget"; "plateau", settings.patience epochs in a row without a better score; or "nan", a
        loss that is NaN or infinite (then without the values that are meaningless because of it).
        Raises TrialTimeoutError between two steps once settings.time_limit_s is exceeded.
        """
        assert not self.tracker.ended, "the trial has ended"
        with self._on_the_clock(), self._random.for_dropout():
            began_s = time.monotonic()
            self._compute_features()
            ready_s = time.monotonic()
            epoch = self.tracker.epoch + 1
            head_lr = self.params.lr * self._schedule.factor
            self.model.train()
            training = train_epoch(
                self._forward,
                self._optimizer,
                self._schedule,
                self._train,
                batch_size=self.params.batch_size,
                shuffling=self._random.shuffling,
                augmentation=self._random.augmentation,
                micro_batch=self._micro_batch,
                autotune=self._autotune,
                between_steps=self._check_time,
            )
            trained_s = time.monotonic() - ready_s
            self._micro_batch = training.micro_batch
            record: dict[str, Any] = {"epoch": epoch}
            validation: dict[str, float] = {}
            if training.bad_step is None:
                record |= {"train_loss": training.loss, "train_accuracy": training.accuracy}
                validation = self._validate()
                image_s = (time.monotonic() - ready_s - trained_s) / len(self._val)
                image_s += 0.0 if self._features is None else self._features.seconds_per_image
                record["inference_ms_per_image"] = 1000 * image_s
            record |= validation | {
                "lr": head_lr,
                "epoch_seconds": time.monotonic() - began_s,
                "images_per_second": len(self._train) / trained_s,
                "trainable_params": self.model.trainable_params(),
                "total_params": self.model.total_params(),
            }
            if self._micro_batch is not None:
                record["micro_batch"] = self._micro_batch
            if validation:
                return record | self.tracker.judge(record)
            where = "in validation" if training.bad_step is None else f"at step {training.bad_step}"
            reason = f"the loss became NaN or infinite {where} of epoch {epoch} (lr {self.params.lr:g})"
            return record | self.tracker.broken(reason)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to continue exactly, as tensors, numbers, text and containers of them.

        The optimiser's tensors are the live ones, as in torch: save them before the next epoch.
        """
        own = {"params": self.params.to_flat(), "seconds": self.seconds, "micro_batch": self._micro_batch}
        parts = {name: part.state_dict() for name, part in self._stateful().items()}
        model = {"model": self.model.trained_state(random_too=False), "frozen_sha256": self._frozen_sha256}
        return own | parts | model

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of a trial with the same parameters, settings and number.

        ValueError if the frozen layers (random ones are drawn again from the seed) differ from those that it had.
        """
        assert TrialParams.from_flat(state["params"]) == self.params, "the state of another trial"
        if state["frozen_sha256"] != self._frozen_sha256:
            raise ValueError(
                "the frozen layers are not those that this trial began with: other weights, or another torch"
            )
        self._micro_batch = state["micro_batch"]
        self._spent_s += state["seconds"]
        self.model.load_trained_state(state["model"], random_too=False)
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def save_best(self, weights_path: Path, predictions_path: Path) -> None:
        """Write the trained weights and the validation rows of the predictions; only after an epoch that improved.

        ``weights.pt``, to be read with ``weights_only=True``: ``trained`` (tensors by name), ``frozen_sha256`` of all
        others, and params, task, classes, image_size, channels, epoch, preprocessing.
        """
        assert self.tracker.improved, "the last epoch is not the best"
        content = {
            "trained": self.model.trained_state(),
            "frozen_sha256": self._frozen_sha256,
            "params": self.params.to_flat(),
            "task": self.data.task,
            "classes": list(self.data.classes),
            "image_size": self.data.image_size,
            "channels": self.data.channels,
            "epoch": self.tracker.epoch,
            "preprocessing": PREPROCESSING_VERSION,
        }
        write_checkpoint(weights_path, content)
        self._rows("val", self.data.val, self._probabilities, self.tracker.epoch).write(predictions_path)

    def predict_with(self, weights_path: Path, splits: Iterable[str]) -> dict[str, Predictions]:
        """Predict with the weights that ``save_best`` wrote, in eval mode and without augmentation.

        splits: of "train", "val" and "test" (PermissionError unless the run has opened it). The trial's own weights are
        lost. ValueError if its frozen layers differ from those of the trial that wrote the file.
        """
        content = self._read_best(weights_path)
        self.model.load_trained_state(content["trained"])
        of = {"train": (self.data.train, self._train), "val": (self.data.val, self._val)}
        found = {}
        for split in splits:
            if split == "test":
                test = open_test_split(Path(self.settings.run_dir))
                of[split] = test, self._image_batches(test)
            rows, batches = of[split]
            probabilities = evaluate(self._forward, batches, between_steps=self._check_time).probabilities
            found[split] = self._rows(split, rows, probabilities, content["epoch"])
        return found

    def saved_epoch(self, weights_path: Path) -> int:
        """The epoch, from 1, of the weights that ``save_best`` wrote for this trial; an error if they are damaged.

        It is the best epoch, or the next one if the process was killed before it wrote that one's state; else an error.
        """
        content, best = self._read_best(weights_path), self.tracker.best_epoch
        if TrialParams.from_flat(content["params"]) != self.params:
            raise ValueError(f"{weights_path}: the weights of another trial")
        if content["epoch"] not in (best, self.tracker.epoch + 1):
            raise ValueError(f"{weights_path} is of epoch {content['epoch']}, and the best one is {best}")
        return int(content["epoch"])

    def close(self) -> None:
        """Free network, optimiser and data, so that the process can run another trial; this one is then unusable."""
        own = ("model", "data", "_optimizer", "_schedule", "_forward", "_features", "_train", "_val", "_probabilities")
        for name in own:
            self.__dict__.pop(name, None)
        gc.collect()
        give_back_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _read_best(self, weights_path: Path) -> dict[str, Any]:
        content: dict[str, Any] = read_checkpoint(weights_path, ours=True)
        if content["frozen_sha256"] != self._frozen_sha256:
            raise ValueError(f"{weights_path}: the frozen layers are not those that this network was trained on")
        return content

    def _stateful(self) -> dict[str, Any]:
        return {"best": self.tracker, "optimizer": self._optimizer, "schedule": self._schedule, "random": self._random}

    @functools.cached_property
    def _frozen_sha256(self) -> str:
        """Computed once, as frozen tensors never change."""
        return self.model.frozen_sha256()

    def _find_weights(self) -> FoundWeights:
        # The driver has opened and checked the files. A node without them downloads them and checks their hash.
        name = self.params.backbone
        found, missing = find_weights(self.settings.weights, [name], download=True)
        raise_all(list(missing.values()))
        return dataclasses.replace(found[name], sha256=self.settings.weights_sha256.get(name))

    def _build_model(self) -> FineTunedModel:
        classes, seed = len(self.data.classes), self._random.weights_seed
        of_trunk = trunk_seed(self.settings.seed, self.params.backbone)
        model = build_model(self.params, classes, self._weights, self.data.image_size, seed, of_trunk)
        return model.to(memory_format=torch.channels_last).to(self._device)

    def _frozen_features(self) -> FrozenFeatures | None:
        """The features on which the trial trains; None = it trains on images."""
        settings = self.settings
        stages = stages_kept(self.params, self.model.frozen_stages, settings.cached_stages)
        if not stages:
            return None
        # Features are of the run's own splits, whatever the fold, so that all folds share them.
        own = self.data if settings.splits is None else open_dataset(Path(settings.run_dir))
        return FrozenFeatures(
            self.model,
            stages,
            self._weights.scale,
            self.data.images,
            shared_order(own),
            precision=settings.precision,
            device=self._device,
            place=settings.cache_place,
            between_steps=self._check_time,
        )

    def _batches(self, split: Split) -> Batches:
        if self._features is not None:
            return FeatureBatches(self._features, split.rows, split.labels, self.params.augment)
        return self._image_batches(split)

    def _image_batches(self, split: Split) -> Batches:
        return ImageBatches(
            self.data.images, split.rows, split.labels, self._device, self.params.augment, self._weights.scale
        )

    def _compute_features(self) -> None:
        """Compute at once all that an epoch needs, so that trials that start together share the work."""
        if self._features is not None:
            train, val = (self._features.positions(split.rows) for split in (self.data.train, self.data.val))
            views = {0: np.concatenate([train, val])} | ({1: train} if VIEWS[self.params.augment] == 2 else {})
            self._features.compute(views)

    def _validate(self) -> dict[str, float]:
        found = evaluate(self._forward, self._val, between_steps=self._check_time)
        if not (math.isfinite(found.loss) and np.isfinite(found.probabilities).all()):
            return {}
        self._probabilities = found.probabilities
        self._schedule.after_epoch(found.loss)
        scored = self.data.val.labels, found.probabilities, self.data.classes, self.data.task
        values = evaluate_predictions(*scored, ordered=self.data.ordered)
        return {"val_loss": found.loss} | {f"val_{name}": value for name, value in values.items()}

    def _rows(self, split: str, rows: Split, probabilities: NDArray[np.float32], epoch: int) -> Predictions:
        return Predictions.of_split(split, rows.paths, rows.labels, probabilities, self.data.classes, epoch)

    def _check_time(self) -> None:
        limit = self.settings.time_limit_s
        if limit is not None and self.seconds > limit:
            raise TrialTimeoutError(f"over its time limit of {limit:g} s in epoch {self.tracker.epoch + 1}")

    @contextmanager
    def _on_the_clock(self) -> Iterator[None]:
        self._running_since = time.monotonic()
        try:
            yield
        finally:
            self._spent_s += time.monotonic() - self._running_since
            self._running_since = None


def _checked_loss(params: TrialParams, settings: TrialSettings, data: TrialData) -> Loss:
    """The loss, if these parameters can run on this data set; else ParameterError."""
    problems = model_problems(params, data.image_size)
    count = len(data.train.rows)
    if params.batch_size > count and settings.splits is None:  # A fold with fewer images takes all in one batch.
        problems.append(f"batch_size {params.batch_size} is above the {count} images of the training split")
    with gathered(problems):
        loss = make_loss(params, data.task, data.train.labels, data.classes)
    if problems:
        raise ParameterError(*problems)
    return loss


class BestEpochTracker:
    """Judges one epoch after the other by the selection metric; of equal epochs the earliest is the best.

    epoch, best_epoch: the last and the best one, 0 before the first; best_score: NaN before it. ended: none may follow.
    """

    def __init__(self, settings: TrialSettings) -> None:
        self._settings = settings
        self.epoch, self.best_epoch, self.best_score = 0, 0, math.nan
        self.ended = False

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best so far."""
        return 0 < self.epoch == self.best_epoch

    def broken(self, what: str) -> dict[str, Any]:
        """What the record of an epoch without a usable loss says of the trial. what: the reason, as one sentence."""
        self.epoch += 1
        return self._said("nan", what)

    def judge(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What the record of a complete epoch says of the trial: best_epoch, best_<metric> and perhaps its end.

        UserError if the metric is undefined, as it will be in every epoch.
        """
        self.epoch += 1
        metric, score = self._settings.metric, float(record[self._settings.metric])
        if math.isnan(score):
            raise UserError(
                f"{metric} is undefined on the validation split: a class of no or of all images has no AUROC, average "
                "precision or sensitivity at 90 % specificity: choose another --metric"
            )
        sign = 1 if metric_mode(metric) == "max" else -1
        if self.best_epoch == 0 or sign * score > sign * self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
        waited, patience = self.epoch - self.best_epoch, self._settings.patience
        if self.epoch >= self._settings.epochs:
            return self._said("budget", f"all {self._settings.epochs} epochs done")
        if patience is not None and waited >= patience:
            return self._said("plateau", f"no better {metric} for {waited} epochs")
        return self._said(None, "")

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as numbers."""
        return {name: getattr(self, name) for name in ("epoch", "best_epoch", "best_score", "ended")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        vars(self).update(state)

    def _said(self, end: str | None, reason: str) -> dict[str, Any]:
        self.ended = end is not None
        said = {"best_epoch": self.best_epoch, f"best_{self._settings.metric}": self.best_score}
        return said | ({"done": True, "end": end, "reason": reason} if self.ended else {})


def predict_trial(
    params: TrialParams,
    settings: TrialSettings,
    number: int,
    weights_path: Path,
    splits: tuple[str, ...] = ("train", "val"),
    precision: str | None = None,
) -> Predictions:
    """Complete the predictions of a trial's best epoch: the rows of ``splits``, computed with its saved weights.

    ``predictions.npz`` beside the weights is returned unchanged if it has all splits already; a damaged one counts as
    missing. Existing rows are kept, as scores and thresholds are computed from them: computed again, they may differ by
    ``SAME_PROBABILITY``. ValueError if the weights give others. If ``precision`` is not the trial's, all rows are of
    that precision, on features after the same stages: without mirror images, they take in fp32 at most as many bytes as
    those of a trial in bf16.
    """
    predictions_path = weights_path.with_name(PREDICTIONS_FILE)
    known: Predictions | None = None
    with suppress(Exception):  # a damaged file may raise any error
        known = read_predictions(predictions_path)
    held = [] if known is None else [split for split in splits if split in set(known.split.tolist())]
    if known is not None and len(held) == len(splits):
        return known
    # The time limit is for training, whose results must not be lost to it.
    changes: dict[str, Any] = {"time_limit_s": None}
    if precision not in (None, settings.precision):
        changes |= {"precision": precision}
        held = held if "train" in held else []  # A trial writes only validation rows, in its own precision.
    settings = dataclasses.replace(settings, **changes)
    trial = FinetuneTrial(params, settings, number)
    try:
        parts = trial.predict_with(weights_path, ["val", *(split for split in splits if split not in (*held, "val"))])
        if known is not None:
            difference = float(np.abs(known.of("val").probability - parts["val"].probability).max())
            stays = difference <= SAME_PROBABILITY[settings.precision]
            if known.epoch != parts["val"].epoch or not (stays or "precision" in changes):
                raise ValueError(
                    f"{weights_path}: these weights of epoch {parts['val'].epoch} do not give the validation "
                    f"predictions saved for epoch {known.epoch}; probabilities differ by up to {difference:.2g}"
                )
            kept = {split: known.of(split) for split in held}
            parts |= kept if stays else trial.predict_with(weights_path, [split for split in held if split != "val"])
    finally:
        trial.close()
    whole = join([parts[split] for split in splits])
    whole.write(predictions_path)
    return whole
