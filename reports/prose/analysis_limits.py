"""Rules on what weakens the result: rare classes, few patients, seeds, repeats that failed, a test split seen twice."""

from __future__ import annotations

from reports.page import formats, wording
from reports.prose.analysis_facts import Facts, Finding, in_sentence, known
from reports.scores.statistics import FEW_GROUPS, interval

WIDE = 0.2


def rarest_class(facts: Facts) -> list[Finding]:
    """The class with the fewest images on the judging split: how much of it is found."""
    runs, scores = facts.runs, facts.scores
    if runs is None or scores is None or len(runs.classes) < 2:
        return []
    counts = {
        name: int((runs.labels[:, place] if runs.labels.ndim == 2 else runs.labels == place).sum())
        for place, name in enumerate(runs.classes)
    }
    name = min(counts, key=lambda one: (counts[one], one))
    found = interval(scores, f"recall:{name}")
    if not counts[name] or not known(found.low):
        return [Finding("limit", f"No recall can be given for {name}, the rarest class ({counts[name]} images).")]
    unit = f"{counts[name]} images"
    if runs.resamples.named and not runs.resamples.one_image_each:
        unit += f" of {scores.positives[name]} patients"
    text = f"Of {name}, the rarest class ({unit}), {formats.percent(found.estimate)} are found "
    text += f"({formats.percent(found.low)} to {formats.percent(found.high)})."
    if found.high - found.low > WIDE:
        return [Finding("limit", f"{text} An interval so wide ranks no two networks by this class.")]
    return [Finding("shown" if facts.split == "test" else "open", text)]


def never_predicted(facts: Facts) -> list[Finding]:
    runs, scores = facts.runs, facts.scores
    if runs is None or scores is None:
        return []
    # Neither an image of it nor any other is decided so.
    unfound = [name for name in runs.classes if scores.estimate[f"recall:{name}"] == 0]
    never = [name for name in unfound if scores.estimate[f"specificity:{name}"] == 1]
    if not never:
        return []
    split = wording.SPLIT_NAMES[facts.split or "val"]
    return [Finding("limit", f"On {split}, {wording.listing(never)} is never the answer.")]


def seeds(facts: Facts) -> list[Finding]:
    """How far the repeats of the shown configuration differ."""
    if facts.scores is None or len(facts.scores.by_run[facts.metric]) < 2:
        return []
    values = [float(value) for value in facts.scores.by_run[facts.metric]]
    span = f"{formats.score(min(values))} to {formats.score(max(values))}"
    text = f"The seed alone moved the {facts.metric_words} of {in_sentence(facts.title)} from {span} "
    text += f"({len(values)} repeats). Intervals are over patients: this comes on top."
    return [Finding("limit", text)]


def few_patients(facts: Facts) -> list[Finding]:
    """Where intervals are too narrow to be trusted."""
    if facts.runs is None or facts.scores is None or facts.split is None:
        return []
    resamples = facts.runs.resamples
    unit = "patients" if resamples.named else "images"
    few = [name for name, count in facts.scores.positives.items() if count < FEW_GROUPS]
    if not few:
        return []
    counted = wording.listing(f"{name} ({facts.scores.positives[name]})" for name in few)
    split = wording.SPLIT_NAMES[facts.split]
    return [
        Finding(
            "limit",
            f"The {split} split has fewer than {FEW_GROUPS} {unit} with {counted}: its intervals are too narrow.",
        )
    ]


def test_access(facts: Facts) -> list[Finding]:
    finals = facts.evidence.run.finals
    if finals is None or len(finals.test_access) < 2:
        return []
    text = f"The test split was opened {len(finals.test_access)} times: what was changed after the first look may be fitted "
    return [Finding("limit", text + "to it, and its scores are then optimistic.")]


def lost_repeats(facts: Facts) -> list[Finding]:
    finals = facts.evidence.run.finals
    if finals is None:
        return []
    short = [one for one in finals.finalists if len(one.ended) < finals.asked]
    if not short:
        return []
    listed = wording.listing(f"trial {one.number} ({len(one.ended)} of {finals.asked})" for one in short)
    return [Finding("limit", f"Not all repeats ended: {listed}. Their means rest on fewer.")]


RULES = (rarest_class, never_predicted, seeds, few_patients, test_access, lost_repeats)
