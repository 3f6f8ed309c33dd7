"""Parsers in a child process, with limits on its time and memory.

These are parsers that can kill or hang a process.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alignzoo.core.door.file_errors import BadFile, translate
from alignzoo.core.errors import Problem, RunFailed, UserError

SECONDS, MEMORY = 8.0, 2_000_000_000
END = b"\n"
TOKENIZERS = "TOKENIZERS_PARALLELISM"
T = TypeVar("T")
IDLE = 3
"""Wall-clock time of a child as a multiple of its processor time: a busy machine is no fault of a file."""


class Child:
    """A call in a forked process, which runs beside this one until its value is asked for.

    The child starts no Python and imports nothing, so that it costs some 10 ms. It prints nothing. It must not use an
    accelerator, and threads of this process are not in it. Where there is no fork, `value` makes the call.

    Args:
        path: The file or folder that the function reads, for errors.
        function: The parser, or a check that calls it. It returns JSON values or bytes.
        *args: Its arguments.
        what: What the file should hold, such as "the tokenizer".
        hint: How to fix the file.
        doing: The beginning of the sentence when a limit is exceeded.
        seconds: Processor time that the child may take, and a third of the time that may pass.
        memory: Bytes that it may allocate, beyond those of this process.
    """

    def __init__(
        self, path: Path | str, function: Callable[..., Any], *args: Any,
        what: str = "", hint: str = "", doing: str = "", seconds: float = SECONDS, memory: int = MEMORY,
    ) -> None:  # fmt: skip
        self.path, self.what, self.hint = path, what, hint
        self.doing = doing or (f"{what} can't be read: its parser" if what else "can't be read: its parser")
        self.seconds, self.memory = seconds, memory
        self._call, self._pid, self._used, self._again = lambda: function(*args), 0, 0.0, False
        self._fork()

    def _fork(self) -> None:
        if not hasattr(os, "fork"):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self._reading, writing = os.pipe()
        with _serial_tokenizers():
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reading)
            self._work(writing)
        os.close(writing)

    def value(self) -> Any:
        """Wait for the value.

        Raises:
            UserError: The function raised it.
            BadFile: The function raised anything else, took too long or too much memory, or ended the process.
        """
        if not self._pid:
            with translate(self.path, self.what, self.hint):
                return self._call()
        try:
            answer = _receive(self._reading, time.monotonic() + IDLE * self.seconds)
        finally:
            status = self.end()
        if answer is None and self._used < self.seconds / 8 and not self._again:
            # It did not work, but waited: for a lock that a thread held when this process was forked.
            self._again = True
            self._fork()
            return self.value()
        head, _, rest = (answer or b"").partition(END)
        found: tuple[str, Any] = json.loads(head) if (answer or b"").endswith(END) else ("", None)
        kind, value = found
        if kind == "value":
            return value
        if kind == "bytes" and len(rest) == value + 1:
            return rest[:-1]
        if kind == "RunFailed":
            raise RunFailed(value)
        if kind in _ERRORS:
            raise _ERRORS[kind](Problem(*fields) for fields in value)
        if answer is None or status & 127 == signal.SIGXCPU:
            how = f"took more than {self.seconds:g} s"
        elif kind == "MemoryError":
            how = f"takes more memory than there is, or than {self.memory / 1e9:g} GB"
        else:
            how = f"ended with signal {signal.Signals(status & 127).name}" if status & 127 else ""
            how = how or f"ended with exit code {status >> 8}"
        raise BadFile(f"{self.doing} {how}", where=str(self.path), hint=self.hint)

    def end(self) -> int:
        """End the child, if it runs. Returns how it ended, as `os.waitpid` does."""
        if not self._pid:
            return 0
        os.close(self._reading)
        os.kill(self._pid, signal.SIGKILL)
        _, status, usage = os.wait4(self._pid, 0)
        self._pid, self._used = 0, usage.ru_utime + usage.ru_stime
        return status

    def _work(self, writing: int) -> None:
        """The child: it writes its answer and ends, and never returns into the code of its parent."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the parent was told too, and ends its child
            faulthandler.disable()
            gc.freeze()  # its collector would copy the pages of all that this process has
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            sys.stdout = sys.stderr = open(os.devnull, "w")
            os.environ[TOKENIZERS] = "false"
            _limit(self.seconds, self.memory)
            answer, payload = self._answer()
            for left in (json.dumps(answer).encode() + END, payload):
                while left:
                    left = left[os.write(writing, left) :]
        finally:
            os._exit(1)

    def _answer(self) -> tuple[tuple[str, Any], bytes]:
        try:
            with translate(self.path, self.what, self.hint):
                try:
                    value = self._call()
                except MemoryError:
                    return ("MemoryError", None), b""
            return (("bytes", len(value)), value + END) if isinstance(value, bytes) else (("value", value), b"")
        except UserError as error:
            kind = "BadFile" if isinstance(error, BadFile) else "UserError"
            return (kind, [[one.what, one.where, one.expected, one.nearest, one.hint] for one in error.problems]), b""
        except Exception as error:
            return ("RunFailed", f"{self.path}: {type(error).__name__}: {error}"), b""


def in_child(path: Path | str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function in a child process, and return its value.

    Arguments and errors are those of `Child`.
    """
    return Child(path, function, *args, **options).value()


def in_children(items: Iterable[T], start: Callable[[T], Child], at_once: int) -> Iterator[tuple[T, Any]]:
    """Yield (item, value of its child) in order, with at most so many children at a time."""
    running: deque[tuple[T, Child]] = deque()
    try:
        for item in items:
            running.append((item, start(item)))
            if len(running) == at_once:
                yield running[0][0], running[0][1].value()
                running.popleft()
        while running:
            yield running[0][0], running[0][1].value()
            running.popleft()
    finally:
        for _, child in running:
            child.end()


@contextmanager
def _serial_tokenizers() -> Iterator[None]:
    """Keep the library `tokenizers` from a warning in a child: its threads are not there."""
    before = os.environ.get(TOKENIZERS)
    os.environ.setdefault(TOKENIZERS, "false")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TOKENIZERS, None)


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
