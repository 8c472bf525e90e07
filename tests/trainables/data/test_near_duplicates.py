from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainables.data import near_duplicates
from trainables.data.image import prepare_image
from trainables.data.near_duplicates import (
    CANDIDATES,
    LEAST_CORRELATION,
    SURE_CORRELATION,
    NearPair,
    NearPairs,
    find_near_pairs,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def find(smalls: np.ndarray, pool: ThreadPoolExecutor, same: np.ndarray | None = None) -> list[tuple[int, int]]:
    rows = np.arange(len(smalls))
    found = find_near_pairs(smalls, rows if same is None else same, rows, pool)
    assert found.skipped == 0
    return [(pair.first, pair.second) for pair in found.pairs]


def film(seed: int, size: int = 256) -> Image.Image:
    """One chest, with details of all sizes that are this film's own."""
    image = np.zeros((size, size))
    for grid, strength, one in ((3, 60, 10**6), (6, 18, seed), (16, 12, seed), (40, 9, seed)):
        coarse = np.random.default_rng([one, grid]).normal(0, strength, (grid, grid)).astype(np.float32)
        image += np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(120 + image, 0, 255).astype(np.uint8))


def small(image: Image.Image) -> np.ndarray:
    return prepare_image(np.asarray(image), 32, "squash").small


def cropped(image: Image.Image, share: float) -> Image.Image:
    return ImageOps.crop(image, round(share * image.width))


def shifted(image: Image.Image, x: int, y: int) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y))


def with_gamma(image: Image.Image, gamma: float) -> Image.Image:
    return image.point([round(255 * (level / 255) ** gamma) for level in range(256)])


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


TRANSFORMATIONS = {
    "another size": lambda image: image.resize((300, 280)),
    "JPEG 60": lambda image: as_jpeg(image, 60),
    "dark": lambda image: with_gamma(image, 1.25),
    "bright": lambda image: with_gamma(image, 0.8),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 4 %": lambda image: cropped(image, 0.04),
    "cropped by 6 %": lambda image: cropped(image, 0.06),
    "mirrored": ImageOps.mirror,
    "shifted": lambda image: shifted(image, 8, -8),
    "cropped at two sides": lambda image: image.crop((20, 0, 256, 240)),
    "all": lambda image: as_jpeg(with_gamma(ImageOps.mirror(cropped(shifted(image, -8, 8), 0.06)), 0.8), 60),
}


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.stack([small(film(seed)) for seed in range(60)])


