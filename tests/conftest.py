"""What tests of several packages need: the real X-rays and weights, where they are, and images learnt in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# No test depends on the machine's speed: neither on how long an example takes, nor on how long it takes to draw one.
settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")


LONGEST = (  # minutes each, the longest first
    *("cluster/test_three_hosts.py", "trainables/test_frozen_features.py", "system/test_whole_sweep.py"),
    *("system/test_public_sets.py", "benchmarks/test_tutorial.py", "cluster/test_two_nodes.py"),
    *("system/test_retry.py", "cluster/test_lost_cluster.py", "reports/test_build.py", "system/test_full_disk.py"),
    *("system/test_failing_trials.py", "sweep/test_ten_points.py", "benchmarks/test_gpu.py"),
    *("system/test_from_python.py", "sweep/test_optuna_search.py", "trainables/test_trial.py"),
    *("trainables/test_export.py", "system/test_report_in_browser.py", "system/test_use_the_model.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of two processes, neither is left with one of them at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: small networks on two processes would fight over the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the real X-rays and pretrained weights: ``$SHARED_DIR``, or ``../shared`` of the checkout."""
    folder = Path(os.environ.get("SHARED_DIR", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data" / "xray_a" / "manifest.csv").exists():
        pytest.skip(f"the real X-rays are not at {folder}: set SHARED_DIR to the folder that holds data/ and weights/")
    return folder


@pytest.fixture(scope="session")
def layouts(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of public data sets that were made by others, and expected.json: what is right for each."""
    out = tmp_path_factory.mktemp("layouts")
    subprocess.run([sys.executable, shared_dir / "tools" / "public_layouts.py", out], check=True, capture_output=True)
    return out


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
