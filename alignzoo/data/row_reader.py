"""Read a source's rows on demand.

Splits that are small together stay in memory. Others are read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from alignzoo.core.errors import UserError
from alignzoo.data.splits import Place, SplitPlan, plan_splits, rows_of, used_rows
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Row, Skipped, characters

_DATA = re.compile(r"^data(?=\.|:|$)")
MAX_ROWS_IN_MEMORY, MAX_CHARACTERS_IN_MEMORY = 20_000, 50_000_000
"""Most rows, and most of their characters, that stay in memory once they are read."""


@contextmanager
def of_set(name: str, above: str = "eval.data.") -> Iterator[None]:
    """Let errors about keys of `data` name those of an evaluation set.

    `above` are the keys above it in a recipe; "" outside of one.
    """
    try:
        yield
    except UserError as error:
        problems = [replace(one, where=_DATA.sub(f"{above}{name}", one.where)) for one in error.problems]
        if problems == error.problems:
            raise
        renamed = UserError(problems)
        vars(renamed).update({key: value for key, value in vars(error).items() if key != "problems"})
        raise renamed from error


class RowReader:
    """Lazy reader of a source's rows. Iterating yields the training rows.

    Args:
        source: The source.
        evaluation: Read the source as an evaluation set: all of its rows are held out.
    """

    def __init__(self, source: DataSource, evaluation: bool = False) -> None:
        self.source, self.evaluation = source, evaluation
        self._in_memory: dict[Place, list[Row | Skipped]] = {}
        self._rows = self._characters = 0
        self._large: set[Place] = set()

    @cached_property
    def plan(self) -> SplitPlan:
        """The use of every row. Raises UserError as `read_rows` does."""
        return plan_splits(self.source, self._read, self.evaluation)

    def used(self) -> Iterator[tuple[bool, Row]]:
        """Yield (is held out, row) for every row that is used, in reading order."""
        return used_rows(self.plan, self._read)

    def __iter__(self) -> Iterator[Row]:
        return (row for held_out, row in self.used() if not held_out)

    def _read(self, place: Place) -> Iterable[Row | Skipped]:
        return self._in_memory[place] if place in self._in_memory else self._read_source(place)

    def _read_source(self, place: Place) -> Iterator[Row | Skipped]:
        rows: list[Row | Skipped] = []
        kept = 0
        for row in rows_of(self.source, place):
            if place not in self._large:
                rows.append(row)
                size = characters(row) if isinstance(row, Row) else 0
                kept, self._rows, self._characters = kept + size, self._rows + 1, self._characters + size
                if self._rows > MAX_ROWS_IN_MEMORY or self._characters > MAX_CHARACTERS_IN_MEMORY:
                    self._large.add(place)
                    self._rows, self._characters = self._rows - len(rows), self._characters - kept
                    rows = []
            yield row
        if place not in self._large:
            self._in_memory[place] = rows
