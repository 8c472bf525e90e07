"""``python -m sweep.run``: one command from labelled images to a report."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError, gathered, raise_all
from sweep.cli import ImageCount, arguments_of, build_page, read
from sweep.config import SweepConfig, check, idle_problems, name_problems, resolve
from sweep.endings import ALL_FAILED, BAD_INPUT, DISK_FULL, INTERRUPTED, SweepStopped, leave_with, run_command, say
from sweep.heartbeat import Heartbeat, beats_elsewhere
from sweep.resume import Resumed, resume
from sweep.run_folder import (
    ModelPaths,
    RunPaths,
    change_sweep,
    claim,
    image_cache,
    place_problems,
    reopen_run,
    staging,
    unwritable,
)
from sweep.trial_records import Finals, read_finals
from trainables.atomic import FORMAT, now, write_atomically, write_json, write_text

if TYPE_CHECKING:
    from sweep.history import TrialHistory, TrialState
    from sweep.machine import Machine
    from sweep.plan import Plan
    from sweep.ray_tune import Outcome, TimeBudget
    from trainables.data.config import DataConfig
    from trainables.trial import TrialSettings

LONGEST_STEM = 60
"""Maximum characters of a space's name in the name of its runs."""
_ONE_AT_A_TIME = threading.Lock()
"""Ray, and the place of its log, exist once per process."""
NOT_CHECKED = "not yet checked: files that cannot be decoded, equal pixels in files that differ, near duplicates"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns one of the exit codes of ``sweep.cli.EXAMPLES``."""
    return run_command(_run, argv)


def sweep(**options: Any) -> RunPaths:
    """The same from Python, as in a notebook: ``sweep(data="xrays", trials=8, set={"lr": 1e-3})``; the run's folder.

    options: those of the command line, with underscores; several values are a list, pairs a dict, a switch True or
    False, and None leaves an option out. ``sweep.records.read_run`` reads the results. Raises ``UserError`` with all
    problems; an interrupted sweep continues with ``sweep(resume=...)``. One at a time per process.
    """
    return _alone(arguments_of(options), None)[0]


def _run(arguments: list[str]) -> int:
    if "--json" not in arguments:
        return _alone(arguments, None)[1]
    found: dict[str, Any] = {}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _, code = _alone(arguments, found)
        problems: tuple[str, ...] = ()
    except UserError as error:
        code, problems = BAD_INPUT, error.problems
    data = found.get("dataset")
    shown = {
        "config": found.get("config"),
        "data": None if data is None else data_summary(data),
        "problems": list(problems),
    }
    print(json.dumps(shown))
    return code


def data_summary(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--dry-run --json`` prints about a data set. dataset: the content of dataset.json."""
    single, counts = dataset["task"] == "single_label", dataset["counts"].values()
    groups = dataset["groups"]
    return {
        "preset": dataset["preset"],
        "task": dataset["task"],
        "classes" if single else "labels": dataset["classes"],
        "images": dataset["images"],
        "label_counts": {name: sum(split[name] for split in counts) for name in dataset["classes"]},
        "groups": {"from": groups["from"], "count": groups["count"]},
        "left_out": dataset["left_out"],
        "notes": [*dataset["notes"], *(one["message"] for one in dataset["checks"]), *dataset["caveats"], NOT_CHECKED],
    }


def _alone(arguments: list[str], found: dict[str, Any] | None) -> tuple[RunPaths, int]:
    """``_sweep``; ``UserError`` if another one runs in this process."""
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise UserError("another sweep is running in this process: wait for it, or start this one in another process")
    with contextlib.ExitStack() as stack:
        stack.callback(_ONE_AT_A_TIME.release)
        return _sweep(arguments, found, stack)


