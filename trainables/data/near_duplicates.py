"""Pairs of images that look nearly the same, found among a hundred thousand in a minute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

MOST_BITS = 10
LEAST_CORRELATION = 0.97
MOST_PAIRS = 20_000
# Pairs that are compared in brief (all of 440,000 images), and of these in full: some minutes each on two cores.
MOST_COMPARED = 100_000_000_000
MOST_CORRELATED = 100_000_000
_ROWS, _COLUMNS = 512, 4096
_MEANS = 8
_ROUNDING = 1e-4  # of float32 sums of products
# Share of candidates in a block above which one matrix product is cheaper than gathering pairs.
_DENSE = 0.02


class NearPair(NamedTuple):
    """Rows of two images (first < second), the bits in which their pHashes differ, the correlation of their pixels."""

    first: int
    second: int
    bits: int
    correlation: float


class NearPairs(NamedTuple):
    """What was found. searched: how many images, the first by row, were compared with all later ones before a limit
    ended the search; None = it was not ended.
    """

    pairs: tuple[NearPair, ...] = ()
    searched: int | None = None

    def among(self, rows: npt.NDArray[np.int64]) -> NearPairs:
        """The pairs of which both images are in ``rows`` (ascending), numbered by their place there."""
        place = {int(row): index for index, row in enumerate(rows)}
        pairs = (pair for pair in self.pairs if pair.first in place and pair.second in place)
        kept = (pair._replace(first=place[pair.first], second=place[pair.second]) for pair in pairs)
        return NearPairs(tuple(kept), self.searched)


def find_near_pairs(
    phashes: npt.NDArray[np.uint64],
    smalls: npt.NDArray[np.uint8],
    same: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> NearPairs:
    """All pairs with pHashes within 10 bits and normalised correlation of the small pixels >= 0.97, by row.

    X-rays all look alike to a perceptual hash, so that alone is no evidence: hence the correlation.
    phashes: uint64 [n]; smalls: uint8 [n, S, S], S a multiple of 8; same: int [n], equal where the full images have
    equal pixels (exact duplicates: the first stands for all); rows: ascending, the rows to compare. Ended by 20,000
    pairs, or by the limits on what is compared.
    """
    rows = np.sort(rows[np.unique(same[rows], return_index=True)[1]])
    # The products are small: threads of BLAS that wait for each other would take longer, on a busy machine much longer.
    with threadpool_limits(1, "blas"):
        return _search(phashes, smalls, rows)


def _search(phashes: npt.NDArray[np.uint64], smalls: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> NearPairs:
    briefs = _briefs(smalls, rows)
    pairs: list[NearPair] = []
    compared = correlated = 0
    for start in range(0, len(rows), _ROWS):
        whole = len(pairs)
        for first, second in _candidates(briefs, start):
            firsts, seconds = rows[first], rows[second]
            bits = np.bitwise_count(phashes[firsts] ^ phashes[seconds])
            alike = np.flatnonzero(bits <= MOST_BITS)
            compared += _ROWS * _COLUMNS
            correlated += len(alike)
            if len(alike):
                pairs += _pairs(smalls, firsts[alike], seconds[alike], bits[alike])
            if len(pairs) > MOST_PAIRS or compared > MOST_COMPARED or correlated > MOST_CORRELATED:
                return NearPairs(tuple(pairs[:whole] + sorted(pairs[whole:]))[:MOST_PAIRS], start)
        pairs[whole:] = sorted(pairs[whole:])
    return NearPairs(tuple(pairs))


def _briefs(smalls: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """float32 [n, 65], whose products are upper bounds of the correlations.

    A normalised image x is a part P x, its 8 x 8 means, and a rest of length r at right angles to it, so that
    x . y <= P x . P y + r(x) r(y) by the inequality of Cauchy and Schwarz.
    """
    side = smalls.shape[1] // _MEANS
    briefs = np.zeros((len(rows), _MEANS * _MEANS + 1), dtype=np.float32)
    for start in range(0, len(rows), _COLUMNS):
        images = _normalised(smalls[rows[start : start + _COLUMNS]])
        means = images.reshape(-1, _MEANS, side, _MEANS, side).sum(axis=(2, 4)).reshape(len(images), -1) / side
        briefs[start : start + _COLUMNS, :-1] = means
        briefs[start : start + _COLUMNS, -1] = np.sqrt(np.clip(1 - np.einsum("ij,ij->i", means, means), 0, 1))
    return briefs


def _candidates(
    briefs: npt.NDArray[np.float32], start: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Places (first < second) of pairs that may correlate, of the block of firsts at ``start``; memory stays small."""
    block = briefs[start : start + _ROWS]
    for other in range(start, len(briefs), _COLUMNS):
        bound = block @ briefs[other : other + _COLUMNS].T
        first, second = np.divmod(np.flatnonzero(bound >= LEAST_CORRELATION - _ROUNDING), bound.shape[1])
        later = first + start < second + other
        yield first[later] + start, second[later] + other


def _pairs(
    smalls: npt.NDArray[np.uint8],
    firsts: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint8],
) -> list[NearPair]:
    """Those that correlate, at most 20,001."""
    correlation = _correlations(smalls, firsts, seconds)
    places = np.flatnonzero(correlation >= LEAST_CORRELATION)[: MOST_PAIRS + 1]
    columns = (firsts[places], seconds[places], bits[places], correlation[places].round(4))
    return [NearPair(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _correlations(
    smalls: npt.NDArray[np.uint8], firsts: npt.NDArray[np.int64], seconds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    (left_rows, at_left), (right_rows, at_right) = (np.unique(x, return_inverse=True) for x in (firsts, seconds))
    left, right = _normalised(smalls[left_rows]), _normalised(smalls[right_rows])
    if len(firsts) > _DENSE * len(left) * len(right):
        return np.asarray((left @ right.T)[at_left, at_right], dtype=np.float64)
    correlation = np.empty(len(firsts), dtype=np.float64)
    for start in range(0, len(firsts), 1024):
        part = slice(start, start + 1024)
        correlation[part] = np.einsum("ij,ij->i", left[at_left[part]], right[at_right[part]])
    return correlation


def _normalised(smalls: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32 [n, pixels] of mean 0 and length 1; a blank image becomes all 0."""
    flat = smalls.reshape(len(smalls), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))[:, None]
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 0), dtype=np.float32)
