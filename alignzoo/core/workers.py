"""Worker processes: tasks go in over stdin, messages come out over stdout, as JSON lines.

This is the side of the process that starts workers. `alignzoo.core.worker_channel` is the other one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from alignzoo.core.console import warn_once
from alignzoo.core.errors import UserError, first_line
from alignzoo.core.signals import exit_words

Task = Mapping[str, Any]
"""A piece of work as plain JSON values."""
Message = Mapping[str, Any]
Report = Callable[[Message], None]
"""Called with each message on the progress of a task."""
ANSWER = "answer"
"""The key of a worker's last message on a task."""


class WorkerLost(Exception):
    """A worker that ended before its task. The message says how, as a predicate."""


class WorkerProcess:
    """A process that does one task after another.

    It ends when its stdin is closed, after it has saved what it does: at `stop`, and when this process is gone,
    whatever ended it. It has a session of its own, to which a terminal sends no signals.

    Args:
        command: The command line.
        environment: Variables that it has beside those of this process.

    Raises:
        UserError: The command can't be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise UserError(f"a worker can't be started: {os.strerror(error.errno or 0)}", where=command[0]) from None
        self._last = ""
        """The last line that it wrote to stderr."""
        self._listener = threading.Thread(target=self._pass_on, daemon=True)
        self._listener.start()

    def ask(self, task: Task, report: Report) -> dict[str, Any]:
        """Return the answer to a task; call `report` with each message before it.

        Raises:
            WorkerLost: The worker ended without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):  # it has ended, which the loop below finds
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            message = _message(line)
            if message is None:
                self._print(line)
            elif ANSWER in message:
                found: dict[str, Any] = message[ANSWER]
                return found
            else:
                report(message)
        raise WorkerLost(self._ending())

    @property
    def ended(self) -> bool:
        """True if the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Let the worker save its work and end."""
        with suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def wait(self) -> None:
        """Wait until the worker has ended."""
        self._process.wait()

    def kill(self) -> None:
        """End the worker at once, with the processes that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        """Wait for the end; return how the worker ended, with the last line of a failure."""
        code = self._process.wait()
        self._listener.join(1)
        return exit_words(code) + (f": {first_line(self._last)}" if code > 0 and self._last else "")

    def _pass_on(self) -> None:
        """Print what the worker writes to stderr, and a line that several write once."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._print(line)

    def _print(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self._last = text
            warn_once(text)


def _message(line: bytes) -> dict[str, Any] | None:
    """Return a message of the worker, or None for a line of something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
