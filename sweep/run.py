"""``python -m sweep.run``: one command from labelled images to a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search_spaces.errors import UserError
from sweep.cli import read, run_command
from sweep.config import Resumed, check, resolve, resume, run_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 1 (every trial failed), 2 (bad input, all of it told) or 130 (Ctrl-C)."""
    return run_command(_run, argv)


def _run(arguments: list[str]) -> int:
    asked, problems = read(arguments)
    resumed: Resumed | None = None
    if asked.resume is not None:
        try:
            resumed = resume(asked)
        except UserError as error:
            raise UserError(*problems, *error.problems, *check(asked)) from None
        problems += resumed.problems
    # Imported here, because torch and ray take seconds that a mistyped option need not wait for.
    from sweep import baselines, estimate, finalists, model, new_run, ray_tune, run_search, summary
    from sweep.history import TrialHistory
    from sweep.plan import make_plan, node_problems
    from sweep.records import read_run

    machine = new_run.this_machine()
    address = (resumed.config if resumed else asked).address
    if address != "local":
        try:
            machine = ray_tune.connect(address)
        except UserError as error:
            problems += error.problems
    config = resumed.config if resumed else resolve(asked, machine.cpus, machine.gpus)
    paths = run_paths(config) if resumed else new_run.new_run_paths(config)
    problems += check(config, machine.cpus, machine.gpus)
    if not resumed:
        problems += new_run.place_problems(paths)

    with new_run.staging(paths, problems) as beside:
        if machine.nodes > 1 and beside is not None:
            problems += node_problems(config, beside.root, ray_tune.on_every_node)
        workers = new_run.this_machine().cpus
        prepare = new_run.prepare_into(beside, paths, workers, config.folds)
        own_epochs = resumed.own_epochs if resumed else "epochs" not in asked.model_fields_set
        plan = make_plan(config, problems, prepare, own_epochs=own_epochs, resumed=paths if resumed else None)
        assert beside is not None
        estimate.check_disk(plan, paths)
        if config.dry_run:
            print(estimate.description(plan, paths))
            return 0
        if config.address == "local":
            ray_tune.connect("local", machine.cpus)
        if resumed:
            claim = new_run.claim(paths)
            new_run.reopen_run(paths, beside, plan)
        else:
            new_run.create_run(paths, beside, asked, plan, machine, arguments)
            claim = new_run.claim(paths)
    ray_tune.log_to(paths.log)
    settings = plan.settings(paths, use_gpu=bool(config.gpus_per_trial))
    budget = ray_tune.TimeBudget(config.time_budget)
    history = TrialHistory(paths, config.metric, plan.mode)
    outcome = run_search.run(plan, history, settings, budget)
    if not outcome.interrupted and config.finalists:
        outcome = outcome.then(finalists.run(plan, history, settings, budget, print))
    if not outcome.interrupted:
        ended = read_run(paths.root)
        for problem in (*baselines.measure(plan, ended, settings), *model.renew_models(ended)):
            print(problem)
    for line in summary.close(history, outcome.interrupted, outcome.out_of_time):
        print(line)
    claim.close()
    return summary.exit_code(history, outcome.interrupted)


if __name__ == "__main__":
    sys.exit(main())
