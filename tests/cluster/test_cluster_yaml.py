"""cluster.yaml, checked as `ray up` checks it before it opens the first connection."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PACKAGES = ("search_spaces", "trainables", "sweep", "reports")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return config


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(dict(cluster)))


def test_every_start_of_ray_asks_for_the_token(cluster: dict[str, Any]) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in cluster[key]
        if " start " in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)


def test_all_that_the_installation_needs_is_sent(cluster: dict[str, Any]) -> None:
    sent = {local for local in cluster["file_mounts"].values() if not local.startswith("~")}
    assert all((ROOT / local).exists() for local in sent - {"README.md"})
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^include = \[(.*)\]$", project, re.MULTILINE)
    assert packages is not None
    assert {name.removesuffix("*") for name in re.findall(r'"([^"]+)"', packages[1])} == sent & set(PACKAGES)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= sent


def test_ray_down_finds_what_stops_the_other_machines(cluster: dict[str, Any]) -> None:
    """``ray down`` runs a bare ``ray stop`` in a shell that has read ~/.bashrc."""
    assert cluster["file_mounts"]["~/xray-sweep/deploy"] == "deploy"
    assert os.access(ROOT / "deploy" / "ray", os.X_OK)
    assert any("'PATH=~/xray-sweep/deploy:$PATH' >> ~/.bashrc" in command for command in cluster["head_setup_commands"])


def test_the_token_is_for_its_owner_alone(cluster: dict[str, Any]) -> None:
    assert cluster["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
    made = [line for line in (ROOT / "cluster.yaml").read_text().splitlines() if "get-auth-token" in line]
    assert made
    assert all("(umask 077; ray get-auth-token --generate)" in line for line in made)


def test_the_sweep_is_installed_with_pinned_versions(cluster: dict[str, Any]) -> None:
    assert any(
        "--constraint constraints.txt" in command and "[cluster" in command for command in cluster["setup_commands"]
    )


def test_an_environment_that_was_left_without_pip_is_made_again(cluster: dict[str, Any], tmp_path: Path) -> None:
    """Debian's venv without python3-venv leaves .venv/bin/python behind, and no pip."""
    (command,) = (one for one in cluster["setup_commands"] if "-m venv" in one)
    for program, content in (("xray-sweep/.venv/bin/python", ""), ("bin/python3", "#!/bin/sh\necho made")):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).write_text(content)
        (tmp_path / program).chmod(0o755)
    home = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", command], env=home, capture_output=True, check=True).stdout == b"made\n"


def test_the_head_uses_the_autoscaler_that_can_start_the_others(cluster: dict[str, Any]) -> None:
    start = cluster["head_start_ray_commands"][-1]
    assert start.startswith("RAY_enable_autoscaler_v2=0 ")


def test_the_head_is_known_by_the_address_that_the_others_are_given(cluster: dict[str, Any]) -> None:
    assert f"--node-ip-address={cluster['provider']['head_ip']} " in cluster["head_start_ray_commands"][-1]
