"""Which images stand in which batch, and that they come from the right rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as V

from trainables.batches import (
    CONTEXT_BYTES,
    IMAGENET,
    ImageBatches,
    _room_bytes,
    _sampling_grid,
    _warps,
    augmented,
    keep_to_share,
    normalise,
    plan_batches,
)

CPU = torch.device("cpu")


@given(count=st.integers(1, 200), size=st.integers(1, 40), seed=st.none() | st.integers(0, 5))
def test_every_image_stands_in_exactly_one_batch_and_none_is_left_alone(count, size, seed):
    plan = plan_batches(count, size, None if seed is None else torch.Generator().manual_seed(seed))
    assert sorted(np.concatenate(plan)) == list(range(count))
    assert all(len(batch) == size for batch in plan[:-1])
    assert size == 1 or count == 1 or all(len(batch) > 1 for batch in plan)


def test_a_single_image_at_the_end_joins_the_batch_before():
    assert [len(batch) for batch in plan_batches(9, 4, None)] == [4, 5]
    assert [len(batch) for batch in plan_batches(10, 4, None)] == [4, 4, 2]


def test_without_a_generator_images_come_in_order_and_with_one_each_epoch_is_shuffled_anew():
    generator = torch.Generator().manual_seed(0)
    first, second = (plan_batches(50, 10, generator) for _ in range(2))
    assert np.concatenate(plan_batches(50, 10, None)).tolist() == list(range(50))
    assert set(first[0]) != set(second[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_holds_the_rows_of_its_images_from_a_read_only_map(tmp_path, channels):
    stored = np.random.default_rng(0).integers(0, 256, (12, channels, 5, 5), dtype=np.uint8)
    np.save(tmp_path / "store.npy", stored)
    rows = np.array([11, 3, 7, 0])
    batches = ImageBatches(np.load(tmp_path / "store.npy", mmap_mode="r"), rows, np.array([2, 1, 0, 1]), CPU)
    chosen, expected = np.array([0, 2]), torch.from_numpy(stored[[11, 7]])
    assert torch.equal(batches.images(chosen), expected)
    inputs, labels = batches.batch(chosen)
    assert torch.equal(inputs, normalise(expected))
    assert labels.tolist() == [2, 0]
    assert len(batches) == 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(batch=16, channels=1, size=24):
    return torch.randint(256, (batch, channels, size, size), dtype=torch.uint8, generator=seeded(9))


def pixels(images):
    """Undo the normalisation: float [B, 3, S, S] in 0..255."""
    return (images * torch.tensor(IMAGENET.std).view(1, 3, 1, 1) + torch.tensor(IMAGENET.mean).view(1, 3, 1, 1)) * 255


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_scales_as_torchvision_does_and_repeats_gray(channels):
    images = noise(channels=channels)
    expected = V.normalize(
        V.to_dtype(images.expand(-1, 3, -1, -1), torch.float32, scale=True), IMAGENET.mean, IMAGENET.std
    )
    assert torch.allclose(normalise(images), expected, atol=1e-5)
    assert normalise(images).is_contiguous(memory_format=torch.channels_last)


def test_none_is_the_evaluation_transform():
    assert torch.equal(augmented(noise(), "none", seeded()), normalise(noise()))


def test_flip_mirrors_some_images_exactly_and_leaves_the_others():
    images = noise(batch=40)
    out = augmented(images, "flip", seeded())
    kept = [torch.equal(out[i], normalise(images)[i]) for i in range(40)]
    mirrored = [torch.equal(out[i], normalise(images.flip(3))[i]) for i in range(40)]
    assert [a != b for a, b in zip(kept, mirrored, strict=True)] == [True] * 40
    assert 10 < sum(mirrored) < 30


@pytest.mark.parametrize("kind", ["flip", "standard"])
def test_the_same_generator_gives_the_same_pixels_and_another_gives_others(kind):
    first = augmented(noise(), kind, seeded(1))
    assert torch.equal(first, augmented(noise(), kind, seeded(1)))
    assert not torch.equal(first, augmented(noise(), kind, seeded(2)))


def test_standard_differs_from_image_to_image():
    images = noise(batch=1).expand(8, -1, -1, -1)
    out = augmented(images, "standard", seeded())
    assert len({tuple(image.flatten()[:200].tolist()) for image in out}) == 8


def test_global_random_state_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    augmented(noise(), "standard", seeded())
    assert torch.equal(before, torch.random.get_rng_state())


def warped(draws, images):
    """``standard`` with given draws (flip, angle, area, ratio, across, down), as pixels [S, S]."""
    grid = _sampling_grid(_warps(torch.tensor([draws])), images.shape[-1])
    return torch.nn.functional.grid_sample(images.float(), grid, align_corners=False)[0, 0]


def test_the_sampling_grid_is_that_of_torch():
    warps = _warps(torch.rand(5, 6, generator=seeded()))
    expected = torch.nn.functional.affine_grid(warps, [5, 1, 9, 9], align_corners=False)
    assert torch.allclose(_sampling_grid(warps, 9), expected, atol=1e-6)


# Draws that change nothing: no flip, no rotation, the whole area, square, centred.
STILL = [0.9, 0.5, 1.0, 0.5, 0.5, 0.5]


def smooth(size=64):
    y, x = np.mgrid[0:size, 0:size] / size
    return torch.tensor(255 * np.exp(-((x - 0.6) ** 2 + (y - 0.35) ** 2) / 0.02), dtype=torch.float32)[None, None]


def test_standard_with_neutral_draws_is_the_image_itself():
    assert torch.allclose(warped(STILL, smooth()), smooth()[0, 0], atol=1e-3)


def test_standard_flips_like_a_mirror():
    assert torch.allclose(warped([0.1, *STILL[1:]], smooth()), smooth()[0, 0].flip(1), atol=1e-3)


@pytest.mark.parametrize(("draw", "degrees"), [(0.0, -30), (0.75, 15)])
def test_standard_rotates_about_the_centre_like_pillow(draw, degrees):
    image = smooth()
    turned = Image.fromarray(image[0, 0].numpy()).rotate(degrees, resample=Image.Resampling.BILINEAR)
    assert torch.allclose(warped([STILL[0], draw, *STILL[2:]], image), torch.tensor(np.array(turned)), atol=1.5)


def test_standard_crops_and_resizes_like_pillow():
    side = 64 * (0.5**0.5)
    box = (64 - side, 0, 64, side)
    image = smooth()
    cut = Image.fromarray(image[0, 0].numpy()).resize((64, 64), Image.Resampling.BILINEAR, box=box)
    # Pillow repeats the edge where bilinear sampling blends with what lies outside the window: compare inside.
    difference = warped([0.9, 0.5, 0.0, 0.5, 1.0, 0.0], image) - torch.tensor(np.array(cut))
    assert difference[1:-1, 1:-1].abs().max() < 1.5


def test_what_lies_outside_the_image_is_black():
    white = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    assert warped([0.9, 0.0, *STILL[2:]], white)[0, 0] == 0
    corner = pixels(augmented(white.expand(64, -1, -1, -1), "standard", seeded()))[:, :, 0, 0]
    assert corner.min() == pytest.approx(0, abs=1e-2)


def test_standard_keeps_half_the_area_or_more_and_stays_inside_before_rotation():
    draws = torch.rand(500, 6, generator=seeded())
    draws[:, 0], draws[:, 1] = 0.9, 0.5
    warps = _warps(draws)
    width, height, x, y = warps[:, 0, 0], warps[:, 1, 1], warps[:, 0, 2], warps[:, 1, 2]
    assert (width * height).min() > 0.5 - 1e-6
    assert (width + x.abs()).max() <= 1 + 1e-6
    assert (height + y.abs()).max() <= 1 + 1e-6


def test_a_process_keeps_to_its_share_of_a_gpu(monkeypatch):
    memory = {"free": 80e9, "reserved": 2e9, "part": 1.0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (memory["free"], 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: memory["reserved"])
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: memory["part"])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part: memory.update(part=part))
    keep_to_share(1.0)
    assert (memory["part"], _room_bytes(torch.device("cuda"))) == (1.0, 78e9)
    keep_to_share(0.25)
    assert memory["part"] * 80e9 == pytest.approx(20e9 - CONTEXT_BYTES)
    assert _room_bytes(torch.device("cuda")) == pytest.approx(18e9 - CONTEXT_BYTES)
    memory["free"] = 1e9
    assert _room_bytes(torch.device("cuda")) == 1e9
