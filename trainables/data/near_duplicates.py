"""Find images of the same film: exported again, cropped, shifted, mirrored or with another contrast.

Candidates are the pairs of images with the nearest principal components; one image is then registered to the other, and
their details compared.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from threadpoolctl import threadpool_limits

LEAST_CORRELATION, SURE_CORRELATION = 0.9, 0.99  # of details of one film; the latter at most, if all images are alike
CANDIDATES = 8  # of each image
# Most pairs that are registered: all candidates of 20,000 images, the most similar pairs of more images.
MOST_REGISTERED = 160_000
_VARIANTS = ((0.0, False), (0.0, True), (0.04, False), (0.04, True))  # share cropped off each side, mirrored
_SIDE, _COMPONENTS, _FITTED_ON = 16, 96, 8192
_DRAWN_PAIRS, _LEAST_IMAGES, _PERCENTILE = 256, 40, 0.95  # to learn how alike images of a set are by chance
_BLOCK = 64  # images, or pairs, that a thread works on at a time
_BLOCK_BYTES = 1 << 27  # of a block compared with all images: fewer than 64 images if there are over 100,000
_SIGMA = 2.0  # of the high-pass, in pixels
_NOISE = 4.0  # variance in gray levels squared below which there is no detail
_BORDER = 1 / 28  # of the side, at each edge of the fixed image, where the high-pass has pixels of one side only
_LEAST_OVERLAP = 0.5  # of the image
_COARSE_STEPS, _FINE_STEPS, _PROMISING = 6, 2, 0.75  # at half and at full resolution; correlation needed for the latter

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Smalls = npt.NDArray[np.uint8]


class NearPair(NamedTuple):
    """Rows of two images (first < second), and the correlation of their details where they overlap."""

    first: int
    second: int
    correlation: float


class NearPairs(NamedTuple):
    """What was found, by row. skipped: candidate pairs that were not registered, as there were more than 160,000.

    least: the correlation from which a pair counts as one film.
    """

    pairs: tuple[NearPair, ...] = ()
    skipped: int = 0
    least: float = LEAST_CORRELATION

    def among(self, rows: Ints) -> NearPairs:
        """The pairs of which both images are in ``rows`` (ascending), numbered by their place there."""
        place = {int(row): index for index, row in enumerate(rows)}
        pairs = (pair for pair in self.pairs if pair.first in place and pair.second in place)
        kept = (pair._replace(first=place[pair.first], second=place[pair.second]) for pair in pairs)
        return self._replace(pairs=tuple(kept))


class _Candidates(NamedTuple):
    """Pairs of rows, int64 [P] each. moving: the image that looks like ``fixed`` when cropped and mirrored as in
    ``_VARIANTS[variant]``. similarity: float32 [P], a cosine.
    """

    moving: Ints
    fixed: Ints
    variant: Ints
    similarity: Floats

    def at(self, places: Ints | npt.NDArray[np.bool_] | slice) -> _Candidates:
        return _Candidates(self.moving[places], self.fixed[places], self.variant[places], self.similarity[places])


def find_near_pairs(smalls: Smalls, same: Ints, rows: Ints, pool: ThreadPoolExecutor) -> NearPairs:
    """Pairs of images whose details correlate by 0.9 or more once registered (scale, shift, mirror) to each other.

    If all images of the set are alike, it takes more (``_least_correlation``). Each image is compared with its 8
    nearest. smalls: uint8 [n, S, S], S even; same: int [n], equal where the full images have equal pixels (exact
    duplicates: the first stands for all); rows: which to compare. The result does not depend on the number of threads.
    """
    rows = np.sort(rows[np.unique(same[rows], return_index=True)[1]])
    if len(rows) < 2:
        return NearPairs()
    # Blocks run in parallel, not the matrix products in them: BLAS threads that wait for each other are slower.
    with threadpool_limits(1, "blas"):
        least = _least_correlation(smalls, rows, pool)
        candidates = _candidates(smalls, rows, pool)
        best = candidates.at(np.argsort(-candidates.similarity, kind="stable")[:MOST_REGISTERED])
        correlation = _correlations(smalls, best, pool)
    found = correlation >= least
    firsts, seconds = np.minimum(best.moving, best.fixed)[found], np.maximum(best.moving, best.fixed)[found]
    values = correlation[found].astype(np.float64).round(4)
    pairs = sorted(map(NearPair, firsts.tolist(), seconds.tolist(), values.tolist()))
    return NearPairs(tuple(pairs), len(candidates.moving) - len(best.moving), least)


def _least_correlation(smalls: Smalls, rows: Ints, pool: ThreadPoolExecutor) -> float:
    """The correlation that 0.1 pairs of different films are expected to reach by chance, clipped to 0.9..0.99.

    Images with a frame, a logo or a shape in common correlate whatever else they show. Fisher's z (artanh of the
    correlation) of pairs drawn at random is assumed normal, with the deviation estimated from its median and its 95th
    percentile: a few duplicates do not change these. Of all n (n - 1) / 2 pairs 0.1 are expected above the quantile
    1 - 0.2 / (n (n - 1)). With fewer than 40 images too many pairs may be duplicates: 0.9.
    """
    if len(rows) < _LEAST_IMAGES:
        return LEAST_CORRELATION
    moving, fixed = rows[np.random.default_rng(0).integers(0, len(rows), (2, _DRAWN_PAIRS))]
    drawn = _Candidates(moving, fixed, np.zeros_like(moving), np.zeros(len(moving), np.float32)).at(moving != fixed)
    z = np.arctanh(np.clip(_correlations(smalls, drawn, pool), -0.999, 0.999))
    middle, high = np.quantile(z, [0.5, _PERCENTILE])
    deviations = NormalDist().inv_cdf(1 - 0.2 / (len(rows) * (len(rows) - 1))) / NormalDist().inv_cdf(_PERCENTILE)
    least = float(np.tanh(middle + deviations * (high - middle)))
    return round(min(max(least, LEAST_CORRELATION), SURE_CORRELATION), 3)


def _candidates(smalls: Smalls, rows: Ints, pool: ThreadPoolExecutor) -> _Candidates:
    """The 8 nearest images of each image, in any variant of it; of a pair found twice, the more similar variant."""
    mean, axes = _whitening(_vectors(smalls, rows, *_VARIANTS[0]))
    queries: list[Floats] = [_unit(np.dot(_vectors(smalls, rows, *one) - mean, axes)) for one in _VARIANTS]
    count = min(CANDIDATES, len(rows) - 1)
    block = max(1, min(_BLOCK, _BLOCK_BYTES // (18 * len(rows))))  # 18: bytes per pair in ``nearest``

    def nearest(start: int) -> tuple[Ints, Ints, Floats]:
        """[B, count] each: places of the nearest, their variant, and the cosine."""
        cosine = queries[0][start : start + block] @ queries[0].T
        which = np.zeros(cosine.shape, dtype=np.int8)
        for number, query in enumerate(queries[1:], start=1):
            other = query[start : start + block] @ queries[0].T
            which[other > cosine] = number
            np.maximum(cosine, other, out=cosine)
        itself = np.arange(len(cosine))
        cosine[itself, start + itself] = -2
        places = np.argpartition(cosine, -count, axis=1)[:, -count:].copy()  # a view would keep the whole row
        return places, np.take_along_axis(which, places, 1).astype(np.int64), np.take_along_axis(cosine, places, 1)

    found = [*pool.map(nearest, range(0, len(rows), block))]
    moving = np.repeat(rows, count)
    fixed = rows[np.concatenate([places.ravel() for places, _, _ in found])]
    variant = np.concatenate([which.ravel() for _, which, _ in found])
    similarity = np.concatenate([cosine.ravel() for _, _, cosine in found])
    order = np.lexsort((-similarity, np.maximum(moving, fixed), np.minimum(moving, fixed)))
    pairs = np.stack([np.minimum(moving, fixed), np.maximum(moving, fixed)])[:, order]
    once = np.append(True, (np.diff(pairs) != 0).any(axis=0))
    return _Candidates(moving, fixed, variant, similarity).at(order[once])


def _vectors(smalls: Smalls, rows: Ints, cropped: float, mirrored: bool) -> Floats:
    """float32 [n, 256]: each image, cropped and mirrored, averaged to 16 x 16 pixels, of mean 0 and length 1."""
    edges = np.linspace(cropped, 1 - cropped, _SIDE + 1)[:, None] * smalls.shape[1]
    pixels = np.arange(smalls.shape[1])
    shares = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None).astype(np.float32)
    vectors = np.empty((len(rows), _SIDE * _SIDE), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        means = shares @ smalls[rows[start : start + _BLOCK]].astype(np.float32) @ shares.T
        vectors[start : start + _BLOCK] = means[:, :, :: -1 if mirrored else 1].reshape(len(means), -1)
    return _unit(vectors - vectors.mean(axis=1, keepdims=True))


def _whitening(vectors: Floats) -> tuple[Floats, Floats]:
    """float32 [256] and [256, K]: the mean, and the 96 largest principal axes divided by their standard deviations.

    Chest X-rays differ little from their mean, and mostly in brightness and width; whitened, all axes count equally
    (Jegou and Chum, Negative evidences and co-occurences in image retrieval, 2012). With fewer than 192 images the
    axes would be noise: vectors stay as they are.
    """
    if len(vectors) < 2 * _COMPONENTS:
        return np.zeros(vectors.shape[1], dtype=np.float32), np.eye(vectors.shape[1], dtype=np.float32)
    some = vectors[:: -(-len(vectors) // _FITTED_ON)]
    variance, axes = np.linalg.eigh(np.cov(some.T, dtype=np.float64))
    variance, axes = variance[-_COMPONENTS:], axes[:, -_COMPONENTS:]
    kept = variance > 1e-6 * max(variance[-1], 1e-12)
    return some.mean(axis=0), np.asarray(axes[:, kept] / np.sqrt(variance[kept]), dtype=np.float32)


def _unit(vectors: Floats) -> Floats:
    """The vectors (last axis) scaled to length 1; those of length 0 stay 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-6), dtype=np.float32)


