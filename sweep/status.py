"""``python -m sweep.status RUN``: whether a sweep runs, how far it is, and what went wrong, from any terminal or host.

Reads only the run folder, takes no lock and writes nothing. Loads neither torch nor ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from search_spaces.errors import UserError, raise_all
from search_spaces.params import TrialParams
from sweep.cli import Arguments, path, plain
from sweep.endings import STATUS, leave_with, run_command
from sweep.heartbeat import Beat, last_beat
from sweep.progress import clean, time_left
from sweep.records import read_sweep
from sweep.run import resume_command
from sweep.run_folder import RunPaths
from sweep.trial_records import STATUSES, TrialRecord, best, read_finals, read_trials

LAST_ERRORS = 3


class Status(Beat):
    """The state of a run: its last heartbeat, and the facts in its files.

    trials: of the search, by status; trials_wanted: how many there will be. repeats, repeats_wanted: of the finalists;
    None before these were chosen. best: its trial_id; score: of ``metric`` at its ``best_epoch``, from 1;
    configuration: one line. winner: of the finalists; winner_mean: its mean score over its repeats. last_errors: of
    failed trials and repeats, a line each; problems: what could not be read. resume: the command that continues it.
    """

    run: str
    trials: dict[str, int]
    trials_wanted: int | None = None
    repeats: dict[str, int] | None = None
    repeats_wanted: int | None = None
    metric: str = ""
    best: str | None = None
    score: float | None = None
    best_epoch: int | None = None
    configuration: str = ""
    winner: str | None = None
    winner_mean: float | None = None
    last_errors: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    resume: str | None = None


def read_status(root: Path) -> Status:
    """The state of the run in ``root``. Raises ``UserError`` if it is no run, or of another format."""
    paths = RunPaths(root)
    problems: list[str] = []
    sweep = read_sweep(paths, problems)
    facts = last_beat(paths, problems).model_dump() | {"run": str(root), "metric": sweep.metric}
    if facts["state"] in ("interrupted", "dead"):
        facts["resume"] = resume_command(paths)
    records = read_trials(paths.trial_folders(), paths.trials, sweep.metric, sweep.mode, problems)
    facts |= {"trials": _counts(records), "trials_wanted": sweep.trials}
    if (first := best(records, sweep.mode)) is not None:
        facts |= _facts_of(first)
    if (finals := read_finals(paths, sweep.metric, sweep.mode, problems)) is not None:
        repeats = [repeat for finalist in finals.finalists for repeat in finalist.repeats]
        facts |= {"repeats": _counts(repeats), "repeats_wanted": len(finals.finalists) * finals.asked}
        if finals.winning is not None and not finals.superseded:
            facts |= {"winner": finals.winner, "winner_mean": finals.winning.mean}
        records += repeats
    failed = [f"{record.trial_id}: {clean(record.reason)}" for record in records if record.status == "failed"]
    return Status(**facts, last_errors=tuple(failed[-LAST_ERRORS:]), problems=tuple(problems))


def _counts(records: Iterable[TrialRecord]) -> dict[str, int]:
    counts = Counter(record.status for record in records)
    return {status: counts[status] for status in STATUSES}


def _facts_of(record: TrialRecord) -> dict[str, object]:
    try:
        configuration = TrialParams.from_flat(record.params).summary()
    except UserError:  # a damaged file
        configuration = "its configuration cannot be read"
    facts = {"best": record.trial_id, "score": record.score, "best_epoch": record.best_epoch}
    return facts | {"configuration": configuration}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: the exit code tells the state, see ``STATUS``; 2: bad input."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = Arguments(
        "sweep.status",
        "Show the state of a sweep: running, done, interrupted or dead. Only reads its folder; works on any host.",
        f"exit codes: {'   '.join(f'{code} {state}' for state, code in STATUS.items())}   2 bad input",
    )
    parser.add_argument("run", type=path, metavar="RUN", help="a run folder: <storage>/<name> of a sweep")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked, wrong = parser.read(argv)
    raise_all(wrong)
    status = read_status(asked.run)
    for line in [status.model_dump_json()] if asked.json else lines(status):
        print(plain(line))
    return STATUS[status.state]


def lines(status: Status) -> Iterator[str]:
    """The status as lines for a reader."""
    running = status.state == "running"
    phase = f", phase {status.phase}" if status.phase and status.state != "done" else ""
    yield f"{status.run}: {status.state}{phase}" + (f", on {status.host}, process {status.pid}" if running else "")
    if status.reason:
        yield f"why: {clean(status.reason)}"
    yield f"trials: {_progress(status.trials, status.trials_wanted)}"
    if status.repeats is not None:
        yield f"repeats of the finalists: {_progress(status.repeats, status.repeats_wanted)}"
    if status.best is not None and status.score is not None:
        score = f"{status.metric} {status.score:.4f} at epoch {status.best_epoch}"
        yield f"best: {status.best} {score}, {status.configuration}"
    if status.winner is not None and status.winner_mean is not None:
        yield f"winner: {status.winner} {status.metric} {status.winner_mean:.4f}, the mean over its repeats"
    if running:
        yield _pace(status)
    yield from (f"failed: {error}" for error in status.last_errors)
    if status.problems:
        more = f", and {len(status.problems) - 1} more" if len(status.problems) > 1 else ""
        yield f"cannot be read: {clean(status.problems[0])}{more}"
    if status.resume is not None and status.resume not in status.reason:
        yield f"continue with: {status.resume}"


def _progress(counts: dict[str, int], wanted: int | None) -> str:
    ended = {status: count for status, count in counts.items() if status != "running"}
    told = ", ".join(f"{count} {status}" for status, count in ended.items())
    unfinished = f", {counts['running']} unfinished" if counts["running"] else ""
    return f"{sum(ended.values())} of {'?' if wanted is None else wanted} ended ({told}){unfinished}"


def _pace(status: Status) -> str:
    parts = [f"{status.busy} of {'?' if status.slots is None else status.slots} slots busy"]
    if status.epochs_per_minute is not None:
        parts.append(f"{status.epochs_per_minute:.1f} epochs per minute")
    if status.seconds_left is not None:
        parts.append(f"about {time_left(status.seconds_left)} left of this phase")
    return ", ".join(parts)


if __name__ == "__main__":
    leave_with(main)
