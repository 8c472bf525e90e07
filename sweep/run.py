"""``python -m sweep.run``: one command from labelled images to a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search_spaces.errors import UserError
from sweep.cli import Parsed, read
from sweep.config import SweepConfig, check, with_defaults


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 1 (every trial failed), 2 (bad input, all of it told) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(read(arguments), arguments)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _asked(parsed: Parsed) -> tuple[SweepConfig, list[str]]:
    """What is to be run, which for a resumed run is mostly saved in it, and all that was wrong in saying so."""
    from sweep.resume import resumed_config

    if parsed.config.resume is None:
        return parsed.config, list(parsed.problems)
    try:
        config, contradictions = resumed_config(parsed.config, parsed.given)
    except UserError as error:
        raise UserError(*parsed.problems, *error.problems, *check(parsed.config)) from None
    return config, [*parsed.problems, *contradictions]


def _run(parsed: Parsed, arguments: list[str]) -> int:
    # Imported here, because torch and ray take seconds that a mistyped option need not wait for.
    from sweep import baselines, estimate, finalists, model, new_run, ray_tune, run_search, summary
    from sweep.history import TrialHistory
    from sweep.nodes import node_problems
    from sweep.plan import make_plan
    from sweep.records import read_run
    from sweep.resume import keeps_own_epochs, run_paths

    asked, problems = _asked(parsed)
    machine = new_run.this_machine()
    if asked.address != "local":
        try:
            machine = ray_tune.connect(asked.address)
        except UserError as error:
            problems += error.problems
    config = with_defaults(asked, machine.cpus, machine.gpus)
    paths = run_paths(config) if config.resume else new_run.new_run_paths(config)
    problems += check(config, machine.cpus, machine.gpus)
    if not config.resume:
        problems += new_run.place_problems(paths)

    with new_run.staging(paths, problems) as beside:
        if machine.nodes > 1 and beside is not None:
            problems += node_problems(config, beside.root, ray_tune.on_every_node)
        workers = new_run.this_machine().cpus
        prepare = new_run.prepare_into(beside, paths, workers, config.folds)
        own_epochs = keeps_own_epochs(paths) if config.resume else "epochs" not in parsed.given
        resumed = paths if config.resume else None
        plan = make_plan(config, problems, prepare, own_epochs=own_epochs, resumed=resumed)
        assert beside is not None
        estimate.check_disk(plan, paths)
        if config.dry_run:
            print(estimate.description(plan, paths))
            return 0
        if config.address == "local":
            ray_tune.connect("local", machine.cpus)
        if config.resume:
            claim = new_run.claim(paths)
            new_run.reopen_run(paths, beside, plan)
        else:
            new_run.create_run(paths, beside, plan, machine, arguments)
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
