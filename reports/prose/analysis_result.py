"""Rules on the result: what the scores of the shown configuration support. Each speaks, or returns nothing."""

from __future__ import annotations

import dataclasses
import math
import statistics

from scipy.stats import t as student

from reports.page import formats, wording
from reports.prose.analysis_facts import Facts, Finding, capital, in_sentence, known
from reports.scores.finals import ConfigurationResult
from reports.scores.interval_cells import as_text
from reports.scores.paired import Comparison
from reports.scores.resampled_scores import score_runs
from reports.scores.resampling import draw_resamples
from reports.scores.shown import runs_on
from reports.scores.statistics import Interval, interval
from reports.trials import data_tables

TRAIN_REPLICATES = 400


def against_others(facts: Facts) -> list[Finding]:
    """The winner against each other finalist, by the corrected paired comparison."""
    standing = facts.standing
    if standing is None or standing.winner is None or not standing.runners_up:
        return []
    found = []
    by_verdict: dict[int | None, list[tuple[ConfigurationResult, Comparison | None]]] = {}
    for one in standing.runners_up:
        lead = standing.leads.get(one.trial_id)
        by_verdict.setdefault(standing.verdict(lead), []).append((one, lead))
    if 1 in by_verdict:
        others = wording.listing(f"{one.title} by {_lead(lead)}" for one, lead in by_verdict[1])
        text = f"{facts.title} has a better {facts.metric_words} than {others}."
        if standing.split == "val":
            text += " That is on the images on which it was chosen: the test split would have to confirm it."
        found.append(Finding("shown" if standing.split == "test" else "open", text))
    if -1 in by_verdict:
        others = wording.listing(f"{one.title}: {_lead(lead)}" for one, lead in by_verdict[-1])
        text = f"{facts.title} has a worse {facts.metric_words} than another finalist ({others}). "
        found.append(Finding("shown", text + "It was chosen on validation beforehand, and the choice stands."))
    if 0 in by_verdict:
        others = wording.listing(f"{one.title} ({_lead(lead)})" for one, lead in by_verdict[0])
        text = (
            f"{facts.title} cannot be told apart from {others}: each interval holds 0, or chance cannot be ruled out "
        )
        found.append(Finding("open", text + "after correction. Any of them may be the best."))
    if None in by_verdict:
        others = wording.listing(one.title for one, _ in by_verdict[None])
        found.append(Finding("open", f"{facts.title} could not be compared with {others} on the same images."))
    return found


def unrepeated(facts: Facts) -> list[Finding]:
    """Where nothing was repeated, the search's ranking is all there is."""
    finals = facts.evidence.run.finals
    ranked = facts.evidence.ranked
    if (finals is not None and finals.decided) or len(ranked) < 2:
        return []
    first, second = ranked.iloc[0], ranked.iloc[1]
    gap = abs(first["score"] - second["score"])
    text = f"No winner was decided between repeats: trial {first['number']:.0f} leads trial {second['number']:.0f} by "
    text += f"{formats.score(gap)}, one run each"
    own = interval(facts.scores, facts.metric) if facts.scores is not None and facts.split == "val" else None
    if own is not None and known(own.low) and own.low <= second["score"] <= own.high:
        text += f", and the second lies within the interval of the first, {_plain(own)}"
    return [Finding("open", text + ". Which configuration is best is not known.")]


def score(facts: Facts) -> list[Finding]:
    """The score itself, with its interval."""
    if facts.scores is None:
        return []
    found = interval(facts.scores, facts.metric)
    if not known(found.estimate):
        return []
    runs = len(facts.scores.by_run[facts.metric])
    mean = f", the mean of {runs} repeats" if runs > 1 else ""
    text = f"{facts.title} has a {facts.metric_words} of {_plain(found)}{mean}."
    text += f" ({capital(found.warning)}.)" if found.warning else ""
    text += "" if facts.split == "test" else " It was chosen on these images, which flatters it."
    return [Finding("shown" if facts.split == "test" and known(found.low) else "open", text)]


def against_guessing(facts: Facts) -> list[Finding]:
    """Whether anything was learned: balanced accuracy, which no answer without a look at the image raises over 1 / C
    (over 0.5 for labels that are decided singly)."""
    runs, scores = facts.runs, facts.scores
    if runs is None or scores is None or not all(scores.positives.values()) or not all(scores.negatives.values()):
        return []
    found = interval(scores, "balanced_accuracy")
    if not known(found.low):
        return []
    chance = 0.5 if runs.labels.ndim == 2 else 1 / len(runs.classes)
    split = wording.SPLIT_NAMES[facts.split or "val"]
    text = f"The balanced accuracy on {split} is {_plain(found)}; guessing gives {formats.score(chance)}"
    if found.low <= chance:
        return [Finding("limit", f"{text}, which the interval does not exclude: nothing shows that it learned.")]
    return [Finding("shown", f"{text}: something was learned.")]


