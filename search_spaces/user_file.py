"""A space in a user's file. It runs in a process of its own, which is ended if a call takes too long.

The file may loop forever, end its process or fill the memory: the sweep only gets an error. The two processes exchange
plain values: the file gets pickled requests and answers, and sends JSON lines.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from search_spaces.errors import UserError, reason_of, shown_problems
from search_spaces.params import Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna

CALL_WITHIN_S = 60.0
"""The most that the import of the file, one draw, or ``seed_points`` may take."""
KILLED_AFTER_S = 5.0
"""How much longer to wait before a kill: for what cannot end itself, such as a process that the file started."""
LONGEST_FILE = 1_000_000
LONGEST_REPLY = 1_000_000
"""Characters of JSON, enough for thousands of seed points."""
LONGEST_TEXT = 1_000
"""Characters of an exception's text."""
SUGGESTS = ("suggest_float", "suggest_int", "suggest_categorical")


class ProcessLost(UserError):
    """A call took longer than ``CALL_WITHIN_S``, or ended the process of the file.

    frames: the stack of each of its threads, as written by faulthandler; "" if it could not.
    """

    frames: str = ""


class UserFile:
    """The file at ``path``, with the two functions of our spaces. source: its text.

    Raises ``UserError`` with the file and the line of an error, ``ProcessLost`` if a call takes too long or ends the
    process. The next call then starts another process; it ends with this object.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not (path.is_file() and path.stat().st_size <= LONGEST_FILE):
            raise UserError(f"--space: {path} cannot be read: it is not a file of at most {LONGEST_FILE} bytes")
        try:
            self.source = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"--space: no such space file: {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--space: the file {path} cannot be read: {reason_of(error)}") from None
        self._path = str(path)
        self._process: subprocess.Popen[bytes] | None = None
        if not self._call("defines_space"):
            raise UserError(
                f"{path} defines no space: write `def space(trial, context)` that returns a dict of constants"
            )

    def space(self, trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
        returned: dict[str, Scalar] = self._call("space", context, trial)
        return returned

    def seed_points(self, context: SpaceContext) -> Any:
        return self._call("seed_points", context)

    def _call(self, name: str, context: SpaceContext | None = None, trial: optuna.Trial | None = None) -> Any:
        """What the file returns for ``name``; its questions to ``trial`` are answered meanwhile."""
        if self._process is None:
            self._process = _started(self._path, self.source)
            self._end = weakref.finalize(self, _ended, self._process)
        process, overdue = self._process, threading.Event()
        last_resort = threading.Timer(CALL_WITHIN_S + KILLED_AFTER_S, _kill, [process, overdue])
        last_resort.start()
        message: object = (name, context, CALL_WITHIN_S)
        try:
            while True:
                line = _exchanged(process, message)
                if not line.endswith(b"}\n"):  # it has ended, and this is what faulthandler wrote
                    frames = _without_questions(line + _output(process).read())
                    raise self._lost(frames, hung=line.startswith(b"Timeout") or overdue.is_set())
                reply = json.loads(line)
                if "asked" not in reply:
                    break
                message = _answer(trial, *reply["asked"])
        except BaseException:  # also Ctrl-C: the answer of the process would stay unread
            last_resort.cancel()
            self._end()
            self._process = None
            raise
        last_resort.cancel()
        if "problems" in reply:
            raise UserError(*reply["problems"])
        return reply["returned"]

    def _lost(self, frames: str, hung: bool) -> ProcessLost:
        code = self._end() or 0
        file = re.escape(self._path.encode("ascii", "backslashreplace").decode())
        found = re.search(rf'File "{file}", line (\d+) in (.+)', frames)
        place = f" at line {found[1]} (in {found[2]})" if found else ""
        if hung:
            what = f"did not return within {CALL_WITHIN_S:g} s{place}"
            why = "its import, each draw and seed_points() are limited to that"
        else:
            how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
            what = f"ended its process {how}{place}"
            why = "remove the cause (os._exit, a crash, out of memory)"
        error = ProcessLost(f"{self._path} {what}: {why}")
        error.frames = frames
        return error


def _started(path: str, source: str) -> subprocess.Popen[bytes]:
    """A process that reads requests. Its own session: it is killed with all that it starts, and not by Ctrl-C."""
    serving = f"import sys; sys.path[:] = {[*map(str, sys.path)]!r}; from search_spaces.user_file import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", serving], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(pickle.dumps((path, source)))
    return process


def _exchanged(process: subprocess.Popen[bytes], message: object) -> bytes:
    """The line that answers ``message``; anything else if the process has ended."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(pickle.dumps(message))
        process.stdin.flush()
    return _output(process).readline()


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _without_questions(written: bytes) -> str:
    """What faulthandler wrote, without questions that the still running space wrote amid its lines."""
    return re.sub(rb'\{"asked": .*\}\n', b"", written).decode(errors="replace")


