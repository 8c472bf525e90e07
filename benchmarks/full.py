"""The time of a whole sweep compared with the published way, a bare loop, and a lower bound.

    python -m benchmarks.full [--only head,...] [--data FOLDER] [--weights FOLDER] [--results FILE] [--before CHECKOUT]
        [--rounds 3]

Ours is ``python -m sweep.run`` from the command to its report, in new folders: its time includes decoding the images
and computing the features. For the other ways, an epoch is measured while another process does the same, and multiplied
by the number of epochs that ours ran:

- tutorial: ``benchmarks.ray_tutorial``, with each num_workers in the first round, later with the fastest.
- bare loop: the same network, layout and type, decoded images in memory, every layer run in every step.
- T*: the lower bound of ``benchmarks.limits``.

Rounds of ours and the other ways alternate, the first of all cases before the second; the table has medians. Each
finished measurement is appended to the results file and not repeated: a command that was stopped continues where it
was. Measurements of another machine, of other data or sizes stay in the file and are not used. Nothing else should be
running.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from benchmarks import demo_sweep, trial_overhead
from benchmarks.cases import Case, cases, write_space
from benchmarks.limits import Cost, Part, bare_epoch_s, lower_bound_s, measure_bandwidth, measure_cost
from benchmarks.measurements import Measurement, Results, machine
from benchmarks.own_process import AT_ONCE, ROOT, timed_sweep
from benchmarks.speed import use_two_cores
from benchmarks.tutorial import DATA, NUM_WORKERS, WEIGHTS, check_folders, measure, weight_files
from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.machine import this_node

ROUNDS, SEEDS = 3, 5
EMPTY_TRIAL_LIMIT_S, DEMO_LIMIT_S = 0.15, 110.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the table. limit: the ratio at T*. at_least: ``must`` is a minimum of the ratio, else a maximum."""

    case: str
    other: str
    ours: str
    others: str
    ratio: float
    limit: float | None = None
    must: float | None = None
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """ "ok" or "missed"; empty without ``must``. NaN is never ok."""
        if self.must is None:
            return ""
        return "ok" if (self.ratio >= self.must if self.at_least else self.ratio <= self.must) else "missed"


