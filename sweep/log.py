"""The log of a run: bounded in size, and without secrets, as it is kept and shared with the results."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_BYTES = 5_000_000
"""Maximum size of each of two files: the log and its predecessor."""
LONGEST_RECORD = 50_000
SHORTEST_SECRET = 6
"""Characters; hiding a shorter value, such as "false", would remove ordinary words from the text."""
HIDDEN = "***"
_SECRET_NAME = re.compile("token|secret|passw|credential|api_?key|access_?key", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?<=://)[^/\s@]+(?=@)|(?<=bearer )\S+", re.IGNORECASE)


class RunLog(RotatingFileHandler):
    """Writes records to ``path`` and creates its folder. On a full disk only records are lost."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))[:LONGEST_RECORD]

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of records that could not be written
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: Python's default prints a traceback for each record."""


def without_secrets(text: str) -> str:
    """``text`` without the user and password of a URL, what follows "Bearer", and values of environment variables whose
    names suggest a secret (``RAY_AUTH_TOKEN``)."""
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    return _SECRET_TEXT.sub(HIDDEN, text)
