"""Baselines that a sweep's winner must beat: they see no finding or no detail, or train no network."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.backbones import flattened_7x7
from trainables.batches import Batches, ImageBatches
from trainables.data.dataset import IMAGES_FILE, SPLITS_FILE, Split, TrialData
from trainables.engine import EVALUATION_BATCH, map_batches
from trainables.finetune import FineTunedModel, build_model
from trainables.frozen_features import FeatureBatches, FrozenFeatures, shared_order
from trainables.maps import FRAME_OF_SIDE, FRAME_PART
from trainables.metrics import evaluate_predictions, has_class, is_known
from trainables.predictions import Predictions, join
from trainables.seeding import trunk_seed
from trainables.trial import TrialSettings, set_up_process
from trainables.weights import FoundWeights

OUT_OF_MEMORY = "out of memory"
"""Reason of a failure that might not occur if the baseline is measured again."""
THUMBNAIL_SIDE = 16
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of scikit-learn, the inverse of the penalty on squared weights: from strong regularisation to weak."""
MOST_ITERATIONS = 1000
MOST_TEXTS = 20

Features = NDArray[np.float32]
Labels = NDArray[Any]
Probabilities = NDArray[np.float32]
_Answer = tuple[Mapping[str, Probabilities], str]
"""Probabilities, float32 [n, classes], of val and, if open, test; and a description of the method for the reader."""


def measure_baselines(
    data: TrialData,
    test: Split | None,
    network: FoundWeights | None,
    folder: Path,
    settings: TrialSettings,
    properties: Mapping[str, pd.DataFrame],
) -> list[dict[str, Any]]:
    """Measure baselines on the sweep's own images and splits: of ``network``, or, if None, those without a network.

    majority: the class frequencies of the training split, for every image. thumbnails, borders: logistic regression on
    16 x 16 pixels, and on the outermost sixteenth of each side. file_properties, columns: logistic regression on
    properties of the files, and on the images' source and subgroups (``coded``). frozen_<backbone>: logistic regression
    on the features that the unchanged network gives a new head. Details: ``frozen_network`` and ``fit_regression``.

    test: the opened test split, or None while it is closed. folder: gets ``<name>.npz``, the predictions of val and, if
    given, test (epoch 0: nothing was trained by epochs). settings: of the sweep's trials; frozen networks run with them
    and share the trials' features; ``cpus`` labels are fitted at once. properties: "file_properties" and "columns",
    each one row per image, indexed by its row in the image cache; empty ones are not measured.

    Returns the entries of baselines.json: [{name, label, detail, val, test, seconds, failed}]. val, test: the metrics
    of ``evaluate_predictions``, None where undefined; test itself is None while it is closed. failed: None, or why
    there is no result (then val and test are None): a baseline that fails does not stop the others.
    """
    splits = {"train": data.train, "val": data.val} | ({} if test is None else {"test": test})
    by_regression = partial(_by_regression, data, splits, settings.cpus)
    device = set_up_process(settings)

    def of_images(function: Callable[[ImageBatches], Features], split: Split) -> Features:
        return function(ImageBatches(data.images, split.rows, split.labels, torch.device("cpu")))

    def of_network(found: FoundWeights) -> _Answer:
        features = frozen_network(found, data, settings, device)
        return by_regression(features, "random weights, " if found.origin == "random" else "")

    answers: dict[tuple[str, str], Callable[[], _Answer]] = {}
    if network is None:
        answers["majority", "Majority class"] = partial(_by_frequency, data, splits)
        answers["thumbnails", "Thumbnails of 16 x 16 pixels"] = partial(by_regression, partial(of_images, thumbnails))
        answers["borders", "Image borders only"] = partial(by_regression, partial(of_images, borders))
        for name, label in (("file_properties", "File properties"), ("columns", "Source and subgroup columns")):
            if (known := properties.get(name)) is not None and known.shape[1]:
                of = ", ".join(map(str, known)).replace("_", " ") + ": "
                answers[name, label] = partial(by_regression, partial(_coded_split, known, data.train), of)
    else:
        name = network.backbone
        answers[f"frozen_{name}", f"Frozen features of {name}"] = partial(of_network, network)
    return [
        {"name": name, "label": label} | _measured(answer, data, splits, folder / f"{name}.npz")
        for (name, label), answer in answers.items()
    ]