def _answer(trial: Any, method: str, given: list[Any], named: dict[str, Any]) -> object:
    """The value that ``trial`` suggests, or the exception that the file is to get."""
    try:
        return getattr(trial, method)(*given, **named)
    except Exception as error:
        return error


def _kill(process: subprocess.Popen[bytes], overdue: threading.Event | None = None) -> None:
    if overdue is not None:
        overdue.set()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS forbids it if only a zombie is left.
        os.killpg(process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """End the process and what it has started; its exit code."""
    _kill(process)
    code = process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return code


def serve() -> None:
    """The main loop of the file's process: answers one request after the other, until there are no more."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # ``input()`` must not wait
    os.dup2(2, 1)  # what the file prints must not mix with replies
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this process is killed first
    faulthandler.enable(replies)
    path, source = pickle.load(requests)
    module: types.ModuleType | None = None
    own = os.getpid()
    while True:
        try:
            name, context, within_s = pickle.load(requests)
        except EOFError:
            os._exit(0)  # whatever threads the file has left
        faulthandler.dump_traceback_later(within_s, exit=True, file=replies)
        try:
            if module is None:
                module = _module(path, source)
            reply = _line({"returned": _result(module, name, context, _AskingTrial(requests, replies))})
        except BaseException as error:  # also SystemExit and KeyboardInterrupt
            reply = _line({"problems": _problems(error, path)})
        if os.getpid() != own:
            os._exit(0)  # the file has forked, and only one of the two may answer
        faulthandler.cancel_dump_traceback_later()
        _write(replies, reply)


class _AskingTrial:
    """The trial that the file sees: it asks ``UserFile`` for each value."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in SUGGESTS:
            raise AttributeError(f"a space may use only {', '.join(SUGGESTS)} of its trial, not {method!r}")

        def ask(*given: Any, **named: Any) -> Any:
            _write(self._replies, _line({"asked": [method, given, named]}))
            answer = pickle.load(self._requests)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


def _module(path: str, source: str) -> types.ModuleType:
    """Run the file as a module of its own. Not by ``import``, which would write a cache beside the file."""
    module = types.ModuleType(f"space_file_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def _result(module: types.ModuleType, name: str, context: SpaceContext, trial: _AskingTrial) -> object:
    if name == "defines_space":
        return callable(getattr(module, "space", None))
    if name == "seed_points":
        return module.seed_points(context) if hasattr(module, name) else []
    returned = module.space(trial, context)
    return dict(returned) if isinstance(returned, Mapping) else returned


def _line(reply: dict[str, Any]) -> bytes:
    text = json.dumps(reply, default=_plain)
    if len(text) > LONGEST_REPLY:
        raise ValueError(f"{len(text)} characters are too many for a value, choices or seed points")
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """For a type that JSON lacks: a plain number or list with the same content, or its text."""
    if hasattr(value, "tolist"):  # of numpy and torch
        return value.tolist()
    return list(value) if isinstance(value, Iterable) else repr(value)


def _write(replies: IO[bytes], line: bytes) -> None:
    replies.write(line)
    replies.flush()


def _problems(error: BaseException, path: str) -> list[str]:
    """``mine.py raises KeyError: 'x' at line 7 (in space)``: the innermost line of the file, if there is one."""
    if isinstance(error, SyntaxError) and error.lineno is not None and error.filename == path:
        return [f"{path} raises SyntaxError: {error.msg} at line {error.lineno}"]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    place = f" at line {own[-1].lineno} (in {own[-1].name})" if own else ""
    if isinstance(error, UserError):
        return [f"{path}: {problem}{place}" for problem in error.problems]
    lines = "".join(traceback.format_exception_only(error))[:LONGEST_TEXT].split("\n")
    text = " ".join(shown_problems([line.strip() for line in lines if line.strip()]))
    return [f"{path} raises {text}{place}"]
