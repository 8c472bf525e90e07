"""A cluster of three hosts that ``ray up cluster.yaml`` starts: what is lost there, and what is refused.

In this order: each test leaves what the next one begins with.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hosts import SHARED, Host, refused
from launched_cluster import HEAD, RAY, LaunchedCluster, launched_cluster, trials_on
from whole_sweep import epochs_of

from sweep.status import read_status

pytestmark = pytest.mark.cluster

SWEEP = ".venv/bin/python -m sweep.run"
SMALL = "--data demo --max-images 200 --image-size 32 --backbones squeezenet1_1 --weights random --trial-time-limit 1h"
SLOW = f"{SMALL} --set unfreeze_depth=4 --set batch_size=4 --scheduler none"
SAME_ON_ONE_HOST = f"{SMALL} --set batch_size=4 --trials 6 --epochs 4 --deterministic --concurrency 3 --finalists 0"
DIFFERS = ["seconds", "epoch_seconds", "images_per_second", "inference_ms_per_image"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LaunchedCluster]:
    """Up, with the token, and all of its hosts have joined."""
    if why := refused():
        pytest.skip(why)
    pytest.importorskip("aiohttp", reason="the dashboard is not installed: pip install '.[cluster]'")
    with launched_cluster() as launched:
        yield launched


def start(host: Host, options: str, address: str = "auto") -> subprocess.Popen[str]:
    """A sweep, as it is started in a terminal of ``host``."""
    where = f"--address {address} --storage {SHARED}/runs"
    return host.popen(f"cd xray-sweep; export RAY_AUTH_MODE=token; {SWEEP} {where} {options}")


def end(sweep: subprocess.Popen[str]) -> str:
    """What it wrote; it must have been a success."""
    text, _ = sweep.communicate()
    assert sweep.returncode == 0, text
    return text


def run_folder(cluster: LaunchedCluster, name: str) -> Path:
    return cluster.network.shared / "runs" / name


def epochs_on(host: Host, run: Path) -> dict[str, int]:
    """The trials that now run on ``host``, and how many epochs of each are written down; those with one at least."""
    files = {trial: run / "trials" / trial / "result.jsonl" for trial in trials_on(host, run)}
    counts = {trial: len(file.read_text().splitlines()) for trial, file in files.items() if file.exists()}
    return {trial: count for trial, count in counts.items() if count}


def wait_for_epoch(host: Host, run: Path, sweep: subprocess.Popen[str]) -> None:
    """Until an epoch of a trial that runs on ``host`` is written down; the sweep must not end before."""
    while not epochs_on(host, run):
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.2)


def send(pid: int, number: signal.Signals) -> None:
    """To a process that may have ended since it was seen."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def hold(hosts: list[Host], run: Path, sweep: subprocess.Popen[str]) -> list[int]:
    """Stop the processes of the trials of each host once an epoch there is written down; their pids.

    It leaves trials for the hosts whose worker starts later, and as many as are wanted on a machine of any speed.
    """
    waiting, stopped = list(hosts), []
    while waiting:
        assert sweep.poll() is None, sweep.communicate()[0]
        for host in [host for host in waiting if epochs_on(host, run)]:
            for pid in trials_on(host, run).values():
                send(pid, signal.SIGSTOP)
                stopped.append(pid)
            waiting.remove(host)
    return stopped


def kill_driver(head: Host) -> None:
    for pid, line in head.processes().items():
        if line.startswith(SWEEP):
            send(pid, signal.SIGKILL)


def assert_complete(run: Path, trials: int, epochs: int) -> None:
    """Every trial was completed, and every epoch is written down once, in order."""
    table = pd.read_parquet(run / "trials.parquet")
    assert sorted(table.number) == list(range(trials))
    assert set(table.status) == {"completed"}, table[["number", "status", "reason"]]
    for trial in (run / "trials").iterdir():
        assert epochs_of(trial) == list(range(1, epochs + 1)), trial.name
    assert (run / "report" / "index.html").exists()


def test_the_token_can_be_read_by_its_owner_alone(cluster: LaunchedCluster) -> None:
    for host in cluster.network.hosts.values():
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600, host.name


def test_who_has_no_token_is_refused(cluster: LaunchedCluster) -> None:
    """A join, a job and a client. The stranger is a user of the head, behind any firewall."""
    head = cluster.host("head")
    stranger = "PATH=~/xray-sweep/.venv/bin:$PATH; mkdir -p /tmp/stranger; export HOME=/tmp/stranger"
    client = f"import ray; ray.init('ray://{HEAD}:10001')"
    attempts = [
        head.popen(f"{stranger} RAY_AUTH_MODE={mode}; RAY_CLIENT_RECONNECT_GRACE_PERIOD=1 {what}")
        for mode in ("token", "disabled")
        for what in (
            f"ray start --address={HEAD}:6379",
            "ray job submit --address http://127.0.0.1:8265 -- touch /tmp/was_here",
            f'python -c "{client}"',
        )
    ]
    for process in attempts:
        text, _ = process.communicate()
        assert process.returncode != 0, text
    assert head.run("test -e /tmp/was_here")[0] == 1
    cluster.wait_for_hosts(3)