class Bench:
    """The measurements of the cases on one data set, and the lines of the table."""

    def __init__(self, data: Path, weights: str, results: Results, rounds: int, quick: bool) -> None:
        check_folders(data)
        self.data, self.weights, self.results, self.quick = data, weights, results, quick
        self.image_size = 64 if quick else 224
        self.rounds = rounds
        self.num_workers = NUM_WORKERS[:1] if quick else NUM_WORKERS
        self.train_count, self.val_count = (len(ImageFolder(str(data / split))) for split in ("train", "val"))

    def costs(self, case: Case) -> dict[tuple[str, int | None], Cost]:
        """The cost of one image in each network of the case, measured once for all cases."""
        found = {}
        for (backbone, depth), params in case.places.items():
            make = functools.partial(self._cost, params)
            values = self.results.get(self._once(f"cost of {backbone}, depth {depth}", make))
            parts = {name: Part(**values[name]) for name in ("frozen", "trained", "validated")}
            found[backbone, depth] = Cost(**(values | parts))
        return found

    def bandwidth(self) -> float:
        one = self._once("memory copy", lambda: {"bytes_per_s": measure_bandwidth()})
        return float(self.results.get(one)["bytes_per_s"])

    def planned(self, case: Case) -> list[Measurement]:
        """All measurements of a case, in order of execution."""
        weight_files(case.weights or self.weights, case.trials)
        costs = self.costs(case)
        bound_s = self.bound_s([(params, case.epochs) for params in case.trials], costs)
        epochs_s = [self._epoch_s(costs[place]) for place in case.places]
        ours_s, tutorial_s = 60 + 2 * bound_s, 40 + 2 * sum(epochs_s) / min(AT_ONCE, len(epochs_s))
        found = []

        def plan(what: str, number: int, expected_s: float, make: Callable[[], dict[str, Any]]) -> None:
            found.append(Measurement(case.name, what, number, expected_s, make))

        for number in range(self.rounds):
            plan("ours fp32", number, ours_s, lambda: self._ours(case, "fp32"))
            if number == 0:
                for workers in self.num_workers:
                    plan(f"tutorial {workers}", 0, tutorial_s, functools.partial(self._tutorial, case, workers))
            else:
                plan("tutorial fastest", number, tutorial_s, lambda: self._tutorial(case, self._fastest(case)))
            if "bare loop" in case.must:
                plan("bare loop", number, 20 + 1.5 * epochs_s[0], lambda: self._bare_loop(case))
            if this_node().fast_bf16 or self.quick:
                plan("ours bf16", number, ours_s / 2, lambda: self._ours(case, "bf16"))
        return found

    def lines(self, case: Case) -> list[Line]:
        """The results of a case, from its measurements."""
        costs, found = self.costs(case), []
        ours = self._of(case, "ours fp32")
        tutorials = [self._first_round(case), *self._of(case, "tutorial fastest")][: self.rounds]
        bounds_s = [self.bound_s(_runs(one), costs) for one in ours]

        def compare(other: str, mine: list[dict[str, Any]], others_s: list[float], more: str = "") -> None:
            mine_s = [float(one["seconds"]) for one in mine]
            found.append(
                Line(
                    case=case.name,
                    other=other,
                    ours=_seconds(mine_s),
                    others=_seconds(others_s) + more,
                    ratio=statistics.median(b / a for a, b in zip(mine_s, others_s, strict=True)),
                    limit=statistics.median(b / a for a, b in zip(bounds_s, others_s, strict=True)),
                    must=case.must.get(other),
                )
            )

        def totals_s(mine: list[dict[str, Any]]) -> list[float]:
            return [_total_s(case, one, _runs(own)) for one, own in zip(tutorials, mine, strict=True)]

        apart = f" + {statistics.median(one['fixed_s'] for one in tutorials):.0f} s fixed"
        compare("tutorial", ours, totals_s(ours), apart)
        if faster := self._of(case, "ours bf16"):
            compare("tutorial, ours bf16", faster, totals_s(faster), apart)
            found[-1] = replace(found[-1], limit=None)  # T* is of float32.
        if bare := self._of(case, "bare loop"):
            epochs = [sum(count for _, count in _runs(one)) for one in ours]
            compare("bare loop", ours, [one["epoch_s"] * n / AT_ONCE for one, n in zip(bare, epochs, strict=True)])
        ours_s = [float(one["seconds"]) for one in ours]
        at_most = functools.partial(Line, case=case.name, ours=_seconds(ours_s), at_least=False)
        over = statistics.median(a / b for a, b in zip(ours_s, bounds_s, strict=True))
        found.append(at_most(other="T*", others=_seconds(bounds_s), ratio=over, must=case.must.get("T*")))
        outside = statistics.median(1 - one["busy_s"] / one["seconds"] for one in ours)
        busy = f"{_seconds([one['busy_s'] for one in ours])} in epochs"
        found.append(at_most(other="orchestration", others=busy, ratio=outside, must=case.must.get("orchestration")))
        return found

    def bound_s(self, runs: Sequence[tuple[TrialParams, int]], costs: dict[tuple[str, int | None], Cost]) -> float:
        return lower_bound_s(runs, self.train_count, self.val_count, costs, self.bandwidth())

    def arguments(self, case: Case, precision: str, space: object) -> list[object]:
        """Arguments of ``python -m sweep.run``, without the storage. space: the file that ``write_space`` wrote."""
        backbones = ",".join(dict.fromkeys(params.backbone for params in case.trials))
        how = ["--scheduler", "asha", "--grace-period", 1] if case.asha else ["--scheduler", "none"]
        return [
            *("--data", self.data.absolute(), "--weights", case.weights or self.weights, "--backbones", backbones),
            *("--image-size", self.image_size, "--fit", "crop", "--space", space, "--trials", len(case.trials)),
            *("--epochs", case.epochs, *how, *(["--sampler", "grid"] if case.listed else [])),
            *("--finalists", 0, "--precision", precision),
        ]

    def _ours(self, case: Case, precision: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            space = write_space(case, Path(folder) / "space.py")
            seconds, run = timed_sweep(*self.arguments(case, precision, space), *cache_options(folder))
        trials, names = run.trials, ("backbone", "unfreeze_depth", "augment", "batch_size")
        if len(trials) != len(case.trials) or (not case.asha and (trials.epochs_run != case.epochs).any()):
            wanted = f"{len(case.trials)} trials of {case.epochs} epochs"
            raise RuntimeError(f"ours ran other epochs than {wanted}: {trials.epochs_run.tolist()}")
        runs = [
            [{name: _plain(row[f"param_{name}"]) for name in names}, int(row["epochs_run"])]
            for _, row in trials.iterrows()
        ]
        return {"seconds": seconds, "busy_s": float(trials.seconds.sum()) / AT_ONCE, "runs": runs}

    def _tutorial(self, case: Case, num_workers: int) -> dict[str, Any]:
        trials = list(case.places.values())
        trials *= AT_ONCE if len(trials) == 1 else 1
        weights = case.weights or self.weights
        found = measure(self.data, weights, trials, 1, num_workers, self.image_size)
        return asdict(found)

    def _bare_loop(self, case: Case) -> dict[str, Any]:
        (params,) = case.places.values()
        return {"epoch_s": statistics.fmean(bare_epoch_s(params, self.train_count, self.val_count, self.image_size))}

    def _of(self, case: Case, what: str) -> list[dict[str, Any]]:
        return self.results.of(case.name, what)[: self.rounds]

    def _first_round(self, case: Case) -> dict[str, Any]:
        """The tutorial's measurement with the fastest num_workers of the first round."""
        tried = [self.results.found[case.name, f"tutorial {workers}", 0] for workers in self.num_workers]
        return min(tried, key=lambda one: sum(one["epoch_s"]))

    def _fastest(self, case: Case) -> int:
        return int(self._first_round(case)["num_workers"])

    def _cost(self, params: TrialParams) -> dict[str, Any]:
        return asdict(measure_cost(params, self.image_size, 0.1 if self.quick else 5.0))

    def _once(self, what: str, make: Callable[[], dict[str, Any]]) -> Measurement:
        return Measurement("limits", what, 0, 30.0, make)

    def _epoch_s(self, cost: Cost) -> float:
        """The approximate seconds of an epoch without a cache."""
        train_s, val_s = cost.frozen.seconds + cost.trained.seconds, cost.frozen.seconds + cost.validated.seconds
        return self.train_count * train_s + self.val_count * val_s


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="some of head,last_block,last_block_vgg16,full,mixed,empty,demo (all)")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("--weights", default=str(WEIGHTS), help="a folder of weight files, as for sweep.run, or random")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results.jsonl", help="where to go on")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, for the demo's time and score")
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 10), default=ROUNDS, metavar="N", help="of each sweep (3)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it work at all?")
    asked = parser.parse_args(argv)
    asked.rounds = 1 if asked.quick else asked.rounds
    use_two_cores()
    try:
        return _bench(asked)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _bench(asked: argparse.Namespace) -> int:
    setup = {"machine": machine(), "data": str(asked.data), "weights": asked.weights, "quick": asked.quick}
    results = Results(asked.results, setup)
    bench = Bench(asked.data, asked.weights, results, asked.rounds, asked.quick)
    sweeps, others = cases(bench.train_count, asked.quick), {"empty": plan_empty, "demo": plan_demo}
    only = asked.only.split(",") if asked.only else [*sweeps, *others]
    if unknown := [name for name in only if name not in (*sweeps, *others)]:
        raise UserError(f"--only {','.join(unknown)}: the cases are {', '.join((*sweeps, *others))}")
    places = {place for name in only if name in sweeps for place in sweeps[name].places}
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}; measuring the limits: at most {len(places) // 2 + 1} min")
    planned = {name: bench.planned(sweeps[name]) if name in sweeps else others[name](asked) for name in only}
    left = [one for some in planned.values() for one in some if (one.case, one.what, one.round) not in results.found]
    expected_s = sum(one.expected_s for one in left)
    print(f"{len(left)} measurements are left to make, expected duration about {expected_s / 60:.0f} min", flush=True)
    for one in sorted(left, key=lambda one: one.round):
        results.get(one)
    lines: list[Line] = []
    for name in only:
        lines += bench.lines(sweeps[name]) if name in sweeps else other_lines(results, name)
    print(table(lines))
    for name in only:
        for command in commands_of(bench, sweeps[name]) if name in sweeps else [COMMANDS[name]]:
            print(f"- {name}: `{command}`")
    rounds = f"{asked.rounds} round{'s' if asked.rounds > 1 else ''}"
    print(f"{datetime.now():%Y-%m-%d}, {rounds}, commit {', '.join(sorted(results.commits))}, {machine()}")
    if not this_node().fast_bf16:
        print("This CPU is not fast at bf16: it is not measured.")
    return int(not asked.quick and any(line.verdict == "missed" for line in lines))


COMMANDS = {
    "empty": "python -m benchmarks.speed --only overhead",
    "demo": "python -m sweep.run --space partial_unfreeze --seed 0 (to 4)",
}


def plan_empty(asked: argparse.Namespace) -> list[Measurement]:
    """A trial that trains nothing."""

    def make() -> dict[str, Any]:
        return {"seconds": trial_overhead.measure(asked.quick)[0].measured}

    return [Measurement("empty", "ours", number, 60.0, make) for number in range(asked.rounds)]


def plan_demo(asked: argparse.Namespace) -> list[Measurement]:
    """``make sweep`` with several seeds, and the same with an earlier commit."""
    checkouts = {"ours": ROOT} | ({"before": asked.before.absolute()} if asked.before else {})

    def make(seed: int, checkout: Path) -> dict[str, Any]:
        sizes = demo_sweep.QUICK if asked.quick else ()
        with tempfile.TemporaryDirectory() as folder:
            cache = cache_options(folder) if checkout == ROOT else []
            seconds, run = timed_sweep(*demo_sweep.COMMAND, *sizes, "--seed", seed, *cache, checkout=checkout)
        assert run.finals is not None
        assert run.finals.winning is not None, "the demo sweep has no winner"
        return {"seconds": seconds, "score": run.finals.winning.mean}

    return [
        Measurement("demo", what, seed, 160.0, functools.partial(make, seed, checkout))
        for seed in range(1 if asked.quick else SEEDS)
        for what, checkout in checkouts.items()
    ]


def other_lines(results: Results, name: str) -> list[Line]:
    """The rows of the cases that are not sweeps of X-rays: empty and demo."""
    ours, before = results.of(name, "ours"), results.of(name, "before")
    seconds = [float(one["seconds"]) for one in ours]
    most = {"empty": EMPTY_TRIAL_LIMIT_S, "demo": DEMO_LIMIT_S}[name]
    time = Line(
        case=name,
        other="seconds",
        ours=_seconds(seconds),
        others="",
        ratio=statistics.median(seconds),
        must=most,
        at_least=False,
    )
    if name == "empty":
        return [time]
    earlier = _seconds([float(one["seconds"]) for one in before]) if before else ""
    scores = [float(one["score"]) for one in ours]
    gain = [a["score"] - b["score"] for a, b in zip(ours, before, strict=False)]
    error = statistics.stdev(gain) / math.sqrt(len(gain)) if len(gain) > 1 else None
    score = Line(
        case=name,
        other="mean validation score, minus that of --before",
        ours=f"{statistics.fmean(scores):.4f}",
        others=f"{statistics.fmean(one['score'] for one in before):.4f}" if before else "",
        ratio=statistics.fmean(gain) if gain else math.nan,
        must=None if error is None else -error,
    )
    return [replace(time, others=earlier), score]


def cache_options(folder: str) -> list[str]:
    """An empty folder for the feature cache, so that the time includes computing it."""
    return ["--cache-dir", f"{folder}/features"]


def commands_of(bench: Bench, case: Case) -> list[str]:
    """The commands of ours and of the other ways, as a user would type them."""
    found = [" ".join(map(str, ("python -m sweep.run", *bench.arguments(case, "fp32", f"{case.name}.py"))))]
    if not case.listed:
        (params,) = case.places.values()
        network = f"--backbone {params.backbone} --depth {params.unfreeze_depth}"
        sizes = f"--trials {len(case.trials)} --epochs {case.epochs}"
        where = f"--data {bench.data} --weights {case.weights or bench.weights}"
        found.append(f"python -m benchmarks.tutorial {where} {network} {sizes}")
        found.append(f"python -m benchmarks.limits {network} {sizes} --images {bench.train_count},{bench.val_count}")
    return found


def table(lines: Sequence[Line]) -> str:
    """The table in Markdown."""
    rows: list[tuple[str, ...]] = [
        ("case", "other way", "ours", "the other way", "ratio", "limit (at T*)", "must reach", "")
    ]
    rows.append(("---",) * len(rows[0]))
    for line in lines:
        must = "" if line.must is None else f"{'at least' if line.at_least else 'at most'} {line.must:.3g}"
        limit = "" if line.limit is None else f"{line.limit:.3g}"
        rows.append((line.case, line.other, line.ours, line.others, f"{line.ratio:.3g}", limit, must, line.verdict))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _runs(ours: dict[str, Any]) -> list[tuple[TrialParams, int]]:
    return [(TrialParams.from_flat(flat), epochs) for flat, epochs in ours["runs"]]


def _total_s(case: Case, tutorial: dict[str, Any], runs: Sequence[tuple[TrialParams, int]]) -> float:
    """Seconds of the tutorial's epochs if its trials ran as many epochs as ours."""
    places, epoch_s = list(case.places), tutorial["epoch_s"]
    of = {place: statistics.fmean(epoch_s) if len(places) == 1 else epoch_s[i] for i, place in enumerate(places)}
    return sum(epochs * of[params.backbone, params.unfreeze_depth] for params, epochs in runs) / AT_ONCE


def _seconds(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.{0 if middle >= 100 else 2}f} s"


def _plain(value: Any) -> Any:
    """A pandas or NumPy number as a Python number; other values unchanged."""
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    sys.exit(main())
