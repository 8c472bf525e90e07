"""Section 8: how to repeat this run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, Command, FactList, Heading, Note, Section, Text

_SHOWN_ELSEWHERE = ("weights", "missing_weights")
_NOT_SETTINGS = ("command", "study_rows", "study_rows_left_out")


def section(evidence: ReportData) -> Section:
    sweep, provenance = evidence.run.sweep, evidence.run.provenance
    blocks: list[Block] = []
    command = wording.sweep_command(sweep)
    if command:
        blocks += [Text("The same command on the same data and code:"), Command(command)]
    else:
        blocks.append(
            Note("info", "sweep.json does not hold the command; the settings below are those that were used.")
        )
    if sweep.get("deterministic"):
        blocks.append(Text(f"Deterministic, seed {sweep.get('seed', '?')}: the same configurations, the same stops."))
    else:
        blocks.append(
            Text(
                f"Seed {sweep.get('seed', '?')}. Without --deterministic, trials that run side by side reach the "
                "sampler in another order each time: the configurations tried may differ, and so may the best one."
            )
        )
    facts = [("Data fingerprint", str(evidence.dataset.get("fingerprint") or "not recorded"))]
    facts += _flat({key: value for key, value in provenance.items() if key not in _SHOWN_ELSEWHERE})
    blocks += [Heading("Code, machine and data"), FactList(tuple(facts))]
    if not provenance:
        blocks.append(Note("info", "provenance.json is missing: code version and hardware are not known."))
    settings = {key: value for key, value in sweep.items() if key not in _NOT_SETTINGS}
    blocks += [Heading("All settings"), FactList(tuple(_flat(settings)))]
    blocks.append(Text("manifest.json beside this page holds the SHA-256 of every file of the report."))
    return Section("repeat", "How to repeat it", tuple(blocks))


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
