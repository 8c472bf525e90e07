"""How to repeat the run: command, settings, versions, hashes, and every opening of the test split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reports import formats
from reports.blocks import Block, Code, Facts, Folded, Note, Text
from reports.results import Results

_SHOWN_ELSEWHERE = {"weights", "missing_weights"}
_NOT_SETTINGS = {"command", "study_rows", "study_rows_left_out"}


def chapter(results: Results) -> list[Block]:
    run = results.data.run
    sweep = run.sweep
    blocks: list[Block] = []
    if command := formats.sweep_command(sweep):
        blocks += [Text("Repeat the run with this command on the same data and code:"), Code(command)]
    else:
        text = "sweep.json does not contain the command; the settings below were used."
        blocks.append(Note("info", text))
    seed = "?" if sweep.seed is None else sweep.seed
    text = (
        f"Seed {seed}. Without --deterministic, concurrent trials reach the sampler in varying order: the "
        "configurations tried, and the best one, may differ."
    )
    if sweep.deterministic:
        text = f"Deterministic, seed {seed}: a repeat tries the same configurations and prunes the same trials."
    blocks.append(Text(f"{text} manifest.json lists the SHA-256 of every file of the report."))
    versions = _flat(run.provenance.model_dump(exclude=_SHOWN_ELSEWHERE, exclude_defaults=True))
    facts = [("Data fingerprint", results.data.dataset.fingerprint or "not recorded"), *versions]
    if not versions:
        blocks.append(Note("info", "provenance.json is missing: code version and hardware are not known."))
    blocks.append(Folded("Code, machine and data", (Facts(tuple(facts)),)))
    settings = {key: value for key, value in sweep.settings.items() if key not in _NOT_SETTINGS}
    blocks.append(Folded("All settings", (Facts(tuple(_flat(settings))),)))
    if openings := results.data.finals.test_access:
        what = "{} images, winner {}, finalists {}"
        rows = tuple(
            (formats.moment(one.opened), what.format(one.images or "?", one.winner, ", ".join(one.finalists)))
            for one in openings
        )
        blocks += [Text("The test split was opened at these times (finalists/test_access.jsonl):"), Facts(rows)]
    return blocks


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(map(_text, value)) or "none"))
        elif name.endswith("_bytes") and isinstance(value, int):
            rows.append((name.removesuffix("_bytes"), f"{value / 2**30:.1f} GiB"))
        else:
            rows.append((name, _text(value)))
    return rows


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
