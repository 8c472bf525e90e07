"""``python -m sweep.run``: one command from labelled images to a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search_spaces.problems import UserError
from sweep.config import SweepConfig, check, with_defaults
from sweep.options import Parsed, read


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
    from sweep import baselines, closing, estimate, finalists, models, opening, searching, tuner
    from sweep.callbacks import TimeBudget
    from sweep.ledger import Ledger
    from sweep.nodes import node_problems
    from sweep.plan import make_plan
    from sweep.records import read_run
    from sweep.resume import keeps_own_epochs, run_paths

    asked, problems = _asked(parsed)
    machine = opening.this_machine()
    if asked.address != "local":
        try:
            machine = tuner.connect(asked.address)
        except UserError as error:
            problems += error.problems
    config = with_defaults(asked, machine.cpus, machine.gpus)
    paths = run_paths(config) if config.resume else opening.new_run_paths(config)
    problems += check(config, machine.cpus, machine.gpus)
    if not config.resume:
        problems += opening.place_problems(paths)

    with opening.staging(paths, problems) as beside:
        if machine.nodes > 1 and beside is not None:
            problems += node_problems(config, beside.root, tuner.on_every_node)
        workers = opening.this_machine().cpus
        prepare = opening.prepare_into(beside, paths, workers, config.folds)
        own_epochs = keeps_own_epochs(paths) if config.resume else "epochs" not in parsed.given
        resumed = paths if config.resume else None
        plan = make_plan(config, problems, prepare, own_epochs=own_epochs, resumed=resumed)
        assert beside is not None
        estimate.check_disk(plan, paths)
        if config.dry_run:
            print(estimate.description(plan, paths))
            return 0
        if config.address == "local":
            tuner.connect("local", machine.cpus)
        if config.resume:
            claim = opening.claim(paths)
            opening.reopen_run(paths, beside, plan)
        else:
            opening.create_run(paths, beside, plan, machine, arguments)
            claim = opening.claim(paths)
    tuner.log_to(paths.log)
    settings = plan.settings(paths, use_gpu=bool(config.gpus_per_trial))
    budget = TimeBudget(config.time_budget)
    ledger = Ledger(paths, config.metric, plan.mode)
    outcome = searching.run(plan, ledger, settings, budget)
    if not outcome.interrupted and config.finalists:
        outcome = outcome.then(finalists.run(plan, ledger, settings, budget, print))
    if not outcome.interrupted:
        ended = read_run(paths.root)
        for problem in (*baselines.measure(plan, ended, settings), *models.renew_models(ended)):
            print(problem)
    for line in closing.close(ledger, outcome.interrupted, outcome.out_of_time):
        print(line)
    claim.close()
    return closing.exit_code(ledger, outcome.interrupted)


if __name__ == "__main__":
    sys.exit(main())
