"""A comparison's report.html: one self-contained page that loads nothing from a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from alignzoo.compare.axes import TEMPERATURE
from alignzoo.compare.cells import Cell
from alignzoo.compare.columns import DOWN, Column
from alignzoo.compare.frontier_runs import FrontierTable
from alignzoo.compare.grid import ComparedRow, Point, describe_point
from alignzoo.compare.results import RunRecord
from alignzoo.compare.table import Table
from alignzoo.report.comparison import frontiers
from alignzoo.report.comparison.axes import AxisGroup, axis_groups, bound_words
from alignzoo.report.comparison.axes import cells as axis_cells
from alignzoo.report.comparison.axes import digits as axis_digits
from alignzoo.report.comparison.axes import heads as axis_heads
from alignzoo.report.comparison.axes import words as axis_words
from alignzoo.report.comparison.caption import caption, legend
from alignzoo.report.comparison.look import look
from alignzoo.report.comparison.notes import Note, failures, mark, notes, superscript
from alignzoo.report.comparison.numbers import NOTHING, bounds, difference_words, digits, number
from alignzoo.report.comparison.plots import Plot, reward_column
from alignzoo.report.glossary import TERMS
from alignzoo.report.run_page import turns

PROMPTS = 4
"""Number of prompts whose replies are shown: the first of the test split that every row answered."""


def page(table: Table, plots: Sequence[Plot]) -> str:
    """Return the HTML page. The same table gives the same bytes."""
    footnotes = notes(table)
    return _template().render(
        about=table.about,
        name=str(table.about.get("name", "comparison")),
        table=table,
        facts=list(_facts(table)),
        loud=[line.text for line in caption(table) if line.loud],
        caption=[line.text for line in caption(table) if not line.loud],
        legend=legend(table),
        glossary=TERMS.items(),
        notes=[(superscript(n), note.text) for n, note in enumerate(footnotes, 1)],
        groups=[
            _group(table, name, columns, footnotes, n == 0) for n, (name, columns) in enumerate(table.groups.items())
        ],
        axes=[
            *([_frontier_group(table, table.frontier)] if table.frontier else []),
            *(_axis_group(table, group) for group in axis_groups(table)),
        ],
        # Drawn by us; the labels in it are escaped by matplotlib.
        plots=[(plot.name, plot.title, plot.description, Markup(plot.inline)) for plot in plots],
        prompts=_replies(table),
        tried=[_tried(table, n, row) for n, row in enumerate(table.rows)],
        run_count=sum(len(point.runs) for row in table.rows for point in row.points),
        tried_columns=[column.head for column in _details(table)],
        failures=[(run.label, describe_point(run.point), run.seed, run.reason) for run in failures(table)],
    )


def _facts(table: Table) -> Iterator[tuple[str, str]]:
    """Yield (figure, label) for the head of the page."""
    runs = [run for row in table.rows for point in row.points for run in point.runs]
    seeds = {run.seed for row in table.rows if not row.start for point in row.points for run in point.runs}
    yield str(sum(not row.start for row in table.rows)), "recipes compared"
    yield str(sum(len(row.points) for row in table.rows if not row.start)), "configurations tried"
    yield str(len(seeds)), "seeds of each" if len(seeds) != 1 else "seed of each"
    failed = sum(run.state == "failed" for run in runs)
    yield f"{len(runs):,}", f"runs, {failed} failed" if failed else "runs"
    first = next((cell for column in table.columns for row in table.rows if (cell := table.cell(row, column))), None)
    if first:
        yield f"{first.estimate.examples:,}", "test pairs"


def _group(
    table: Table, name: str, columns: Sequence[Column], footnotes: Sequence[Note], first: bool
) -> dict[str, Any]:
    return {
        "title": name,
        "columns": [(column.head, column.description) for column in columns],
        "rows": [
            {
                "label": row.label,
                "mark": mark(footnotes, row.label),
                "color": look(n)["color"],
                "tag": "baseline" if row.label == table.baseline else "start" if row.start else "",
                "under": f"{row.description}, {row.seeds} run{'' if row.seeds == '1' else 's'}" if first else "",
                "failed": row.problem if first else row.problem.partition(":")[0],
                "cells": [_cell(table, row, column, footnotes) for column in columns],
            }
            for n, row in enumerate(table.rows)
        ],
    }


def _axis_group(table: Table, group: AxisGroup) -> dict[str, Any]:
    """A table for each figure over an axis: a row of the comparison in each line."""
    order = {row.label: n for n, row in enumerate(table.rows)}
    tables = [
        {
            "title": one.column.head,
            "about": one.column.description,
            "heads": axis_heads(one),
            "bounds": bound_words(one),
            "rows": [
                {"label": label, "color": look(order[label])["color"],
                 "cells": [axis_words(cell, axis_digits(one)) for cell in axis_cells(one, label)]}
                for label in one.labels
            ],
        }
        for one in group.figures
    ]  # fmt: skip
    unit = "temperature" if group.axis == TEMPERATURE else "N ="
    return {"title": group.title, "description": group.description, "unit": unit, "tables": tables, "lines": []}


def _frontier_group(table: Table, frontier: FrontierTable) -> dict[str, Any]:
    order = {row.label: n for n, row in enumerate(table.rows)}
    description, *lines = frontiers.sentences(frontier)
    tables = [
        {"title": title, "about": description, "heads": frontiers.heads(frontier), "bounds": None,
         "rows": [{"label": label, "color": look(order[label])["color"], "cells": cells} for label, cells in rows]}
        for title, rows in frontiers.tables(frontier)
    ]  # fmt: skip
    return {"title": frontiers.TITLE, "description": description, "unit": "", "tables": tables, "lines": lines}


def _cell(table: Table, row: ComparedRow, column: Column, footnotes: Sequence[Note]) -> dict[str, Any]:
    cell, decimals = table.cell(row, column), digits(table, column)
    if cell is None:
        return {"mean": NOTHING, "column": column.head, "mark": mark(footnotes, row.label, column)}
    by, around = difference_words(cell, decimals)
    return {
        "mean": number(cell.estimate.mean, decimals), "bounds": bounds(cell.estimate, decimals), "best": cell.best,
        "by": by, "around": around, "tone": _tone(cell, column), "mark": mark(footnotes, row.label, column),
        "column": column.head,
    }  # fmt: skip


def _tone(cell: Cell, column: Column) -> str:
    """`noise`, `apart`, or where one direction is better `good` or `bad`."""
    if not cell.apart or cell.difference is None:
        return "noise"
    if not column.arrow:
        return "apart"
    return "good" if (cell.difference.mean > 0) != (column.arrow == DOWN) else "bad"


def _details(table: Table) -> list[Column]:
    """The columns of the list of all runs."""
    reward = reward_column(table)
    keys = ["preference_accuracy", *([reward.key] if reward else []), "likelihood_accuracy", "kl", "length", "seconds"]
    return [column for key in dict.fromkeys(keys) if (column := table.column(key))]


def _tried(table: Table, n: int, row: ComparedRow) -> dict[str, Any]:
    """A row's configurations with their runs."""
    return {
        "label": row.label,
        "color": look(n)["color"],
        "points": [
            {
                "description": point.description,
                "chosen": point is row.chosen and len(row.points) > 1,
                "validation": _shown(point.mean(table.select, test=False), 4),
                "means": [_shown(point.mean(column, test=True), digits(table, column)) for column in _details(table)],
                "runs": [_run(table, point, run) for run in point.runs],
            }
            for point in row.points
        ],
    }


