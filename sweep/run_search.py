"""The first half of a sweep: trials that the search draws and the scheduler stops, until all have ended."""

from __future__ import annotations

from sweep import estimate
from sweep.callbacks import TimeBudget
from sweep.finalists import expected_seconds
from sweep.history import TrialHistory, TrialState
from sweep.optuna_export import OptunaExport
from sweep.optuna_search import OptunaSearch
from sweep.plan import Plan
from sweep.predict_trials import predict_kept
from sweep.progress import Progress
from sweep.pruning import PruningRule
from sweep.ray_tune import Outcome, run_trials
from sweep.tensorboard import TensorBoardLog
from sweep.tune_searcher import TuneSearcher
from trainables.trial import TrialSettings


def run(plan: Plan, history: TrialHistory, settings: TrialSettings, budget: TimeBudget) -> Outcome:
    """Run the search to its end, or to that of its time; it goes on where an earlier session left it.

    history: not yet loaded. budget: of the whole sweep; what the finalists will take of it is left to them.
    """
    config = plan.config
    unreadable = history.load()
    study = OptunaSearch(
        plan.space,
        history,
        sampler=config.sampler,
        trials=plan.trials,
        seed=config.seed,
        concurrency=plan.concurrency,
        deterministic=config.deterministic,
    )
    history.on_end.append(OptunaExport(history).add)
    curves = TensorBoardLog(history)

    def settings_of(entry: TrialState) -> tuple[TrialSettings, int]:
        return plan.own_settings(entry.number, settings), entry.number

    searcher = TuneSearcher(study, history, settings_of, plan.concurrency)
    stopping = PruningRule(str(config.scheduler), plan.budget, plan.grace_period, config.reduction_factor)
    progress = Progress.started(plan.trials, plan.budget, config.metric, plan.mode, time_budget_s=config.time_budget)
    study.on_refused.append(progress.message)
    for entry in history.entries.values():
        if entry.ended:
            score = history.best_score(entry)
            progress.ended_earlier(entry.trial_id, entry.number, entry.status, score, entry.params.summary())
    if config.finalists:
        budget.reserve_s = lambda: expected_seconds(plan, history)
    try:
        for note in (*plan.notes(), *unreadable, estimate.disk_line(plan, history.paths)):
            progress.message(note)
        outcome = run_trials(plan, history, searcher, stopping, progress, budget, trials=plan.trials)
        if not outcome.interrupted:
            entries = list(history.entries.values())
            for problem in predict_kept(plan, history, entries, settings_of, ("train", "val")):
                progress.message(problem)
    finally:
        progress.close()
        curves.close()
        budget.reserve_s = float
    return outcome
