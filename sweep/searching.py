"""The first half of a sweep: trials that the search draws and the scheduler stops, until all have ended."""

from __future__ import annotations

from sweep import estimate
from sweep.callbacks import TimeBudget
from sweep.finalists import expected_seconds
from sweep.kept import predict_kept
from sweep.ledger import Entry, Ledger
from sweep.mirror import StudyMirror
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.search import EntrySearcher
from sweep.stopping import Stopping
from sweep.study import Study
from sweep.tensorboard import TensorBoardLog
from sweep.tuner import Outcome, run_trials
from trainables.settings import TrialSettings


def run(plan: Plan, ledger: Ledger, settings: TrialSettings, budget: TimeBudget) -> Outcome:
    """Run the search to its end, or to that of its time; it goes on where an earlier session left it.

    ledger: not yet loaded. budget: of the whole sweep; what the finalists will take of it is left to them.
    """
    config = plan.config
    unreadable = ledger.load()
    study = Study(
        plan.space,
        ledger,
        sampler=config.sampler,
        trials=plan.trials,
        seed=config.seed,
        concurrency=plan.concurrency,
        deterministic=config.deterministic,
    )
    ledger.on_end.append(StudyMirror(ledger).add)
    curves = TensorBoardLog(ledger)

    def settings_of(entry: Entry) -> tuple[TrialSettings, int]:
        return plan.own_settings(entry.number, settings), entry.number

    searcher = EntrySearcher(study, ledger, settings_of, plan.concurrency)
    stopping = Stopping(str(config.scheduler), plan.budget, plan.grace_period, config.reduction_factor)
    progress = Progress.started(plan.trials, plan.budget, config.metric, plan.mode, time_budget_s=config.time_budget)
    study.on_refused.append(progress.message)
    for entry in ledger.entries.values():
        if entry.ended:
            score = ledger.best_score(entry)
            progress.ended_earlier(entry.trial_id, entry.number, entry.status, score, entry.params.summary())
    if config.finalists:
        budget.reserve_s = lambda: expected_seconds(plan, ledger)
    try:
        for note in (*plan.notes(), *unreadable, estimate.disk_line(plan, ledger.paths)):
            progress.message(note)
        outcome = run_trials(plan, ledger, searcher, stopping, progress, budget, trials=plan.trials)
        if not outcome.interrupted:
            entries = list(ledger.entries.values())
            for problem in predict_kept(plan, ledger, entries, settings_of, ("train", "val")):
                progress.message(problem)
    finally:
        progress.close()
        curves.close()
        budget.reserve_s = float
    return outcome
