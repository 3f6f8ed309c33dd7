"""Parsers that can kill or hang a process, run in a child with limits on its time and memory."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.core.door.file_errors import BadFile, translate
from alignzoo.core.errors import Problem, RunFailed, UserError

SECONDS, MEMORY = 8.0, 2_000_000_000
END = b"\n"
IDLE = 3
"""Wall-clock time of a child as a multiple of its processor time: a busy machine is no fault of a file."""


def in_child(
    path: Path | str, function: Callable[..., Any], *args: Any,
    what: str = "", hint: str = "", seconds: float = SECONDS, memory: int = MEMORY,
) -> Any:  # fmt: skip
    """Call a function in a forked child, and return its value as JSON values.

    The child starts no Python and imports nothing, so the call costs some 10 ms. It prints nothing. It must not use an
    accelerator.

    Args:
        path: The file or folder that the function reads, for errors.
        function: The parser, or a check that calls it.
        *args: Its arguments.
        what: What the file should hold, such as "the tokenizer".
        hint: How to fix the file.
        seconds: Processor time that the child may take, and a third of the time that may pass.
        memory: Bytes that it may allocate, beyond those of this process.

    Raises:
        UserError: The function raised it.
        BadFile: The function raised anything else, took too long or too much memory, or ended the process.
    """
    if not hasattr(os, "fork"):
        with translate(path, what, hint):
            return function(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(writing, path, what, hint, lambda: function(*args), seconds, memory)
    os.close(writing)
    try:
        answer = _receive(reading, time.monotonic() + IDLE * seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    subject = f"{what} can't be read" if what else "can't be read"
    if answer is None or (not answer.endswith(END) and status & 127 == signal.SIGXCPU):
        raise BadFile(f"{subject}: its parser took more than {seconds:g} s", where=str(path), hint=hint)
    if not answer.endswith(END):
        ended = f"signal {signal.Signals(status & 127).name}" if status & 127 else f"exit code {status >> 8}"
        raise BadFile(f"{subject}: its parser ended with {ended}", where=str(path), hint=hint)
    kind, value = json.loads(answer)
    if kind == "value":
        return value
    raise _ERRORS[kind](Problem(*fields) for fields in value) if kind != "RunFailed" else RunFailed(value)


_ERRORS: dict[str, type[UserError]] = {"UserError": UserError, "BadFile": BadFile}


def _receive(reading: int, deadline: float) -> bytes | None:
    """The child's answer; empty if it ended without one, None if time is up."""
    parts: list[bytes] = []
    poll = select.poll()
    poll.register(reading, select.POLLIN | select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(reading, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _work(
    writing: int, path: Path | str, what: str, hint: str, call: Callable[[], Any], seconds: float, memory: int
) -> None:
    """The child: it writes its answer and ends, and never returns into the code of its parent."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        _limit(seconds, memory)
        answer: tuple[str, Any]
        try:
            with translate(path, what, hint):
                answer = "value", call()
        except UserError as error:
            kind = "BadFile" if isinstance(error, BadFile) else "UserError"
            answer = kind, [[one.what, one.where, one.expected, one.nearest, one.hint] for one in error.problems]
        except Exception as error:
            answer = "RunFailed", f"{path}: {type(error).__name__}: {error}"
        left = json.dumps(answer).encode() + END
        while left:
            left = left[os.write(writing, left) :]
    finally:
        os._exit(1)


def _limit(seconds: float, memory: int) -> None:
    import resource

    def lower(which: int, limit: int) -> None:
        _, most = resource.getrlimit(which)
        resource.setrlimit(which, (limit if most < 0 else min(limit, most), most))

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = time.process_time()  # a fork starts at zero on Linux
    lower(resource.RLIMIT_CPU, max(1, round(used + seconds)))
    status = Path("/proc/self/status")
    found = re.search(r"VmData:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found:  # the data of a process, and not its address space, which mapped weights and CUDA fill
        lower(resource.RLIMIT_DATA, int(found[1]) * 1024 + memory)
