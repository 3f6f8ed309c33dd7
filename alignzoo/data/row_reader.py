"""A source's rows that are read when somebody looks at them: few are kept, many are read once more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from alignzoo.data.splits import SplitPlan, rows_of, survey, used_rows
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Row, Skipped

KEPT = 20_000
"""A split of at most so many rows stays in memory once it is read."""


class RowReader:
    """A source's rows: read only if somebody looks at them. Iterating gives the training rows."""

    def __init__(self, source: DataSource) -> None:
        self.source = source
        self._kept: dict[Split, list[Row | Skipped]] = {}

    @cached_property
    def survey(self) -> SplitPlan:
        """What becomes of every row. Raises UserError where `read_rows` does."""
        return survey(self.source, self._read)

    def used(self) -> Iterator[tuple[bool, Row]]:
        """Whether it is held out, and the row, of every row that is used, in the order of reading."""
        return used_rows(self.survey, self._read)

    def __iter__(self) -> Iterator[Row]:
        return (row for held_out, row in self.used() if not held_out)

    def _read(self, split: Split) -> Iterable[Row | Skipped]:
        return self._kept[split] if split in self._kept else self._reading(split)

    def _reading(self, split: Split) -> Iterator[Row | Skipped]:
        found: list[Row | Skipped] | None = []
        for row in rows_of(self.source, split):
            if found is not None:
                found.append(row)
                found = found if len(found) <= KEPT else None
            yield row
        if found is not None:
            self._kept[split] = found
