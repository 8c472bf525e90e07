"""The baselines on real images, on the demo set, and on sets where one of them must win or fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from trial_settings import trial_settings

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables import baselines
from trainables import batches as batches_module
from trainables.backbones import BACKBONES
from trainables.baselines import (
    STRENGTHS,
    borders,
    coded,
    fit_regression,
    frozen_features,
    measure_baselines,
    read_properties,
    thumbnails,
)
from trainables.batches import ImageBatches, InputScale, normalise
from trainables.data.config import DataConfig
from trainables.data.dataset import Split, TrialData, open_dataset
from trainables.data.prepare import prepare
from trainables.feature_cache import CachePlace
from trainables.finetune import build_model
from trainables.frozen_features import FrozenFeatures, shared_order
from trainables.metrics import evaluate_predictions
from trainables.predictions import read_predictions
from trainables.seeding import trunk_seed
from trainables.weights import FoundWeights, find_weights, load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


NAMES = ["majority", "thumbnails", "borders", "frozen_squeezenet1_1"]
RANDOM = {"squeezenet1_1": FoundWeights(backbone="squeezenet1_1", origin="random")}


def measure(
    data: TrialData, test: Split | None, folder: Path, weights: Mapping[str, FoundWeights] = RANDOM, **shared: Any
) -> dict[str, dict[str, Any]]:
    """The entries of the content by name."""
    properties = shared.pop("properties", {})
    networks: list[FoundWeights | None] = [None, *weights.values()]
    settings = trial_settings("run", **shared)
    parts = [measure_baselines(data, test, network, folder, settings, properties) for network in networks]
    return {entry["name"]: entry for part in parts for entry in part}


def prepared(root: Path, data: Path | str, **request: Any) -> TrialData:
    prepare(DataConfig(data=str(data), **request), root / "run", root / "cache", 1)
    return open_dataset(root / "run")


def frozen(found: FoundWeights, images: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
    """The features that an untouched network has of these images."""
    params = TrialParams(backbone=found.backbone, unfreeze_depth=0)
    model = build_model(params, 1, found, images.shape[-1], seed=0).to(memory_format=torch.channels_last).eval()
    return frozen_features(model, batches(images), precision)


def part_of(data: TrialData, run: Path) -> Split:
    """The test rows of a single-label run: a sweep opens them once, tests of a baseline may look."""
    rows = pd.read_csv(run / "splits.csv").query("split == 'test'")
    labels = np.array([data.classes.index(label) for label in rows["label"]])
    return Split(rows["row"].to_numpy(), labels, rows["path"].tolist())


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    root = tmp_path_factory.mktemp("small")
    prepared(root, small_data, image_size=32)
    return root / "run"


@pytest.fixture
def small(small_run: Path) -> tuple[TrialData, Split]:
    data = open_dataset(small_run)
    return data, part_of(data, small_run)


def test_every_baseline_is_scored_from_the_predictions_that_it_leaves(
    small: tuple[TrialData, Split], tmp_path: Path
) -> None:
    data, test = small
    found = measure(data, test, tmp_path / "baselines")
    assert list(found) == NAMES
    for name, entry in found.items():
        assert entry["failed"] is None
        assert entry["seconds"] >= 0
        saved = read_predictions(tmp_path / "baselines" / f"{name}.npz")
        assert (saved.classes, saved.epoch) == (data.classes, 0)
        for split, rows in (("val", data.val), ("test", test)):
            mine = saved.of(split)
            assert mine.path.tolist() == rows.paths
            np.testing.assert_array_equal(mine.label, rows.labels)
            expected = evaluate_predictions(mine.label, mine.probability, data.classes, data.task)
            assert entry[split] == pytest.approx(expected)
    assert found["thumbnails"]["val"]["accuracy"] > 0.9  # The classes differ in brightness.
    assert found["thumbnails"]["detail"].startswith("logistic regression, C ")
    assert found["frozen_squeezenet1_1"]["detail"].startswith("random weights, logistic regression, C ")


def test_nothing_of_a_closed_test_split_is_scored_or_written(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    found = measure(small[0], None, tmp_path)
    for name in NAMES:
        assert set(read_predictions(tmp_path / f"{name}.npz").split.tolist()) == {"val"}
        assert found[name]["val"] is not None
        assert found[name]["test"] is None


def test_the_test_split_chooses_nothing(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    data, test = small
    wrong = dataclasses.replace(test, labels=(test.labels + 1) % 3)
    with_test, with_wrong, without = (
        measure(data, split, tmp_path / str(turn), {}) for turn, split in enumerate((test, wrong, None))
    )
    for name in NAMES[:3]:
        assert with_test[name]["val"] == with_wrong[name]["val"] == without[name]["val"]
        assert with_test[name]["detail"] == with_wrong[name]["detail"] == without[name]["detail"]
        both = [read_predictions(tmp_path / turn / f"{name}.npz").of("test").probability for turn in "01"]
        np.testing.assert_array_equal(*both)


def test_the_majority_is_that_of_scikit_learns_dummy(small: tuple[TrialData, Split], tmp_path: Path) -> None:
    data, test = small
    kept = np.flatnonzero((data.train.labels != 0) | (np.arange(len(data.train)) < 5))
    data = dataclasses.replace(
        data, train=Split(data.train.rows[kept], data.train.labels[kept], [data.train.paths[i] for i in kept])
    )
    entry = measure(data, test, tmp_path, {})["majority"]
    dummy = DummyClassifier(strategy="prior").fit(data.train.rows, data.train.labels)
    saved = read_predictions(tmp_path / "majority.npz").of("test")
    np.testing.assert_allclose(saved.probability, dummy.predict_proba(test.rows), rtol=1e-6)
    assert entry["test"]["accuracy"] == pytest.approx(dummy.score(test.rows, test.labels))
    assert entry["test"]["auroc_macro"] == 0.5
    assert entry["detail"] == f"always {data.classes[1]}"


def test_a_baseline_that_fails_is_told_with_its_reason_and_the_others_stand(
    small: tuple[TrialData, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(batches: object) -> None:
        raise torch.OutOfMemoryError("too much")

    measure(*small, tmp_path)
    monkeypatch.setattr(baselines, "borders", exhausted)
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    broken = FoundWeights(backbone="resnet18", origin="folder", path=str(tmp_path / "no.pth"))
    too_small = FoundWeights(backbone="convnext_tiny", origin="random")
    images = np.asarray(small[0].images)[:, :, ::2, ::2]
    halved = dataclasses.replace(small[0], images=images, image_size=16)
    found = measure(halved, small[1], tmp_path, {"resnet18": broken, "convnext_tiny": too_small})
    assert [name for name, entry in found.items() if entry["failed"] is None] == ["majority", "thumbnails"]
    assert found["borders"]["failed"] == "out of memory"
    assert "no.pth" in found["frozen_resnet18"]["failed"]
    assert "at least 32 px" in found["frozen_convnext_tiny"]["failed"]
    for name in ("borders", "frozen_resnet18", "frozen_convnext_tiny"):
        assert (found[name]["val"], found[name]["test"]) == (None, None)
        assert not (tmp_path / f"{name}.npz").exists()


def test_a_baseline_whose_predictions_cannot_be_written_has_no_scores(
    small: tuple[TrialData, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(parts: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(baselines, "join", refused)
    entry = measure(*small, tmp_path, {})["majority"]
    assert (entry["val"], entry["test"], entry["failed"]) == (None, None, "OSError: refused")


def test_a_gpu_that_answers_nothing_more_is_no_baselines_failure(
    small: tuple[TrialData, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(batches: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(baselines, "borders", gone)
    with pytest.raises(torch.AcceleratorError):
        measure(*small, tmp_path)
    assert not (tmp_path / "baselines.json").exists()


@pytest.mark.filterwarnings("error")
def test_several_labels_an_image_are_answered_one_by_one(tmp_path: Path) -> None:
    """One label is seen in the border, one in the middle; one, in the end, is on every image."""
    chance = np.random.default_rng(0)
    lines = ["path,split,edge,middle,every"]
    for number in range(90):
        edge, middle = number % 2, number // 2 % 2
        pixels = chance.integers(0, 60, (32, 32))
        pixels[:2] += 150 * edge
        pixels[12:20, 12:20] += 150 * middle
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 60 else "val"
        lines.append(f"{number}.png,{split},{edge},{middle},{number % 3 // 2}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    data = prepared(tmp_path, tmp_path / "all.csv", image_size=32, label_column=("edge", "middle", "every"))
    for part in (data.train, data.val):
        part.labels[:, 2] = 1
    found = measure(data, None, tmp_path / "baselines", {})
    assert found["borders"]["val"]["f1:edge"] == 1
    assert found["borders"]["val"]["auroc:middle"] < 0.9
    assert found["thumbnails"]["val"]["exact_match"] == 1
    assert found["thumbnails"]["val"]["auroc:every"] is None
    majority = read_predictions(tmp_path / "baselines" / "majority.npz")
    np.testing.assert_allclose(majority.probability[0], data.train.labels.mean(axis=0))
    data.train.labels[::2, 0] = np.nan
    measure(data, None, tmp_path / "missing", {})
    majority = read_predictions(tmp_path / "missing" / "majority.npz")
    np.testing.assert_allclose(majority.probability[0], np.nanmean(data.train.labels, axis=0))
    assert (read_predictions(tmp_path / "baselines" / "borders.npz").probability[:, 2] == 1).all()


def test_what_is_known_of_files_and_sources_tells_a_class_that_they_differ_in(tmp_path: Path) -> None:
    lines = ["path,split,label,hospital,sex"]
    rng = np.random.default_rng(0)
    for number in range(90):
        ill, wide = number % 2, number % 3 == 0
        pixels = rng.integers(0, 256, (32, 48 if wide else 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split, label = ("train" if number < 60 else "val"), ("wide" if wide else "narrow")
        lines.append(f"{number}.png,{split},{label},{'north' if wide else 'south'},{'fm'[ill]}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    columns = {"label_column": ("label",), "source_column": "hospital", "subgroup_column": ("sex",)}
    data = prepared(tmp_path, tmp_path / "all.csv", image_size=32, **columns)
    known = read_properties(tmp_path / "run")
    assert list(known["columns"]) == ["subgroup_sex", "source"]
    found = measure(data, None, tmp_path / "baselines", {}, properties=known)
    for name in ("file_properties", "columns"):
        assert found[name]["failed"] is None
        assert found[name]["val"]["accuracy"] == 1, name
    assert found["columns"]["detail"].startswith("subgroup sex, source: logistic regression")
    assert found["borders"]["val"]["accuracy"] < 1
    known["columns"] = known["columns"].drop(columns="source")
    found = measure(data, None, tmp_path / "baselines", {}, properties=known)
    assert found["columns"]["val"]["auroc:wide"] < 0.75, "the sex tells nothing"
    (tmp_path / "run" / "images.csv").unlink()
    assert read_properties(tmp_path / "run") == {}


def test_values_have_places_and_what_is_new_or_missing_has_its_own() -> None:
    train = pd.DataFrame({"n": [1.0, 1.0, 2.0, 4.0], "t": ["a", "a", "b", "c"]})
    part = pd.DataFrame({"n": [1.0, 3.0, 9.0, np.nan], "t": ["a", "b", "new", "c"]})
    found = coded(part, train)
    assert (found.sum(axis=1) == 2).all(), "one place a column"
    edges = np.unique(train["n"].quantile(np.linspace(0, 1, 11)))
    assert found.shape == (4, (len(edges) + 2) + 4)
    assert len(np.unique(found, axis=0)) == 4
    assert found[3, 0] == 1, "missing"
    assert found[2, -4] == 1, "no value of training"


def test_on_the_demo_set_borders_tell_next_to_nothing(tmp_path: Path) -> None:
    data = prepared(tmp_path, "demo", image_size=64)
    found = measure(data, None, tmp_path / "baselines", {})
    assert found["borders"]["val"]["accuracy"] < found["majority"]["val"]["accuracy"] + 0.15


@pytest.mark.long
def test_on_real_x_rays_each_step_towards_a_network_tells_more(shared_dir: Path, tmp_path: Path) -> None:
    manifest = shared_dir / "data" / "xray_a" / "manifest.csv"
    data = prepared(tmp_path, manifest, label_column=("class",), group_column="group_id", image_size=96)
    weights, _ = find_weights(str(shared_dir / "weights"), ["squeezenet1_1"])
    found = measure(data, part_of(data, tmp_path / "run"), tmp_path / "baselines", weights)
    for split in ("val", "test"):
        accuracy = [found[name][split]["accuracy"] for name in ("majority", "borders", "frozen_squeezenet1_1")]
        assert accuracy == sorted(accuracy)
        assert accuracy[0] + 0.05 < accuracy[1]
        assert found["thumbnails"][split]["f1_macro"] > found["borders"][split]["f1_macro"]


def batches(images: np.ndarray) -> ImageBatches:
    return ImageBatches(images, np.arange(len(images)), np.zeros(len(images), dtype=np.int64), torch.device("cpu"))


def noise(count: int, size: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize(("size", "channels", "border"), [(64, 1, 960), (224, 3, 960), (32, 1, 240), (8, 3, 28)])
def test_features_have_the_width_of_their_pixels(size: int, channels: int, border: int) -> None:
    images = noise(3, size, channels)
    assert thumbnails(batches(images)).shape == (3, channels * 256)
    assert borders(batches(images)).shape == (3, channels * border)


@given(size=st.integers(64, 300), brightness=st.integers(0, 255))
@settings(max_examples=20)
def test_a_border_sees_nothing_of_the_inside_of_an_image(size: int, brightness: int) -> None:
    plain = noise(2, size)
    changed = plain.copy()
    inside = -(-size * 6 // 64)  # the frame, and two pixels of the reduced image that antialiasing reaches across
    changed[:, :, inside:-inside, inside:-inside] = brightness
    np.testing.assert_array_equal(borders(batches(plain)), borders(batches(changed)))
    assert not np.array_equal(thumbnails(batches(plain)), thumbnails(batches(changed)))


def test_a_border_sees_each_of_the_four_sides() -> None:
    black = np.zeros((1, 1, 64, 64), dtype=np.uint8)
    for side in (np.s_[..., 0, 30], np.s_[..., -1, 30], np.s_[..., 30, 3], np.s_[..., 30, -4]):
        marked = black.copy()
        marked[side] = 255
        assert borders(batches(marked)).sum() == 1


def test_a_thumbnail_keeps_the_brightness_of_large_patches_alone() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 200
    halves = np.where(np.arange(64) < 32, 50, 150) * np.ones((64, 1))
    first, second = thumbnails(batches(np.stack([checks, halves])[:, None].astype(np.uint8))).reshape(2, 16, 16)
    np.testing.assert_allclose(first[1:-1, 1:-1], 100 / 255, atol=0.01)
    np.testing.assert_allclose(second[:, :6], 50 / 255, atol=1e-6)
    np.testing.assert_allclose(second[:, 10:], 150 / 255, atol=1e-6)


def test_rows_come_in_the_order_of_the_split_whatever_the_batches() -> None:
    images = noise(300, 16)
    whole = thumbnails(batches(images))
    chosen = np.random.default_rng(1).permutation(300)
    some = ImageBatches(images, chosen, chosen, torch.device("cpu"))
    np.testing.assert_array_equal(thumbnails(some), whole[chosen])


def test_frozen_features_are_those_of_torchvisions_own_network_in_eval_mode() -> None:
    found = FoundWeights(backbone="resnet18", origin="random")
    images = noise(40, 64)
    network = load_pretrained(found, seed=0).eval()
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network(normalise(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(frozen(found, images, "fp32"), expected, rtol=1e-3, atol=1e-4)


def test_frozen_features_are_read_from_the_cache_that_trials_share(
    small: tuple[TrialData, Split], tmp_path: Path
) -> None:
    data, test = small
    apart = measure(data, test, tmp_path / "apart")["frozen_squeezenet1_1"]
    place = CachePlace(str(tmp_path / "cache of features"))
    whole = {"squeezenet1_1": [len(BACKBONES["squeezenet1_1"].stages)]}
    first, second = (
        measure(data, test, tmp_path / folder, cached_stages=whole, cache_dir=place.folder)["frozen_squeezenet1_1"]
        for folder in ("first", "second")
    )
    for split in ("val", "test"):
        assert first[split] == second[split]
        assert first[split] == pytest.approx(apart[split], rel=1e-4)
    assert len(list(place.path.iterdir())) == 1, "one view, of training and validation"


def test_frozen_features_begin_with_those_that_are_there(
    small: tuple[TrialData, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that train the last block have left features of the layers before it, and nobody those of all layers."""
    data, _ = small
    apart = measure(data, None, tmp_path / "apart")["frozen_squeezenet1_1"]
    params, found, place = TrialParams(backbone="squeezenet1_1"), RANDOM["squeezenet1_1"], CachePlace(str(tmp_path))
    model = build_model(params, 1, found, data.image_size, seed=0, trunk_seed=trunk_seed(0, "squeezenet1_1"))
    model, device = model.to(memory_format=torch.channels_last).eval(), torch.device("cpu")
    order = shared_order(data)
    early = FrozenFeatures(model, 5, found.scale, data.images, order, precision="fp32", device=device, place=place)
    early.compute({0: np.arange(len(order))})
    monkeypatch.setattr(FrozenFeatures, "_forward", lambda *_: pytest.fail("images were put through frozen layers"))
    kept = {"squeezenet1_1": [5, len(BACKBONES["squeezenet1_1"].stages)]}
    begun = measure(data, None, tmp_path / "begun", cached_stages=kept, cache_dir=place.folder)["frozen_squeezenet1_1"]
    assert not begun["failed"]
    assert begun["val"] == pytest.approx(apart["val"], rel=1e-4)


