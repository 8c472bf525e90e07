"""The log of a run does not grow without end, and holds no secret."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sweep import log
from sweep.log import RunLog, without_secrets


def write(path: Path, *messages: str) -> None:
    handler = RunLog(path)
    for message in messages:
        handler.emit(logging.LogRecord("ray", logging.WARNING, "", 0, message, None, None))
    handler.close()


def test_a_log_of_a_long_night_is_bounded_and_ends_with_what_came_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_BYTES", 100_000)
    write(tmp_path / "logs" / "ray.log", *(f"record {number} {'-' * 5000}" for number in range(200)), "e" * 10**6)
    write(tmp_path / "logs" / "ray.log", "resumed")
    files = list((tmp_path / "logs").iterdir())
    assert sum(file.stat().st_size for file in files) <= 2 * 100_000 + log.LONGEST_RECORD
    assert (tmp_path / "logs" / "ray.log").read_text().endswith("WARNING ray: resumed\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_log_on_a_full_disk_loses_records_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    write(Path("/dev/full"), "lost")
    assert capfd.readouterr() == ("", "")


def test_no_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123abcd" * 8)
    monkeypatch.setenv("WANDB_API_KEY", "hunter-two")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    try:
        raise ConnectionError("http://me:s3cret@proxy:3128 refused 'authorization: Bearer abc.def' hunter-two")
    except ConnectionError as error:
        trace = (type(error), error, error.__traceback__)
    record = logging.LogRecord("ray", logging.ERROR, "", 0, "environment: %s", ("0123abcd" * 8,), trace)
    handler = RunLog(tmp_path / "ray.log")
    handler.emit(record)
    handler.close()
    text = (tmp_path / "ray.log").read_text()
    assert "environment: ***\n" in text
    assert text.endswith("ConnectionError: http://***@proxy:3128 refused 'authorization: Bearer *** ***\n")
    assert without_secrets("false") == "false", "not every such variable holds a secret"
