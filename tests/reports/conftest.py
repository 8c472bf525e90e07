"""Run folders for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run_files import write

from reports.build import build

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """A function that writes a run folder below ``tmp_path`` and returns it; see ``run_files.write``."""
    return lambda name="run", **changes: write(tmp_path / name, **changes)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a report, for tests that only read."""
    root = write(tmp_path_factory.mktemp("built") / "run")
    build(root)
    return root
