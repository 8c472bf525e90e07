"""Maps in a file, in the frame, and over an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainables.maps import HEAT, Maps, enlarged, frame_share, overlay, read_maps


def drawn(count: int, *grid: int) -> np.ndarray:
    maps = np.random.default_rng(0).random((count, *grid)) ** 4
    return (maps / maps.sum(axis=(1, 2), keepdims=True)).astype(np.float16)


def some_maps() -> Maps:
    path, label = np.array(["a.png", "a.png", "b.png"]), np.array([0, 1, 1])
    return Maps(path, label, np.array([True, False, True]), drawn(3, 7, 7), "test", ("x", "y"), 4)


def test_the_frame_is_a_quarter_of_the_area() -> None:
    assert frame_share(np.ones((1, 7, 7)))[0] == pytest.approx(960 / 4096)


@pytest.mark.parametrize("grid", [(7, 7), (13, 13), (14, 14), (7, 9), (100, 100)])
def test_the_share_of_the_frame_is_that_of_the_enlarged_map(grid: tuple[int, int]) -> None:
    maps = drawn(5, *grid)
    larger = functional.interpolate(torch.from_numpy(maps.astype(np.float64))[:, None], (64, 64), mode="bilinear")[:, 0]
    np.testing.assert_allclose(enlarged(maps, 64), larger, atol=1e-12)
    whole, inside = larger.sum(dim=(1, 2)), larger[:, 4:-4, 4:-4].sum(dim=(1, 2))
    np.testing.assert_allclose(frame_share(maps), 1 - inside / whole, atol=1e-12)


def test_all_in_a_corner_is_mostly_frame_and_nothing_at_all_has_no_share() -> None:
    corner, middle = np.zeros((2, 14, 14))
    corner[0, 0] = middle[7, 7] = 1
    shares = frame_share(np.stack([corner, middle, np.zeros((14, 14))]))
    assert shares[0] > 0.8
    assert shares[1] == 0
    assert np.isnan(shares[2])


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_an_image_is_coloured_where_the_map_is_high(shape: tuple[int, ...]) -> None:
    image, attribution = np.full(shape, 100, np.uint8), np.zeros((7, 7), np.float16)
    attribution[1, 5] = 1e-3
    found = overlay(image, attribution)
    assert (found.shape, found.dtype) == ((28, 28, 3), np.uint8)
    assert (found[20:, :10] == 100).all()
    towards = np.sign(np.array(HEAT) - 100)
    assert (np.sign(found[6, 22].astype(int) - 100) == towards).all()
    assert (overlay(image, np.zeros((7, 7))) == 100).all()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    maps = some_maps()
    maps.write(tmp_path / "maps.npz")
    found = read_maps(tmp_path / "maps.npz")
    for name, value in vars(maps).items():
        assert np.array_equal(getattr(found, name), value), name
    assert found.map.dtype == np.float16


@pytest.mark.parametrize(
    "changes",
    [
        {"label": np.array([0, 1])},
        {"label": np.array([0, 1, 2])},
        {"label": np.array(["0", "1", "1"])},
        {"map": np.zeros((3, 7), np.float16)},
        {"map": np.full((3, 7, 7), np.nan, np.float16)},
        {"map": np.full((3, 7, 7), -1, np.float16)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "maps.npz", **(vars(some_maps()) | changes))
    with pytest.raises(ValueError):
        read_maps(tmp_path / "maps.npz")
