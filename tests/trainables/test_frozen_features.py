"""Trials on features of frozen layers: the same results as on images, wherever the features lie."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import EVERY_NETWORK
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from trial_settings import timeless, trial_settings, write_fold

from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables import frozen_features
from trainables.backbones import BACKBONES
from trainables.batches import IMAGENET
from trainables.data.config import DataConfig
from trainables.data.dataset import PREDICTIONS_FILE, open_dataset
from trainables.data.prepare import prepare
from trainables.feature_cache import CachePlace
from trainables.finetune import FineTunedModel, build_model, make_head
from trainables.frozen_features import (
    BATCH,
    FeatureBatches,
    FrozenFeatures,
    features_bytes,
    stage_costs,
    stages_worth_keeping,
    value_bytes,
)
from trainables.seeding import set_determinism
from trainables.trial import FinetuneTrial, TrialSettings, TrialTimeoutError, predict_trial
from trainables.weights import FoundWeights, random_network

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
CPU = torch.device("cpu")
SPLITS = {"train": 24, "val": 8, "test": 4}
BATCH_SIZE, EPOCHS = 4, 5
"""30 steps."""
CLOSE = 1e-4
QUICK = ("squeezenet1_1", "efficientnet_b0")
FAR_BELOW = 1 << 40


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth images, not the same when mirrored, of two classes: a soft blob above or below."""
    root, chance = tmp_path_factory.mktemp("smooth"), np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for split, count in SPLITS.items():
        for index in range(count):
            name = ("above", "below")[index % 2]
            across, down = chance.uniform(0.2, 0.5), chance.uniform(0.2, 0.4) + 0.4 * (index % 2)
            pixels = 40 + 30 * x + 150 * np.exp(-((x - across) ** 2 + (y - down) ** 2) / chance.uniform(0.02, 0.05))
            (root / "images" / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / split / name / f"{index}.png")
    prepare(DataConfig(data=str(root / "images"), image_size=SIZE), root / "run", root / "cache", 1)
    return root / "run"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "features"


@pytest.fixture(autouse=True)
def no_determinism() -> Iterator[None]:
    yield
    set_determinism(False)


def params_of(backbone: str, depth: int = 1, augment: str = "flip", **others: Any) -> TrialParams:
    values = {"head_widths": (8,), "dropout": 0.3, "lr": 1e-4, "batch_size": BATCH_SIZE}
    return TrialParams(backbone=backbone, unfreeze_depth=depth, augment=augment, **(values | others))


def settings_of(run_dir: Path, **changes: Any) -> TrialSettings:
    """``cached_stages``: behind every one of them."""
    every = {name: range(1, len(network.stages) + 1) for name, network in BACKBONES.items()}
    return trial_settings(run_dir, **({"epochs": EPOCHS, "cached_stages": every} | changes))


@dataclasses.dataclass
class Outcome:
    records: list[dict[str, Any]]
    probabilities: np.ndarray
    random: dict[str, torch.Tensor]
    note: str
    on_features: bool

    def assert_close(self, other: Outcome) -> None:
        """Losses and probabilities, and every random draw."""
        for one, two in zip(self.records, other.records, strict=True):
            for name in ("train_loss", "val_loss"):
                assert one[name] == pytest.approx(two[name], abs=CLOSE)
        np.testing.assert_allclose(self.probabilities, other.probabilities, atol=CLOSE, rtol=0)
        assert all(torch.equal(state, other.random[name]) for name, state in self.random.items())

    def assert_same(self, other: Outcome) -> None:
        """To the last bit."""
        assert self.records == other.records
        assert self.probabilities.tobytes() == other.probabilities.tobytes()


def trained(params: TrialParams, settings: TrialSettings, epochs: int | None = None) -> Outcome:
    trial = FinetuneTrial(params, settings, 0)
    records = [timeless(trial.run_epoch()) for _ in range(epochs or settings.epochs)]
    found = Outcome(
        records, trial._probabilities, trial._random.state_dict(), trial.note, isinstance(trial._train, FeatureBatches)
    )
    trial.close()
    return found


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


slowly = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long, id=name) for name in BACKBONE_NAMES]


