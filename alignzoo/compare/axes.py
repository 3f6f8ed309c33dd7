"""Figures of replies over an axis: the sampling temperature, or N of best-of-N."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignzoo.compare.cells import Cell, Numbers, cells_of
from alignzoo.compare.columns import (
    AT_ONE,
    JUDGES,
    OF_JUDGE,
    REPLIES,
    UP,
    Column,
    Series,
    judge_of,
    prompts_of,
    reply_series,
    reply_values,
)
from alignzoo.compare.grid import ComparedRow
from alignzoo.compare.results import Drawn, RunRecord
from alignzoo.evaluation.best_of_draws import best_of_weights, first_best, kl_bound, score_table, weighted

TEMPERATURE, BEST_OF = "temperature", "best_of"


@dataclass(frozen=True)
class AxisFigure:
    """A column of replies or judges over the places of an axis, for every row."""

    axis: str
    """TEMPERATURE or BEST_OF."""
    column: Column
    places: tuple[float, ...]
    """Temperatures, or N, rising."""
    cells: Mapping[tuple[str, float], Cell]
    """(label, place) -> figure on the test split, and its difference from the baseline at the same place."""

    @property
    def labels(self) -> list[str]:
        """Labels of the rows that have a figure, in the table's order."""
        return list(dict.fromkeys(label for label, _ in self.cells))

    def bound(self, place: float) -> float | None:
        """Return the upper bound of best-of-N's KL from the row's policy, or None, in nats."""
        return kl_bound(int(place)) if self.axis == BEST_OF else None


def axis_figures(rows: Sequence[ComparedRow], columns: Sequence[Column], base: str) -> tuple[AxisFigure, ...]:
    """Return the figures over each axis that has several places, of the rows' chosen points.

    Args:
        rows: The rows of the table.
        columns: The columns that they may have.
        base: Label of the baseline.
    """
    of_replies = [column for column in columns if column.group in (REPLIES, JUDGES) and column.key not in AT_ONE]
    runs = [run for row in rows if row.chosen for run in row.chosen.done]
    temperatures = sorted({temperature for run in runs for temperature in temperatures_of(run)})
    counts = sorted({count for run in runs for one in run.drawn for count in one.counts})
    pickers = dict.fromkeys(one.picked_by for _, one in best_of_draws(runs))
    picked = [Column(f"{name}.reward", f"{name}: reward", JUDGES, UP, OF_JUDGE[0][2]) for name in pickers]
    known = {column.key for column in of_replies}
    also = [column for column in picked if column.key not in known]
    found: list[AxisFigure] = []
    for axis, places in ((TEMPERATURE, temperatures), (BEST_OF, counts)):
        wanted = of_replies if axis == TEMPERATURE else [*of_replies, *also]
        for column in wanted if len(places) > (axis == TEMPERATURE) else ():
            at = {
                place: cells_of(column, rows, {row.label: _by_seed(row, column, axis, place) for row in rows}, base)
                for place in places
            }
            cells = {
                (row.label, place): at[place][row.label] for row in rows for place in places if row.label in at[place]
            }
            if cells:
                found.append(AxisFigure(axis, column, tuple(places), cells))
    return tuple(found)


def temperatures_of(run: RunRecord) -> list[float]:
    """Return the temperatures of a run's single replies, that of the table first."""
    own = run.figures.temperature
    more = [one.temperature for one in run.drawn if one.draws == 1]
    return [*([] if own is None else [float(own)]), *more]


def best_of_draws(runs: Sequence[RunRecord]) -> Iterator[tuple[RunRecord, Drawn]]:
    """Yield the draws of best-of-N of each run that has some."""
    for run in runs:
        yield from ((run, one) for one in run.drawn if one.counts)


def _by_seed(row: ComparedRow, column: Column, axis: str, place: float) -> Numbers:
    found: dict[int, Series] = {}
    for run in row.chosen.done if row.chosen else ():
        if axis == TEMPERATURE:
            replies = run.figures.at(place)
            series = reply_series(run, replies, column, test=True) if replies else None
        else:
            drawn = next((one for _, one in best_of_draws([run]) if place in one.counts), None)
            series = best_of_series(run, drawn, column, int(place)) if drawn else None
        if series:
            found[run.seed] = series
    return found


def best_of_series(run: RunRecord, drawn: Drawn, column: Column, count: int) -> Series | None:
    """Return the best-of-N figures of a run's test prompts, one number a prompt, or None.

    The reward of the judge that picks is the score itself. It has no win rates: what was optimized does not judge.
    """
    picker, judge = drawn.picker, judge_of(column)
    own = column.key == f"{drawn.picked_by}.reward"
    if picker["problem"] or not picker["verdicts"] or (judge == drawn.picked_by and not own):
        return None
    lines = drawn.folder.samples
    scores = score_table(picker["verdicts"], drawn.draws)
    values = scores if own else reply_values(lines, column).reshape(-1, drawn.draws)
    weigh = first_best if not own and drawn.folder.judges.get(judge, {}).get("first") else best_of_weights
    first = lines[:: drawn.draws]
    keep = [n for n, line in enumerate(first) if line["test"]]
    ids = tuple(str(first[n]["id"]) for n in keep)
    group_of = prompts_of(run)
    groups = tuple(str(group_of.get(name, name)) for name in ids) if group_of else ()
    return Series(ids, weighted(values, weigh(scores, count))[keep], groups)
