"""The model file and how to use it."""

from __future__ import annotations

import shlex
from pathlib import Path

from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, Command, FactList, Heading, Note, Text


def blocks(evidence: ReportData, origin: str) -> list[Block]:
    """Where the model is, the command to use it, and the lines that load it elsewhere. origin: which network it is."""
    files = evidence.run.paths.models
    place = Path(str(evidence.run.sweep.get("storage") or "runs")) / evidence.name
    found: list[Block] = [Heading("The model")]
    if not is_written(evidence):
        found.append(Note("info", "models/best.pt is not written. This makes it from the weights on disk:"))
        return [*found, Command(f"python -m sweep.model {shlex.quote(str(place))}")]
    onnx = (files / "best.onnx").is_file()
    rows = [("File", "models/best.pt" + (", and models/best.onnx for onnxruntime" if onnx else ""))]
    rows += [("Which network", origin)] if origin else []
    rounding = wording.rounding(evidence.run.sweep)
    found += [FactList(tuple(rows)), *([Text(rounding)] if rounding else []), Text("To predict other images with it:")]
    found.append(Command(f"python -m sweep.predict {shlex.quote(str(place))} IMAGES"))
    loading = str(evidence.run.model.get("loading") or "")
    if loading:
        found += [Text("To load it without this project, with torchvision alone:"), Command(loading)]
    return found


def is_written(evidence: ReportData) -> bool:
    return (evidence.run.paths.models / "best.pt").is_file()
