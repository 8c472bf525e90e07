"""Real files made on the spot: what the tests of data sets build on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def draw() -> Callable[..., Path]:
    """``draw(path, seed, size=24, mode="L")`` saves an image of smooth noise, different for each seed."""

    def draw_one(path: Path, seed: int, size: int = 24, mode: str = "L", **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = 1 if mode == "L" else 3
        values = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
        image = Image.fromarray(values[..., 0] if mode == "L" else values)
        image.resize((size, size), Image.Resampling.BICUBIC).save(path, **options)
        return path

    return draw_one


@pytest.fixture
def split_folder(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """``train|val|test/<class>/*.png``: two classes, 12 + 4 + 4 images each, all different."""
    root = tmp_path / "xrays"
    seed = 0
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("ill", "well"):
            for number in range(count):
                draw(root / split / name / f"{number:02d}.png", seed)
                seed += 1
    return root
