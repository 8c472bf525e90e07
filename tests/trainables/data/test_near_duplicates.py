from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from trainables.data import near_duplicates
from trainables.data.near_duplicates import NearPair, NearPairs, find_near_pairs


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


@pytest.mark.parametrize("block", [(8, 16), (16, 8), (512, 4096)])
@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_blocks_of_any_size_find_what_comparing_all_finds(
    monkeypatch: pytest.MonkeyPatch, block: tuple[int, int], dense: float
) -> None:
    monkeypatch.setattr(near_duplicates, "_ROWS", block[0])
    monkeypatch.setattr(near_duplicates, "_COLUMNS", block[1])
    monkeypatch.setattr(near_duplicates, "_DENSE", dense)
    rng = np.random.default_rng(3)
    smalls = noise(1)[0] * 0.8 + rng.normal(0, 1, (90, 64, 64)) * rng.uniform(1, 16, (90, 1, 1)) + 20
    smalls = np.clip(smalls, 0, 255).astype(np.uint8)
    correlation = np.corrcoef(smalls.reshape(90, -1))
    wanted = [(i, j) for i in range(90) for j in range(i + 1, 90) if correlation[i, j] >= 0.97]
    assert 100 < len(wanted) < 3900
    assert [pair[:2] for pair in find(smalls, phashes=np.zeros(90, dtype=np.uint64))] == wanted


def test_the_first_of_equal_images_stands_for_all() -> None:
    smalls = noise(40)
    smalls[[10, 20, 30]] = smalls[5]
    same = np.arange(40)
    same[[10, 20]] = 5
    assert [pair[:2] for pair in find(smalls, same=same)] == [(5, 30)]


@pytest.mark.parametrize(
    ("limit", "most", "searched"), [("MOST_PAIRS", 20, 8), ("MOST_COMPARED", 700, 16), ("MOST_CORRELATED", 20, 8)]
)
def test_a_search_that_is_cut_says_where(monkeypatch: pytest.MonkeyPatch, limit: str, most: int, searched: int) -> None:
    monkeypatch.setattr(near_duplicates, "_ROWS", 8)
    monkeypatch.setattr(near_duplicates, "_COLUMNS", 16)
    smalls = noise(40)
    smalls[:40] = smalls[np.repeat(np.arange(20), 2)]
    smalls[9] = smalls[10] = smalls[11] = smalls[12] = smalls[13] = smalls[14] = smalls[15] = smalls[8]
    phashes = np.array([phash(small) for small in smalls], dtype=np.uint64)
    everything = find_near_pairs(phashes, smalls, np.arange(40), np.arange(40))
    monkeypatch.setattr(near_duplicates, limit, most)
    found = find_near_pairs(phashes, smalls, np.arange(40), np.arange(40))
    assert found.searched == searched
    assert limit != "MOST_PAIRS" or len(found.pairs) == 20
    complete = [pair for pair in everything.pairs if pair.first < searched]
    assert list(found.pairs[: len(complete)]) == complete


def test_pairs_among_some_rows_are_numbered_by_these() -> None:
    pairs = NearPairs((NearPair(0, 3, 1, 0.98), NearPair(2, 3, 1, 0.98)), 2)
    assert pairs.among(np.array([2, 3])) == NearPairs((NearPair(0, 1, 1, 0.98),), 2)
