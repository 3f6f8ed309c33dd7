"""Write a comparison's table.md, table.csv, table.json, plots and report.html."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alignzoo.compare.cells import Cell
from alignzoo.compare.columns import DOWN, UP, series
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord, read_results
from alignzoo.compare.statistics import Interval, distinguishable
from alignzoo.compare.table import Table, build
from alignzoo.core.errors import RunFailed, first_line
from alignzoo.core.files import make_folder, translate_os_errors, write_json, write_page
from alignzoo.report.comparison import axes, frontiers
from alignzoo.report.comparison.caption import caption
from alignzoo.report.comparison.markdown import markdown
from alignzoo.report.comparison.notes import notes

BETTER = {UP: "higher", DOWN: "lower", "": None}
HEADINGS = (
    "recipe", "objective", "configuration", "configurations_tried", "runs", "column", "better", "mean", "low", "high",
    "se", "simulated_coverage", "seeds", "examples", "prompts", "baseline", "difference", "difference_low",
    "difference_high", "difference_relative", "difference_distinguishable", "best", "problem",
)  # fmt: skip


def write_all(folder: Path, table: Table | None = None) -> Table:
    """Write a table in every format into `folder` and return it.

    The same records give the same bytes.

    Args:
        folder: Where to write.
        table: The table; by default that of the folder's results.json.
    """
    from alignzoo.report.comparison.page import page
    from alignzoo.report.comparison.plots import plots

    table = table or build(*read_results(folder))
    with translate_os_errors(folder):
        make_folder(folder)
    write_page(folder / "table.md", markdown(table))
    write_page(folder / "table.csv", as_csv(table))
    write_json(folder / "table.json", as_json(table))
    if table.axes:
        write_page(folder / "axes.csv", axes.as_csv(table))
    drawn = plots(table)
    for plot in drawn:
        plot.save(folder)
    write_page(folder / "report.html", page(table, drawn))
    return table


def draw_finished(folder: Path) -> Table:
    """Draw the table of a comparison. Raises RunFailed, with what is kept, when that fails."""
    kept = "every run is measured, and the same command draws the table"
    try:
        return write_all(folder)
    except RunFailed as error:
        raise error.more(kept) from error
    except Exception as error:
        raise RunFailed(f"the table could not be drawn: {type(error).__name__}: {first_line(error)}; {kept}") from error


def as_csv(table: Table) -> str:
    """Return a line for each row and column, with full precision; unknown values are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADINGS)
    for row in table.rows:
        cells = [(column, cell) for column in table.columns if (cell := table.cell(row, column))]
        first = [row.label, row.objective, row.description, len(row.points), row.seeds]
        for column, cell in cells:
            one, by = cell.estimate, cell.difference
            writer.writerow([
                *first, column.key, BETTER[column.arrow], *map(_text, (one.mean, one.low, one.high, one.se)),
                "" if one.coverage is None else one.coverage, one.seeds, one.examples, one.clusters, table.baseline,
                *(map(_text, (by.mean, by.low, by.high)) if by else ("", "", "")),
                str(cell.relative).lower() if by else "",
                str(cell.apart).lower() if by else "", str(cell.best).lower(), "",
            ])  # fmt: skip
        if row.problem:
            writer.writerow([*first, *[""] * (len(HEADINGS) - len(first) - 1), row.problem])
    return file.getvalue()


def as_json(table: Table) -> dict[str, Any]:
    """Return the whole table: rows, grid points, runs with means on both splits, caption."""
    return {
        "name": table.about.get("name", ""),
        "baseline": table.baseline,
        "select": {"column": table.select.key, "better": BETTER[table.select.arrow] or "higher", "split": "validation"},
        "caption": [asdict(line) for line in caption(table)],
        "notes": [asdict(note) for note in notes(table)],
        "columns": [
            {"key": c.key, "title": c.title, "group": c.group, "better": BETTER[c.arrow], "description": c.description}
            for c in table.columns
        ],
        "rows": [_row(table, row) for row in table.rows],
        "axes": list(axes.as_json(table)),
        "frontier": frontiers.as_json(table.frontier) if table.frontier else None,
        "about": dict(table.about),
    }


def _row(table: Table, row: ComparedRow) -> dict[str, Any]:
    return {
        "label": row.label,
        "objective": row.objective,
        "start": row.start,
        "configurations_tried": len(row.points),
        "chosen": row.chosen.values if row.chosen else None,
        "problem": row.problem or None,
        "figures": {c.key: _cell(cell) for c in table.columns if (cell := table.cell(row, c))},
        "points": [_point(table, row, point) for point in row.points],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    by = cell.difference
    more = {"relative": cell.relative, "distinguishable": by is not None and distinguishable(by)}
    difference = _interval(by) | more if by else None
    return _interval(cell.estimate) | {"difference": difference, "best": cell.best}


def _interval(estimate: Interval) -> dict[str, Any]:
    return {
        key: value if value is None or isinstance(value, int) or math.isfinite(value) else None
        for key, value in asdict(estimate).items()
    }


def _point(table: Table, row: ComparedRow, point: Point) -> dict[str, Any]:
    return {
        "point": point.values,
        "chosen": point is row.chosen,
        "validation": point.mean(table.select, test=False),
        "runs": [_run(table, run) for run in point.runs],
    }


def _run(table: Table, run: RunRecord) -> dict[str, Any]:
    means: dict[str, dict[str, float]] = {"test": {}, "validation": {}}
    for split, found in means.items() if run.state == "done" else ():
        for column in table.columns:
            numbers = series(run, column, split == "test")
            if numbers:
                found[column.key] = float(np.mean(numbers.values[np.isfinite(numbers.values)]))
    return {"seed": run.seed, "state": run.state, "reason": run.reason, "fingerprint": run.fingerprint,
            "folder": run.folder, "run": run.run} | means  # fmt: skip


def _text(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
