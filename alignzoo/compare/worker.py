"""A worker of a comparison, which does the tasks that it reads from stdin.

`python -m alignzoo.compare.worker` starts one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.core.paths import cache_root, runs_root
from alignzoo.core.signals import GracefulShutdown, Interrupted, stop_reported
from alignzoo.core.streams import install_streams
from alignzoo.core.worker_channel import WorkerChannel

if TYPE_CHECKING:
    from alignzoo.compare.best_of import BestOf
    from alignzoo.compare.judge_runs import JudgeRuns
    from alignzoo.compare.schedule import Unit
    from alignzoo.compare.spec import Comparison
    from alignzoo.interfaces.judge import Judge

INHERITED = ("ALIGNZOO_PLUGINS",)
"""Variables that a task has as they are here; those that name folders it has as absolute paths."""
STATE_SECONDS = 0.1
"""Time between two messages on what a run does."""


def task_of(unit: Unit, comparison: Comparison, logs: bool) -> dict[str, Any]:
    """Return the task of a run as plain JSON values, for `answer_to` in another process.

    Args:
        unit: The run.
        comparison: How it is measured.
        logs: True if lines go to a file or a pipe.
    """
    variables = {"ALIGNZOO_RUNS": str(runs_root().absolute()), "ALIGNZOO_CACHE": str(cache_root().absolute())}
    variables |= {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {
        "recipe": asdict(unit.job.written), "fingerprint": unit.fingerprint, "measured": unit.measured,
        "best_of": unit.best_of is not None,
        "comparison": comparison.model_dump(mode="json", by_alias=True, exclude={"grid", "rows", "grids"}),
        "folder": str(Path.cwd()), "variables": variables, "logs": logs,
    }  # fmt: skip


def answer_to(task: Mapping[str, Any], report: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Train and measure the run of a task; return a `RunOutcome` as plain values.

    Args:
        task: What `task_of` returns.
        report: Called with `{"state": text}` for what the run does, and `{"event": text}` for a line on its progress.
    """
    os.chdir(task["folder"])
    os.environ.update(task["variables"])
    from alignzoo.compare.live_table import RunScreen
    from alignzoo.compare.one_run import RunOutcome, work_on
    from alignzoo.compare.spec import Comparison
    from alignzoo.compare.written import Written
    from alignzoo.core.errors import UserError, first_line

    last = 0.0

    def state(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= STATE_SECONDS:
            last = time.monotonic()
            report({"state": text})

    screen = RunScreen(state, lambda text: report({"event": text}), task["logs"])
    comparison = Comparison.model_validate(task["comparison"])
    try:
        resolved = Written(**task["recipe"]).resolve()
        if resolved.fingerprint != task["fingerprint"]:
            raise UserError("the recipe, its data or its plugins have changed since the comparison began",
                            where=str(resolved.path), hint="start the comparison again")  # fmt: skip
        judges, best_of, judge_runs = _judges(comparison.model_dump_json(by_alias=True))
    except UserError as error:
        return asdict(RunOutcome.failed(first_line(error)))
    best_of = best_of if task["best_of"] else None
    return asdict(work_on(resolved, comparison, judges, screen, task["measured"], best_of, judge_runs))


@lru_cache(maxsize=1)
def _judges(given: str) -> tuple[Sequence[Judge], BestOf | None, JudgeRuns | None]:
    """Return the judges of a comparison, the same for all tasks.

    They are those of replies, that of best-of-N, and those of replies with their runs.
    """
    from alignzoo.compare.best_of import BestOf
    from alignzoo.compare.judge_runs import judge_runs_of
    from alignzoo.compare.spec import Comparison, make_judges
    from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin

    comparison = Comparison.model_validate_json(given)
    judges = make_judges(comparison.judges, Node({}, Origin(COMMAND_LINE)))
    for judge in judges:
        judge.ready()
    return judges, BestOf.of(comparison, comparison.best_of_rows or (), ()), judge_runs_of(comparison)


def main() -> None:
    """Do tasks until stdin ends, and exit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
    channel = WorkerChannel()
    install_streams()
    code = 0
    with GracefulShutdown(ends_process=True):
        try:
            import_module("alignzoo.compare.one_run")  # before there is a task
            for task in channel.tasks():
                channel.answer(answer_to(task, channel.send))
        except KeyboardInterrupt as stop:
            stop_reported()
            code = stop.code if isinstance(stop, Interrupted) else 130
    sys.exit(code)


if __name__ == "__main__":
    main()
