"""The rows of a table: recipes, their grid points, and the one chosen on validation rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.compare.columns import DOWN, MARGIN, Column, Series, series, together
from alignzoo.compare.results import RunRecord
from alignzoo.compare.scales import estimate
from alignzoo.core.errors import UserError


@dataclass(frozen=True)
class Point:
    """A recipe at a grid point, with one run for each seed."""

    values: dict[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def description(self) -> str:
        """The grid point in words: `beta=0.1`, or `as written` without a grid."""
        return describe_point(self.values)

    @property
    def done(self) -> list[RunRecord]:
        """Finished runs, by seed."""
        return sorted((run for run in self.runs if run.state == "done"), key=lambda run: run.seed)

    @property
    def failed(self) -> list[RunRecord]:
        """Failed runs, by seed."""
        return sorted((run for run in self.runs if run.state == "failed"), key=lambda run: run.seed)

    @property
    def complete(self) -> bool:
        """True if every run is done."""
        return len(self.done) == len(self.runs)

    def of_seeds(self, seeds: Set[int]) -> Point:
        """Return the point with the runs of these seeds alone."""
        return replace(self, runs=tuple(run for run in self.runs if run.seed in seeds))

    @property
    def reward_scale(self) -> str:
        """The definition of the implicit reward, as JSON; another one means another unit.

        Records written before it was stored have the objective and its grid point in its place.
        """
        found = {
            json.dumps(run.figures.about.get("reward", [run.objective, run.point]), sort_keys=True, default=str)
            for run in self.done
        }
        return "; ".join(sorted(found))

    def by_seed(self, column: Column, test: bool) -> dict[int, Series]:
        """Return seed -> its numbers on one split, without runs that have none."""
        found = {run.seed: series(run, column, test) for run in self.done}
        return {seed: one for seed, one in found.items() if one}

    def mean(self, column: Column, test: bool) -> float | None:
        """Return the mean over seeds and their common rows of one split, or None without a row."""
        values = together(list(self.by_seed(column, test).values())).values
        return estimate(values, column.scale).mean if values.size else None


@dataclass(frozen=True)
class ComparedRow:
    """A recipe with all its grid points and the chosen one."""

    label: str
    points: tuple[Point, ...]
    start: bool
    """True if others start from it: it then has a single run, without grid and seeds."""
    chosen: Point | None = None
    problem: str = ""
    """Reason why no point is chosen."""

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.points[0].runs[0].objective

    @property
    def description(self) -> str:
        """The chosen configuration, and the number of configurations tried."""
        if self.chosen is None:
            return f"none of {len(self.points)}" if len(self.points) > 1 else self.points[0].description
        return self.chosen.description + (f", best of {len(self.points)}" if len(self.points) > 1 else "")

    @property
    def seeds(self) -> str:
        """Number of runs behind the figures: `5`, or `3 of 5` if some are missing."""
        shown = self.chosen or self.points[0]
        return str(len(shown.runs)) if shown.complete else f"{len(shown.done)} of {len(shown.runs)}"


def describe_point(values: Mapping[str, Any]) -> str:
    """Return a grid point in words, by the last part of each key unless two end alike."""
    if not values:
        return "as written"
    last = [key.rpartition(".")[2] for key in values]
    names = last if len(set(last)) == len(last) else list(values)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values.values(), strict=True))


def rows_of(records: Sequence[RunRecord]) -> list[ComparedRow]:
    """Return a row for each label, in the order of the records, without a chosen point."""
    begun = {record.start for record in records if record.start}
    found: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        key = repr(sorted(record.point.items(), key=lambda item: item[0]))
        found.setdefault(record.label, {}).setdefault(key, []).append(record)
    return [
        ComparedRow(
            label,
            tuple(Point(runs[0].point, tuple(runs)) for runs in points.values()),
            any(run.fingerprint in begun for runs in points.values() for run in runs),
        )
        for label, points in found.items()
    ]


def choose(row: ComparedRow, column: Column) -> tuple[Point | None, str]:
    """Return the point with the best validation mean and "", or None and the reason.

    The first of equal points wins. A point with a failed seed is chosen only if no point is complete, because the
    remaining seeds would flatter it. Seeds that only some points have do not count: the chosen point may have run with
    more than the others.
    """
    if len(row.points) == 1 and row.points[0].done:
        return row.points[0], ""
    shared = set.intersection(*({run.seed for run in point.runs} for point in row.points))
    found = [(point, point.of_seeds(shared)) for point in row.points]
    done = [(point, searched) for point, searched in found if searched.done]
    if not done:
        failed = [run.reason for point in row.points for run in point.failed]
        return None, f"failed: {failed[0]}" if failed else "has not run yet"
    scores = [(point, searched, searched.mean(column, test=False)) for point, searched in done]
    scored = [(point, searched, score) for point, searched, score in scores if score is not None]
    if not scored:
        return None, f"no validation row has a figure for {column.key}, which chooses among {len(row.points)} points"
    scored = [one for one in scored if one[1].complete] or scored
    sign = -1 if column.arrow == DOWN else 1
    return max(scored, key=lambda one: sign * one[2])[0], ""


def check_selection(rows: Sequence[ComparedRow], column: Column, columns: Sequence[Column]) -> None:
    """Check that grid points can be chosen by this column.

    A margin cannot choose among points with different implicit rewards: a larger beta alone raises it.

    Raises:
        UserError: No validation row has the figure, or the points measure it in different units.
    """
    tuned = [row for row in rows if len(row.points) > 1 and any(point.done for point in row.points)]
    for row in tuned if column.key == MARGIN else ():
        first, *others = [point for point in row.points if point.done]
        other = next((point for point in others if point.reward_scale != first.reward_scale), None)
        if other is not None:
            raise UserError(
                f"'{MARGIN}' of {row.label} is in another unit at {other.description} than at {first.description}",
                where="select", expected="a figure that the grid does not rescale, such as preference_accuracy",
            )  # fmt: skip
    if not tuned or any(choose(row, column)[0] for row in tuned):
        return
    known = [
        other.key for other in columns
        if any(point.mean(other, test=False) is not None for row in tuned for point in row.points)
        and other.group != "cost"
    ]  # fmt: skip
    raise UserError(
        f"no validation row has a figure for '{column.key}'", where="select",
        expected=f"one of {', '.join(known)}" if known else "data with a validation split",
        hint="a grid point is never chosen on the test split",
    )  # fmt: skip