def _run(table: Table, point: Point, run: RunRecord) -> dict[str, Any]:
    done = run.state == "done"
    one = Point(point.values, (run,))
    return {
        "seed": run.seed,
        "problem": "" if done else f"failed: {run.reason}" if run.state == "failed" else "not run yet",
        "validation": _shown(one.mean(table.select, test=False), 4),
        "means": [_shown(one.mean(column, test=True), digits(table, column)) for column in _details(table)],
        "folder": run.folder,
    }


def _shown(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else number(value, decimals)


def _replies(table: Table) -> list[dict[str, Any]]:
    """Return the first shared prompts with the reply of each row's first run."""
    rows = [(n, row, row.chosen.done[0]) for n, row in enumerate(table.rows) if row.chosen and row.chosen.done]
    answers = [{str(line["id"]): line for line in run.figures.samples if line["test"]} for _, _, run in rows]
    answers = [lines for lines in answers if lines]
    rows = [one for one in rows if any(line["test"] for line in one[2].figures.samples)]
    shared = [name for name in (answers[0] if answers else {}) if all(name in lines for lines in answers)]
    return [
        {
            "turns": turns(_text(answers[0][name]["prompt"])),
            "chosen": _text(answers[0][name].get("chosen", "")),
            "replies": [
                {"label": row.label, "color": look(n)["color"], "seed": run.seed, "text": _text(lines[name]["reply"]),
                 "judged": list(_judged(lines[name]))}
                for (n, row, run), lines in zip(rows, answers, strict=True)
            ],
        }
        for name in shared[:PROMPTS]
    ]  # fmt: skip


def _judged(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of a reply in words."""
    if line.get("kl") is not None:
        yield f"KL {line['kl']:.2f}"
    for judge, figures in line.get("judges", {}).items():
        reward = figures.get("reward")
        if reward is not None:
            yield f"{judge} {reward:.2f}"


def _text(value: Any) -> str:
    """Return plain text, or chat messages as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("alignzoo.report.comparison", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
