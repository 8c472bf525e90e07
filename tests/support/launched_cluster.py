"""A cluster of hosts that ``ray up cluster.yaml`` started, as a user at a laptop does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from hosts import HOME, Host, Network, network

ROOT = Path(__file__).resolve().parents[2]
VENV = os.path.realpath(sys.prefix)
HEAD, FIRST, SECOND = ADDRESSES = ("10.77.0.2", "10.77.0.3", "10.77.0.4")
FILLED_IN = {
    "<address of the first machine>": HEAD,
    "<address of the second machine>": FIRST,
    "<address of the third machine>": SECOND,
    "<your user name on the machines>": HOME.owner(),
}
"""What a user writes into cluster.yaml."""
RAY = "RAY_AUTH_MODE=token ~/xray-sweep/.venv/bin/ray"
NOT_INSTALLED = {
    "test -x .venv/bin/pip || python3 -m venv ~/xray-sweep/.venv": f"ln -sfn {VENV} .venv",
    ".venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster,dicom]'": "true",
}
"""The hosts have no internet: here, and here only, they get what the tests run with."""


class LaunchedCluster:
    """laptop: from where it is started, with the code below ``~/xray-sweep``. hosts: head and workers by name."""

    def __init__(self, made: Network) -> None:
        self.network = made
        self.laptop = made.start("laptop", "10.77.0.1")
        self.laptop.run("mkdir .ssh xray-sweep && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
        for name, address in zip(("head", "first", "second"), ADDRESSES, strict=True):
            ssh = made.start(name, address).home / ".ssh"
            ssh.mkdir()
            shutil.copy(self.laptop.home / ".ssh/id_ed25519.pub", ssh / "authorized_keys")
        folder = self.laptop.home / "xray-sweep"
        text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
        for sent in yaml.safe_load(text)["file_mounts"].values():
            if (ROOT / sent).is_dir():
                shutil.copytree(ROOT / sent, folder / sent, ignore=shutil.ignore_patterns("__pycache__"))
            elif not sent.startswith("~"):
                shutil.copy(ROOT / sent, folder / sent)
        for asked, given in (FILLED_IN | NOT_INSTALLED).items():
            assert asked in text, asked
            text = text.replace(asked, given)
        (folder / "cluster.yaml").write_text(text, encoding="utf-8")
        (folder / ".venv").symlink_to(VENV)

    def host(self, name: str) -> Host:
        return self.network.hosts[name]

    def popen(self, command: str) -> subprocess.Popen[str]:
        """Start a line in a terminal of the laptop's, in the project's folder."""
        return self.laptop.popen(f"cd xray-sweep; export RAY_AUTH_MODE=token PATH=.venv/bin:$PATH; {command}")

    def run(self, command: str) -> tuple[int, str]:
        """As ``popen``, to the end: exit code and text."""
        process = self.popen(command)
        text, _ = process.communicate()
        return process.returncode, text

    def up(self) -> None:
        code, text = self.run("ray up cluster.yaml --yes")
        assert code == 0, text

    def wait_for_hosts(self, count: int) -> None:
        while f"\n {count} local.cluster.node" not in (text := self.run(f"ray exec cluster.yaml '{RAY} status'")[1]):
            assert "Active:" in text or "No cluster status." in text, text  # which comes a few seconds after Ray


def trials_on(host: Host, run: Path) -> dict[str, int]:
    """The trials of a run that ``host`` trains now, and by which process: it has their file for stacks open.

    So it has where there is a time limit. Repeats of finalists are named such as "t0007/seed_1001".
    """
    found = {}
    for pid in host.processes():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):  # It has ended, or closed it.
                _, _, file = os.readlink(link).rpartition(f"/{run.name}/")
                if file.endswith("/stacks.txt"):
                    found[file.partition("/")[2].removesuffix("/stacks.txt")] = pid
    return found


@contextmanager
def launched_cluster(shared_mb: int | None = None) -> Iterator[LaunchedCluster]:
    """Three hosts, up, with the token, all joined; and the laptop. shared_mb: see ``network``."""
    with network(shared_mb) as made:
        cluster = LaunchedCluster(made)
        code, text = cluster.run("(umask 077; ray get-auth-token --generate)")
        assert code == 0, text
        cluster.up()
        cluster.wait_for_hosts(3)
        yield cluster