def _sweep(arguments: list[str], found: dict[str, Any] | None, stack: contextlib.ExitStack) -> tuple[RunPaths, int]:
    """Run the command line: the folder of the run, and the exit code.

    found: for ``--dry-run --json``, gets "config" and "dataset" as far as they are known. stack: closes, at the end,
    what was opened only for this sweep.
    """
    asked, problems = read(arguments)
    if found is not None and not asked.dry_run:
        problems.append("--json needs --dry-run: add it, or omit --json")
    resumed: Resumed | None = None
    if asked.resume is not None:
        try:
            resumed = resume(asked)
        except UserError as error:
            raise UserError(*problems, *error.problems, *check(asked)) from None
        problems += resumed.problems
    # Imported here, because torch and ray take seconds that a mistyped option need not wait for.
    from sweep import cluster, disk, estimate, ray_tune
    from sweep.history import TrialHistory, retry_failed
    from sweep.plan import input_problems, make_plan, node_problems, weight_problems

    machine = here = this_machine()
    given = resumed.config if resumed else asked
    address = given.address
    taken = [] if asked.dry_run and address == "local" else cluster.in_use()
    problems += taken
    problems += cluster.folder_problems() if address == "local" and not asked.dry_run else []
    stack.enter_context(ray_tune.log_restored())
    if address != "local" and not taken:
        with gathered(problems):
            machine = stack.enter_context(ray_tune.connected(address, wait_for_nodes=given.wait_for_nodes))
    config = resumed.config if resumed else resolve(with_preset(asked, problems), machine)
    paths = resumed.paths if resumed else new_run_paths(config)
    more_gpus_may_come = machine is not here and (config.wait_for_nodes is not None or cluster.can_start_gpus())
    problems += check(config, machine.most_cpus, math.inf if more_gpus_may_come else machine.gpus)
    if machine is not here and not machine.gpus and given.gpus_per_trial is None:
        say("no machine of the cluster has a GPU: the trials run on CPUs (--gpus-per-trial 0)")
    problems += idle_problems(arguments, config)
    if not config.dry_run or not resumed:
        problems += unwritable(paths) if resumed else place_problems(paths)

    with staging(paths, problems, dry=config.dry_run) as beside:
        if machine is not here and beside is not None:
            problems += node_problems(config, beside.root, cluster.on_every_node)
        # Nothing is decoded for a command that is refused anyway.
        prepare = prepare_into(None if problems else beside, paths, here.cpus, config.folds, found)
        if found is not None:
            found["config"] = config.to_json()
        own_epochs = resumed.own_epochs if resumed else "epochs" not in asked.model_fields_set
        plan = make_plan(config, problems, prepare, own_epochs=own_epochs, machine=machine, resumed=resumed)
        estimate.check_disk(plan, paths)
        if config.dry_run:
            if found is None:
                print(estimate.description(plan, paths), NOT_CHECKED, sep="\n")
            return paths, 0
        assert beside is not None, "why it cannot be made is among the problems that make_plan has raised"
        raise_all(input_problems(plan, beside.root))
        if machine is not here:
            raise_all(weight_problems(plan, cluster.on_every_node))
        if config.address == "local":
            stack.enter_context(ray_tune.connected("local", machine.cpus, gpus=machine.gpus))
        if not resumed:
            paths = write_new_run(paths, beside, asked, plan, machine, arguments)
        stack.callback(claim(paths).release)
        if resumed and (host := beats_elsewhere(paths)) is not None:
            raise UserError(f"the run {paths.root} is already running on {host}: wait for it, or stop it first")
        beat = stack.enter_context(Heartbeat(paths, plan.at_once))
        if resumed:
            from sweep.records import read_sweep

            changed, saved = asked.model_fields_set - {"resume", "storage", "name"}, read_sweep(paths, [])
            more = [*saved.resumed, *([tuple(arguments)] if changed else [])]
            moved = weights_found(plan) if saved.weights != config.weights else None
            reopen_run(paths, beside, {"resolved": plan.config.to_json(), "resumed": more}, plan.damaged, moved)
    settings = plan.settings(paths)
    budget = ray_tune.TimeBudget(config.time_budget)
    history = TrialHistory(paths, config.metric, plan.mode)
    if config.retry_failed:
        say(retry_failed(paths, config.metric, plan.mode, broken_too=config.retry_failed == "all"))
    try:
        ray_tune.log_to(paths.log)
        with disk.reserve(paths):
            outcome = compute(plan, history, settings, budget, beat)
        beat.progress = None
        beat.exit_code = exit_code(history, outcome.interrupted)
        ended = not outcome.interrupted and (not outcome.out_of_time or winner_selected(history))
        say(*write_summary(history, ended))
    except (SweepStopped, OSError) as error:
        stopped = error if isinstance(error, SweepStopped) else disk.stopped_by(error, paths.root.parent)
        if stopped.exit_code != DISK_FULL:
            with contextlib.suppress(OSError, SweepStopped):  # The results so far are still useful.
                say(*write_summary(history, ended=False))
        raise SweepStopped(f"{stopped.reason}; continue with: {resume_command(paths)}", stopped.exit_code) from error
    if outcome.interrupted:
        say(f"interrupted: nothing is lost, continue with: {resume_command(paths)}")
    elif outcome.out_of_time:
        used_up = "the time budget is used up: nothing is lost"
        say(f"{used_up}, continue with: {resume_command(paths)} --time-budget TIME")
    return paths, beat.exit_code