def _measured(
    answer: Callable[[], _Answer], data: TrialData, splits: Mapping[str, Split], path: Path
) -> dict[str, Any]:
    """Run one baseline, write its predictions to ``path``, and return its entry in ``baselines.json``."""
    path.unlink(missing_ok=True)  # If this one fails, an older measurement's predictions must not stay.
    entry: dict[str, Any] = {"detail": "", "val": None, "test": None, "failed": None}
    began_s = time.monotonic()
    try:
        probabilities, detail = answer()
        parts = [
            Predictions.of_split(name, split.paths, split.labels, probabilities[name], data.classes, epoch=0)
            for name, split in splits.items()
            if name != "train"
        ]
        for part in parts:
            values = evaluate_predictions(part.label, part.probability, data.classes, data.task, ordered=data.ordered)
            scores = {key: value if math.isfinite(value) else None for key, value in values.items()}
            entry[str(part.split[0])] = scores
        join(parts).write(path)
        entry["detail"] = detail
    except torch.AcceleratorError:  # Every later GPU call of this process would fail.
        raise
    except Exception as error:
        entry |= {"val": None, "test": None, "failed": _reason(error)}
    return entry | {"seconds": round(time.monotonic() - began_s, 3)}


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return OUT_OF_MEMORY
    return f"{type(error).__name__}: {error}"


def _by_frequency(data: TrialData, splits: Mapping[str, Split]) -> _Answer:
    """Each class with its share of the training split as probability, so the decision is always the same."""
    labels, count = data.train.labels, len(data.classes)
    shares = np.float32(has_class(labels, count).sum(axis=0) / is_known(labels, count).sum(axis=0).clip(1))
    single = data.task == "single_label"
    detail = f"always {data.classes[int(shares.argmax())]}" if single else "each label by its frequency"
    return {name: np.tile(shares, (len(split), 1)) for name, split in splits.items()}, detail


def _by_regression(
    data: TrialData,
    splits: Mapping[str, Split],
    threads: int,
    features: Callable[[Split], Features],
    of: str = "",
) -> _Answer:
    """``fit_regression`` on the ``features`` of each split. of: the beginning of the description."""
    found = fit_regression(
        {name: features(split) for name, split in splits.items()},
        {name: split.labels for name, split in splits.items()},
        data.classes,
        data.task,
        threads=threads,
    )
    detail = f"{of}logistic regression, C {found.strength:g} chosen on validation"
    if found.unfinished:
        detail += f"; not converged at C {', '.join(f'{strength:g}' for strength in found.unfinished)}"
    return found.probabilities, detail


def thumbnails(data: ImageBatches) -> Features:
    """float32 [N, channels x 16 x 16] in 0..1: brightness in large patches, too coarse to show a finding."""
    return _gathered(data, lambda indices: _reduced(data.images(indices), THUMBNAIL_SIDE))


def borders(data: ImageBatches) -> Features:
    """float32 [N, channels x pixels of the frame] in 0..1: the outermost sixteenth of each side, and nothing inside.

    The image is reduced to 64 x 64 first, so the frame is 4 pixels wide and has 960 pixels.
    """

    def frame(indices: NDArray[np.int64]) -> Tensor:
        images = data.images(indices)
        side = min(FRAME_OF_SIDE, images.shape[-1])  # A smaller image keeps its size.
        width = max(1, round(side * FRAME_PART))
        outside = torch.ones(side, side, dtype=torch.bool, device=images.device)
        outside[width:-width, width:-width] = False
        return _reduced(images, side)[:, :, outside]

    return _gathered(data, frame)


def read_properties(run_dir: Path) -> dict[str, pd.DataFrame]:
    """``properties`` for ``measure_baselines``, from the files of ``prepare``: file_properties from images.csv, columns
    from images.csv and splits.csv. Empty for runs of earlier versions, which have no images.csv."""
    path = run_dir / IMAGES_FILE
    if not path.exists():
        return {}
    text, missing = {"mode": str, "source": str}, {"jpeg_quality": [""]}
    images = pd.read_csv(path, index_col="row", dtype=text, keep_default_na=False, na_values=missing)
    files = images[["width", "height", "mode", "bits", "jpeg_quality"]]
    columns = pd.read_csv(run_dir / SPLITS_FILE, index_col="row", dtype=str, keep_default_na=False)
    columns = columns.set_axis(columns.index.astype(np.int64)).filter(regex="^subgroup_")
    columns = columns.join(images.filter(["source"]))
    return {"file_properties": files.assign(aspect=files["width"] / files["height"]), "columns": columns}


