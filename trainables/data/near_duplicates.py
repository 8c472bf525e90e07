"""Pairs of images that look nearly the same, found among many thousands in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_BITS = 10
LEAST_CORRELATION = 0.97
MOST_PAIRS = 20_000
_BLOCK = 256
# Share of candidates in a block above which one matrix product is cheaper than gathering pairs.
_DENSE = 0.02


class NearPair(NamedTuple):
    """Rows of two images (first < second), the bits in which their pHashes differ, the correlation of their pixels."""

    first: int
    second: int
    bits: int
    correlation: float


def find_near_pairs(
    phashes: npt.NDArray[np.uint64],
    smalls: npt.NDArray[np.uint8],
    same: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> list[NearPair]:
    """All pairs with pHashes within 10 bits and normalised correlation of the small pixels >= 0.97.

    X-rays all look alike to a perceptual hash, so that alone is no evidence: hence the correlation.
    phashes: uint64 [n]; smalls: uint8 [n, 64, 64]; same: int [n], equal where the full images have equal pixels (such
    pairs are exact duplicates and left out); rows: the rows to compare. At most 20,000 pairs, the first by row.
    """
    pairs: list[NearPair] = []
    for firsts, seconds in _candidate_blocks(phashes, same, rows):
        (left_rows, at_left), (right_rows, at_right) = (np.unique(x, return_inverse=True) for x in (firsts, seconds))
        left, right = _normalised(smalls[left_rows]), _normalised(smalls[right_rows])
        correlation = np.empty(len(firsts), dtype=np.float64)
        if len(firsts) > _DENSE * len(left) * len(right):
            correlation[:] = (left @ right.T)[at_left, at_right]
        else:
            for start in range(0, len(firsts), 1024):
                part = slice(start, start + 1024)
                correlation[part] = np.einsum("ij,ij->i", left[at_left[part]], right[at_right[part]])
        for place in np.flatnonzero(correlation >= LEAST_CORRELATION):
            first, second = int(firsts[place]), int(seconds[place])
            bits = int(np.bitwise_count(phashes[first] ^ phashes[second]))
            pairs.append(NearPair(first, second, bits, round(float(correlation[place]), 4)))
            if len(pairs) == MOST_PAIRS:
                return pairs
    return pairs


def _candidate_blocks(
    phashes: npt.NDArray[np.uint64], same: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs of rows whose pHashes are close, block by block, so that memory stays small."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        for other_start in range(start, len(rows), 8 * _BLOCK):
            others = rows[other_start : other_start + 8 * _BLOCK]
            close = np.bitwise_count(phashes[block, None] ^ phashes[None, others]) <= MOST_BITS
            close &= (block[:, None] < others[None, :]) & (same[block, None] != same[None, others])
            first, second = np.nonzero(close)
            if len(first):
                yield block[first], others[second]


def _normalised(smalls: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32 [n, pixels] of mean 0 and length 1; a blank image becomes all 0."""
    flat = smalls.reshape(len(smalls), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))[:, None]
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 0), dtype=np.float32)