def winner_selected(history: TrialHistory) -> bool:
    """Whether the finalists are done: then the sweep has ended, although the search used up its time."""
    finals = read_finals(history.paths, history.metric, history.mode, [])
    return finals is not None and finals.selected is not None and finals.done


def this_machine() -> Machine:
    """The CPUs and GPUs of this machine that this process may use."""
    import torch

    from sweep.machine import BF16_CAPABILITY, Machine, this_node

    count = torch.cuda.device_count()
    names = tuple(torch.cuda.get_device_name(index) for index in range(count))
    oldest = min((torch.cuda.get_device_capability(index)[0] for index in range(count)), default=0)
    # As torch sees them: the machine may have others that this process was not given.
    node = dataclasses.replace(this_node(), gpus=count, fast_bf16_gpu=oldest >= BF16_CAPABILITY)
    return Machine(cpus=node.cpus, gpus=count, gpu_names=names, nodes=(node,))


def new_run_paths(config: SweepConfig) -> RunPaths:
    """The folder of a new run: ``--name``, or the space and the time if that is not given or invalid."""
    if config.name is not None and not name_problems(config):
        return RunPaths(Path(config.storage) / config.name)
    name = f"{Path(config.space).name.removesuffix('.py')[:LONGEST_STEM]}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    return RunPaths(Path(config.storage) / name)


def prepare_into(
    beside: RunPaths | None, paths: RunPaths, workers: int, folds: int | None, found: dict[str, Any] | None = None
) -> Callable[[DataConfig], dict[str, Any]]:
    """A function that reads a data set into the run folder ``beside``, and decoded images into the shared cache.

    Without a folder it only looks for problems of the data. folds: how many the data must be divisible into. found:
    gets the result as "dataset", whatever else is wrong with the command.
    """
    from trainables.data.prepare import inspect, prepare

    def read_data(config: DataConfig) -> dict[str, Any]:
        if beside is None:
            dataset = inspect(config, folds)
        else:
            dataset = prepare(config, beside.root, image_cache(paths.root.parent), workers, ImageCount(), folds)
        if found is not None:
            found["dataset"] = dataset
        return dataset

    return read_data


def with_preset(asked: SweepConfig, problems: list[str]) -> SweepConfig:
    """``asked`` with the settings of its data set's preset; why none can be used is added to ``problems``."""
    from trainables.data.presets import apply_preset

    with gathered(problems):
        return apply_preset(asked)[0]
    return asked


