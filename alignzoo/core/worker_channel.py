"""The worker's side of `alignzoo.core.workers`: tasks from stdin, messages to stdout."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from alignzoo.core.workers import ANSWER

CHUNK = 1 << 16


class WorkerChannel:
    """The pipes of a worker. Libraries read nothing from stdin and print to stderr.

    When the other end of stdin is closed, or its process is gone, a worker without a task ends. One with a task gets a
    SIGTERM, so that it saves its work and ends, as after Ctrl-C.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._busy = self._closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield each task, until there are no more."""
        while (line := self._lines.get()) is not None:
            self._busy = True  # before the look at `_closed`: the reader looks the other way around
            if self._closed:
                return
            yield json.loads(line)
            self._busy = False

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message on the progress of the task."""
        left = json.dumps(message).encode() + b"\n"
        with suppress(OSError):  # nobody listens: the end of stdin says so too
            while left:
                left = left[os.write(self._writing, left) :]

    def answer(self, value: Mapping[str, Any]) -> None:
        """Send the answer to the task."""
        self.send({ANSWER: value})

    def _read(self) -> None:
        rest = b""
        while part := self._part():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._lines.put(line)
        self._closed = True
        self._lines.put(None)
        if self._busy:
            os.kill(os.getpid(), signal.SIGTERM)

    def _part(self) -> bytes:
        try:
            return os.read(self._reading, CHUNK)
        except OSError:  # the other end is gone
            return b""