def _correlations(smalls: Smalls, pairs: _Candidates, pool: ThreadPoolExecutor) -> Floats:
    """float32 [P]: the correlation of the details of each pair after registration."""
    blocks = [pairs.at(slice(start, start + _BLOCK)) for start in range(0, len(pairs.moving), _BLOCK)]
    return np.concatenate([*pool.map(lambda block: _registered(smalls, block), blocks)])


def _registered(smalls: Smalls, pairs: _Candidates) -> Floats:
    """``_correlations`` of a block: at half resolution first, then at full resolution for promising pairs."""
    moving, fixed = _details(smalls[pairs.moving]), _details(smalls[pairs.fixed])
    cropped, mirrored = (np.array(column)[pairs.variant] for column in zip(*_VARIANTS, strict=True))
    moving = np.where(mirrored[:, None, None], moving[:, :, ::-1], moving)
    warp = np.zeros((len(moving), 2, 2), dtype=np.float32)  # of y and x: scale, shift
    warp[:, :, 0] = 1 - 2 * cropped[:, None]
    correlation, warp = _register(_halved(moving), _halved(fixed), warp, _COARSE_STEPS)
    promising = np.flatnonzero(correlation >= _PROMISING)
    if len(promising):
        correlation[promising], _ = _register(moving[promising], fixed[promising], warp[promising], _FINE_STEPS)
    return correlation