def write_new_run(
    paths: RunPaths, beside: RunPaths, asked: SweepConfig, plan: Plan, machine: Machine, arguments: list[str]
) -> RunPaths:
    """Write the request, the resolved settings and the provenance, and move the new run folder into place.

    Returns where it is: array jobs that begin in the same second have the same default name, and then get a number.
    """
    from sweep.estimate import provenance

    record: dict[str, Any] = {
        "format": FORMAT,
        "asked": asked.to_json(),
        "mode": plan.mode,
        "own_epochs": plan.own_epochs,
        "cached_stages": plan.cached_stages,
        "warm_trials": [one.model_dump(mode="json") for one in plan.warm_trials],
        "command": arguments,
        "study_rows": [
            {"id": row.id, "number": index, "epochs": row.epochs, "claim": row.claim, "note": row.note}
            for index, row in enumerate(plan.space.rows)
        ],
        "study_rows_left_out": dict(plan.space.left_out),
    }
    weights = {"weights": weights_found(plan), "missing_weights": plan.missing_weights}
    write_json(beside.provenance, provenance(machine) | weights)
    if plan.space.source is not None:
        write_text(beside.space, plan.space.source)
    place, number = paths, 1
    while True:
        resolved = plan.config.to_json() | {"name": place.root.name}
        write_json(beside.sweep, record | {"resolved": resolved, "created": now(), "ended": None})
        try:
            os.rename(beside.root, place.root)
            return place
        except OSError as error:
            named = f"--name {place.root.name}: {place.root}"
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise UserError(f"{named} cannot be created: {error}") from None
            if asked.name is not None:
                raise UserError(f"{named} exists already: give another --name") from None
        number += 1
        place = RunPaths(paths.root.with_name(f"{paths.root.name}-{number}"))


def weights_found(plan: Plan) -> dict[str, dict[str, Any]]:
    """The weights as written to provenance.json."""
    return {name: dataclasses.asdict(found) for name, found in plan.weights.items()}


def compute(plan: Plan, history: TrialHistory, settings: TrialSettings, budget: TimeBudget, beat: Heartbeat) -> Outcome:
    """All that is trained and predicted: the search, the finalists, the baselines and the model.

    history: not yet loaded. Raises ``SweepStopped`` if the sweep cannot continue.
    """
    from sweep import finalists, model
    from sweep.records import read_run

    outcome = run_search(plan, history, settings, budget, beat)
    if not outcome.interrupted and plan.config.finalists:
        beat.enter("finalists")
        outcome = outcome.then(finalists.run(plan, history, settings, budget, beat))
    if not outcome.interrupted:
        beat.enter("report")
        ended = read_run(history.paths.root)
        with ThreadPoolExecutor(1) as beside_baselines:
            models = beside_baselines.submit(model.renew_models, ended)
            parts = finalists.training_predictions(plan, ended, history.best(), settings)
            parts += finalists.baselines(plan, ended, settings) + finalists.maps(plan, ended, settings)
            say(*finalists.make(plan, ended, parts), *models.result())
    return outcome


def run_search(
    plan: Plan, history: TrialHistory, settings: TrialSettings, budget: TimeBudget, beat: Heartbeat
) -> Outcome:
    """Run the search to its end, or until its time is up; it continues where an earlier session left it.

    history: not yet loaded. budget: of the whole sweep; the expected time of the finalists is reserved for them.
    """
    from sweep import estimate
    from sweep.finalists import expected_seconds
    from sweep.optuna_search import OptunaExport, OptunaSearch
    from sweep.progress import Progress, SweepProgress, TensorBoardLog
    from sweep.pruning import PruningRule
    from sweep.ray_tune import run_trials

    config = plan.config
    unreadable = history.load()
    search = OptunaSearch(
        plan.space,
        history,
        sampler=config.sampler,
        trials=config.trials,
        seed=config.seed,
        concurrency=plan.at_once,
        deterministic=config.deterministic,
        warm=[one.point for one in plan.warm_trials],
    )
    export = OptunaExport(history, plan.space.fixed or ())

    def settings_of(entry: TrialState) -> tuple[TrialSettings, int]:
        return plan.own_settings(entry.number, settings), entry.number

    pruning = PruningRule(config.scheduler, plan.budget, plan.grace_period, config.reduction_factor)
    facts = SweepProgress(history, config.trials, plan.budget, list(history.entries.values()))
    beat.progress = progress = Progress(facts, time_budget_s=config.time_budget)
    search.on_refused.append(progress.message)
    if config.finalists:
        budget.reserve(lambda: expected_seconds(plan, history))
    with closing(export), closing(TensorBoardLog(history)), closing(progress):
        for note in (*plan.notes(), *unreadable, estimate.disk_line(plan, history.paths)):
            progress.message(note)
        outcome = run_trials(plan, history, search.ask, settings_of, pruning, progress, budget, trials=config.trials)
    budget.reserve(float)
    return outcome


