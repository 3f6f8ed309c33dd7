"""The figures of one column: estimates, paired differences, and the best row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alignzoo.compare.columns import COST, DOWN, MARGIN, Beside, Column, Series, together
from alignzoo.compare.grid import ComparedRow
from alignzoo.compare.scales import estimate, paired, relative
from alignzoo.compare.statistics import Interval, distinguishable

Numbers = Mapping[int, Series]
"""Seed -> its numbers of one column."""


@dataclass(frozen=True)
class Cell:
    """A figure of a row."""

    estimate: Interval
    difference: Interval | None = None
    """Difference from the baseline, paired by seed and example; None for the baseline and without pairs."""
    relative: bool = False
    """True if the difference is relative to the baseline's figure, as it is for costs."""
    best: bool = False
    """True if it is better than every other row's by an interval that excludes 0."""
    other_unit: bool = False
    """True for a margin in another unit than the baseline's, which has no difference from it."""

    @property
    def apart(self) -> bool:
        """True if it can be distinguished from the baseline's."""
        return self.difference is not None and distinguishable(self.difference)


def cells_of(column: Column, rows: Sequence[ComparedRow], numbers: Mapping[str, Numbers], base: str) -> dict[str, Cell]:
    """Return label -> figure, for the rows that have one."""
    starts = {row.label for row in rows if row.start}
    scales = {row.label: row.chosen.reward_scale if row.chosen else "" for row in rows}
    found: dict[str, Cell] = {}
    for label, runs in numbers.items():
        own = together(list(runs.values()))
        if not own.values.size:
            continue
        # The start is another stage, whose cost is not comparable.
        incomparable = column.group == COST and (label in starts) != (base in starts)
        other_unit = column.key == MARGIN and scales[label] != scales[base]
        pair = (
            None
            if incomparable or other_unit or label == base
            else paired_numbers(runs, numbers.get(base, {}), label in starts, base in starts)
        )
        cell = Cell(estimate(own.values, column.scale, own.groups, own.weights), other_unit=other_unit)
        if pair is not None:
            by = paired(*pair.halves, column.scale, pair.groups, pair.weights)
            cell = replace(cell, difference=by, relative=relative(column.scale, *pair.halves))
        found[label] = cell
    winner = _winner(column, {label: numbers[label] for label in found}, starts, found)
    return {label: replace(cell, best=label == winner) for label, cell in found.items()}


def _winner(
    column: Column, numbers: Mapping[str, Numbers], starts: set[str], cells: Mapping[str, Cell]
) -> str | None:  # fmt: skip
    """Return the row that beats every other by an interval that excludes 0, if there is one."""
    if not column.arrow:
        return None
    sign = -1.0 if column.arrow == DOWN else 1.0
    there = [label for label in cells if column.group != COST or label not in starts]
    if len(there) < 2:
        return None
    leader = max(there, key=lambda label: sign * cells[label].estimate.mean)
    for other in there:
        if other != leader:
            pair = paired_numbers(numbers[leader], numbers[other], leader in starts, other in starts)
            if pair is None:
                return None
            by = paired(*pair.halves, column.scale, pair.groups, pair.weights)
            if not distinguishable(by) or sign * by.mean < 0:
                return None
    return leader


def paired_numbers(one: Numbers, other: Numbers, one_start: bool = False, other_start: bool = False) -> Beside | None:
    """Return the numbers of both rows on the seeds and examples that they share, or None.

    The first half of the runs is one row's, the second half the other's. The single run of a start is repeated for each
    seed of the other row.
    """
    if one_start != other_start:
        fixed, runs = (one, other) if one_start else (other, one)
        if len(fixed) == 1:
            fixed = dict.fromkeys(runs, next(iter(fixed.values())))
        one, other = (fixed, runs) if one_start else (runs, fixed)
    seeds = [seed for seed in one if seed in other]
    both = together([side[seed] for side in (one, other) for seed in seeds])
    return both if both.values.size else None
