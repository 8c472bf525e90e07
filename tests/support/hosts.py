"""Machines of one's own, made of this one: each has its processes, network, name, HOME and /tmp, one CPU, and sshd.

They are namespaces below one more, which has the cable between them: nothing of them is seen from outside, and with
their processes all of it goes, also when the tests are killed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from full_disk import tiny_disk

HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
SHARED = Path("/mnt")
"""The one folder that all of them see, as an NFS mount."""
COMMANDS = ("ip", "nsenter", "rsync", "setpriv", "ssh", "ssh-keygen", "/usr/sbin/sshd", "unshare")
NAMESPACES = ("--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--net", "--uts")
SESSION = {
    # A lost host is found after half a minute, not after a whole one: in between is a link that was cut for 20 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
}
"""What is in the environment of everything that runs there, beside what a login has."""
HOLDS = ("sshd:", "sleep infinity")
START = """
set -e
folder=$1; home=$2; shift 2
cp --recursive --no-clobber /etc/skel/. "$folder$home"
for kept in "$@"; do  # the interpreter stays, also where a folder of the host's own is mounted over it
    case $kept in /tmp/*|$home/*) mkdir --parents "$folder$kept"; mount --bind "$kept" "$folder$kept";; esac
done
mount --bind "$folder/../shared" /mnt
mount --rbind "$folder$home" "$home"
hostname "${folder##*/}"
ip link set lo up
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
mkdir /run/sshd
mount -t tmpfs none /sys/fs/cgroup  # As Ray reads it, a machine with one CPU.
echo 100000 100000 > /sys/fs/cgroup/cpu.max
install --mode=600 "$folder"/../sshd_* /run
mount --rbind "$folder/tmp" /tmp
/usr/sbin/sshd -f /run/sshd_config
echo ready
sleep infinity
exit  # So that bash stays, which is the parent of orphans, and sleep does not replace it.
"""
SSHD = f"""
HostKey /run/sshd_key
PidFile none
PermitRootLogin yes
UsePAM no
SetEnv {" ".join(f"{name}={value}" for name, value in SESSION.items())}
"""


def refused() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid():
        return "only root makes namespaces"
    if missing := [command for command in COMMANDS if shutil.which(command) is None]:
        return f"not installed: {', '.join(missing)}"
    tried = ["unshare", *NAMESPACES, "ip", "link", "add", "cable", "type", "bridge"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"this machine refuses namespaces: {done.stderr.strip()}" if done.returncode else None


@dataclass
class Host:
    """folder: holds its HOME and /tmp, seen from outside. pid: its first process, likewise."""

    name: str
    address: str
    folder: Path
    pid: int
    holder: subprocess.Popen[str]

    @property
    def home(self) -> Path:
        return self.folder / HOME.relative_to("/")

    def popen(self, command: str) -> subprocess.Popen[str]:
        """Run a line of bash there, in HOME; both its outputs are its ``stdout``."""
        login = {"HOME": HOME, "PATH": os.defpath, "TERM": "dumb", "SHELL": "/bin/bash", **SESSION}
        environment = ["env", "--ignore-environment", *(f"{name}={value}" for name, value in login.items())]
        return subprocess.Popen(
            ["nsenter", "--all", "--target", str(self.pid), *environment, "bash", "-c", f"cd; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """As ``popen``, to the end: exit code and text."""
        process = self.popen(command)
        text, _ = process.communicate()
        return process.returncode, text

    def processes(self) -> dict[int, str]:
        """What runs there, but for sshd and what holds the host: pid, seen from outside, and command line."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns/pid") == space:
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:  # It has ended.
                continue
        return {pid: line for pid, line in found.items() if pid != self.pid and not line.startswith(HOLDS)}

    def kill(self) -> None:
        """All its processes at once, as when the power fails; returns when none is left."""
        if self.holder.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.holder.communicate()


class Network:
    """Hosts and the cable between them. The first one started has the switch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self.shared = folder / "shared"
        self.shared.mkdir()
        (folder / "sshd_config").write_text(SSHD)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "sshd_key"], check=True)

    def start(self, name: str, address: str) -> Host:
        """Switch a host on: a new one, or one that was killed, with the files it had."""
        folder = self.folder / name
        for own in (HOME, Path("/tmp")):
            (folder / own.relative_to("/")).mkdir(parents=True, exist_ok=True)
        kept = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)}
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "bash", "-c", START, "", folder, HOME, *kept],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", name
        pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        host = self.hosts[name] = Host(name, address, folder, pid, holder)
        if host is self._switch:
            self._ip(host, "link add eth0 type bridge")
        else:
            self._ip(self._switch, f"link add {name} type veth peer name eth0 netns {pid}")
            self._ip(self._switch, f"link set {name} master eth0 up")
        self._ip(host, f"address add {address}/24 dev eth0")
        self._ip(host, "link set eth0 up")
        return host

    def cable(self, host: Host, state: str) -> None:
        """state: "down", as if it were pulled out, or "up"."""
        self._ip(self._switch, f"link set {host.name} {state}")

    @property
    def _switch(self) -> Host:
        return next(iter(self.hosts.values()))

    def _ip(self, host: Host, command: str) -> None:
        subprocess.run(["nsenter", "--net", "--target", str(host.pid), "ip", *command.split()], check=True)


@contextmanager
def network(shared_mb: int | None = None) -> Iterator[Network]:
    """No host yet. shared_mb: the size of the folder that all will see, as a disk of its own."""
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="hosts", dir="/tmp", ignore_cleanup_errors=True)
        made = Network(Path(stack.enter_context(temporary)))
        if shared_mb is not None:
            stack.enter_context(tiny_disk(made.shared, shared_mb))
        try:
            yield made
        finally:
            for host in made.hosts.values():
                host.kill()