def write_summary(history: TrialHistory, ended: bool) -> list[str]:
    """Write the tables and the report; returns lines with the results. ended: whether the whole sweep has ended."""
    from sweep.history import drop_failed_states
    from sweep.records import read_run

    paths = history.paths
    if ended:
        drop_failed_states(paths)
        change_sweep(paths, ended=now())
    run = read_run(paths.root)
    write_atomically(paths.trials_table, lambda path: run.trials.to_parquet(path, index=False))
    write_atomically(paths.epochs_table, lambda path: run.epochs.to_parquet(path, index=False))
    _, problem = build_page("reports.build", paths.root)
    lines = summary(history, run.finals)
    return lines if problem is None else [*lines, f"the report could not be written: {problem}"]


def summary(history: TrialHistory, finals: Finals | None) -> list[str]:
    """Lines for the user with the results and where they are."""
    counts = ", ".join(f"{history.count(status)} {status}" for status in ("completed", "pruned", "failed"))
    lines = [f"trials: {counts}" + (f", {unfinished} unfinished" if (unfinished := history.count("running")) else "")]
    best = history.best()
    if best is not None:
        lines.append(f"best: {best.trial_id} {history.metric} {best.score:.4f} {best.params.summary()}")
        if finals is None and history.files(best).weights.exists():
            lines.append(f"weights: {history.files(best).weights}")
    lines += _winner_lines(history, finals)
    failed = [entry for entry in history.entries.values() if entry.status == "failed"]
    if failed:
        lines.append(f"first failure: {failed[0].trial_id}: {failed[0].reason} ({history.files(failed[0]).error})")
        if not all(entry.broken for entry in failed):
            lines.append(f"rerun failed trials with: {resume_command(history.paths)} --retry-failed")
    if (history.paths.report / "index.html").exists():
        lines.append(f"report: {history.paths.report / 'index.html'}")
    return lines


def _winner_lines(history: TrialHistory, finals: Finals | None) -> list[str]:
    winner = None if finals is None or finals.superseded else finals.winning
    if finals is None or winner is None:
        return []
    error = "" if math.isnan(winner.standard_error) else f", standard error {winner.standard_error:.4f}"
    times = f"{len(winner.scores)} repeat{'s' * (len(winner.scores) > 1)}"
    lines = [
        f"winner: {winner.trial_id} {history.metric} {winner.mean:.4f} (mean of {times}{error}; search score "
        f"{winner.search_score:.4f})"
    ]
    lines.append("test split: opened, its scores are in the report" if finals.opened else "test split: none")
    model = ModelPaths(history.paths.models).model
    if model.exists():
        lines.append(f"model: {model} (python -m sweep.predict {shlex.quote(str(history.paths.root))} IMAGES)")
    return lines


def resume_command(paths: RunPaths) -> str:
    """The command that continues a run."""
    root = paths.root if paths.root.name not in ("", "..") else paths.root.resolve()
    storage = [] if root.parent == Path("runs") else ["--storage", str(root.parent)]
    return shlex.join(["python", "-m", "sweep.run", "--resume", root.name, *storage])


def exit_code(history: TrialHistory, interrupted: bool) -> int:
    """0; 1 if every trial failed; 130 after Ctrl-C."""
    if interrupted:
        return INTERRUPTED
    return ALL_FAILED if history.entries and history.count("failed") == len(history.entries) else 0


if __name__ == "__main__":
    leave_with(main)
