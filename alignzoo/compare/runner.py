"""Execute a plan: train and measure every run once; a failed run stops no other."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import alignzoo
from alignzoo.compare.best_of import BestOf
from alignzoo.compare.gather import run_figures
from alignzoo.compare.live_table import DONE, FAILED, LiveTable
from alignzoo.compare.measure import EvaluationSet, measure
from alignzoo.compare.plan import Job, Plan, compared_data, finals, start_of
from alignzoo.compare.results import EvaluationFolder, RunRecord, write_results
from alignzoo.compare.table import chosen_rows
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed, UserError, first_line
from alignzoo.core.files import make_folder, translate_os_errors
from alignzoo.core.paths import cache_root, runs_root
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.headline import headline
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.run import RunResult, run_resolved

PACKAGES = ("torch", "transformers", "numpy")


def comparison_folder(plan: Plan) -> Path:
    """Return the folder of a comparison's results, which is the same for the same plan."""
    return runs_root() / f"{plan.comparison.name}-{plan.fingerprint[:8]}"


def compare_plan(plan: Plan, judges: Sequence[Judge], screen: Screen, command: str = "") -> Path:
    """Train and measure every run of the plan that is missing; return the comparison's folder.

    results.json is written after each run. Two comparisons at once share their work: a run that another process trains
    is waited for. The same command resumes after an interrupt.
    """
    folder = comparison_folder(plan)
    with translate_os_errors(folder, hint="set ALIGNZOO_RUNS to another folder"):
        make_folder(folder)
    began, counts = time.perf_counter(), _Counts(plan)
    records = [_record(job) for job in plan.jobs]
    table = LiveTable(plan.jobs, plan.later, screen, _is_missing)
    with table.shown() as live_table:

        def run_all(jobs: Sequence[Job]) -> None:
            for n, job in enumerate(jobs, len(records) - len(jobs)):
                records[n] = _one(n, job, plan, judges, live_table)
                write_results(folder, _about(plan, judges, command, began, counts), records)

        run_all(plan.jobs)
        if plan.later and any(record.state == "done" for record in records):
            rows = chosen_rows(records, plan.comparison.select)
            more = finals(plan, {row.label: row.chosen.values for row in rows if row.chosen})
            live_table.add(more)
            records += [_record(job) for job in more]
            counts.add(more)
            run_all(more)
    return folder


def _one(n: int, job: Job, plan: Plan, judges: Sequence[Judge], live_table: LiveTable) -> RunRecord:
    """Train and measure one run; return its record, with the reason of a failure."""
    record, screen = _record(job), live_table.cell(n)
    live_table.start(n)
    try:
        result = run_resolved(job.resolved, wait=True, screen=screen)
        live_table.put(n, "measuring")
        best_of = plan.best_of.measures(job.label) if plan.best_of else None
        measured = _measured(job.resolved, result, plan, judges, screen, best_of=best_of)
    except (UserError, RunFailed) as error:
        reason = first_line(error)
    except Exception as error:  # a plugin's objective may fail in any way; the other runs go on
        reason = f"{type(error).__name__}: {first_line(error)}"
    else:
        live_table.put(n, _done_words(result.summary), DONE)
        run = run_figures(result.summary)
        verdicts = [str(path.absolute()) for path in measured.verdict_paths]
        measured_at = str(measured.path.absolute())
        return replace(record, state="done", measured=measured_at, verdicts=verdicts, drawn=measured.drawn, run=run)
    live_table.put(n, f"failed: {reason}", FAILED)
    return replace(record, state="failed", reason=reason)


def _done_words(summary: Mapping[str, Any]) -> str:
    """Return `done`, with the first figure of the run's headline before and after training."""
    figures = headline(summary.get("eval", {}), summary.get("accuracy_of", {}))
    first = next((replace(figure, about="") for figure in figures if figure.after is not None), None)
    return f"done, {first.label} {first.words}" if first else "done"


