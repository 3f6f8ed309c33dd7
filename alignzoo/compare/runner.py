"""Execute a plan: train and measure every run once; a failed run stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignzoo.compare.live_table import DONE, FAILED, LiveTable
from alignzoo.compare.one_run import RunOutcome, work_on
from alignzoo.compare.plan import Job, Plan, finals
from alignzoo.compare.pool import Workers
from alignzoo.compare.records import Records
from alignzoo.compare.schedule import Schedule
from alignzoo.compare.table import chosen_rows
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.core.files import make_folder, translate_os_errors
from alignzoo.core.paths import runs_root
from alignzoo.interfaces.executor import Executor
from alignzoo.interfaces.judge import Judge
from alignzoo.training.needed_runs import folder_of

Work = Callable[[Schedule], Iterator[tuple[int, RunOutcome]]]
"""Does the units of a schedule; yields (number, end) of each."""


def comparison_folder(plan: Plan) -> Path:
    """Return the folder of a comparison's results, which is the same for the same plan."""
    return runs_root() / f"{plan.comparison.name}-{plan.fingerprint[:8]}"


def compare_plan(
    plan: Plan, judges: Sequence[Judge], screen: Screen, command: str = "", executor: Executor | None = None
) -> Path:
    """Train and measure every run of the plan that is missing; return the comparison's folder.

    results.json is written after each run. Two comparisons at once share their work: a run that another process trains
    is waited for. The same command resumes after an interrupt.

    Args:
        plan: The runs.
        judges: Judges of the replies.
        screen: Where progress is shown.
        command: The command line, for the results.
        executor: Starts the workers that do the runs. None: they are done here, one after another.
    """
    folder = comparison_folder(plan)
    with translate_os_errors(folder, hint="set ALIGNZOO_RUNS to another folder"):
        make_folder(folder)
    records, schedule = Records(folder, plan, judges, command), Schedule(plan.best_of, plan.judge_runs)
    jobs = [unit.job for unit in schedule.add(plan.jobs)]
    table = LiveTable(jobs, plan.later, screen, _is_missing, plan.comparison.jobs)
    with table.shown() as live_table, _workers(plan, judges, live_table, executor) as work:
        _run_all(schedule, work, records, live_table)
        if plan.later and any(record.state == "done" for record in records.all):
            rows = chosen_rows(records.all, plan.comparison.select)
            more = finals(plan, {row.label: row.chosen.values for row in rows if row.chosen})
            live_table.add([unit.job for unit in schedule.add(more)])
            _run_all(schedule, work, records, live_table)
    return folder


def _run_all(schedule: Schedule, work: Work, records: Records, table: LiveTable) -> None:
    """Do what waits. A run that fails takes along those that need it, and no other."""
    records.add(schedule)
    for n, outcome in work(schedule):
        lost = [(m, RunOutcome.failed(reason)) for m, reason in schedule.end(n, outcome.reason)]
        for ended, end in [(n, outcome), *lost]:
            table.put(ended, end.words, FAILED if end.reason else DONE)
            records.end(ended, end)
        records.write()


@contextmanager
def _workers(plan: Plan, judges: Sequence[Judge], table: LiveTable, executor: Executor | None) -> Iterator[Work]:
    """Yield a function that does the units of a schedule, here or in workers."""

    def here(schedule: Schedule) -> Iterator[tuple[int, RunOutcome]]:
        while (n := schedule.take()) is not None:
            table.start(n)
            unit, cell = schedule.units[n], table.cell(n)
            options = unit.measured, unit.best_of, plan.judge_runs
            yield n, work_on(unit.job.resolved, plan.comparison, judges, cell, *options)

    if executor is None:
        yield here
        return
    with Workers(plan, executor, table).running() as workers:
        yield workers.outcomes


def _is_missing(job: Job) -> bool:
    """Return True if a run is still to be trained; what is damaged fails when its turn comes."""
    try:
        return folder_of(job.resolved).summary() is None
    except UserError:
        return True
