"""Notes on single rows of a table: failed runs, missing seeds, failed judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo.compare.columns import Column, judge_of
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord
from alignzoo.compare.table import Table

DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True)
class Note:
    """A remark on some rows, or on one judge's figures of them."""

    text: str
    labels: tuple[str, ...]
    judge: str = ""


def notes(table: Table) -> list[Note]:
    """Return the notes in the order of the rows; rows with the same note share one."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        for text, judge in [*((text, "") for text in _of_row(row, table)), *_of_judges(row)]:
            labels = found.setdefault((text, judge), [])
            if row.label not in labels:
                labels.append(row.label)
    return [Note(text, tuple(labels), judge) for (text, judge), labels in found.items()]


def mark(notes: Sequence[Note], label: str, column: Column | None = None) -> str:
    """Return the superscript numbers of the notes on a row, or on a judge's column in it."""
    judge = judge_of(column) if column else ""
    if column and not judge:
        return ""
    found = [n for n, note in enumerate(notes, 1) if label in note.labels and note.judge == judge]
    return "˒".join(superscript(n) for n in found)


def superscript(number: int) -> str:
    """Return 12 as ¹²."""
    return "".join(DIGITS[int(digit)] for digit in str(number))


def failures(table: Table) -> list[RunRecord]:
    """Return every failed run, of all configurations."""
    return [run for row in table.rows for point in row.points for run in point.failed]


def plural(count: int, noun: str) -> str:
    """Return `1 run` or `1,200 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _of_row(row: ComparedRow, table: Table) -> list[str]:
    out = []
    if row.problem:
        out.append(f"{row.problem[0].upper()}{row.problem[1:]}.")
    if row.chosen:
        if row.start:
            out.append("The start of the other rows is a single run: its intervals are over examples alone.")
        elif len(row.chosen.done) == 1 and not all(_single(other) for other in table.rows):
            out.append("A single run: its intervals describe this model, not the objective.")
        if not row.chosen.complete:
            rest = plural(len(row.chosen.done), "run")
            out.append(f"{_missing(row.chosen)}: the figures are of the other {rest}.")
    others = [point for point in row.points if point is not row.chosen and not point.complete and row.chosen]
    if others:
        which = "; ".join(f"{point.description}: {_missing(point)}" for point in others)
        out.append(f"Configurations with missing runs: {which}.")
    return out


def _single(row: ComparedRow) -> bool:
    return row.chosen is None or row.start or len(row.chosen.done) == 1


def _missing(point: Point) -> str:
    failed = [f"seed {run.seed} failed ({run.reason})" for run in point.failed]
    waiting = [str(run.seed) for run in point.runs if run.state not in ("done", "failed")]
    return "; ".join([*failed, *([f"seed {', '.join(waiting)} has not run yet"] if waiting else [])])


def _of_judges(row: ComparedRow) -> list[tuple[str, str]]:
    """Return (text, judge) for every failure of a judge in the chosen point's runs."""
    runs = row.chosen.done if row.chosen else []
    found: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        for judge, about in run.figures.judges.items():
            if about["problem"]:
                found.setdefault((judge, about["problem"]), []).append(run.seed)
    return [
        (f"Judge {judge} failed: {problem}" if len(seeds) == len(runs)
         else f"Judge {judge} failed in seed {', '.join(map(str, seeds))}: {problem}", judge)
        for (judge, problem), seeds in found.items()
    ]  # fmt: skip
