"""Where the network looks: numbers against a direct computation, and a page with, without and with damaged maps."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from in_chapter import figures, galleries, results_of, tables, texts
from PIL import Image

from reports.blocks import Folded
from reports.build import build
from reports.chapters.attribution import EVEN, mean_maps
from reports.chapters.examples import chapter
from sweep.run_folder import RunPaths
from trainables.attribution import classes_of_interest
from trainables.maps import HEAT, Maps
from trainables.predictions import read_predictions

MODEL = "t0000/seed_1001"


def give_maps(
    root: Path,
    side: int = 7,
    trial: str = MODEL,
    split: str = "test",
    thresholds: dict[str, float] | None = None,
    **changes: object,
) -> Maps:
    """Write maps of random places for the reported network; a fifth of them is 0."""
    paths = RunPaths(root)
    files = paths.trial(trial)
    part = read_predictions(files.predictions).of(split)
    wanted, truth = classes_of_interest(part, thresholds)
    images, labels = np.nonzero(wanted)
    chance = np.random.default_rng(0)
    grid = chance.random((len(images), side, side)) ** 8
    grid[::5] = 0
    grid /= np.maximum(grid.sum(axis=(1, 2), keepdims=True), 1e-9)
    facts = {"path": part.path[images], "label": labels, "has": truth[images, labels], "map": grid.astype(np.float16)}
    maps = Maps(**(facts | {"split": split, "classes": part.classes, "epoch": part.epoch} | changes))  # type: ignore[arg-type]
    maps.write(files.maps)
    return maps


def test_the_share_of_a_class_is_the_mean_over_its_own_images_without_maps_that_are_0(write_run) -> None:
    root = write_run(finals={})
    maps = give_maps(root)
    found = chapter(results_of(root))
    frame = tables(found)["frame_share_test"].frame
    test = read_predictions(RunPaths(root).trial(MODEL).predictions).of("test")
    for place, row in enumerate(frame.to_dict("records")):
        mine = maps.map[maps.has & (maps.label == place)].astype(float)
        some = mine[mine.any(axis=(1, 2))]
        assert (row["class"], row["images"], row["zero"]) == (
            test.classes[place],
            (test.label == place).sum(),
            len(mine) - len(some),
        )
        assert row["zero"] > 0
        shares = []
        for one in some:  # enlarged by Pillow: the same bilinear filter
            larger = np.asarray(Image.fromarray(one.astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR))
            shares.append(1 - larger[4:-4, 4:-4].sum() / larger.sum())
        assert row["share"] == pytest.approx(np.mean(shares), abs=1e-3)
        standard_error = np.std(shares) / np.sqrt(len(shares))  # each patient has an image
        assert row["share"] - row["share_low"] == pytest.approx(2 * standard_error, rel=0.4)
        assert row["share_high"] - row["share"] == pytest.approx(2 * standard_error, rel=0.4)
    assert pytest.approx(960 / 4096) == EVEN


def test_mean_maps_are_means_and_their_numbers_go_to_the_csv(write_run) -> None:
    root = write_run(finals={})
    maps = give_maps(root)
    means = mean_maps(maps)
    assert list(means) == list(maps.classes)
    for one in means.values():
        assert one.sum() == pytest.approx(1, abs=2e-3)
    found = chapter(results_of(root))
    figure = figures(found)["mean_maps_test"]
    assert figure.frame is not None
    assert len(figure.frame) == 3 * 49
    of_covid = figure.frame[figure.frame["class"] == "covid"]["attribution"].to_numpy().reshape(7, 7)
    np.testing.assert_allclose(of_covid, means["covid"])
    shares = tables(found)["frame_share_test"].frame.set_index("class")["share"]
    assert f"covid {shares['covid']:.3f} (" in figure.alt


def test_images_stand_under_the_map_of_the_class_that_is_answered(write_run) -> None:
    root = write_run(finals={}, never_predicted="covid")
    maps = give_maps(root)
    found = chapter(results_of(root))
    best, worst, best_again, worst_again = galleries(found)
    (folded,) = (block for block in found if isinstance(block, Folded))
    assert folded.blocks == (best_again, worst_again)
    for before, after in ((best, best_again), (worst, worst_again)):
        assert [(name, [one.name for one in images]) for name, images in before.rows] == [
            (name, [one.name for one in images]) for name, images in after.rows
        ]
    listed = tables(found)["examples_test"].frame.set_index("path")
    for sample in (one for _, images in worst_again.rows for one in images):
        answered = listed.loc[sample.name, "decision"]
        assert f"map of {answered}" in sample.note
        row = np.flatnonzero((maps.path == sample.name) & (maps.label == maps.classes.index(answered)))
        assert len(row) == 1
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sample.uri.split(",")[1]))).convert("RGB"), float)
        redder = (pixels[..., 0] - pixels[..., 2]).reshape(8, 8, 8, 8).mean(axis=(1, 3))
        assert (redder.max() > 20) == bool(maps.map[row[0]].any())
    assert HEAT[0] > HEAT[2]


def test_a_label_has_its_own_map_over_its_false_positives_and_negatives(write_run) -> None:
    thresholds = {"a": 0.3, "b": 0.4}
    images = {"train": 30, "val": 30, "test": 200}
    finals = {"thresholds": thresholds}
    root = write_run(finals=finals, task="multi_label", classes=("a", "b"), labels_per_split=images)
    give_maps(root, thresholds=thresholds)
    positives, negatives, *again = galleries(chapter(results_of(root)))
    for before, after in zip((positives, negatives), again, strict=True):
        for (name, images), (same, under) in zip(before.rows, after.rows, strict=True):
            assert (name, len(images)) == (same, len(under))
            assert all(f"map of {name}, " in one.note for one in under)


def test_validation_is_mapped_where_test_was_not_opened(write_run) -> None:
    root = write_run()
    results = results_of(root)
    give_maps(root, trial=results.model.trial_id, split="val")
    assert "frame_share_val" in tables(chapter(results_of(root)))


def test_a_coarse_grid_is_said_and_not_shown(write_run) -> None:
    root = write_run(finals={})
    empty = {"path": np.zeros(0, "U1"), "label": np.zeros(0, np.int64), "has": np.zeros(0, bool)}
    give_maps(root, map=np.zeros((0, 2, 2), np.float16), **empty)
    found = chapter(results_of(root))
    assert "2 x 2 positions" in texts(found)
    assert not [name for name in tables(found) if name.startswith("frame_share")]
    assert len(galleries(found)) == 2


def test_an_earlier_run_without_maps_is_shown(write_run) -> None:
    root = write_run(finals={})
    results = results_of(root)
    assert "No attribution maps can be read" in texts(chapter(results))
    assert results.data.run.problems == []


@pytest.mark.parametrize("damage", ["bytes", "epoch", "split", "other images"])
def test_damaged_maps_are_one_problem_and_the_rest_is_shown(write_run, damage: str) -> None:
    root = write_run(finals={})
    other = {"epoch": {"epoch": 99}, "split": {"split": "val"}, "bytes": {}, "other images": {}}
    maps = give_maps(root, **other[damage])
    if damage == "other images":
        give_maps(root, path=np.char.add("x", maps.path))
    if damage == "bytes":
        file = RunPaths(root).trial(MODEL).maps
        file.write_bytes(file.read_bytes()[:200])
    results = results_of(root)
    found = chapter(results)
    assert "No attribution maps can be read" in texts(found)
    assert len(galleries(found)) == 2
    (problem,) = results.data.run.problems
    assert MODEL in problem


@pytest.mark.usefixtures("computed_anew")
def test_the_page_shows_maps_without_data_and_gives_the_same_bytes_again(write_run) -> None:
    root = write_run(finals={})
    give_maps(root)
    page = build(root).read_bytes()
    for text in (b"Where the network looks", b"mean_maps_test", b"The images above with their maps"):
        assert text in page
    shutil.rmtree(root / "report")
    assert build(root).read_bytes() == page