def test_a_job_is_followed_and_stopped_and_its_report_fetched(cluster: LaunchedCluster) -> None:
    """By the commands of deploy/README.md, in two terminals of the laptop."""
    run, at = run_folder(cluster, "job"), "--address http://127.0.0.1:8265"
    sweep = f"{SWEEP} --address auto --storage {SHARED}/runs --name job --trials 200 --epochs 2 {SMALL}"
    tunnel = cluster.popen("exec ray dashboard cluster.yaml")
    try:
        while cluster.run(f"ray job list {at}")[0]:
            assert tunnel.poll() is None, tunnel.communicate()[0]
        submitted, text = cluster.run(f"ray job submit {at} --no-wait -- bash -c 'cd ~/xray-sweep && {sweep}'")
        assert submitted == 0, text
        (job,) = set(re.findall(r"raysubmit_\w+", text))
        assert job in cluster.run(f"ray job list {at}")[1]
        logs = cluster.popen(f"exec ray job logs --follow {at} {job}")
        assert logs.stdout is not None
        assert any(line.startswith("[2/200]") for line in logs.stdout)
        assert cluster.run(f"ray job stop {at} {job}")[0] == 0
        assert "interrupted: nothing is lost, continue with: python -m sweep.run --resume job" in logs.communicate()[0]
    finally:
        for pid in cluster.laptop.processes():
            send(pid, signal.SIGKILL)
        tunnel.communicate()
    assert read_status(run).state == "interrupted"
    fetched, text = cluster.run(f"ray rsync-down cluster.yaml {SHARED}/runs/job/report/ first-report/")
    assert fetched == 0, text
    page = cluster.laptop.home / "xray-sweep" / "first-report" / "index.html"
    assert page.read_bytes() == (run / "report" / "index.html").read_bytes()


def test_a_sweep_on_three_hosts_killed_and_resumed_is_that_of_one_host(cluster: LaunchedCluster) -> None:
    head, laptop = cluster.host("head"), cluster.laptop
    run = run_folder(cluster, "three")
    sweep = start(head, f"--name three {SAME_ON_ONE_HOST}")
    stopped = hold([head, cluster.host("first"), cluster.host("second")], run, sweep)
    kill_driver(head)
    for pid in stopped:
        send(pid, signal.SIGCONT)
    sweep.communicate()
    end(start(head, "--resume three"))
    # The laptop is one more host, with as many slots as the three have together.
    alone = f"--head --port=6379 --node-ip-address={laptop.address} --num-cpus=3 --include-dashboard=false"
    assert laptop.run(f"{RAY} start {alone}")[0] == 0
    end(start(laptop, f"--name one {SAME_ON_ONE_HOST}", f"{laptop.address}:6379"))
    laptop.run(f"{RAY} stop")
    for name in ("trials.parquet", "epochs.parquet"):
        three, one = (
            pd.read_parquet(folder / name).drop(columns=DIFFERS, errors="ignore")
            for folder in (run, run_folder(cluster, "one"))
        )
        pd.testing.assert_frame_equal(three, one)


def test_a_cut_link_and_a_dead_host_cost_no_trial(cluster: LaunchedCluster) -> None:
    """A link that is cut for 20 s costs nothing; one cut for good, and a host, the epoch that their trials were in."""
    head, first, second = (cluster.host(name) for name in ("head", "first", "second"))
    run = run_folder(cluster, "lost")
    sweep = start(head, f"--name lost --trials 6 --epochs 8 --finalists 0 {SLOW}")
    stopped = hold([head, second], run, sweep)  # What is left to do is for the first.
    wait_for_epoch(first, run, sweep)
    before = trials_on(first, run)
    cluster.network.cable(first, "down")
    time.sleep(20)
    cluster.network.cable(first, "up")
    assert trials_on(first, run) == before
    while trials_on(first, run) == before:  # It goes on, and takes the next one.
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.2)
    hold([first], run, sweep)
    cluster.network.cable(first, "down")
    second.kill()
    for pid in stopped:
        send(pid, signal.SIGCONT)
    text = end(sweep)
    assert text.count("lost its worker") >= 2, text
    assert_complete(run, trials=6, epochs=8)


def test_a_host_that_comes_late_is_used(cluster: LaunchedCluster) -> None:
    """Switched on, and started by Ray's autoscaler, while a sweep runs that began without it."""
    cluster.network.cable(cluster.host("first"), "up")
    cluster.wait_for_hosts(2)
    head, run = cluster.host("head"), run_folder(cluster, "late")
    sweep = start(head, f"--name late --trials 200 --epochs 8 --finalists 0 {SLOW}")
    wait_for_epoch(head, run, sweep)
    wait_for_epoch(cluster.network.start("second", cluster.host("second").address), run, sweep)
    kill_driver(head)
    sweep.communicate()


def test_after_the_head_was_lost_a_resumed_sweep_ends_with_the_whole_report(cluster: LaunchedCluster) -> None:
    head, run = cluster.host("head"), run_folder(cluster, "headless")
    sweep = start(head, f"--name headless --trials 4 --epochs 4 --finalists 1 --repeats 1 {SLOW}")
    wait_for_epoch(head, run, sweep)
    head.kill()
    sweep.communicate()
    head = cluster.network.start("head", HEAD)
    cluster.up()
    cluster.wait_for_hosts(3)
    end(start(head, "--resume headless"))
    assert_complete(run, trials=4, epochs=4)
    assert (run / "models" / "best.pt").exists()
    assert re.search(r"\n## \d+\. Finalists\n", (run / "report" / "report.md").read_text())


def test_ray_down_leaves_no_process_on_any_host(cluster: LaunchedCluster) -> None:
    cluster.wait_for_hosts(3)
    code, text = cluster.run("ray down cluster.yaml --yes")
    assert code == 0, text
    for name in ("head", "first", "second"):
        assert cluster.host(name).processes() == {}, text
