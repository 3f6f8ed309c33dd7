"""The table in a terminal: its most important columns, two lines for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as Drawn
from rich.text import Text

from alignzoo.compare.cells import Cell
from alignzoo.compare.columns import COST, DOWN, JUDGES, Column
from alignzoo.compare.grid import ComparedRow
from alignzoo.compare.table import Table
from alignzoo.report.comparison.caption import caption
from alignzoo.report.comparison.frontiers import verdicts
from alignzoo.report.comparison.notes import Note, mark, notes, superscript
from alignzoo.report.comparison.numbers import NOISE, NOTHING, bounds, difference_words, digits, number

WIDTH = 120
GAP = 2
LONGEST_NAME = 30
FIRST = ("preference_accuracy",)
NEXT = ("likelihood_accuracy", "kl", "length")
"""Columns after those of the first two judges."""
SHORT = {"preference_accuracy": "accuracy", "likelihood_accuracy": "by likelihood", "kl": "KL", "length": "length"}


def terminal_table(table: Table, rest: str = "table.md, table.csv, table.json and report.html") -> RenderableType:
    """Return the table for a rich console, at most 120 columns wide.

    Args:
        table: The table.
        rest: Where the columns that do not fit can be found.
    """
    return _Shown(table, rest)


@dataclass(frozen=True)
class _Shown:
    """As many columns as fit the console."""

    table: Table
    rest: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, footnotes = self.table, notes(self.table)
        for line in caption(table):
            if line.loud:
                yield Text(line.text, style="bold red")
        shown = _fitting(table, footnotes, min(WIDTH, options.max_width))
        yield _drawn(table, shown, footnotes)
        for n, note in enumerate(footnotes, 1):
            yield Text(f"{superscript(n)} {note.text}", style="dim")
        if table.frontier:
            yield from (Text(line) for line in verdicts(table.frontier))
        yield Text(
            f"Mean, difference from {table.baseline} (≈: its interval contains 0), 95% interval of the mean. "
            f"{len(table.columns) - len(shown)} more figures, and notes on all: {self.rest}",
            style="dim",
        )


def _important(table: Table) -> list[Column]:
    """Return the columns, most important first."""
    judged = [column for column in table.columns if column.group == JUDGES]
    first = [column for key in FIRST if (column := table.column(key))]
    then = [column for key in NEXT if (column := table.column(key))]
    rest = [column for column in table.columns if column not in (*first, *judged, *then) and column.group != COST]
    return [*first, *judged[:2], *then, *judged[2:], *rest, *(c for c in table.columns if c.group == COST)]


def _fitting(table: Table, footnotes: Sequence[Note], width: int) -> list[Column]:
    """Return the most important columns that fit, at least one."""
    left = width - max((cell_len(line) for row in table.rows for line in _name(row, footnotes).split("\n")), default=0)
    shown: list[Column] = []
    for column in _important(table):
        lines = [
            _head(column),
            *(t for row in table.rows for t in _cell(table, row, column, footnotes).plain.split("\n")),
        ]
        left -= GAP + max(cell_len(line) for line in lines)
        if left < 0 and shown:
            break
        shown.append(column)
    return shown


def _drawn(table: Table, columns: Sequence[Column], footnotes: Sequence[Note]) -> Drawn:
    drawn = Drawn(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    drawn.add_column("recipe", overflow="fold")
    for column in columns:
        drawn.add_column(_head(column), no_wrap=True)
    for row in table.rows:
        name, _, under = _name(row, footnotes).partition("\n")
        drawn.add_row(
            Text(name, style="bold") + Text(f"\n{under}", style="dim"), *_cells(table, row, columns, footnotes)
        )
    return drawn


def _cells(table: Table, row: ComparedRow, columns: Sequence[Column], footnotes: Sequence[Note]) -> Iterator[Text]:
    for n, column in enumerate(columns):
        failed = n == 0 and row.problem.startswith("failed")
        yield Text("failed", style="red") if failed else _cell(table, row, column, footnotes)


def _cell(table: Table, row: ComparedRow, column: Column, footnotes: Sequence[Note]) -> Text:
    """Return mean and difference, with the mean's interval below."""
    cell, decimals = table.cell(row, column), digits(table, column)
    if cell is None:
        return Text(NOTHING + mark(footnotes, row.label, column))
    text = Text(number(cell.estimate.mean, decimals), style="bold" if cell.best else "")
    by, _ = difference_words(cell, decimals)
    if by:
        text = Text.assemble(text, " ", (by.replace(f"{NOISE} ", NOISE), _color(cell, column)))
    return Text.assemble(text, (f"\n{bounds(cell.estimate, decimals)}", "dim"))


def _color(cell: Cell, column: Column) -> str:
    if not cell.apart or not column.arrow or cell.difference is None:
        return "dim"
    return "green" if (cell.difference.mean > 0) != (column.arrow == DOWN) else "red"


def _head(column: Column) -> str:
    title = SHORT.get(column.key, column.title).replace("win rate over", "beats")
    return f"{title} {column.arrow}".strip()


def _name(row: ComparedRow, footnotes: Sequence[Note]) -> str:
    """Return the label, with configuration and number of runs below."""
    runs = f"{row.seeds} run{'' if row.seeds == '1' else 's'}"
    name, under = (
        text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
        for text in (row.label, f"{row.description}, {runs}")
    )  # fmt: skip
    return f"{name}{mark(footnotes, row.label)}\n{under}"
