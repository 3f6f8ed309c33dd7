"""The plan of a comparison: every recipe at every grid point and seed, and shared starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from alignzoo.compare.best_of import BestOf
from alignzoo.compare.judge_runs import JudgeRuns, judge_runs_of
from alignzoo.compare.spec import Comparison, no_such_row
from alignzoo.compare.written import Written
from alignzoo.core.dotted import dotted_items
from alignzoo.core.errors import UserError, nearest
from alignzoo.data.splits import holds_out, places
from alignzoo.interfaces.component import Component
from alignzoo.recipe.fingerprints import digest
from alignzoo.recipe.needs import runs_named
from alignzoo.recipe.resolved import REFERENCE, START, Resolved

MOST_RUNS = 10_000
"""Rows of a table, and runs of a comparison: each is a recipe to read before the first run."""


@dataclass(frozen=True)
class Job:
    """One run: a recipe with a grid point's values and a seed."""

    label: str
    point: dict[str, Any]
    resolved: Resolved
    written: Written

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.resolved.recipe.seed

    @property
    def key(self) -> tuple[str, str]:
        """Grid point and seed, which identify the run within its row: `("beta=0.1", "0")`."""
        point = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.point.items())
        return point, str(self.seed)


@dataclass(frozen=True)
class Plan:
    """The jobs in the order of execution: starts come first."""

    comparison: Comparison
    jobs: tuple[Job, ...]
    starts: tuple[Resolved, ...]
    """Starts of jobs that are not jobs themselves."""
    classes: tuple[type[Component], ...] = ()
    """Classes that were defined in Python and that the recipes may name."""
    best_of: BestOf | None = None
    """The N of best-of-N, and the judge that picks; None where the comparison asks for none."""
    judge_runs: JudgeRuns | None = None
    """The judges of the replies with the runs that they need; None where none needs one."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits of all runs and of how they are measured and shown."""
        outside = dict.fromkeys(("recipes", "overlays", "overrides"), True)
        if not self.comparison.best_of:  # as before there was any
            outside |= dict.fromkeys(("best_of", "best_of_judge", "best_of_rows"), True)
        about = self.comparison.model_dump_json(exclude=self.comparison.fields_without_effect() | outside)
        text = "\n".join([about, *(f"{job.label} {job.resolved.fingerprint}" for job in self.jobs)])
        return blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def labels(self) -> list[str]:
        """Labels of the table's rows."""
        return list(dict.fromkeys(job.label for job in self.jobs))

    @property
    def later(self) -> int:
        """Number of runs that follow when grid points are chosen: `finals` returns them."""
        several: dict[str, set[str]] = {}
        for job in self.jobs:
            several.setdefault(job.label, set()).add(repr(job.point))
        more = self.comparison.seeds - self.comparison.searched
        return more * sum(len(tried) > 1 for tried in several.values())

    def reference_passes(self) -> int:
        """Return the number of reference passes: runs with the same start and data share one."""
        runs = {resolved.fingerprint: resolved for resolved in (*(job.resolved for job in self.jobs), *self.starts)}
        found = set()
        for resolved in runs.values():
            recipe = resolved.recipe
            if recipe.objective.reference in ("sequence", "token"):
                random = None if recipe.model.origin else recipe.seed  # random weights depend on the seed
                first = start_of(resolved) or f"{recipe.model.fingerprint()} {random}"
                found.add((first, resolved.data_fingerprint, recipe.tokens.model_dump_json()))
            for name, model in recipe.references.items():
                run = resolved.needs.get(REFERENCE.format(name))
                first = run.fingerprint if run else f"{model.fingerprint()}"
                found.add((first, resolved.data_fingerprint, recipe.tokens.model_dump_json()))
        return len(found)

    def sources(self) -> dict[str, list[str]]:
        """Return data and start -> the labels of the rows that share them."""
        found: dict[str, list[str]] = {}
        begun = {start for job in self.jobs if (start := start_of(job.resolved))}
        for job in self.jobs:
            start = start_of(job.resolved)
            own = job.resolved.fingerprint
            first = own if own in begun else start or f"model {job.resolved.recipe.model.fingerprint()}"
            labels = found.setdefault(f"{compared_data(job.resolved)} {first}", [])
            if job.label not in labels:
                labels.append(job.label)
        return found


