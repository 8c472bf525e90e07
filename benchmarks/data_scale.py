"""Time and memory of the checks of as many images as NIH ChestX-ray14 has: at most 10 minutes and 4 GB.

The images are generated at the small size at which the checks compare them, and are as similar as chest X-rays: in a
public collection of 1,123 images (630,003 pairs) the pixels of 0.11 % of the pairs correlate by 0.9, and of 0.0013 % by
0.95. Some are copies, mirrored and slightly changed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.fft import idctn

from benchmarks.own_process import AT_ONCE, answer_of
from benchmarks.table import Row

IMAGES, COPIES = 112_120, 1_000
LIMIT_S, LIMIT_MB = 600.0, 4_000.0
_SMOOTH = 12  # frequencies per side that differ between images
_CHEST, _SPREAD = 3_000.0, 8_000.0


def measure(quick: bool) -> list[Row]:
    images = 3_000 if quick else IMAGES
    seconds, megabytes, found = answer_of("benchmarks.data_scale", images)
    name = f"checks of {images:,} images, near duplicates included"
    return [
        Row(name, seconds, "s", LIMIT_S),
        Row(f"{name}: peak memory", megabytes, "MB", LIMIT_MB),
        Row("  copies found, a share", found, "", 0.99, at_least=True),
    ]


def cost(images: int) -> tuple[float, float, float]:
    """Seconds of the checks, peak memory of this process in MB, and the share of the changed copies found."""
    from trainables.data.checks import examine
    from trainables.data.image import ImageStats
    from trainables.data.near_duplicates import find_near_pairs
    from trainables.data.samples import SPLITS, Samples

    chance = np.random.default_rng(0)
    smalls = draw_alike(images, chance)
    copied, copies = chance.permutation(images)[: 2 * COPIES].reshape(2, -1)
    smalls[copies] = np.clip(smalls[copied, :, ::-1] * 0.95 + 4, 0, 255)
    stats = [ImageStats(pixel_hash=f"{row:032x}") for row in range(images)]
    splits = chance.choice(SPLITS, images, p=(0.7, 0.15, 0.15))
    samples = Samples(
        kind="table",
        path="Data_Entry_2017.csv",
        task="multi_label",
        classes=tuple(f"finding {number}" for number in range(14)),
        paths=tuple(f"images_{row // 10_000:03d}/{row:08d}_000.png" for row in range(images)),
        files=(),
        labels=(chance.random((images, 14)) < 0.05).astype(np.int8),
        splits=tuple(splits),
        group_from="Patient ID",
        groups=tuple(map(str, chance.integers(0, images // 4, images))),
        sources=tuple(map(str, chance.integers(0, 3, images))),
    )
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        near = find_near_pairs(smalls, np.arange(images), np.arange(images), pool)
    examine(samples, stats, near, splits)
    seconds = time.monotonic() - began
    wanted = {(min(pair), max(pair)) for pair in zip(copied.tolist(), copies.tolist(), strict=True)}
    found = wanted & {(pair.first, pair.second) for pair in near.pairs}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return seconds, peak_mb, len(found) / len(wanted)


def draw_alike(images: int, chance: np.random.Generator) -> np.ndarray:
    """uint8 [N, 56, 56]: one common chest, plus fields with amplitude falling with frequency squared, plus noise."""
    frequency = 1 + np.hypot(*np.mgrid[:_SMOOTH, :_SMOOTH])
    chest = chance.standard_normal((_SMOOTH, _SMOOTH)) * _CHEST / frequency
    smalls = np.empty((images, 56, 56), dtype=np.uint8)
    for start in range(0, images, 2_000):
        part = smalls[start : start + 2_000]
        spectrum = np.zeros((len(part), 56, 56), dtype=np.float32)
        fields = chance.standard_normal((len(part), _SMOOTH, _SMOOTH)) * _SPREAD / frequency**2
        spectrum[:, :_SMOOTH, :_SMOOTH] = chest + fields
        noise = chance.normal(0, 3, part.shape)
        part[:] = np.clip(128 + idctn(spectrum, axes=(1, 2), norm="ortho") + noise, 0, 255)
    return smalls


if __name__ == "__main__":
    print(json.dumps(cost(int(sys.argv[1]))))
