"""What a thumbnail, a border and a frozen network hand over of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables import plain_features
from trainables.augment import normalise
from trainables.batches import Batches
from trainables.plain_features import borders, frozen_features, thumbnails
from trainables.weights import FoundWeights, load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


def batches(images: np.ndarray) -> Batches:
    return Batches(images, np.arange(len(images)), np.zeros(len(images), dtype=np.int64), torch.device("cpu"))


def noise(count: int, size: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize(("size", "channels", "border"), [(64, 1, 960), (224, 3, 960), (32, 1, 240), (8, 3, 28)])
def test_features_have_the_width_of_their_pixels(size: int, channels: int, border: int) -> None:
    images = noise(3, size, channels)
    assert thumbnails(batches(images)).shape == (3, channels * 256)
    assert borders(batches(images)).shape == (3, channels * border)


@given(size=st.integers(64, 300), brightness=st.integers(0, 255))
@settings(max_examples=20, deadline=None)
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
    some = Batches(images, chosen, chosen, torch.device("cpu"))
    np.testing.assert_array_equal(thumbnails(some), whole[chosen])


def test_frozen_features_are_those_of_torchvisions_own_network_in_eval_mode() -> None:
    found = FoundWeights(backbone="resnet18", origin="random")
    images = noise(40, 64)
    network = load_pretrained(found, seed=0).eval()
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network(normalise(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(frozen_features(found, batches(images), 64, "fp32"), expected, rtol=1e-3, atol=1e-4)


def test_vggs_features_are_averaged_over_its_positions() -> None:
    found = FoundWeights(backbone="vgg16", origin="random")
    images = noise(2, 64, 3)
    network = load_pretrained(found, seed=0).eval()
    assert isinstance(network, torchvision.models.VGG)
    with torch.inference_mode():
        expected = network.avgpool(network.features(normalise(torch.from_numpy(images)))).mean((2, 3)).numpy()
    features = frozen_features(found, batches(images), 64, "fp32")
    assert features.shape == (2, 512)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_half_precision_changes_frozen_features_little_and_they_stay_float32() -> None:
    found = FoundWeights(backbone="squeezenet1_1", origin="random")
    exact, rough = (frozen_features(found, batches(noise(4, 64)), 64, name) for name in ("fp32", "bf16"))
    assert exact.dtype == rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_batches_are_halved_until_they_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def narrow(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("as a GPU says it")
        return normalise(images)

    found = FoundWeights(backbone="squeezenet1_1", origin="random")
    expected = frozen_features(found, batches(noise(40, 32)), 32, "fp32")
    monkeypatch.setattr(plain_features, "normalise", narrow)
    features = frozen_features(found, batches(noise(40, 32)), 32, "fp32")
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    assert sizes[:4] == [32, 16, 8, 4]


def test_images_too_small_for_a_network_are_told_as_such() -> None:
    found = FoundWeights(backbone="vgg16", origin="random")
    with pytest.raises(UserError, match="vgg16 needs images of at least 32 px"):
        frozen_features(found, batches(noise(2, 16)), 16, "fp32")