def compared_data(resolved: Resolved) -> str:
    """Return a digest of the rows of a run that are trained on and compared.

    These are its data, and the first evaluation set where that is what is compared.
    """
    if has_own_rows(resolved):
        return resolved.data_fingerprint
    return digest([resolved.data_fingerprint, next(iter(resolved.evaluation_fingerprints.values()))])


def has_own_rows(resolved: Resolved) -> bool:
    """Return True if a run is measured on held-out rows, False for an evaluation set."""
    data = resolved.recipe.data
    return not resolved.recipe.eval.data or holds_out(data, places(data))


def start_of(resolved: Resolved) -> str | None:
    """Return the fingerprint of the run that a recipe starts from, or None.

    Of a run that was removed it is the folder's name.
    """
    if resolved.start:
        return resolved.start.fingerprint
    named = runs_named(resolved.recipe).get(START)
    return Path(named).parent.name if named else None


def make_plan(comparison: Comparison, classes: Sequence[type[Component]] = ()) -> Plan:
    """Read the recipes and return the plan of their runs.

    Args:
        comparison: What is compared.
        classes: Classes that the recipes may name and that no plugin registers.

    Raises:
        UserError: A recipe has a problem, no recipe has a grid key, data or starts differ without permission, or there
            are more than MOST_RUNS runs.
    """
    _count(len(comparison.recipes) * combinations(comparison.rows), "rows", "rows")
    rows = _rows(comparison)
    label, times = Counter(row.label for row in rows).most_common(1)[0]
    if times > 1:
        raise UserError(f"two recipes are named {label}", where="recipes", expected="different names")
    written = {row.label: _written(comparison, row.path, row.varied) for row in rows}
    plain = {label: one.resolve(classes) for label, one in written.items()}
    for label, resolved in plain.items():
        if resolved.recipe.draw is not None:
            raise UserError(
                f"{label} draws a data set and trains nothing to compare", where="recipes",
                expected="recipes that read it, with data: {from: RECIPE}; its run is shared by them",
            )  # fmt: skip
    _keys_exist(comparison, rows, plain)
    begun = {need.path: (need, way) for label, own in plain.items() for need, way in written[label].below(own)}
    tuned = {}
    for row in rows:
        if plain[row.label].path not in begun:
            there = flat(plain[row.label])
            grid = comparison.grid | comparison.grids.get(row.label, {}) | row.grid
            tuned[row.label] = {key: some for key, some in grid.items() if key in there}
    _count(sum(combinations(grid) for grid in tuned.values()) * comparison.seeds, "runs", "grid, seeds")
    jobs: list[Job] = []
    for row in rows:
        resolved = plain[row.label]
        if resolved.path in begun:  # the start of others is a single run, without grid and seeds
            jobs.insert(0, Job(row.label, {}, *begun[resolved.path]))
            continue
        tried = points(tuned[row.label])
        for point in tried:
            for n in range(comparison.searched if len(tried) > 1 else comparison.seeds):
                jobs.append(_job(comparison, row, point, resolved.recipe.seed + n, classes))
    own = {job.resolved.fingerprint for job in jobs}
    starts = {need.fingerprint: need for job in jobs for need, _ in reversed([*job.written.below(job.resolved)])}
    plan = Plan(
        comparison, tuple(jobs), tuple(start for key, start in starts.items() if key not in own), tuple(classes),
        BestOf.of(comparison, [row.label for row in rows], classes), judge_runs_of(comparison, classes),
    )  # fmt: skip
    _comparable(plan)
    return plan


@dataclass(frozen=True)
class _Row:
    """A recipe with the values of one row, and the grid that the row adds."""

    label: str
    path: str
    varied: dict[str, Any]
    grid: dict[str, Sequence[Any]]