def test_a_film_exported_again_is_found_among_others(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    again = [small(transform(film(seed))) for seed, transform in enumerate(TRANSFORMATIONS.values())]
    found = find(np.stack([*films, *again]), pool)
    assert {name: (seed, 60 + seed) in found for seed, name in enumerate(TRANSFORMATIONS)} == dict.fromkeys(
        TRANSFORMATIONS, True
    )
    assert len(found) == len(TRANSFORMATIONS)


def test_the_pairs_do_not_depend_on_the_number_of_threads(
    films: np.ndarray, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 5)
    monkeypatch.setattr(near_duplicates, "_least_correlation", lambda *_: -1.0)
    rows = np.arange(20)
    with ThreadPoolExecutor(1) as alone:
        found = find_near_pairs(films, rows, rows, alone)
    assert len(found.pairs) > 10
    assert find_near_pairs(films, rows, rows, pool) == found


def framed(seed: int) -> Image.Image:
    """Soft content of its own inside a frame with a mark, which all images have."""
    image = np.zeros((256, 256), dtype=np.uint8)
    inside = np.random.default_rng(seed).normal(120, 40, (6, 6)).astype(np.float32)
    image[90:166, 90:166] = np.asarray(Image.fromarray(inside).resize((76, 76), Image.Resampling.BICUBIC))
    image[10:30, 20:90] = 255
    return Image.fromarray(image)


def test_images_that_have_most_details_in_common_are_hardly_ever_pairs(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    smalls = np.stack([small(framed(seed)) for seed in range(120)])
    again = np.stack([*smalls, np.clip(smalls[7].astype(int) + 9, 0, 255).astype(np.uint8)])
    found = find_near_pairs(again, np.arange(121), np.arange(121), pool)
    assert LEAST_CORRELATION < found.least <= SURE_CORRELATION
    assert (7, 120) in [pair[:2] for pair in found.pairs]  # what hardly differs is found all the same
    assert len(found.pairs) <= 3
    monkeypatch.setattr(near_duplicates, "_least_correlation", lambda *_: LEAST_CORRELATION)
    assert len(find(smalls, pool)) > 20


def test_duplicates_do_not_raise_the_correlation_that_makes_a_pair(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    smalls = np.concatenate([films, films // 2 + 20])
    found = find_near_pairs(smalls, np.arange(120), np.arange(120), pool)
    assert found.least == LEAST_CORRELATION
    assert len(found.pairs) == 60


def test_a_set_of_copies_of_one_film_is_pairs_throughout(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (200, 56, 56))
    rows = np.arange(200)
    found = find_near_pairs(np.clip(films[0] + noise, 0, 255).astype(np.uint8), rows, rows, pool)
    assert {row for pair in found.pairs for row in pair[:2]} == set(range(200))
    assert len(found.pairs) <= 200 * CANDIDATES


def test_films_of_the_same_anatomy_are_no_pairs(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    whole = np.corrcoef(films.reshape(len(films), -1))
    assert np.median(whole[np.triu_indices(len(films), 1)]) > 0.6  # they look alike
    assert find(films, pool) == []


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
def test_few_images_are_all_compared(count: int, films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    again = [small(TRANSFORMATIONS["all"](film(seed))) for seed in range(count)]
    assert find(np.array([*films[:count], *again]).reshape(-1, 56, 56), pool) == [(i, i + count) for i in range(count)]


def test_exact_duplicates_and_flat_images_are_left_out(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    smalls = np.stack([films[0], films[0], *np.full((2, 56, 56), 40, np.uint8)])
    assert find(smalls, pool, same=np.array([0, 0, 1, 2])) == []


def test_the_first_of_equal_images_stands_for_all(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    smalls, same = films[:35].copy(), np.arange(35)
    smalls[[10, 20, 30]] = smalls[5]
    same[[10, 20]] = 5
    assert find(smalls, pool, same=same) == [(5, 30)]


def test_rows_that_are_not_to_be_compared_are_not(films: np.ndarray, pool: ThreadPoolExecutor) -> None:
    smalls = np.stack([films[0], films[0], films[1], films[1]])
    assert find_near_pairs(smalls, np.arange(4), np.array([1, 2, 3]), pool).pairs == (NearPair(2, 3, 1.0),)


@pytest.mark.parametrize("block", [7, 64])
@pytest.mark.parametrize("components", [10, 96])
def test_candidates_are_the_nearest_of_each_image_by_comparing_all(
    block: int, components: int, films: np.ndarray, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    monkeypatch.setattr(near_duplicates, "_COMPONENTS", components)  # whitened, and as they are
    rows = np.arange(5, 50)
    found = near_duplicates._candidates(films, rows, pool)
    mean, axes = near_duplicates._whitening(near_duplicates._vectors(films, rows, 0.0, False))
    vectors = [(near_duplicates._vectors(films, rows, *one) - mean) @ axes for one in near_duplicates._VARIANTS]
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors]
    wanted: dict[tuple[int, int], float] = {}
    for a in range(45):
        cosine = {b: max(float(one[a] @ unit[0][b]) for one in unit) for b in range(45) if b != a}
        for b in sorted(cosine, key=lambda b: -cosine[b])[:CANDIDATES]:
            pair = 5 + min(a, b), 5 + max(a, b)
            wanted[pair] = max(wanted.get(pair, -2.0), cosine[b])
    pairs = zip(np.minimum(found.moving, found.fixed), np.maximum(found.moving, found.fixed), strict=True)
    assert [(int(a), int(b)) for a, b in pairs] == sorted(wanted)
    assert found.similarity.tolist() == pytest.approx([wanted[pair] for pair in sorted(wanted)], abs=1e-5)
    shown = [
        unit[one][a] @ unit[0][b] for one, a, b in zip(found.variant, found.moving - 5, found.fixed - 5, strict=True)
    ]
    assert found.similarity.tolist() == pytest.approx(shown, abs=1e-5)


def test_registration_finds_what_trying_all_scales_and_shifts_finds(films: np.ndarray) -> None:
    """For pairs of one film it is not below the best of a grid; pairs of two films stay low in both."""
    details = near_duplicates._details
    again = details(np.stack([small(shifted(cropped(film(seed), 0.03), 5, -3)) for seed in range(4)]))
    fixed = np.concatenate([again, again])
    moving = details(films[[0, 1, 2, 3, 1, 2, 3, 0]])
    start = np.tile([[0.92, 0.0], [0.92, 0.0]], (8, 1, 1))
    found, _ = near_duplicates._register(moving, fixed, start, 9)
    grid = [np.array([[scale, y], [scale, x]]) for scale in np.linspace(0.9, 0.98, 5) for y, x in _shifts()]
    best = np.max([near_duplicates._register(moving, fixed, np.stack([one] * 8), 0)[0] for one in grid], axis=0)
    assert (found[:4] >= best[:4] - 0.005).all()
    assert (found[:4] > 0.9).all()
    assert (np.maximum(found, best)[4:] < 0.6).all()


def _shifts() -> list[tuple[float, float]]:
    steps = np.linspace(-0.08, 0.08, 9)
    return [(y, x) for y in steps for x in steps]


def test_more_candidates_than_may_be_registered_are_counted(
    films: np.ndarray, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    smalls, rows = np.stack([*films, *(small(as_jpeg(film(seed), 90)) for seed in range(6))]), np.arange(66)
    candidates = len(near_duplicates._candidates(smalls, rows, pool).moving)
    monkeypatch.setattr(near_duplicates, "MOST_REGISTERED", 10)
    found = find_near_pairs(smalls, rows, rows, pool)
    assert found.skipped == candidates - 10
    assert [pair[:2] for pair in found.pairs] == [(seed, 60 + seed) for seed in range(6)]  # the most similar go first


def test_pairs_among_some_rows_are_numbered_by_these() -> None:
    pairs = NearPairs((NearPair(0, 3, 0.98), NearPair(2, 3, 0.98)), 2, 0.95)
    assert pairs.among(np.array([2, 3])) == NearPairs((NearPair(0, 1, 0.98),), 2, 0.95)
