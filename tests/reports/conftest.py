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
from run_files import WriteRun, write

from reports import bootstrap
from reports.build import build
from reports.drawing import Drawing

DRAWN_ANEW, SCORED_ANEW = Drawing.__dict__["saved"], bootstrap.weighted_scores


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


@pytest.fixture(scope="session")
def remembered() -> tuple[Any, Any]:
    """For ``weighted_scores`` and ``Drawing.saved``: those that compute what follows from the same facts once."""
    score = once(_scored, most=60)
    draw = once(lambda facts, drawing: DRAWN_ANEW.func(drawing), most=600)

    def saved(drawing: Drawing) -> Any:
        make: Any = drawing._draw
        if not isinstance(make, partial):
            return DRAWN_ANEW.func(drawing)
        return draw((make.func.__module__, make.func.__qualname__, make.args, make.keywords), drawing)

    drawn = cached_property(saved)
    drawn.__set_name__(Drawing, "saved")
    return (lambda *args, **keywords: score((args, keywords))), drawn


@pytest.fixture(scope="module", autouse=True)
def computed_once(remembered: tuple[Any, Any]) -> Iterator[None]:
    """Figures, and scores of resamples, of the same facts: all that they follow from is in their arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "weighted_scores", remembered[0])
        patch.setattr(Drawing, "saved", remembered[1])
        yield


@pytest.fixture
def computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time, as in a report."""
    monkeypatch.setattr(bootstrap, "weighted_scores", SCORED_ANEW)
    monkeypatch.setattr(Drawing, "saved", DRAWN_ANEW)


def _scored(facts: Any) -> dict[str, Any]:
    found = SCORED_ANEW(*facts[0], **facts[1])
    for values in found.values():
        values.flags.writeable = False  # They are other tests', too.
    return found


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