def _rows(comparison: Comparison) -> list[_Row]:
    varied = points({key: tuple(values) for key, values in comparison.rows.items()})
    rows = []
    for path in comparison.recipes:
        for values in varied:
            grid: dict[str, Sequence[Any]] = {}
            for key, some in comparison.rows.items():
                grid |= some[values[key]] if isinstance(some, dict) else {}
            rows.append(_Row(_label(path, values, len(comparison.recipes) == 1), path, values, grid))
    return rows


def _job(
    comparison: Comparison, row: _Row, point: dict[str, Any], seed: int, classes: Sequence[type[Component]]
) -> Job:
    written = _written(comparison, row.path, row.varied | point | {"seed": seed})
    return Job(row.label, point, written.resolve(classes), written)


def finals(plan: Plan, chosen: Mapping[str, Mapping[str, Any]]) -> list[Job]:
    """Return the runs that the chosen grid points still lack.

    These are the runs of the seeds that no point was searched with.

    Args:
        plan: The plan of the search.
        chosen: Label -> the values of its chosen grid point.
    """
    comparison, jobs = plan.comparison, []
    for row in _rows(comparison) if comparison.searched < comparison.seeds else ():
        first = next((job for job in plan.jobs if job.label == row.label and job.point == chosen.get(row.label)), None)
        if first is not None and first.point:
            more = range(comparison.searched, comparison.seeds)
            jobs += [_job(comparison, row, first.point, first.seed + n, plan.classes) for n in more]
    return jobs


def combinations(grid: Mapping[str, Collection[Any]]) -> int:
    """Return the number of combinations of the values; 1 for an empty grid."""
    return math.prod(len(values) for values in grid.values())


def _count(number: int, what: str, where: str) -> None:
    if number > MOST_RUNS:
        raise UserError(f"the comparison has too many {what}", where=where, expected=f"at most {MOST_RUNS:,}")


def points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values; one empty point for an empty grid."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def flat(resolved: Resolved) -> dict[str, Any]:
    """Return dotted key -> value of everything in a recipe."""
    return dict(dotted_items(resolved.plain))


def _label(path: str, varied: Mapping[str, Any], alone: bool) -> str:
    """Return the name of a row: the recipe's, and the values that vary.

    A recipe that is alone is named by the values only.
    """
    values = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items())
    name = Path(path).stem
    return (values if alone else f"{name} ({values})") if values else name


def _written(comparison: Comparison, path: str, values: Mapping[str, Any]) -> Written:
    words = (*comparison.overrides, *(f"{key}={_scalar(value)}" for key, value in values.items()))
    return Written(path, words, comparison.overlays)


def _scalar(value: Any) -> str:
    import json

    return json.dumps(value)  # which YAML reads as it is


def _keys_exist(comparison: Comparison, rows: Sequence[_Row], recipes: Mapping[str, Resolved]) -> None:
    known = sorted({key for resolved in recipes.values() for key in flat(resolved)})
    asked: list[tuple[str, Iterable[str], list[str]]] = [
        ("grid", comparison.grid, known),
        ("rows", comparison.rows, known),
    ]
    there = {row.label: sorted(flat(recipes[row.label])) for row in rows}
    asked += [(f"rows, {row.label}", row.grid, there[row.label]) for row in rows]
    for label, grid in comparison.grids.items():
        if label not in there:
            raise no_such_row(label, "grids", list(there))
        asked.append((f"grids, {label}", grid, there[label]))
    for where, keys, names in asked:
        for key in keys:
            if key not in names and not any(other.startswith(f"{key}.") for other in names):
                close = nearest(key, names)
                raise UserError(
                    f"no recipe has the key '{key}'" if names is known else f"the recipe has no key '{key}'",
                    where=where, nearest=close,
                    expected="" if close else "a key that `alignzoo show RECIPE` prints, such as objective.beta",
                )  # fmt: skip


def _comparable(plan: Plan) -> None:
    found = plan.sources()
    if len(found) > 1 and not plan.comparison.allow_different_data:
        groups = "; ".join(", ".join(labels) for labels in found.values())
        raise UserError(
            f"these recipes have different data or starts: {groups}", where="recipes",
            expected="the same data and the same start for all rows",
            hint="pass --allow-different-data to put them in one table, with a warning in its caption",
        )  # fmt: skip
