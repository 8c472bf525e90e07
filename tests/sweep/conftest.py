"""The spaces that the tests of the sweep search."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from toy_sweep import CONTEXT

from search_spaces.space import Space, load_space


@pytest.fixture(scope="session")
def wide_space() -> Space:
    return load_space("partial_unfreeze", CONTEXT)


@pytest.fixture
def finite_space(tmp_path: Path) -> Space:
    """Six configurations."""
    path = tmp_path / "finite.py"
    path.write_text(
        "def space(trial, context):\n"
        "    trial.suggest_categorical('backbone', context.backbones)\n"
        "    trial.suggest_int('unfreeze_depth', 0, 1)\n"
        "    return {}\n"
    )
    return load_space(str(path), CONTEXT)


@pytest.fixture
def soon_exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the 21st draw on a finite space is enumerated: 20 more are enough to see that it holds nothing new."""
    monkeypatch.setattr("sweep.optuna_search.RANDOM_DRAWS", 20)


@pytest.fixture(autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