def _is_missing(job: Job) -> bool:
    """Return True if a run is still to be trained; what is damaged fails when its turn comes."""
    try:
        return folder_of(job.resolved).summary() is None
    except UserError:
        return True


def _measured(
    resolved: Resolved, result: RunResult, plan: Plan, judges: Sequence[Judge], screen: Screen,
    rows: EvaluationSet | None = None, best_of: BestOf | None = None,
) -> EvaluationFolder:  # fmt: skip
    """Measure a run, after the run that it starts from.

    The judges compare with the start's replies to the same prompts.
    """
    start = None
    rows = rows or EvaluationSet.measured_of(resolved, result.folder)
    if resolved.start is not None:
        below = run_resolved(resolved.start, wait=True, screen=screen)
        start = _measured(resolved.start, below, plan, judges, screen, rows)
    return measure(resolved, result.folder, plan.comparison.samples, judges, start, screen, rows, best_of)


def _record(job: Job) -> RunRecord:
    resolved = job.resolved
    return RunRecord(
        job.label, resolved.recipe.objective.name, job.point, job.seed, resolved.fingerprint,
        str(folder_of(resolved).path.absolute()), compared_data(resolved), start_of(resolved),
    )  # fmt: skip


class _Counts:
    """Counts of the work that was done, from the folders before and after."""

    def __init__(self, plan: Plan) -> None:
        begun = {start for job in plan.jobs if (start := start_of(job.resolved))}
        every = {job.resolved.fingerprint: job.resolved for job in plan.jobs}
        every |= {start.fingerprint: start for start in plan.starts}
        self._starts = [resolved for key, resolved in every.items() if key in begun]
        self._every = list(every.values())
        self._before = {resolved.fingerprint for resolved in self._every if folder_of(resolved).summary()}
        self._tokens = self._stored()

    def add(self, jobs: Sequence[Job]) -> None:
        """Count these runs too, before any of them begins."""
        self._every += [job.resolved for job in jobs]
        self._before |= {job.resolved.fingerprint for job in jobs if folder_of(job.resolved).summary()}

    def now(self) -> dict[str, int]:
        """Return the counts of runs, earlier runs, SFT runs, reference passes and tokenizations."""
        new = [resolved for resolved in self._every if resolved.fingerprint not in self._before]
        summaries = [summary for resolved in new if (summary := folder_of(resolved).summary())]
        return {
            "runs": len(self._every),
            "runs_done_before": len(self._before),
            "sft_runs": sum(start in new for start in self._starts),
            "reference_passes": sum(bool(summary.get("reference", {}).get("rows_scored")) for summary in summaries),
            "tokenizations": len(self._stored() - self._tokens),
        }

    @staticmethod
    def _stored() -> set[str]:
        return {path.name for path in (cache_root() / "tokens").glob("[0-9a-f]*")}


def _about(plan: Plan, judges: Sequence[Judge], command: str, began: float, counts: _Counts) -> dict[str, Any]:
    comparison = plan.comparison
    labels = [job.label for job in plan.jobs if start_of(job.resolved)] or plan.labels
    return {
        "name": comparison.name,
        "fingerprint": plan.fingerprint,
        "command": command,
        "baseline": comparison.baseline or labels[0],
        "select": comparison.select,
        "seeds": comparison.seeds,
        "search_seeds": comparison.searched,
        "grid": {key: list(values) for key, values in comparison.grid.items()},
        "judges": [judge.name for judge in judges],
        "samples": comparison.samples.model_dump(),
        "allow_different_data": comparison.allow_different_data,
        "versions": {"alignzoo": alignzoo.__version__, "python": sys.version.split()[0]}
        | {package: version(package) for package in PACKAGES},
        "machine": machine(),
        "seconds": time.perf_counter() - began,
        "counts": counts.now(),
    }


def machine() -> str:
    """Return a description of the hardware that times were measured on."""
    import os
    import platform

    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