def test_vggs_features_are_averaged_over_its_positions() -> None:
    found = FoundWeights(backbone="vgg16", origin="random")
    images = noise(2, 64, 3)
    network = load_pretrained(found, seed=0).eval()
    assert isinstance(network, torchvision.models.VGG)
    with torch.inference_mode():
        expected = network.avgpool(network.features(normalise(torch.from_numpy(images)))).mean((2, 3)).numpy()
    features = frozen(found, images, "fp32")
    assert features.shape == (2, 512)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_half_precision_changes_frozen_features_little_and_they_stay_float32() -> None:
    found = FoundWeights(backbone="squeezenet1_1", origin="random")
    exact, rough = (frozen(found, noise(4, 64), name) for name in ("fp32", "bf16"))
    assert exact.dtype == rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_batches_are_halved_until_they_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def narrow(images: torch.Tensor, scale: InputScale) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("as a GPU says it")
        return normalise(images, scale)

    found = FoundWeights(backbone="squeezenet1_1", origin="random")
    expected = frozen(found, noise(40, 32), "fp32")
    monkeypatch.setattr(batches_module, "normalise", narrow)
    features = frozen(found, noise(40, 32), "fp32")
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    assert sizes[:4] == [32, 16, 8, 4]


def test_images_too_small_for_a_network_are_told_as_such() -> None:
    found = FoundWeights(backbone="vgg16", origin="random")
    with pytest.raises(UserError, match="vgg16 needs images of at least 32 px"):
        frozen(found, noise(2, 16), "fp32")