def _halved(images: Floats) -> Floats:
    """float32 [n, S / 2, S / 2]: the means of 2 x 2 pixels."""
    rows = images[:, ::2] + images[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / 4, dtype=np.float32)


def _details(smalls: Smalls) -> Floats:
    """float32 [n, S, S]: high-pass, divided by its local standard deviation: contrast and gamma then matter little."""
    blur = gaussian_filter1d(np.eye(smalls.shape[1], dtype=np.float32), _SIGMA, axis=0, mode="nearest")
    details = smalls - blur @ smalls.astype(np.float32) @ blur.T
    return np.asarray(details / np.sqrt(blur @ (details * details) @ blur.T + _NOISE), dtype=np.float32)


def _register(moving: Floats, fixed: Floats, warp: Floats, steps: int) -> tuple[Floats, Floats]:
    """Warp ``moving`` to look like ``fixed``: the highest correlation of all steps (float32 [n]) and the last warp.

    moving, fixed: float32 [n, S, S]. warp: float32 [n, 2, 2], scale and shift of y and of x from fixed to moving image,
    in coordinates from -1 to 1. Gauss-Newton, forwards compositional (Baker and Matthews, Lucas-Kanade 20 years on,
    2004), on images of mean 0 and length 1 in their overlap. An overlap of less than half of the image gives -1.
    """
    size = moving.shape[1]
    place = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    inner = (np.abs(np.arange(size) - (size - 1) / 2) < size * (0.5 - _BORDER)).astype(np.float32)
    highest = np.full(len(moving), -1, dtype=np.float32)
    for step in range(steps + 1):
        pixel = ((warp[..., :1] * place + warp[..., 1:]) + 1) / 2 * size - 0.5  # [n, 2, S]
        weights = np.clip(1 - np.abs(pixel[..., None] - np.arange(size, dtype=np.float32)), 0, None)
        inside = ((pixel >= 0) & (pixel <= size - 1)) * inner
        mask = inside[:, 0, :, None] * inside[:, 1, None, :]
        warped = weights[:, 0] @ moving @ weights[:, 1].transpose(0, 2, 1)  # linear interpolation
        area = np.maximum(mask.sum(axis=(1, 2)), 1)
        left, length = _masked(warped, mask, area)
        right, _ = _masked(fixed, mask, area)
        correlation = np.einsum("ij,ij->i", left, right)
        highest = np.maximum(highest, np.where(area >= _LEAST_OVERLAP * size * size, correlation, -1))
        if step < steps:
            slopes = np.stack(np.gradient(warped, 2 / size, axis=(1, 2)), axis=1) * mask[:, None]  # [n, 2, S, S]
            by_scale = np.stack([slopes[:, 0] * place[:, None], slopes[:, 1] * place], axis=1)
            jacobian = np.stack([by_scale, slopes], axis=2).reshape(len(moving), 4, -1) / length[:, None, None]
            normal = jacobian @ jacobian.transpose(0, 2, 1)
            normal += np.eye(4) * (1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-9)
            change = np.linalg.solve(normal, jacobian @ (right - left)[:, :, None]).reshape(-1, 2, 2)
            change = np.clip(change, -0.06, 0.06)  # no step beyond the range of the linear model
            warp = np.stack(
                [warp[..., 0] * (1 + change[..., 0]), warp[..., 1] + warp[..., 0] * change[..., 1]], axis=-1
            )
    return highest, warp


def _masked(images: Floats, mask: Floats, area: Floats) -> tuple[Floats, Floats]:
    """float32 [n, S * S], of mean 0 and length 1 where the mask is 1, 0 elsewhere; and the divisor [n]."""
    flat = (images * mask).reshape(len(images), -1)
    flat -= (flat.sum(axis=1) / area)[:, None] * mask.reshape(len(images), -1)
    length = np.maximum(np.linalg.norm(flat, axis=1), 1)  # about S for details; only rounding errors for a flat image
    return flat / length[:, None], length