@pytest.mark.parametrize("backbone", slowly)
def test_a_trial_on_features_is_that_on_images(run_dir: Path, cache: Path, backbone: str) -> None:
    """At a larger learning rate BatchNorm in batches of 4 makes chaos of it: noise of 1e-7 in the pixels, too, moves a
    ResNet-50's loss by 1e-3 in 30 steps. Two epochs of images as they are and mirrored say all of a network."""
    quick = backbone in QUICK
    for augment, views in (("none", 1), ("flip", 2)) if quick else (("flip", 2),):
        params, epochs = params_of(backbone, augment=augment, lr=1e-5), EPOCHS if quick else 2
        plain = trained(params, settings_of(run_dir, cached_stages={}), epochs)
        kept = trained(params, settings_of(run_dir, cache_dir=str(cache)), epochs)
        assert not plain.on_features
        assert kept.on_features
        assert kept.note == ""
        assert len(entries(cache)) == views
        kept.assert_close(plain)


@pytest.mark.parametrize("depth", [0, 2])
def test_the_same_with_the_head_alone_or_two_blocks_training(run_dir: Path, cache: Path, depth: int) -> None:
    params = params_of("mobilenet_v2", depth)
    plain = trained(params, settings_of(run_dir, cached_stages={}))
    trained(params, settings_of(run_dir, cache_dir=str(cache))).assert_close(plain)


def test_an_earlier_boundary_than_the_last_frozen_stage_gives_the_same(run_dir: Path, cache: Path) -> None:
    params = params_of("squeezenet1_1")
    plain = trained(params, settings_of(run_dir, cached_stages={}))
    early = trained(params, settings_of(run_dir, cached_stages={"squeezenet1_1": [5, 9, 12]}, cache_dir=str(cache)))
    assert early.on_features
    early.assert_close(plain)


IN_ITS_OWN_PROCESS = """
import json, sys
from search_spaces.params import TrialParams
from trainables.trial import FinetuneTrial, TrialSettings

values, settings = json.load(sys.stdin)
trial = FinetuneTrial(TrialParams.from_flat(values), TrialSettings(**settings), 0)
print(json.dumps([trial.run_epoch() for _ in range(trial.settings.epochs)]))
"""


