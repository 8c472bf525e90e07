"""Measurements that take hours, each saved as soon as it is made, so that a stopped benchmark can continue."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.own_process import AT_ONCE, ROOT
from sweep.machine import of_processors
from trainables.atomic import append_line


@dataclass(frozen=True)
class Measurement:
    """A measurement to make, or to take from the results file. expected_s: estimated seconds."""

    case: str
    what: str
    round: int
    expected_s: float
    make: Callable[[], dict[str, Any]]


@dataclass
class Results:
    """The JSON-lines file of results. setup: only measurements with this setup are used."""

    path: Path
    setup: dict[str, Any]
    found: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # The process was killed while writing.
            if one["setup"] == self.setup:
                self._take(one)

    def get(self, one: Measurement) -> dict[str, Any]:
        """The values of a measurement, made now unless the file has it."""
        key = one.case, one.what, one.round
        if key not in self.found:
            print(f"{datetime.now():%H:%M} {one.case}: {one.what}, round {one.round + 1} ...", file=sys.stderr)
            values = {"case": one.case, "what": one.what, "round": one.round, "values": one.make()}
            line = {"setup": self.setup, "commit": _commit(), "date": f"{datetime.now():%Y-%m-%d %H:%M}"} | values
            append_line(self.path, json.dumps(line))
            self._take(line)
        return self.found[key]

    def of(self, case: str, what: str) -> list[dict[str, Any]]:
        """The values of all rounds, in order."""
        return [values for (name, kind, _), values in sorted(self.found.items()) if (name, kind) == (case, what)]

    def _take(self, line: dict[str, Any]) -> None:
        self.found[line["case"], line["what"], line["round"]] = line["values"]
        self.commits.add(line["commit"])


def machine() -> str:
    """Number of cores, CPU model, and torch's version, as text."""
    cpu = next(iter(of_processors("model name")), platform.processor() or platform.machine())
    amx = " with AMX" if any("amx_bf16" in flags for flags in of_processors("flags")) else ""
    return f"{AT_ONCE} cores of {cpu}{amx}, torch {torch.__version__}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
