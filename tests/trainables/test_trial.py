"""Whole trials on a small data set, from prepared images to predictions on disk."""

import dataclasses
import gc
import io
import json
import math
import mmap
import platform
import shutil
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from trial_settings import timeless, trial_settings, write_fold

from search_spaces.errors import ParameterError, UserError
from search_spaces.params import TrialParams
from trainables.atomic import sha256_of
from trainables.backbones import BACKBONES
from trainables.data.config import DataConfig
from trainables.data.dataset import TEST_ACCESS_FILE, open_dataset
from trainables.data.prepare import prepare
from trainables.metrics import evaluate_predictions, metric_names
from trainables.predictions import read_predictions
from trainables.trial import BestEpochTracker, FinetuneTrial, TrialTimeoutError, predict_trial

SIZES = {"train": 15, "val": 8, "test": 3}
SMALL = {"backbone": "squeezenet1_1", "unfreeze_depth": 0, "batch_size": 8, "lr": 0.01}


def draw(path, rng, bright):
    """Noise, with a bright patch in the upper half or the lower half: a class that a small network can learn."""
    pixels = rng.integers(0, 120, (40, 40))
    row = rng.integers(2, 10) + (0 if bright else 20)
    pixels[row : row + 10, 5:35] += 110
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Two classes, one channel, 32 px, by folders."""
    root, rng = tmp_path_factory.mktemp("single"), np.random.default_rng(0)
    for split, count in SIZES.items():
        for name, bright in (("high", True), ("low", False)):
            for index in range(count):
                draw(root / "images" / split / name / f"{index}.png", rng, bright)
    prepare(DataConfig(data=str(root / "images"), image_size=32), root / "run", root / "cache", 1)
    return root / "run"


@pytest.fixture(scope="module")
def multi_label_run_dir(tmp_path_factory):
    """Two labels, each present or not, by a manifest."""
    root, rng = tmp_path_factory.mktemp("multi"), np.random.default_rng(1)
    lines = ["path,split,high,often"]
    for split, count in SIZES.items():
        for index in range(2 * count):
            bright = bool(index % 2)
            draw(root / f"{split}_{index}.png", rng, bright)
            lines.append(f"{split}_{index}.png,{split},{int(bright)},{int(index % 3 > 0)}")
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    request = DataConfig(data=str(root / "all.csv"), image_size=32, label_column=("high", "often"))
    prepare(request, root / "run", root / "cache", 1)
    return root / "run"


@pytest.fixture
def make(run_dir):
    """A trial of this test; all are closed after it."""
    trials = []

    def make(params, number=0, **settings):
        trials.append(FinetuneTrial(TrialParams(**params), trial_settings(run_dir, **settings), number))
        return trials[-1]

    yield make
    for trial in trials:
        trial.close()


def run(trial, epochs):
    return [timeless(trial.run_epoch()) for _ in range(epochs)]


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "params",
    [
        {
            "backbone": "squeezenet1_1",
            "unfreeze_depth": 4,
            "dropout": 0.5,
            "augment": "flip",
            "optimizer": "adamw",
            "lr": 0.002,
            "lr_schedule": "plateau",
            "loss": "bce",
            "class_weights": "balanced",
        },
        {
            "backbone": "mobilenet_v2",
            "unfreeze_depth": 2,
            "head_widths": (16,),
            "dropout": 0.3,
            "augment": "standard",
            "lr_schedule": "cosine",
            "weight_decay": 1e-3,
            "loss": "focal",
        },
    ],
    ids=lambda params: params["backbone"],
)
def test_two_and_two_epochs_through_a_checkpoint_are_four_epochs_to_the_last_bit(make, params):
    params = {"batch_size": 8, "lr": 0.02} | params
    whole, first, second = (make(params, deterministic=True) for _ in range(3))
    expected = run(whole, 4)
    found = run(first, 2)
    second.load_state_dict(through_a_file(first.state_dict()))
    found += run(second, 2)
    assert found == expected
    assert same(second.model.trained_state(), whole.model.trained_state())
    assert expected[-1]["end"] == "budget"
    assert not any("done" in record for record in expected[:-1])


def test_seed_and_number_decide_everything_and_other_trials_in_the_process_nothing(make):
    params = SMALL | {"dropout": 0.5, "augment": "standard", "unfreeze_depth": 4}
    alone = run(make(params), 2)
    one, other = make(params), make(params, number=1)
    beside = [(run(one, 1)[0], run(other, 1)[0]) for _ in range(2)]
    assert [pair[0] for pair in beside] == alone
    assert beside[0][1]["train_loss"] != alone[0]["train_loss"]
    assert run(make(params, seed=5), 1)[0]["train_loss"] != alone[0]["train_loss"]


def test_trials_of_a_sweep_share_a_random_trunk_and_no_head(make):
    one, other, elsewhere = make(SMALL), make(SMALL, number=1), make(SMALL, seed=1)
    assert one.model.frozen_sha256() == other.model.frozen_sha256() != elsewhere.model.frozen_sha256()
    assert not torch.equal(one.model.head[-1].weight, other.model.head[-1].weight)


def test_a_network_learns_what_can_be_seen(make):
    params = {"backbone": "resnet18", "unfreeze_depth": 4, "lr": 0.02, "batch_size": 6}
    records = run(make(params, epochs=8), 8)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert records[-1]["best_val_f1_macro"] > 0.8


def test_a_record_holds_plain_numbers_under_every_promised_name(make):
    trial = make(SMALL | {"lr_schedule": "cosine"}, epochs=2)
    record = trial.run_epoch()
    assert set(metric_names(("high", "low"), "single_label")) <= set(record)
    others = {"epoch", "train_loss", "train_accuracy", "val_defined_classes", "lr", "best_epoch", "best_val_f1_macro"}
    others |= {"epoch_seconds", "images_per_second", "inference_ms_per_image", "trainable_params", "total_params"}
    assert others == set(record) - set(metric_names(("high", "low"), "single_label"))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["trainable_params"] == 512 * 2 + 2
    assert record["lr"] == 0.01
    assert trial.run_epoch()["lr"] == pytest.approx(0.005)


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_networks_see_the_input_range_of_their_weights_in_training_and_validation(make, tmp_path, augment):
    torch.save(BACKBONES["squeezenet1_1"].network().state_dict(), tmp_path / "mine.pt")
    weights = f"squeezenet1_1={tmp_path / 'mine.pt'},range=-1024:1024"
    trial = make(SMALL | {"augment": augment}, weights=weights)
    seen = []
    trial.model.register_forward_pre_hook(lambda model, inputs: seen.append((model.training, inputs[0].clone())))
    trial.run_epoch()
    assert {training for training, _ in seen} == {True, False}
    for _, inputs in seen:
        assert inputs.min() == pytest.approx(-1024, abs=0.2 * 2048)
        assert inputs.max() == pytest.approx(1024, abs=0.2 * 2048)
        assert inputs.abs().max() <= 1024.01
    validated = torch.cat([inputs for training, inputs in seen if not training])
    pixels = torch.from_numpy(trial.data.images[trial.data.val.rows]).expand(-1, 3, -1, -1)
    torch.testing.assert_close(validated, pixels / 255 * 2048 - 1024, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("epochs", "deterministic", "expected"), [(4, False, False), (10**6, False, True), (10**6, True, False)]
)
def test_algorithms_are_tried_where_a_long_training_repays_it(make, epochs, deterministic, expected):
    """The first epoch on 785 X-rays took a GPU 40 s, each other one 1.2 s."""
    trial = make({"backbone": "squeezenet1_1", "batch_size": 8}, epochs=epochs, deterministic=deterministic)
    seen = []
    trial.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    trial.run_epoch()
    assert seen[0] is expected
    assert not seen[-1]


def test_what_is_frozen_stays_as_it_was(make):
    trial = make({"backbone": "mobilenet_v2", "unfreeze_depth": 1, "batch_size": 8, "lr": 0.1})
    before = trial.model.frozen_sha256()
    trial.run_epoch()
    assert trial.model.frozen_sha256() == before


def train_and_keep(trial, folder):
    records = []
    while not records or not records[-1].get("done"):
        records.append(trial.run_epoch())
        if trial.tracker.improved:
            trial.save_best(folder / "weights.pt", folder / "predictions.npz")
    return records


def test_the_files_hold_the_best_epoch_and_its_score_follows_from_them(make, run_dir, tmp_path):
    params = {"backbone": "squeezenet1_1", "unfreeze_depth": 4, "lr": 0.02, "batch_size": 8, "dropout": 0.5}
    trial = make(params, epochs=5)
    last = train_and_keep(trial, tmp_path)[-1]
    saved = read_predictions(tmp_path / "predictions.npz")
    assert set(saved.split) == {"val"}
    assert saved.epoch == last["best_epoch"]
    assert sorted(saved.path) == sorted(trial.data.val.paths)
    values = evaluate_predictions(saved.label, saved.probability, saved.classes, "single_label")
    assert values["f1_macro"] == last["best_val_f1_macro"]

    whole = predict_trial(TrialParams(**params), trial_settings(run_dir, epochs=5), 0, tmp_path / "weights.pt")
    again = read_predictions(tmp_path / "predictions.npz")
    assert again.path.tolist() == whole.path.tolist()
    assert [int((again.split == split).sum()) for split in ("train", "val")] == [30, 16]
    assert (again.of("val").probability == saved.probability).all()
    assert again.of("train").path.tolist() == trial.data.train.paths


def test_complete_predictions_are_not_computed_again_unless_they_are_damaged(make, run_dir, tmp_path):
    train_and_keep(make(SMALL, epochs=1), tmp_path)
    arguments = (TrialParams(**SMALL), trial_settings(run_dir, time_limit_s=1e-9), 0, tmp_path / "weights.pt")
    predict_trial(*arguments)
    (tmp_path / "predictions.npz").write_bytes(b"damaged")
    predict_trial(*arguments)
    (tmp_path / "weights.pt").unlink()
    assert len(predict_trial(*arguments).path) == 46


def test_weights_that_do_not_give_the_saved_predictions_are_refused(make, run_dir, tmp_path):
    params = SMALL | {"unfreeze_depth": 4, "lr": 0.05}
    trial = make(params)
    trial.run_epoch()
    trial.save_best(tmp_path / "weights.pt", tmp_path / "predictions.npz")
    content = torch.load(tmp_path / "weights.pt", weights_only=True)
    content["trained"]["head.1.bias"] += torch.tensor([3.0, -3.0])
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="do not give the validation predictions"):
        predict_trial(TrialParams(**params), trial_settings(run_dir), 0, tmp_path / "weights.pt")


def test_weights_on_top_of_other_frozen_layers_are_refused(make, run_dir, tmp_path):
    train_and_keep(make(SMALL, epochs=1), tmp_path)
    with pytest.raises(ValueError, match="frozen layers are not those"):
        predict_trial(TrialParams(**SMALL), trial_settings(run_dir, seed=1), 0, tmp_path / "weights.pt")


def test_the_best_epoch_survives_a_restore_after_which_nothing_improves(make, tmp_path):
    first, second = (make(SMALL, patience=1, epochs=9) for _ in range(2))
    best = first.run_epoch()
    first.save_best(tmp_path / "weights.pt", tmp_path / "predictions.npz")
    state = through_a_file(first.state_dict())
    state["best"]["best_score"] = 2.0  # Out of reach.
    second.load_state_dict(state)
    record = second.run_epoch()
    assert (record["best_epoch"], record["best_val_f1_macro"], record["end"]) == (1, 2.0, "plateau")
    assert not second.tracker.improved
    assert read_predictions(tmp_path / "predictions.npz").epoch == best["epoch"]


def test_a_loss_that_explodes_ends_the_trial_and_says_where(make):
    trial = make(SMALL | {"lr": 1000.0, "unfreeze_depth": 4})
    records = []
    while not records or not records[-1].get("done"):
        records.append(trial.run_epoch())
    assert records[-1]["end"] == "nan"
    assert "lr 1000" in records[-1]["reason"]
    assert "epoch 1" in records[-1]["reason"]
    assert not trial.tracker.improved
    assert "val_f1_macro" not in records[-1]


def test_a_trial_over_its_time_limit_stops_between_two_steps(make):
    trial = make(SMALL, time_limit_s=1e-9)
    with pytest.raises(TrialTimeoutError, match="time limit of 1e-09 s in epoch 1"):
        trial.run_epoch()


def test_time_spent_before_a_restore_counts(make):
    first, second = make(SMALL), make(SMALL)
    first.run_epoch()
    state = first.state_dict()
    state["seconds"] += 1000.0
    second.load_state_dict(state)
    assert second.seconds > 1000


def test_a_fold_of_fewer_images_than_the_batch_is_trained_on_all_at_once(run_dir, tmp_path):
    """The search ran on the run's own split, which may have more."""
    images = write_fold(run_dir, tmp_path / "fold.csv", every=2)
    params = TrialParams(**(SMALL | {"batch_size": images // 2 + 1}))
    trial = FinetuneTrial(params, trial_settings(run_dir, splits=str(tmp_path / "fold.csv"), epochs=1), 0)
    assert trial.run_epoch()["end"] == "budget"
    trial.close()


def test_all_that_cannot_run_on_this_data_is_said_at_once(multi_label_run_dir):
    params = TrialParams(backbone="squeezenet1_1", batch_size=100, unfreeze_depth=None, unfreeze_layers=("feature.1",))
    with pytest.raises(ParameterError) as caught:
        FinetuneTrial(params, trial_settings(multi_label_run_dir), 0)
    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "batch_size 100 is above the 30 images" in said
    assert "use bce or focal" in said
    assert "'feature.1'" in said


def test_images_below_the_backbones_minimum_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for split in SIZES:
        for index in range(4):
            draw(tmp_path / "images" / split / ("high", "low")[index % 2] / f"{index}.png", rng, index % 2 == 0)
    prepare(DataConfig(data=str(tmp_path / "images"), image_size=8), tmp_path / "run", tmp_path / "cache", 1)
    with pytest.raises(UserError, match="at least 17 px"):
        FinetuneTrial(TrialParams(backbone="squeezenet1_1", batch_size=2), trial_settings(tmp_path / "run"), 0)


def test_several_labels_an_image_end_to_end(multi_label_run_dir, tmp_path):
    params = TrialParams(**(SMALL | {"loss": "focal", "class_weights": "balanced", "unfreeze_depth": 4}))
    settings = trial_settings(multi_label_run_dir, epochs=2)
    trial = FinetuneTrial(params, settings, 0)
    last = train_and_keep(trial, tmp_path)[-1]
    trial.close()
    assert set(metric_names(("high", "often"), "multi_label")) <= set(last)
    assert last["val_exact_match"] <= last["val_hamming_accuracy"]
    whole = predict_trial(params, settings, 0, tmp_path / "weights.pt")
    assert whole.label.shape == whole.probability.shape == (46, 2)
    assert whole.of("val").label.sum(axis=0).tolist() == [8, 10]


def test_a_finalist_of_a_bf16_sweep_is_predicted_in_single_precision(run_dir, tmp_path):
    params = TrialParams(**(SMALL | {"unfreeze_depth": 4}))
    settings = trial_settings(run_dir, epochs=1, precision="bf16")
    trial = FinetuneTrial(params, settings, 0)
    train_and_keep(trial, tmp_path)
    trial.close()
    kept = read_predictions(tmp_path / "predictions.npz")
    trained = kept.of("val").probability
    as_trained = predict_trial(params, settings, 0, tmp_path / "weights.pt", ("train", "val")).of("val").probability
    assert (as_trained == trained).all()
    # As far from single precision as steep networks are: that is no sign of other weights.
    dataclasses.replace(kept, probability=1 - kept.probability).write(tmp_path / "predictions.npz")
    single = predict_trial(params, settings, 0, tmp_path / "weights.pt", ("train", "val"), "fp32").of("val").probability
    other = FinetuneTrial(params, trial_settings(run_dir, epochs=1), 0)
    expected = other.predict_with(tmp_path / "weights.pt", ("val",))["val"].probability
    other.close()
    assert (single == expected).all()
    assert (single != trained).any()


@pytest.mark.parametrize("completed_in", ["fp32", "bf16"])
def test_rows_of_the_precision_that_is_asked_for_stay_when_the_test_split_is_added(
    run_dir, tmp_path, monkeypatch, completed_in
):
    run = shutil.copytree(run_dir, tmp_path / "run")
    (run / TEST_ACCESS_FILE).parent.mkdir()
    (run / TEST_ACCESS_FILE).write_text("opened\n")
    params, settings = TrialParams(**(SMALL | {"unfreeze_depth": 4})), trial_settings(run, epochs=1, precision="bf16")
    trial = FinetuneTrial(params, settings, 0)
    train_and_keep(trial, tmp_path)
    trial.close()
    known = predict_trial(params, settings, 0, tmp_path / "weights.pt", ("train", "val"), completed_in)
    if completed_in == "fp32":  # A GPU that computes the same again gives other last digits.
        known = dataclasses.replace(known, probability=known.probability + 1e-6)
    else:  # As far from single precision as steep networks are.
        known = dataclasses.replace(known, probability=1 - known.probability)
    known.write(tmp_path / "predictions.npz")
    computed, predict_with = [], FinetuneTrial.predict_with

    def counted(self, weights_path, splits):
        computed.extend(splits)
        return predict_with(self, weights_path, splits)

    monkeypatch.setattr(FinetuneTrial, "predict_with", counted)
    after = predict_trial(params, settings, 0, tmp_path / "weights.pt", ("train", "val", "test"), "fp32")
    assert computed == ["val", "test"] + ["train"] * (completed_in == "bf16")
    assert list(dict.fromkeys(after.split.tolist())) == ["train", "val", "test"]
    for split in ("train", "val"):
        assert (after.of(split).probability == known.of(split).probability).all() == (completed_in == "fp32")


def test_missing_labels_end_to_end(multi_label_run_dir, tmp_path):
    shutil.copytree(multi_label_run_dir, tmp_path / "run")
    splits = tmp_path / "run" / "splits.csv"
    rows = pd.read_csv(splits, dtype=str, keep_default_na=False).to_dict("records")
    for place, row in enumerate(rows):
        names = ["often"] if place % 4 == 0 else ["high", "often"] if place % 7 == 0 else []
        row["missing"] = "|".join(names)
        row["label"] = "|".join(name for name in row["label"].split("|") if name not in names)
    pd.DataFrame(rows).to_csv(splits, index=False)
    described = json.loads((tmp_path / "run" / "dataset.json").read_text())
    described["sha256"]["splits.csv"] = sha256_of(splits)
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(described))
    params = TrialParams(**(SMALL | {"loss": "bce", "class_weights": "balanced", "unfreeze_depth": 4}))
    settings = trial_settings(tmp_path / "run", epochs=1)
    trial = FinetuneTrial(params, settings, 0)
    record = train_and_keep(trial, tmp_path)[-1]
    trial.close()
    saved = predict_trial(params, settings, 0, tmp_path / "weights.pt").of("val")
    expected = {row["path"]: set(row["missing"].split("|")) - {""} for row in rows if row["split"] == "val"}
    found = {
        path: {name for name, value in zip(saved.classes, of, strict=True) if value == -1}
        for path, of in zip(saved.path.tolist(), saved.label, strict=True)
    }
    assert found == expected
    assert saved.label.dtype == np.int8
    scores = evaluate_predictions(saved.label, saved.probability, saved.classes, "multi_label")
    for name, value in scores.items():
        assert record[f"val_{name}"] == pytest.approx(value, rel=1e-4, nan_ok=True)


def test_ordered_classes_are_agreed_on_by_squared_distance(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    dataset = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert not open_dataset(run_dir).ordered
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(dataset | {"ordered": True}))
    assert open_dataset(tmp_path / "run").ordered


def test_a_closed_trial_leaves_nothing_in_the_process(run_dir):
    def live_bytes():
        gc.collect()
        return sum(
            each.untyped_storage().nbytes()
            for each in gc.get_objects()
            if type(each) in (torch.Tensor, torch.nn.Parameter)
        )

    after, watched = [], []
    for number in range(3):
        trial = FinetuneTrial(TrialParams(**(SMALL | {"unfreeze_depth": 4})), trial_settings(run_dir), number)
        trial.run_epoch()
        watched += [weakref.ref(parameter) for parameter in trial.model.parameters()]
        watched.append(weakref.ref(trial.data.images))
        trial.close()
        after.append(live_bytes())
    assert all(ref() is None for ref in watched)
    assert after[0] == after[1] == after[2]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing")
def test_memory_that_a_trial_kept_for_its_next_step_is_given_back_with_its_end(run_dir):
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    trial = FinetuneTrial(TrialParams(**SMALL), trial_settings(run_dir), 0)
    before = resident_bytes()
    torch.ones(2**26)
    assert resident_bytes() > before + 2**27, "kept"
    trial.close()
    assert resident_bytes() < before + 2**27


def verdict(**changes):
    return BestEpochTracker(trial_settings("run", **({"epochs": 10} | changes)))


def judge_all(one, scores, metric="val_f1_macro"):
    return [one.judge({metric: score}) for score in scores]


def test_the_best_epoch_is_the_first_of_the_highest():
    one = verdict()
    said = judge_all(one, [0.2, 0.6, 0.4, 0.6])
    assert [each["best_epoch"] for each in said] == [1, 2, 2, 2]
    assert said[-1] == {"best_epoch": 2, "best_val_f1_macro": 0.6}


def test_a_loss_is_best_where_it_is_lowest():
    said = judge_all(verdict(metric="val_nll"), [0.9, 0.5, 0.7], "val_nll")
    assert said[-1] == {"best_epoch": 2, "best_val_nll": 0.5}


def test_only_the_epoch_that_is_best_counts_as_improved():
    one = verdict()
    seen = []
    for score in (0.2, 0.1, 0.3):
        one.judge({"val_f1_macro": score})
        seen.append(one.improved)
    assert seen == [True, False, True]


def test_a_trial_ends_with_its_budget():
    said = judge_all(verdict(epochs=2), [0.1, 0.2])
    assert "done" not in said[0]
    assert (said[1]["done"], said[1]["end"]) == (True, "budget")


def test_a_trial_ends_after_its_patience_counted_from_the_best_epoch():
    one = verdict(patience=2)
    said = judge_all(one, [0.1, 0.3, 0.2, 0.3])
    assert [each.get("end") for each in said] == [None, None, None, "plateau"]
    assert said[-1]["reason"] == "no better val_f1_macro for 2 epochs"
    assert one.ended


def test_a_broken_epoch_ends_the_trial_and_keeps_its_best():
    one = verdict()
    judge_all(one, [0.4])
    said = one.broken("the loss was no number")
    expected = {"done": True, "end": "nan", "reason": "the loss was no number"}
    assert said == {"best_epoch": 1, "best_val_f1_macro": 0.4} | expected
    assert not one.improved


def test_an_undefined_metric_is_the_users_to_change():
    with pytest.raises(UserError, match="val_auroc_macro is undefined"):
        verdict(metric="val_auroc_macro").judge({"val_auroc_macro": math.nan})


def test_patience_goes_on_from_its_state():
    one, other = verdict(patience=2), verdict(patience=2)
    judge_all(one, [0.5, 0.4])
    other.load_state_dict(one.state_dict())
    assert other.judge({"val_f1_macro": 0.4})["end"] == "plateau"