@pytest.mark.long
def test_a_process_that_has_trained_others_before_gives_what_a_new_one_gives(run_dir: Path, cache: Path) -> None:
    params, settings = params_of("squeezenet1_1"), settings_of(run_dir, cache_dir=str(cache))
    trained(params_of("squeezenet1_1", 0), settings, 1)
    trained(params_of("squeezenet1_1", 4), settings, 1)
    reused = trained(params, settings)
    shutil.rmtree(cache)
    settings = dataclasses.replace(settings, cached_stages={"squeezenet1_1": [11, 12]})
    passed = json.dumps([params.to_flat(), dataclasses.asdict(settings)])
    command = [sys.executable, "-c", IN_ITS_OWN_PROCESS]
    said = subprocess.run(command, input=passed, capture_output=True, text=True, check=True).stdout
    for one, two in zip(reused.records, json.loads(said), strict=True):
        for name in ("train_loss", "val_loss"):
            assert one[name] == pytest.approx(two[name], abs=CLOSE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_memory_and_on_disk_are_the_same_bits(run_dir: Path, cache: Path, precision: str) -> None:
    params = params_of("squeezenet1_1")
    settings = settings_of(run_dir, precision=precision)
    in_memory = trained(params, settings, 2)
    computed, read = (trained(params, dataclasses.replace(settings, cache_dir=str(cache)), 2) for _ in range(2))
    assert in_memory.on_features
    computed.assert_same(in_memory)
    read.assert_same(in_memory)


def test_resumed_without_its_cache_a_deterministic_trial_has_the_same_records(run_dir: Path, cache: Path) -> None:
    params = params_of("squeezenet1_1", lr=0.01)
    settings = settings_of(run_dir, cache_dir=str(cache), deterministic=True)
    whole = trained(params, settings)
    first = FinetuneTrial(params, settings, 0)
    records = [timeless(first.run_epoch())]
    held = io.BytesIO()
    torch.save(first.state_dict(), held)
    first.close()
    for place in (str(cache), None):
        shutil.rmtree(cache, ignore_errors=True)
        held.seek(0)
        resumed = FinetuneTrial(params, dataclasses.replace(settings, cache_dir=place), 0)
        resumed.load_state_dict(torch.load(held, weights_only=True))
        rest = [timeless(resumed.run_epoch()) for _ in range(EPOCHS - 1)]
        resumed.close()
        assert records + rest == whole.records


def test_a_cache_removed_or_cut_off_while_trials_run_changes_nothing(run_dir: Path, cache: Path) -> None:
    params, settings = params_of("squeezenet1_1"), settings_of(run_dir, cache_dir=str(cache))
    whole = trained(params, settings)
    trial = FinetuneTrial(params, settings, 0)
    records = [timeless(trial.run_epoch())]
    shutil.rmtree(cache)
    records += [timeless(trial.run_epoch()) for _ in range(EPOCHS - 1)]
    trial.close()
    assert records == whole.records


def test_a_place_that_cannot_be_used_is_said_and_changes_nothing(run_dir: Path, cache: Path) -> None:
    params = params_of("squeezenet1_1")
    good = trained(params, settings_of(run_dir), 2)
    cache.write_text("a file")
    unwritable = trained(params, settings_of(run_dir, cache_dir=str(cache)), 2)
    full = trained(params, settings_of(run_dir, cache_dir=str(cache.with_name("other")), cache_bytes=1000), 2)
    for found in (unwritable, full):
        assert found.on_features
        found.assert_same(good)
    assert str(cache) in unwritable.note
    assert "of 0.0 GB are left" in full.note


def test_room_for_one_of_two_views_changes_nothing(run_dir: Path, cache: Path) -> None:
    params = params_of("squeezenet1_1")
    stages = BACKBONES["squeezenet1_1"].stages.index(BACKBONES["squeezenet1_1"].blocks[3][0])
    room = features_bytes("squeezenet1_1", SIZE, stages, sum(SPLITS.values()), "fp32")
    found = trained(params, settings_of(run_dir, cache_dir=str(cache), cache_bytes=int(0.75 * room)), 2)
    assert found.note
    found.assert_same(trained(params, settings_of(run_dir), 2))


def test_a_time_limit_ends_the_computing_and_is_no_fault_of_the_cache(run_dir: Path, cache: Path) -> None:
    trial = FinetuneTrial(params_of("squeezenet1_1"), settings_of(run_dir, cache_dir=str(cache), time_limit_s=1e-9), 0)
    with pytest.raises(TrialTimeoutError):
        trial.run_epoch()
    assert trial.note == ""
    assert not list(cache.rglob("claims/*"))
    trial.close()


def test_folds_share_the_features_of_the_run(run_dir: Path, cache: Path, tmp_path: Path) -> None:
    params, settings = params_of("squeezenet1_1"), settings_of(run_dir, cache_dir=str(cache))
    trained(params, settings, 1)
    before = entries(cache)
    write_fold(run_dir, tmp_path / "fold.csv", every=4)
    fold = dataclasses.replace(settings, splits=str(tmp_path / "fold.csv"))
    kept = trained(params, fold, 2)
    assert entries(cache) == before
    kept.assert_close(trained(params, dataclasses.replace(fold, cached_stages={}), 2))


def test_trials_share_an_entry_unless_what_it_follows_from_differs(run_dir: Path, cache: Path) -> None:
    def more(params: TrialParams, **changes: Any) -> int:
        before = len(entries(cache)) if cache.exists() else 0
        trained(params, settings_of(run_dir, cache_dir=str(cache), **changes), 1)
        return len(entries(cache)) - before

    one = params_of("squeezenet1_1", augment="none")
    assert more(one) == 1
    assert more(dataclasses.replace(one, lr=0.01, head_widths=(), dropout=0.0)) == 0
    assert more(dataclasses.replace(one, augment="flip")) == 1
    assert more(dataclasses.replace(one, unfreeze_depth=2)) == 1
    assert more(one, precision="bf16") == 1
    assert more(one, seed=1) == 1, "random trunks follow from the sweep's seed"
    assert more(one, deterministic=True) == 1


@pytest.mark.parametrize(("precision", "count"), [("fp32", 1), ("bf16", 2)])
def test_cpus_that_multiply_in_bf16_in_other_ways_share_no_entry(
    run_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, precision: str, count: int
) -> None:
    """Of a cluster whose nodes share a home, and of one of which some have AMX."""
    for known in ({"avx512_bf16": True}, {"avx512_bf16": True, "amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        one = params_of("squeezenet1_1", augment="none")
        trained(one, settings_of(run_dir, cache_dir=str(cache), precision=precision), 1)
    assert len(entries(cache)) == count


def test_predictions_of_a_bf16_sweep_in_single_precision_share_features(
    run_dir: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of repeats with the same frozen layers the first puts the images through them, and no other does."""
    params, settings = params_of("squeezenet1_1"), settings_of(run_dir, cache_dir=str(cache), precision="bf16")
    weights, predictions = tmp_path / "weights.pt", tmp_path / PREDICTIONS_FILE
    trial = FinetuneTrial(params, settings, 0)
    trial.run_epoch()
    trial.save_best(weights, predictions)
    trial.close()
    of_the_trial, kept = predictions.read_bytes(), entries(cache)

    def predicted(**changes: Any) -> np.ndarray:
        predictions.write_bytes(of_the_trial)
        changed = dataclasses.replace(settings, **changes)
        return predict_trial(params, changed, 0, weights, ("train", "val"), "fp32").probability

    on_images = predicted(cached_stages={})
    assert entries(cache) == kept
    first = predicted()
    assert len(entries(cache) - kept) == 1, "without mirror images"
    monkeypatch.setattr(FrozenFeatures, "_forward", lambda *_: pytest.fail("images were put through frozen layers"))
    assert (predicted() == first).all()
    np.testing.assert_allclose(first, on_images, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(("depth", "augment"), [(1, "standard"), (4, "flip")])
def test_a_trial_that_has_no_use_for_features_keeps_none(run_dir: Path, cache: Path, depth: int, augment: str) -> None:
    found = trained(params_of("squeezenet1_1", depth, augment), settings_of(run_dir, cache_dir=str(cache)), 1)
    assert not found.on_features
    assert not cache.exists()


def model_of(backbone: str, depth: int = 0) -> FineTunedModel:
    weights = FoundWeights(backbone=backbone, origin="random")
    model = build_model(params_of(backbone, depth), 2, weights, SIZE, seed=0)
    return model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["squeezenet1_1", "swin_t", "vit_b_16"])
def test_rows_come_back_as_the_layers_gave_them(
    run_dir: Path, cache: Path, backbone: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits, type and layout."""
    monkeypatch.setitem(BATCH, "cpu", 8)
    model, data = model_of(backbone, 1), open_dataset(run_dir)
    order = np.sort(np.concatenate([data.train.rows, data.val.rows]))[: BATCH["cpu"]]  # computed as one batch
    place = CachePlace(str(cache))
    features = FrozenFeatures(
        model, model.frozen_stages, IMAGENET, data.images, order, precision=precision, device=CPU, place=place
    )
    everywhere = np.arange(len(order))
    features.compute({0: everywhere, 1: everywhere})
    assert features.note == ""
    for view in (0, 1):
        expected = features._forward(torch.from_numpy(data.images[order]), view)
        found = features.as_inputs(features.rows(view, everywhere).take(everywhere))
        assert torch.equal(found, expected)
        assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    assert not torch.equal(*(features.rows(view, everywhere).take(everywhere) for view in (0, 1)))


@pytest.fixture
def plain_attention() -> Iterator[None]:
    """Without torch's fused layer for inference, whose operations are not counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.usefixtures("plain_attention")
@pytest.mark.parametrize("backbone", EVERY_NETWORK)
def test_costs_are_those_of_a_real_forward(backbone: str) -> None:
    """Of weights that are all 0: what is counted does not hang on them."""
    network = BACKBONES[backbone]
    trunk = network.empty_trunk(SIZE).to_empty(device="cpu")
    for tensor in trunk.state_dict().values():
        tensor.zero_()
    head = make_head(network.feature_width, (), 0.0, 2)
    model = FineTunedModel(network, trunk, head, (), keeps_all=False).eval()
    costs = stage_costs(backbone, SIZE)
    features = torch.zeros(1, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        for stage, cost in enumerate(costs):
            features = model.forward_frozen(features, stage, stage + 1)
            assert (counter.get_total_flops(), features.numel()) == (cost.flops, cost.values)
    assert len(costs) == model.frozen_stages
    assert costs[-1].values == BACKBONES[backbone].feature_width


@pytest.mark.parametrize(
    ("backbone", "gigabytes"), [("resnet18", 4.8), ("vgg16", 9.6), ("resnet50", 19), ("squeezenet1_0", 27)]
)
def test_bytes_of_a_study_before_the_last_block(backbone: str, gigabytes: float) -> None:
    """12,000 images of 224 px in fp32, computed by hand."""
    network = BACKBONES[backbone]
    stages = network.stages.index(network.blocks[3][0])
    found = features_bytes(backbone, 224, stages, 12_000, "fp32") / 1e9
    assert found == pytest.approx(gigabytes, rel=0.03)
    assert features_bytes(backbone, 224, stages, 12_000, "bf16") / 1e9 == pytest.approx(found / 2)


@pytest.mark.parametrize("backbone", ["convnext_tiny", "vit_b_16", "resnet18", "mobilenet_v2"])
def test_bytes_of_a_number_are_those_of_the_type_that_autocast_gives(backbone: str) -> None:
    network = BACKBONES[backbone]
    trunk = network.drop_classifier(random_network(network, 0, 64)).eval()
    features, sizes = torch.zeros(1, 3, 64, 64), set()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for stage in network.stages:
            features = network.run(trunk, stage, features)
            sizes.add(features.element_size())
    assert max(sizes) == value_bytes(backbone, "bf16")


def test_time_is_told_from_the_image_on(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was done before, once for all, and what a trial on features does not do."""
    compute = FrozenFeatures.compute

    def slowly(self: FrozenFeatures, wanted: Any) -> None:
        time.sleep(0.4)
        compute(self, wanted)

    monkeypatch.setattr(FrozenFeatures, "compute", slowly)
    monkeypatch.setattr(FrozenFeatures, "seconds_per_image", 0.5)
    trial = FinetuneTrial(params_of("squeezenet1_1"), settings_of(run_dir), 0)
    record = trial.run_epoch()
    trial.close()
    assert record["epoch_seconds"] >= 0.4
    assert record["inference_ms_per_image"] > 500


def test_what_an_image_takes_through_the_frozen_layers_is_measured_once(run_dir: Path) -> None:
    trial = FinetuneTrial(params_of("squeezenet1_1"), settings_of(run_dir), 0)
    assert trial._features is not None
    taken = trial._features.seconds_per_image
    assert 0 < taken < math.inf
    assert trial._features.seconds_per_image == taken
    trial.close()


def test_the_time_of_frozen_layers_is_that_of_the_batches_in_which_they_run(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight images take a GPU as long as a hundred."""
    monkeypatch.setattr(frozen_features, "_seconds_per_image", {})
    monkeypatch.setitem(frozen_features._TIMED, "cpu", 20)
    monkeypatch.setitem(frozen_features.BATCH, "cpu", 16)
    trial = FinetuneTrial(params_of("squeezenet1_1"), settings_of(run_dir), 0)
    assert trial._features is not None
    sizes: list[int] = []
    forward = trial._features._forward
    monkeypatch.setattr(
        trial._features, "_forward", lambda images, view: sizes.append(len(images)) or forward(images, view)
    )
    assert trial._features.seconds_per_image > 0
    assert sizes == [16, 4] * 2
    trial.close()


def worth(backbone: str = "resnet18", memory_bytes: int = FAR_BELOW, **changes: Any) -> list[int]:
    values: dict[str, Any] = {"images": 1000, "precision": "fp32", "threads": 1, "gpu": False} | changes
    images, precision = values.pop("images"), values.pop("precision")
    return stages_worth_keeping(backbone, 224, images, precision, memory_bytes=memory_bytes, **values)


def test_what_does_not_fit_in_half_of_the_memory_is_not_kept() -> None:
    sizes = {stages: features_bytes("resnet18", 224, stages, 1000, "fp32") for stages in worth()}
    assert sizes[8] < sizes[7] < sizes[6]
    assert worth(memory_bytes=2 * sizes[8] - 1) == []
    assert worth(memory_bytes=2 * sizes[7] - 1) == [8]
    assert worth(memory_bytes=2 * sizes[7]) == [7, 8]
    assert worth(memory_bytes=2 * sizes[7], images=1001) == [8]
    assert worth(memory_bytes=sizes[7], precision="bf16") == [7, 8]


def test_what_is_computed_sooner_than_read_is_not_kept() -> None:
    """VGG's first layer: 87 million multiply-adds for 3.2 million values."""
    assert worth("vgg16", threads=1)[0] > 1
    assert worth("vgg16")[-1] == len(BACKBONES["vgg16"].stages)
    assert set(worth("vgg16", threads=64)) < set(worth("vgg16", threads=1))
    assert worth("vgg16", gpu=True, threads=1) == worth("vgg16", gpu=True, threads=64)
    assert set(worth("vgg16", precision="bf16")) >= set(worth("vgg16"))
