"""The table in a terminal: its most important columns, two lines a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as Drawn
from rich.text import Text

from alignzoo.compare.columns import COST, DOWN, JUDGES, Column
from alignzoo.compare.grid import ComparedRow
from alignzoo.compare.table import Cell, Table
from alignzoo.report.comparison.caption import Note, caption, mark, notes, raised
from alignzoo.report.comparison.numbers import NOTHING, bounds, difference_words, digits, number

WIDTH = 120
GAP = 2
MOST_OF_NAME = 30
FIRST = ("preference_accuracy",)
NEXT = ("likelihood_accuracy", "kl", "length")
"""The judges come between these."""
SHORT = {"preference_accuracy": "accuracy", "likelihood_accuracy": "by likelihood", "kl": "KL", "length": "length"}


def terminal_table(table: Table, rest: str = "table.md, table.csv, table.json and report.html") -> RenderableType:
    """What rich prints of a table in at most 120 columns; `rest` says where to find what is left out."""
    return _Shown(table, rest)


@dataclass(frozen=True)
class _Shown:
    """As many columns as the console has room for."""

    table: Table
    rest: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, said = self.table, notes(self.table)
        for line in caption(table):
            if line.loud:
                yield Text(line.text, style="bold red")
        shown = _fitting(table, said, min(WIDTH, options.max_width))
        yield _drawn(table, shown, said)
        for n, note in enumerate(said, 1):
            yield Text(f"{raised(n)} {note.text}", style="dim")
        yield Text(
            f"Mean, difference to {table.baseline} (≈: its interval contains 0), 95% interval of the mean. "
            f"{len(table.columns) - len(shown)} more figures, and how all were come by: {self.rest}",
            style="dim",
        )


def _important(table: Table) -> list[Column]:
    """Columns, most important first."""
    judged = [column for column in table.columns if column.group == JUDGES]
    first = [column for key in FIRST if (column := table.column(key))]
    then = [column for key in NEXT if (column := table.column(key))]
    rest = [column for column in table.columns if column not in (*first, *judged, *then) and column.group != COST]
    return [*first, *judged[:2], *then, *judged[2:], *rest, *(c for c in table.columns if c.group == COST)]


def _fitting(table: Table, said: Sequence[Note], width: int) -> list[Column]:
    """As many of the most important columns as fit; one at least."""
    left = width - max((cell_len(line) for row in table.rows for line in _name(row, said).split("\n")), default=0)
    shown: list[Column] = []
    for column in _important(table):
        lines = [_head(column), *(t for row in table.rows for t in _cell(table, row, column, said).plain.split("\n"))]
        left -= GAP + max(cell_len(line) for line in lines)
        if left < 0 and shown:
            break
        shown.append(column)
    return shown


def _drawn(table: Table, columns: Sequence[Column], said: Sequence[Note]) -> Drawn:
    drawn = Drawn(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    drawn.add_column("recipe", overflow="fold")
    for column in columns:
        drawn.add_column(_head(column), no_wrap=True)
    for row in table.rows:
        name, _, under = _name(row, said).partition("\n")
        drawn.add_row(Text(name, style="bold") + Text(f"\n{under}", style="dim"), *_cells(table, row, columns, said))
    return drawn


def _cells(table: Table, row: ComparedRow, columns: Sequence[Column], said: Sequence[Note]) -> Iterator[Text]:
    for n, column in enumerate(columns):
        failed = n == 0 and row.why.startswith("failed")
        yield Text("failed", style="red") if failed else _cell(table, row, column, said)


def _cell(table: Table, row: ComparedRow, column: Column, said: Sequence[Note]) -> Text:
    """Mean and difference, and under them the mean's interval."""
    cell, decimals = table.cell(row, column), digits(table, column)
    if cell is None:
        return Text(NOTHING + mark(said, row.label, column))
    text = Text(number(cell.estimate.mean, decimals), style="bold" if cell.best else "")
    by, _ = difference_words(cell, decimals)
    if by:
        text = Text.assemble(text, " ", (by.replace(" ", ""), _color(cell, column)))
    return Text.assemble(text, (f"\n{bounds(cell.estimate, decimals)}", "dim"))


def _color(cell: Cell, column: Column) -> str:
    if not cell.apart or not column.arrow or cell.difference is None:
        return "dim"
    return "green" if (cell.difference.mean > 0) != (column.arrow == DOWN) else "red"


def _head(column: Column) -> str:
    title = SHORT.get(column.key, column.title).replace("win rate over", "beats")
    return f"{title} {column.arrow}".strip()


def _name(row: ComparedRow, said: Sequence[Note]) -> str:
    """The label, and under it the configuration and the number of runs."""
    runs = f"{row.seeds} run{'' if row.seeds == '1' else 's'}"
    name, under = (
        text if len(text) <= MOST_OF_NAME else f"{text[: MOST_OF_NAME - 1]}…"
        for text in (row.label, f"{row.words}, {runs}")
    )  # fmt: skip
    return f"{name}{mark(said, row.label)}\n{under}"
