"""Records of a comparison while its runs go on, written to results.json after each."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import alignzoo
from alignzoo.compare.one_run import RunOutcome, machine
from alignzoo.compare.plan import Job, Plan, compared_data, start_of
from alignzoo.compare.results import RunRecord, write_results
from alignzoo.compare.schedule import Schedule
from alignzoo.core.paths import cache_root
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.needed_runs import folder_of

PACKAGES = ("torch", "transformers", "numpy")


class Records:
    """The records of a comparison's runs, by the numbers of their units.

    Args:
        folder: Folder of the comparison.
        plan: Its runs.
        judges: Judges of the replies.
        command: The command line.
    """

    def __init__(self, folder: Path, plan: Plan, judges: Sequence[Judge], command: str) -> None:
        self._folder, self._plan, self._judges, self._command = folder, plan, judges, command
        self._began, self._counts = time.perf_counter(), _Counts(plan)
        self._machines: dict[str, None] = {}
        self._records: dict[int, RunRecord] = {}

    @property
    def all(self) -> list[RunRecord]:
        """Return the records in the order of the plan."""
        return list(self._records.values())

    def add(self, schedule: Schedule) -> None:
        """Add a record for each job of the schedule that has none."""
        new = {n: unit.job for n, unit in enumerate(schedule.units) if unit.listed and n not in self._records}
        self._records |= {n: _record(job) for n, job in new.items()}
        self._counts.add([job.resolved for job in new.values()])

    def end(self, n: int, outcome: RunOutcome) -> None:
        """Record the end of a unit, unless it is no job of the plan."""
        if outcome.machine:
            self._machines[outcome.machine] = None
        if n in self._records:
            self._records[n] = _ended(self._records[n], outcome)

    def write(self) -> None:
        """Write results.json."""
        write_results(self._folder, self._about(), self.all)

    def _about(self) -> dict[str, Any]:
        comparison, plan = self._plan.comparison, self._plan
        labels = [job.label for job in plan.jobs if start_of(job.resolved)] or plan.labels
        at_once = [f"{comparison.jobs} runs at a time"] if comparison.jobs > 1 else []
        return {
            "name": comparison.name,
            "fingerprint": plan.fingerprint,
            "command": self._command,
            "baseline": comparison.baseline or labels[0],
            "select": comparison.select,
            "seeds": comparison.seeds,
            "search_seeds": comparison.searched,
            "grid": {key: list(values) for key, values in comparison.grid.items()},
            "grids": comparison.model_dump(mode="json")["grids"],
            "frontier": comparison.frontier.model_dump() if comparison.frontier else None,
            "judges": [judge.name for judge in self._judges],
            "samples": comparison.samples.model_dump(),
            "allow_different_data": comparison.allow_different_data,
            "versions": {"alignzoo": alignzoo.__version__, "python": sys.version.split()[0]}
            | {package: version(package) for package in PACKAGES},
            "machine": "; ".join([*(self._machines or [machine()]), *at_once]),
            "seconds": time.perf_counter() - self._began,
            "counts": self._counts.now(),
        }


def _record(job: Job) -> RunRecord:
    resolved = job.resolved
    return RunRecord(
        job.label, resolved.recipe.objective.name, job.point, job.seed, resolved.fingerprint,
        str(folder_of(resolved).path.absolute()), compared_data(resolved), start_of(resolved),
    )  # fmt: skip


def _ended(record: RunRecord, outcome: RunOutcome) -> RunRecord:
    if outcome.reason:
        return replace(record, state="failed", reason=outcome.reason)
    return replace(
        record, state="done", measured=outcome.measured, verdicts=outcome.verdicts, drawn=outcome.drawn,
        run=dict(outcome.run),
    )  # fmt: skip


class _Counts:
    """Counts of the work that was done, from the folders before and after."""

    def __init__(self, plan: Plan) -> None:
        begun = {start for job in plan.jobs if (start := start_of(job.resolved))}
        self._every: dict[str, Resolved] = {}
        self._before: set[str] = set()
        self.add([*(job.resolved for job in plan.jobs), *plan.starts])
        self._starts = [resolved for key, resolved in self._every.items() if key in begun]
        self._tokens = self._stored()

    def add(self, runs: Sequence[Resolved]) -> None:
        """Count these runs too, before any of them begins."""
        new = {resolved.fingerprint: resolved for resolved in runs if resolved.fingerprint not in self._every}
        self._every |= new
        self._before |= {key for key, resolved in new.items() if folder_of(resolved).summary()}

    def now(self) -> dict[str, int]:
        """Return the counts of runs, earlier runs, SFT runs, reference passes and tokenizations."""
        new = [resolved for key, resolved in self._every.items() if key not in self._before]
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
