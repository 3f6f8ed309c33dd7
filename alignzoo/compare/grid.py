"""The rows of a table: recipes, the grid points that each was given, and the one that validation chose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.compare.columns import DOWN, MARGIN, Column, Series, series, together
from alignzoo.compare.results import RunRecord
from alignzoo.compare.scales import estimate
from alignzoo.core.errors import UserError


@dataclass(frozen=True)
class Point:
    """A recipe at a grid point: one run for each seed."""

    values: dict[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def description(self) -> str:
        """`beta=0.1`; `as written` where nothing is varied."""
        return describe_point(self.values)

    @property
    def done(self) -> list[RunRecord]:
        """The runs that there are figures of, by seed."""
        return sorted((run for run in self.runs if run.state == "done"), key=lambda run: run.seed)

    @property
    def failed(self) -> list[RunRecord]:
        """The runs that failed, by seed."""
        return sorted((run for run in self.runs if run.state == "failed"), key=lambda run: run.seed)

    @property
    def complete(self) -> bool:
        """Whether every run is done."""
        return len(self.done) == len(self.runs)

    @property
    def reward_scale(self) -> str:
        """The definition of the implicit reward, as JSON: margins with another one are in another unit.

        A run that was measured before it was recorded has its objective and its grid point in its place.
        """
        found = {
            json.dumps(run.figures.about.get("reward", [run.objective, run.point]), sort_keys=True, default=str)
            for run in self.done
        }
        return "; ".join(sorted(found))

    def by_seed(self, column: Column, test: bool) -> dict[int, Series]:
        """Seed -> its numbers on one split; a run without any is left out."""
        found = {run.seed: series(run, column, test) for run in self.done}
        return {seed: one for seed, one in found.items() if one}

    def mean(self, column: Column, test: bool) -> float | None:
        """Over the seeds and the rows of one split that all of them have; None where there is no such row."""
        values = together(list(self.by_seed(column, test).values())).values
        return estimate(values, column.scale).mean if values.size else None


@dataclass(frozen=True)
class ComparedRow:
    """A recipe, all its grid points, and the one that stands for it."""

    label: str
    points: tuple[Point, ...]
    start: bool
    """Whether others start from it: it is then one run, whatever they are tried with."""
    chosen: Point | None = None
    problem: str = ""
    """Why there is no chosen point."""

    @property
    def objective(self) -> str:
        """The objective's name."""
        return self.points[0].runs[0].objective

    @property
    def description(self) -> str:
        """The chosen configuration, and of how many."""
        if self.chosen is None:
            return f"none of {len(self.points)}" if len(self.points) > 1 else self.points[0].description
        return self.chosen.description + (f", best of {len(self.points)}" if len(self.points) > 1 else "")

    @property
    def seeds(self) -> str:
        """How many runs the figures are of: `5`, or `3 of 5` where some failed or are not done."""
        shown = self.chosen or self.points[0]
        return str(len(shown.runs)) if shown.complete else f"{len(shown.done)} of {len(shown.runs)}"


def describe_point(values: Mapping[str, Any]) -> str:
    """A grid point in a few words: the last part of a key, or all of it where two end alike."""
    if not values:
        return "as written"
    last = [key.rpartition(".")[2] for key in values]
    names = last if len(set(last)) == len(last) else list(values)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values.values(), strict=True))


def rows_of(records: Sequence[RunRecord]) -> list[ComparedRow]:
    """A row for each label, in the order in which they come; none has chosen yet."""
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
    """The point with the best validation mean and "", or None and why. Ties go to the first.

    A point that some seed failed at is chosen only where no point is whole: the seeds that are left would flatter it.
    """
    done = [point for point in row.points if point.done]
    if not done:
        failed = [run.reason for point in row.points for run in point.failed]
        return None, f"failed: {failed[0]}" if failed else "has not run yet"
    if len(row.points) == 1:
        return row.points[0], ""
    scores = [(point, point.mean(column, test=False)) for point in done]
    scored = [(point, score) for point, score in scores if score is not None]
    if not scored:
        return None, f"no validation row has a figure for {column.key}, which chooses among {len(row.points)} points"
    scored = [pair for pair in scored if pair[0].complete] or scored
    sign = -1 if column.arrow == DOWN else 1
    return max(scored, key=lambda pair: sign * pair[1])[0], ""


def check_selection(rows: Sequence[ComparedRow], column: Column, columns: Sequence[Column]) -> None:
    """Raise UserError where there is something to choose and nothing that it can be chosen by.

    A margin is nothing to choose by where the points have different implicit rewards: a larger beta alone raises it.
    """
    asked = [row for row in rows if len(row.points) > 1 and any(point.done for point in row.points)]
    for row in asked if column.key == MARGIN else ():
        first, *others = [point for point in row.points if point.done]
        other = next((point for point in others if point.reward_scale != first.reward_scale), None)
        if other is not None:
            raise UserError(
                f"'{MARGIN}' of {row.label} is in another unit at {other.description} than at {first.description}",
                where="select", expected="a figure that the grid does not rescale, such as preference_accuracy",
            )  # fmt: skip
    if not asked or any(choose(row, column)[0] for row in asked):
        return
    known = [
        other.key for other in columns
        if any(point.mean(other, test=False) is not None for row in asked for point in row.points)
        and other.group != "cost"
    ]  # fmt: skip
    raise UserError(
        f"no validation row has a figure for '{column.key}'", where="select",
        expected=f"one of {', '.join(known)}" if known else "data with a validation split",
        hint="a grid point is never chosen on the test split",
    )  # fmt: skip
