"""Write table.md: GitHub tables that are aligned in a terminal too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from alignzoo.compare.axes import TEMPERATURE, AxisFigure
from alignzoo.compare.columns import Column
from alignzoo.compare.grid import ComparedRow, describe_point
from alignzoo.compare.table import Table
from alignzoo.report.comparison import frontiers
from alignzoo.report.comparison.axes import BOUND, axis_groups, bound_words
from alignzoo.report.comparison.axes import cells as axis_cells
from alignzoo.report.comparison.axes import digits as axis_digits
from alignzoo.report.comparison.axes import heads as axis_heads
from alignzoo.report.comparison.axes import words as axis_words
from alignzoo.report.comparison.caption import caption, legend
from alignzoo.report.comparison.notes import Note, failures, mark, notes, superscript
from alignzoo.report.comparison.numbers import NOTHING, bounds, difference_words, digits, number


def markdown(table: Table) -> str:
    """Return the table as Markdown: figures, differences, notes, caption, all configurations."""
    return "\n".join(_lines(table)).rstrip() + "\n"


def _lines(table: Table) -> Iterator[str]:
    footnotes = notes(table)
    yield f"# {escape(str(table.about.get('name', 'comparison')))}\n"
    lines = caption(table)
    for line in lines:
        if line.loud:
            yield f"> **{escape(line.text)}**\n"
    for n, (group, columns) in enumerate(table.groups.items()):
        yield f"## {group.capitalize()}\n"
        yield from grid(_figures(table, columns, footnotes, first=n == 0))
        yield ""
        if any(cell.difference for (_, key), cell in table.cells.items() if key in {column.key for column in columns}):
            yield f"Difference from {escape(table.baseline)}:\n"
            yield from grid(_differences(table, columns, footnotes))
            yield ""
    for over in axis_groups(table):
        yield f"## {over.title[0].upper()}{over.title[1:]}\n\n{escape(over.description)}\n"
        for one in over.figures:
            yield f"{escape(one.column.head)}:\n"
            yield from grid(_over_axis(one))
            yield ""
    if table.frontier:
        yield f"## {frontiers.TITLE}\n"
        yield from (f"- {escape(line)}" for line in frontiers.sentences(table.frontier))
        for title, rows in frontiers.tables(table.frontier):
            yield f"\n{escape(title)}:\n"
            cells = ([escape(label), *(" ".join(one).strip() for one in own)] for label, own in rows)
            yield from grid([["recipe", *frontiers.heads(table.frontier)], *cells])
        yield ""
    for number_, note in enumerate(footnotes, 1):
        yield f"{superscript(number_)} {escape(note.text)}  "
    yield "\n## How to read it\n"
    yield from (f"- {escape(line.text)}" for line in lines if not line.loud)
    yield from (f"- {escape(head)}: {escape(description)}." for head, description in legend(table))
    yield "\n## All configurations\n"
    yield from grid(_tried(table))
    failed = failures(table)
    if failed:
        yield "\n## Failed runs\n"
        for run in failed:
            where = f"{run.label}, {describe_point(run.point)}, seed {run.seed}"
            yield f"- {escape(where)}: {escape(run.reason)}"
    if table.about.get("command"):
        yield f"\n## How it was run\n\n    {' '.join(str(table.about['command']).split())}"


def _figures(table: Table, columns: Sequence[Column], footnotes: Sequence[Note], first: bool) -> list[list[str]]:
    """Return heading and rows; the first group includes the configuration."""
    head = ["recipe", *(["configuration", "runs"] if first else []), *(column.head for column in columns)]
    decimals = [digits(table, column) for column in columns]
    out = [head]
    for row in table.rows:
        cells = [_figure(table, row, column, d, footnotes) for column, d in zip(columns, decimals, strict=True)]
        if row.problem.startswith("failed"):
            cells[0] = "failed"
        out.append([_name(row, footnotes), *([escape(row.description), row.seeds] if first else []), *cells])
    return out


def _figure(table: Table, row: ComparedRow, column: Column, decimals: int, footnotes: Sequence[Note]) -> str:
    cell, marked = table.cell(row, column), mark(footnotes, row.label, column)
    if cell is None:
        return NOTHING + marked
    mean = number(cell.estimate.mean, decimals)
    return f"{f'**{mean}**' if cell.best else mean} {bounds(cell.estimate, decimals)}".rstrip() + marked


def _differences(table: Table, columns: Sequence[Column], footnotes: Sequence[Note]) -> list[list[str]]:
    out = [["recipe", *(column.head for column in columns)]]
    for row in table.rows:
        words = [difference_words(table.cell(row, column), digits(table, column)) for column in columns]
        if any(mean for mean, _ in words):
            out.append([_name(row, footnotes), *(f"{mean} {around}".strip() or NOTHING for mean, around in words)])
    return out


def _over_axis(one: AxisFigure) -> list[list[str]]:
    head = "recipe, by temperature" if one.axis == TEMPERATURE else "recipe, by N"
    out = [[head, *axis_heads(one)]]
    if bounds_ := bound_words(one):
        out.append([BOUND, *bounds_])
    for label in one.labels:
        shown = [axis_words(cell, axis_digits(one)) for cell in axis_cells(one, label)]
        out.append([escape(label), *(f"{mean} {around}".strip() for mean, around in shown)])
    return out


def _tried(table: Table) -> list[list[str]]:
    """Return every grid point with the figure that chose among them, on both splits."""
    out = [["recipe", "configuration", "runs done", f"{table.select.title}, validation", "test", "chosen"]]
    for row in table.rows:
        for point in row.points:
            means = [point.mean(table.select, test) for test in (False, True)]
            cells = [NOTHING if mean is None else number(mean, 4) for mean in means]
            done = f"{len(point.done)} of {len(point.runs)}"
            chosen = "yes" if point is row.chosen else ""
            out.append([escape(row.label), escape(point.description), done, *cells, chosen])
    return out


def _name(row: ComparedRow, footnotes: Sequence[Note]) -> str:
    return escape(row.label) + mark(footnotes, row.label)


def grid(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a GitHub table with padded columns."""
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for n, row in enumerate(cells):
        padded = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
        if n == 0:
            yield f"| {' | '.join('-' * width for width in widths)} |"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, without ending a cell or becoming a tag."""
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", " ".join(text.split()))
