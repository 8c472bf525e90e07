from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

from trainables.data.near_duplicates import NearPair, find_near_pairs


def phash(small: np.ndarray) -> int:
    return int(str(imagehash.phash(Image.fromarray(small))), 16)


def find(smalls: np.ndarray, same: np.ndarray | None = None, phashes: np.ndarray | None = None) -> list[NearPair]:
    if phashes is None:
        phashes = np.array([phash(small) for small in smalls], dtype=np.uint64)
    rows = np.arange(len(smalls))
    found = find_near_pairs(phashes, smalls, rows if same is None else same, rows)
    assert found.searched is None
    return list(found.pairs)


def noise(count: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 64))) for image in coarse])


def test_a_slightly_changed_copy_is_found_among_others() -> None:
    smalls = noise(400)
    smalls[300] = np.clip(smalls[17] * 0.9 + 8, 0, 255)
    assert [(pair.first, pair.second) for pair in find(smalls)] == [(17, 300)]


def test_equal_hash_without_equal_pixels_is_no_near_duplicate() -> None:
    assert find(noise(30), phashes=np.zeros(30, dtype=np.uint64)) == []


def test_exact_duplicates_and_blank_images_are_left_out() -> None:
    smalls = noise(4)
    smalls[1] = smalls[0]
    smalls[2:] = 40
    assert find(smalls, same=np.array([0, 0, 1, 2]), phashes=np.zeros(4, dtype=np.uint64)) == []


def test_many_and_few_candidates_give_the_same_pairs() -> None:
    smalls = noise(60)
    smalls[40:50] = smalls[:10]
    wanted = [(row, 40 + row) for row in range(10)]
    for phashes in (None, np.zeros(60, dtype=np.uint64)):
        assert [(pair.first, pair.second) for pair in find(smalls, phashes=phashes)] == wanted


def test_pairs_agree_with_comparing_all_by_hand() -> None:
    rng = np.random.default_rng(1)
    smalls = noise(50)
    smalls[25:] = np.clip(smalls[:25] + rng.normal(0, 1, (25, 64, 64)) * np.linspace(1, 60, 25)[:, None, None], 0, 255)
    phashes = np.array([phash(small) for small in smalls], dtype=np.uint64)
    wanted = [
        (i, j)
        for i in range(50)
        for j in range(i + 1, 50)
        if int(phashes[i] ^ phashes[j]).bit_count() <= 10
        and np.corrcoef(smalls[i].ravel(), smalls[j].ravel())[0, 1] >= 0.97
    ]
    assert 3 < len(wanted) < 25
    assert sorted((pair.first, pair.second) for pair in find(smalls)) == wanted
