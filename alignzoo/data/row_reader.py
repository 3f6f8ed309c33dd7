"""Read a source's rows on demand: small splits stay in memory, large ones are read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from alignzoo.data.splits import SplitPlan, plan_splits, rows_of, used_rows
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Row, Skipped, characters

MAX_ROWS_IN_MEMORY, MAX_CHARACTERS_IN_MEMORY = 20_000, 50_000_000
"""Largest split that stays in memory once it is read."""


class RowReader:
    """Lazy reader of a source's rows. Iterating yields the training rows."""

    def __init__(self, source: DataSource) -> None:
        self.source = source
        self._in_memory: dict[Split, list[Row | Skipped]] = {}
        self._large: set[Split] = set()

    @cached_property
    def plan(self) -> SplitPlan:
        """The use of every row. Raises UserError as `read_rows` does."""
        return plan_splits(self.source, self._read)

    def used(self) -> Iterator[tuple[bool, Row]]:
        """Yield (is held out, row) for every row that is used, in reading order."""
        return used_rows(self.plan, self._read)

    def __iter__(self) -> Iterator[Row]:
        return (row for held_out, row in self.used() if not held_out)

    def _read(self, split: Split) -> Iterable[Row | Skipped]:
        return self._in_memory[split] if split in self._in_memory else self._read_source(split)

    def _read_source(self, split: Split) -> Iterator[Row | Skipped]:
        rows: list[Row | Skipped] = []
        size = 0
        for row in rows_of(self.source, split):
            if split not in self._large:
                rows.append(row)
                size += characters(row) if isinstance(row, Row) else 0
                if len(rows) > MAX_ROWS_IN_MEMORY or size > MAX_CHARACTERS_IN_MEMORY:
                    self._large.add(split)
                    rows = []
            yield row
        if split not in self._large:
            self._in_memory[split] = rows
