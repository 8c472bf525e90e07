"""Data that a whole sweep learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 32 px in three classes that differ in brightness, with noise: train 48, val 24, test 12."""
    root = tmp_path_factory.mktemp("small data")
    chance = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8), ("test", 4)):
        for level, name in ((70, "dark"), (120, "gray"), (170, "bright")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(chance.normal(level, 45, (32, 32)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name} {number}.png")
    return root
