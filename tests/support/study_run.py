"""Run folders of a repeated study, for tests of its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from search_spaces.studies import rows_of
from sweep.run_folder import RunPaths


def write_study(write_run: Callable[..., Path], study: str, ids: Sequence[str], **changes: Any) -> Path:
    """A run whose trials 0, 1, .. have the parameters of the rows ``ids`` of ``study``."""
    rows = {row.id: row for row in rows_of(study)}
    asked = [{"id": name, "number": number, "epochs": rows[name].epochs} for number, name in enumerate(ids)]
    sweep = {"space": f"studies.{study}", "study_rows": asked} | changes.pop("sweep", {})
    root = write_run(trials=len(ids), statuses=("completed",), sweep=sweep, **changes)
    for number, name in enumerate(ids):
        path = RunPaths(root).trial(f"t{number:05d}").params
        saved = json.loads(path.read_text())
        path.write_text(json.dumps(saved | {"params": rows[name].params.to_flat()}))
    return root
