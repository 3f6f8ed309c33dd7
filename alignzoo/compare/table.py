"""The table of a comparison: means, intervals and differences from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.compare.axes import AxisFigure, axis_figures
from alignzoo.compare.cells import Cell, cells_of
from alignzoo.compare.columns import COST, JUDGES, Column, columns_of, judge_of
from alignzoo.compare.frontier_runs import FrontierTable, frontier_table
from alignzoo.compare.grid import ComparedRow, check_selection, choose, describe_point, rows_of
from alignzoo.compare.results import RunRecord
from alignzoo.core.errors import UserError, nearest

SELECT = "preference_accuracy"


@dataclass(frozen=True)
class Table:
    """The content of a table, for every output format."""

    about: Mapping[str, Any]
    rows: tuple[ComparedRow, ...]
    columns: tuple[Column, ...]
    """Columns with a figure for some row; a judge that failed in every run keeps its first column."""
    cells: Mapping[tuple[str, str], Cell]
    """(label, column's key) -> figure on the test split; unknown figures are missing."""
    baseline: str
    select: Column
    """Column that grid points were chosen by, on the validation split."""
    frontier: FrontierTable | None = None
    """Frontiers of reward against KL along training, if the comparison asks for them."""
    axes: tuple[AxisFigure, ...] = ()
    """Figures of replies over sampling temperatures, and over N of best-of-N."""

    def cell(self, row: ComparedRow, column: Column) -> Cell | None:
        """Return a row's figure, or None."""
        return self.cells.get((row.label, column.key))

    def column(self, key: str) -> Column | None:
        """Return the column with this key, or None."""
        return next((column for column in self.columns if column.key == key), None)

    @property
    def groups(self) -> dict[str, list[Column]]:
        """Columns by group."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.group, []).append(column)
        return found


def build(
    about: Mapping[str, Any], records: Sequence[RunRecord], *, baseline: str | None = None, select: str | None = None
) -> Table:
    """Return the table of a comparison's records. The same records give the same table.

    Args:
        about: Description of the comparison, from results.json.
        records: Records of its runs.
        baseline: Label of the baseline, in place of the description's.
        select: Key of the column that chooses grid points, in place of the description's.

    Raises:
        UserError: There is no such label or key, no validation row can choose a grid point, or rows have different data
            or starts and `about["allow_different_data"]` is not set.
    """
    if not records:
        raise UserError("there are no runs to make a table of")
    _once(records)
    if len(sources_of(records)) > 1 and not about.get("allow_different_data"):
        raise _different(records)
    columns = columns_of(records)
    chooser = _chooser(select or about.get("select") or SELECT, columns)
    rows = chosen_rows(records, chooser, columns)
    base = _baseline(baseline or about.get("baseline"), rows)
    cells: dict[tuple[str, str], Cell] = {}
    for column in columns:
        numbers = {row.label: row.chosen.by_seed(column, test=True) if row.chosen else {} for row in rows}
        cells |= {(label, column.key): cell for label, cell in cells_of(column, rows, numbers, base).items()}
    return Table(
        about, tuple(rows), _shown(columns, cells), cells, base, chooser,
        frontier_table(dict(about) | {"baseline": base}, rows), axis_figures(rows, columns, base),
    )  # fmt: skip


def chosen_rows(
    records: Sequence[RunRecord], chooser: Column | str, columns: Sequence[Column] | None = None
) -> list[ComparedRow]:
    """Return a row for each label, with the grid point chosen on validation rows.

    `chooser` is the column that chooses it, or the column's key.

    Raises:
        UserError: No validation row can choose a grid point, or there is no such key.
    """
    columns = columns_of(records) if columns is None else columns
    chooser = _chooser(chooser, columns) if isinstance(chooser, str) else chooser
    rows = rows_of(records)
    check_selection(rows, chooser, columns)
    return [replace(row, chosen=point, problem=problem) for row in rows for point, problem in [choose(row, chooser)]]


def _once(records: Sequence[RunRecord]) -> None:
    """Check that no two runs have the same label, grid point and seed."""
    found: set[tuple[str, str, int]] = set()
    for record in records:
        run = (record.label, describe_point(record.point), record.seed)
        if run in found:
            raise UserError(f"there are two runs of {record.label}, {run[1]}, with seed {record.seed}", expected="one")
        found.add(run)


def sources_of(records: Sequence[RunRecord]) -> dict[tuple[str, str], list[str]]:
    """Return (data, start) -> labels. A run that others start from is its own start."""
    begun = {record.start for record in records if record.start}
    found: dict[tuple[str, str], list[str]] = {}
    for record in records:
        start = record.fingerprint if record.fingerprint in begun else record.start or "its own model"
        labels = found.setdefault((record.data, start), [])
        if record.label not in labels:
            labels.append(record.label)
    return found


def _different(records: Sequence[RunRecord]) -> UserError:
    found = sources_of(records)
    differing = "data" if len({data for data, _ in found}) > 1 else "starts"
    groups = "; ".join(
        f"{', '.join(labels)} (data {data[:8]}, start {start if ' ' in start else start[:8]})"
        for (data, start), labels in found.items()
    )
    return UserError(
        f"these rows have different {differing}: {groups}", expected="the same data and the same start for all rows",
        hint="pass --allow-different-data to put them in one table, with a warning in its caption",
    )  # fmt: skip


def _chooser(key: str, columns: Sequence[Column]) -> Column:
    known = {column.key: column for column in columns if column.group != COST}
    if key not in known:
        raise UserError(
            f"there is no figure '{key}'", where="select", nearest=nearest(key, known),
            expected=f"one of {', '.join(known)}",
        )  # fmt: skip
    return known[key]


def _baseline(label: str | None, rows: Sequence[ComparedRow]) -> str:
    """Return the label of the baseline, by default the first row that is not a start."""
    labels = [row.label for row in rows]
    if label is None:
        return next((row.label for row in rows if not row.start), labels[0])
    if label not in labels:
        raise UserError(
            f"there is no row '{label}'", where="baseline", nearest=nearest(label, labels),
            expected=f"one of {', '.join(labels)}",
        )  # fmt: skip
    return label


def _shown(columns: Sequence[Column], cells: Mapping[tuple[str, str], Cell]) -> tuple[Column, ...]:
    known = {key for _, key in cells}
    judged = {judge_of(column) for column in columns if column.group == JUDGES and column.key in known}

    def failed(column: Column) -> bool:
        return column.key == f"{judge_of(column)}.reward" and judge_of(column) not in judged

    return tuple(column for column in columns if column.key in known or failed(column))
