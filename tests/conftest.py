"""What every test may need: the real X-rays and weights, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the real X-rays and pretrained weights: ``$SHARED_DIR``, or ``../shared`` of the checkout."""
    folder = Path(os.environ.get("SHARED_DIR", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data" / "xray_a" / "manifest.csv").exists():
        pytest.skip(f"the real X-rays are not at {folder}: set SHARED_DIR to the folder that holds data/ and weights/")
    return folder
