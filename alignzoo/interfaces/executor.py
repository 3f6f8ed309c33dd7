"""Base class of executors, which start the workers of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from pydantic import PrivateAttr

from alignzoo.core.workers import Report, Task, WorkerLost, WorkerProcess
from alignzoo.interfaces.component import Component

__all__ = ["Executor", "Report", "Slot", "Task", "WorkerLost"]

WORKER = "alignzoo.compare.worker"
"""The module that a worker runs. `answer_to(task, report)` in it does a task."""


@dataclass(frozen=True)
class Slot:
    """A place where one worker runs."""

    number: int
    """From 0 to `of` - 1."""
    of: int
    """Number of slots: `--jobs`."""
    devices: frozenset[str] = frozenset({"auto"})
    """`train.device` of the runs: `auto`, `cpu`, `cuda`."""


class Executor(Component):
    """Base class of executors: a subclass defines `name` and `command`, or `run`.

    The hook `register_executors` returns the class. A comparison names it under `executor`, or with `--executor`. It
    changes where runs are trained and measured, and is no part of any fingerprint.

    By default each slot has a process, which does one task after another. A subclass whose workers are started by
    another program, such as `srun` or `ssh`, defines `command`. One whose workers are no processes that read stdin
    defines `start`, `run`, which is called from a thread for each slot, `close` and `kill`.
    """

    _workers: dict[int, WorkerProcess] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=Lock)
    _closed: bool = PrivateAttr(False)

    def ready(self, slots: Sequence[Slot]) -> None:
        """Check that so many workers can run, before the first run starts.

        Args:
            slots: Their places.

        Raises:
            UserError: They can't, for example because there are fewer GPUs.
        """

    def command(self, worker: Sequence[str], slot: Slot) -> Sequence[str]:
        """Return the command line that starts a worker, whose stdin and stdout reach this process.

        Args:
            worker: The command line of a worker on this machine.
            slot: Its place.
        """
        return worker

    def environment(self, slot: Slot) -> dict[str, str]:
        """Return the variables of a worker beside those of this process."""
        return {}

    def start(self, slot: Slot) -> None:
        """Start the worker of a slot before there is a task for it.

        Raises:
            UserError: It can't be started.
        """
        self._worker(slot)

    def run(self, task: Task, slot: Slot, report: Report) -> dict[str, Any]:
        """Do a task and return its answer.

        It is called again for a task whose worker was lost, and from a thread for each slot.

        Args:
            task: Plain JSON values.
            slot: The place of the worker.
            report: Called with each message on the task's progress.

        Raises:
            WorkerLost: The worker ended before the task, or `close` was called.
            UserError: No worker can be started. It ends the comparison.
        """
        return self._worker(slot).ask(task, report)

    def close(self) -> None:
        """Let all workers save what they do and end; return when they have."""
        with self._lock:
            self._closed = True
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.wait()

    def kill(self) -> None:
        """End all workers at once."""
        for worker in self._workers.values():
            worker.kill()

    def _worker(self, slot: Slot) -> WorkerProcess:
        """Return the process of a slot; start it if there is none, or if it has ended."""
        with self._lock:
            if self._closed:
                raise WorkerLost("was stopped")
            worker = self._workers.get(slot.number)
            if worker is None or worker.ended:
                worker = WorkerProcess(self.command([sys.executable, "-P", "-m", WORKER], slot), self.environment(slot))
                self._workers[slot.number] = worker
            return worker