def coded(known: pd.DataFrame, train: pd.DataFrame) -> Features:
    """One-hot codes, float32 [N, d] of 0 and 1: a place for each value of each column, so that no order is assumed.

    Numbers are binned by the deciles of ``train``, text by its 20 most frequent values there. Missing numbers, and all
    rarer text, have a place of their own.
    """
    places = []
    for name, column in known.items():
        of_train = train[name]
        if pd.api.types.is_numeric_dtype(column):
            edges = np.unique(of_train.dropna().quantile(np.linspace(0, 1, 11)))
            codes = np.where(column.isna(), -1, np.searchsorted(edges, column))
            count = len(edges) + 1
        else:
            frequent = of_train.value_counts().index[:MOST_TEXTS]
            codes, count = frequent.get_indexer(pd.Index(column)), len(frequent)
        places.append(codes[:, None] == np.arange(-1, count))
    return np.concatenate(places, axis=1).astype(np.float32)


def _coded_split(known: pd.DataFrame, train: Split, split: Split) -> Features:
    return coded(known.loc[split.rows], known.loc[train.rows])


def frozen_network(
    found: FoundWeights, data: TrialData, settings: TrialSettings, device: torch.device
) -> Callable[[Split], Features]:
    """A function from a split to a new head's inputs, by the unchanged network in eval mode, without augmentation.

    Training and validation start from features that the sweep's trials share, if such are kept: of those in the cache
    already, the ones after the most stages; if there are none, the ones after all stages.
    """
    params = TrialParams(backbone=found.backbone, unfreeze_depth=0)
    of_trunk = trunk_seed(settings.seed, found.backbone)
    model = build_model(params, 1, found, data.image_size, seed=0, trunk_seed=of_trunk)
    model = model.to(memory_format=torch.channels_last).to(device).eval()
    whole, order, precision, place = model.frozen_stages, shared_order(data), settings.precision, settings.cache_place
    kept = [
        FrozenFeatures(model, stages, found.scale, data.images, order, precision=precision, device=device, place=place)
        for stages in sorted(settings.cached_stages.get(found.backbone, ()), reverse=True)
        if stages <= whole
    ]
    shared = next((one for one in kept if one.at_hand()), next((one for one in kept if one.stages == whole), None))

    def features(split: Split) -> Features:
        if shared is not None and (split is data.train or split is data.val):
            return frozen_features(model, FeatureBatches(shared, split.rows, split.labels), precision)
        images = ImageBatches(data.images, split.rows, split.labels, device, scale=found.scale)
        return frozen_features(model, images, precision)

    return features


def frozen_features(model: FineTunedModel, data: Batches, precision: str) -> Features:
    """float32 [N, width]: the inputs of the head of ``model``, in eval mode, from images or intermediate features.

    VGG's 25088 numbers, 512 channels at 7 x 7 positions, are averaged over the positions: a regression on all of them
    would take hours, and most other networks give means, too. If GPU memory runs out, batches are halved.
    """
    positions = 49 if model.backbone.to_vector is flattened_7x7 else 1

    def features(indices: NDArray[np.int64]) -> Tensor:
        inputs, _ = data.batch(indices)
        with torch.autocast(data.device.type, torch.bfloat16, enabled=precision == "bf16"):
            vectors = model.forward_frozen(inputs, data.stages)
        return vectors.float().reshape(len(vectors), -1, positions).mean(2)

    return _gathered(data, features)


def _gathered(data: Batches, function: Callable[[NDArray[np.int64]], Tensor]) -> Features:
    """``function`` of the indices of all images, batch by batch, flattened; only its results are held together."""
    size = EVALUATION_BATCH[data.device.type]
    return torch.cat(map_batches(lambda indices: function(indices).flatten(1).cpu(), len(data), size)).numpy()


