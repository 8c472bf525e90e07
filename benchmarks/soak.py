"""``python -m benchmarks.soak``: sweeps on a cluster of three hosts with random, seeded faults, for hours.

As root, on a machine that permits namespaces (see tests/support/hosts.py). ``ray up cluster.yaml`` starts the cluster.
Sweeps run one after another, each with search, finalists and report, until every kind of fault has occurred ``--each``
times and ``--minutes`` are over. Half of the faults occur at any time, the others as a worker takes its next trial
(reset), while a state is written (checkpoint), or during the finalists' repeats. What has stopped is started again as
deploy/README.md says. Ends with code 1 if a trial or an epoch was lost, or a sweep ended unexpectedly.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import random
import shutil
import signal
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sweep.endings import CLUSTER_LOST, DISK_FULL, DONE
from sweep.records import read_run
from sweep.run_folder import ModelPaths, RunPaths

LIBC = ctypes.CDLL(None)
IN_MOVED_TO, IN_CREATE = 0x80, 0x100
EVENT = struct.Struct("iIII")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from full_disk import fill  # noqa: E402
from hosts import SHARED, Host, refused  # noqa: E402
from launched_cluster import LaunchedCluster, launched_cluster, trials_on  # noqa: E402

KINDS = ("worker", "raylet", "driver", "disk", "link")
ANY = "any time"
MOMENTS = ("reset", "checkpoint", "finalists")
HOSTS = ("head", "first", "second")
CUTS_S = (20.0, 90.0)
"""How long a link is cut: shorter, and much longer, than it takes to be detected."""
QUIET_S = (3.0, 12.0)
"""Range of the time from the first epoch after a fault to the next fault."""
LOOK_EVERY_S = 0.5
DISK_MB = 400
TRIALS, EPOCHS, FINALISTS, REPEATS = 12, 6, 2, 2
OPTIONS = (
    "--data demo --max-images 200 --image-size 32 --backbones squeezenet1_1 --weights random --trial-time-limit 1h "
    f"--set unfreeze_depth=4 --set batch_size=4 --trials {TRIALS} --epochs {EPOCHS} --grace-period 2 "
    f"--finalists {FINALISTS} --repeats {REPEATS}"
)
SWEEP = ".venv/bin/python -m sweep.run"


@dataclass(frozen=True)
class Fault:
    """kind: one of ``KINDS``; moment: ``ANY`` or one of ``MOMENTS``."""

    kind: str
    moment: str


def drawn(each: int, chance: random.Random) -> list[Fault]:
    """``each`` faults of every kind, half of them at a moment of ``MOMENTS``, in random order."""
    faults = []
    for kind in KINDS:
        at = [MOMENTS[number % len(MOMENTS)] for number in range(each // 2)]
        faults += [Fault(kind, moment) for moment in (*at, *[ANY] * (each - len(at)))]
    chance.shuffle(faults)
    return faults


@dataclass
class Count:
    """Over all sweeps. written: states of trials, one for each completed epoch; epochs: those recorded; begun_again:
    epochs that a fault interrupted; seconds_lost: of these, from the previous state to the fault."""

    sweeps: int = 0
    sessions: int = 0
    trials: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    written: int = 0
    begun_again: int = 0
    seconds_lost: float = 0.0
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Soak:
    """Runs sweeps one after another, and injects the faults."""

    def __init__(self, cluster: LaunchedCluster, faults: list[Fault], chance: random.Random) -> None:
        self.cluster = cluster
        self.left = faults
        self.count = Count()
        self._chance = chance
        self._storage = cluster.network.shared
        self._to_mend: tuple[float, Host] | None = None

    def sweep(self, name: str) -> None:
        """Run one sweep to its end, restarted as often as needed; then count what is in its run folder."""
        run = RunPaths(self._storage / "runs" / name)
        states: list[tuple[str, float]] = []
        command = f"--name {name} {OPTIONS} --seed {self._chance.randrange(1000)}"
        for _ in range(100):
            self.count.sessions += 1
            code, text, killed = self._session(run, command, states)
            command = f"--resume {name}"
            if code == DONE:
                break
            (self._storage / "filler").unlink(missing_ok=True)
            if code == CLUSTER_LOST or (code != DISK_FULL and not killed):
                self._up()
            if code not in (CLUSTER_LOST, DISK_FULL) and not killed:
                self.count.problems.append(f"{name}: ended with code {code}: {text[-2000:]}")
        self._account(run, len(states))

    def _session(self, run: RunPaths, command: str, states: list[tuple[str, float]]) -> tuple[int, str, bool]:
        """Start or resume the sweep; its exit code, its output, and whether its process was killed."""
        start = f"cd xray-sweep; export RAY_AUTH_MODE=token; exec {SWEEP} --address auto --storage {SHARED}/runs"
        sweep = self.cluster.host("head").popen(f"{start} {command}")
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(sweep.stdout or ()), daemon=True)
        reader.start()
        view = View(run, states, [self.cluster.host(name) for name in HOSTS])
        killed, read, known, strike_at_s = False, 0, len(states), math.inf
        while sweep.poll() is None:
            view.look()
            ended, read = [line for line in lines[read:] if line.startswith("[")], len(lines)
            self._mend()
            if strike_at_s == math.inf and len(states) > known and not self._to_mend:
                strike_at_s = time.monotonic() + self._chance.uniform(*QUIET_S)
            fault = self._next(view.phase)
            ready = fault is not None and view.running and time.monotonic() >= strike_at_s
            if ready and (fault.moment not in MOMENTS[:2] or (ended if fault.moment == "reset" else view.writing)):
                self._strike(fault, view, ended)
                killed = killed or fault.kind == "driver"
                known, strike_at_s = len(states), math.inf
            time.sleep(0.002)
        view.close()
        reader.join()
        return sweep.returncode, "".join(lines), killed

    def _next(self, phase: str) -> Fault | None:
        """The first fault that is left for this phase ("search" or "finalists")."""
        moments = {"search": False, "finalists": True}
        return next((one for one in self.left if (one.moment == "finalists") is moments.get(phase)), None)

    def _strike(self, fault: Fault, view: View, ended: list[str]) -> None:
        """Inject the fault: at the trial that has just ended or is being saved, or at any running one."""
        self.left.remove(fault)
        trial = self._chance.choice(sorted(view.running))
        if fault.moment == "reset":
            trial = next((one for one in view.running if f" {one} " in ended[-1]), trial)
        elif view.writing in view.running:
            trial = view.writing
        host, pid = view.running[trial]
        hit = {trial} if fault.kind == "worker" else {*view.running}
        match fault.kind:
            case "worker":
                kill(pid)
            case "raylet":
                hit = {one for one, (place, _) in view.running.items() if host.name in ("head", place.name)}
                for one, line in host.processes().items():
                    if line.split(" ")[0].endswith("/raylet"):
                        kill(one)
            case "driver":
                for one, line in self.cluster.host("head").processes().items():
                    if line.startswith(SWEEP):
                        kill(one)
            case "disk":
                fill(self._storage)
            case "link":
                host = self.cluster.host(self._chance.choice(HOSTS[1:]))
                cut_s = self._chance.choice(CUTS_S)
                long = cut_s == max(CUTS_S)
                hit = {one for one, (place, _) in view.running.items() if long and place.name == host.name}
                self.cluster.network.cable(host, "down")
                self._to_mend = (time.monotonic() + cut_s, host)
        now_s = time.time()
        self.count.faults[fault.kind, fault.moment] += 1
        self.count.begun_again += len(hit)
        self.count.seconds_lost += sum(now_s - view.last_state_s(one) for one in hit)
        where = f"{host.name}, " if fault.kind in ("worker", "raylet", "link") else ""
        print(f"  {fault.kind}, {fault.moment}: {where}{', '.join(sorted(hit)) or 'no trial'}", flush=True)

    def _mend(self, now: bool = False) -> None:
        """Reconnect the cut link if its time is over."""
        if self._to_mend is not None and (now or time.monotonic() >= self._to_mend[0]):
            self.cluster.network.cable(self._to_mend[1], "up")
            self._to_mend = None

    def _up(self) -> None:
        """Start the cluster again, as a user does."""
        self._mend(now=True)
        code, text = self.cluster.run("ray up cluster.yaml --yes")
        if code:
            self.count.problems.append(f"ray up: {text[-2000:]}")

    def _account(self, run: RunPaths, written: int) -> None:
        """Check every trial and every epoch of a finished sweep; delete its folder if nothing is lost."""
        told = read_run(run.root)
        problems = list(told.problems)
        table = pd.read_parquet(run.trials_table)
        epochs = pd.read_parquet(run.epochs_table)
        if sorted(table.number) != list(range(TRIALS)):
            problems.append(f"trials {sorted(table.number)}")
        problems += [f"{row.trial_id} failed: {row.reason}" for row in table[table.status == "failed"].itertuples()]
        for trial, own in epochs.groupby("trial_id"):
            if list(own.epoch) != list(range(1, len(own) + 1)):
                problems.append(f"{trial} has the epochs {list(own.epoch)}")
        repeats = [] if told.finals is None else [one for each in told.finals.finalists for one in each.repeats]
        if [one.status for one in repeats] != ["completed"] * FINALISTS * REPEATS:
            problems.append(f"repeats: {Counter(one.status for one in repeats)}")
        problems += [
            f"{file} is missing"
            for file in (run.report / "index.html", ModelPaths(run.models).model)
            if not file.exists()
        ]
        self.count.sweeps += 1
        self.count.trials.update([*table.status, *(one.status for one in repeats)])
        self.count.epochs += len(epochs) + sum(len(one.epochs) for one in repeats)
        self.count.written += written
        self.count.problems += [f"{run.root.name}: {problem}" for problem in problems]
        if not problems:
            shutil.rmtree(run.root)


class View:
    """What the trials of one sweep do, from their folders, the heartbeat and /proc.

    written: over all sessions, trial and time of each state written; writing: the trial that is writing one now;
    running: by trial, its host and process id at the last look; phase: of the sweep.
    """

    def __init__(self, run: RunPaths, written: list[tuple[str, float]], hosts: list[Host]) -> None:
        self.written = written
        self.writing: str | None = None
        self.running: dict[str, tuple[Host, int]] = {}
        self.phase = ""
        self._run = run
        self._hosts = hosts
        self._looked_s = -math.inf
        self._inotify = LIBC.inotify_init1(os.O_NONBLOCK)
        self._watched: dict[int, str] = {}

    def close(self) -> None:
        self.look()
        os.close(self._inotify)

    def look(self) -> None:
        for trial_id, name, mask in self._events():
            if name == "state.pt" and mask & IN_MOVED_TO:
                self.writing = None
                self.written.append((trial_id, time.time()))
            elif name.startswith(".state-"):
                self.writing = trial_id
        if time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            for folder, trial_id in self._trials():
                if trial_id not in self._watched.values():
                    watch = LIBC.inotify_add_watch(self._inotify, os.fsencode(folder), IN_CREATE | IN_MOVED_TO)
                    self._watched[watch] = trial_id
                    # A state written before the folder was watched; those of earlier sessions are known.
                    if (folder / "state.pt").exists() and all(trial_id != one for one, _ in self.written):
                        self.written.append((trial_id, time.time()))
            self.running = {
                trial: (host, pid) for host in self._hosts for trial, pid in trials_on(host, self._run.root).items()
            }
            with contextlib.suppress(OSError, ValueError):
                self.phase = json.loads(self._run.heartbeat.read_text())["phase"]

    def last_state_s(self, trial_id: str) -> float:
        """When the trial's last state was written, as ``time.time()``; now, if there is none."""
        return max((at_s for trial, at_s in self.written if trial == trial_id), default=time.time())

    def _events(self) -> Iterator[tuple[str, str, int]]:
        """Trial, file name and event mask of the events since the last call; see inotify(7)."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._inotify, 1 << 16)
            while data:
                watch, mask, _, length = EVENT.unpack_from(data)
                name = data[EVENT.size : EVENT.size + length].rstrip(b"\0").decode()
                data = data[EVENT.size + length :]
                yield self._watched[watch], name, mask

    def _trials(self) -> Iterator[tuple[Path, str]]:
        yield from ((folder, folder.name) for folder in self._run.trial_folders())
        yield from ((folder, f"{folder.parent.name}/{folder.name}") for folder in self._run.repeat_folders())


def told(count: Count, seconds: float) -> Iterator[str]:
    """The lines of the final report."""
    in_all = f"{sum(count.faults.values())} faults in {seconds / 60:.0f} min"
    yield f"{in_all}, {count.sweeps} sweeps, {count.sessions} sessions"
    for kind in KINDS:
        yield f"  {kind}: " + ", ".join(f"{count.faults[kind, at]} {at}" for at in (ANY, *MOMENTS))
    yield "trials and repeats: " + ", ".join(f"{number} {status}" for status, number in count.trials.items())
    twice = count.written - count.epochs
    yield f"epochs: {count.epochs} on record, {count.written} trained to their end, so {twice} of them twice"
    yield f"broken off: {count.begun_again} epochs, {count.seconds_lost:.0f} s in all"
    yield f"lost: {len(count.problems) or 'nothing'}"
    yield from count.problems


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--each", type=int, default=8, help="faults of each kind")
    parser.add_argument("--minutes", type=float, default=60, help="go on with sweeps for so long")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if why := refused():
        sys.exit(f"no hosts can be made here: {why}")
    chance = random.Random(asked.seed)
    faults = drawn(asked.each, chance)
    start_s = time.monotonic()
    with launched_cluster(DISK_MB) as cluster:
        soak = Soak(cluster, faults, chance)
        while soak.left or time.monotonic() - start_s < 60 * asked.minutes:
            soak.sweep(f"s{soak.count.sweeps}")
            print(
                f"sweep {soak.count.sweeps}: {(time.monotonic() - start_s) / 60:.0f} min, {len(soak.left)} faults left",
                flush=True,
            )
    for line in told(soak.count, time.monotonic() - start_s):
        print(line)
    return int(bool(soak.count.problems))


if __name__ == "__main__":
    sys.exit(main())