SIZES = {"train": 120, "val": 60, "test": 40}
CLASSES = ("a", "b", "c")


def draw(seed: int = 0, width: int = 20) -> tuple[dict, dict]:
    """Features on different scales, one of them constant, and a noisy class of each."""
    chance = np.random.default_rng(seed)
    direction = chance.normal(size=(width, len(CLASSES)))
    scale = 10.0 ** chance.uniform(-2, 2, width)
    features, labels = {}, {}
    for split, count in SIZES.items():
        plain = chance.normal(size=(count, width))
        plain[:, 0] = 1
        labels[split] = (plain @ direction + 3 * chance.normal(size=(count, len(CLASSES)))).argmax(axis=1)
        features[split] = (plain * scale + 5).astype(np.float32)
    return features, labels


def copied(features: dict) -> dict:
    return {split: matrix.copy() for split, matrix in features.items()}


@pytest.mark.parametrize("seed", range(4))
def test_strength_and_probabilities_are_those_of_plain_scikit_learn(seed: int) -> None:
    features, labels = draw(seed)
    plain = {c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-8)) for c in STRENGTHS}
    for model in plain.values():
        model.fit(features["train"].astype(float), labels["train"])
    scores = {c: f1_score(labels["val"], m.predict(features["val"]), average="macro") for c, m in plain.items()}
    found = fit_regression(copied(features), labels, CLASSES, "single_label")
    assert scores[found.strength] > max(scores.values()) - 0.03  # An image at the boundary may fall to either side.
    assert found.unfinished == ()
    assert set(found.probabilities) == {"val", "test"}
    for split, probabilities in found.probabilities.items():
        expected = plain[found.strength].predict_proba(features[split].astype(float))
        np.testing.assert_allclose(probabilities, expected, atol=5e-3)
        assert probabilities.dtype == np.float32


