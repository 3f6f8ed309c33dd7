"""The order of a comparison's runs: what others need comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo.compare.best_of import BestOf
from alignzoo.compare.judge_runs import JudgeRuns
from alignzoo.compare.plan import Job, has_own_rows
from alignzoo.recipe.resolved import START, Resolved
from alignzoo.training.needed_runs import folder_of


@dataclass(frozen=True)
class Unit:
    """A run of a schedule: a job of the plan, or a run that jobs need."""

    job: Job
    needs: frozenset[str]
    """Fingerprints of all runs that come first, those that its needed runs need too."""
    listed: bool = True
    """True for a job of the plan, which has a record."""
    measured: bool = True
    """False for a run that is only trained, because no job is measured against it."""
    best_of: BestOf | None = None
    """The N of best-of-N, and the judge that picks, for a row that they are measured of."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the run."""
        return self.job.resolved.fingerprint


def units_of(
    jobs: Sequence[Job], best_of: BestOf | None = None, judge_runs: JudgeRuns | None = None
) -> list[Unit]:  # fmt: skip
    """Return the needed runs of the jobs that are no jobs themselves, and then the jobs.

    Args:
        jobs: The jobs.
        best_of: The judge of best-of-N, which may be a run too: rows that it is measured of need that run.
        judge_runs: The judges that are runs, which every row needs.
    """
    own = {job.resolved.fingerprint for job in jobs}
    needed: dict[str, Unit] = {}
    measured = {fingerprint for job in jobs for fingerprint in _measured_starts(job.resolved)}
    picker, judges = list(best_of.picker.runs() if best_of else ()), list(judge_runs.runs() if judge_runs else ())
    ways = [way for job in jobs for way in job.written.below(job.resolved)]
    for need, written in [*ways, *judges, *picker]:
        if need.fingerprint not in own:
            # A run's folder has a name of its own, where recipes may share theirs.
            shown = Job(folder_of(need).path.name, {}, need, written)
            unit = Unit(shown, _needs(shown), listed=False, measured=need.fingerprint in measured)
            needed.setdefault(need.fingerprint, unit)
    listed, of_judges, of_picker = (
        [],
        {need.fingerprint for need, _ in judges},
        {need.fingerprint for need, _ in picker},
    )
    for job in jobs:
        picks = best_of.measures(job.label) if best_of else None
        further: set[str] = set()
        for runs in (of_judges, of_picker if picks else set()):
            # A run that the judge's own run needs is trained before it, and makes it when it is measured itself.
            further |= runs if job.resolved.fingerprint not in runs else set()
        listed.append(Unit(job, _needs(job) | further, best_of=picks))
    return [*needed.values(), *listed]


def _needs(job: Job) -> frozenset[str]:
    return frozenset(need.fingerprint for need, _ in job.written.below(job.resolved))


def _measured_starts(resolved: Resolved) -> list[str]:
    """Return the fingerprints of the starts that are measured when this run is."""
    found: list[str] = []
    while has_own_rows(resolved) and START in resolved.needs:
        resolved = resolved.needs[START]
        found.append(resolved.fingerprint)
    return found


class Schedule:
    """Units that wait, and the results of those that have ended."""

    def __init__(self, best_of: BestOf | None = None, judge_runs: JudgeRuns | None = None) -> None:
        self._of_judges = best_of, judge_runs
        self.units: list[Unit] = []
        self._waiting: list[int] = []
        self._failed: dict[str, bool] = {}
        """Fingerprint of a unit that has ended -> True if it failed."""

    def add(self, jobs: Sequence[Job]) -> list[Unit]:
        """Add jobs, and the runs that they need; return the new units, whose numbers follow."""
        known = {unit.fingerprint for unit in self.units}
        new = [unit for unit in units_of(jobs, *self._of_judges) if unit.listed or unit.fingerprint not in known]
        self._waiting += range(len(self.units), len(self.units) + len(new))
        self.units += new
        followers = Counter(fingerprint for unit in self.units for fingerprint in unit.needs)
        self._waiting.sort(key=lambda n: -followers[self.units[n].fingerprint])
        return new

    @property
    def waiting(self) -> int:
        """Number of units that have not begun."""
        return len(self._waiting)

    def take(self) -> int | None:
        """Return the number of a unit that can begin, or None while there is none.

        The one that most others need comes first, and the first of the plan among equals.
        """
        for n in self._waiting:
            if all(self._failed.get(need) is False for need in self.units[n].needs):
                self._waiting.remove(n)
                return n
        return None

    def end(self, n: int, reason: str) -> list[tuple[int, str]]:
        """Record the end of a unit; return (number, reason) of the units that fail with it.

        Args:
            n: Number of the unit.
            reason: Why it failed, or "".
        """
        ended = self.units[n]
        self._failed[ended.fingerprint] = bool(reason)
        if not reason:
            return []
        lost = [m for m in self._waiting if ended.fingerprint in self.units[m].needs]
        self._waiting = [m for m in self._waiting if m not in lost]
        self._failed |= {self.units[m].fingerprint: True for m in lost}
        return [(m, f"{ended.job.resolved.recipe.name}, which it needs, failed: {reason}") for m in lost]
