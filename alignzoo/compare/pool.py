"""Several runs at a time: tasks to an executor's workers, and their outcomes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

from alignzoo.compare.live_table import LiveTable
from alignzoo.compare.one_run import RunOutcome
from alignzoo.compare.plan import Plan
from alignzoo.compare.schedule import Schedule
from alignzoo.compare.worker import task_of
from alignzoo.core.errors import UserError
from alignzoo.core.signals import GracefulShutdown, Interrupted
from alignzoo.interfaces.executor import Executor, Slot, Task, WorkerLost
from alignzoo.recipe.components import ComponentBuilder, as_node
from alignzoo.recipe.parse import Node
from alignzoo.recipe.problems import Problems
from alignzoo.registry.lookup import registry

DEFAULT = "local"
AGAIN = "it is taken up again"


def executor_of(plan: Plan, node: Node) -> Executor | None:
    """Return the executor of a plan's workers, or None for runs in this process.

    Args:
        plan: The runs.
        node: Where the comparison was written, for error messages.

    Raises:
        UserError: There is no such executor, it can't work here, or a class was defined in this process.
    """
    given, jobs = plan.comparison.executor, plan.comparison.jobs
    if given is None and jobs == 1:
        return None
    problems = Problems(node)
    named = as_node(DEFAULT if given is None else given)
    executor: Executor | None = ComponentBuilder(registry(), problems).build(named, ("executor",), "executor")
    problems.raise_if_any()
    assert executor is not None
    if plan.classes:
        names = ", ".join(cls.__qualname__ for cls in plan.classes)
        raise UserError(
            f"{names} is defined in this process, and workers are other processes", where="jobs",
            expected="jobs=1, without an executor", hint="or list a .py file with it under `plugins` in the recipe",
        )  # fmt: skip
    executor.ready(_slots(plan))
    return executor


def _slots(plan: Plan) -> list[Slot]:
    devices = frozenset(job.resolved.recipe.train.device for job in plan.jobs)
    return [Slot(number, plan.comparison.jobs, devices) for number in range(plan.comparison.jobs)]


class Workers:
    """The workers of an executor, each on one unit of a schedule at a time.

    The executor's `run` is called in threads. What they find comes through a queue, so that the live table and the
    results are this thread's alone.
    """

    def __init__(self, plan: Plan, executor: Executor, table: LiveTable) -> None:
        self._comparison, self._executor, self._table = plan.comparison, executor, table
        self._free = _slots(plan)
        self._found: SimpleQueue[tuple[int, RunOutcome | Mapping[str, Any] | BaseException]] = SimpleQueue()

    @contextmanager
    def running(self) -> Iterator[Workers]:
        """End all workers with the block.

        After an interrupt or an error they save what they do first; a second interrupt ends them at once.
        """
        with GracefulShutdown() as stopping:
            stopping.doing = "stopped; the same command continues, each run from its last checkpoint"
            try:
                yield self
                self._executor.close()
            except BaseException as error:
                if isinstance(error, Interrupted):
                    self._table.note("stopping: each run ends its step and saves a checkpoint; once more stops at once")
                with stopping.uninterruptible():
                    self._executor.close()
                raise
            finally:
                self._executor.kill()

    def outcomes(self, schedule: Schedule) -> Iterator[tuple[int, RunOutcome]]:
        """Yield (number of the unit, its end), as they come, until no unit can begin."""
        working: dict[int, Slot] = {}
        for slot in self._free[: schedule.waiting]:
            self._executor.start(slot)  # a Python with torch takes seconds, in which the first run trains
        while True:
            while self._free and (n := schedule.take()) is not None:
                working[n] = self._free.pop(0)
                self._table.start(n)
                task = task_of(schedule.units[n], self._comparison, self._table.logs)
                Thread(target=self._work, args=(n, task, working[n]), daemon=True).start()
            if not working:
                return
            n, found = self._found.get()
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, RunOutcome):
                self._free.append(working.pop(n))
                self._free.sort(key=lambda slot: slot.number)
                yield n, found
            elif "event" in found:
                self._table.event(n, str(found["event"]))
            else:
                self._table.put(n, str(found.get("state", "")))

    def _work(self, n: int, task: Task, slot: Slot) -> None:
        try:
            self._found.put((n, self._outcome(n, task, slot)))
        except BaseException as error:
            self._found.put((n, error))

    def _outcome(self, n: int, task: Task, slot: Slot) -> RunOutcome:
        def report(message: Mapping[str, Any]) -> None:
            self._found.put((n, message))

        try:
            return RunOutcome.of_plain(self._executor.run(task, slot, report))
        except WorkerLost as lost:
            report({"event": f"its worker {lost}; {AGAIN}"})
            report({"state": "taken up again"})
        try:
            return RunOutcome.of_plain(self._executor.run(task, slot, report))
        except WorkerLost as lost:
            return RunOutcome.failed(f"its worker {lost}, for the second time")
