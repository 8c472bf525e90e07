"""A folder of gray JPEGs for benchmarks: smooth noise, no two alike, quick to generate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cloudy", "hazy", "overcast")
COARSE = 12
"""Pixels per side before enlarging: enough variation that no two images are near duplicates."""


def draw_images(folder: Path, counts: dict[str, int], size: int, seed: int = 0) -> None:
    """Write ``counts[split]`` images of ``size`` x ``size`` below ``folder``/split/class, alternating the classes."""
    chance = np.random.default_rng(seed)
    for split, count in counts.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
        for number in range(count):
            coarse = Image.fromarray(chance.integers(0, 256, (COARSE, COARSE), dtype=np.uint8))
            path = folder / split / CLASSES[number % len(CLASSES)] / f"{number:05d}.jpg"
            coarse.resize((size, size), Image.Resampling.BILINEAR).save(path, quality=75)
