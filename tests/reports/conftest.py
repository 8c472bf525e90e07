"""Run folders for the tests, and what takes most of a report's time, once for the same facts in all of a process."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
from run_files import write

from reports import bootstrap
from reports.build import build
from reports.drawing import Drawing

WriteRun = Callable[..., Path]
DRAWN_ANEW = Drawing.__dict__["saved"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, Any]], Path]:
    """A function that writes a run folder of a name, or finds the same one that is there; nobody may change it."""
    known: dict[tuple[str, str], Path] = {}

    def find(name: str, changes: dict[str, Any]) -> Path:
        key = (name, repr(changes))
        if key not in known:
            known[key] = write(tmp_path_factory.mktemp("written") / name, **changes)
        return known[key]

    return find


@pytest.fixture
def write_run(tmp_path: Path, written: Callable[[str, dict[str, Any]], Path]) -> WriteRun:
    """A function that makes a run folder below ``tmp_path`` and returns it; see ``run_files.write``."""
    return lambda name="run", **changes: shutil.copytree(written(name, changes), tmp_path / name)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a report, for tests that only read."""
    root = write(tmp_path_factory.mktemp("built") / "run")
    build(root)
    return root


@pytest.fixture(scope="session", autouse=True)
def computed_once() -> Iterator[None]:
    """Figures, and scores of resamples, of the same facts: all that they follow from is in their arguments."""
    weighted_scores = bootstrap.weighted_scores
    score = once(lambda facts: weighted_scores(*facts[0], **facts[1]), most=60)
    draw = once(lambda facts, drawing: DRAWN_ANEW.func(drawing), most=600)

    def saved(drawing: Drawing) -> Any:
        make: Any = drawing._draw
        if not isinstance(make, partial):
            return DRAWN_ANEW.func(drawing)
        return draw((make.func.__module__, make.func.__qualname__, make.args, make.keywords), drawing)

    drawn = cached_property(saved)
    drawn.__set_name__(Drawing, "saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "weighted_scores", lambda *args, **keywords: score((args, keywords)))
        patch.setattr(Drawing, "saved", drawn)
        yield


def once(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    """``function``, whose answers follow from its first argument, not called again for the last ``most`` of these."""
    known: dict[bytes, Any] = {}

    def call(facts: Any, *more: Any) -> Any:
        try:
            key = hashlib.sha256(pickle.dumps(facts)).digest()
        except (AttributeError, TypeError, pickle.PicklingError):
            return function(facts, *more)
        known[key] = known.pop(key) if key in known else function(facts, *more)
        if len(known) > most:
            del known[next(iter(known))]
        return known[key]

    return call


@pytest.fixture
def drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time."""
    monkeypatch.setattr(Drawing, "saved", DRAWN_ANEW)