def test_a_class_that_training_lacks_has_no_probability() -> None:
    features, labels = draw()
    labels["train"] = np.where(labels["train"] == 1, 2, labels["train"])
    found = fit_regression(features, labels, CLASSES, "single_label")
    assert (found.probabilities["test"][:, 1] == 0).all()
    np.testing.assert_allclose(found.probabilities["test"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_each_label_is_fitted_alone_and_one_that_never_changes_stays(threads: int) -> None:
    features, labels = draw()
    present = {split: np.eye(3, dtype=np.float32)[one] for split, one in labels.items()}
    wide = {split: np.insert(matrix, [1, 3], [1, 0], axis=1) for split, matrix in present.items()}
    wide["test"][:, 1] = 0
    found = fit_regression(copied(features), wide, "abcde", "multi_label", threads=threads)
    assert (found.probabilities["test"][:, 1] == 1).all()
    assert (found.probabilities["test"][:, 4] == 0).all()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8))
    for place, column in ((0, 0), (1, 2), (2, 3)):
        model.fit(features["train"].astype(float), present["train"][:, place])
        expected = model.predict_proba(features["test"].astype(float))[:, 1]
        np.testing.assert_allclose(found.probabilities["test"][:, column], expected, atol=5e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_label_is_fitted_and_scored_on_the_images_where_it_is_known(threads: int) -> None:
    features, labels = draw()
    hot = {split: np.eye(3, dtype=np.float32)[one] for split, one in labels.items()}
    chance = np.random.default_rng(3)
    for matrix in hot.values():
        matrix[chance.random(matrix.shape) < 0.3] = np.nan
        matrix[:, 2] = np.nan
    found = fit_regression(copied(features), hot, "abc", "multi_label", threads=threads)
    assert (found.probabilities["test"][:, 2] == 0).all()
    scaler = StandardScaler().fit(features["train"].astype(float))
    for place in (0, 1):
        rows = ~np.isnan(hot["train"][:, place])
        model = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8)
        model.fit(scaler.transform(features["train"].astype(float))[rows], hot["train"][rows, place])
        expected = model.predict_proba(scaler.transform(features["test"].astype(float)))[:, 1]
        np.testing.assert_allclose(found.probabilities["test"][:, place], expected, atol=5e-3)


def test_a_solver_that_does_not_converge_is_noted_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_ITERATIONS", 2)
    found = fit_regression(*draw(), CLASSES, "single_label")
    assert set(found.unfinished) >= {1e-2, 1e-1, 1.0}
    assert np.isfinite(found.probabilities["val"]).all()


def test_of_equal_strengths_the_strongest_penalty_is_taken() -> None:
    labels = {split: np.arange(count) % 3 for split, count in SIZES.items()}
    easy = {split: np.eye(3, dtype=np.float32)[one] for split, one in labels.items()}
    assert fit_regression(easy, labels, CLASSES, "single_label").strength == STRENGTHS[0]


def test_features_that_are_no_numbers_are_refused() -> None:
    features, labels = draw()
    features["train"][3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_regression(features, labels, CLASSES, "single_label")
