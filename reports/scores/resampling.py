"""Bootstrap resamples of patients, drawn once so that every network is scored on the same ones.

The images of one patient are not independent, so whole patients are drawn, with replacement, as many as there are
(Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8: resampling of clusters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A set so poor in some class that fewer than one draw in fifty has every class gets fewer replicates, not a long wait.
_DRAWS_PER_REPLICATE = 50
_ROUND = 256
_MOST_LEFT_OUT = 1000


@dataclass(frozen=True)
class Resamples:
    """What was drawn. G groups in order of their first image, N images, B replicates.

    counts: uint16 [B, G], how often a replicate has each group; a row sums to G. member: int64 [N] in 0..G-1, the
    group of each image. redrawn: replicates that lacked a class and were drawn anew. named: whether any image has a
    group of a name, that is, whether groups are patients rather than single images.
    """

    counts: NDArray[np.uint16]
    member: NDArray[np.int64]
    redrawn: int
    named: bool

    @property
    def replicates(self) -> int:
        return len(self.counts)

    @property
    def groups(self) -> int:
        return int(self.counts.shape[1])

    @property
    def one_image_each(self) -> bool:
        """Whether every group has one image, as Wilson's interval and McNemar's test require."""
        return self.groups == len(self.member)

    @property
    def left_out(self) -> NDArray[np.uint16]:
        """uint16 [J, G]: the jackknife, a row for each group with that group left out; none where G is 1.

        Above 1000 groups they are left out in as many blocks drawn by chance: the acceleration of an interval, for
        which alone the rows are used, is the same in expectation (skewness falls with the root of a block's size
        as the root of their number does).
        """
        rows = min(self.groups, _MOST_LEFT_OUT) if self.groups > 1 else 0
        block = np.random.default_rng(0).permutation(self.groups) % max(1, rows)
        rest: NDArray[np.uint16] = (block[None, :] != np.arange(rows)[:, None]).astype(np.uint16)
        return rest

    def groups_with(self, chosen: NDArray[np.bool_]) -> int:
        """How many groups have an image among ``chosen``, bool [N]."""
        return len(np.unique(self.member[chosen]))


def draw_resamples(
    groups: Sequence[str], labels: NDArray[Any], class_count: int, *, replicates: int = 2000, seed: int = 0
) -> Resamples:
    """Draw groups with replacement until ``replicates`` of the draws have every class.

    groups: [N], "" = a group of its own. labels: int [N] in 0..class_count-1, or 0/1 [N, class_count] (multi-label).
    A draw counts if it has every class (multi-label: an image with and an image without every label) that the images
    themselves have; others are drawn anew and counted. Where hardly any draw does (about one in fifty), there are
    fewer than ``replicates``, perhaps none. The same arguments give the same resamples.
    """
    member = _member(groups)
    group_count = int(member.max()) + 1
    assert len(labels) == len(member), "one label and one group an image"
    needed = _needed(labels, class_count, member, group_count)
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.uint16]] = []
    have = drawn = 0
    while have < replicates and drawn < _DRAWS_PER_REPLICATE * replicates:
        counts = _draw(rng, _ROUND, group_count)
        whole = np.flatnonzero(((counts @ needed) > 0).all(axis=1))[: replicates - have]
        # Draws after the last one needed were never looked at: they are not "redrawn".
        drawn += int(whole[-1]) + 1 if have + len(whole) == replicates and len(whole) else _ROUND
        have += len(whole)
        kept.append(counts[whole].astype(np.uint16))
    return Resamples(
        counts=np.concatenate(kept) if kept else np.zeros((0, group_count), dtype=np.uint16),
        member=member,
        redrawn=drawn - have,
        named=any(groups),
    )


def _member(groups: Sequence[str]) -> NDArray[np.int64]:
    """int64 [N]: groups numbered in order of their first image."""
    number: dict[tuple[str, int], int] = {}
    keys = ((name, 0) if name else ("", index + 1) for index, name in enumerate(map(str, groups)))
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def _needed(labels: NDArray[Any], class_count: int, member: NDArray[np.int64], groups: int) -> NDArray[np.float32]:
    """float32 [G, K]: 1 where a group has an image of the k-th kind that every replicate must have."""
    if labels.ndim == 1:
        kinds = np.equal(labels[:, None], np.arange(class_count))
    else:
        kinds = np.concatenate([labels == 1, labels == 0], axis=1)
    needed = np.zeros((groups, kinds.shape[1]), dtype=np.float32)
    np.maximum.at(needed, member, kinds.astype(np.float32))
    return needed[:, kinds.any(axis=0)]


def _draw(rng: np.random.Generator, replicates: int, groups: int) -> NDArray[np.float32]:
    """float32 [replicates, groups] of multinomial counts."""
    drawn = rng.integers(0, groups, size=(replicates, groups)) + np.arange(replicates)[:, None] * groups
    return np.bincount(drawn.ravel(), minlength=replicates * groups).reshape(replicates, groups).astype(np.float32)
