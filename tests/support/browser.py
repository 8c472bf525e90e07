"""A page in headless Chromium, driven over the DevTools protocol through a pipe: no package but the browser itself.

Protocol: https://chromedevtools.github.io/devtools-protocol/; over ``--remote-debugging-pipe`` a message is JSON that
ends with a zero byte, read by the browser from file descriptor 3 and written by it to 4.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


def installed() -> str:
    """The browser's path: ``$CHROMIUM``, or the first of ``NAMES`` that is found; the test is skipped without one.

    Where ``$CI`` is set the test fails instead, so that it is not left out unseen.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no Chromium here: install one (apt-get install chromium) or set CHROMIUM to its path")
    return found


class Browser:
    """One page. messages: what its console said, and errors that nothing caught, as "level: text".

    requests: every address that the page asked for, but ``data:``.
    """

    def __init__(self, process: subprocess.Popen[bytes], send: int, receive: int) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._process, self._send, self._receive = process, send, receive
        self._rest = b""
        self._number = 0
        self._loaded = False
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    _session = None

    def open(self, page: Path, width: int = 1000, height: int = 900) -> None:
        """Load ``page`` and wait until it and all that it needs are there; forgets what was said before."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.messages.clear()
        self.requests.clear()
        self._loaded = False
        self._ask("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._handle(self._read())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON carries it."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._send, json.dumps(asked).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == asked["id"]:
                assert "error" not in message, f"{method}: {message['error']}"
                answer: dict[str, Any] = message["result"]
                return answer
            self._handle(message)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._receive, 1 << 20) if ready else b""
            assert part, f"the browser {'ended' if ready else f'said nothing for {PATIENCE_S:.0f} s'}"
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled":
                said = " ".join(str(one.get("value", one.get("description", ""))) for one in params["args"])
                self.messages.append(f"{params['type']}: {said}")
            case "Runtime.exceptionThrown":
                self.messages.append(f"error: {params['exceptionDetails']}")
            case "Log.entryAdded":
                self.messages.append(f"{params['entry']['level']}: {params['entry']['text']}")
            case "Page.javascriptDialogOpening":
                self.messages.append(f"dialog: {params['message']}")
                self._ask("Page.handleJavaScriptDialog", accept=True)


@contextlib.contextmanager
def browse(profile: Path) -> Iterator[Browser]:
    """A browser whose own files are in ``profile``, closed at the end."""
    ours_out, theirs_in = _high_pipe()
    theirs_out, ours_in = _high_pipe()
    # Only a shell can give a child the file descriptors 3 and 4 without touching ours.
    words = f'exec "$@" 3<&{ours_out} 4>&{ours_in}'
    command = ["bash", "-c", words, "bash", installed(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, pass_fds=(ours_out, ours_in), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(ours_out)
    os.close(ours_in)
    try:
        yield Browser(process, theirs_in, theirs_out)
    finally:
        # Without its pipe the browser ends by itself.
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends (to read, to write) are 10 or above, out of the way of 3 and 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