def _reduced(images: Tensor, side: int) -> Tensor:
    """uint8 [B, C, S, S] -> float32 [B, C, side, side] in 0..1, antialiased."""
    return functional.interpolate(images.float() / 255, size=(side, side), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Regression:
    """strength: the chosen C. probabilities: float32 [n, classes], by split, for all splits but train.

    unfinished: the strengths at which the solver did not converge; its last weights are used.
    """

    strength: float
    probabilities: dict[str, Probabilities]
    unfinished: tuple[float, ...]


def fit_regression(
    features: Mapping[str, Features],
    labels: Mapping[str, Labels],
    classes: Sequence[str],
    task: str,
    *,
    threads: int = 1,
) -> Regression:
    """Fit on "train", choose C by the macro F1 of "val" (ties: the strongest penalty), predict all other splits.

    features: float32 [n, d] by split, overwritten: standardised by mean and standard deviation of "train". labels:
    int64 [n], or [n, classes] of 0, 1, NaN: then one regression per label, on the images whose label is known, all with
    the same C.
    L-BFGS; each C starts from the weights of the previous one, which saves most of the work and has the same optimum.
    threads: labels fitted at once. ValueError if features are not finite.
    """
    scaler = StandardScaler(copy=False).fit(features["train"])
    scaled = {split: scaler.transform(matrix) for split, matrix in features.items()}
    models = _Regressions(labels["train"], len(classes), threads)
    chosen: dict[str, Any] = {}
    best, unfinished = -1.0, []
    for strength in STRENGTHS:
        if not models.fit(scaled["train"], strength):
            unfinished.append(strength)
        val = models.predict(scaled["val"])
        score = evaluate_predictions(labels["val"], val, classes, task)["f1_macro"]
        if score > best:  # true for the first strength: a macro F1 is never below 0
            others = {
                split: models.predict(matrix) for split, matrix in scaled.items() if split not in ("train", "val")
            }
            chosen, best = {"strength": strength, "probabilities": {"val": val, **others}}, score
    return Regression(**chosen, unfinished=tuple(unfinished))


class _Regressions:
    """One multinomial regression (single label), or one per label, on the images whose label is known. A label that all
    or none of them have is predicted with probability 1 or 0 for every image.
    """

    def __init__(self, labels: Labels, class_count: int, threads: int) -> None:
        self._class_count, self._threads, self._single = class_count, threads, labels.ndim == 1
        known = is_known(labels, 1)
        known[0, ~known.any(axis=0)] = True  # a label that is known for no image counts as absent
        self._rows = [np.flatnonzero(column) for column in known.T]
        hot = labels[:, None] if self._single else (labels == 1).astype(np.int64)
        self._columns = [column[rows] for column, rows in zip(hot.T, self._rows, strict=True)]
        self._models = [
            DummyClassifier(strategy="prior")
            if not self._single and column.min() == column.max()
            else LogisticRegression(max_iter=MOST_ITERATIONS, warm_start=True)
            for column in self._columns
        ]

    def fit(self, features: Features, strength: float) -> bool:
        """Fit all of them; return whether all converged.

        BLAS gets one thread: each of the thousand short steps would wait for all threads, which takes 50 times as long
        if other processes use the processor, and saves hardly any time if none do.
        """

        def fit(model: Any, rows: NDArray[np.int64], column: Labels) -> None:
            if isinstance(model, LogisticRegression):
                model.set_params(C=strength)
            model.fit(features if len(rows) == len(features) else features[rows], column)

        with (
            warnings.catch_warnings(record=True) as caught,
            threadpool_limits(limits=1, user_api="blas"),
            ThreadPoolExecutor(self._threads) as pool,
        ):
            warnings.simplefilter("always", ConvergenceWarning)
            list(pool.map(fit, self._models, self._rows, self._columns))
        return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)

    def predict(self, features: Features) -> Probabilities:
        """float32 [n, classes]; 0 for a class that the training split lacks."""
        if self._single:
            whole = np.zeros((len(features), self._class_count), dtype=np.float32)
            whole[:, self._models[0].classes_] = self._models[0].predict_proba(features)
        else:
            columns = [model.predict_proba(features)[:, model.classes_ == 1].sum(axis=1) for model in self._models]
            whole = np.stack(columns, axis=1).astype(np.float32)
        return whole.clip(0, 1)
