"""What the repeats allow to be said: the state of the finals, and the winner against the runners-up in a sentence."""

from __future__ import annotations

from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, Note
from reports.scores import finals_words
from reports.scores.finals import ConfigurationResult, Leaderboard

LOW_POWER = (
    "“No difference shown” says little on a small split. In a simulation on 169 images a true difference of 0.037 in "
    "macro F1 was found 17 to 30 times in 100: a better configuration may well be among those not told apart."
)


def sentence(standing: Leaderboard) -> str:
    """The winner against the runners-up, no more than the Holm-corrected p values support; "" without a winner."""
    winner = standing.winner
    if winner is None:
        return ""
    if winner.scores is None:
        return "Since no predictions of the winner can be read, it is not compared with the others."
    if not standing.runners_up:
        return "There was no runner-up that it could be compared with."
    found: dict[int | None, list[ConfigurationResult]] = {1: [], 0: [], -1: [], None: []}
    for one in standing.runners_up:
        found[standing.verdict(standing.leads.get(one.trial_id))].append(one)
    on = f"On {finals_words.split_name(standing)}, in {finals_words.score_name(standing)}, "
    parts = []
    if found[1]:
        parts.append(f"it is better than {_names(found[1])} ({_numbers(standing, found[1])})")
    if found[0]:
        parts.append(f"it cannot be told apart from {_names(found[0])} ({_numbers(standing, found[0])})")
    if found[-1]:
        parts.append(f"it is worse than {_names(found[-1])} ({_numbers(standing, found[-1])})")
    if found[None]:
        parts.append(f"it could not be tested against {_names(found[None])}")
    text = f"{on}{wording.listing(parts)}."
    if found[-1] and standing.split == "test":
        text += " It stays the winner all the same: it was fixed on validation, before the test split was opened."
    if standing.split == "val":
        text += " These are the images on which it was chosen, so that even this is optimistic."
    return text


def state(evidence: ReportData, standing: Leaderboard) -> list[Block]:
    """What must be known of the repeats before any of their numbers is read."""
    finals = standing.finals
    blocks: list[Block] = []
    every = [repeat for one in finals.finalists for repeat in one.repeats]
    ended, asked = sum(len(one.ended) for one in finals.finalists), finals.asked * len(finals.finalists)
    failed = [
        f"{repeat.trial_id}: {repeat.reason or 'no reason recorded'}" for repeat in every if repeat.status == "failed"
    ]
    if not finals.decided and finals.opened:
        text = (
            "finalists/selection.json is missing or damaged, though the test split was opened: which finalist won is "
        )
        blocks.append(Note("error", text + "not known. What follows is validation."))
    elif not finals.decided:
        text = f"The finalists are not done: {ended} of {asked} repeats have ended, and no winner has been fixed."
        closed = "" if not _has_test(evidence) else " The test split stays closed until then."
        blocks.append(Note("warning", text + closed))
    elif standing.winner is None:
        blocks.append(Note("error", f"selection.json names {finals.winner or 'no winner'}, which is no finalist here."))
    elif not finals.opened and _has_test(evidence):
        text = f"The winner was fixed on {wording.moment(finals.decided)}, but the test split was not opened yet: "
        blocks.append(Note("warning", text + "what follows is validation, and optimistic."))
    elif finals.opened and standing.split == "val" and _has_test(evidence):
        blocks.append(
            Note("warning", "The test split was opened, but no test predictions of the winner can be read: validation.")
        )
    if len(finals.test_access) > 1:
        times = tuple(wording.moment(one.get("opened")) for one in finals.test_access)
        text = (
            f"The test split was opened {len(times)} times, once for each decision. Scores of later test_access are "
            "optimistic, since the earlier ones may have guided what was tried next. Opened at:"
        )
        blocks.append(Note("warning", text, times))
    if failed:
        text = f"{len(failed)} of {asked} repeats failed; means are over the others:"
        blocks.append(Note("warning", text, tuple(failed)))
    doubts = tuple(
        f"{one.title}, {remark}" for one in standing.contenders for remark in one.remarks if ": failed (" not in remark
    )
    if doubts and finals.decided:
        blocks.append(Note("error", "Predictions of repeats that are missing or do not fit:", doubts))
    return blocks


def _names(contenders: list[ConfigurationResult]) -> str:
    plural = "s" * (len(contenders) > 1)
    return f"trial{plural} {wording.listing(str(one.finalist.number) for one in contenders)}"


def _numbers(standing: Leaderboard, contenders: list[ConfigurationResult]) -> str:
    """The difference and p of one; of several the range of each."""
    leads = [standing.leads[one.trial_id] for one in contenders]
    if len(leads) == 1:
        lead = leads[0]
        shown = wording.difference(lead.difference, lead.low, lead.high)
        return f"difference {shown}, Holm-corrected p {wording.p_value(lead.p_holm)}"
    differences = [lead.difference for lead in leads]
    span = f"differences {wording.signed(min(differences))} to {wording.signed(max(differences))}"
    p = [lead.p_holm for lead in leads]
    if max(p) <= 0.05:
        return f"{span}, Holm-corrected p at most {wording.p_value(max(p))}"
    return f"{span}, Holm-corrected p at least {wording.p_value(min(p))}"


def _has_test(evidence: ReportData) -> bool:
    return (evidence.dataset.get("images") or {}).get("test") != 0