def against_majority(facts: Facts) -> list[Finding]:
    """Whether a plain accuracy beats that of always answering the most frequent class; silent where it does."""
    base = data_tables.majority_baseline(facts.evidence.dataset, facts.split or "val")
    if facts.scores is None or base is None:
        return []
    found = interval(facts.scores, "accuracy")
    if not known(found.low) or found.low > base["accuracy"]:
        return []
    text = f"Always answering the most frequent class is right for {formats.percent(base['accuracy'])} of the images, "
    return [Finding("limit", f"{text}which the interval of the accuracy, {_plain(found)}, does not exclude.")]


def shortcuts(facts: Facts) -> list[Finding]:
    """Against what needs no training of a network."""
    contest = facts.contest
    if contest is None or not contest.leads:
        return []
    close = [name for name in contest.leads if contest.is_close(name)]
    if close:
        listed = wording.listing(f"{contest.in_words(name)} ({_lead(contest.leads[name])})" for name in close)
        text = f"Simple methods come close to {in_sentence(facts.title)} in macro F1: {listed}. "
        return [Finding("limit", text + "What a network sees beyond them is little, or not shown.")]
    hardest = min(contest.leads, key=lambda name: contest.leads[name].difference)
    text = (
        f"{facts.title} is clear of the best simple method, {contest.in_words(hardest)}, by "
        f"{_lead(contest.leads[hardest])} in macro F1."
    )
    return [Finding("shown", text)]


def selection(facts: Facts) -> list[Finding]:
    """What the search promised against what repeats gave: the price of choosing the best of many."""
    standing = facts.standing
    if standing is None:
        return []
    found = []
    winner = standing.winner
    if winner is not None and len(winner.validation) > 1 and known(standing.gap(winner)):
        gap, count = standing.gap(winner), len(winner.validation)
        # One more run of the same configuration would lie within t times this of the mean of the others.
        spread = statistics.stdev(winner.validation.values()) * math.sqrt(1 + 1 / count)
        beyond = abs(gap) > student.ppf(0.975, count - 1) * spread + 1e-9
        text = (
            f"In the search {winner.title} scored {formats.score(winner.finalist.search_score)}, its {count} repeats "
        )
        text += f"{formats.score(winner.mean)} on average, on validation. "
        verdict = "flattered it" if gap > 0 else "missed its worth"
        apart = f"That is further apart than its repeats are: the search {verdict}."
        text += apart if beyond else "Its repeats are as far apart among themselves."
        found.append(Finding("shown" if beyond else "open", text))
    gaps = [standing.gap(one) for one in standing.finalists if known(standing.gap(one))]
    if len(gaps) > 1:
        mean = statistics.fmean(gaps)
        text = f"Over the {len(gaps)} finalists the search's scores are {formats.score(abs(mean))} "
        text += f"{'better' if mean > 0 else 'worse'} than the means of their repeats"
        text += ": so much, about, is to be taken off the search's best scores." if mean > 0 else "."
        found.append(Finding("open", text))
    return found


def promise(facts: Facts) -> list[Finding]:
    """Whether the test score agrees with what validation promised."""
    standing = facts.standing
    winner = standing.winner if standing else None
    if standing is None or winner is None or standing.split != "test" or winner.scores is None:
        return []
    found = interval(winner.scores, standing.metric)
    if facts.evidence.metric != f"val_{standing.metric}" or not known(winner.mean) or not known(found.low):
        return []
    text = f"Validation gave a mean of {formats.score(winner.mean)}, test {_plain(found)}"
    if found.low <= winner.mean <= found.high:
        return [Finding("shown", f"{text}: what validation promised lies within the interval.")]
    if facts.better(winner.mean - found.estimate):
        text += ": worse than validation promised, on which epochs and configurations were chosen."
        return [Finding("shown", text)]
    return [Finding("limit", f"{text}: better than validation, so that the two splits are not equally hard.")]


def overfitting(facts: Facts) -> list[Finding]:
    """Macro F1 on training images, in evaluation mode, against validation: a claim only where the intervals part."""
    train, val = runs_on(facts.evidence, "train"), runs_on(facts.evidence, "val")
    if train is None or val is None:
        return []
    # Training splits are large, and the bounds need no third digit.
    resamples = draw_resamples(train.groups, train.labels, len(train.classes), replicates=TRAIN_REPLICATES)
    scores = score_runs(train.labels, train.probabilities, train.classes, resamples, auroc=False)
    learned, found = interval(scores, "f1_macro"), interval(val.scores(), "f1_macro")
    if not known(found.low) or not known(learned.low):
        return []
    text = f"Macro F1 is {_plain(learned)} on the training images and {_plain(found)} on validation"
    if learned.low <= found.high:
        return [Finding("open", f"{text}: no overfitting that so many images could show.")]
    gap = formats.score(learned.estimate - found.estimate)
    return [Finding("shown", f"{text}: it knows its training images better than new ones, by {gap}.")]


RULES = (
    against_others,
    unrepeated,
    score,
    against_guessing,
    against_majority,
    shortcuts,
    selection,
    promise,
    overfitting,
)


def _plain(found: Interval) -> str:
    """With its bounds, without the mark of a warning."""
    return as_text(dataclasses.replace(found, warning=""))


def _lead(lead: Comparison | None) -> str:
    assert lead is not None
    text = wording.difference(lead.difference, lead.low, lead.high)
    return text + ("" if math.isnan(lead.p_holm) else f", p {wording.p_value(lead.p_holm)}")
