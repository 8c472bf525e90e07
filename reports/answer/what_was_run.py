"""What was run, on what, with what end and for how long: pairs of a name and its value."""

from __future__ import annotations

from datetime import datetime

from reports.data import ReportData
from reports.page import formats, wording
from reports.trials import tables
from sweep.records import Finals


def facts(evidence: ReportData) -> list[tuple[str, str]]:
    sweep, dataset = evidence.run.sweep, evidence.dataset
    counts = tables.status_counts(evidence.trials)
    source = dataset.get("source") or {}
    images = dataset.get("images") or {}
    data = (
        "the built-in demo set"
        if source.get("kind") == "demo"
        else str(source.get("path") or sweep.get("data") or "unknown")
    )
    budget = f", at most {sweep['epochs']} epochs a trial" if sweep.get("epochs") else ""
    search = f"space {sweep.get('space', '?')}, sampler {sweep.get('sampler', '?')}, "
    search += f"scheduler {sweep.get('scheduler', '?')}{budget}"
    many = f"{len(evidence.classes)}, listed below"
    classes = wording.listing(evidence.classes) if len(evidence.classes) <= 8 else many
    better = "higher" if evidence.mode == "max" else "lower"
    return [
        (
            "Trials",
            f"{counts['completed']} completed, {counts['pruned']} pruned, {counts['failed']} failed, "
            f"{counts['running']} running",
        ),
        ("Search", search),
        ("Selected by", f"{wording.metric_name(evidence.metric)} ({better} is better)"),
        *(_finals(evidence.run.finals) if evidence.run.finals is not None else ()),
        ("Data", data),
        ("Images", ", ".join(f"{split} {number:,}" for split, number in images.items()) or "unknown"),
        ("Classes", classes or "unknown"),
        ("Image size", f"{dataset.get('image_size', '?')} px"),
        ("Machine", _machine(evidence)),
        ("Began", wording.moment(sweep.get("created"))),
        ("Took", _took(sweep.get("created"), sweep.get("ended"))),
        ("Time in trials", _time_in_trials(evidence)),
    ]


def _finals(finals: Finals) -> list[tuple[str, str]]:
    """What was trained again, when the winner was fixed, and when the test split was opened."""
    every = [repeat for one in finals.finalists for repeat in one.repeats]
    asked = finals.asked * len(finals.finalists)
    ended = sum(len(one.ended) for one in finals.finalists)
    failed = sum(repeat.status == "failed" for repeat in every)
    cells = sum(one.role == "compare" for one in finals.finalists)
    finalists = len(finals.finalists) - cells
    what = f"{finalists} finalist{'s' * (finalists != 1)}"
    what += f" and the best of {cells} more cell{'s' * (cells > 1)}" if cells else ""
    how = f"in {finals.folds} folds" if finals.folds else f"with {finals.asked} fresh seed{'s' * (finals.asked != 1)}"
    left = asked - ended - failed
    rest = (f", {failed} failed" if failed else "") + (f", {left} not ended" if left else "")
    opened = "no"
    if finals.test_access:
        opened = wording.moment(finals.test_access[-1].get("opened"))
        opened += f", for the {_ordinal(len(finals.test_access))} time" if len(finals.test_access) > 1 else ", once"
    return [
        ("Trained again", f"{what} {how}: {ended} of {asked} trainings ended{rest}"),
        ("Winner fixed", wording.moment(finals.decided) if finals.decided else "not yet"),
        ("Test split opened", opened),
    ]


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _machine(evidence: ReportData) -> str:
    facts = evidence.run.provenance
    gpus = [str(name) for name in facts.get("gpus") or ()]
    parts = [wording.listing(gpus)] if gpus else ["no GPU"]
    if facts.get("cpus"):
        parts.append(f"{facts['cpus']} CPUs" + (f" ({facts['cpu']})" if facts.get("cpu") else ""))
    if isinstance(facts.get("memory_bytes"), int | float):
        parts.append(f"{facts['memory_bytes'] / 2**30:.0f} GiB of memory")
    return ", ".join(parts) if facts else "unknown"


def _took(created: object, finished: object) -> str:
    try:
        seconds = (datetime.fromisoformat(str(finished)) - datetime.fromisoformat(str(created))).total_seconds()
    except (TypeError, ValueError):
        return "no end recorded"
    return formats.duration(seconds)


def _time_in_trials(evidence: ReportData) -> str:
    text = formats.show("duration", float(evidence.trials["seconds"].sum()))
    if evidence.run.finals is None:
        return text
    repeats = [repeat for one in evidence.run.finals.finalists for repeat in one.repeats]
    seconds = sum(float(epoch.get("epoch_seconds") or 0.0) for repeat in repeats for epoch in repeat.epochs)
    return f"{text} in the search, {formats.duration(seconds)} in repeats"
